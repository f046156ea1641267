//! Between write and seal the store is someone else's: he can put back what was there once, which authenticates. The
//! ledger names it, and nothing is signed, also where he had the last session end badly. What nobody touched is signed,
//! however its sessions ended.

use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{self, CALLER, Fixture, Mount, State, WRITE, names, taken_over, would_seal};
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use runvault_crypto::digest::sha256;
use runvault_format::name::{self, Shape};
use runvault_store::backend::{Access, Dir, Kind, Rename};
use runvault_store::doubles::crash::Disk;
use runvault_store::doubles::faulty::{Fault as StoreFault, Faults, Rule};
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::doubles::observe::{Call, Observer, Op, observe};
use runvault_store::read_whole::read_whole;
use runvault_vault::api::{Allocate, OpenFlags, Opened, SetAttr};
use runvault_vault::seal::Fault;
use runvault_vault::{Damage, Error, Posix, Vault};

struct Dice(TestRng);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0.next_u64() as usize % n.max(1)
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        all.get(self.below(all.len())).cloned()
    }

    /// Lengths on both sides of a chunk's borders.
    fn len(&mut self) -> usize {
        let around = [0, 1, 100, 8_191, 8_192, 8_193, 16_384, 20_000, 60_000];
        around[self.below(around.len())] + self.below(3)
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

/// What a run shows: kinds, contents, targets.
type Shown = BTreeMap<String, String>;

fn shown(mount: &Mount) -> runvault_vault::Result<Shown> {
    let (mut found, mut stack) = (Shown::new(), vec!["run".to_owned()]);
    while let Some(dir) = stack.pop() {
        for name in mount.list(&dir)? {
            let path = format!("{dir}/{name}");
            let attr = mount.attr(&path)?;
            let mut text = format!("{:?} {:o}", attr.kind, attr.mode);
            if attr.kind != Kind::Symlink {
                let mut names = mount.listxattr(attr.ino)?;
                names.sort();
                for name in names {
                    text += &format!(" {name:?} {:?}", mount.getxattr(attr.ino, &name)?);
                }
            }
            match attr.kind {
                Kind::Dir => stack.push(path.clone()),
                Kind::Symlink => text += &format!("{:?}", mount.readlink(attr.ino)?),
                Kind::File => {
                    let content = mount.get(&path)?;
                    text += &format!(" {} {:?}", content.len(), sha256(&[&content]));
                }
                _ => {}
            }
            found.insert(path, text);
        }
    }
    Ok(found)
}

/// A stored object, byte for byte.
#[derive(Clone, Debug, PartialEq)]
enum Stored {
    Dir,
    Link(Vec<u8>),
    File(Vec<u8>),
}

/// Everything below a directory of a store, by its path there.
type Tree = BTreeMap<String, Stored>;

/// The run in a store.
fn run_of(root: &Arc<dyn Dir>) -> Arc<dyn Dir> {
    let runs = root.open_dir(b"runs").unwrap();
    let run = names(&*runs).into_iter().find(|name| name.len() == 32).unwrap();
    runs.open_dir(&run).unwrap()
}

/// Its tree.
fn tree_of(root: &Arc<dyn Dir>) -> Arc<dyn Dir> {
    run_of(root).open_dir(b"tree").unwrap()
}

fn stored(dir: &Arc<dyn Dir>) -> Tree {
    let (mut found, mut stack) = (Tree::new(), vec![(String::new(), dir.clone())]);
    while let Some((at, dir)) = stack.pop() {
        for name in names(&*dir) {
            let path = format!("{at}{}", String::from_utf8(name.clone()).unwrap());
            let object = match dir.stat(&name).unwrap().kind {
                Kind::Dir => {
                    stack.push((format!("{path}/"), dir.open_dir(&name).unwrap()));
                    Stored::Dir
                }
                Kind::Symlink => Stored::Link(dir.read_link(&name).unwrap()),
                _ => Stored::File(read_whole(&*dir, &name, 1 << 20).unwrap()),
            };
            found.insert(path, object);
        }
    }
    found
}

/// The directory that a path is in, made where it is missing, and the last name.
fn parent<'a>(tree: &Arc<dyn Dir>, path: &'a str) -> (Arc<dyn Dir>, &'a [u8]) {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut dir = tree.clone();
    for part in above.split('/').filter(|part| !part.is_empty()) {
        let _ = dir.create_dir(part.as_bytes(), 0o755);
        dir = dir.open_dir(part.as_bytes()).unwrap();
    }
    (dir, name.as_bytes())
}

fn delete(tree: &Arc<dyn Dir>, path: &str) {
    let (dir, name) = parent(tree, path);
    match dir.stat(name).map(|stat| stat.kind) {
        Err(_) => {}
        Ok(Kind::Dir) => {
            let inner = dir.open_dir(name).unwrap();
            names(&*inner).iter().for_each(|name| delete(&inner, std::str::from_utf8(name).unwrap()));
            dir.remove_dir(name).unwrap();
        }
        Ok(_) => dir.unlink(name).unwrap(),
    }
}

