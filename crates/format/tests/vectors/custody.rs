//! Section 7: chains, here of one custodian, followed from the genesis.

use runvault_crypto::envelope::KemPrivate;
use runvault_crypto::sharing;
use runvault_format::audit_entry::{Executed, GatewayHead, Line};
use runvault_format::custody_state::{Machine, State, Until};
use runvault_format::genesis::Genesis;
use runvault_format::ids::{Digest, IdentityId, RunId};
use runvault_format::info::{Purpose, Recipient, Scope, info};
use runvault_format::keys::IdentityKeys;
use runvault_format::operation::Operation;
use runvault_format::request::{Approval, Head};
use runvault_format::{Error, Result, share, words};
use serde_json::{Value, json};

use super::{Outcome, Set, Vector, vector};
use crate::common::fixed::{envelope, hex, secret, text};
use crate::common::*;

pub const SET: Set = Set {
    file: "custody.json",
    about: "The files of custody/ of a vault, here of one custodian; `seeds`: of those who open it (section 7). states: \
            by their number; audit_log: its lines with their newlines. output: vault id, words, head, state hash, the key of each epoch, and who was admitted, as gateway, run or an empty string, and the `until` of a dismissal or null.",
    make,
    run,
};

struct Vault {
    zero: State,
    one: State,
    two: State,
    lines: [Line; 2],
}

impl Vault {
    fn new() -> Self {
        let zero = state_0();
        let one = enrolled(&zero, GATEWAY);
        let start = Head::start(&zero.vault);
        let first = sign(enrolment(start, &zero, &one));
        let head = first.verify(&start, &zero, Some(&one)).unwrap();
        let two = rotated(&one);
        let second = sign(rotation(head, &one, &two, &released(&head, &one, &two)));
        Self { zero, one, two, lines: [first, second] }
    }

    fn input(&self, lines: &[String], states: &[&State]) -> Value {
        let states: serde_json::Map<_, _> = states.iter().map(|s| (s.n.to_string(), json!(raw(s)))).collect();
        let log: Vec<_> = lines.iter().map(|l| format!("{l}\n")).collect();
        json!({
            "seeds": [hex(seed(OWNER).expose())], "genesis": genesis().0.to_text().unwrap(),
            "states": states, "audit_log": log,
        })
    }

    /// Of the enrolment, changed before the executor signs it.
    fn first(&self, name: &str, outcome: &'static str, change: impl FnOnce(&mut Executed)) -> Vector {
        let mut executed = enrolment(Head::start(&self.zero.vault), &self.zero, &self.one);
        change(&mut executed);
        let line = sign(executed).to_line().unwrap();
        vector(name, outcome, self.input(&[line], &[&self.zero, &self.one]))
    }

    /// Of the state that the enrolment makes, approved as changed.
    fn state(&self, name: &str, outcome: &'static str, change: impl FnOnce(&mut State)) -> Vector {
        let mut one = self.one.clone();
        change(&mut one);
        let mut executed = enrolment(Head::start(&self.zero.vault), &self.zero, &self.one);
        executed.request.state = Some(one.outline());
        executed.result.state = Some(runvault_format::note::text_hash(&raw(&one)));
        approve(&mut executed);
        vector(name, outcome, self.input(&[sign(executed).to_line().unwrap()], &[&self.zero, &one]))
    }
}

/// The text of a state that the code under test may refuse to write.
fn raw(state: &State) -> String {
    format!("runvault/1 state\n{}\n", serde_json::to_string(state).unwrap())
}

/// The owner's share, sealed to the executor of the rotation.
fn released(head: &Head, before: &State, after: &State) -> Vec<u8> {
    let request = request(*head, before, Operation::Rotate { epoch: 2 }, after).hash().unwrap();
    let executor = identity(EXECUTOR).public();
    let to = Recipient::Identity(executor.id());
    let info = info(Purpose::Approval, &after.vault, &Scope::Request(request), &to);
    envelope(&executor.kem, &info, seed(EPOCH_1).expose())
}

fn approve(executed: &mut Executed) {
    let owner = identity(OWNER);
    let hash = executed.request.hash().unwrap();
    executed.approvals = vec![Approval::sign(owner.public().id(), &owner.sign, &hash, None)];
}

