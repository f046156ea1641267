//! Programs beside each other, on a store whose calls take uneven time: each finds its own files as it left them, at
//! once and after everything. RUNVAULT_PROGRAMS_SEED: other histories than the usual one.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::dice::Dice;
use crate::common::{CALLER, Fixture, READ, WRITE};
use runvault_store::backend::{Kind, Rename, SetTime, Time};
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::doubles::observe::{Call, Observer, observe};
use runvault_vault::api::{Allocate, Attr, DirEntry, Handle, Ino, SetAttr};
use runvault_vault::{Error, Posix, Vault};

const PROGRAMS: u64 = 6;
const FILES: u64 = 3;
const STEPS: u32 = 700;
const CHUNK: u64 = 8192;

/// Before and after some calls it waits a little.
struct Uneven(Mutex<Dice>);

impl Uneven {
    fn wait(&self) {
        match self.0.lock().unwrap().below(24) {
            0..4 => std::thread::yield_now(),
            4 => std::thread::sleep(Duration::from_micros(60)),
            _ => {}
        }
    }
}

impl Observer for Uneven {
    fn around(&self, _: Call<'_>, run: &mut dyn FnMut() -> io::Result<u64>) -> io::Result<()> {
        self.wait();
        let answered = run();
        self.wait();
        answered.map(drop)
    }
}

/// A file of one program, as that program knows it.
struct Mine {
    dir: Ino,
    name: Vec<u8>,
    ino: Ino,
    data: Vec<u8>,
    mode: u32,
    /// As it was set after the last change.
    mtime: Option<Time>,
    attribute: Option<Vec<u8>>,
}

struct Program<'a> {
    vault: &'a Vault,
    dirs: &'a [Ino],
    me: u64,
    dice: Dice,
    files: Vec<Mine>,
    made: u64,
    /// Takes handles to close: the kernel closes without being waited for.
    closer: Sender<Handle>,
}

