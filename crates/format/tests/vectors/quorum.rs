//! Section 7 with three custodians, two of whom have to agree.

use runvault_crypto::secrets::Secret;
use runvault_crypto::sharing;
use runvault_format::audit_entry::{Executed, Line, Outcome};
use runvault_format::custody_state::{Custodian, Epoch, ReaderEntry, Share, State, Status};
use runvault_format::genesis::{FirstShare, Genesis};
use runvault_format::ids::{Digest, RunId, Salt};
use runvault_format::operation::{Operation, SeenBy};
use runvault_format::removed::{GoneRun, RemovedSeal};
use runvault_format::replacement::Replacement;
use runvault_format::request::{Approval, Head};
use runvault_format::{note, share};
use serde_json::{Value, json};

use super::custody::run;
use super::{Set, Vector, vector};
use crate::common::fixed::{hex, previous, share as sealed_share};
use crate::common::*;

pub const SET: Set = Set {
    file: "quorum.json",
    about: "As custody.json, of a vault of three custodians, two of whom have to agree (section 7).",
    make,
    run,
};

const PEOPLE: [u8; 4] = [21, 22, 23, 24];
/// The coefficient of x in every polynomial: any will do.
const SLOPE: u8 = 0xb7;

fn custodian(n: u8) -> Custodian {
    Custodian::new(&format!("custodian-{n}"), &identity(n).public())
}

/// The product in GF(2^8) modulo 0x11d, by the schoolbook: another way than the program's tables.
fn times(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b > 0 {
        product ^= if b & 1 == 1 { a } else { 0 };
        a = a << 1 ^ if a & 0x80 == 0 { 0 } else { 0x1d };
        b >>= 1;
    }
    product
}

/// What the polynomials with this seed at 0 have at x.
fn point(epoch_seed: u8, x: u8) -> Secret<32> {
    Secret::copy_from(&[epoch_seed ^ times(SLOPE, x); 32])
}

/// Shares of an epoch's key for these people, for state n.
fn shares(state: &State, e: u32, epoch_seed: u8, people: &[u8]) -> Vec<Share> {
    (1..)
        .zip(people)
        .map(|(x, n)| {
            let (keys, y) = (identity(*n), point(epoch_seed, x));
            let env = Some(sealed_share(&keys, &state.vault, state.n, &y));
            Share { to: keys.public().id(), x, env, sha256: share::hash(e, x, &y) }
        })
        .collect()
}

fn genesis() -> Genesis {
    let people = &PEOPLE[..3];
    let first = (1..).zip(people).map(|(x, n)| FirstShare {
        to: identity(*n).public().id(),
        x,
        sha256: share::hash(1, x, &point(EPOCH_1, x)),
    });
    let custodians = people.iter().map(|n| custodian(*n)).collect();
    let kem = kem(EPOCH_1).public().clone();
    Genesis::new(2, custodians, kem, first.collect(), CREATED.into(), Salt([9; 16]))
}

fn state_0() -> State {
    let text = genesis().to_text().unwrap();
    let (genesis, vault) = Genesis::parse(text.as_bytes()).unwrap();
    let mut state = State::zero(&genesis, vault);
    state.epochs[0].shares = shares(&state, 1, EPOCH_1, &PEOPLE[..3]);
    state
}

/// The line that these custodians approve, changed before they do.
fn line(
    head: Head,
    before: &State,
    op: Operation,
    after: &State,
    who: &[u8],
    change: impl FnOnce(&mut Executed),
) -> Line {
    let request = request(head, before, op, after);
    let mut executed = Executed {
        n: after.n,
        prev: head.hash,
        time: EXECUTED.into(),
        request,
        result: Outcome { state: Some(note::text_hash(&raw(after))), runs: Vec::new() },
        heads: Vec::new(),
        approvals: Vec::new(),
    };
    change(&mut executed);
    let hash = executed.request.hash().unwrap();
    // What a share is sealed to is in envelopes.json; the log keeps its hash alone.
    let released = executed.request.releases_share.then_some(&b"a share"[..]);
    executed.approvals = who
        .iter()
        .map(|n| Approval::sign(identity(*n).public().id(), &identity(*n).sign, &hash, released))
        .collect();
    sign(executed)
}

fn raw(state: &State) -> String {
    format!("runvault/1 state\n{}\n", serde_json::to_string(state).unwrap())
}

