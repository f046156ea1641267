//! The chain of custody of one custodian: what verifies, and each refusal by its name.

use crate::common::*;
use proptest::prelude::*;
use runvault_format::Error;
use runvault_format::audit_entry::{Executed, Line};
use runvault_format::custody_state::{State, Status, Until};
use runvault_format::genesis::Genesis;
use runvault_format::ids::{Digest, VaultId};
use runvault_format::operation::Operation;
use runvault_format::request::{Head, Request};
use runvault_format::share;

#[test]
fn from_genesis_over_an_enrolment_to_a_rotation() {
    let (genesis, vault) = genesis();
    let computed = State::zero(&genesis, vault);
    let zero = computed.take_envelopes(state_0().to_text().unwrap().as_bytes()).unwrap();
    assert_eq!(zero.hash(), computed.hash());
    let owner = identity(OWNER);
    let epoch = zero.current().unwrap();
    let y = share::open_share(&owner.kem, &vault, epoch, &epoch.shares[0]).unwrap();
    assert_eq!(y.expose(), seed(EPOCH_1).expose());

    let one = enrolled(&zero, GATEWAY);
    let line = sign(enrolment(Head::start(&vault), &zero, &one));
    let head = line.verify(&Head::start(&vault), &computed, Some(&one)).unwrap();
    assert_eq!(head.n, 1);

    let two = rotated(&one);
    let line = sign(rotation(head, &one, &two, b"the share"));
    let head = line.verify(&head, &one, Some(&two)).unwrap();
    assert_eq!(head.n, 2);
    let (new, old) = (two.current().unwrap(), &two.epochs[0]);
    let y = share::open_share(&owner.kem, &vault, new, &new.shares[0]).unwrap();
    assert_eq!(y.expose(), seed(EPOCH_2).expose());
    let before = share::open_previous(&kem(EPOCH_2), &vault, new, old).unwrap();
    assert_eq!(before.expose(), seed(EPOCH_1).expose());
}

#[test]
fn texts_come_back() {
    let (genesis, vault) = genesis();
    let text = genesis.to_text().unwrap();
    assert_eq!(Genesis::parse(text.as_bytes()), Ok((genesis.clone(), vault)));
    for state in [State::zero(&genesis, vault), state_0(), enrolled(&state_0(), GATEWAY)] {
        let text = state.to_text().unwrap();
        assert_eq!(State::parse(text.as_bytes()), Ok(state));
    }
    let one = enrolled(&state_0(), GATEWAY);
    let line = sign(enrolment(Head::start(&vault), &state_0(), &one));
    let text = line.to_line().unwrap();
    assert!(!text.contains('\n'));
    assert_eq!(Line::parse(text.as_bytes()), Ok(line.clone()));
    let request = line.executed.request;
    assert_eq!(Request::parse(request.to_text().unwrap().as_bytes()), Ok(request));
}

/// A line that was changed before the executor signed it, and what it is refused for.
fn enrolment_with(change: impl FnOnce(&mut Executed)) -> Result<Head, Error> {
    let (_, vault) = genesis();
    let zero = state_0();
    let one = enrolled(&zero, GATEWAY);
    let mut executed = enrolment(Head::start(&vault), &state_0(), &one);
    change(&mut executed);
    sign(executed).verify(&Head::start(&vault), &zero, Some(&one))
}

/// The owner approves the changed request again.
fn approve(e: &mut Executed) {
    let owner = identity(OWNER);
    let hash = e.request.hash().unwrap();
    e.approvals[0] = runvault_format::request::Approval::sign(owner.public().id(), &owner.sign, &hash, None);
}