impl Stored {
    fn put(&self, tree: &Arc<dyn Dir>, path: &str) {
        let (dir, name) = parent(tree, path);
        let there = dir.stat(name).ok().map(|stat| stat.kind);
        match (self, there) {
            (Stored::Dir, Some(Kind::Dir)) => {}
            (Stored::File(bytes), Some(Kind::File)) => {
                let file = dir.open_file(name, Access::ReadWrite).unwrap();
                file.set_len(0).and_then(|()| file.write_at(bytes, 0)).unwrap();
            }
            _ => {
                delete(tree, path);
                match self {
                    Stored::Dir => dir.create_dir(name, 0o755).unwrap(),
                    Stored::Link(to) => dir.create_symlink(name, to).unwrap(),
                    Stored::File(bytes) => dir.create_file(name, 0o644).unwrap().write_at(bytes, 0).unwrap(),
                }
            }
        }
    }
}

/// How a run's last session ends: whoever may write to the store has a say in it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Clean,
    /// It cannot remove its journal's directory.
    ForeignJournal,
    /// A store that hangs, until someone kills the process.
    Hanging,
}

/// A run that lived through several sessions, with what its store and its state folder were on the way.
struct History {
    fixture: Fixture,
    mount: Option<Mount>,
    /// Trees of the run as they once were.
    older: Vec<Tree>,
    /// Store and state folder as kills would have left them.
    kills: Vec<(Arc<dyn Dir>, State)>,
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const DIRS: [&str; 4] = ["run", "run/x", "run/y", "run/x/z"];

impl History {
    /// `patient`: nothing that waits goes out by itself.
    fn new(patient: bool) -> Self {
        let mut fixture = Fixture::in_memory();
        fixture.options.journal_bytes = 256 << 10;
        fixture.options.delay = if patient { Duration::from_secs(60) } else { Duration::from_millis(1) };
        let mount = fixture.writer();
        mount.make_dir("run").unwrap();
        Self { fixture, mount: Some(mount), older: Vec::new(), kills: Vec::new() }
    }

    fn mount(&self) -> &Mount {
        self.mount.as_ref().unwrap()
    }

    fn tree(&self) -> Tree {
        stored(&tree_of(&self.fixture.root))
    }

    fn path(dice: &mut Dice) -> String {
        let long = "l".repeat(200);
        let name = if dice.below(12) == 0 { &long } else { NAMES[dice.below(NAMES.len())] };
        format!("{}/{name}", DIRS[dice.below(DIRS.len())])
    }

    /// One act of whoever writes; many are refused, since nothing is there.
    fn act(&self, dice: &mut Dice) -> Result<(), Error> {
        let (mount, path, n) = (self.mount(), Self::path(dice), dice.len());
        match dice.below(21) {
            0 => mount.make_dir(DIRS[1 + dice.below(3)]).map(drop),
            1..=4 => mount.put(&path, &dice.bytes(n)).map(drop),
            5..=8 => {
                let opened = mount.open_file(mount.ino(&path)?, WRITE)?.handle;
                let size = mount.attr(&path)?.size;
                let at = if dice.below(2) == 0 { size } else { dice.below(size as usize + 9_000) as u64 };
                let bytes = dice.bytes(n.min(20_000));
                let written = mount.write(opened, at, &bytes, false);
                if dice.below(3) == 0 {
                    mount.fsync(opened, false)?;
                }
                mount.release(opened)?;
                written
            }
            9 | 10 => {
                let size = Some(n as u64);
                let change = SetAttr { size, ..SetAttr::NOTHING };
                mount.setattr(&CALLER, mount.ino(&path)?, None, &change).map(drop)
            }
            11 => {
                let opened = mount.open_file(mount.ino(&path)?, WRITE)?.handle;
                let punched =
                    mount.fallocate(opened, dice.len() as u64, n as u64 + 1, Allocate::PunchHole, false);
                mount.release(opened)?;
                punched
            }
            12 | 13 => {
                let how = [Rename::Over, Rename::Over, Rename::Exchange][dice.below(3)];
                mount.mv(&path, &Self::path(dice), how)
            }
            14 => mount.remove(&path),
            15 => {
                let (dir, name) = mount.parent(&path)?;
                let to = if dice.below(4) == 0 { "t/".repeat(400) } else { format!("to {}", dice.below(9)) };
                mount.symlink(&CALLER, dir, name, to.as_bytes()).map(drop)
            }
            16 => mount.remove_dir(DIRS[1 + dice.below(3)]),
            17 => {
                let change = SetAttr { mode: Some(0o600 | dice.below(0o100) as u32), ..SetAttr::NOTHING };
                mount.setattr(&CALLER, mount.ino(&path)?, None, &change).map(drop)
            }
            18 | 19 => {
                let (ino, name) = (mount.ino(&path)?, [&b"user.one"[..], b"user.two"][dice.below(2)]);
                match dice.below(3) {
                    0 => mount.removexattr(ino, name),
                    _ => mount.setxattr(ino, name, &dice.bytes(5), 0),
                }
            }
            _ => {
                let to = Self::path(dice);
                let (dir, name) = mount.parent(&to)?;
                mount.link(mount.ino(&path)?, dir, name).map(drop)
            }
        }
    }

