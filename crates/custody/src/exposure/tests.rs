//! Against the truth: each key is tried on every run, of the store as it is and of copies of it.

use std::collections::BTreeSet;

use runvault_format::custody_state::Custodian;
use runvault_format::envelope_file::{self, EnvelopeName};
use runvault_format::operation::Operation;
use runvault_format::removed::GoneRun;
use runvault_vault::authority::Gateway;

use super::*;
use crate::epochs::{EpochKeys, open_share};
use crate::gateway::StateFolder;
use crate::identity::Identity;
use crate::quorum::tests::Vault;
use crate::testing::{copy, envelopes, make_run, reader_entry as entry, seal};

/// The runs that a reader's key opens, whatever honest mounts say.
pub(crate) fn read_by(root: &Arc<dyn Dir>, reader: &Identity) -> BTreeSet<RunId> {
    let vault = Chain::load(root).unwrap().vault_id();
    let name = EnvelopeName::Reader(reader.id());
    let opens = |run: &RunId| {
        let envelope = envelopes(root, run).into_iter().find(|file| file.name == name.to_string());
        envelope.is_some_and(|file| {
            envelope_file::open_run_key(&reader.keys.kem, &vault, run, &name, &file.bytes).is_ok()
        })
    };
    runs::list(root).unwrap().into_iter().filter(opens).collect()
}

/// The runs that these custodians open together with the shares of this chain.
fn opened_by(root: &Arc<dyn Dir>, chain: &Chain, who: &[&Identity]) -> BTreeSet<RunId> {
    let shares = who.iter().map(|one| (one.id(), open_share(chain, one).unwrap())).collect::<Vec<_>>();
    let acting = Acting::with_keys(chain.clone(), EpochKeys::combine(chain.state(), &shares).unwrap());
    let opens = |run: &RunId| {
        let names = envelopes(root, run).into_iter();
        names.clone().any(|file| matches!(acting.open_one(run, &file), Some(Ok(_))))
    };
    runs::list(root).unwrap().into_iter().filter(opens).collect()
}

fn told(root: &Arc<dyn Dir>, key: &Identity) -> Exposure {
    let chain = Chain::load(root).unwrap();
    exposure(root, &chain, &key.id(), (None, None), &mut |_, _| {}).unwrap()
}

fn those(exposure: &Exposure, opens: &[Opens]) -> BTreeSet<RunId> {
    exposure.runs.iter().filter(|one| opens.contains(&one.opens)).map(|one| one.run).collect()
}

fn run(vault: &Vault, gateway: &StateFolder) -> RunId {
    make_run(&vault.root, &vault.chain(), gateway).0
}

