//! Section 5.2, and run.json of section 8.

use runvault_format::descriptor::{RunDescriptor, RunKind, Seals, StateRef};
use runvault_format::ids::{Digest, IdentityId, VaultId};
use runvault_format::note::{self, Note};
use runvault_format::size::Geometry;
use serde_json::{Value, json};

use super::{Outcome, Set, Vector, vector};
use crate::common::fixed::{RUN, array, hex, run_keys, text};
use crate::common::{CREATED, GATEWAY, identity};

pub const SET: Set = Set {
    file: "notes.json",
    about: "run.json as a signed note (sections 5.2, 8), verified under the key `sign` of identity `id`. \
            output: the text's hash and two of its fields.",
    make,
    run,
};

pub fn descriptor() -> RunDescriptor {
    RunDescriptor {
        vault: VaultId([0x7a; 32]),
        run: RUN,
        geometry: Geometry::default(),
        kind: RunKind::Run,
        commitment: Digest(run_keys().commitment()),
        epoch: 1,
        state: StateRef { n: 1, hash: Digest([0x57; 32]) },
        signer: identity(GATEWAY).public().id(),
        seq: Some(1),
        prev: None,
        seals: Seals { n: 0, hash: None },
        after: None,
        opened: CREATED.into(),
    }
}

fn input(note: &str) -> Value {
    let gateway = identity(GATEWAY).public();
    json!({ "id": gateway.id(), "sign": hex(gateway.sign.to_bytes()), "note": note })
}

fn signed(text: &str) -> String {
    let keys = identity(GATEWAY);
    String::from_utf8(note::sign(text, &keys.public().id(), &keys.sign)).unwrap()
}

fn make() -> Vec<Vector> {
    let text = descriptor().to_text().unwrap();
    let good = signed(&text);
    let line = good.lines().last().unwrap().to_owned();
    let second = "\u{2014} later AAAAAAA=\n";
    let mut all = vec![
        vector("first_run", "ok", input(&good)),
        vector("signature_line_of_tomorrow", "ok", input(&format!("{good}{second}"))),
        vector("text_changed", "signature", input(&good.replacen("\"seq\":1", "\"seq\":2", 1))),
        vector("signed_by_another", "unsigned", {
            let keys = identity(9);
            let note = note::sign(&text, &keys.public().id(), &keys.sign);
            input(&String::from_utf8(note).unwrap())
        }),
        vector("signed_by_another_in_its_name", "unsigned", {
            let note = note::sign(&text, &identity(GATEWAY).public().id(), &identity(9).sign);
            input(&String::from_utf8(note).unwrap())
        }),
        vector("without_signature", "note", input(&text)),
        vector("without_last_newline", "note", input(good.trim_end())),
        vector("hyphen_for_the_dash", "note", input(&good.replace('\u{2014}', "-"))),
        vector("carriage_return", "note", input(&good.replacen('\n', "\r\n", 1))),
        vector("signed_twice", "note", input(&format!("{good}{line}\n"))),
        vector("base64_with_unused_bits", "note", input(&format!("{good}\u{2014} x AAAAAAB=\n"))),
        vector("seventeen_signatures", "note", {
            let more: String = (0..16).map(|i| format!("\u{2014} n{i} AAAAAAA=\n")).collect();
            input(&format!("{good}{more}"))
        }),
    ];
    all.extend(texts(&text));
    all
}