#[test]
fn lines_that_do_not_follow() {
    let refused = |change: fn(&mut Executed)| enrolment_with(change).unwrap_err();
    assert!(enrolment_with(|_| {}).is_ok());
    assert_eq!(refused(|e| e.n = 2), Error::Chain("number"));
    assert_eq!(refused(|e| e.prev = Digest([0; 32])), Error::Chain("line before"));
    assert_eq!(
        refused(|e| e.request.head.hash = Digest([0; 32])),
        Error::Chain("the request is for another head")
    );
    assert_eq!(refused(|e| e.request.vault = VaultId([0; 32])), Error::Chain("vault"));
    assert_eq!(refused(|e| e.time = "2026-11-24T07:00:01Z".into()), Error::Chain("time"));
    assert_eq!(refused(|e| e.time = "2026-11-24T05:59:59Z".into()), Error::Chain("time"));
    assert_eq!(refused(|e| e.request.releases_share = true), Error::Chain("release of shares"));
    assert_eq!(
        refused(|e| e.approvals[0].env_sha256 = Some(Digest([0; 32]))),
        Error::Chain("release of shares")
    );
    assert_eq!(refused(|e| e.approvals.clear()), Error::Chain("quorum"));
    assert_eq!(
        refused(|e| e.approvals.push(e.approvals[0].clone())),
        Error::Chain("approved twice by one custodian")
    );
    assert_eq!(
        refused(|e| e.approvals[0].custodian = identity(GATEWAY).public().id()),
        Error::Chain("approved by someone else")
    );
    assert_eq!(refused(|e| e.approvals[0].sig[7] ^= 1), Error::Signature);
    assert_eq!(refused(|e| e.request.reason = "another".into()), Error::Signature);
    assert_eq!(refused(|e| e.result.state = None), Error::Chain("hash of the state"));
    assert_eq!(
        refused(|e| {
            e.request.state.as_mut().unwrap().gateways[0].label = "other".into();
            approve(e);
        }),
        Error::Chain("state of the request")
    );
    assert_eq!(
        refused(|e| {
            e.request.op = Operation::EnrolGateway { gateway: machine(OWNER) };
            approve(e);
        }),
        Error::Chain("the operation changes something else")
    );
    let (_, vault) = genesis();
    let zero = state_0();
    let one = enrolled(&zero, GATEWAY);
    let mut line = sign(enrolment(Head::start(&vault), &state_0(), &one));
    assert_eq!(line.verify(&Head::start(&vault), &zero, None), Err(Error::Chain("state missing")));
    line.executor_sig[0] ^= 1;
    assert_eq!(line.verify(&Head::start(&vault), &zero, Some(&one)), Err(Error::Signature));
    let mut nothing_done = enrolment(Head::start(&vault), &state_0(), &one);
    (nothing_done.request.state, nothing_done.result.state) = (None, None);
    approve(&mut nothing_done);
    let line = sign(nothing_done);
    assert_eq!(line.verify(&Head::start(&vault), &zero, None), Err(Error::Chain("state missing")));
}

/// A next state that the owner approved, and what it is refused for.
fn state_with(change: impl FnOnce(&mut State)) -> Result<Head, Error> {
    let (_, vault) = genesis();
    let zero = state_0();
    let mut one = enrolled(&zero, GATEWAY);
    change(&mut one);
    sign(enrolment(Head::start(&vault), &state_0(), &one)).verify(&Head::start(&vault), &zero, Some(&one))
}

