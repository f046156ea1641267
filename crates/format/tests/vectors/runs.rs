//! Section 8: whether a directory of `runs/` is a run of the vault.

use runvault_crypto::aead::Engine;
use runvault_crypto::signature::VerifyingKey;
use runvault_format::Error;
use runvault_format::descriptor::{After, How, RunDescriptor};
use runvault_format::ids::{Digest, IdentityId, RunId, VaultId};
use runvault_format::keys::{RunKey, RunKeys};
use runvault_format::note::{self, Note};
use serde_json::{Value, json};

use super::notes::descriptor;
use super::{Outcome, Set, Vector, vector};
use crate::common::fixed::{RUN, array, hex, run_key, secret, text};
use crate::common::{GATEWAY, OWNER, identity};

pub const SET: Set = Set {
    file: "runs.json",
    about: "The directory `run` of a vault with these gateways (`until`: number and hash of the last \
            run that counts, or null; section 8): its run.json, or null, and the key `rk` that \
            an envelope of it gave; `replacement`: what the audit log says of it, where it does \
            (section 8.2). output: two fields of run.json.",
    make,
    run,
};

/// A second gateway of the vault.
const OTHER: u8 = 7;
/// Of a re-keying.
const WORKER: u8 = 41;

fn input(note: Option<&str>) -> Value {
    let gateways = [GATEWAY, OTHER].map(|n| {
        let keys = identity(n).public();
        json!({ "id": keys.id(), "sign": hex(keys.sign.to_bytes()), "until": null })
    });
    json!({
        "vault": descriptor().vault, "run": RUN, "gateways": gateways, "rk": hex(run_key().0.expose()), "note": note,
    })
}

/// A run.json that names `signer`, signed by `by`.
fn note_of(signer: u8, by: u8, change: impl FnOnce(&mut RunDescriptor)) -> String {
    let mut descriptor = descriptor();
    descriptor.signer = identity(signer).public().id();
    change(&mut descriptor);
    let text = descriptor.to_text().unwrap();
    String::from_utf8(note::sign(&text, &identity(by).public().id(), &identity(by).sign)).unwrap()
}

/// A run that replaces another has no number in its gateway's chain.
fn replacing(d: &mut RunDescriptor) {
    (d.seq, d.prev) = (None, None);
    d.after = Some(After { run: RunId([0x54; 16]), how: How::Replaces, seal: Digest([9; 32]) });
}

