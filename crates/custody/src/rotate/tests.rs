//! Rotations that go through, are killed anywhere, meet damage, swaps and new runs.

use std::sync::OnceLock;

use runvault_store::doubles::observe::{Call, Change, Observer, observe};

use super::*;
use crate::Error;
use crate::gateway::StateFolder;
use crate::testing::{copy, custody, enrolled, envelopes, get, killed_at, make_run, put, vault};
use runvault_format::keys::RunKey;

type Made = Vec<(RunId, RunKey)>;

fn runs(count: usize) -> (Arc<dyn Dir>, Identity, Chain, StateFolder, Made) {
    let (root, owner, mut chain) = vault();
    let gateway = enrolled(&root, &mut chain, &owner);
    let runs = (0..count).map(|_| make_run(&root, &chain, &gateway)).collect();
    (root, owner, chain, gateway, runs)
}

fn quietly(root: &Arc<dyn Dir>, chain: &Chain, owner: &Identity) -> Result<RotateSummary> {
    rotate(root, chain, owner, &mut |_, _| {})
}

/// Every run opens for the owner, whatever happened.
fn all_open(root: &Arc<dyn Dir>, owner: &Identity, runs: &[(RunId, RunKey)]) {
    let acting = Acting::open(root, Chain::load(root).unwrap(), owner).unwrap();
    for (run, key) in runs {
        let opened = acting.open_run(run, &envelopes(root, run)).unwrap().unwrap();
        assert_eq!(opened.0.expose(), key.0.expose());
    }
}

fn names(root: &Arc<dyn Dir>, run: &RunId) -> Vec<String> {
    envelopes(root, run).into_iter().map(|file| file.name).collect()
}

#[test]
fn every_run_moves_to_the_new_epoch() {
    let (root, owner, chain, gateway, made) = runs(5);
    let mut seen = Vec::new();
    let summary = rotate(&root, &chain, &owner, &mut |done, total| seen.push((done, total))).unwrap();
    assert_eq!(summary, RotateSummary { epoch: 2, rotated: 5, ..RotateSummary::default() });
    assert_eq!(seen, (1..=5).map(|done| (done, 5)).collect::<Vec<_>>());
    made.iter().for_each(|(run, _)| assert_eq!(names(&root, run), ["vault-2"]));
    all_open(&root, &owner, &made);
    // A mount that has the old chain goes on sealing to the old epoch; a restored copy does, too.
    let (late, key) = make_run(&root, &chain, &gateway);
    all_open(&root, &owner, &[(late, key)]);
    let chain = Chain::load(&root).unwrap();
    assert_eq!((chain.epoch(), chain.head().n), (2, 2));
    let summary = quietly(&root, &chain, &owner).unwrap();
    assert_eq!((summary.epoch, summary.rotated), (3, 6));
    assert_eq!(names(&root, &late), ["vault-3"]);
    // The keyring still opens an envelope of the first epoch, as a tape may hold one.
    let keys = EpochKeys::open(&Chain::load(&root).unwrap(), &owner).unwrap();
    assert!((1..=3).all(|e| keys.get(e).is_some()));
}

/// Killed at each call in turn: every run opens, a resumption finishes the same epoch, and whoever asks
/// for a new key gets one.
#[test]
fn a_rotation_killed_anywhere_is_finished() {
    let (start, owner, chain, _, made) = runs(2);
    let mut left = 0;
    for n in (0..).step_by(if cfg!(debug_assertions) { 3 } else { 1 }) {
        let root = copy(&start);
        let killed = killed_at(&root, n, |root| quietly(root, &chain, &owner));
        all_open(&root, &owner, &made);
        let after = Chain::load(&root).unwrap();
        assert!(after.epoch() <= 2);
        let summary = resume(&root, &after, &owner, &mut |_, _| {}).unwrap();
        all_open(&root, &owner, &made);
        assert_eq!((summary.epoch, summary.rotated + summary.already), (after.epoch(), 2));
        let in_epoch =
            |e| made.iter().for_each(|(run, _)| assert_eq!(names(&root, run), [format!("vault-{e}")]));
        in_epoch(after.epoch());
        left += summary.rotated;
        assert_eq!(quietly(&root, &Chain::load(&root).unwrap(), &owner).unwrap().epoch, after.epoch() + 1);
        in_epoch(after.epoch() + 1);
        all_open(&root, &owner, &made);
        if killed.is_none() {
            break;
        }
    }
    assert!(left > 3, "{left} runs were left to a resumption");
}

