//! Names under power cuts: what fsync acknowledged is found again, under a name it had or was given.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{self, CALLER, Fixture, Mount, WRITE};
use runvault_store::backend::{Dir, Kind, Rename};
use runvault_store::doubles::crash::{Disk, Draw};
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::doubles::observe::{Call, Observer, Op as StoreOp, observe};
use runvault_store::doubles::recording::Recording;
use runvault_vault::api::{Allocate, Handle, Ino, SetAttr};
use runvault_vault::authority::Gateway;
use runvault_vault::{Damage, Vault};

/// A file whose content was acknowledged.
#[derive(Clone, Debug, PartialEq)]
struct Acknowledged {
    content: Vec<u8>,
    /// Names of which one must lead to it.
    paths: Vec<String>,
    /// Its last name was taken away.
    gone: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Mkdir(String),
    Put(String),
    Rename(String, String, Rename),
    Unlink(String),
    Link(String, String),
    SyncDir(String),
}

fn path(draw: &mut Draw) -> String {
    let dirs = ["", "d/", "e/", "d/e/"];
    let long = "l".repeat(180);
    let names = ["a", "b", "d", "e", &long];
    let (dir, name) = (draw.below(4) as usize, draw.below(5) as usize);
    format!("run/{}{}", dirs[dir], names[name])
}

/// Mostly what is there: a file that is owed, or a directory above one.
fn known(draw: &mut Draw, owed: &[Acknowledged]) -> String {
    let file = owed.get(draw.below(owed.len() as u64 + 1) as usize);
    let Some(mut path) = file.and_then(|f| f.paths.last()).map(String::as_str) else { return path(draw) };
    if draw.below(3) == 0
        && let Some((above, _)) = path.rsplit_once('/').filter(|(above, _)| *above != "run")
    {
        path = above;
    }
    path.to_owned()
}

fn op(draw: &mut Draw, owed: &[Acknowledged]) -> Op {
    let how = |n| [Rename::Over, Rename::Over, Rename::Exchange][n as usize];
    match draw.below(14) {
        0 | 1 => Op::Mkdir(path(draw)),
        2 | 3 => Op::Put(path(draw)),
        4 => Op::Put(known(draw, owed)),
        5..=8 => Op::Rename(known(draw, owed), path(draw), how(draw.below(3))),
        9 => Op::Unlink(known(draw, owed)),
        10..=12 => Op::Link(known(draw, owed), path(draw)),
        _ => {
            let path = known(draw, owed);
            Op::SyncDir(path.rsplit_once('/').map_or("run", |(above, _)| above).to_owned())
        }
    }
}

/// New content for a path, acknowledged: a new file, or one chunk of an old one changed.
fn put(vault: &Mount, path: &str, mark: u8) -> Option<Vec<u8>> {
    let (dir, name) = vault.parent(path).ok()?;
    let handle = match vault.create(&CALLER, dir, name, 0o644, WRITE) {
        Ok((_, opened)) => {
            vault.write(opened.handle, 0, &vec![mark; 20_000], false).unwrap();
            opened.handle
        }
        Err(_) => {
            let opened = vault.open_file(vault.ino(path).ok()?, WRITE).ok()?;
            vault.write(opened.handle, 9000, &[mark; 500], false).unwrap();
            opened.handle
        }
    };
    vault.fsync(handle, false).unwrap();
    let content = vault.read_all(handle).unwrap();
    vault.release(handle).unwrap();
    Some(content)
}

fn below<'a>(path: &'a str, dir: &str) -> Option<&'a str> {
    path.strip_prefix(dir).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Does the operation; tells what is owed afterwards.
