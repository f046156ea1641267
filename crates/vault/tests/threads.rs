//! Many threads on one vault: every file ends up whole, every count at zero.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::dice::Dice;
use crate::common::{CALLER, Fixture, READ, WRITE};
use runvault_store::backend::{Kind, Rename};
use runvault_store::doubles::delaying::Delays;
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::doubles::observe::{Call, Observer, Op, observe};
use runvault_vault::api::{DirEntry, Ino, ROOT, SetAttr};
use runvault_vault::{CheckEvent, Error, Posix, Vault};

/// A POSIX outcome of a race, or success; anything else fails the test.
fn may_fail<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Posix(Posix::BadHandle | Posix::ReadOnly)) => panic!("not the outcome of a race"),
        Err(Error::Posix(_)) => None,
        Err(other) => panic!("{other}"),
    }
}

fn act(vault: &Vault, dirs: &[Ino], dice: &mut Dice, me: u64) {
    let dir = |dice: &mut Dice| dirs[dice.below(dirs.len() as u64) as usize];
    let name = |dice: &mut Dice| format!("n{}", dice.below(6)).into_bytes();
    let (from, to) = (dir(dice), dir(dice));
    let (a, b) = (name(dice), name(dice));
    match dice.below(9) {
        0..=2 => {
            let Some((attr, opened)) = may_fail(vault.create(&CALLER, from, &a, 0o644, WRITE)) else {
                return;
            };
            let data = vec![me as u8; 9000];
            vault.write(opened.handle, 0, &data, false).unwrap();
            if dice.below(3) == 0 {
                vault.fsync(opened.handle, false).unwrap();
            }
            vault.release(opened.handle).unwrap();
            vault.forget(attr.ino, 1);
        }
        3 => {
            let Some(attr) = may_fail(vault.lookup(from, &a)) else { return };
            if let Some(opened) = may_fail(vault.open_file(attr.ino, READ)) {
                let mut buf = vec![0; 10_000];
                let n = vault.read(opened.handle, 0, &mut buf).unwrap();
                assert!(buf[..n].iter().all(|byte| *byte == buf[0]));
                vault.release(opened.handle).unwrap();
            }
            may_fail(vault.getattr(attr.ino, None));
            vault.forget(attr.ino, 1);
        }
        4 => drop(may_fail(vault.unlink(from, &a))),
        5 => drop(may_fail(vault.rename(from, &a, to, &b, Rename::Over))),
        6 => drop(may_fail(vault.rename(from, &a, to, &b, Rename::Exchange))),
        7 => {
            let Some(attr) = may_fail(vault.lookup(from, &a)) else { return };
            if let Some(linked) = may_fail(vault.link(attr.ino, to, &b)) {
                vault.forget(linked.ino, 1);
            }
            vault.forget(attr.ino, 1);
        }
        _ => {
            let handle = vault.opendir(from).unwrap();
            let mut seen = Vec::new();
            vault
                .readdir(handle, 0, true, &mut |entry| {
                    seen.extend(entry.attr.map(|attr| attr.ino));
                    true
                })
                .unwrap();
            vault.releasedir(handle).unwrap();
            seen.into_iter().for_each(|ino| vault.forget(ino, 1));
        }
    }
}

