//! Section 8.1: which runs are parts of one.

use runvault_format::continuations::{Part, groups};
use runvault_format::descriptor::{After, How};
use runvault_format::ids::{Digest, IdentityId, RunId};
use serde_json::{Value, json};

use crate::common::fixed::text;
use crate::{Outcome, Set, Vector, vector};

pub const SET: Set = Set {
    file: "continuations.json",
    about: "Runs of a vault (section 8.1): `seal` is the text hash of the run's seal, null while it is open; `admitted` \
            has gateways, each with a run or an empty string for every run. output: the runs of several parts, each \
            with its parts in order.",
    make,
    run,
};

/// A run of the gateway of that number.
fn of(n: u8, gateway: u8, seq: u64, sealed: bool, after: Option<(u8, u8)>) -> Value {
    let after = after.map(|(run, seal)| json!({ "run": id(run), "how": "continues", "seal": hash(seal) }));
    json!({
        "run": id(n), "signer": IdentityId([gateway; 16]), "seq": seq,
        "seal": sealed.then(|| hash(n)), "after": after,
    })
}

fn id(n: u8) -> RunId {
    RunId([n; 16])
}

/// Of the seal of the run of that number.
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
            json!([[gateway(8), ""], [gateway(6), id(1)]]),
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
            json!([[gateway(8), id(1)]]),
        ),
        made(
            "by_one_that_was_admitted_to_every_run",
            vec![first(), of(2, 8, 5, false, Some((1, 1)))],
            json!([[gateway(8), ""]]),
        ),
        made(
            "by_one_that_was_admitted_to_another",
            vec![first(), of(2, 8, 5, false, Some((1, 1)))],
            json!([[gateway(8), id(2)]]),
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
            after: after.as_ref(),
            seal: run["seal"].as_str().map(|seal| seal.parse().unwrap()),
        })
        .collect();
    let admitted = |gateway: &IdentityId, run: Option<&RunId>| {
        let wanted = json!([gateway, run.map_or_else(String::new, ToString::to_string)]);
        input["admitted"].as_array().unwrap().contains(&wanted)
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
