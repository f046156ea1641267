//! Two operations at the same moment, each stopped before every one of its calls to the store.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{Scope, ScopedJoinHandle};

use runvault_crypto::passphrase::Params;
use runvault_format::ids::RunId;
use runvault_format::keys::RunKey;
use runvault_store::backend::Dir;
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::doubles::observe::{Call, Observer, observe};
use runvault_vault::authority::Gateway;

use crate::authority::Acting;
use crate::chain::Chain;
use crate::gateway::StateFolder;
use crate::identity::Identity;
use crate::init::init;
use crate::key_files::{self, NewLock};
use crate::rotate::{RotateSummary, rotate};
use crate::state_folder::Folder;
use crate::testing::{copy, enrolled, envelopes, make_run, vault};
use crate::{Error, Result, locks};

/// Every how many calls an operation is stopped.
const STEP: usize = if cfg!(debug_assertions) { 4 } else { 1 };

/// Holds back call number `at` until `go` is dropped.
struct Stop(Mutex<(u64, Sender<()>, Receiver<()>)>);

impl Observer for Stop {
    fn around(&self, _: Call<'_>, run: &mut dyn FnMut() -> std::io::Result<u64>) -> std::io::Result<()> {
        let mut stop = self.0.lock().unwrap();
        if stop.0 == 0 {
            let _ = stop.1.send(());
            let _ = stop.2.recv();
        }
        stop.0 = stop.0.wrapping_sub(1);
        drop(stop);
        run().map(drop)
    }
}

/// An operation that waits, or that ended before the call it was to wait at.
struct Stopped<'s, T> {
    thread: ScopedJoinHandle<'s, T>,
    go: Sender<()>,
    waits: bool,
}

impl<T> Stopped<'_, T> {
    fn go_on(self) -> T {
        drop(self.go);
        self.thread.join().unwrap()
    }
}

/// Starts `act` and lets it make `at` calls.
fn stopped<'s, T: Send + 's>(
    scope: &'s Scope<'s, '_>,
    root: &Arc<dyn Dir>,
    at: u64,
    act: impl FnOnce(&Arc<dyn Dir>) -> T + Send + 's,
) -> Stopped<'s, T> {
    let (reached, waits) = channel();
    let (go, gone) = channel();
    let root = observe(root.clone(), Arc::new(Stop(Mutex::new((at, reached.clone(), gone))))).unwrap();
    // The last sender that goes tells the end of an operation that was not stopped.
    drop(reached);
    let thread = scope.spawn(move || act(&root));
    Stopped { thread, go, waits: waits.recv().is_ok() }
}

fn gateway(chain: &Chain) -> StateFolder {
    StateFolder::on(Folder::on(MemoryDir::root()), chain.vault_id()).unwrap()
}

fn quietly(root: &Arc<dyn Dir>, chain: &Chain, owner: &Identity) -> Result<RotateSummary> {
    rotate(root, chain, owner, &mut |_, _| {})
}

/// The chain verifies and every run opens, whatever the two did.
fn holds(root: &Arc<dyn Dir>, owner: &Identity, made: &[(RunId, RunKey)], when: &str) -> Chain {
    let chain = Chain::load(root).unwrap_or_else(|e| panic!("{when}: {e}"));
    let acting = Acting::open(root, chain.clone(), owner).unwrap();
    for (run, key) in made {
        let opened = acting.open_run(run, &envelopes(root, run)).unwrap().expect(when);
        assert_eq!(opened.0.expose(), key.0.expose(), "{when}");
    }
    chain
}

/// Where the first is stopped and where the second, which goes on when the first has ended.
fn all_stops(mut both: impl FnMut(u64, u64, &str) -> (bool, bool)) {
    for first in (0..).step_by(STEP) {
        let mut waits = false;
        for second in (0..).step_by(2 * STEP + 1) {
            let reached = both(first, second, &format!("stopped at calls {first} and {second}"));
            waits |= reached.0;
            if !reached.1 {
                break;
            }
        }
        if !waits {
            return;
        }
    }
}

#[test]
fn enrolments_at_once_follow_each_other() {
    let (start, owner, chain) = vault();
    let (one, two) = (gateway(&chain), gateway(&chain));
    all_stops(|first, second, when| {
        let root = copy(&start);
        std::thread::scope(|scope| {
            let enrol = |gateway| {
                let (chain, owner) = (&chain, &owner);
                move |root: &Arc<dyn Dir>| StateFolder::enroll(gateway, root, &mut chain.clone(), owner)
            };
            let a = stopped(scope, &root, first, enrol(&one));
            let b = stopped(scope, &root, second, enrol(&two));
            let waited = (a.waits, b.waits);
            a.go_on().expect(when);
            b.go_on().expect(when);
            let after = holds(&root, &owner, &[], when);
            assert!(
                after.head().n == 2 && after.is_enrolled(&one.id()) && after.is_enrolled(&two.id()),
                "{when}"
            );
            waited
        })
    });
}

