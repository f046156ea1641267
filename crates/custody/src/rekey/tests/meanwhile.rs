//! What others do while the work is at it: custodians, a second worker, a kill.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, Once};

use runvault_format::ids::VaultId;
use runvault_vault::authority::{Admission, EnvelopeFile, GatewayKey, Sealed, Standing, StateRef};

use super::*;

/// What an authority does while the work is at it, and then lets happen.
struct Between<'a> {
    of: Arc<dyn Authority>,
    /// Before the answer to which call of that kind.
    at: (Call, usize),
    calls: AtomicUsize,
    act: Mutex<Option<Box<dyn FnOnce() + Send + 'a>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// What the key is sealed to was chosen.
    Sealed,
    /// It was looked which line is the newest.
    Stood,
}

impl<'a> Between<'a> {
    fn over(of: Arc<dyn Authority>, at: (Call, usize), act: impl FnOnce() + Send + 'a) -> Self {
        Self { of, at, calls: AtomicUsize::new(0), act: Mutex::new(Some(Box::new(act))) }
    }

    fn called(&self, call: Call) {
        if call == self.at.0 && self.calls.fetch_add(1, Ordering::Relaxed) + 1 == self.at.1 {
            let act = self.act.lock().unwrap().take();
            act.into_iter().for_each(|act| act());
        }
    }

    fn has_acted(&self) -> bool {
        self.act.lock().unwrap().is_none()
    }
}

impl Authority for Between<'_> {
    fn refresh(&self) {
        self.of.refresh();
    }
    fn standing(&self) -> Standing {
        let standing = self.of.standing();
        self.called(Call::Stood);
        standing
    }
    fn vault_id(&self) -> VaultId {
        self.of.vault_id()
    }
    fn gateway_key(&self, id: &IdentityId) -> Option<GatewayKey> {
        self.of.gateway_key(id)
    }
    fn admission(&self, gateway: &IdentityId, run: Option<&RunId>) -> Option<Admission> {
        self.of.admission(gateway, run)
    }
    fn replacement(&self, new: &RunId) -> Option<Replacement> {
        self.of.replacement(new)
    }
    fn envelope_names(&self) -> Vec<String> {
        self.of.envelope_names()
    }
    fn open_run(&self, run: &RunId, envelopes: &[EnvelopeFile]) -> runvault_vault::Result<Option<RunKey>> {
        self.of.open_run(run, envelopes)
    }
    fn seal_run(&self, run: &RunId, key: &RunKey) -> runvault_vault::Result<Sealed> {
        self.of.seal_run(run, key)
    }
    fn seal_replacing(
        &self,
        run: &RunId,
        key: &RunKey,
        replaced: &[RunId],
        sealed_at: &StateRef,
    ) -> runvault_vault::Result<Sealed> {
        let sealed = self.of.seal_replacing(run, key, replaced, sealed_at);
        self.called(Call::Sealed);
        sealed
    }
}

impl Site {
    /// The work, with something that happens in between; whether it did.
    fn work_between(
        &self,
        root: &Arc<dyn Dir>,
        of: &Replacement,
        at: (Call, usize),
        act: impl FnOnce() + Send,
    ) -> bool {
        let worker = worker_of(root, &self.chain, &self.owner, of).unwrap().unwrap();
        let acting = Acting::open(root, self.chain.clone(), &worker).unwrap();
        let authority = Between::over(acting, at, act);
        let job = Job {
            root,
            authority: &authority,
            worker: &worker,
            old: of.run,
            new: of.new,
            grace: Duration::ZERO,
            waits: &|| (),
        };
        let done = rekey(&job, Shard::ALL, &|_, _| ()).unwrap();
        assert!(matches!(done, Done::Replaced(_)), "{at:?}: {done:?}");
        authority.has_acted()
    }
}