/// The mark of an older draft, which made `rotate` keep the key that it was asked to replace.
#[test]
fn nothing_in_the_store_keeps_a_new_key_from_being_made() {
    let (root, owner, chain, _, made) = runs(1);
    put(&custody(&root), "rotating", format!("{}\n", chain.epoch()).as_bytes());
    assert_eq!(quietly(&root, &chain, &owner).unwrap().epoch, 2);
    assert_eq!(names(&root, &made[0].0), ["vault-2"]);
}

#[test]
fn what_does_not_open_is_left_and_named() {
    let (root, owner, chain, _, made) = runs(4);
    let run_dir = |i: usize| {
        let runs = root.open_dir(b"runs").unwrap();
        runs.open_dir(made[i].0.to_string().as_bytes()).unwrap()
    };
    // Swapped between runs; torn; a descriptor that nobody signed.
    let keys = |i: usize| run_dir(i).open_dir(b"keys").unwrap();
    put(&keys(0), "vault-1", &get(&keys(1), "vault-1"));
    put(&keys(2), "vault-1", b"rvkey/1");
    let note = get(&run_dir(3), "run.json");
    put(&run_dir(3), "run.json", &note[..note.len() / 2]);
    let summary = quietly(&root, &chain, &owner).unwrap();
    assert_eq!((summary.epoch, summary.rotated, summary.failed.len()), (2, 1, 3));
    let mut named: Vec<RunId> = summary.failed.iter().map(|(run, _)| *run).collect();
    let mut expected = vec![made[0].0, made[2].0, made[3].0];
    named.sort();
    expected.sort();
    assert_eq!(named, expected);
    for i in [0, 2, 3] {
        assert_eq!(names(&root, &made[i].0), ["vault-1"], "nothing is removed that was not replaced");
    }
    // Repaired, they follow with the next rotation.
    put(&run_dir(3), "run.json", &note);
    let summary = quietly(&root, &Chain::load(&root).unwrap(), &owner).unwrap();
    assert_eq!((summary.epoch, summary.rotated, summary.failed.len()), (3, 2, 2));
}

/// A torn new envelope beside the old one, as a store that lies about renames may leave it.
#[test]
fn an_old_envelope_goes_only_when_the_new_one_opens() {
    let (root, owner, chain, _, made) = runs(1);
    let keys = root.open_dir(b"runs").unwrap().open_dir(made[0].0.to_string().as_bytes()).unwrap();
    let keys = keys.open_dir(b"keys").unwrap();
    put(&keys, "vault-2", b"rvkey/1");
    let summary = quietly(&root, &chain, &owner).unwrap();
    assert_eq!((summary.rotated, summary.already), (1, 0));
    assert_eq!(names(&root, &made[0].0), ["vault-2"]);
    all_open(&root, &owner, &made);
}

fn keys_of(root: &Arc<dyn Dir>, run: &RunId) -> Arc<dyn Dir> {
    let runs = root.open_dir(b"runs").unwrap();
    runs.open_dir(run.to_string().as_bytes()).unwrap().open_dir(b"keys").unwrap()
}

/// Puts an envelope to the new key in place right before a rotation does.
struct Gateway {
    root: Arc<dyn Dir>,
    owner: Arc<Identity>,
    run: (RunId, RunKey),
    bytes: OnceLock<Vec<u8>>,
}

impl Observer for Gateway {
    fn around(&self, call: Call<'_>, run: &mut dyn FnMut() -> std::io::Result<u64>) -> std::io::Result<()> {
        let (id, key) = &self.run;
        if matches!(&call.change, Some(Change::Link { new, .. }) if **new == *b"vault-2")
            && self.bytes.get().is_none()
        {
            let acting = Acting::open(&self.root, Chain::load(&self.root).unwrap(), &self.owner).unwrap();
            let sealed = acting.seal_run(id, key).unwrap().envelopes;
            let [envelope] = sealed.try_into().unwrap();
            put(&keys_of(&self.root, id), &envelope.name, &envelope.bytes);
            self.bytes.set(envelope.bytes).unwrap();
        }
        run().map(|_| ())
    }
}