#[test]
fn rotations_at_once_lose_no_run() {
    let (start, owner, mut chain) = vault();
    let gateway = enrolled(&start, &mut chain, &owner);
    let made = [make_run(&start, &chain, &gateway)];
    all_stops(|first, second, when| {
        let root = copy(&start);
        std::thread::scope(|scope| {
            let act = |root: &Arc<dyn Dir>| quietly(root, &Chain::load(root)?, &owner);
            let a = stopped(scope, &root, first, act);
            let b = stopped(scope, &root, second, act);
            let waited = (a.waits, b.waits);
            let done = [a.go_on(), b.go_on()];
            let after = holds(&root, &owner, &made, when);
            let good = done.iter().filter(|done| done.is_ok()).count();
            assert_eq!(after.epoch() as usize, 1 + good, "{when}");
            assert!(good >= 1, "{when}");
            let mut sealed_to = 0;
            for done in done {
                match done {
                    Ok(summary) => {
                        assert!(summary.failed.is_empty(), "{when}: {summary:?}");
                        sealed_to = sealed_to.max(summary.epoch);
                    }
                    Err(e) => assert!(matches!(e, Error::ChangedMeanwhile), "{when}: {e}"),
                }
            }
            assert_eq!(sealed_to, after.epoch(), "{when}");
            let names: Vec<String> = envelopes(&root, &made[0].0).into_iter().map(|file| file.name).collect();
            assert_eq!(names, [format!("vault-{}", after.epoch())], "{when}");
            waited
        })
    });
}

#[test]
fn a_rotation_and_an_enrolment_at_once_both_count() {
    let (start, owner, mut chain) = vault();
    let first_gateway = enrolled(&start, &mut chain, &owner);
    let made = [make_run(&start, &chain, &first_gateway)];
    let new = gateway(&chain);
    all_stops(|first, second, when| {
        let root = copy(&start);
        std::thread::scope(|scope| {
            let a = stopped(scope, &root, first, |root| quietly(root, &chain, &owner));
            let b = stopped(scope, &root, second, |root| new.enroll(root, &mut chain.clone(), &owner));
            let waited = (a.waits, b.waits);
            a.go_on().expect(when);
            b.go_on().expect(when);
            let after = holds(&root, &owner, &made, when);
            assert!(after.epoch() == 2 && after.is_enrolled(&new.id()), "{when}");
            waited
        })
    });
}

/// Each is told whether its lock counts. Stretches a passphrase three times, at the floor of the parameters.
#[test]
fn of_two_new_locks_at_once_one_counts() {
    let place = tempfile::tempdir().unwrap();
    let root = runvault_store::posix::open_root(place.path()).unwrap();
    let owner = Identity::generate("owner").unwrap();
    let locked = |passphrase: &[u8]| {
        key_files::lock(&owner, &NewLock::Passphrase { passphrase, params: Params::FLOOR }, None).unwrap()
    };
    init(&root, &owner, None).unwrap();
    let (old, one, two) = (locked(b"old"), locked(b"one"), locked(b"two"));
    all_stops(|first, second, when| {
        locks::write(&root, &old).unwrap();
        let seen = locks::seen(&root).unwrap();
        std::thread::scope(|scope| {
            let a = stopped(scope, &root, first, |root| locks::put_after(root, &seen, &one));
            let b = stopped(scope, &root, second, |root| locks::put_after(root, &seen, &two));
            let waited = (a.waits, b.waits);
            let counts = match (a.go_on(), b.go_on()) {
                (Ok(()), Err(Error::LockChanged)) => &one,
                (Err(Error::LockChanged), Ok(())) => &two,
                other => panic!("{when}: {other:?}"),
            };
            assert_eq!(locks::read(&root).unwrap(), *counts, "{when}");
            assert!(locks::faults(&root).is_empty(), "{when}");
            waited
        })
    });
}

/// Many at once, by the machine's own scheduling.
#[test]
fn a_crowd_is_enrolled_while_keys_are_made() {
    let (root, owner, chain) = vault();
    let gateways: Vec<StateFolder> = (0..6).map(|_| gateway(&chain)).collect();
    std::thread::scope(|scope| {
        for gateway in &gateways {
            scope.spawn(|| gateway.enroll(&root, &mut chain.clone(), &owner).unwrap());
        }
        scope.spawn(|| quietly(&root, &chain, &owner).unwrap());
    });
    let after = holds(&root, &owner, &[], "a crowd");
    assert_eq!((after.head().n, after.epoch()), (7, 2));
    assert!(gateways.iter().all(|gateway| after.is_enrolled(&gateway.id())));
}