/// Texts that the gateway signed and that are refused all the same.
fn texts(text: &str) -> Vec<Vector> {
    let with = |name: &str, outcome, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        vector(name, outcome, input(&signed(&text.replacen(from, to, 1))))
    };
    let hash = format!("\"{}\"", "5a".repeat(32));
    let run = format!("\"{}\"", "5b".repeat(16));
    let after = |how: &str| format!("\"after\":{{\"run\":{run},\"how\":\"{how}\",\"seal\":{hash}}}");
    vec![
        with("of_another_kind", "note-kind", "runvault/1 run", "runvault/1 seal"),
        with("version_of_tomorrow", "version", "runvault/1 run", "runvault/2 run"),
        with("not_ours", "magic", "runvault/1 run", "hello"),
        with("suite_unknown", "suite", "\"suite\":1", "\"suite\":2"),
        with("chunk_not_a_power_of_two", "chunk-size", "8192", "8000"),
        with("chunk_too_small", "chunk-size", "8192", "256"),
        with("chunk_too_large", "chunk-size", "8192", "2097152"),
        with("field_unknown", "json", "\"suite\":1", "\"suite\":1,\"more\":0"),
        with("field_twice", "json", "\"suite\":1", "\"suite\":1,\"suite\":1"),
        with("field_missing", "json", "\"suite\":1,", ""),
        with("nullable_field_missing", "not-canonical", ",\"after\":null", ""),
        with(
            "fields_in_another_order",
            "not-canonical",
            "\"suite\":1,\"chunk\":8192",
            "\"chunk\":8192,\"suite\":1",
        ),
        with("white_space", "not-canonical", "\"suite\":1", "\"suite\": 1"),
        with("needless_escape", "not-canonical", "\"suite\"", "\"\\u0073uite\""),
        with("integer_over_2_53", "json", "\"seq\":1", "\"seq\":9007199254740993"),
        with("integer_as_fraction", "json", "\"seq\":1", "\"seq\":1.0"),
        with("integer_negative", "json", "\"seq\":1", "\"seq\":-1"),
        with("hex_upper_case", "json", "7a7a", "7A7A"),
        with("hex_too_short", "json", "7a7a", "7a"),
        with("time_without_t", "json", "2026-11-24T", "2026-11-24 "),
        with("time_that_is_none", "json", "2026-11-24T", "2026-02-30T"),
        with("second_run_without_prev", "not-canonical", "\"seq\":1", "\"seq\":2"),
        with("no_seq", "not-canonical", "\"seq\":1", "\"seq\":null"),
        with("seals_without_hash", "not-canonical", "\"seals\":{\"n\":0", "\"seals\":{\"n\":1"),
        with("epoch_zero", "not-canonical", "\"epoch\":1", "\"epoch\":0"),
        with("kind_unknown", "json", "\"kind\":\"run\"", "\"kind\":\"walk\""),
        with("seq_zero", "not-canonical", "\"seq\":1", "\"seq\":0"),
        with("first_run_with_prev", "not-canonical", "\"prev\":null", &format!("\"prev\":{hash}")),
        with(
            "no_seals_with_a_hash",
            "not-canonical",
            "\"n\":0,\"hash\":null",
            &format!("\"n\":0,\"hash\":{hash}"),
        ),
        with("epoch_over_32_bits", "json", "\"epoch\":1", "\"epoch\":4294967296"),
        with(
            "after_without_seal",
            "json",
            "\"after\":null",
            &format!("\"after\":{{\"run\":{run},\"how\":\"continues\"}}"),
        ),
        with("after_unknown_how", "json", "\"after\":null", &after("follows")),
        with("replaces_with_seq", "not-canonical", "\"after\":null", &after("replaces")),
        with("continues", "ok", "\"after\":null", &after("continues")),
        with(
            "replaces",
            "ok",
            "\"seq\":1,\"prev\":null,\"seals\":{\"n\":0,\"hash\":null},\"after\":null",
            &{
                format!(
                    "\"seq\":null,\"prev\":null,\"seals\":{{\"n\":0,\"hash\":null}},{}",
                    after("replaces")
                )
            },
        ),
        with("second_run", "ok", "\"seq\":1,\"prev\":null", &format!("\"seq\":2,\"prev\":{hash}")),
        with("loose_files", "ok", "\"kind\":\"run\"", "\"kind\":\"loose\""),
        with("chunks_of_512", "ok", "8192", "512"),
        with("without_last_brace", "json", "}\n", "\n"),
        with("third_line", "trailing", "}\n", "}\n{}\n"),
    ]
}

fn run(input: &Value) -> Outcome {
    let key = runvault_crypto::signature::VerifyingKey::from_bytes(&array(&input["sign"])).unwrap();
    let id: IdentityId = text(&input["id"]).parse().unwrap();
    let read = || {
        let note = Note::parse(text(&input["note"]).as_bytes())?;
        assert_eq!(note.encode(), text(&input["note"]).as_bytes());
        note.verify(&id, &key)?.parse(|t| {
            let d = RunDescriptor::parse_text(t)?;
            assert_eq!(d.to_text()?, t);
            Ok(json!({ "hash": note::text_hash(t), "run": d.run, "chunk": d.geometry.chunk() }))
        })
    };
    read().map(|v| v.into_inner()).map_err(|e: runvault_format::Error| e.name())
}