fn act(vault: &Mount, op: &Op, mark: u8, owed: &mut Vec<Acknowledged>) {
    match op {
        Op::Mkdir(path) => drop(vault.make_dir(path)),
        Op::Put(path) => {
            let before = vault.get(path).ok();
            let Some(content) = put(vault, path, mark) else { return };
            match owed.iter_mut().find(|o| Some(&o.content) == before.as_ref() && !o.gone) {
                Some(old) => old.content = content,
                None => owed.push(Acknowledged { content, paths: vec![path.clone()], gone: false }),
            }
        }
        Op::Rename(from, to, how) => {
            let replaced = vault.get(to).ok();
            let moved = vault.get(from).ok();
            if replaced.is_some() && replaced == moved || vault.mv(from, to, *how).is_err() {
                return;
            }
            for file in owed.iter_mut() {
                let mut more = Vec::new();
                for path in &file.paths {
                    more.extend(below(path, from).map(|rest| format!("{to}{rest}")));
                    if *how == Rename::Exchange {
                        more.extend(below(path, to).map(|rest| format!("{from}{rest}")));
                    }
                }
                file.paths.extend(more);
                file.gone |= *how == Rename::Over && Some(&file.content) == replaced.as_ref();
            }
        }
        Op::Unlink(path) => {
            let Ok(content) = vault.get(path) else { return };
            if vault.remove(path).is_err() {
                return;
            }
            for file in owed.iter_mut().filter(|o| o.content == content) {
                // A directory's names change in order: another one in the same directory was there before.
                let above = |path: &str| path.rsplit_once('/').map(|(above, _)| above.to_owned());
                let beside = file.paths.iter().filter(|other| above(other) == above(path));
                file.gone |= !beside.into_iter().any(|other| vault.get(other).is_ok_and(|c| c == content));
            }
        }
        Op::Link(from, to) => {
            let Ok(content) = vault.get(from) else { return };
            let Ok((dir, name)) = vault.parent(to) else { return };
            if vault.link(vault.ino(from).unwrap(), dir, name).is_ok() {
                owed.iter_mut().filter(|o| o.content == content).for_each(|o| o.paths.push(to.clone()));
            }
        }
        Op::SyncDir(path) => {
            let Ok(handle) = vault.ino(path).and_then(|ino| vault.opendir(ino)) else { return };
            vault.fsyncdir(handle).unwrap();
            vault.releasedir(handle).unwrap();
        }
    }
}

fn holds(vault: &Mount, owed: &Acknowledged) -> bool {
    owed.gone || owed.paths.iter().any(|path| vault.get(path).is_ok_and(|found| found == owed.content))
}

fn mount(root: Arc<dyn Dir>, fixture: &Fixture, state: &common::State) -> Mount {
    let gateway: Arc<dyn Gateway> = Arc::new(state.clone());
    Mount(Vault::open(root, fixture.authority.clone(), Some(gateway), fixture.options).unwrap())
}

/// A vault whose store is recorded, and the disk beneath it.
struct Session {
    fixture: Fixture,
    state: common::State,
    vault: Mount,
    disk: Disk,
    recording: Arc<Recording>,
    draw: Draw,
    owed: Vec<Acknowledged>,
    history: Vec<Op>,
}

impl Session {
    fn begin(seed: u64) -> Self {
        let memory = MemoryDir::root();
        let mut fixture = Fixture::with_ledgers(memory.clone());
        let first = fixture.writer();
        first.make_dir("run").unwrap();
        first.close().unwrap();
        let disk = Disk::of(&*memory).unwrap();
        let (root, recording) = Recording::over(memory).unwrap();
        fixture.state.ledgers = root.open_dir(b"ledgers").unwrap();
        let vault = mount(root, &fixture, &fixture.state);
        // The session of the run begins here: what recovers it later must know it.
        vault.ino("run").and_then(|run| vault.opendir(run)).and_then(|h| vault.releasedir(h)).unwrap();
        let state = fixture.state.apart();
        let (owed, history, draw) = (Vec::new(), Vec::new(), Draw::new(seed));
        Self { fixture, state, vault, disk, recording, draw, owed, history }
    }

    /// Does one operation, with power cuts after each change that it made and behind it.
    fn step(&mut self, op: Op, cuts: usize) {
        let before = self.owed.clone();
        act(&self.vault, &op, self.history.len() as u8, &mut self.owed);
        self.history.push(op);
        if self.draw.below(3) == 0 {
            self.vault.tick().unwrap();
        }
        for change in self.recording.take() {
            self.disk.advance(&change).unwrap();
            for _ in 0..cuts {
                self.cut(&before);
            }
        }
        let owed = self.owed.clone();
        for _ in 0..cuts {
            self.cut(&owed);
        }
    }