impl Program<'_> {
    fn dir(&mut self) -> Ino {
        self.dirs[self.dice.below(self.dirs.len() as u64) as usize]
    }

    fn new_name(&mut self) -> Vec<u8> {
        self.made += 1;
        // Some are of those that lie in a side file.
        let long = if self.dice.below(8) == 0 { "n".repeat(200) } else { String::new() };
        format!("{}-{}{long}", self.me, self.made).into_bytes()
    }

    fn make(&mut self) -> Mine {
        let (dir, name) = (self.dir(), self.new_name());
        let (attr, opened) = self.vault.create(&CALLER, dir, &name, 0o644, WRITE).unwrap();
        self.closer.send(opened.handle).unwrap();
        let (ino, data, mode) = (attr.ino, Vec::new(), 0o644);
        Mine { dir, name, ino, data, mode, mtime: None, attribute: None }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.dice.below(4) {
            0 => self.dice.below(300),
            1 => CHUNK - 100 + self.dice.below(200),
            _ => self.dice.below(30_000),
        };
        let byte = self.dice.below(256) as u8;
        (0..=len).map(|i| byte.wrapping_add((i % 251) as u8)).collect()
    }

    fn offset(&mut self, size: u64) -> u64 {
        match self.dice.below(3) {
            0 => self.dice.below(size + 1),
            1 => (size / CHUNK) * CHUNK,
            _ => self.dice.below(60_000),
        }
    }

    /// By one of the ways that the kernel asks.
    fn look(&mut self, mine: &Mine) -> Attr {
        match self.dice.below(3) {
            0 => self.vault.getattr(mine.ino, None).unwrap(),
            1 => {
                let attr = self.vault.lookup(mine.dir, &mine.name).unwrap();
                self.vault.forget(attr.ino, 1);
                attr
            }
            _ => {
                let handle = self.vault.opendir(mine.dir).unwrap();
                let (mut found, mut taken) = (None, Vec::new());
                let mut visit = |entry: &DirEntry| {
                    taken.extend(entry.attr.map(|attr| attr.ino));
                    if entry.name == mine.name {
                        found = entry.attr;
                    }
                    true
                };
                self.vault.readdir(handle, 0, true, &mut visit).unwrap();
                self.vault.releasedir(handle).unwrap();
                taken.into_iter().for_each(|ino| self.vault.forget(ino, 1));
                found.unwrap_or_else(|| panic!("{} is not listed", String::from_utf8_lossy(&mine.name)))
            }
        }
    }

    fn verify(&mut self, mine: &Mine, after: &str) {
        let attr = self.look(mine);
        let name = String::from_utf8_lossy(&mine.name);
        assert_eq!(attr.ino, mine.ino, "{name} after {after}");
        assert_eq!(
            (attr.size, attr.mode, attr.nlink),
            (mine.data.len() as u64, mine.mode, 1),
            "{name} after {after}"
        );
        if let Some(mtime) = mine.mtime {
            assert_eq!(attr.mtime, mtime, "{name} after {after}");
        }
        if self.dice.below(4) == 0 {
            assert!(self.read(mine) == mine.data, "the content of {name} after {after}");
        }
        match (self.vault.getxattr(mine.ino, b"user.a"), &mine.attribute) {
            (Ok(found), Some(set)) => assert!(found == *set, "{name}'s attribute after {after}"),
            (Err(Error::Posix(Posix::NoAttribute)), None) => {}
            (found, _) => panic!("{name}'s attribute after {after}: {found:?}"),
        }
    }

    fn read(&self, mine: &Mine) -> Vec<u8> {
        let handle = self.vault.open_file(mine.ino, READ).unwrap().handle;
        let mut bytes = vec![0; mine.data.len() + 1];
        let n = self.vault.read(handle, 0, &mut bytes).unwrap();
        bytes.truncate(n);
        self.closer.send(handle).unwrap();
        bytes
    }

    fn write(&mut self, mine: &mut Mine, at: u64, bytes: &[u8]) {
        let handle = self.vault.open_file(mine.ino, WRITE).unwrap().handle;
        self.vault.write(handle, at, bytes, false).unwrap();
        put(&mut mine.data, at as usize, bytes);
        match self.dice.below(6) {
            0 => self.vault.fsync(handle, true).unwrap(),
            1 => self.vault.flush(handle).unwrap(),
            2 => {
                let at = self.dice.below(mine.data.len() as u64);
                self.vault.fallocate(handle, at, 5000, Allocate::PunchHole, false).unwrap();
                let end = mine.data.len().min(at as usize + 5000);
                mine.data[at as usize..end].fill(0);
            }
            _ => {}
        }
        mine.mtime = None;
        self.closer.send(handle).unwrap();
    }

    fn set(&self, mine: &Mine, change: SetAttr) -> Attr {
        self.vault.setattr(&CALLER, mine.ino, None, &change).unwrap()
    }

    fn step(&mut self) {
        let mut mine = self.files.swap_remove(self.dice.below(self.files.len() as u64) as usize);
        let done = match self.dice.below(20) {
            0..4 => {
                let bytes = self.bytes();
                // Where the kernel appends: behind the size that it was told.
                let at = self.look(&mine).size;
                self.write(&mut mine, at, &bytes);
                "an append"
            }
            4..6 => {
                let (at, bytes) = (self.offset(mine.data.len() as u64), self.bytes());
                self.write(&mut mine, at, &bytes);
                "a write"
            }
            6 => {
                let size = self.offset(mine.data.len() as u64);
                self.set(&mine, SetAttr { size: Some(size), ..SetAttr::NOTHING });
                mine.data.resize(size as usize, 0);
                mine.mtime = None;
                "a truncation"
            }
            7..9 => {
                let mtime = Time { sec: 1_400_000_000 + self.dice.below(1000) as i64, nsec: 7 };
                self.set(&mine, SetAttr { mtime: SetTime::At(mtime), ..SetAttr::NOTHING });
                mine.mtime = Some(mtime);
                "a change of times"
            }
            9 => {
                mine.mode = [0o600, 0o640, 0o644][self.dice.below(3) as usize];
                self.set(&mine, SetAttr { mode: Some(mine.mode), ..SetAttr::NOTHING });
                "a change of mode"
            }
            10 | 11 => {
                let (to, name) = (self.dir(), self.new_name());
                self.vault.rename(mine.dir, &mine.name, to, &name, Rename::Over).unwrap();
                (mine.dir, mine.name) = (to, name);
                "a rename"
            }
            12 => {
                let value: Vec<u8> = self.bytes().into_iter().take(900).collect();
                self.vault.setxattr(mine.ino, b"user.a", &value, 0).unwrap();
                mine.attribute = Some(value);
                "an attribute"
            }
            13 => {
                let (to, name) = (self.dir(), self.new_name());
                self.vault.link(mine.ino, to, &name).unwrap();
                self.vault.unlink(mine.dir, &mine.name).unwrap();
                self.vault.forget(mine.ino, 1);
                (mine.dir, mine.name) = (to, name);
                "another link"
            }
            14 => {
                let mut other = self.files.swap_remove(0);
                self.vault.rename(mine.dir, &mine.name, other.dir, &other.name, Rename::Exchange).unwrap();
                std::mem::swap(&mut mine.dir, &mut other.dir);
                std::mem::swap(&mut mine.name, &mut other.name);
                self.verify(&other, "an exchange");
                self.files.push(other);
                "an exchange"
            }
            _ => {
                self.vault.unlink(mine.dir, &mine.name).unwrap();
                self.vault.forget(mine.ino, 1);
                mine = self.make();
                "its making"
            }
        };
        self.verify(&mine, done);
        self.files.push(mine);
    }
}