    fn acts(&mut self, dice: &mut Dice, n: usize) {
        for _ in 0..n {
            match self.act(dice) {
                Ok(()) | Err(Error::Posix(_)) => {}
                Err(other) => panic!("{other}"),
            }
            if dice.below(4) == 0 {
                std::thread::sleep(Duration::from_millis(2));
                self.mount().tick().unwrap();
            }
        }
    }

    /// The process ends, cleanly or killed, and the next one begins.
    fn remount(&mut self, clean: bool) {
        let mount = self.mount.take().unwrap();
        if clean {
            mount.close().unwrap();
        } else {
            std::mem::forget(mount);
        }
        self.older.push(self.tree());
        let mount = self.fixture.writer();
        // Whatever a killed one left is put in order.
        mount.list("run").unwrap();
        self.mount = Some(mount);
    }

    /// The last session ends; gives what it shows before.
    fn end(&mut self, how: End) -> Shown {
        let mount = self.mount.take().unwrap();
        if how == End::Hanging {
            // What was written is synced, and what was changing is told, before the store hangs.
            for _ in 0..3 {
                std::thread::sleep(Duration::from_millis(70));
                mount.tick().unwrap();
            }
        }
        let truth = shown(&mount).unwrap();
        match how {
            End::Clean => mount.close().unwrap(),
            End::ForeignJournal => {
                let run = run_of(&self.fixture.root);
                let _ = run.create_dir(b"journal", 0o700);
                let journal = run.open_dir(b"journal").unwrap();
                journal.create_file(b"foreign", 0o644).unwrap();
                mount.close().unwrap_err();
                journal.unlink(b"foreign").unwrap();
            }
            End::Hanging => std::mem::forget(mount),
        }
        truth
    }

    /// What a kill would leave now.
    fn kill(&mut self) {
        self.kills.push((copy(&self.fixture.root), self.fixture.state.apart()));
        self.older.push(self.tree());
    }
}

/// Another store with the same in it.
fn copy(root: &Arc<dyn Dir>) -> Arc<dyn Dir> {
    Disk::of(&**root).unwrap().live()
}

/// A writer of some store, or a reader.
fn mount(root: &Arc<dyn Dir>, fixture: &Fixture, state: Option<&State>) -> Mount {
    let gateway =
        state.map(|state| -> Arc<dyn runvault_vault::authority::Gateway> { Arc::new(state.clone()) });
    Mount(Vault::open(root.clone(), fixture.authority.clone(), gateway, fixture.options).unwrap())
}

/// One act of whoever may write to the store, with nothing that was not there once but a flipped bit; what he did, in words.
fn act(dice: &mut Dice, tree: &Arc<dyn Dir>, older: &[Tree]) -> Option<String> {
    let now = stored(tree);
    let names = |keep: fn(&Stored) -> bool| -> Vec<String> {
        now.iter()
            .filter(|(path, s)| keep(s) && !path.ends_with("_dir"))
            .map(|(path, _)| path.clone())
            .collect()
    };
    let files = names(|s| matches!(s, Stored::File(bytes) if bytes.len() > 1024));
    let (all, bound) = (names(|_| true), names(|s| !matches!(s, Stored::Link(_))));
    let then = dice.of(older)?;
    let file = dice.of(&files)?;
    let Some(Stored::File(new)) = now.get(&file) else { return None };
    let chunks = (new.len() - 1024) / 8220;
    let put = |bytes: &[u8]| Stored::File(bytes.to_vec()).put(tree, &file);
    match dice.below(12) {
        0 => {
            let path = dice.of(&all)?;
            delete(tree, &path);
            Some(format!("deleted {path}"))
        }
        1..=3 => {
            // Something as it once was, there or not.
            let paths: Vec<_> = then.iter().filter(|(path, s)| now.get(*path) != Some(s)).collect();
            let (path, old) = dice.of(&paths)?;
            old.put(tree, path);
            Some(format!("put an older {path} back"))
        }
        4 => {
            // Chunks, or the header, of an older copy.
            let Some(Stored::File(old)) = then.get(&file) else { return None };
            let (mut mixed, n) = (new.clone(), 1 + old.len().saturating_sub(1024).div_ceil(8220));
            let part = dice.below(n);
            let range = if part == 0 { 0..1024 } else { 1024 + (part - 1) * 8220..1024 + part * 8220 };
            let range = range.start..range.end.min(old.len()).min(new.len()).max(range.start);
            mixed.get_mut(range.clone())?.copy_from_slice(old.get(range.clone())?);
            (mixed != *new).then(|| put(&mixed))?;
            Some(format!("put an older part {part} of {file} back"))
        }
        5 => {
            let len = 1024 + dice.below(chunks + 1) * 8220;
            new.get(..len).filter(|cut| cut.len() < new.len()).map(put)?;
            Some(format!("cut {file} to {len}"))
        }
        6 => {
            put(b"");
            Some(format!("emptied {file}"))
        }
        7 => {
            let (mut holed, i) = (new.clone(), dice.below(chunks));
            holed.get_mut(1024 + i * 8220..1024 + (i + 1) * 8220)?.fill(0);
            (holed != *new).then(|| put(&holed))?;
            Some(format!("punched chunk {i} out of {file}"))
        }
        8 => {
            let (path, other) = (dice.of(&all)?, dice.of(&all)?);
            let (one, two) = (now.get(&path)?, now.get(&other)?);
            if one == two || *one == Stored::Dir || *two == Stored::Dir {
                return None;
            }
            two.put(tree, &path);
            one.put(tree, &other);
            Some(format!("swapped {path} and {other}"))
        }
        9 => {
            let (mut flipped, at) = (new.clone(), dice.below(new.len()));
            *flipped.get_mut(at)? ^= 1 << dice.below(8);
            put(&flipped);
            Some(format!("flipped a bit of {file} at {at}"))
        }
        10 => {
            let path = dice.of(&bound)?;
            let (dir, name) = parent(tree, &path);
            let mode = dir.stat(name).unwrap().mode & 0o777 ^ (1 << dice.below(6));
            dir.set_mode(name, mode).unwrap();
            Some(format!("gave {path} the mode {mode:o}"))
        }
        _ => {
            let path = dice.of(&bound)?;
            let (dir, name) = parent(tree, &path);
            let xattrs = dir.entry_xattrs(name).unwrap();
            let attribute = dice.of(&xattrs.xattrs().unwrap())?;
            xattrs.remove_xattr(&attribute).unwrap();
            Some(format!("removed an attribute of {path}"))
        }
    }
}

/// [`act`], and the places that are others since: other bytes, another mode, other attributes, under each of their names.
fn tamper(dice: &mut Dice, tree: &Arc<dyn Dir>, older: &[Tree]) -> Option<(String, Vec<String>)> {
    let before = dressed(tree);
    let said = act(dice, tree, older)?;
    let after = dressed(tree);
    let places = before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path));
    Some((said, places.cloned().collect()))
}