    fn cut(&mut self, before: &[Acknowledged]) {
        let store = self.disk.cut(&mut Draw::new(self.draw.below(1 << 60))).unwrap();
        let mut state = self.state.apart();
        state.ledgers = store.open_dir(b"ledgers").unwrap();
        let again = mount(store, &self.fixture, &state);
        if self.draw.below(4) == 0 {
            let alarm = common::would_seal(&again, b"run").into_iter().find(|fault| match fault.damage {
                None | Some(Damage::NotAsWritten(_)) => true,
                // What no sync acknowledged may be torn.
                Some(_) => false,
            });
            assert_eq!(alarm, None, "after {:?}", self.history);
        }
        for (file, after) in before.iter().zip(&self.owed) {
            let kept = holds(&again, file) || holds(&again, after);
            assert!(kept, "lost {:?} after {:?}", file.paths, self.history);
        }
    }
}

#[test]
fn acknowledged_files_survive_power_cuts_under_one_of_their_names() {
    for seed in 0..60 {
        let mut session = Session::begin(seed);
        for _ in 0..14 {
            let op = op(&mut session.draw, &session.owed);
            session.step(op, 2);
        }
    }
}

fn named(ops: &[Op]) {
    for seed in 0..6 {
        let mut session = Session::begin(seed);
        for op in ops {
            session.step(op.clone(), 12);
        }
    }
}

fn run(path: &str) -> String {
    format!("run/{path}")
}

#[test]
fn a_directory_renamed_over_records_that_name_its_old_path() {
    let (a, b) = (run("d/a"), run("e/a"));
    named(&[
        Op::Mkdir(run("d")),
        Op::Put(a.clone()),
        Op::Put(a),
        Op::Rename(run("d"), run("e"), Rename::Over),
        Op::SyncDir("run".into()),
        Op::Put(b),
        Op::Rename(run("e"), run("d"), Rename::Over),
        Op::SyncDir("run".into()),
    ]);
}

#[test]
fn two_renames_of_one_file_and_of_one_directory_without_a_sync_between() {
    let over = Rename::Over;
    named(&[
        Op::Put(run("a")),
        Op::Rename(run("a"), run("b"), over),
        Op::Rename(run("b"), run("c"), over),
        Op::Rename(run("c"), run("a"), over),
        Op::Mkdir(run("d")),
        Op::Put(run("d/x")),
        Op::Rename(run("d"), run("e"), over),
        Op::Rename(run("e"), run("f"), over),
    ]);
}

#[test]
fn exchanges_and_renames_over_linked_files_with_records() {
    named(&[
        Op::Put(run("a")),
        Op::Put(run("b")),
        Op::Put(run("a")),
        Op::Put(run("b")),
        Op::Rename(run("a"), run("b"), Rename::Exchange),
        Op::SyncDir("run".into()),
        Op::Put(run("a")),
        Op::Link(run("a"), run("c")),
        Op::Put(run("b")),
        Op::Rename(run("b"), run("c"), Rename::Over),
        Op::SyncDir("run".into()),
        Op::Put(run("a")),
        Op::Unlink(run("c")),
    ]);
}

/// A name that went, not durably, may be the one that comes back: what binds the file knows it.
#[test]
fn links_made_and_taken_away_without_a_sync_between() {
    let over = Rename::Over;
    named(&[
        Op::Mkdir(run("d")),
        Op::Put(run("a")),
        Op::Link(run("a"), run("b")),
        Op::Unlink(run("a")),
        Op::Link(run("b"), run("c")),
        Op::Unlink(run("b")),
        Op::Rename(run("c"), run("d/x"), over),
        Op::Link(run("d/x"), run("d/y")),
        Op::Rename(run("d/x"), run("d/z"), over),
        Op::Link(run("d/z"), run("d/a")),
        Op::Unlink(run("d/y")),
        Op::Unlink(run("d/z")),
        Op::Rename(run("d/a"), run("e"), over),
        Op::Put(run("e")),
    ]);
}