#[test]
fn readers_as_their_keys_open() {
    let vault = Vault::of(2, 3);
    let gateway = vault.gateway();
    let people: Vec<Identity> = ["standing", "guest", "gone", "expired", "never"]
        .iter()
        .map(|label| Identity::generate(label).unwrap())
        .collect();
    let [standing, guest, gone, expired, never] = people.as_slice() else { panic!("five") };
    run(&vault, &gateway);
    for (reader, stands, expires) in [
        (standing, true, None),
        (guest, false, None),
        (gone, true, None),
        (expired, true, Some("2020-01-01T00:00:00Z")),
    ] {
        vault.agree(Operation::AddReader { reader: entry(reader, stands, expires) });
    }
    let second = run(&vault, &gateway);
    let third = run(&vault, &gateway);
    let of = |reader: &Identity, mut runs: Vec<RunId>| {
        runs.sort();
        (reader.id(), runs)
    };
    let (reader, both) = of(guest, vec![second, third]);
    vault.agree(Operation::Grant { reader, runs: both });
    let granted = copy(&vault.root);
    let (reader, one) = of(guest, vec![third]);
    vault.agree(Operation::Revoke { reader, runs: one });
    vault.agree(Operation::RemoveReader { reader: gone.id() });
    run(&vault, &gateway);
    for reader in [standing, guest, gone, expired] {
        let said = told(&vault.root, reader);
        assert_eq!(those(&said, &[Opens::Now]), read_by(&vault.root, reader), "{}", reader.label);
        let before = read_by(&granted, reader);
        assert!(those(&said, &[Opens::Now, Opens::Then]).is_superset(&before), "{}", reader.label);
        assert!(said.runs.iter().all(|one| one.by == As::Reader));
    }
    let said = told(&vault.root, gone);
    assert_eq!(those(&said, &[Opens::Then]), BTreeSet::from([second, third]));
    assert!(
        said.runs.iter().all(|one| one.until.is_some() && one.why.contains("standing")),
        "{:?}",
        said.runs
    );
    assert_eq!(said.roles.len(), 1);
    assert!(said.roles[0].to.is_some());
    assert_eq!(those(&told(&vault.root, guest), &[Opens::Then]), BTreeSet::from([third]));
    let chain = vault.chain();
    let refused = exposure(&vault.root, &chain, &never.id(), (None, None), &mut |_, _| {}).unwrap_err();
    assert!(matches!(refused, Error::UnknownKey(_)), "{refused}");
    // In wrong hands later: only old copies. Before it was let in: nothing.
    let at = |from, to| exposure(&vault.root, &chain, &gone.id(), (from, to), &mut |_, _| {}).unwrap();
    let late = at(Some("2999-01-01T00:00:00Z"), Some("2999-02-01T00:00:00Z"));
    assert_eq!(those(&late, &[Opens::OldCopies]), BTreeSet::from([second, third]));
    assert_eq!(at(None, Some("2001-01-01T00:00:00Z")).runs, []);
    // What is signed about a run cannot be read: whoever ever stood counts.
    let broken = copy(&vault.root);
    crate::testing::put(&crate::testing::run_dir(&broken, &second), "run.json", b"x");
    assert!(those(&told(&broken, gone), &[Opens::Then]).contains(&second));
    assert!(!those(&told(&broken, guest), &[Opens::Then]).contains(&second), "which it has, now");
    // An envelope that no line knows of counts.
    let other = Identity::generate("other").unwrap();
    vault.agree(Operation::AddReader { reader: entry(&other, false, None) });
    assert_eq!(told(&vault.root, &other).runs, []);
    let keys = crate::testing::run_dir(&vault.root, &second).open_dir(b"keys").unwrap();
    crate::testing::put(&keys, &EnvelopeName::Reader(other.id()).to_string(), b"x");
    assert_eq!(those(&told(&vault.root, &other), &[Opens::Now]), BTreeSet::from([second]));
}

#[test]
fn custodians_as_their_quorum_opens() {
    let vault = Vault::of(2, 3);
    let gateway = vault.gateway();
    let first = run(&vault, &gateway);
    let sealed = run(&vault, &gateway);
    seal(&vault.root, &gateway, &sealed);
    // As the engine leaves it: a second envelope in the seal, which no rotation replaces.
    let dir = crate::testing::run_dir(&vault.root, &sealed).open_dir(b"seal").unwrap();
    let own = envelopes(&vault.root, &sealed).remove(0);
    crate::testing::put(&dir, &own.name, &own.bytes);
    let (before, old) = (vault.chain(), copy(&vault.root));
    let [_, stays, leaves] = vault.people.as_slice() else { panic!("three") };
    vault.agree(Operation::RemoveCustodian { custodian: leaves.id() });
    let after = run(&vault, &gateway);
    let said = told(&vault.root, leaves);
    assert!(said.runs.iter().all(|one| one.by == As::Custodian { others: 1 }), "{:?}", said.runs);
    // Together with one who stays, by the shares that they had.
    assert_eq!(opened_by(&old, &before, &[stays, leaves]), BTreeSet::from([first, sealed]));
    assert_eq!(those(&said, &[Opens::Now, Opens::Then]), BTreeSet::from([first, sealed]));
    // The seal's own envelope is to the key of its time.
    let shown = |said: &Exposure| said.runs.iter().map(|one| (one.run, one.opens)).collect::<BTreeSet<_>>();
    assert_eq!(shown(&said), BTreeSet::from([(first, Opens::Then), (sealed, Opens::Now)]));
    let said = told(&vault.root, stays);
    assert_eq!(those(&said, &[Opens::Now]), BTreeSet::from([first, sealed, after]));
    assert_eq!(
        opened_by(&vault.root, &vault.chain(), &[&vault.people[0], stays]),
        BTreeSet::from([first, sealed, after])
    );
}