/// At whatever moment a run is granted or taken away while its new key is sealed, by its old id, that holds in the end.
#[test]
fn no_grant_and_no_revocation_is_undone_by_the_work() {
    let mut site = Site::new();
    let run = site.sealed(b"run");
    let (guest, late) = (site.add_reader("guest", false), site.add_reader("late", false));
    site.agree(Operation::Grant { reader: guest.id(), runs: vec![run] });
    let one = site.agree_on(run);
    let runs = vec![run];
    let ops = [
        (Operation::Revoke { reader: guest.id(), runs: runs.clone() }, [false, false]),
        (Operation::Grant { reader: late.id(), runs }, [true, true]),
    ];
    let mut acted = 0;
    for (op, expected) in &ops {
        for at in [Call::Sealed, Call::Stood].iter().flat_map(|call| (1..8).map(move |n| (*call, n))) {
            let root = copy(&site.root);
            let act = || {
                let chain = Chain::load(&root).unwrap();
                alone::act(&root, &chain, &site.owner, op.clone(), "", &mut |_, _| {}).unwrap();
            };
            if !site.work_between(&root, &one, at, act) {
                continue;
            }
            acted += 1;
            let names = names_of(&root, &one.new);
            let has = [&guest, &late].map(|reader| names.contains(&format!("reader-{}", reader.id())));
            assert_eq!(has, *expected, "{op:?} at {at:?}: {names:?}");
            assert_eq!(left(&root, &one).unwrap(), Left::Nothing);
        }
    }
    assert!(acted > 10, "{acted}");
}

/// Two that each believe to hold the lease, one of which is killed anywhere: the other goes on.
#[test]
fn who_seals_at_the_same_time_does_not_disturb() {
    let mut site = Site::new();
    let run = site.sealed(b"run");
    let before = site.contents(&site.root, b"run");
    let one = site.agree_on(run);
    let worker = site.worker(&one);
    let mut ended = false;
    for n in (0..).step_by(19).take_while(|n| *n < 2_000) {
        let root = copy(&site.root);
        let killed = Mutex::new(None);
        let other = || {
            let act = |root: &Arc<dyn Dir>| Ok(site.work_as(root, &one, Shard::ALL, &worker)?);
            *killed.lock().unwrap() = Some(killed_at(&root, n, act).is_some());
        };
        assert!(site.work_between(&root, &one, (Call::Sealed, 1), other));
        assert_eq!(left(&root, &one).unwrap(), Left::Nothing, "{n}");
        assert_eq!(site.contents(&root, b"run"), before, "{n}");
        site.assert_sound(&root, &one.new);
        let dir = run_dir(&root, &one.new);
        assert!(crate::layout::names(&dir, "").unwrap().iter().all(|name| !name.starts_with(b"seal.new")));
        if killed.into_inner().unwrap() == Some(false) {
            ended = true;
            break;
        }
    }
    assert!(ended, "the other one came to its end once");
}

/// While one copies, another finds all there and seals it, or is killed anywhere on its way.
#[test]
fn who_copies_while_another_seals_is_not_disturbed() {
    let (site, _, one) = Site::agreed();
    let before = site.contents(&site.root, b"run");
    let worker = site.worker(&one);
    let mut ended = false;
    for n in (0..).step_by(19).take_while(|n| *n < 2_000) {
        let root = copy(&site.root);
        let (other, other_ended) = (Once::new(), AtomicBool::new(false));
        let act = |root: &Arc<dyn Dir>| Ok(site.work_as(root, &one, Shard::ALL, &worker)?);
        let progress = |done: u64, _: u64| {
            if done > 0 {
                other.call_once(|| {
                    other_ended.store(killed_at(&root, n, act).is_none(), Ordering::Relaxed);
                });
            }
        };
        let authority = Acting::open(&root, site.chain.clone(), &worker).unwrap();
        let (old, new, grace, waits) = (one.run, one.new, Duration::ZERO, &|| ());
        let job = Job { root: &root, authority: &*authority, worker: &worker, old, new, grace, waits };
        let done = rekey(&job, Shard::ALL, &progress).unwrap_or_else(|error| panic!("{n}: {error}"));
        assert!(other.is_completed());
        if matches!(done, Done::Replaced(_)) {
            assert_eq!(site.contents(&root, b"run"), before, "{n}");
            site.assert_sound(&root, &one.new);
        }
        ended = other_ended.into_inner();
        if ended {
            break;
        }
    }
    assert!(ended, "the other one came to its end once");
}