/// A record finds its file by a path that is durable, or the chunk is not written over.
#[test]
fn a_file_that_is_written_over_under_a_name_that_is_not_durable() {
    let over = Rename::Over;
    let (d, a, e) = (Op::Mkdir(run("d")), Op::Put(run("d/a")), run("e"));
    let link = Op::Link(run("d/a"), run("d/b"));
    named(&[d.clone(), a.clone(), Op::Rename(run("d/a"), e.clone(), over), Op::Put(e.clone())]);
    named(&[d.clone(), a.clone(), Op::Rename(run("d"), e, over), Op::Put(run("e/a"))]);
    named(&[d.clone(), a.clone(), link.clone(), Op::Unlink(run("d/a")), Op::Put(run("d/b"))]);
    named(&[d, a.clone(), Op::Put(run("b")), Op::Rename(run("d/a"), run("b"), Rename::Exchange), a, link]);
}

/// What a link leads to: the byte and the length of its target.
type Target = (u8, usize);

fn link(vault: &Mount, path: &str, (byte, len): Target) -> bool {
    let Ok((dir, name)) = vault.parent(path) else { return false };
    vault.symlink(&CALLER, dir, name, &vec![byte; len]).is_ok()
}

/// Every link that is there, and its target.
fn links(vault: &Mount) -> Vec<(String, Target)> {
    let mut found = Vec::new();
    for dir in ["run", "run/d"] {
        for name in vault.list(dir).unwrap_or_default() {
            let path = format!("{dir}/{name}");
            let attr = vault.attr(&path).unwrap();
            if attr.kind == Kind::Symlink {
                let target = vault.readlink(attr.ino).unwrap_or_else(|e| panic!("{path}: {e}"));
                assert_eq!(attr.size, target.len() as u64, "{path}");
                found.push((path, (target[0], target.len())));
            }
        }
    }
    found
}

/// Makes a change, with power cuts after each thing that it does: what is found is what was there before or
/// what is there behind it, and no link is broken.
fn cut_links(session: &mut Session, what: &str, change: impl FnOnce(&Mount)) {
    let before = links(&session.vault);
    change(&session.vault);
    let after = links(&session.vault);
    for change in session.recording.take() {
        session.disk.advance(&change).unwrap();
        for _ in 0..6 {
            let store = session.disk.cut(&mut Draw::new(session.draw.below(1 << 60))).unwrap();
            let found = links(&mount(store, &session.fixture, &session.state.apart()));
            assert!(found == before || found == after, "{what}: {found:?}, not {before:?} or {after:?}");
        }
    }
    for dir in ["run", "run/d"] {
        act(&session.vault, &Op::SyncDir(dir.into()), 0, &mut Vec::new());
    }
    for change in session.recording.take() {
        session.disk.advance(&change).unwrap();
    }
}

#[test]
fn a_long_link_that_another_takes_the_place_of_is_the_old_or_the_new_one() {
    let long = format!("run/d/{}", "l".repeat(180));
    for seed in 0..4 {
        let mut session = Session::begin(seed);
        let session = &mut session;
        cut_links(session, "mkdir", |vault| drop(vault.make_dir("run/d")));
        cut_links(session, "link", |vault| assert!(link(vault, "run/a", (b'x', 700))));
        cut_links(session, "there", |vault| assert!(!link(vault, "run/a", (b'z', 800))));
        for (to, target) in [("run/b", 900), (&long, 700), (&long, 900)] {
            cut_links(session, "link", |vault| _ = link(vault, to, (b'y', target)));
            for how in [Rename::Exchange, Rename::Exchange, Rename::Over] {
                cut_links(session, "rename", |vault| vault.mv("run/a", to, how).unwrap());
            }
            cut_links(session, "rename", |vault| vault.mv(to, "run/a", Rename::Over).unwrap());
        }
        let hard = |vault: &Mount| vault.link(vault.ino("run/a").unwrap(), vault.ino("run").unwrap(), b"c");
        cut_links(session, "hard link", |vault| _ = hard(vault).unwrap());
        cut_links(session, "link", |vault| assert!(link(vault, "run/b", (b'y', 900))));
        cut_links(session, "hard link there", |vault| {
            let (b, run) = (vault.ino("run/b").unwrap(), vault.ino("run").unwrap());
            assert!(vault.link(b, run, b"c").is_err());
        });
        cut_links(session, "rename", |vault| vault.mv("run/b", "run/c", Rename::Over).unwrap());
        cut_links(session, "unlink", |vault| vault.remove("run/a").unwrap());
    }
}

