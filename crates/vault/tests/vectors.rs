//! The vectors of tests/vectors that need more than a decoder, run through the engine: whole files, directories'
//! records, run.json in its run (docs/format.md, sections 8, 10, 11.1).

use std::sync::Arc;
use std::time::Duration;

use crate::common::Chain;
use data_encoding::HEXLOWER;
use runvault_crypto::aead::Engine;
use runvault_crypto::digest::sha256;
use runvault_crypto::secrets::Secret;
use runvault_crypto::signature::VerifyingKey;
use runvault_format::header::Kind;
use runvault_format::ids::{FileId, RunId, SessionId};
use runvault_format::keys::{Place, RunKey, RunKeys, place};
use runvault_format::replacement::Replacement;
use runvault_format::size::Geometry;
use runvault_store::backend::{Access, Dir};
use runvault_store::doubles::memory::MemoryDir;
use runvault_vault::authority::{Last, Until};
use runvault_vault::file::{FileObject, RunContext};
use runvault_vault::{Damage, Error, Result, record, runs};
use serde_json::{Value, json};

/// What the page calls it.
fn refusal(error: &Error) -> &'static str {
    let Error::Damaged { damage, .. } = error else { panic!("no refusal: {error}") };
    match damage {
        Damage::Header => "header",
        Damage::Short => "short",
        Damage::Chunk(_) => "chunk",
        Damage::Place => "place",
        Damage::HeaderCopy => "header-copy",
        Damage::Foreign => "foreign",
        Damage::Run(_) | Damage::Signer(_) => "run",
        Damage::DirectoryRecord
        | Damage::Name
        | Damage::Kind
        | Damage::NotAsWritten(_)
        | Damage::OldStays { .. } => panic!("{error}"),
    }
}

/// Every vector of a file: `read` gives what must come out, or the refusal; `same` compares refusals.
fn each(file: &str, read: impl Fn(&Value) -> Result<Value>, same: impl Fn(&str, &str) -> bool) {
    let path = format!("{}/../../tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let set: Value = serde_json::from_str(&text).unwrap();
    let resolved = |input: &Value| {
        let mut input = input.clone();
        for field in input.as_object_mut().unwrap().values_mut() {
            if let Some(name) = field.get("text").and_then(Value::as_str) {
                *field = set["texts"][name].clone();
            }
        }
        input
    };
    let mut wrong = Vec::new();
    for v in set["vectors"].as_array().unwrap() {
        let (name, outcome) = (v["name"].as_str().unwrap(), v["outcome"].as_str().unwrap());
        // Said where a directory is opened, not where its record is read: hostile.rs has it.
        if outcome == "directory-record" {
            continue;
        }
        match read(&resolved(&v["input"])) {
            Ok(output) if outcome == "ok" && output == v["output"] => {}
            Err(error) if same(refusal(&error), outcome) => {}
            other => wrong.push(format!("{name}: {other:?}, {outcome} expected")),
        }
    }
    assert!(wrong.is_empty(), "{file}: {wrong:#?}");
}

fn unhex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    unhex(value).try_into().unwrap()
}

/// A directory with one file, a writing session of its run (a reading one may take a torn tail for longer than it is),
/// and the place of the vector's name.
fn stored(v: &Value, name: &[u8], bytes: &[u8], kind: Kind) -> (Arc<dyn Dir>, Arc<RunContext>, Place) {
    let dir: Arc<dyn Dir> = MemoryDir::root();
    dir.create_file(name, 0o644).unwrap().write_at(bytes, 0).unwrap();
    let (run, rk) = (RunId(array(&v["run"])), RunKey(Secret::copy_from(&array(&v["rk"]))));
    let geometry = Geometry::new(v["chunk_log2"].as_u64().unwrap() as u8).unwrap();
    let keys = RunKeys::derive(&rk, &run, Engine::fastest());
    let at = place(&FileId(array(&v["dir"])), kind, &unhex(&v["name"]));
    let (session, journal, delay) = (SessionId([1; 16]), 1 << 16, Duration::ZERO);
    let nowhere = Box::new(|_| None);
    let run =
        RunContext::writer(run, keys, geometry, dir.clone(), dir.clone(), session, journal, delay, nowhere);
    (dir, run, at)
}