/// Everything in a tree with its mode and its attributes.
fn dressed(tree: &Arc<dyn Dir>) -> BTreeMap<String, (Stored, u32, Vec<Vec<u8>>)> {
    let dress = |(path, object): (String, Stored)| {
        let (dir, name) = parent(tree, &path);
        let of_entry = dir.entry_xattrs(name).and_then(|entry| entry.xattrs());
        let xattrs = if matches!(object, Stored::Link(_)) { Vec::new() } else { of_entry.unwrap() };
        let mode = dir.stat(name).unwrap().mode;
        (path, (object, mode, xattrs))
    };
    stored(tree).into_iter().map(dress).collect()
}

/// Whether a fault names one of these places, what it is in, something in it, or the name that a side file is of.
fn names_one_of(faults: &[Fault], places: &[String]) -> bool {
    let within = |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
    let folder = |path: &str| path.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().as_bytes().to_vec();
    let is_side = |path: &str| matches!(name::shape(&last(path)), Shape::SideName | Shape::SideLink);
    faults.iter().any(|fault| {
        let object = fault.object.strip_prefix("tree/").unwrap_or("");
        places.iter().any(|place| {
            within(object, place)
                || within(place, object)
                || is_side(place) && folder(place) == folder(object)
        })
    })
}

/// Faults that only the ledger finds.
fn of_the_ledger(faults: &[Fault]) -> usize {
    faults.iter().filter(|fault| matches!(fault.damage, None | Some(Damage::NotAsWritten(_)))).count()
}