fn cut(vault: &Mount, handle: Handle, ino: Ino, size: u64) {
    vault.setattr(&CALLER, ino, Some(handle), &SetAttr { size: Some(size), ..SetAttr::NOTHING }).unwrap();
}

/// The name of an open file goes, not durably, and may be there again after a power cut: what was acknowledged
/// under it must not have suffered from what was done by the handle meanwhile.
#[test]
fn a_file_that_is_changed_through_a_handle_after_its_last_name_went() {
    type Change = fn(&Mount, Handle, Ino);
    let changes: [(&str, Change); 5] = [
        ("write", |vault, handle, _| vault.write(handle, 9000, &[7; 500], false).unwrap()),
        ("append", |vault, handle, _| vault.write(handle, 20_000, &[7; 500], false).unwrap()),
        ("punch", |vault, handle, _| {
            vault.fallocate(handle, 8192, 8192, Allocate::PunchHole, false).unwrap()
        }),
        ("cut", |vault, handle, ino| cut(vault, handle, ino, 9000)),
        ("empty", |vault, handle, ino| cut(vault, handle, ino, 0)),
    ];
    for (what, change) in changes {
        for over in [false, true] {
            let mut session = Session::begin(1);
            let vault = &session.vault;
            let old = put(vault, "run/a", 1).unwrap();
            let other = put(vault, "run/b", 2).unwrap();
            let ino = vault.ino("run/a").unwrap();
            let handle = vault.open_file(ino, WRITE).unwrap().handle;
            act(vault, &Op::SyncDir("run".into()), 0, &mut Vec::new());
            for change in session.recording.take() {
                session.disk.advance(&change).unwrap();
            }
            if over { vault.mv("run/b", "run/a", Rename::Over) } else { vault.remove("run/a") }.unwrap();
            change(vault, handle, ino);
            vault.fsync(handle, false).unwrap();
            let new = vault.read_all(handle).unwrap();
            change(vault, handle, ino);
            let again = vault.read_all(handle).unwrap();
            for change in session.recording.take() {
                session.disk.advance(&change).unwrap();
                for _ in 0..12 {
                    let store = session.disk.cut(&mut Draw::new(session.draw.below(1 << 60))).unwrap();
                    let cut = mount(store, &session.fixture, &session.state.apart());
                    let Ok(_) = cut.ino("run/a") else { continue };
                    let found = cut.get("run/a").unwrap_or_else(|e| panic!("{what}, {over}: {e}"));
                    let whole = [&old, &other, &new, &again].contains(&&found);
                    assert!(whole, "{what}, {over}: {} bytes", found.len());
                }
            }
            session.vault.release(handle).unwrap();
        }
    }
}

/// Something is done in the middle of a change of names.
struct InTheMiddle {
    of: StoreOp,
    act: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    syncs: AtomicU32,
    /// Of the end rather: the store has done it.
    after: bool,
}

impl Observer for InTheMiddle {
    fn around(&self, call: Call<'_>, run: &mut dyn FnMut() -> std::io::Result<u64>) -> std::io::Result<()> {
        let meant = call.op == self.of && (!self.after || call.name.starts_with(b".new-"));
        let act = meant.then(|| self.act.lock().unwrap().take()).flatten();
        if self.after {
            return run().map(|_| act.map_or((), |act| act()));
        }
        if let Some(act) = act {
            act();
            self.syncs.store(0, Ordering::SeqCst);
        }
        self.syncs.fetch_add(u32::from(call.op == StoreOp::SyncFs), Ordering::SeqCst);
        run().map(drop)
    }
}