#[test]
fn states_that_do_not_follow() {
    let refused = |change: fn(&mut State)| state_with(change).unwrap_err();
    let new_key = |s: &mut State| s.epochs[0].kem = kem(EPOCH_2).public().clone();
    assert_eq!(refused(new_key), Error::Chain("kept epochs"));
    assert_eq!(refused(|s| s.epochs[0].shares[0].x = 2), Error::Chain("shares"));
    assert_eq!(refused(|s| s.epochs[0].shares[0].env.as_mut().unwrap()[20] ^= 1), Error::Chain("shares"));
    assert_eq!(
        refused(|s| s.gateways.insert(0, gateway_entry(7))),
        Error::Chain("the operation changes something else")
    );
    assert_eq!(refused(|s| s.epochs[0].made = 1), Error::Chain("the vault key"));
    let (_, vault) = genesis();
    let one = enrolled(&state_0(), GATEWAY);
    let mut again = one.clone();
    again.n = 2;
    let head = Head { n: 1, hash: Digest([1; 32]) };
    let line = sign(enrolment(head, &one, &again));
    assert_eq!(line.verify(&head, &one, Some(&again)), Err(Error::Chain("enrolled before")));

    let mut two = rotated(&one);
    two.epochs[1].since = 1;
    let line = sign(rotation(head, &one, &two, b""));
    assert_eq!(line.verify(&head, &one, Some(&two)), Err(Error::Chain("new epoch")));
    let two = rotated(&one);
    let line = sign(executed(request(head, &one, Operation::Rotate { epoch: 3 }, &two), &two, Some(b"")));
    assert_eq!(line.verify(&head, &one, Some(&two)), Err(Error::Chain("number of the epoch")));
    assert_eq!(two.vault, vault);
}

#[test]
fn states_that_contradict_themselves() {
    let zero = state_0();
    let one = enrolled(&zero, GATEWAY);
    let refused = |change: fn(&mut State)| {
        let mut state = enrolled(&state_0(), GATEWAY);
        change(&mut state);
        state.to_text().unwrap_err()
    };
    assert_eq!(refused(|s| s.quorum = 0), Error::State("the quorum cannot be reached"));
    assert_eq!(refused(|s| s.quorum = 2), Error::State("the quorum cannot be reached"));
    assert_eq!(
        refused(|s| s.custodians.push(s.custodians[0].clone())),
        Error::State("two custodians of one id")
    );
    assert_eq!(
        refused(|s| s.custodians[0].id.0[0] ^= 1),
        Error::State("a custodian's id is not that of the keys")
    );
    assert_eq!(refused(|s| s.gateways.push(s.gateways[0].clone())), Error::State("two gateways of one id"));
    assert_eq!(refused(|s| s.epochs.clear()), Error::State("no epoch"));
    assert_eq!(refused(|s| s.epochs[0].e = 0), Error::State("epochs are not in order"));
    assert_eq!(refused(|s| s.epochs[0].status = Status::Kept), Error::State("not one current epoch"));
    assert_eq!(refused(|s| s.epochs[0].made = 2), Error::State("an epoch of a later state"));
    assert_eq!(refused(|s| s.epochs[0].previous = Some(vec![])), Error::State("the keyring has a gap"));
    assert_eq!(refused(|s| s.epochs[0].shares[0].env = None), Error::State("a share without its envelope"));
    for change in [
        |s: &mut State| s.epochs[0].shares.clear(),
        |s: &mut State| s.epochs[0].shares[0].x = 0,
        |s: &mut State| s.epochs[0].shares[0].to.0[0] ^= 1,
    ] {
        assert_eq!(refused(change), Error::State("not one share for each custodian"));
    }
    let text = one.to_text().unwrap();
    let unknown = text.replacen("\"quorum\"", "\"more\":1,\"quorum\"", 1);
    assert!(matches!(State::parse(unknown.as_bytes()), Err(Error::Json(_))));
    let (genesis, vault) = genesis();
    let computed = State::zero(&genesis, vault);
    assert_eq!(
        computed.take_envelopes(one.to_text().unwrap().as_bytes()),
        Err(Error::State("not the state of the genesis"))
    );
}

#[test]
fn a_share_that_is_not_the_one() {
    let (_, vault) = genesis();
    let zero = state_0();
    let owner = identity(OWNER);
    let epoch = zero.current().unwrap();
    let mut share = epoch.shares[0].clone();
    share.x = 2;
    assert_eq!(share::open_share(&owner.kem, &vault, epoch, &share).err(), Some(Error::Share));
    share.env = None;
    assert_eq!(share::open_share(&owner.kem, &vault, epoch, &share).err(), Some(Error::Share));
    let other = VaultId([0; 32]);
    assert_eq!(
        share::open_share(&owner.kem, &other, epoch, &epoch.shares[0]).err(),
        Some(Error::NotAuthentic)
    );
}

