//! A writer that was stopped in the middle of something, and comes back when another has taken the run over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use runvault_format::ids::Digest;
use runvault_format::lease::Lease;
use runvault_store::backend::Dir;
use runvault_store::doubles::faulty::{Fault, Faults, Rule};
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::doubles::observe::{Change, Op};
use runvault_store::doubles::recording::Recording;
use runvault_store::replace;
use runvault_vault::{Error, Result};

use crate::common::{CALLER, Fixture, Mount, State, WRITE, names, taken_over};

/// After so long who writes looks at its lease.
const GLANCE: Duration = Duration::from_millis(1100);
const SIZE: usize = 1 << 20;
/// More calls of a kind than a seal makes.
const SEALED_WITH: u64 = 24;

struct Place {
    fixture: Fixture,
    faults: Arc<Faults>,
    made: Arc<Recording>,
    /// Where no call fails.
    inner: Arc<dyn Dir>,
}

impl Place {
    fn new() -> Self {
        let (inner, made) = Recording::over(MemoryDir::root()).unwrap();
        let (store, faults) = Faults::over(inner.clone()).unwrap();
        let mut fixture = Fixture::with_ledgers(store);
        // What it notes for itself is no change of the store.
        fixture.state.ledgers = MemoryDir::root();
        Self { fixture, faults, made, inner }
    }

    /// A mount whose journal has records: what is durable was written over.
    fn written(&self) -> (Mount, u64) {
        let mount = self.fixture.writer();
        mount.make_dir("run").unwrap();
        let ino = mount.put("run/f", &vec![1; SIZE]).unwrap();
        let handle = mount.open_file(ino, WRITE).unwrap().handle;
        mount.fsync(handle, false).unwrap();
        mount.write(handle, 0, &[2; 20_000], false).unwrap();
        mount.fsync(handle, false).unwrap();
        (mount, handle)
    }

    fn run_dir(&self) -> Arc<dyn Dir> {
        let [run] = self.fixture.run_dirs().try_into().unwrap();
        self.inner.open_dir(b"runs").and_then(|runs| runs.open_dir(&run)).unwrap()
    }

    fn taken_over(&self) {
        let lease = Lease {
            holder: State::new(4).id.to_string(),
            host: Digest([8; 32]),
            boot: "elsewhere".into(),
            pid: 1,
            start: 1,
            seq: 1,
        };
        let dir = self.run_dir();
        let _ = dir.unlink(b".tmp-lease");
        replace::replace(&*dir, b"lease", &lease.to_bytes().unwrap(), 0o644).unwrap();
    }

