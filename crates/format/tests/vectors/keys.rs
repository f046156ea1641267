//! Sections 6 and 9.

use runvault_crypto::kdf::{hkdf_expand, hkdf_extract};
use runvault_crypto::random::Nonces;
use runvault_crypto::secrets::Secret;
use runvault_crypto::siv::SivKey;
use runvault_format::header::Clear;
use runvault_format::ids::DirId;
use runvault_format::keys::{IdentityKeys, RunKey, RunKeys};
use runvault_format::{chunk, header, labels, name};
use serde_json::{Value, json};

use super::{Outcome, Set, Vector, vector};
use crate::common::fixed::{RUN, aead, array, clear, hex, run_key, secret, state, unhex};

pub const SET: Set = Set {
    file: "keys.json",
    about: "The keys of a run from its key (section 9: run, rk, clear, epoch, session), those of an \
            identity from its seed (section 6), a share's hash (7.1), a place (11.1).",
    make,
    run,
};

fn make() -> Vec<Vector> {
    let run = |log2, epoch: u32, session: u8| {
        json!({
            "run": hex(RUN.0), "rk": hex(run_key().0.expose()), "clear": hex(clear(log2).encode()),
            "epoch": epoch, "session": hex([session; 16]),
        })
    };
    vec![
        vector("run_keys", "ok", run(13, 0, 1)),
        vector("run_keys_of_another_epoch", "ok", run(13, 1, 1)),
        vector("run_keys_of_another_chunk_size", "ok", run(9, 0, 2)),
        vector("identity_of_zeros", "ok", json!({ "seed": hex([0; 32]) })),
        vector("identity", "ok", json!({ "seed": hex([1; 32]) })),
        vector("share", "ok", json!({ "epoch": 1, "x": 1, "y": hex([2; 32]) })),
        vector(
            "place_of_a_file",
            "ok",
            json!({ "dir": hex([0; 32]), "kind": 1, "name": hex("RunInfo.xml") }),
        ),
        vector("place_of_a_directory", "ok", json!({ "dir": hex([7; 32]), "kind": 2, "name": hex("Data") })),
    ]
}

fn run(input: &Value) -> Outcome {
    if input.get("seed").is_some() {
        let public = IdentityKeys::from_seed(&secret(&input["seed"])).unwrap().public();
        return Ok(json!({
            "sign": hex(public.sign.to_bytes()), "kem": hex(public.kem.as_bytes()), "id": public.id(),
        }));
    }
    if input.get("y").is_some() {
        let number = |field: &str| input[field].as_u64().unwrap();
        let hash =
            runvault_format::share::hash(number("epoch") as u32, number("x") as u8, &secret(&input["y"]));
        return Ok(json!({ "sha256": hash }));
    }
    if input.get("dir").is_some() {
        let kind = if input["kind"] == 1 { header::Kind::File } else { header::Kind::Directory };
        let dir = runvault_format::ids::FileId(array(&input["dir"]));
        let place = runvault_format::keys::place(&dir, kind, &unhex(&input["name"]));
        return Ok(json!({ "place": hex(place.0) }));
    }
    Ok(run_keys(input))
}

/// Expanded by the page's labels; the code under test must agree.
fn run_keys(input: &Value) -> Value {
    let (run, epoch) =
        (runvault_format::ids::RunId(array(&input["run"])), input["epoch"].as_u64().unwrap() as u32);
    let (rk, clear, session) = (secret(&input["rk"]), unhex(&input["clear"]), unhex(&input["session"]));
    let prk = hkdf_extract(&run.0, &rk);
    let commitment: Secret<32> = hkdf_expand(&prk, &[b"runvault/1 commit\0"]);
    let name_key: Secret<64> = hkdf_expand(&prk, &[b"runvault/1 names\0"]);
    let slot_key: Secret<32> = hkdf_expand(&prk, &[b"runvault/1 slot\0", &clear]);
    let file_key: Secret<32> = hkdf_expand(&prk, &[b"runvault/1 file\0", &clear, &epoch.to_le_bytes()]);
    let journal_key: Secret<32> = hkdf_expand(&prk, &[b"runvault/1 journal\0", &session]);
    assert_eq!(labels::JOURNAL, b"runvault/1 journal\0");

    let keys = RunKeys::derive(&RunKey(rk), &run, runvault_crypto::aead::Engine::Portable);
    let parsed = Clear::decode(clear.as_slice().try_into().unwrap()).unwrap();
    assert_eq!(&keys.commitment(), commitment.expose());
    let of = |key| name::encrypt_name(key, &DirId::ROOT, b"name").unwrap();
    assert_eq!(of(keys.name_key()), of(&SivKey::new(name_key.clone())));
    let sealed = header::seal_copy(0, &parsed, &keys.slot_key(&parsed), &state(1, 0)).unwrap();
    assert!(header::open_copy(0, &sealed, &aead(&slot_key)).is_ok());
    let mut stored = [0; 32];
    chunk::seal(&keys.file_key(&parsed, epoch), &mut Nonces::new(1), 0, b"data", &mut stored).unwrap();
    assert!(chunk::open(&aead(&file_key), 0, &stored, &mut [0; 4]).is_ok());

    json!({
        "prk": hex(prk.expose()), "commitment": hex(commitment.expose()), "name_key": hex(name_key.expose()),
        "slot_key": hex(slot_key.expose()), "file_key": hex(file_key.expose()),
        "journal_key": hex(journal_key.expose()),
    })
}