#[test]
fn sixteen_threads_and_a_timer() {
    let fixture = Fixture::in_memory();
    let mount = fixture.writer();
    let run = mount.make_dir("run").unwrap().ino;
    let dirs: Vec<Ino> =
        (0..4).map(|n| mount.mkdir(&CALLER, run, format!("d{n}").as_bytes(), 0o755).unwrap().ino).collect();
    let vault = mount.0.clone();
    let done = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let timer = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                vault.tick().unwrap();
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let workers: Vec<_> = (1..=16u64)
            .map(|me| {
                let (vault, dirs) = (&vault, &dirs);
                scope.spawn(move || {
                    let mut dice = Dice::of(0, me);
                    (0..2000).for_each(|_| act(vault, dirs, &mut dice, me));
                })
            })
            .collect();
        let failed = workers.into_iter().filter_map(|worker| worker.join().err()).count();
        done.store(true, Ordering::Relaxed);
        timer.join().unwrap();
        assert_eq!(failed, 0);
    });
    for dir in &dirs {
        vault.forget(*dir, 1);
    }
    vault.forget(run, 1);
    vault.tick().unwrap();
    let status = vault.status();
    assert_eq!(status.open_handles, 0);
    vault.close().unwrap();
    let reader = fixture.reader();
    for n in 0..4 {
        for name in reader.list(&format!("run/d{n}")).unwrap() {
            let data = reader.get(&format!("run/d{n}/{name}")).unwrap();
            assert!(data.len() == 9000 && data.iter().all(|byte| *byte == data[0]));
        }
    }
    let authority: Arc<dyn runvault_vault::authority::Authority> = fixture.authority.clone();
    let summary = runvault_vault::check::check(&fixture.root, &authority, &|_| None, &mut |_| {}).unwrap();
    assert_eq!(summary.damages, 0);
    assert!(matches!(vault.lookup(ROOT, b"run"), Err(Error::Closed)));
}

/// What comes, goes and is written over while it is looked at is not damaged.
#[test]
fn a_check_beside_writers_finds_nothing_wrong() {
    let fixture = Fixture::in_memory();
    let mount = fixture.writer();
    mount.make_dir("run").unwrap();
    let long = "l".repeat(200);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for me in 0..3u8 {
            let (mount, done, long) = (&mount, &done, &long);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let dir = format!("run/d{me}");
                    mount.make_dir(&dir).unwrap();
                    for n in 0..20u8 {
                        mount.put(&format!("{dir}/{n}"), &vec![n; 20_000]).unwrap();
                        mount.put(&format!("{dir}/{n}"), &vec![me; 9_000]).unwrap();
                        mount.put(&format!("{dir}/{long}{n}"), b"x").unwrap();
                    }
                    for n in 0..20 {
                        mount.remove(&format!("{dir}/{n}")).unwrap();
                        mount.remove(&format!("{dir}/{long}{n}")).unwrap();
                    }
                    mount.remove_dir(&dir).unwrap();
                }
            });
        }
        let authority: Arc<dyn runvault_vault::authority::Authority> = fixture.authority.clone();
        let mut wrong = Vec::new();
        for _ in 0..60 {
            let mut note = |event| {
                if let CheckEvent::Damage { .. } = event {
                    wrong.push(event);
                }
            };
            runvault_vault::check::check(&fixture.root, &authority, &|_| None, &mut note).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(wrong, []);
    });
    mount.close().unwrap();
}

/// The name that a node was known by may be another file's by the time that it is used.
#[test]
fn links_and_modes_are_those_of_the_file_that_was_meant() {
    let fixture = Fixture::in_memory();
    let mount = fixture.writer();
    let run = mount.make_dir("run").unwrap().ino;
    let [a, b, c, links] =
        ["a", "b", "c", "links"].map(|name| mount.mkdir(&CALLER, run, name.as_bytes(), 0o755).unwrap().ino);
    for (content, path) in [(1, "run/a/x"), (2, "run/b/x"), (3, "run/c/x")] {
        mount.put(path, &[content; 9000]).unwrap();
    }
    let vault = mount.0.clone();
    let wanted = vault.lookup(a, b"x").unwrap().ino;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (from, to) in [(a, b), (b, c), (c, a)] {
            let (vault, done) = (&vault, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    vault.rename(from, b"x", to, b"x", Rename::Exchange).unwrap();
                }
            });
        }
        let linker = scope.spawn(|| {
            let mut made = 0;
            let private = SetAttr { mode: Some(0o600), ..SetAttr::NOTHING };
            for _ in 0..5000 {
                may_fail(vault.setattr(&CALLER, wanted, None, &private));
                let Some(linked) = may_fail(vault.link(wanted, links, b"n")) else { continue };
                made += 1;
                let found = vault.lookup(links, b"n").unwrap();
                assert_eq!((linked.ino, found.ino), (wanted, wanted));
                vault.unlink(links, b"n").unwrap();
                vault.forget(wanted, 2);
            }
            assert!(made > 0);
        });
        let linked = linker.join();
        done.store(true, Ordering::Relaxed);
        linked.unwrap();
    });
    for dir in [a, b, c] {
        let found = vault.lookup(dir, b"x").unwrap();
        assert_eq!(found.mode == 0o600, found.ino == wanted);
        let opened = vault.open_file(found.ino, READ).unwrap();
        vault.release(opened.handle).unwrap();
        vault.forget(found.ino, 1);
    }
    vault.forget(wanted, 1);
}