    fn hangs(&self, finished: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.faults.hanging() == 0 {
            assert!(Instant::now() < until && !finished(), "it makes no such call");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// `act` stands still in the first call that fits `rule` until another has the run; what came of it, and all that it
    /// changed in the store after that call.
    fn stopped<T: Send>(
        &self,
        rule: Rule,
        act: impl FnOnce() -> T + Send,
        taken: bool,
    ) -> (T, Vec<Change<'static>>) {
        self.faults.add(rule);
        std::thread::scope(|scope| {
            let acting = scope.spawn(act);
            self.hangs(|| acting.is_finished());
            if taken {
                self.taken_over();
            }
            std::thread::sleep(GLANCE);
            self.made.take();
            self.faults.release();
            let came = acting.join().unwrap();
            (came, self.made.take())
        })
    }
}

fn hang(op: Op) -> Rule {
    Rule::next(op, Fault::Hang)
}

fn lost<T: std::fmt::Debug>(result: &Result<T>) {
    assert!(matches!(result, Err(Error::Held { .. })), "{result:?}");
}

fn writes(changes: &[Change<'_>]) -> usize {
    changes.iter().filter(|change| matches!(change, Change::Write { .. })).count()
}

fn removed(changes: &[Change<'_>]) -> Vec<Vec<u8>> {
    let names = changes.iter().filter_map(|change| match change {
        Change::Remove { name, .. } => Some(name.to_vec()),
        _ => None,
    });
    names.collect()
}

/// One call was under way: no other follows.
#[test]
fn in_a_write_it_writes_no_more_than_what_was_under_way() {
    for taken in [false, true] {
        let place = Place::new();
        let (mount, handle) = place.written();
        let all = vec![3; SIZE];
        let write = || mount.write(handle, 0, &all, false).and_then(|()| mount.fsync(handle, false));
        let (written, changes) = place.stopped(hang(Op::Write), write, taken);
        assert_eq!((written.is_ok(), writes(&changes) > 1), (!taken, !taken), "{written:?}: {changes:?}");
        if taken {
            lost(&mount.write(handle, 0, b"more", false).map(drop));
        }
    }
}

/// By then the journal is the other's.
#[test]
fn in_its_last_sync_it_removes_no_journal() {
    for taken in [false, true] {
        let place = Place::new();
        let (mount, _) = place.written();
        let (closed, changes) = place.stopped(hang(Op::SyncFs), || mount.close(), taken);
        let all = [b"0".to_vec(), b"1".to_vec(), b"journal".to_vec()];
        let gone = removed(&changes);
        match taken {
            true => lost(&closed),
            false => closed.unwrap(),
        }
        assert_eq!(all.map(|name| gone.contains(&name)), [!taken; 3], "{gone:?}");
    }
}

#[test]
fn in_a_recovery_it_empties_no_journal() {
    for taken in [false, true] {
        let place = Place::new();
        let (killed, _) = place.written();
        std::mem::forget(killed);
        let state = place.fixture.state.apart();
        let (mount, changes) = place.stopped(hang(Op::SyncData), || place.fixture.writer_of(&state), taken);
        assert_eq!(writes(&changes) > 0, !taken, "{changes:?}");
        let run = mount.status().runs[0].clone();
        assert_eq!((run.writing, run.holder.is_some()), (!taken, taken));
        if taken {
            lost(&mount.put("run/other", b""));
        }
    }
}

/// What was written there meanwhile is the other's.
#[test]
fn in_the_removal_of_a_run_it_removes_none() {
    // The rename of the note which says that it goes, and its own.
    for (after, taken) in [(0, false), (0, true), (1, false), (1, true)] {
        let place = Place::new();
        let mount = place.fixture.writer();
        mount.make_dir("run").unwrap();
        let rule = Rule { after, ..hang(Op::Rename) };
        let (removed, _) = place.stopped(rule, || mount.remove_dir("run"), taken);
        match taken {
            true => lost(&removed),
            false => removed.unwrap(),
        }
        assert_eq!(place.fixture.run_dirs().len(), usize::from(taken));
        let notes = names(&*place.fixture.root.open_dir(b"retired").unwrap());
        assert_eq!(notes.len(), usize::from(!taken), "{notes:?}");
    }
}

/// It needs no lease to make room there.
#[test]
fn on_a_full_store_nothing_is_removed_that_another_has() {
    for taken in [false, true] {
        let place = Place::new();
        let mount = place.fixture.writer();
        let run = mount.make_dir("run").unwrap().ino;
        // One whose target is read before it goes.
        mount.symlink(&CALLER, run, b"link", &[b'x'; 3000]).unwrap();
        mount.close().unwrap();
        for op in [Op::CreateFile, Op::CreateDir, Op::Write] {
            place.faults.add(Rule::every(op, Fault::Fail(libc::ENOSPC)));
        }
        let mount = place.fixture.writer();
        mount.list("run").unwrap();
        let (removed, changes) = place.stopped(hang(Op::ReadLink), || mount.remove("run/link"), taken);
        assert_eq!((removed.is_ok(), changes.is_empty()), (!taken, taken), "{removed:?}: {changes:?}");
    }
}

/// Nobody holds it, so that whoever takes it over waits for nobody; this machine opens it only when something is asked for.
#[test]
fn what_another_has_sealed_meanwhile_is_not_written() {
    let mut place = Place::new();
    let other = State::new(4);
    let (mount, handle) = place.written();
    mount.release(handle).unwrap();
    let run = mount.status().runs[0].run;
    mount.close().unwrap();
    drop(mount);
    Arc::get_mut(&mut place.fixture.authority).unwrap().admitted.push((other.id, Some(run)));
    let late = place.fixture.writer();
    taken_over(&place.fixture.root, &*place.fixture.authority, &other, &run).unwrap();
    let by_other = place.fixture.writer_of(&other);
    by_other.seal(&run, &mut |_| Ok(Some("{}".into())), &mut |_, _| ()).unwrap();
    by_other.close().unwrap();
    place.made.take();
    let put = late.put("run/late", b"late").map(drop);
    assert!(matches!(put, Err(Error::Sealed { .. })), "{put:?}");
    let removed = late.remove("run/f");
    assert!(matches!(removed, Err(Error::Sealed { .. })), "{removed:?}");
    assert_eq!(late.get("run/f").unwrap().len(), SIZE);
    late.close().unwrap();
    let lease = |name: &[u8]| name == b"lease" || name == b".tmp-lease";
    let changes = place.made.take();
    let strange = |change: &&Change<'_>| match change {
        Change::Create { name, .. } | Change::Remove { name, .. } => {
            !lease(name) && !name.starts_with(b".tmp-")
        }
        _ => false,
    };
    assert_eq!(changes.iter().filter(strange).count(), 0, "{changes:?}");
    assert!(place.run_dir().stat(b"lease").is_err());
}

/// Its process was killed between the note that the run goes and its going, with nothing left to take the note back.
#[test]
fn a_run_whose_removal_was_killed_is_there_and_nobody_says_that_it_went() {
    let place = Place::new();
    let mount = place.fixture.writer();
    mount.make_dir("run").unwrap();
    place.faults.add(Rule { after: 1, ..Rule::next(Op::Rename, Fault::Fail(libc::EIO)) });
    place.faults.add(Rule::next(Op::Unlink, Fault::Fail(libc::EIO)));
    mount.remove_dir("run").unwrap_err();
    let notes = || names(&*place.fixture.root.open_dir(b"retired").unwrap());
    assert!(!place.faults.is_due() && notes().len() == 1, "{:?}", notes());
    std::mem::forget(mount);
    let mount = place.fixture.writer_of(&place.fixture.state.apart());
    mount.put("run/f", b"it lives").unwrap();
    assert_eq!(notes(), [] as [Vec<u8>; 0]);
}

/// What it seals is another's by then, who may have sealed it.
#[test]
fn in_a_seal_it_changes_nothing_more() {
    let ops = [Op::SyncFs, Op::Unlink, Op::CreateDir, Op::CreateFile, Op::Write, Op::SyncAll, Op::Rename];
    for op in ops {
        // Of its own, all at once: each stands still for a while.
        let stood_still = std::thread::scope(|scope| {
            let tries: Vec<_> =
                (0..SEALED_WITH).map(|after| scope.spawn(move || stopped_in_a_seal(op, after))).collect();
            tries.into_iter().map(|it| it.join().unwrap()).filter(|stood| *stood).count()
        });
        assert!(stood_still > 0 && stood_still < SEALED_WITH as usize, "{op:?}: {stood_still}");
    }
}

/// Whether it makes so many calls of `op` at all.
fn stopped_in_a_seal(op: Op, after: u64) -> bool {
    let place = Place::new();
    let (mount, handle) = place.written();
    mount.release(handle).unwrap();
    let run = mount.status().runs[0].run;
    place.faults.add(Rule { after, ..hang(op) });
    std::thread::scope(|scope| {
        let sealing = scope.spawn(|| mount.seal(&run, &mut |_| Ok(Some("{}".into())), &mut |_, _| ()));
        while place.faults.hanging() == 0 && !sealing.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let stood_still = place.faults.hanging() > 0;
        if stood_still {
            let sealed = place.run_dir().stat(b"seal").is_ok();
            if !sealed {
                place.taken_over();
            }
            std::thread::sleep(GLANCE);
            place.made.take();
            place.faults.release();
            let made = sealing.join().unwrap();
            let changes = place.made.take();
            let is_sync = |change: &&Change<'_>| {
                matches!(change, Change::SyncFile { .. } | Change::SyncDir { .. } | Change::SyncFs)
            };
            let changes: Vec<_> = changes.iter().filter(|change| !is_sync(change)).collect();
            if !sealed {
                assert!(changes.len() <= 1, "{op:?} {after}: {changes:?}");
                // The rename that commits it may be the call that was under way.
                if place.run_dir().stat(b"seal").is_err() {
                    lost(&made);
                }
            }
        }
        stood_still
    })
}

/// Whoever comes while a person's takeover stands still has the run.
#[test]
fn in_a_takeover_it_takes_no_run_that_another_has() {
    for (op, name) in [(Op::CreateFile, None), (Op::Write, None), (Op::Rename, Some(b".tmp-lease".to_vec()))]
    {
        for held in [false, true] {
            let place = Place::new();
            let (mount, handle) = place.written();
            mount.release(handle).unwrap();
            let run = mount.status().runs[0].run;
            mount.close().unwrap();
            let gateway = if held { place.fixture.state.apart() } else { State::new(4) };
            let before = gateway.session(&run);
            let take = || taken_over(&place.fixture.root, &*place.fixture.authority, &gateway, &run);
            let (taken, _) = place.stopped(Rule { name: name.clone(), ..hang(op) }, take, true);
            lost(&taken);
            assert_eq!(gateway.session(&run), before);
        }
    }
}

/// A sync of the store may take as long as a takeover.
#[test]
fn while_a_tick_stands_still_leases_are_looked_after() {
    let place = Place::new();
    let (mount, handle) = place.written();
    mount.write(handle, 0, &[4; 20_000], false).unwrap();
    let beside = || {
        std::thread::scope(|scope| {
            let ticking = scope.spawn(|| mount.tick());
            place.hangs(|| ticking.is_finished());
            place.taken_over();
            std::thread::sleep(GLANCE);
            mount.renew_leases();
            let holder = mount.status().runs[0].holder.clone();
            place.faults.release();
            let _ = ticking.join().unwrap();
            holder
        })
    };
    place.faults.add(hang(Op::SyncFs));
    assert!(beside().is_some_and(|holder| holder.contains(&State::new(4).id.to_string())));
}