fn make() -> Vec<Vector> {
    let vault = Vault::new();
    let [first, second] = vault.lines.each_ref().map(|l| l.to_line().unwrap());
    let (zero, one, two) = (&vault.zero, &vault.one, &vault.two);
    let both = [first.clone(), second.clone()];
    let mut bare = zero.clone();
    bare.epochs[0].shares[0].env = None;
    let mut cut = vault.input(&both, &[zero, one, two]);
    cut["audit_log"] = json!([format!("{first}\n"), second]);
    let mut planted = zero.clone();
    planted.gateways.push(gateway_entry(7));
    let mut all = vec![
        vector("genesis_alone", "ok", vault.input(&[], &[zero])),
        vector("enrolment", "ok", vault.input(&both[..1], &[zero, one])),
        vector("enrolment_and_rotation", "ok", vault.input(&both, &[zero, one, two])),
        vector("state_0_lost_after_an_enrolment", "ok", vault.input(&both[..1], &[one])),
        vector("state_0_lost", "share", vault.input(&[], &[])),
        vector("state_0_without_envelope", "share", vault.input(&[], &[&bare])),
        vector("state_0_with_a_gateway", "state", vault.input(&[], &[zero, &planted])),
        vector("state_lost", "chain", vault.input(&both, &[zero, one])),
        vector("line_removed", "chain", vault.input(&both[1..], &[zero, one, two])),
        vector("lines_swapped", "chain", vault.input(&[second.clone(), first.clone()], &[zero, one, two])),
        vector("line_twice", "chain", vault.input(&[first.clone(), first.clone()], &[zero, one])),
        vector("line_cut", "truncated", cut),
        vector("line_with_white_space", "not-canonical", {
            vault.input(&[first.replacen("\"n\":1", "\"n\": 1", 1)], &[zero, one])
        }),
        vector("line_with_unknown_field", "json", {
            vault.input(&[first.replacen("\"n\":1", "\"n\":1,\"m\":1", 1)], &[zero, one])
        }),
        vector("executor_signature_changed", "signature", {
            let mut line = vault.lines[0].clone();
            line.executor_sig[0] ^= 1;
            vault.input(&[line.to_line().unwrap()], &[zero, one])
        }),
        vector("state_of_another_line", "chain", {
            let mut input = vault.input(&both[..1], &[zero, one]);
            input["states"]["1"] = json!(raw(two));
            input
        }),
        vector("custodian_of_another_vault", "share", {
            let mut input = vault.input(&both[..1], &[zero, one]);
            input["seeds"] = json!([hex(seed(99).expose())]);
            input
        }),
    ];
    all.extend(lines(&vault));
    all.extend(revocations(&vault));
    all.extend(admissions(&vault));
    all.extend(dismissals(&vault));
    all.extend(states(&vault));
    all.extend(geneses(&vault));
    all
}

fn lines(vault: &Vault) -> Vec<Vector> {
    let of = |name, change: fn(&mut Executed)| vault.first(name, "chain", change);
    vec![
        of("number_skipped", |e| e.n = 2),
        of("request_on_another_head", |e| {
            e.request.head.hash = Digest([0; 32]);
            approve(e);
        }),
        of("request_of_another_vault", |e| {
            e.request.vault.0[0] ^= 1;
            approve(e);
        }),
        of("executed_after_it_expired", |e| e.time = "2026-11-24T07:00:01Z".into()),
        of("executed_before_it_was_made", |e| e.time = "2026-11-24T05:59:59Z".into()),
        of("enrolment_that_releases_a_share", |e| {
            e.request.releases_share = true;
            approve(e);
        }),
        of("no_approval", |e| e.approvals.clear()),
        of("approved_twice_by_one", |e| e.approvals.push(e.approvals[0].clone())),
        of("approved_by_a_gateway", |e| {
            let keys = identity(GATEWAY);
            let hash = e.request.hash().unwrap();
            e.approvals = vec![Approval::sign(keys.public().id(), &keys.sign, &hash, None)];
        }),
        of("enrols_another_than_it_names", |e| {
            e.request.op = Operation::EnrolGateway { gateway: machine(OWNER) };
            approve(e);
        }),
        of("state_is_not_the_requested", |e| {
            e.request.state.as_mut().unwrap().gateways[0].label = "other".into();
            approve(e);
        }),
        of("request_for_another_state", |e| {
            e.request.before = Digest([0; 32]);
            approve(e);
        }),
        of("enrols_under_anothers_id", |e| {
            let other = machine(OWNER);
            e.request.op =
                Operation::EnrolGateway { gateway: Machine { kem: other.kem, ..machine(GATEWAY) } };
            approve(e);
        }),
        of("heads_that_nobody_looks_at", |e| {
            e.heads.push(GatewayHead {
                gateway: identity(GATEWAY).public().id(),
                seq: 1,
                hash: Some(Digest([1; 32])),
                seals: 0,
                seals_hash: None,
            });
        }),
        of("state_hash_changed", |e| e.result.state = Some(Digest([0; 32]))),
        vault.first("approval_changed", "signature", |e| e.approvals[0].sig[3] ^= 1),
        vault.first("request_changed_after_approval", "signature", |e| e.request.reason = "other".into()),
    ]
}

