//! Changes of names on a store that fails: what stood there before, or what should stand there now, opens
//! then and after the next mount.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::{CALLER, Fixture, Mount, WRITE};
use runvault_store::backend::{Kind, Rename};
use runvault_store::doubles::faulty::{Fault, Faults, Rule};
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::doubles::observe::Op;
use runvault_vault::Result;
use runvault_vault::authority::Authority;
use runvault_vault::check::check;

type Change = fn(&Mount) -> Result<()>;

fn long(c: &str) -> String {
    format!("run/{}", c.repeat(200))
}

fn link(vault: &Mount, path: &str, (byte, len): (u8, usize)) -> Result<()> {
    let (dir, name) = vault.parent(path)?;
    vault.symlink(&CALLER, dir, name, &vec![byte; len]).map(drop)
}

fn hard_link(vault: &Mount, from: &str, to: &str) -> Result<()> {
    let (dir, name) = vault.parent(to)?;
    vault.link(vault.ino(from)?, dir, name).map(drop)
}

fn create(vault: &Mount, path: &str) -> Result<()> {
    let (dir, name) = vault.parent(path)?;
    let (_, opened) = vault.create(&CALLER, dir, name, 0o644, WRITE)?;
    vault.release(opened.handle)
}

fn node(vault: &Mount, path: &str, kind: Kind) -> Result<()> {
    let (dir, name) = vault.parent(path)?;
    vault.mknod(&CALLER, dir, name, kind, 0o644, 0).map(drop)
}

fn over(vault: &Mount, from: &str, to: &str) -> Result<()> {
    vault.mv(from, to, Rename::Over)
}

fn swap(vault: &Mount, from: &str, to: &str) -> Result<()> {
    vault.mv(from, to, Rename::Exchange)
}

const CHANGES: [(&str, Change); 39] = [
    ("create", |v| create(v, "run/new")),
    ("create long", |v| create(v, &long("n"))),
    ("create there", |v| create(v, &long("f"))),
    ("mknod", |v| node(v, "run/new", Kind::File)),
    ("fifo", |v| node(v, &long("n"), Kind::Fifo)),
    ("mkdir", |v| v.make_dir("run/new").map(drop)),
    ("mkdir long", |v| v.make_dir(&long("n")).map(drop)),
    ("mkdir there", |v| v.make_dir("run/d").map(drop)),
    ("symlink", |v| link(v, "run/new", (b'z', 800))),
    ("symlink long", |v| link(v, &long("n"), (b'z', 800))),
    ("symlink there", |v| link(v, "run/l", (b'z', 800))),
    ("symlink the same there", |v| link(v, "run/l", (b'x', 700))),
    ("link", |v| hard_link(v, "run/a", "run/new")),
    ("link there", |v| hard_link(v, "run/a", "run/b")),
    ("link of a link", |v| hard_link(v, "run/l", &long("n"))),
    ("link of a link there", |v| hard_link(v, "run/l", "run/m")),
    ("rename", |v| over(v, "run/a", "run/new")),
    ("rename to long", |v| over(v, "run/a", &long("n"))),
    ("rename from long", |v| over(v, &long("f"), "run/d/new")),
    ("rename over", |v| over(v, "run/a", "run/b")),
    ("rename over long", |v| over(v, "run/a", &long("f"))),
    ("rename over one of two", |v| over(v, "run/a", "run/two")),
    ("rename a link", |v| over(v, "run/l", "run/d/new")),
    ("rename a link over another", |v| over(v, "run/l", "run/m")),
    ("rename a link over a long one", |v| over(v, "run/l", &long("l"))),
    ("rename a link over a file", |v| over(v, "run/l", "run/a")),
    ("rename a file over a link", |v| over(v, "run/a", "run/l")),
    ("rename a directory", |v| over(v, "run/d", "run/new")),
    ("rename a directory over another", |v| over(v, "run/d", "run/e")),
    ("exchange", |v| swap(v, "run/a", "run/d/f")),
    ("exchange links", |v| swap(v, "run/l", &long("l"))),
    ("exchange a link and a file", |v| swap(v, "run/l", "run/a")),
    ("exchange a link and a directory", |v| swap(v, "run/l", "run/d")),
    ("exchange directories", |v| swap(v, "run/d", "run/e")),
    ("unlink", |v| v.remove("run/a")),
    ("unlink long", |v| v.remove(&long("f"))),
    ("unlink a link", |v| v.remove(&long("l"))),
    ("rmdir", |v| v.remove_dir("run/e")),
    ("rmdir of what is full", |v| v.remove_dir("run/d")),
];

/// What a path leads to: a file's content or a link's target.
type Tree = BTreeMap<String, (char, Vec<u8>)>;

