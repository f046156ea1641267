//! Section 8.1: which runs are parts of one.

use runvault_format::continuations::{Part, groups};
use runvault_format::descriptor::{After, How};
use runvault_format::ids::{Digest, IdentityId, RunId};
use serde_json::{Value, json};

use super::{Outcome, Set, Vector, vector};
use crate::common::fixed::text;

pub const SET: Set = Set {
    file: "continuations.json",
    about: "Runs of a vault (section 8.1): `note` is the text hash of run.json, `seal` that of the run's seal, null while \
            it is open; `admitted` has gateways, each with a run or an empty string for every run, and the `until` of a \
            dismissal or null. output: the runs of several parts, each \
            with its parts in order.",
    make,
    run,
};

/// A run of the gateway of that number.
fn of(n: u8, gateway: u8, seq: u64, sealed: bool, after: Option<(u8, u8)>) -> Value {
    let after = after.map(|(run, seal)| json!({ "run": id(run), "how": "continues", "seal": hash(seal) }));
    json!({
        "run": id(n), "signer": IdentityId([gateway; 16]), "seq": seq, "note": hash(n),
        "seal": sealed.then(|| hash(n)), "after": after,
    })
}

/// Up to the run of that number in its chain.
fn until(seq: u64, run: u8) -> Value {
    json!({ "seq": seq, "hash": hash(run), "seals": 0, "seals_hash": null })
}

fn id(n: u8) -> RunId {
    RunId([n; 16])
}

/// Of the run of that number, and of its seal.
fn hash(n: u8) -> Digest {
    Digest([n; 32])
}

fn make() -> Vec<Vector> {
    let first = || of(1, 7, 4, true, None);
    let made = |name: &str, runs: Vec<Value>, admitted: Value| {
        vector(name, "ok", json!({ "runs": runs, "admitted": admitted }))
    };
    let gateway = |n: u8| IdentityId([n; 16]);
    vec![
        made("alone", vec![first()], json!([])),
        made("continued", vec![first(), of(2, 7, 5, false, Some((1, 1)))], json!([])),
        made("listed_before_what_it_continues", vec![of(2, 7, 5, false, Some((1, 1))), first()], json!([])),
        made(
            "continued_in_a_row",
            vec![of(2, 7, 6, false, Some((3, 3))), of(3, 7, 5, true, Some((1, 1))), first()],
            json!([]),
        ),
        made(
            "continued_twice",
            vec![first(), of(3, 7, 5, false, Some((1, 1))), of(2, 7, 6, true, Some((1, 1)))],
            json!([]),
        ),
        made(
            "continued_by_several_gateways",
            vec![
                first(),
                of(2, 8, 1, true, Some((1, 1))),
                of(3, 6, 9, true, Some((1, 1))),
                of(4, 7, 9, true, Some((2, 2))),
            ],
            json!([[gateway(8), "", null], [gateway(6), id(1), null]]),
        ),
        made("of_an_open_run", vec![of(1, 7, 4, false, None), of(2, 7, 5, false, Some((1, 1)))], json!([])),
        made("of_another_seal", vec![first(), of(2, 7, 5, false, Some((1, 9)))], json!([])),
        made("of_a_run_that_is_not_there", vec![first(), of(2, 7, 5, false, Some((9, 9)))], json!([])),
        made("of_itself", vec![of(1, 7, 4, true, Some((1, 1)))], json!([])),
        made(
            "of_each_other",
            vec![of(1, 7, 4, true, Some((2, 2))), of(2, 7, 4, true, Some((1, 1)))],
            json!([]),
        ),
        made("by_another_gateway", vec![first(), of(2, 8, 5, false, Some((1, 1)))], json!([])),
        made(
            "by_one_that_was_admitted_to_it",
            vec![first(), of(2, 8, 5, false, Some((1, 1)))],
            json!([[gateway(8), id(1), null]]),
        ),
        made(
            "by_one_that_was_admitted_to_every_run",
            vec![first(), of(2, 8, 5, false, Some((1, 1)))],
            json!([[gateway(8), "", null]]),
        ),
        made(
            "by_one_that_was_admitted_to_another",
            vec![first(), of(2, 8, 5, false, Some((1, 1)))],
            json!([[gateway(8), id(2), null]]),
        ),
        made(
            "before_and_after_a_dismissal",
            vec![
                first(),
                of(2, 8, 3, true, Some((1, 1))),
                of(3, 8, 4, true, Some((1, 1))),
                of(4, 8, 5, true, Some((1, 1))),
            ],
            json!([[gateway(8), id(1), until(4, 3)]]),
        ),
        made(
            "another_run_of_the_last_number",
            vec![first(), of(3, 8, 4, true, Some((1, 1)))],
            json!([[gateway(8), id(1), until(4, 9)]]),
        ),
        made(
            "dismissed_from_it_and_admitted_to_every_run",
            vec![first(), of(3, 8, 4, true, Some((1, 1)))],
            json!([[gateway(8), id(1), { "seq": 0, "hash": null, "seals": 0, "seals_hash": null }], [gateway(8), "", null]]),
        ),
        made(
            "behind_one_that_was_made_after_a_dismissal",
            vec![first(), of(2, 8, 5, true, Some((1, 1))), of(3, 7, 5, true, Some((2, 2)))],
            json!([[gateway(8), id(1), until(4, 3)]]),
        ),
        made(
            "behind_one_that_does_not_belong",
            vec![first(), of(2, 8, 5, true, Some((1, 1))), of(3, 7, 5, false, Some((2, 2)))],
            json!([]),
        ),
        made(
            "replaced",
            {
                let mut replacing = of(2, 7, 5, false, Some((1, 1)));
                replacing["after"]["how"] = json!("replaces");
                vec![first(), replacing]
            },
            json!([]),
        ),
    ]
}

fn run(input: &Value) -> Outcome {
    let runs = input["runs"].as_array().unwrap();
    let afters: Vec<Option<After>> = runs.iter().map(|run| after(&run["after"])).collect();
    let parts: Vec<Part<'_>> = runs
        .iter()
        .zip(&afters)
        .map(|(run, after)| Part {
            run: text(&run["run"]).parse().unwrap(),
            signer: text(&run["signer"]).parse().unwrap(),
            seq: run["seq"].as_u64(),
            note: text(&run["note"]).parse().unwrap(),
            after: after.as_ref(),
            seal: run["seal"].as_str().map(|seal| seal.parse().unwrap()),
        })
        .collect();
    let admitted = |part: &Part<'_>, run: Option<&RunId>| {
        let (gateway, run) = (json!(part.signer), json!(run.map_or_else(String::new, ToString::to_string)));
        let all = input["admitted"].as_array().unwrap().iter();
        let counts = |until: &Value| match (until["seq"].as_u64(), part.seq) {
            (None, _) => true,
            (Some(end), Some(seq)) => seq < end || (seq == end && until["hash"] == json!(part.note)),
            (Some(_), None) => false,
        };
        all.filter(|one| one[0] == gateway && one[1] == run).any(|one| counts(&one[2]))
    };
    let named = |group: &Vec<usize>| group.iter().map(|at| parts[*at].run).collect::<Vec<_>>();
    Ok(json!({ "groups": groups(&parts, admitted).iter().map(named).collect::<Vec<_>>() }))
}

fn after(value: &Value) -> Option<After> {
    let how = match value["how"].as_str()? {
        "continues" => How::Continues,
        _ => How::Replaces,
    };
    let (run, seal) = (text(&value["run"]).parse().unwrap(), text(&value["seal"]).parse().unwrap());
    Some(After { run, how, seal })
}