#[test]
fn a_genesis_that_is_none() {
    let (genesis, _) = genesis();
    let text = genesis.to_text().unwrap();
    let with = |from: &str, to: &str| Genesis::parse(text.replacen(from, to, 1).as_bytes()).unwrap_err();
    assert_eq!(with("runvault/1", "runvault/2"), Error::Version(2));
    assert_eq!(with("genesis", "state"), Error::NoteKind("state".into()));
    assert_eq!(with("\"suite\":1", "\"suite\":2"), Error::Suite(2));
    assert_eq!(with("\"quorum\":1", "\"quorum\":2"), Error::State("the quorum cannot be reached"));
    assert_eq!(with("\"x\":1", "\"x\":0"), Error::State("not one share for each custodian"));
    assert!(matches!(with("\"x\":1", "\"x\":256"), Error::Json(_)));
    assert!(matches!(with("\"kem\":\"", "\"kem\":\"AAAA"), Error::Json(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_changed_byte_is_refused_or_is_one_form(at in any::<u32>(), byte in 0x20u8..0x7f) {
        let zero = state_0();
        let one = enrolled(&zero, GATEWAY);
        let (genesis, vault) = genesis();
        let line = sign(enrolment(Head::start(&vault), &state_0(), &one));
        let change = |text: String| {
            let mut bytes = text.into_bytes();
            let at = at as usize % bytes.len();
            bytes[at] = byte;
            bytes
        };
        let bytes = change(genesis.to_text().unwrap());
        if let Ok((changed, _)) = Genesis::parse(&bytes) {
            prop_assert_eq!(changed.to_text().unwrap().into_bytes(), bytes);
        }
        let bytes = change(one.to_text().unwrap());
        if let Ok(changed) = State::parse(&bytes) {
            prop_assert_eq!(changed.to_text().unwrap().into_bytes(), bytes);
        }
        let bytes = change(line.to_line().unwrap());
        if let Ok(changed) = Line::parse(&bytes) {
            prop_assert_eq!(changed.to_line().unwrap().into_bytes(), bytes);
            prop_assert!(changed == line || changed.verify(&Head::start(&vault), &zero, Some(&one)).is_err());
        }
    }

    #[test]
    fn many_gateways_and_readers_come_back(
        labels in prop::collection::vec("[a-zé ]{1,40}", 1..6), until in any::<Option<(u32, [u8; 32])>>(),
        standing in any::<bool>(), at in prop::option::of(0u64..253_402_300_800),
    ) {
        let mut state = state_0();
        for (i, label) in labels.into_iter().enumerate() {
            let mut gateway = gateway_entry(100 + i as u8);
            gateway.label = label.clone();
            gateway.until = until.map(|(seq, hash)| Until {
                seq: u64::from(seq) + 1, hash: Some(Digest(hash)), seals: 0, seals_hash: None,
            });
            let keys = identity(100 + i as u8).public();
            state.readers.push(runvault_format::custody_state::ReaderEntry {
                id: keys.id(), label: format!("{i} {label}"), sign: keys.sign, kem: keys.kem, standing, expires: at.map(runvault_format::time::text),
            });
            state.gateways.push(gateway);
        }
        let text = state.to_text().unwrap();
        prop_assert_eq!(State::parse(text.as_bytes()), Ok(state));
    }

    #[test]
    fn any_text_is_answered(text in "(runvault/1 (state|genesis|request)\n)?[{}\\[\\]\",:a-z0-9]{0,200}\n?") {
        prop_assert!(State::parse(text.as_bytes()).is_err());
        prop_assert!(Genesis::parse(text.as_bytes()).is_err());
        prop_assert!(Request::parse(text.as_bytes()).is_err());
        prop_assert!(Line::parse(text.as_bytes()).is_err());
    }
}