#[test]
fn an_owner_alone_and_then_with_another() {
    let (root, owner, mut chain) = crate::testing::vault();
    let gateway = crate::testing::enrolled(&root, &mut chain, &owner);
    let (first, _) = make_run(&root, &chain, &gateway);
    let bob = Identity::generate("bob").unwrap();
    let act =
        |op| crate::quorum::alone::act(&root, &Chain::load(&root).unwrap(), &owner, op, "", &mut |_, _| {});
    act(Operation::AddCustodian { custodian: Custodian::new("bob", &bob.public()) }).unwrap();
    act(Operation::ChangeQuorum { quorum: 2 }).unwrap();
    let said = told(&root, &owner);
    let rows: Vec<_> = said.runs.iter().map(|one| (one.run, one.opens, one.by)).collect();
    let (together, alone) = (As::Custodian { others: 1 }, As::Custodian { others: 0 });
    assert_eq!(rows, [(first, Opens::Now, together), (first, Opens::Then, alone)]);
    // Its gateway has what is open there.
    let machine =
        exposure(&root, &Chain::load(&root).unwrap(), &gateway.id(), (None, None), &mut |_, _| {}).unwrap();
    assert_eq!(machine.runs[0].by, As::Gateway);
    assert_eq!(machine.runs[0].opens, Opens::Now);
    seal(&root, &gateway, &first);
    let machine =
        exposure(&root, &Chain::load(&root).unwrap(), &gateway.id(), (None, None), &mut |_, _| {}).unwrap();
    assert_eq!(
        (machine.runs[0].opens, machine.runs[0].until.as_deref()),
        (Opens::Then, Some("2026-11-24T06:00:00Z"))
    );
}

/// A machine that took a run over has its key, whoever made it.
#[test]
fn a_machine_that_was_admitted_to_a_run() {
    let vault = Vault::of(2, 3);
    let gateway = vault.gateway();
    let mine = run(&vault, &gateway);
    let other = vault.gateway();
    vault.agree(Operation::AdmitGateway { gateway: Gateway::id(&other), run: Some(mine) });
    let told =
        exposure(&vault.root, &vault.chain(), &Gateway::id(&other), (None, None), &mut |_, _| {}).unwrap();
    assert_eq!(those(&told, &[Opens::Now]), BTreeSet::from([mine]));
}

/// The clock of who made it is ahead.
#[test]
fn what_began_later_than_now_counts() {
    let ahead = Exposed {
        run: RunId([1; 16]),
        opens: Opens::Now,
        by: As::Reader,
        since: "2999-01-01T00:00:00Z".to_owned(),
        until: None,
        why: String::new(),
    };
    assert_eq!(within(ahead.clone(), None, None), Some(ahead.clone()));
    assert_eq!(within(ahead, None, Some("2026-01-01T00:00:00Z")), None);
}

#[test]
fn a_run_that_is_retired_was_granted_all_the_same() {
    let vault = Vault::of(2, 3);
    let gateway = vault.gateway();
    let reader = Identity::generate("guest").unwrap();
    vault.agree(Operation::AddReader { reader: entry(&reader, false, None) });
    let gone = run(&vault, &gateway);
    vault.agree(Operation::Grant { reader: reader.id(), runs: vec![gone] });
    let authority = Acting::gateway_only(vault.chain());
    let named: GoneRun =
        crate::retired::named(&vault.root, &vault.chain(), &*authority, &gone).unwrap().unwrap();
    vault.agree(Operation::Retire { runs: vec![named] });
    crate::testing::take_away(&vault.root, &gone);
    assert_eq!(those(&told(&vault.root, &reader), &[Opens::Then]), BTreeSet::from([gone]));
}