fn cases() -> usize {
    std::env::var("RUNVAULT_TAMPERINGS").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

/// Random histories, and random acts between write and seal: either it is named and nothing is signed, or the run is
/// what was written all the same.
#[test]
fn what_the_stores_side_puts_back_is_named_and_not_signed() {
    let mut dice = Dice(TestRng::from_seed(RngAlgorithm::ChaCha, &[9; 32]));
    let (mut done, mut refused, mut by_ledger) = (0, 0, 0);
    while done < cases() {
        let patient = dice.below(3) == 0;
        let mut history = History::new(patient);
        history.acts(&mut dice, 30);
        for _ in 0..2 {
            history.remount(true);
            history.acts(&mut dice, 25);
            history.kill();
            history.acts(&mut dice, 5);
        }
        history.remount(true);
        let how = [End::Clean, End::ForeignJournal, End::Hanging][dice.below(if patient { 2 } else { 3 })];
        history.acts(&mut dice, 10);
        let truth = history.end(how);
        // However a process was killed, nothing is called changed that nobody changed.
        for (store, state) in &history.kills {
            let faults = would_seal(&mount(store, &history.fixture, Some(state)), b"run");
            assert_eq!(faults, []);
        }
        assert_eq!(would_seal(&history.fixture.writer(), b"run"), [], "nobody touched it");
        let mut tries = 0;
        while tries < 60 && done < cases() {
            tries += 1;
            let root = copy(&history.fixture.root);
            let Some((said, places)) = tamper(&mut dice, &tree_of(&root), &history.older) else { continue };
            done += 1;
            let state = history.fixture.state.apart();
            let faults = would_seal(&mount(&root, &history.fixture, Some(&state)), b"run");
            if faults.is_empty() {
                let now = shown(&mount(&root, &history.fixture, None));
                let error = now.as_ref().err();
                assert_eq!(now.as_ref().ok(), Some(&truth), "signed after {how:?}: {said}: {error:?}");
            } else {
                assert!(names_one_of(&faults, &places), "{said}: {places:?}: {faults:?}");
                refused += 1;
                by_ledger += usize::from(of_the_ledger(&faults) > 0);
            }
        }
    }
    eprintln!("{done} acts, {refused} refused, {by_ledger} by the ledger");
    assert!(
        refused * 10 > done * 9 && by_ledger * 2 > done,
        "{done} acts, {refused} refused, {by_ledger} by it"
    );
}

/// Each thing by its name.
#[test]
fn each_thing_that_was_put_back_is_named() {
    let fixture = Fixture::in_memory();
    let mount = fixture.writer();
    mount.make_dir("run").unwrap();
    mount.make_dir("run/d").unwrap();
    for (path, n) in [
        ("run/older", 9_000),
        ("run/gone", 10),
        ("run/back", 20_000),
        ("run/d/cut", 30_000),
        ("run/mode", 11),
        ("run/x", 12),
    ] {
        mount.put(path, &vec![1; n]).unwrap();
    }
    mount.setxattr(mount.ino("run/x").unwrap(), b"user.sample", b"NA12878", 0).unwrap();
    let run = mount.ino("run").unwrap();
    mount.symlink(&CALLER, run, b"one", b"1").unwrap();
    mount.symlink(&CALLER, run, b"two", b"2").unwrap();
    mount.close().unwrap();
    let tree = tree_of(&fixture.root);
    let before = stored(&tree);
    let mount = fixture.writer();
    mount.put("run/older", &[2; 9_000]).unwrap();
    mount.remove("run/back").unwrap();
    mount.close().unwrap();
    let after = stored(&tree);
    assert_eq!(would_seal(&fixture.writer(), b"run"), []);
    let changed = |path: &&String| after.get(*path) != before.get(*path);
    for path in before.keys().filter(changed) {
        before[path].put(&tree, path);
    }
    let of_len = |n: usize| {
        let of = |(_, s): &(&String, &Stored)| matches!(s, Stored::File(bytes) if bytes.len() == n);
        after.iter().find(of).unwrap()
    };
    delete(&tree, of_len(1024 + 28 + 10).0);
    let (path, Stored::File(whole)) = of_len(1024 + 30_000 + 4 * 28) else { panic!("no file") };
    Stored::File(whole[..1024 + 8220].to_vec()).put(&tree, path);
    let links: Vec<_> = after.iter().filter(|(_, s)| matches!(s, Stored::Link(_))).collect();
    links[0].1.put(&tree, links[1].0);
    links[1].1.put(&tree, links[0].0);
    let (dir, name) = parent(&tree, of_len(1024 + 28 + 11).0);
    dir.set_mode(name, 0o666).unwrap();
    let (dir, name) = parent(&tree, of_len(1024 + 28 + 12).0);
    let xattrs = dir.entry_xattrs(name).unwrap();
    xattrs.remove_xattr(&xattrs.xattrs().unwrap()[0]).unwrap();
    let mut said = said_of(&fixture);
    said.sort();
    let words = |what: &str| format!("not what was written: {what}");
    let expected = [
        ("back", words("it was removed, and is there again")),
        ("d/cut", said.iter().find(|(path, _)| path == "d/cut").unwrap().1.clone()),
        ("gone", "missing".to_owned()),
        ("mode", words("another mode")),
        ("older", words("an earlier state of it, or of a part of it")),
        ("one", words("another link in its place")),
        ("two", words("another link in its place")),
        ("x", words("another extended attribute")),
    ];
    let expected: Vec<_> = expected.map(|(path, what)| (path.to_owned(), what)).into();
    assert_eq!(said, expected);
    // Nothing was signed, and the run goes on.
    let mount = fixture.writer();
    mount.put("run/more", b"x").unwrap();
    assert_eq!(common::posix(mount.remove("run/gone")), Posix::NotFound);
}

/// What was there before the takeover has no name in the ledger, and a content once it was written anew.
#[test]
fn what_was_written_anew_after_a_takeover_is_compared() {
    let fixture = Fixture::in_memory();
    let mount = fixture.writer();
    mount.make_dir("run").unwrap();
    for name in ["run/anew", "run/as-it-was"] {
        mount.put(name, &[1; 30_000]).unwrap();
    }
    mount.close().unwrap();
    let run = mount.status().runs[0].run;
    drop(mount);
    let tree = tree_of(&fixture.root);
    let before = stored(&tree);
    taken_over(&fixture.root, &*fixture.authority, &fixture.state, &run).unwrap();
    let mount = fixture.writer();
    let opened =
        mount.open_file(mount.ino("run/anew").unwrap(), OpenFlags { truncate: true, ..WRITE }).unwrap();
    mount.write(opened.handle, 0, &[2; 20_000], false).unwrap();
    mount.release(opened.handle).unwrap();
    mount.close().unwrap();
    drop(mount);
    let after = stored(&tree);
    assert_eq!(would_seal(&fixture.writer(), b"run"), []);
    let changed: Vec<_> = before.keys().filter(|path| after.get(*path) != before.get(*path)).collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
    for path in changed {
        before[path].put(&tree, path);
    }
    let what = "not what was written: longer than it was left".to_owned();
    assert_eq!(said_of(&fixture), [("anew".to_owned(), what)]);
}

/// Whoever opens a file that was emptied in the store, a scanner or the instrument, makes it no honest one.
#[test]
fn an_emptied_file_that_is_opened_is_named() {
    let fixture = Fixture::in_memory();
    let mount = fixture.writer();
    mount.make_dir("run").unwrap();
    mount.put("run/file", &[1; 10_000]).unwrap();
    mount.put("run/empty", b"").unwrap();
    mount.close().unwrap();
    let tree = tree_of(&fixture.root);
    let long = |(_, s): &(&String, &Stored)| matches!(s, Stored::File(bytes) if bytes.len() > 10_000);
    let path = stored(&tree).iter().find(long).unwrap().0.clone();
    Stored::File(Vec::new()).put(&tree, &path);
    let mount = fixture.writer();
    assert_eq!(mount.get("run/file").unwrap(), b"");
    // One that was left empty is an honest one, also once something is in it.
    mount.put("run/empty", b"no more").unwrap();
    mount.close().unwrap();
    let faults = would_seal(&fixture.writer(), b"run");
    let named: Vec<_> = faults.iter().map(|fault| fault.path.clone().unwrap()).collect();
    assert_eq!(named, [b"file".to_vec()], "{faults:?}");
    let mount = fixture.writer();
    mount.put("run/file", b"written again").unwrap();
    mount.close().unwrap();
    let named: Vec<_> =
        would_seal(&fixture.writer(), b"run").iter().map(|f| f.path.clone().unwrap()).collect();
    assert_eq!(named, [b"file".to_vec()], "what was written behind it does not make it whole");
    let mount = fixture.writer();
    mount.remove("run/file").unwrap();
    mount.close().unwrap();
    assert_eq!(would_seal(&fixture.writer(), b"run"), [], "removed through the mount, it is nobody's loss");
}

#[test]
fn a_directory_that_was_taken_away_can_be_given_up() {
    let fixture = Fixture::in_memory();
    let mount = fixture.writer();
    mount.make_dir("run").unwrap();
    mount.make_dir("run/d").unwrap();
    mount.put("run/d/file", &[1; 100]).unwrap();
    mount.close().unwrap();
    let tree = tree_of(&fixture.root);
    let dir = stored(&tree).iter().find(|(_, s)| **s == Stored::Dir).unwrap().0.clone();
    delete(&tree, &dir);
    let faults = would_seal(&fixture.writer(), b"run");
    assert_eq!(faults.iter().map(|f| f.path.clone().unwrap()).collect::<Vec<_>>(), [b"d".to_vec()]);
    let mount = fixture.writer();
    mount.make_dir("run/d").unwrap();
    mount.remove_dir("run/d").unwrap();
    mount.close().unwrap();
    assert_eq!(would_seal(&fixture.writer(), b"run"), []);
}

/// Tells that a note of the ledger is on its way to the disk, and holds it up.
struct Noting(Mutex<Option<Sender<()>>>);

impl Observer for Noting {
    fn around(&self, call: Call<'_>, run: &mut dyn FnMut() -> std::io::Result<u64>) -> std::io::Result<()> {
        let tell = if call.op == Op::SyncData { self.0.lock().unwrap().take() } else { None };
        if let Some(tell) = tell {
            tell.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        run().map(drop)
    }
}

#[test]
fn an_empty_file_that_is_opened_while_it_is_renamed_is_no_other() {
    let mut fixture = Fixture::in_memory();
    let noting = Arc::new(Noting(Mutex::default()));
    fixture.state.ledgers = observe(fixture.state.ledgers.clone(), noting.clone()).unwrap();
    let mount = fixture.writer();
    mount.make_dir("run").unwrap();
    for path in ["run/a", "run/c", "run/d"] {
        mount.put(path, b"").unwrap();
    }
    mount.close().unwrap();
    for (from, to, how) in [("run/a", "run/b", Rename::Over), ("run/c", "run/d", Rename::Exchange)] {
        let mount = fixture.writer();
        let file = mount.ino(from).unwrap();
        let (tell, told) = channel();
        *noting.0.lock().unwrap() = Some(tell);
        std::thread::scope(|scope| {
            let mount = &mount;
            scope.spawn(move || {
                told.recv().unwrap();
                let opened = mount.open_file(file, WRITE).unwrap().handle;
                mount.write(opened, 0, b"in it", false).unwrap();
                mount.release(opened).unwrap();
            });
            mount.mv(from, to, how).unwrap();
        });
        mount.close().unwrap();
    }
    assert_eq!(would_seal(&fixture.writer(), b"run"), []);
}

/// A run has its name in a file of its own, and an older one of it authenticates.
#[test]
fn an_earlier_name_of_the_run_is_named() {
    let fixture = Fixture::in_memory();
    let mount = fixture.writer();
    mount.make_dir("temporary").unwrap();
    let stored = || read_whole(&*run_of(&fixture.root), b"name", 4096).unwrap();
    let put = |name: &[u8]| {
        let file = run_of(&fixture.root).open_file(b"name", Access::ReadWrite).unwrap();
        file.set_len(0).and_then(|()| file.write_at(name, 0)).unwrap();
    };
    let older = stored();
    mount.mv("temporary", "run", Rename::Over).unwrap();
    let newer = stored();
    let named = |mount: &Mount, name: &[u8]| {
        let faults = would_seal(mount, name);
        faults.into_iter().map(|fault| (fault.object, fault.damage)).collect::<Vec<_>>()
    };
    let another = [("name".to_owned(), Some(Damage::NotAsWritten("another name of the run")))];
    // While this process knows better, and after it.
    put(&older);
    assert_eq!(named(&mount, b"run"), another);
    mount.close().unwrap();
    let mount = fixture.writer();
    assert_eq!(named(&mount, b"temporary"), another);
    mount.close().unwrap();
    run_of(&fixture.root).unlink(b"name").unwrap();
    run_of(&fixture.root).create_file(b"name", 0o644).unwrap();
    put(&newer);
    let mount = fixture.writer();
    assert_eq!(named(&mount, b"run"), []);
    // The way out without the newer one.
    put(&older);
    mount.close().unwrap();
    let mount = fixture.writer();
    mount.mv("temporary", "run", Rename::Over).unwrap();
    assert_eq!(named(&mount, b"run"), []);
}

/// What was changed in the last seconds is settled by the session's end, also by one that somebody else spoils.
#[test]
fn a_short_file_put_back_is_named_although_the_journal_could_not_be_removed() {
    let fixture = Fixture::in_memory();
    let mount = fixture.writer();
    mount.make_dir("run").unwrap();
    mount.put("run/file", &[1; 5_000]).unwrap();
    mount.close().unwrap();
    let older = stored(&tree_of(&fixture.root));
    let mount = fixture.writer();
    mount.put("run/file", &[2; 5_000]).unwrap();
    let run = run_of(&fixture.root);
    let _ = run.create_dir(b"journal", 0o700);
    let journal = run.open_dir(b"journal").unwrap();
    journal.create_file(b"foreign", 0o644).unwrap();
    mount.close().unwrap_err();
    journal.unlink(b"foreign").unwrap();
    let tree = tree_of(&fixture.root);
    let newer = stored(&tree);
    older.iter().for_each(|(path, object)| object.put(&tree, path));
    let faults = would_seal(&fixture.writer(), b"run");
    let what = Damage::NotAsWritten("an earlier state of it, or of a part of it");
    assert_eq!(faults.into_iter().map(|fault| fault.damage).collect::<Vec<_>>(), [Some(what)]);
    newer.iter().for_each(|(path, object)| object.put(&tree, path));
    assert_eq!(would_seal(&fixture.writer(), b"run"), []);
}

/// A file of 20,000 ones that was synced and stays open.
fn open_file(mount: &Mount) -> Opened {
    mount.make_dir("run").unwrap();
    let run = mount.ino("run").unwrap();
    let (_, opened) = mount.create(&CALLER, run, b"file", 0o644, WRITE).unwrap();
    mount.write(opened.handle, 0, &[1; 20_000], false).unwrap();
    mount.fsync(opened.handle, false).unwrap();
    opened
}

/// He shows an earlier state of a chunk to a write of a part of it, and takes it back before the new one is in place: what
/// was not written over is an earlier state all the same.
#[test]
fn an_earlier_state_that_was_shown_to_a_write_of_a_part_is_named() {
    let fixture = Fixture::in_memory();
    let mount = fixture.writer();
    let opened = open_file(&mount);
    let tree = tree_of(&fixture.root);
    let older = stored(&tree);
    mount.write(opened.handle, 0, &[2; 20_000], false).unwrap();
    mount.fsync(opened.handle, false).unwrap();
    let newer = stored(&tree);
    older.iter().for_each(|(path, object)| object.put(&tree, path));
    mount.write(opened.handle, 100, &[3; 10], false).unwrap();
    newer.iter().for_each(|(path, object)| object.put(&tree, path));
    mount.fsync(opened.handle, false).unwrap();
    mount.release(opened.handle).unwrap();
    assert_eq!(mount.get("run/file").unwrap()[..3], [1; 3], "the control: he got it in");
    let faults = would_seal(&mount, b"run");
    let what = Damage::NotAsWritten("an earlier state of it, or of a part of it");
    assert_eq!(faults.into_iter().map(|fault| fault.damage).collect::<Vec<_>>(), [Some(what)]);
}

/// What is tried again has left the sum once.
#[test]
fn a_chunk_for_which_there_was_no_room_in_place_makes_no_seal_impossible() {
    let (store, faults) = Faults::over(MemoryDir::root()).unwrap();
    let fixture = Fixture::on(store);
    let mount = fixture.writer();
    let opened = open_file(&mount);
    mount.write(opened.handle, 0, &[2; 9_000], false).unwrap();
    // The first goes into the journal.
    faults.add(Rule { after: 1, ..Rule::next(Op::Write, StoreFault::Fail(libc::ENOSPC)) });
    mount.fsync(opened.handle, false).unwrap_err();
    mount.fsync(opened.handle, false).unwrap();
    mount.release(opened.handle).unwrap();
    assert_eq!(mount.get("run/file").unwrap()[8_999..9_001], [2, 1]);
    assert_eq!(would_seal(&mount, b"run"), []);
}

/// The first file of a tree, and where it is.
fn first_file(tree: &Tree) -> (&String, &Stored) {
    tree.iter().find(|(_, s)| matches!(s, Stored::File(_))).expect("a file")
}

fn said_of(fixture: &Fixture) -> Vec<(String, String)> {
    let said = |fault: Fault| {
        let path = String::from_utf8(fault.path.unwrap()).unwrap();
        (path, fault.damage.map_or("missing".to_owned(), |damage| damage.to_string()))
    };
    would_seal(&fixture.writer(), b"run").into_iter().map(said).collect()
}

/// A rename brings in place what waits, and nobody asks for the file afterwards.
#[test]
fn a_file_whose_bytes_waited_as_it_was_renamed_is_compared() {
    let mut fixture = Fixture::in_memory();
    fixture.options.delay = Duration::from_secs(600);
    let mount = fixture.writer();
    mount.make_dir("run").unwrap();
    mount.put("run/a", &[1; 20_000]).unwrap();
    mount.close().unwrap();
    let mount = fixture.writer();
    let opened = mount.open_file(mount.ino("run/a").unwrap(), WRITE).unwrap().handle;
    mount.write(opened, 100, &[2; 100], false).unwrap();
    mount.release(opened).unwrap();
    mount.mv("run/a", "run/b", Rename::Over).unwrap();
    mount.close().unwrap();
    assert_eq!(said_of(&fixture), []);
    let tree = tree_of(&fixture.root);
    Stored::File(Vec::new()).put(&tree, first_file(&stored(&tree)).0);
    let what = "not what was written: an empty file in its place";
    assert_eq!(said_of(&fixture), [("b".to_owned(), what.to_owned())]);
}

/// What is said where the one file that the `first` session left is put back as it was, after what came `then`.
fn put_back(first: impl FnOnce(&Mount), then: impl FnOnce(&Fixture)) -> Vec<(String, String)> {
    let fixture = Fixture::in_memory();
    let mount = fixture.writer();
    mount.make_dir("run").unwrap();
    first(&mount);
    mount.close().unwrap();
    let tree = tree_of(&fixture.root);
    let earlier = stored(&tree);
    then(&fixture);
    assert_eq!(said_of(&fixture), []);
    let (path, older) = first_file(&earlier);
    older.put(&tree, path);
    said_of(&fixture)
}

/// An attribute gives an empty file its header; what is written to it later is all that there is.
#[test]
fn a_file_that_was_empty_but_for_an_attribute_is_compared() {
    let first = |mount: &Mount| {
        mount.put("run/a", b"").unwrap();
        mount.setxattr(mount.ino("run/a").unwrap(), b"user.one", b"1", 0).unwrap();
    };
    let said = put_back(first, |fixture| {
        let mount = fixture.writer();
        let opened = mount.open_file(mount.ino("run/a").unwrap(), WRITE).unwrap().handle;
        mount.write(opened, 0, b"content", false).unwrap();
        mount.release(opened).unwrap();
        mount.close().unwrap();
    });
    assert_eq!(said, [("a".to_owned(), "not what was written: cut short".to_owned())]);
}

/// After a kill an empty file may have an id that nobody noted, but none that was there before.
#[test]
fn an_older_file_in_the_place_of_an_empty_one_is_named_after_a_kill() {
    let first = |mount: &Mount| _ = mount.put("run/a", &[1; 5_000]).unwrap();
    let said = put_back(first, |fixture| {
        let mount = fixture.writer();
        mount.remove("run/a").unwrap();
        mount.put("run/a", b"").unwrap();
        mount.close().unwrap();
        let mount = fixture.writer();
        mount.make_dir("run/d").unwrap();
        std::mem::forget(mount);
    });
    let what = "not what was written: another file in its place";
    assert_eq!(said, [("a".to_owned(), what.to_owned())]);
}

/// Of what is appended to acknowledged bytes the chunk that they end in goes out last. After a kill before that more is
/// stored than the file's size says, and nobody need open the file again before the seal.
#[test]
fn an_append_that_a_kill_cut_short_is_no_change_in_the_store() {
    let mut fixture = Fixture::with_ledgers(MemoryDir::root());
    fixture.options.delay = Duration::from_secs(3_600);
    let mount = fixture.writer();
    mount.make_dir("run").unwrap();
    let (acknowledged, name) = (vec![1; 5_000], "run/a");
    let opened = mount.open_file(mount.put(name, &acknowledged).unwrap(), WRITE).unwrap().handle;
    mount.fsync(opened, false).unwrap();
    mount.write(opened, 5_000, &[2; 10_000], false).unwrap();
    mount.release(opened).unwrap();
    std::mem::forget(mount);
    let mount = fixture.writer();
    assert_eq!(would_seal(&mount, b"run"), []);
    assert!(mount.get(name).unwrap() == acknowledged);
}

/// Readers of the open run would refuse it there.
#[test]
fn a_header_that_does_not_know_all_names_of_its_file_is_named() {
    let first = |mount: &Mount| _ = mount.put("run/a", &[1; 5_000]).unwrap();
    let said = put_back(first, |fixture| {
        let mount = fixture.writer();
        mount.link(mount.ino("run/a").unwrap(), mount.ino("run").unwrap(), b"b").unwrap();
        mount.close().unwrap();
    });
    assert_eq!(said.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["b"], "{said:?}");
}