fn input(who: &[u8], lines: &[&Line], states: &[&State]) -> Value {
    let states: serde_json::Map<_, _> = states.iter().map(|s| (s.n.to_string(), json!(raw(s)))).collect();
    let log: Vec<_> = lines.iter().map(|line| format!("{}\n", line.to_line().unwrap())).collect();
    let seeds: Vec<_> = who.iter().map(|n| hex(seed(*n).expose())).collect();
    json!({ "seeds": seeds, "genesis": genesis().to_text().unwrap(), "states": states, "audit_log": log })
}

fn reader(standing: bool) -> ReaderEntry {
    let keys = identity(31).public();
    ReaderEntry {
        id: keys.id(),
        label: "reader".into(),
        sign: keys.sign,
        kem: keys.kem,
        standing,
        expires: None,
    }
}

/// The fourth custodian comes: other shares of the same key.
fn with_fourth(before: &State) -> State {
    let mut state = before.clone();
    state.n += 1;
    state.custodians.push(custodian(PEOPLE[3]));
    state.epochs[0].made = state.n;
    state.epochs[0].shares = shares(&state, 1, EPOCH_1, &PEOPLE);
    state
}

/// Another key, for those who are there.
fn with_key(mut state: State, people: &[u8]) -> State {
    let old = state.epochs.last_mut().unwrap();
    old.status = Status::Kept;
    old.shares.clear();
    let e = old.e + 1;
    let kem = kem(EPOCH_2);
    let previous = previous(&kem, &state.vault, state.n, e, &seed(EPOCH_1));
    let shares = shares(&state, e, EPOCH_2, people);
    let kem = kem.public().clone();
    let (since, made) = (state.n, state.n);
    state.epochs.push(Epoch {
        e,
        since,
        kem,
        status: Status::Current,
        made,
        shares,
        previous: Some(previous),
    });
    state
}

fn without_second(before: &State) -> State {
    let mut state = before.clone();
    state.n += 1;
    state.custodians.remove(1);
    with_key(state, &[PEOPLE[0], PEOPLE[2], PEOPLE[3]])
}

fn next(before: &State, change: impl FnOnce(&mut State)) -> State {
    let mut state = before.clone();
    state.n += 1;
    change(&mut state);
    state
}