/// Runs something in another thread once the next stat of a name has been answered.
#[derive(Default)]
struct AfterStat(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Observer for AfterStat {
    fn around(&self, call: Call<'_>, run: &mut dyn FnMut() -> io::Result<u64>) -> io::Result<()> {
        let answered = run();
        let armed =
            if call.op == Op::Stat && !call.name.is_empty() { self.0.lock().unwrap().take() } else { None };
        if let Some(act) = armed {
            std::thread::spawn(act).join().unwrap();
        }
        answered.map(drop)
    }
}

/// The kernel keeps what it is told for an hour, and appends behind the size that it knows.
#[test]
fn a_file_that_is_closed_while_it_is_looked_at_has_its_last_size() {
    type Look = fn(&Vault, Ino) -> u64;
    let looks: [(&str, Look); 2] = [
        ("lookup", |vault, run| vault.lookup(run, b"f").unwrap().size),
        ("readdirplus", |vault, run| {
            let handle = vault.opendir(run).unwrap();
            let mut size = 0;
            let mut visit = |entry: &DirEntry| {
                size += entry.attr.filter(|attr| attr.kind == Kind::File).map_or(0, |attr| attr.size);
                true
            };
            vault.readdir(handle, 0, true, &mut visit).unwrap();
            vault.releasedir(handle).unwrap();
            size
        }),
    ];
    for (how, look) in looks {
        let after = Arc::new(AfterStat::default());
        let fixture = Fixture::on(observe(MemoryDir::root(), after.clone()).unwrap());
        let mount = fixture.writer();
        let run = mount.make_dir("run").unwrap().ino;
        let ino = mount.put("run/f", &[1; 9000]).unwrap();
        let handle = mount.open_file(ino, WRITE).unwrap().handle;
        mount.write(handle, 9000, &[2; 252], false).unwrap();
        let vault = mount.0.clone();
        *after.0.lock().unwrap() = Some(Box::new(move || vault.release(handle).unwrap()));
        assert_eq!(look(&mount, run), 9252, "{how}");
        assert!(after.0.lock().unwrap().is_none(), "{how}: closed meanwhile");
        assert_eq!(look(&mount, run), 9252, "{how}, later");
    }
}

/// Of a busy run something is closed at any moment.
#[test]
fn a_file_that_is_closed_beside_it_costs_a_name_no_second_look() {
    let (store, calls) = Delays::over(MemoryDir::root(), Duration::ZERO).unwrap();
    let after = Arc::new(AfterStat::default());
    let mount = Fixture::on(observe(store, after.clone()).unwrap()).writer();
    let run = mount.make_dir("run").unwrap().ino;
    mount.put("run/f", &[1; 9000]).unwrap();
    let beside = mount.put("run/beside", &[1; 9000]).unwrap();
    let handle = mount.open_file(beside, READ).unwrap().handle;
    let vault = mount.0.clone();
    *after.0.lock().unwrap() = Some(Box::new(move || vault.release(handle).unwrap()));
    calls.reset();
    assert_eq!(mount.lookup(run, b"f").unwrap().size, 9000);
    assert!(after.0.lock().unwrap().is_none(), "closed meanwhile");
    assert_eq!(calls.count(Op::Stat), 1);
}