/// Chains of the enrolment, perhaps a revocation, and an admission.
fn admissions(vault: &Vault) -> Vec<Vector> {
    let (zero, one, first) = (&vault.zero, &vault.one, &vault.lines[0]);
    let gateway = gateway_entry(GATEWAY).id;
    let head = first.verify(&Head::start(&zero.vault), zero, Some(one)).unwrap();
    let after = State { n: 2, ..one.clone() };
    let of = |name: &str, outcome, gateway: IdentityId, run: Option<RunId>, after: &State| {
        let line = sign(admission(head, one, gateway, run, after));
        let lines = [first.to_line().unwrap(), line.to_line().unwrap()];
        vector(name, outcome, vault.input(&lines, &[zero, one, after]))
    };
    let mut relabelled = after.clone();
    relabelled.gateways[0].label = "other".into();
    let ended = {
        let ended = revoked(one, GATEWAY);
        let second = sign(revocation(head, one, gateway, &ended));
        let head = second.verify(&head, one, Some(&ended)).unwrap();
        let after = State { n: 3, ..ended.clone() };
        let third = sign(admission(head, &ended, gateway, None, &after));
        let lines = [first, &second, &third].map(|line| line.to_line().unwrap());
        vector("admission_of_an_ended_one", "chain", vault.input(&lines, &[zero, one, &ended, &after]))
    };
    vec![
        of("admission_to_a_run", "ok", gateway, Some(RunId([0x52; 16])), &after),
        of("admission_to_every_run", "ok", gateway, None, &after),
        of("admits_nobody", "chain", identity(OWNER).public().id(), None, &after),
        of("admission_that_changes_a_label", "chain", gateway, None, &relabelled),
        ended,
    ]
}

/// Chains of the enrolment, two admissions, and a dismissal.
fn dismissals(vault: &Vault) -> Vec<Vector> {
    let (zero, one, first) = (&vault.zero, &vault.one, &vault.lines[0]);
    let gateway = gateway_entry(GATEWAY).id;
    let run = RunId([0x52; 16]);
    let after = |n: u64| State { n, ..one.clone() };
    let mut head = first.verify(&Head::start(&zero.vault), zero, Some(one)).unwrap();
    let mut lines = vec![first.to_line().unwrap()];
    for (n, to) in [(2, None), (3, Some(run))] {
        let line = sign(admission(head, &after(n - 1), gateway, to, &after(n)));
        head = line.verify(&head, &after(n - 1), Some(&after(n))).unwrap();
        lines.push(line.to_line().unwrap());
    }
    let until = Until { seq: 3, hash: Some(Digest([3; 32])), seals: 0, seals_hash: None };
    let of = |name: &str, outcome, gateway: IdentityId, run: Option<RunId>, until: Until, changed: &State| {
        let mut executed = admission(head, &after(3), gateway, run, changed);
        executed.request.op = Operation::DismissGateway { gateway, run, until };
        approve(&mut executed);
        let line = sign(executed).to_line().unwrap();
        let lines = [&lines[..], &[line]].concat();
        vector(name, outcome, vault.input(&lines, &[zero, one, &after(2), &after(3), changed]))
    };
    let mut relabelled = after(4);
    relabelled.gateways[0].label = "other".into();
    let owner = identity(OWNER).public().id();
    vec![
        of("dismissal_from_a_run", "ok", gateway, Some(run), until.clone(), &after(4)),
        of("dismissal_from_all", "ok", gateway, None, until.clone(), &after(4)),
        of(
            "dismissal_from_what_it_was_not_admitted_to",
            "ok",
            gateway,
            Some(RunId([9; 16])),
            until.clone(),
            &after(4),
        ),
        of("dismisses_nobody", "chain", owner, None, until.clone(), &after(4)),
        of(
            "dismissal_that_names_no_last_run",
            "chain",
            gateway,
            None,
            Until { hash: None, ..until.clone() },
            &after(4),
        ),
        of("dismissal_that_changes_a_label", "chain", gateway, None, until, &relabelled),
    ]
}