#[test]
fn files() {
    let read = |v: &Value| {
        let (dir, run, place) = stored(v, b"f", &unhex(&v["stored"]), Kind::File);
        let file = dir.open_file(b"f", Access::ReadWrite).unwrap();
        let stat = file.stat().unwrap();
        let file = FileObject::open(&run, stat.ino, file, &stat, Some(place))?;
        let mut plain = vec![0; file.size() as usize];
        let mut done = 0;
        while done < plain.len() {
            // What comes before a refused chunk comes first.
            let n = file.read(done as u64, &mut plain[done..])?;
            assert!(n > 0, "nothing behind {done} of {} bytes", plain.len());
            done += n;
        }
        Ok(json!({ "size": plain.len(), "sha256": HEXLOWER.encode(&sha256(&[&plain])) }))
    };
    each("files.json", read, |found, wanted| found == wanted);
}

#[test]
fn records_of_directories() {
    let read = |v: &Value| {
        let bytes = v["record"].as_str().map(|_| unhex(&v["record"])).unwrap_or_default();
        let (dir, run, place) = stored(v, b"_dir", &bytes, Kind::Directory);
        if v["record"].is_null() {
            dir.unlink(b"_dir").unwrap();
        }
        let id = record::read(&run, &*dir, Some(place))?;
        Ok(json!({ "id": id }))
    };
    each("directories.json", read, |found, wanted| found == wanted);
}

#[test]
fn descriptors_of_runs() {
    let read = |v: &Value| {
        let root: Arc<dyn Dir> = MemoryDir::root();
        let run: RunId = v["run"].as_str().unwrap().parse().unwrap();
        root.create_dir(b"runs", 0o755).unwrap();
        let all = root.open_dir(b"runs").unwrap();
        all.create_dir(run.to_string().as_bytes(), 0o755).unwrap();
        let dir = all.open_dir(run.to_string().as_bytes()).unwrap();
        if let Some(note) = v["note"].as_str() {
            dir.create_file(b"run.json", 0o644).unwrap().write_at(note.as_bytes(), 0).unwrap();
        }
        let gateways = v["gateways"].as_array().unwrap().iter().map(|g| {
            let key = VerifyingKey::from_bytes(&array(&g["sign"])).unwrap();
            (g["id"].as_str().unwrap().parse().unwrap(), key)
        });
        let vault = v["vault"].as_str().unwrap().parse().unwrap();
        let mut chain = Chain::of(vault, gateways.collect());
        let said = &v["replacement"];
        if !said.is_null() {
            let id = |field: &str| said[field].as_str().unwrap();
            let sign = VerifyingKey::from_bytes(&array(&said["sign"])).unwrap();
            chain.replacements.push(Replacement {
                run: id("run").parse().unwrap(),
                seal: id("seal").parse().unwrap(),
                new: id("new").parse().unwrap(),
                worker: id("worker").parse().unwrap(),
                sign,
            });
        }
        let until = &v["gateways"][0]["until"];
        chain.until = until["seq"].as_u64().map(|n| {
            let hash = until["hash"].as_str().map(|hash| hash.parse().unwrap());
            Until { run: Last { n, hash }, seal: Last { n: 0, hash: None } }
        });
        let found = runs::read_descriptor(&root, &run, &chain)?.descriptor;
        let keys = RunKeys::derive(&RunKey(Secret::copy_from(&array(&v["rk"]))), &run, Engine::fastest());
        if keys.commitment() != found.commitment.0 {
            return Err(Error::damaged("runs", Damage::Run("commitment".into())));
        }
        Ok(json!({ "epoch": found.epoch, "opened": found.opened }))
    };
    // Whatever a note is refused for, the engine says of its run.
    each("runs.json", read, |found, wanted| found == "run" && wanted != "ok");
}
