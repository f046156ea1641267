//! Random operations on names against a tree in memory, with remounts in between.

use std::collections::BTreeMap;

use crate::common::{self, Fixture, Mount};
use proptest::prelude::*;
use runvault_store::backend::{Kind, Rename};
use runvault_vault::api::SetAttr;
use runvault_vault::{Error, Posix, Result};

/// Few names, so that they meet; one is long.
fn name(n: u8) -> String {
    match n % 5 {
        4 => "l".repeat(200),
        n => ["a", "b", "c", "d"][usize::from(n)].to_owned(),
    }
}

#[derive(Clone, Debug)]
enum Op {
    Dir(Vec<u8>),
    /// Path, byte, how many.
    File(Vec<u8>, u8, usize),
    Append(Vec<u8>, u8, usize),
    Link(Vec<u8>, Vec<u8>),
    Symlink(Vec<u8>, u16),
    Unlink(Vec<u8>),
    Rmdir(Vec<u8>),
    Rename(Vec<u8>, Vec<u8>, u8),
    Truncate(Vec<u8>, u16),
    Fsync(Vec<u8>),
    Remount,
    Kill,
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0u8..5, 1..=3)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => path().prop_map(Op::Dir),
        5 => (path(), any::<u8>(), 0usize..20_000).prop_map(|(p, b, n)| Op::File(p, b, n)),
        3 => (path(), any::<u8>(), 0usize..9000).prop_map(|(p, b, n)| Op::Append(p, b, n)),
        2 => (path(), path()).prop_map(|(a, b)| Op::Link(a, b)),
        3 => (path(), target()).prop_map(|(p, n)| Op::Symlink(p, n)),
        3 => path().prop_map(Op::Unlink),
        2 => path().prop_map(Op::Rmdir),
        6 => (path(), path(), 0u8..3).prop_map(|(a, b, h)| Op::Rename(a, b, h)),
        2 => (path(), 0u16..20_000).prop_map(|(p, n)| Op::Truncate(p, n)),
        2 => path().prop_map(Op::Fsync),
        1 => Just(Op::Remount),
        1 => Just(Op::Kill),
    ]
}

/// Lengths of targets on both sides of those that have a side file, few enough to meet again.
fn target() -> impl Strategy<Value = u16> {
    prop_oneof![Just(9), Just(600), Just(623), Just(624), Just(700), Just(3000)]
}

/// Links above all, most of them with few names.
fn link_op() -> impl Strategy<Value = Op> {
    let path = || prop_oneof![5 => prop::collection::vec(0u8..5, 1..=1), 1 => path()];
    prop_oneof![
        6 => (path(), target()).prop_map(|(p, n)| Op::Symlink(p, n)),
        6 => (path(), path(), 0u8..3).prop_map(|(a, b, h)| Op::Rename(a, b, h)),
        2 => (path(), path()).prop_map(|(a, b)| Op::Link(a, b)),
        2 => path().prop_map(Op::Unlink),
        1 => path().prop_map(Op::Dir),
        1 => path().prop_map(|p| Op::File(p, 1, 100)),
        1 => path().prop_map(Op::Rmdir),
        1 => Just(Op::Remount),
    ]
}

/// What a path leads to; a number is that of its content, of a link its target.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File(usize),
    Link(usize),
}

#[derive(Default)]
struct Model {
    nodes: BTreeMap<String, Node>,
    contents: Vec<Vec<u8>>,
}