fn tree(vault: &Mount) -> Tree {
    let mut found = Tree::new();
    let mut dirs = vec!["run".to_owned()];
    while let Some(dir) = dirs.pop() {
        for name in vault.list(&dir).unwrap_or_else(|e| panic!("{dir}: {e}")) {
            let path = format!("{dir}/{name}");
            let attr = vault.attr(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
            let object = match attr.kind {
                Kind::Dir => {
                    dirs.push(path.clone());
                    ('d', Vec::new())
                }
                Kind::File => ('f', vault.get(&path).unwrap_or_else(|e| panic!("{path}: {e}"))),
                Kind::Symlink => ('l', vault.readlink(attr.ino).unwrap_or_else(|e| panic!("{path}: {e}"))),
                _ => ('s', Vec::new()),
            };
            found.insert(path, object);
        }
    }
    found
}

fn begin() -> (Fixture, Arc<Faults>, Mount) {
    let (root, faults) = Faults::over(MemoryDir::root()).unwrap();
    let mut fixture = Fixture::on(root);
    fixture.options.journal_bytes = 64 << 10;
    let vault = fixture.writer();
    for dir in ["run", "run/d", "run/e"] {
        vault.make_dir(dir).unwrap();
    }
    for path in ["run/a", "run/b", "run/d/f", "run/two", &long("f")] {
        change_file(&vault, path, path.as_bytes());
    }
    hard_link(&vault, "run/two", "run/d/more").unwrap();
    link(&vault, "run/l", (b'x', 700)).unwrap();
    link(&vault, "run/m", (b'y', 900)).unwrap();
    link(&vault, &long("l"), (b'w', 4000)).unwrap();
    (fixture, faults, vault)
}

/// Bytes at the end of a file, durable.
fn change_file(vault: &Mount, path: &str, bytes: &[u8]) {
    let (dir, name) = vault.parent(path).unwrap();
    let handle = match vault.ino(path) {
        Ok(ino) => vault.open_file(ino, WRITE).unwrap().handle,
        Err(_) => vault.create(&CALLER, dir, name, 0o644, WRITE).unwrap().1.handle,
    };
    let size = vault.read_all(handle).unwrap().len() as u64;
    vault.write(handle, size, bytes, false).unwrap();
    vault.fsync(handle, false).unwrap();
    vault.release(handle).unwrap();
}

/// One change with one fault: either tree is found then, and the same after more was written and the mount
/// was killed.
fn faulted(what: &str, change: Change, rule: Rule, [before, after]: &[Tree; 2]) -> bool {
    let (fixture, faults, vault) = begin();
    let said = format!("{what}, {rule:?}");
    faults.add(rule);
    let done = change(&vault).is_ok();
    faults.clear();
    let found = tree(&vault);
    assert!(found == *after || !done && found == *before, "{said}: {:?}", found.keys());
    for (path, (kind, _)) in &found {
        match kind {
            'f' => change_file(&vault, path, b"+"),
            'd' => change_file(&vault, &format!("{path}/probe"), b"probe"),
            _ => {}
        }
    }
    let found = tree(&vault);
    drop(vault);
    assert!(tree(&fixture.writer()) == found, "{said}: another tree after a kill");
    let authority: Arc<dyn Authority> = fixture.authority.clone();
    let mut events = Vec::new();
    let summary = check(&fixture.root, &authority, &|_| None, &mut |event| events.push(event)).unwrap();
    assert_eq!((summary.damages, summary.foreign_names), (0, 0), "{said}: {events:?}");
    done
}

#[test]
fn a_store_that_fails_at_any_call_costs_no_name() {
    for (what, change) in CHANGES {
        let (_fixture, _faults, vault) = begin();
        let before = tree(&vault);
        let works = change(&vault).is_ok();
        let trees = [before, tree(&vault)];
        // A call whose failure costs nothing is no sign that there are no more of them.
        let mut worked = 0;
        for after in 0.. {
            let rule = |times, fault| Rule { op: None, name: None, after, times, fault };
            faulted(what, change, rule(1, Fault::Fail(libc::EIO)), &trees);
            faulted(what, change, rule(1, Fault::FailAfter(libc::EIO)), &trees);
            let done = faulted(what, change, rule(u64::MAX, Fault::Fail(libc::EIO)), &trees);
            worked = if done { worked + 1 } else { 0 };
            if worked == 4 || (!works && after > 20) {
                break;
            }
            assert!(after < 60, "{what}: endless");
        }
    }
}

#[test]
fn a_store_that_does_not_say_whether_a_journal_is_there_costs_no_record() {
    for errno in [libc::EIO, libc::ESTALE] {
        let (fixture, faults, vault) = begin();
        let handle = vault.open_file(vault.ino("run/a").unwrap(), WRITE).unwrap().handle;
        vault.write(handle, 0, b"R", false).unwrap();
        vault.fsync(handle, false).unwrap();
        let id = vault.status().runs[0].run;
        drop(vault);
        let session = fixture.state.session(&id);
        // A lease is free to be lost.
        let dir = fixture.root.open_dir(b"runs").unwrap().open_dir(id.to_string().as_bytes()).unwrap();
        dir.unlink(b"lease").unwrap();
        let name = Some(b"journal".to_vec());
        faults.add(Rule { name, ..Rule::every(Op::Stat, Fault::Fail(errno)) });
        let vault = fixture.writer();
        vault.get("run/a").unwrap_err();
        assert_eq!(fixture.state.session(&id), session, "the session that its records are of is forgotten");
        faults.clear();
        assert_eq!(vault.get("run/a").unwrap(), b"Run/a");
        change_file(&vault, "run/a", b"+");
    }
}
