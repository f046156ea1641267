//! Section 12: one redo record.

use runvault_crypto::aead::Engine;
use runvault_format::ids::{FileId, RunId, SessionId};
use runvault_format::keys::{RunKey, RunKeys};
use runvault_format::redo_record::Record;
use serde_json::{Value, json};

use super::{Outcome, Set, Vector, vector};
use crate::common::fixed::{FILE, RUN, array, hex, pattern, run_key, run_keys, secret, unhex};

pub const SET: Set = Set {
    file: "records.json",
    about: "The redo record at the start of `bytes`, read with the journal key of `session` (section 12).",
    make,
    run,
};

const SESSION: SessionId = SessionId([0x5e; 16]);

fn record(path: usize, blob: usize, size_after: Option<u64>) -> Record {
    Record {
        number: 1,
        session: SESSION,
        file_id: FILE,
        epoch: 2,
        chunk: 9,
        size_after,
        path: vec![b'a'; path],
        blob: pattern(blob),
    }
}

fn encoded(record: &Record) -> Vec<u8> {
    record.encode(&run_keys().journal_key(&SESSION)).unwrap()
}

fn input(bytes: &[u8]) -> Value {
    json!({
        "run": hex(RUN.0), "rk": hex(run_key().0.expose()), "session": hex(SESSION.0), "bytes": hex(bytes),
    })
}

fn make() -> Vec<Vector> {
    let good = encoded(&record(28, 300, None));
    let flip = |at: usize, byte: u8| {
        let mut changed = good.clone();
        changed[at] ^= byte;
        input(&changed)
    };
    let mut other = input(&good);
    other["session"] = json!(hex([0; 16]));
    vec![
        vector("whole_chunk", "ok", input(&good)),
        vector("partial_chunk", "ok", input(&encoded(&record(57, 130, Some(70_000))))),
        vector("exactly_one_sector", "ok", input(&encoded(&record(102, 300, None)))),
        vector("one_byte_over_a_sector", "ok", input(&encoded(&record(103, 300, None)))),
        vector("another_behind_it", "ok", input(&[&good[..], &good].concat())),
        vector("nothing_written", "magic", input(&[0; 512])),
        vector("magic_changed", "magic", flip(0, 1)),
        vector("length_changed", "not-canonical", flip(9, 2)),
        vector("blob_too_long", "too-long", flip(93, 1)),
        vector("number_changed", "not-authentic", flip(12, 1)),
        vector("session_changed", "not-authentic", flip(20, 1)),
        vector("file_changed", "not-authentic", flip(36, 1)),
        vector("tag_changed", "not-authentic", flip(94, 1)),
        vector("path_changed", "not-authentic", flip(110, 1)),
        vector("chunk_changed", "not-authentic", flip(200, 1)),
        vector("padding_changed", "not-authentic", flip(511, 1)),
        vector("torn", "not-authentic", {
            let whole = encoded(&record(28, 900, None));
            input(&[&whole[..512], &[0; 1024][..]].concat())
        }),
        vector("cut", "truncated", input(&good[..400])),
        vector("of_another_session", "not-authentic", other),
    ]
}

fn run(input: &Value) -> Outcome {
    let run = RunId(array(&input["run"]));
    let keys = RunKeys::derive(&RunKey(secret(&input["rk"])), &run, Engine::Portable);
    let key = keys.journal_key(&SessionId(array(&input["session"])));
    let bytes = unhex(&input["bytes"]);
    let (record, used) = Record::decode(&bytes, &key).map_err(|e| e.name())?;
    assert_eq!(record.encode(&key).unwrap(), bytes[..used]);
    let FileId(file_id) = record.file_id;
    Ok(json!({
        "used": used, "number": record.number, "session": record.session, "file_id": hex(file_id),
        "epoch": record.epoch, "chunk": record.chunk, "size_after": record.size_after,
        "path": hex(record.path), "blob": hex(record.blob),
    }))
}
