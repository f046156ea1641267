//! Section 3.2: envelopes.

use runvault_format::envelope_file;
use runvault_format::ids::VaultId;
use runvault_format::info::{Purpose, Recipient, Scope, info};
use serde_json::{Value, json};

use super::{Outcome, Set, Vector, vector};
use crate::common::fixed::{RUN, envelope, hex, run_key, secret, text, unhex};
use crate::common::{EPOCH_1, EPOCH_2, OWNER, identity, kem, seed};

pub const SET: Set = Set {
    file: "envelopes.json",
    about: "Envelopes opened with the X-Wing key of `seed` and HPKE's `info` (section 3.2).",
    make,
    run,
};

const VAULT: VaultId = VaultId([0x7a; 32]);

fn make() -> Vec<Vector> {
    let input = |n: u8, info: &[u8], envelope: &[u8]| {
        json!({
            "seed": hex(seed(n).expose()), "info": String::from_utf8(info.to_vec()).unwrap(), "envelope": hex(envelope),
        })
    };
    let owner = identity(OWNER).public().id();
    let to_epoch = info(Purpose::RunKey, &VAULT, &Scope::Run(RUN), &Recipient::Epoch(1));
    let other_epoch = info(Purpose::RunKey, &VAULT, &Scope::Run(RUN), &Recipient::Epoch(2));
    let share = info(Purpose::Share, &VAULT, &Scope::State(0), &Recipient::Identity(owner));
    let previous = info(Purpose::Previous, &VAULT, &Scope::State(2), &Recipient::Epoch(2));
    let good = envelope(kem(EPOCH_1).public(), &to_epoch, run_key().0.expose());
    let flip = |at: usize| {
        let mut changed = good.clone();
        changed[at] ^= 1;
        input(EPOCH_1, &to_epoch, &changed)
    };
    let of = |info: &[u8], n: u8, plain: u8| {
        input(n, info, &envelope(kem(n).public(), info, seed(plain).expose()))
    };
    vec![
        vector("run_key_for_epoch_1", "ok", input(EPOCH_1, &to_epoch, &good)),
        vector("share", "ok", of(&share, 6, EPOCH_1)),
        vector("previous", "ok", of(&previous, EPOCH_2, EPOCH_1)),
        vector("for_another_key", "not-authentic", input(EPOCH_2, &to_epoch, &good)),
        vector("for_another_epoch", "not-authentic", input(EPOCH_1, &other_epoch, &good)),
        vector("for_another_purpose", "not-authentic", input(EPOCH_1, &share, &good)),
        vector("magic_changed", "magic", flip(0)),
        vector("magic_without_zero", "magic", flip(7)),
        vector("suite_unknown", "suite", flip(8)),
        vector("ml_kem_part_changed", "not-authentic", flip(10)),
        vector("x25519_part_changed", "not-authentic", flip(10 + 1088)),
        vector("ciphertext_changed", "not-authentic", flip(1130)),
        vector("tag_changed", "not-authentic", flip(good.len() - 1)),
        vector("ciphertext_cut", "not-authentic", input(EPOCH_1, &to_epoch, &good[..good.len() - 1])),
        vector("without_tag", "truncated", input(EPOCH_1, &to_epoch, &good[..1145])),
        vector("enc_cut", "truncated", input(EPOCH_1, &to_epoch, &good[..1129])),
        vector("empty", "truncated", input(EPOCH_1, &to_epoch, &[])),
        vector("too_long", "too-long", input(EPOCH_1, &to_epoch, &[&good[..], &[0; 33]].concat())),
        vector("secret_of_31_bytes", "truncated", {
            input(EPOCH_1, &to_epoch, &envelope(kem(EPOCH_1).public(), &to_epoch, &[1; 31]))
        }),
        vector("secret_of_33_bytes", "trailing", {
            input(EPOCH_1, &to_epoch, &envelope(kem(EPOCH_1).public(), &to_epoch, &[1; 33]))
        }),
    ]
}

fn run(input: &Value) -> Outcome {
    let key = runvault_crypto::envelope::KemPrivate::from_seed(&secret(&input["seed"])).unwrap();
    let info = text(&input["info"]).as_bytes();
    let opened = envelope_file::open(&key, info, &unhex(&input["envelope"]));
    let secret = opened.and_then(|s| envelope_file::secret_of(&s)).map_err(|e| e.name())?;
    Ok(json!({ "secret": hex(secret.expose()) }))
}