fn watched(fixture: &Fixture, of: StoreOp, after: bool) -> (Arc<InTheMiddle>, Arc<Mount>) {
    let watch = Arc::new(InTheMiddle { of, act: Mutex::default(), syncs: AtomicU32::new(0), after });
    let root = observe(fixture.root.clone(), watch.clone()).unwrap();
    (watch, Arc::new(mount(root, fixture, &fixture.state)))
}

/// What another file's record makes durable in the middle of a rename does not count for that.
#[test]
fn a_sync_in_the_middle_of_a_rename_does_not_make_it_durable() {
    let fixture = Fixture::in_memory();
    let (watch, vault) = watched(&fixture, StoreOp::Rename, false);
    vault.make_dir("run").unwrap();
    let open = |path| {
        put(&vault, path, 1).unwrap();
        vault.open_file(vault.ino(path).unwrap(), WRITE).unwrap().handle
    };
    let (a, b) = (open("run/a"), open("run/b"));
    vault.mv("run/b", "run/c", Rename::Over).unwrap();
    let other = vault.clone();
    *watch.act.lock().unwrap() = Some(Box::new(move || {
        other.write(b, 9000, &[2; 500], false).unwrap();
        other.fsync(b, false).unwrap();
    }));
    vault.mv("run/a", "run/d", Rename::Over).unwrap();
    vault.write(a, 9000, &[2; 500], false).unwrap();
    vault.fsync(a, true).unwrap();
    assert!(watch.syncs.load(Ordering::SeqCst) > 0, "a record names a path that is not durable");
}

/// A run is found in `runs/` by whoever looks there at that moment, as another object of it, with a session of its
/// own: what its maker then recorded nobody could replay.
#[test]
fn a_run_that_is_being_made_is_nobody_elses_find() {
    let fixture = Fixture::in_memory();
    let (watch, vault) = watched(&fixture, StoreOp::Rename, true);
    // From then on the next tick looks at runs/.
    std::thread::sleep(Duration::from_millis(2100));
    let other = vault.clone();
    *watch.act.lock().unwrap() = Some(Box::new(move || {
        let (found, wait) = channel();
        std::thread::spawn(move || {
            let _ = found.send(other.tick());
            other.ino("run").and_then(|run| other.opendir(run))
        });
        // The store may hang here, and a tick renews leases.
        wait.recv_timeout(Duration::from_secs(20)).expect("a tick waits for it").unwrap();
    }));
    let run = vault.make_dir("run").unwrap().ino;
    // What was kept of the directory is forgotten.
    vault.setattr(&CALLER, run, None, &SetAttr { mode: Some(0o700), ..SetAttr::NOTHING }).unwrap();
    put(&vault, "run/a", 1).unwrap();
    let content = put(&vault, "run/a", 2).unwrap();
    // Killed.
    let again = mount(fixture.root.clone(), &fixture, &fixture.state.apart());
    assert_eq!(again.get("run/a").unwrap(), content);
    again.put("run/b", b"still written").unwrap();
}

/// Who opens a file between the look for who has it open and the unlink would never learn that its name went.
#[test]
fn nobody_opens_a_file_while_a_name_of_it_goes() {
    for last in [true, false] {
        let fixture = Fixture::in_memory();
        let (watch, vault) = watched(&fixture, StoreOp::Unlink, false);
        vault.make_dir("run").unwrap();
        put(&vault, "run/a", 1).unwrap();
        let ino = vault.ino("run/a").unwrap();
        if !last {
            let (dir, name) = vault.parent("run/b").unwrap();
            vault.link(ino, dir, name).unwrap();
        }
        let (other, (opened, wait)) = (vault.clone(), channel());
        let (too_early, early) = channel();
        *watch.act.lock().unwrap() = Some(Box::new(move || {
            let opener = std::thread::spawn(move || opened.send(other.open_file(ino, WRITE).is_ok()));
            let _ = too_early.send((wait.recv_timeout(Duration::from_millis(300)), wait, opener));
        }));
        vault.remove("run/a").unwrap();
        let (found, wait, opener) = early.recv().unwrap();
        assert!(found.is_err(), "opened meanwhile, {last}");
        assert_eq!(wait.recv(), Ok(!last));
        opener.join().unwrap().unwrap();
    }
}