fn text(path: &[u8]) -> String {
    path.iter().map(|n| name(*n)).collect::<Vec<_>>().join("/")
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl Model {
    fn parent_is_there(&self, path: &str) -> std::result::Result<(), Posix> {
        let dir = parent(path);
        let mut at = String::new();
        for part in dir.split('/').filter(|p| !p.is_empty()) {
            at = if at.is_empty() { part.to_owned() } else { format!("{at}/{part}") };
            match self.nodes.get(&at) {
                None => return Err(Posix::NotFound),
                Some(Node::Dir) => {}
                Some(_) => return Err(Posix::NotDirectory),
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &str, node: Node) -> std::result::Result<(), Posix> {
        self.parent_is_there(path)?;
        if self.nodes.contains_key(path) {
            return Err(Posix::Exists);
        }
        self.nodes.insert(path.to_owned(), node);
        Ok(())
    }

    fn find(&self, path: &str) -> std::result::Result<&Node, Posix> {
        self.parent_is_there(path)?;
        self.nodes.get(path).ok_or(Posix::NotFound)
    }

    fn file(&mut self, path: &str) -> std::result::Result<&mut Vec<u8>, Posix> {
        match self.find(path)?.clone() {
            Node::File(n) => Ok(&mut self.contents[n]),
            Node::Dir => Err(Posix::IsDirectory),
            Node::Link(_) => Err(Posix::Invalid),
        }
    }

    fn is_empty_dir(&self, path: &str) -> bool {
        !self.nodes.keys().any(|k| k.starts_with(&format!("{path}/")))
    }

    fn rename(&mut self, from: &str, to: &str, how: Rename) -> std::result::Result<(), Posix> {
        self.parent_is_there(from)?;
        self.parent_is_there(to)?;
        let source = self.find(from)?.clone();
        let target = self.nodes.get(to).cloned();
        match (how, &target) {
            (Rename::NoReplace, Some(_)) => return Err(Posix::Exists),
            (Rename::Exchange, None) => return Err(Posix::NotFound),
            _ => {}
        }
        let same = match (&source, &target) {
            (Node::File(a), Some(Node::File(b))) | (Node::Link(a), Some(Node::Link(b))) => a == b,
            _ => from == to,
        };
        if same {
            return Ok(());
        }
        let within = |a: &str, b: &str| a.starts_with(&format!("{b}/"));
        if how == Rename::Exchange {
            if within(to, from) || within(from, to) {
                return Err(Posix::Invalid);
            }
            let (one, other) = (self.take(from), self.take(to));
            self.give(to, from, one);
            self.give(from, to, other);
            return Ok(());
        }
        match (&source, &target) {
            (Node::Dir, Some(Node::Dir)) if within(to, from) => return Err(Posix::Invalid),
            (Node::Dir, Some(Node::Dir)) if !self.is_empty_dir(to) => return Err(Posix::NotEmpty),
            (Node::Dir, Some(Node::Dir)) => {}
            (Node::Dir, Some(_)) => return Err(Posix::NotDirectory),
            (_, Some(Node::Dir)) => return Err(Posix::IsDirectory),
            (Node::Dir, None) if within(to, from) => return Err(Posix::Invalid),
            _ => {}
        }
        let moved = self.take(from);
        self.nodes.remove(to);
        self.give(to, from, moved);
        Ok(())
    }

    fn take(&mut self, path: &str) -> Vec<(String, Node)> {
        let below = format!("{path}/");
        let keys: Vec<String> =
            self.nodes.keys().filter(|k| *k == path || k.starts_with(&below)).cloned().collect();
        keys.into_iter().map(|k| (k.clone(), self.nodes.remove(&k).unwrap())).collect()
    }

    fn give(&mut self, to: &str, from: &str, nodes: Vec<(String, Node)>) {
        for (key, node) in nodes {
            self.nodes.insert(format!("{to}{}", &key[from.len()..]), node);
        }
    }
}

fn at(path: &str) -> String {
    format!("run/{path}")
}

fn outcome<T>(result: Result<T>) -> std::result::Result<(), Posix> {
    match result {
        Ok(_) => Ok(()),
        Err(Error::Posix(p)) => Err(p),
        Err(other) => panic!("{other}"),
    }
}

const HOW: [Rename; 3] = [Rename::Over, Rename::NoReplace, Rename::Exchange];

fn apply(vault: &Mount, model: &mut Model, op: &Op) {
    let (found, expected) = match op {
        Op::Dir(p) => (outcome(vault.make_dir(&at(&text(p)))), model.add(&text(p), Node::Dir)),
        Op::File(p, byte, n) => {
            let (path, data) = (text(p), vec![*byte; *n]);
            let expected = match model.nodes.get(&path) {
                Some(_) => model.file(&path).map(|content| *content = data.clone()),
                None => {
                    let n = model.contents.len();
                    model.add(&path, Node::File(n)).map(|()| model.contents.push(data.clone()))
                }
            };
            (outcome(vault.put(&at(&path), &data)), expected)
        }
        Op::Append(p, byte, n) => {
            let (path, data) = (text(p), vec![*byte; *n]);
            let expected = model.file(&path).map(|content| content.extend_from_slice(&data));
            let appended = || -> Result<()> {
                let ino = vault.ino(&at(&path))?;
                let handle = vault.open_file(ino, common::WRITE)?.handle;
                let size = vault.getattr(ino, Some(handle))?.size;
                vault.write(handle, size, &data, false)?;
                vault.release(handle)
            };
            (outcome(appended()), expected)
        }
        Op::Link(p, q) => {
            let (from, to) = (text(p), text(q));
            let expected = match model.find(&from).cloned() {
                Ok(Node::Dir) => Err(Posix::NotPermitted),
                Ok(node) => model.add(&to, node),
                Err(e) => Err(e),
            };
            let linked = || -> Result<()> {
                let ino = vault.ino(&at(&from))?;
                let to = at(&to);
                let (dir, name) = vault.parent(&to)?;
                vault.link(ino, dir, name).map(drop)
            };
            // Which of two reasons is told first is the kernel's business.
            let (found, expected) = (outcome(linked()), expected);
            (found.map_err(|_| Posix::NotFound), expected.map_err(|_| Posix::NotFound))
        }
        Op::Symlink(p, n) => {
            let (path, target) = (text(p), vec![b't'; usize::from(*n)]);
            let made = || -> Result<()> {
                let path = at(&path);
                let (dir, name) = vault.parent(&path)?;
                vault.symlink(&common::CALLER, dir, name, &target).map(drop)
            };
            let link = Node::Link(model.contents.len());
            (outcome(made()), model.add(&path, link).map(|()| model.contents.push(target.clone())))
        }
        Op::Unlink(p) => {
            let path = text(p);
            let expected = match model.find(&path).cloned() {
                Ok(Node::Dir) => Err(Posix::IsDirectory),
                other => other.map(|_| {
                    model.nodes.remove(&path);
                }),
            };
            (outcome(vault.remove(&at(&path))), expected)
        }
        Op::Rmdir(p) => {
            let path = text(p);
            let expected = match model.find(&path).cloned() {
                Ok(Node::Dir) if !model.is_empty_dir(&path) => Err(Posix::NotEmpty),
                Ok(Node::Dir) => {
                    model.nodes.remove(&path);
                    Ok(())
                }
                Ok(_) => Err(Posix::NotDirectory),
                Err(e) => Err(e),
            };
            (outcome(vault.remove_dir(&at(&path))), expected)
        }
        Op::Rename(p, q, how) => {
            let (from, to) = (text(p), text(q));
            let how = HOW[usize::from(*how)];
            let found = outcome(vault.mv(&at(&from), &at(&to), how));
            // A directory over its own ancestor is "not empty" and "invalid" at once.
            let expected = model.rename(&from, &to, how);
            (found, expected)
        }
        Op::Truncate(p, n) => {
            let path = text(p);
            let size = u64::from(*n);
            let expected = model.file(&path).map(|content| content.resize(usize::from(*n), 0));
            let change = SetAttr {
                mode: None,
                uid: None,
                gid: None,
                size: Some(size),
                atime: runvault_store::backend::SetTime::Omit,
                mtime: runvault_store::backend::SetTime::Omit,
                kill_suidgid: false,
            };
            let cut = || vault.setattr(&common::CALLER, vault.ino(&at(&path))?, None, &change);
            (outcome(cut()), expected)
        }
        Op::Fsync(p) => {
            let path = text(p);
            let synced = || -> Result<()> {
                let handle = vault.open_file(vault.ino(&at(&path))?, common::WRITE)?.handle;
                vault.fsync(handle, false)?;
                vault.release(handle)
            };
            (outcome(synced()), model.file(&path).map(drop))
        }
        Op::Remount | Op::Kill => return,
    };
    assert_eq!(found, expected, "{op:?}");
}

fn compare(vault: &Mount, model: &Model) {
    let mut dirs = vec![String::new()];
    let mut seen = 0;
    while let Some(dir) = dirs.pop() {
        let in_vault = at(&dir);
        for name in vault.list_by(in_vault.trim_end_matches('/'), 3).unwrap() {
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            seen += 1;
            let attr = vault.attr(&at(&path)).unwrap();
            match model.nodes.get(&path) {
                Some(Node::Dir) => {
                    assert_eq!(attr.kind, Kind::Dir);
                    dirs.push(path);
                }
                Some(Node::File(n)) => {
                    assert_eq!(attr.size, model.contents[*n].len() as u64, "{path}");
                    assert!(vault.get(&at(&path)).unwrap() == model.contents[*n], "content of {path}");
                    let links = model.nodes.values().filter(|other| **other == Node::File(*n)).count();
                    assert_eq!(attr.nlink as usize, links, "{path}");
                }
                Some(Node::Link(n)) => {
                    assert_eq!(attr.size, model.contents[*n].len() as u64, "{path}");
                    assert_eq!(vault.readlink(attr.ino).unwrap(), model.contents[*n], "{path}");
                }
                None => panic!("{path} is there and should not be"),
            }
        }
    }
    assert_eq!(seen, model.nodes.len());
}

fn run(ops: &[Op], fixture: &Fixture) {
    let mut vault = fixture.writer();
    vault.make_dir("run").unwrap();
    let mut model = Model::default();
    for op in ops {
        match op {
            Op::Remount => {
                vault.close().unwrap();
                vault = fixture.writer();
            }
            // The page cache survives; what no write has reached it may be lost, so all goes out.
            Op::Kill => {
                for path in model.nodes.iter().filter(|(_, n)| matches!(n, Node::File(_))).map(|(p, _)| p) {
                    let handle =
                        vault.open_file(vault.ino(&at(path)).unwrap(), common::WRITE).unwrap().handle;
                    vault.fsync(handle, true).unwrap();
                    vault.release(handle).unwrap();
                }
                std::mem::forget(vault);
                vault = fixture.writer();
            }
            other => apply(&vault, &mut model, other),
        }
    }
    compare(&vault, &model);
    vault.close().unwrap();
    compare(&fixture.reader(), &model);
    let authority: std::sync::Arc<dyn runvault_vault::authority::Authority> = fixture.authority.clone();
    let mut events = Vec::new();
    let summary =
        runvault_vault::check::check(&fixture.root, &authority, &|_| None, &mut |event| events.push(event))
            .unwrap();
    let found = (summary.damages, summary.foreign_names, summary.leftovers);
    assert_eq!(found, (0, 0, 0), "{events:?}");
    // Whatever was done, and however sessions ended, the store holds what the ledger says.
    assert_eq!(common::would_seal(&fixture.writer(), b"run"), []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn like_a_plain_tree_in_memory(ops in prop::collection::vec(op(), 1..40)) {
        run(&ops, &Fixture::in_memory());
    }

    #[test]
    fn links_like_those_of_a_plain_tree(ops in prop::collection::vec(link_op(), 1..25)) {
        run(&ops, &Fixture::in_memory());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn like_a_plain_tree_on_disk(ops in prop::collection::vec(op(), 1..40)) {
        run(&ops, &Fixture::on_disk());
    }
}