/// Chains of the enrolment and one or two revocations.
fn revocations(vault: &Vault) -> Vec<Vector> {
    let (zero, one, first) = (&vault.zero, &vault.one, &vault.lines[0]);
    let gateway = gateway_entry(GATEWAY).id;
    let head = first.verify(&Head::start(&zero.vault), zero, Some(one)).unwrap();
    let ended = revoked(one, GATEWAY);
    let of = |name: &str, outcome, gateway, after: &State| {
        let mut executed = revocation(head, one, gateway, &ended);
        let until = after.gateways[0].until.clone().unwrap_or(ENDS);
        executed.request.op = Operation::RevokeGateway { gateway, until };
        executed.request.state = Some(after.outline());
        executed.result.state = Some(runvault_format::note::text_hash(&raw(after)));
        approve(&mut executed);
        let lines = [first.to_line().unwrap(), sign(executed).to_line().unwrap()];
        vector(name, outcome, vault.input(&lines, &[zero, one, after]))
    };
    let with = |change: fn(&mut State)| {
        let mut after = ended.clone();
        change(&mut after);
        after
    };
    let twice = {
        let second = sign(revocation(head, one, gateway, &ended));
        let head = second.verify(&head, one, Some(&ended)).unwrap();
        let mut later = with(|s| s.gateways[0].until.as_mut().unwrap().seq = 2);
        later.n += 1;
        let third = sign(revocation(head, &ended, gateway, &later));
        let lines = [first, &second, &third].map(|line| line.to_line().unwrap());
        vector("revoked_twice", "chain", vault.input(&lines, &[zero, one, &ended, &later]))
    };
    let nothing = |s: &mut State| {
        let until = s.gateways[0].until.as_mut().unwrap();
        (until.seq, until.hash) = (0, None);
    };
    vec![
        of("revocation", "ok", gateway, &ended),
        of("revocation_of_all_that_it_made", "ok", gateway, &with(nothing)),
        of("revokes_nobody", "chain", identity(OWNER).public().id(), &ended),
        of("revocation_without_an_end", "chain", gateway, &with(|s| s.gateways[0].until = None)),
        of("revocation_that_changes_a_label", "chain", gateway, &with(|s| s.gateways[0].label = "x".into())),
        of(
            "end_without_its_run",
            "state",
            gateway,
            &with(|s| s.gateways[0].until.as_mut().unwrap().hash = None),
        ),
        of(
            "end_without_its_seal",
            "state",
            gateway,
            &with(|s| s.gateways[0].until.as_mut().unwrap().seals = 1),
        ),
        twice,
    ]
}

fn states(vault: &Vault) -> Vec<Vector> {
    vec![
        vault.state("vault_key_swapped", "chain", |s| s.epochs[0].kem = kem(EPOCH_2).public().clone()),
        vault.state("share_swapped", "chain", |s| s.epochs[0].shares[0].sha256 = Digest([0; 32])),
        vault.state("second_gateway_smuggled_in", "chain", |s| s.gateways.push(gateway_entry(7))),
        vault.state("quorum_of_none", "state", |s| s.quorum = 0),
        vault.state("quorum_out_of_reach", "state", |s| s.quorum = 2),
        vault.state("custodian_with_anothers_id", "state", |s| s.custodians[0].id.0[0] ^= 1),
        vault.state("gateway_twice", "state", |s| s.gateways.push(s.gateways[0].clone())),
        vault.state("no_epoch", "state", |s| s.epochs.clear()),
        vault.state("share_at_zero", "state", |s| s.epochs[0].shares[0].x = 0),
        vault.state("share_without_envelope", "state", |s| s.epochs[0].shares[0].env = None),
    ]
}