/// Its seal has the same bytes.
#[test]
fn what_a_gateway_puts_there_with_a_seal_stays() {
    let (inner, owner, chain, _, made) = runs(1);
    let owner = Arc::new(owner);
    let gateway =
        Gateway { root: inner.clone(), owner: owner.clone(), run: made[0].clone(), bytes: OnceLock::new() };
    let gateway = Arc::new(gateway);
    let root = observe(inner, gateway.clone()).unwrap();
    let summary = quietly(&root, &chain, &owner).unwrap();
    assert_eq!((summary.rotated, summary.failed.len()), (1, 0), "{summary:?}");
    assert_eq!(names(&root, &made[0].0), ["vault-2"]);
    let found = get(&keys_of(&root, &made[0].0), "vault-2");
    assert_eq!(Some(&found), gateway.bytes.get());
    all_open(&root, &owner, &made);
}

/// After an older custody/ was put back the next key has the number of one that is lost, and so have both keys'
/// envelopes.
#[test]
fn an_envelope_to_a_lost_key_of_the_same_number_does_not_count() {
    let (root, owner, chain, _, made) = runs(4);
    let before = copy(&root);
    quietly(&root, &chain, &owner).unwrap();
    for (run, _) in made.get(..3).unwrap() {
        put(&keys_of(&before, run), "vault-2", &get(&keys_of(&root, run), "vault-2"));
    }
    for (run, _) in made.get(..2).unwrap() {
        keys_of(&before, run).unlink(b"vault-1").unwrap();
    }
    let summary = quietly(&before, &chain, &owner).unwrap();
    assert_eq!((summary.epoch, summary.rotated, summary.already), (2, 2, 0), "{summary:?}");
    let mut lost = [made[0].0, made[1].0];
    lost.sort();
    assert_eq!(summary.failed.iter().map(|(run, _)| *run).collect::<Vec<_>>(), lost);
    assert!(summary.failed[0].1.contains("none of its envelopes opens"), "{summary:?}");
    all_open(&before, &owner, &made[2..]);
    made[2..].iter().for_each(|(run, _)| assert_eq!(names(&before, run), ["vault-2"]));
}

#[test]
fn a_resumption_counts_only_envelopes_that_open() {
    let (root, owner, chain, _, made) = runs(5);
    let older = copy(&root);
    quietly(&root, &chain, &owner).unwrap();
    let [flipped, mended, gone, planted, _] = &made[..] else { panic!() };
    for (run, _) in [flipped, mended] {
        let mut bytes = get(&keys_of(&root, run), "vault-2");
        *bytes.last_mut().unwrap() ^= 1;
        put(&keys_of(&root, run), "vault-2", &bytes);
    }
    put(&keys_of(&root, &mended.0), "vault-1", &get(&keys_of(&older, &mended.0), "vault-1"));
    keys_of(&root, &gone.0).unlink(b"vault-2").unwrap();
    put(&keys_of(&root, &planted.0), "vault-1", &get(&keys_of(&older, &planted.0), "vault-1"));
    keys_of(&root, &planted.0).unlink(b"vault-2").unwrap();
    keys_of(&root, &planted.0).create_dir(b"vault-2", 0o755).unwrap();
    let summary = resume(&root, &Chain::load(&root).unwrap(), &owner, &mut |_, _| {}).unwrap();
    assert_eq!((summary.rotated, summary.already, summary.failed.len()), (1, 1, 3), "{summary:?}");
    let why = |run: &RunId| summary.failed.iter().find(|(failed, _)| failed == run).unwrap().1.clone();
    assert!(why(&flipped.0).contains("none of its envelopes opens"), "{summary:?}");
    assert!(why(&gone.0).contains("no envelope to a key of this vault is there"), "{summary:?}");
    assert!(why(&planted.0).contains("keys/vault-2"), "{summary:?}");
    assert_eq!(names(&root, &mended.0), ["vault-2"]);
    all_open(&root, &owner, &[made[1].clone(), made[4].clone()]);
}

#[test]
fn only_the_owner_rotates() {
    let (root, _, chain, _, _) = runs(1);
    let stranger = Identity::generate("stranger").unwrap();
    let refused = quietly(&root, &chain, &stranger).unwrap_err();
    assert!(matches!(refused, Error::WrongKey { .. }), "{refused}");
    assert_eq!(Chain::load(&root).unwrap().epoch(), 1);
}