fn make() -> Vec<Vector> {
    let zero = state_0();
    let start = Head::start(&zero.vault);
    let all = &PEOPLE[..];
    let two = &PEOPLE[..2];
    let one = with_fourth(&zero);
    let added = Operation::AddCustodian { custodian: custodian(PEOPLE[3]) };
    let first = line(start, &zero, added.clone(), &one, two, |_| {});
    let head = first.verify(&start, &zero, Some(&one)).unwrap();
    let removed = Operation::RemoveCustodian { custodian: identity(PEOPLE[1]).public().id() };
    let second_state = without_second(&one);
    let second = line(head, &one, removed.clone(), &second_state, &[21, 24], |_| {});
    let mut vectors = vec![
        vector("first_and_second", "ok", input(two, &[], &[&zero])),
        vector("third_and_first", "ok", input(&[23, 21], &[], &[&zero])),
        vector("one_custodian_alone", "share", input(&[21], &[], &[&zero])),
        vector("one_custodian_twice", "share", input(&[21, 21], &[], &[&zero])),
        vector("somebody_else", "share", input(&[21, 99], &[], &[&zero])),
        vector("a_custodian_comes", "ok", input(&[24, 22], &[&first], &[&zero, &one])),
        vector("and_another_goes", "ok", input(&[24, 23], &[&first, &second], &[&zero, &one, &second_state])),
        vector(
            "the_one_who_went",
            "share",
            input(&[22, 21], &[&first, &second], &[&zero, &one, &second_state]),
        ),
    ];
    // One line after the genesis each.
    let of = |name: &str, outcome, op: &Operation, after: &State, who: &[u8]| {
        let line = line(start, &zero, op.clone(), after, who, |_| {});
        vector(name, outcome, input(two, &[&line], &[&zero, after]))
    };
    vectors.extend([
        of("approved_by_one", "chain", &added, &one, &[21]),
        of("approved_by_one_twice", "chain", &added, &one, &[21, 21]),
        of("approved_by_somebody_else", "chain", &added, &one, &[21, 24]),
        of("approved_by_all", "ok", &added, &one, &all[..3]),
    ]);
    let line_with = |name: &str, outcome, change: fn(&mut Executed)| {
        let line = line(start, &zero, added.clone(), &one, two, change);
        vector(name, outcome, input(two, &[&line], &[&zero, &one]))
    };
    vectors.push(line_with("shares_not_released", "chain", |e| e.request.releases_share = false));
    vectors.push(line_with("expired", "chain", |e| e.request.expires = CREATED.into()));
    let third = with_key(next(&zero, |s| s.quorum = 3), &PEOPLE[..3]);
    vectors.extend([
        of(
            "custodian_comes_with_old_shares",
            "state",
            &added,
            &next(&zero, |s| s.custodians.push(custodian(24))),
            two,
        ),
        of(
            "custodian_comes_with_a_new_key",
            "chain",
            &added,
            &with_key(next(&zero, |s| s.custodians.push(custodian(24))), all),
            two,
        ),
        of(
            "custodian_comes_under_a_name_that_is_taken",
            "chain",
            &{
                let mut again = custodian(24);
                again.label = "custodian-21".into();
                Operation::AddCustodian { custodian: again }
            },
            &one,
            two,
        ),
        of("quorum_changes", "share", &Operation::ChangeQuorum { quorum: 3 }, &third, two),
        of("quorum_changes_to_another_number", "chain", &Operation::ChangeQuorum { quorum: 1 }, &third, two),
        of(
            "quorum_changes_without_a_new_key",
            "chain",
            &Operation::ChangeQuorum { quorum: 3 },
            &next(&zero, |s| s.quorum = 3),
            two,
        ),
        of(
            "a_stranger_is_removed",
            "chain",
            &Operation::RemoveCustodian { custodian: identity(99).public().id() },
            &with_key(next(&zero, |s| drop(s.custodians.remove(1))), &[21, 23]),
            two,
        ),
    ]);
    let known = next(&zero, |s| s.readers.push(reader(false)));
    let added = Operation::AddReader { reader: reader(false) };
    let id = reader(false).id;
    vectors.extend([
        of("a_reader_comes", "ok", &added, &known, two),
        of(
            "another_reader_than_the_named_one",
            "chain",
            &added,
            &next(&zero, |s| s.readers.push(reader(true))),
            two,
        ),
        of(
            "a_reader_with_anothers_id",
            "state",
            &added,
            &next(&zero, |s| {
                s.readers.push(ReaderEntry { kem: identity(32).public().kem, ..reader(false) });
            }),
            two,
        ),
        of(
            "two_readers_for_one",
            "chain",
            &added,
            &next(&zero, |s| {
                let keys = identity(32).public();
                s.readers.push(ReaderEntry {
                    id: keys.id(),
                    label: "other".into(),
                    sign: keys.sign,
                    kem: keys.kem,
                    ..reader(false)
                });
                s.readers.push(reader(false));
            }),
            two,
        ),
        of(
            "a_reader_goes_who_is_none",
            "chain",
            &Operation::RemoveReader { reader: id },
            &next(&zero, |_| {}),
            two,
        ),
        of(
            "a_grant_to_nobody",
            "chain",
            &Operation::Grant { reader: id, runs: vec![RunId([1; 16])] },
            &next(&zero, |_| {}),
            two,
        ),
    ]);
    let first = line(start, &zero, added, &known, two, |_| {});
    let head = first.verify(&start, &zero, Some(&known)).unwrap();
    let then = |name: &str, outcome, op: Operation, after: State| {
        let second = line(head, &known, op, &after, two, |_| {});
        vector(name, outcome, input(two, &[&first, &second], &[&zero, &known, &after]))
    };
    let runs = |ids: &[u8]| ids.iter().map(|id| RunId([*id; 16])).collect::<Vec<_>>();
    let same = || next(&known, |_| {});
    let gone = |n: u8| GoneRun {
        run: RunId([n; 16]),
        gateway: identity(31).public().id(),
        seq: n.into(),
        run_note: Digest([n; 32]),
        prev: None,
        seal: Some(RemovedSeal {
            gateway: identity(31).public().id(),
            n: 1,
            hash: Digest([5; 32]),
            prev: None,
        }),
    };
    // In the order of their ids.
    let mut ids = PEOPLE.map(|n| identity(n).public().id());
    ids[..3].sort_by_key(|id| id.0);
    let seen = |who: usize, n| SeenBy { custodian: ids[who], n };
    vectors.extend([
        then("a_grant", "ok", Operation::Grant { reader: id, runs: runs(&[1, 2]) }, same()),
        then("a_grant_of_no_run", "chain", Operation::Grant { reader: id, runs: runs(&[]) }, same()),
        then("a_grant_out_of_order", "chain", Operation::Grant { reader: id, runs: runs(&[2, 1]) }, same()),
        then(
            "a_grant_of_one_run_twice",
            "chain",
            Operation::Grant { reader: id, runs: runs(&[1, 1]) },
            same(),
        ),
        then(
            "a_grant_that_changes_the_quorum",
            "chain",
            Operation::Grant { reader: id, runs: runs(&[1]) },
            next(&known, |s| s.quorum = 1),
        ),
        then("runs_are_retired", "ok", Operation::Retire { runs: vec![gone(1), gone(2)] }, same()),
        then("no_run_is_retired", "chain", Operation::Retire { runs: vec![] }, same()),
        then("a_run_is_retired_twice", "chain", Operation::Retire { runs: vec![gone(1), gone(1)] }, same()),
        then("made_anew", "ok", Operation::Recover { copies: vec![seen(0, 1), seen(1, 0)] }, same()),
        then("made_anew_from_older_copies", "chain", Operation::Recover { copies: vec![seen(0, 0)] }, same()),
        then("made_anew_by_a_stranger", "chain", Operation::Recover { copies: vec![seen(3, 1)] }, same()),
        then("a_revocation", "ok", Operation::Revoke { reader: id, runs: runs(&[1]) }, same()),
        then(
            "other_terms_for_a_reader",
            "ok",
            Operation::AddReader { reader: reader(true) },
            next(&zero_with_n(&zero), |s| s.readers.push(reader(true))),
        ),
        then("the_same_terms_for_a_reader", "chain", Operation::AddReader { reader: reader(false) }, same()),
        then(
            "a_reader_goes",
            "ok",
            Operation::RemoveReader { reader: id },
            next(&zero_with_n(&zero), |_| {}),
        ),
    ]);
    let replaced = |run: u8, new: u8, worker: u8| Replacement {
        run: RunId([run; 16]),
        seal: Digest([run; 32]),
        new: RunId([new; 16]),
        worker: identity(worker).public().id(),
        sign: identity(worker).public().sign,
    };
    let rekey = |name: &str, outcome, ids: &[u8], said: Vec<Replacement>| {
        let (op, after) = (Operation::Rekey { runs: runs(ids) }, same());
        let second = line(head, &known, op, &after, two, |executed| executed.result.runs = said);
        vector(name, outcome, input(two, &[&first, &second], &[&zero, &known, &after]))
    };
    vectors.extend([
        rekey("a_rekeying", "ok", &[1, 2], vec![replaced(1, 11, 41), replaced(2, 12, 41)]),
        rekey("a_rekeying_of_no_run", "chain", &[], vec![]),
        rekey("a_rekeying_that_says_nothing_of_its_runs", "chain", &[1, 2], vec![replaced(1, 11, 41)]),
        rekey("a_rekeying_of_another_run", "chain", &[1], vec![replaced(2, 12, 41)]),
        rekey("a_rekeying_by_two_workers", "chain", &[1, 2], vec![replaced(1, 11, 41), replaced(2, 12, 42)]),
        rekey("a_run_that_replaces_two", "chain", &[1, 2], vec![replaced(1, 11, 41), replaced(2, 11, 41)]),
        rekey("a_run_that_replaces_itself", "chain", &[1], vec![replaced(1, 1, 41)]),
        {
            let (op, after) = (Operation::Grant { reader: id, runs: runs(&[1]) }, same());
            let second = line(head, &known, op, &after, two, |executed| {
                executed.result.runs = vec![replaced(1, 11, 41)];
            });
            let given = input(two, &[&first, &second], &[&zero, &known, &after]);
            vector("a_grant_that_replaces_a_run", "chain", given)
        },
    ]);
    vectors
}

/// State 0 as if it were state 1.
fn zero_with_n(zero: &State) -> State {
    State { n: 1, ..zero.clone() }
}

/// The program's own combination gives what the schoolbook made.
#[test]
fn points_are_on_the_line() {
    for (a, b) in [(1, 2), (3, 1), (200, 7)] {
        let share = |x| sharing::Share { x, y: point(EPOCH_1, x) };
        assert_eq!(sharing::combine(2, &[share(a), share(b)]).unwrap().expose(), seed(EPOCH_1).expose());
    }
}