fn geneses(vault: &Vault) -> Vec<Vector> {
    let with = |name: &str, outcome, from: &str, to: &str| {
        let mut input = vault.input(&[], &[&vault.zero]);
        let text = text(&input["genesis"]).replacen(from, to, 1);
        input["genesis"] = json!(text);
        vector(name, outcome, input)
    };
    vec![
        with("genesis_suite_unknown", "suite", "\"suite\":1", "\"suite\":2"),
        with("genesis_version_of_tomorrow", "version", "runvault/1", "runvault/2"),
        with("genesis_of_another_vault", "state", "T06:00:00Z", "T06:00:01Z"),
        with("genesis_quorum_out_of_reach", "state", "\"quorum\":1", "\"quorum\":2"),
        with("genesis_without_newline", "truncated", "}\n", "}"),
    ]
}

/// Follows a chain as section 7.4 says.
pub fn run(input: &Value) -> Outcome {
    follow(input).map_err(|e| e.name())
}

fn follow(input: &Value) -> Result<Value> {
    let (genesis, vault) = Genesis::parse(text(&input["genesis"]).as_bytes())?;
    let stored = |n: u64| input["states"][n.to_string()].as_str().map(str::as_bytes);
    let mut state = State::zero(&genesis, vault);
    if let Some(bytes) = stored(0) {
        state = state.take_envelopes(bytes)?;
    }
    let (mut head, mut admitted) = (Head::start(&vault), std::collections::BTreeMap::new());
    let log: String = input["audit_log"].as_array().unwrap().iter().map(text).collect();
    if !log.is_empty() && !log.ends_with('\n') {
        return Err(Error::Truncated);
    }
    for text in log.lines() {
        let line = Line::parse(text.as_bytes())?;
        assert_eq!(line.to_line()?, text);
        let next = stored(line.executed.n).map(State::parse).transpose()?;
        head = line.verify(&head, &state, next.as_ref())?;
        state = next.unwrap_or(state);
        let id = |run: Option<RunId>| run.map_or_else(String::new, |run| run.to_string());
        match line.executed.request.op {
            Operation::AdmitGateway { gateway, run } => {
                admitted.insert((gateway.to_string(), id(run)), None);
            }
            Operation::DismissGateway { gateway, run, until } => {
                let meant = |key: &(String, String)| {
                    key.0 == gateway.to_string() && (run.is_none() || key.1 == id(run))
                };
                let open = admitted.iter_mut().filter(|(key, end)| end.is_none() && meant(key));
                open.for_each(|(_, end)| *end = Some(until.clone()));
            }
            _ => {}
        }
    }
    let admitted: Vec<_> =
        admitted.into_iter().map(|((gateway, run), until)| json!([gateway, run, until])).collect();
    let identity = |seed| IdentityKeys::from_seed(&secret(seed)).unwrap();
    let people: Vec<_> = input["seeds"].as_array().unwrap().iter().map(identity).collect();
    Ok(json!({
        "vault": vault, "words": words::of_vault(&vault).join(" "), "head": { "n": head.n, "hash": head.hash },
        "state": state.hash()?, "epochs": epochs(&state, &people)?, "admitted": admitted,
    }))
}

/// The key of each epoch, newest first.
fn epochs(state: &State, people: &[IdentityKeys]) -> Result<Vec<String>> {
    let current = state.current()?;
    let point = |one: &IdentityKeys| {
        let own = current.shares.iter().find(|s| s.to == one.public().id()).ok_or(Error::Share)?;
        let y = share::open_share(&one.kem, &state.vault, current, own)?;
        Ok(sharing::Share { x: own.x, y })
    };
    let points = people.iter().map(point).collect::<Result<Vec<_>>>()?;
    let mut seed = sharing::combine(state.quorum, &points).map_err(|_| Error::Share)?;
    if *KemPrivate::from_seed(&seed)?.public() != current.kem {
        return Err(Error::Share);
    }
    let mut keys = vec![hex(seed.expose())];
    for pair in state.epochs.windows(2).rev() {
        let key = KemPrivate::from_seed(&seed)?;
        seed = share::open_previous(&key, &state.vault, &pair[1], &pair[0])?;
        keys.push(hex(seed.expose()));
    }
    Ok(keys)
}