fn put(data: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if data.len() < end {
        data.resize(end, 0);
    }
    data[at..end].copy_from_slice(bytes);
}

/// Lists, looks up, opens and reads what others write.
fn look_around(vault: &Vault, dirs: &[Ino], dice: &mut Dice) {
    let dir = dirs[dice.below(dirs.len() as u64) as usize];
    let handle = vault.opendir(dir).unwrap();
    let mut seen = Vec::new();
    let mut visit = |entry: &DirEntry| {
        seen.extend(entry.attr.filter(|attr| attr.kind == Kind::File).map(|attr| attr.ino));
        true
    };
    vault.readdir(handle, 0, true, &mut visit).unwrap();
    vault.releasedir(handle).unwrap();
    for ino in &seen {
        match vault.open_file(*ino, READ) {
            Ok(opened) => {
                let mut bytes = [0; 500];
                vault.read(opened.handle, dice.below(20_000), &mut bytes).unwrap();
                vault.release(opened.handle).unwrap();
            }
            Err(Error::Posix(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    seen.into_iter().for_each(|ino| vault.forget(ino, 1));
}

fn round(seed: u64) {
    let store =
        observe(MemoryDir::reusing_numbers(), Arc::new(Uneven(Mutex::new(Dice::of(seed, 99))))).unwrap();
    let mut fixture = Fixture::on(store);
    fixture.options.delay = Duration::from_millis(5);
    fixture.options.journal_bytes = 64 << 10;
    let mount = fixture.writer();
    let run = mount.make_dir("run").unwrap().ino;
    let dirs: Vec<Ino> =
        ["d1", "d2"].map(|name| mount.mkdir(&CALLER, run, name.as_bytes(), 0o755).unwrap().ino).to_vec();
    let (vault, done, failed) = (mount.0.clone(), AtomicBool::new(false), AtomicU64::new(0));
    let going = || !done.load(Ordering::Relaxed);
    let left = std::thread::scope(|scope| {
        scope.spawn(|| {
            while going() {
                vault.tick().unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        scope.spawn(|| {
            let mut dice = Dice::of(seed, 50);
            while going() {
                look_around(&vault, &dirs, &mut dice);
            }
        });
        let programs: Vec<_> = (1..=PROGRAMS)
            .map(|me| {
                let (closer, to_close) = channel();
                let (vault, dirs) = (&*vault, &*dirs);
                scope.spawn(move || to_close.into_iter().for_each(|handle| vault.release(handle).unwrap()));
                scope.spawn(move || {
                    let (dice, files) = (Dice::of(seed, me), Vec::new());
                    let mut program = Program { vault, dirs, me, dice, files, made: 0, closer };
                    for _ in 0..FILES {
                        let made = program.make();
                        program.files.push(made);
                    }
                    (0..STEPS).for_each(|_| program.step());
                    program.files
                })
            })
            .collect();
        let mut left = Vec::new();
        for program in programs {
            match program.join() {
                Ok(files) => left.extend(files),
                Err(_) => drop(failed.fetch_add(1, Ordering::Relaxed)),
            }
        }
        done.store(true, Ordering::Relaxed);
        left
    });
    assert_eq!(failed.into_inner(), 0, "programs that failed, seed {seed}");
    vault.close().unwrap();
    let reader = fixture.reader();
    for mine in left {
        let dir = if mine.dir == dirs[0] { "d1" } else { "d2" };
        let path = format!("run/{dir}/{}", String::from_utf8(mine.name).unwrap());
        assert!(reader.get(&path).unwrap() == mine.data, "{path} in the end, seed {seed}");
        let attr = reader.attr(&path).unwrap();
        assert_eq!(attr.mode, mine.mode, "{path}, seed {seed}");
        if let Some(mtime) = mine.mtime {
            assert_eq!(attr.mtime, mtime, "{path}, seed {seed}");
        }
    }
}

#[test]
fn each_finds_its_files_as_it_left_them() {
    let seed = std::env::var("RUNVAULT_PROGRAMS_SEED").ok().and_then(|seed| seed.parse().ok());
    round(seed.unwrap_or(1));
}