fn make() -> Vec<Vector> {
    let of = |name: &str, outcome, note: String| vector(name, outcome, input(Some(&note)));
    let with = |change: fn(&mut RunDescriptor)| note_of(GATEWAY, GATEWAY, change);
    let good = with(|_| ());
    let hash = note::text_hash(&descriptor().to_text().unwrap());
    // The last run of GATEWAY that counts.
    let ended_at = |name: &str, outcome, (seq, hash): (u64, Option<Digest>), note: String| {
        let mut input = input(Some(&note));
        input["gateways"][0]["until"] = json!({ "seq": seq, "hash": hash });
        vector(name, outcome, input)
    };
    let ended = |name: &str, outcome, seq, note| ended_at(name, outcome, (seq, Some(hash)), note);
    vec![
        of("of_the_first_gateway", "ok", good.clone()),
        of("of_the_second_gateway", "ok", note_of(OTHER, OTHER, |_| ())),
        vector("missing", "run", input(None)),
        of("of_another_vault", "run", with(|d| d.vault = VaultId([0x7b; 32]))),
        of("of_another_run", "run", with(|d| d.run = RunId([0x53; 16]))),
        of("signed_by_the_owner", "run", note_of(OWNER, OWNER, |_| ())),
        of("signed_by_a_stranger", "run", note_of(99, 99, |_| ())),
        of("commitment_changed", "run", with(|d| d.commitment = Digest([0; 32]))),
        vector("key_of_another_run", "run", {
            let mut input = input(Some(&good));
            input["rk"] = json!(hex([0x4c; 32]));
            input
        }),
        of("signed_by_another_gateway", "unsigned", note_of(GATEWAY, OTHER, |_| ())),
        of("text_changed", "signature", good.replacen("T06", "T07", 1)),
        of("of_another_kind", "note-kind", {
            let keys = identity(GATEWAY);
            let text = descriptor().to_text().unwrap().replacen("runvault/1 run", "runvault/1 seal", 1);
            String::from_utf8(note::sign(&text, &keys.public().id(), &keys.sign)).unwrap()
        }),
        ended("last_run_of_an_ended_gateway", "ok", 1, good.clone()),
        ended(
            "after_the_end_of_its_gateway",
            "run",
            1,
            with(|d| (d.seq, d.prev) = (Some(2), Some(Digest([8; 32])))),
        ),
        ended_at("another_under_the_last_number", "run", (1, Some(Digest([8; 32]))), good.clone()),
        ended_at("of_a_gateway_none_of_whose_runs_counts", "run", (0, None), good.clone()),
        ended("without_a_number_of_an_ended_gateway", "run", 7, with(replacing)),
        of("replaces_and_no_line_names_it", "run", with(replacing)),
        of("replaces_and_no_line_names_it_or_its_worker", "run", note_of(WORKER, WORKER, replacing)),
        replaced("replaces_as_a_line_says", "ok", note_of(WORKER, WORKER, replacing), |_| ()),
        replaced("replaces_by_a_gateway", "run", with(replacing), |_| ()),
        replaced("replaces_by_another_worker", "run", note_of(42, 42, replacing), |_| ()),
        replaced("replaces_signed_by_another", "unsigned", note_of(WORKER, 42, replacing), |_| ()),
        replaced("replaces_another_run", "run", note_of(WORKER, WORKER, replacing), |said| {
            said["run"] = json!(RunId([0x55; 16]));
        }),
        replaced("replaces_another_seal", "run", note_of(WORKER, WORKER, replacing), |said| {
            said["seal"] = json!(Digest([8; 32]));
        }),
        replaced("of_a_worker_and_replaces_nothing", "run", note_of(WORKER, WORKER, |_| ()), |_| ()),
        of("empty", "note", String::new()),
    ]
}

/// A run that a line names.
fn replaced(name: &str, outcome: &'static str, note: String, change: impl FnOnce(&mut Value)) -> Vector {
    let keys = identity(WORKER).public();
    let mut said = json!({
        "run": RunId([0x54; 16]), "seal": Digest([9; 32]), "new": RUN, "worker": keys.id(),
        "sign": hex(keys.sign.to_bytes()),
    });
    change(&mut said);
    let mut input = input(Some(&note));
    input["replacement"] = said;
    vector(name, outcome, input)
}

fn run(input: &Value) -> Outcome {
    let found = input["note"].as_str().ok_or("run")?;
    let refused = |e: Error| e.name();
    let parsed = Note::parse(found.as_bytes()).map_err(refused)?;
    let claimed = RunDescriptor::parse_text(parsed.text).map_err(refused)?;
    let signer = claimed.signer;
    let id = |value: &Value| text(value).parse::<IdentityId>().unwrap();
    let gateway = match claimed.after.filter(|after| after.how == How::Replaces) {
        None => input["gateways"].as_array().unwrap().iter().find(|g| id(&g["id"]) == signer),
        Some(after) => Some(&input["replacement"]).filter(|said| {
            said["worker"] == json!(signer)
                && (&said["run"], &said["seal"]) == (&json!(after.run), &json!(after.seal))
        }),
    };
    let gateway = gateway.ok_or("run")?;
    let key = VerifyingKey::from_bytes(&array(&gateway["sign"])).unwrap();
    let verified =
        parsed.verify(&signer, &key).and_then(|t| t.parse(RunDescriptor::parse_text)).map_err(refused)?;
    let descriptor = verified.into_inner();
    let keys = RunKeys::derive(&RunKey(secret(&input["rk"])), &descriptor.run, Engine::Portable);
    let until = &gateway["until"];
    let counts = until["seq"].as_u64().is_none_or(|last| match descriptor.seq {
        Some(seq) if seq == last => until["hash"] == json!(note::text_hash(parsed.text)),
        seq => seq.is_some_and(|seq| seq < last),
    });
    let right = counts
        && json!(descriptor.vault) == input["vault"]
        && json!(descriptor.run) == input["run"]
        && keys.commitment() == descriptor.commitment.0;
    if right { Ok(json!({ "epoch": descriptor.epoch, "opened": descriptor.opened })) } else { Err("run") }
}