/// Both wait, and the other one is the first to come to its end, and to take the worker's key away.
#[test]
fn who_waits_while_another_comes_to_its_end_has_done_the_same() {
    let (site, _, one) = Site::agreed();
    let (root, worker) = (site.both(&one), site.worker(&one));
    let other = || drop(site.work_as(&root, &one, Shard::ALL, &worker).unwrap());
    let authority = Acting::open(&root, site.chain.clone(), &worker).unwrap();
    let (old, new, grace) = (one.run, one.new, Duration::from_nanos(1));
    let job = Job { root: &root, authority: &*authority, worker: &worker, old, new, grace, waits: &other };
    assert!(matches!(rekey(&job, Shard::ALL, &|_, _| ()).unwrap(), Done::Replaced(_)));
    assert_eq!(left(&root, &one).unwrap(), Left::Nothing);
    site.assert_sound(&root, &one.new);
}

/// What is left of a run that was replaced opens to nobody who is revoked, and loses its envelopes first.
#[test]
fn what_is_left_of_the_old_run_is_closed_too() {
    let mut site = Site::new();
    let (removed, revoked) = (site.add_reader("removed", true), site.add_reader("revoked", true));
    let run = site.sealed(b"run");
    let one = site.agree_on(run);
    site.root = site.both(&one);
    let worker = site.worker(&one);
    let gone =
        |root: &Arc<dyn Dir>| root.open_dir(b"runs").unwrap().open_dir(runs::gone_place(&run).as_bytes());
    let (mut met, mut whole) = (0, None);
    for n in 0.. {
        let root = copy(&site.root);
        if killed_at(&root, n, |root| Ok(site.work_as(root, &one, Shard::ALL, &worker)?)).is_none() {
            break;
        }
        let Ok(left) = gone(&root) else { continue };
        met += 1;
        let names = crate::layout::names(&left, "").unwrap();
        let parts = whole.get_or_insert(names.len());
        let closed =
            left.open_dir(b"keys").map_or(true, |keys| crate::layout::names(&keys, "").unwrap().is_empty());
        assert!(closed || names.len() == *parts, "call {n}: something else went first");
        if met == 2 {
            let before = site.root.clone();
            site.root = root;
            let keys = gone(&site.root).unwrap().open_dir(b"keys").unwrap();
            for reader in [&removed, &revoked] {
                put(&keys, &format!("reader-{}", reader.id()), b"an envelope");
            }
            let chain = site.chain.clone();
            site.agree(Operation::RemoveReader { reader: removed.id() });
            site.agree(Operation::Revoke { reader: revoked.id(), runs: vec![run] });
            let names = crate::layout::names(&keys, "").unwrap();
            assert!(names.iter().all(|name| !name.starts_with(b"reader-")), "{names:?}");
            (site.root, site.chain) = (before, chain);
        }
    }
    assert!(met > 4, "{met}");
}

/// At a machine that sleeps, or as a part of a cluster's work, it still has the key, and what it has open.
#[test]
fn a_worker_that_is_at_what_was_given_up_comes_to_nothing() {
    for others_are_done in [false, true] {
        let (mut site, run, one) = Site::agreed();
        let before = site.contents(&site.root, b"run");
        let (root, worker) = (site.root.clone(), site.worker(&one));
        let acting = Acting::open(&root, site.chain.clone(), &worker).unwrap();
        let given_up = || {
            let (from, runs) = (runs::coming_place(&one.new), site.root.open_dir(b"runs").unwrap());
            runs.rename(from.as_bytes(), &*site.root, b"given up", Rename::Over).unwrap();
            site.agree(Operation::Rekey { runs: vec![run] });
            if others_are_done {
                let again = under_way(&site.root, &site.chain, &run).unwrap().unwrap();
                site.work(&site.root, &again, Shard::ALL).unwrap();
            }
        };
        let authority = Between::over(acting, (Call::Sealed, 1), given_up);
        let grace = Duration::ZERO;
        let job = Job {
            root: &root,
            authority: &authority,
            worker: &worker,
            old: run,
            new: one.new,
            grace,
            waits: &|| (),
        };
        refusal(rekey(&job, Shard::ALL, &|_, _| ()));
        assert!(authority.has_acted());
        drop(authority);
        let again = site.chain.replaced_by(&run).find(|other| other.new != one.new).unwrap().clone();
        assert_eq!(runs::list(&root).unwrap(), [if others_are_done { again.new } else { run }]);
        if !others_are_done {
            site.work(&root, &again, Shard::ALL).unwrap();
        }
        assert_eq!(runs::list(&root).unwrap(), [again.new]);
        assert_eq!(site.contents(&root, b"run"), before);
        site.assert_sound(&root, &again.new);
        assert_eq!(waiting(&root, site.chain.replacements()).unwrap(), []);
    }
}
