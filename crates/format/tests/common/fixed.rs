//! Fixed inputs: hex, keys, and everything that is random elsewhere.

use data_encoding::HEXLOWER;
use runvault_crypto::aead::{AeadKey, Engine, hazmat};
use runvault_crypto::digest::sha256;
use runvault_crypto::envelope::{self, KemPrivate, KemPublic};
use runvault_crypto::secrets::Secret;
use runvault_format::envelope_file;
use runvault_format::header::{Clear, Kind};
use runvault_format::ids::{FileId, RunId, VaultId};
use runvault_format::info::{Purpose, Recipient, Scope, info};
use runvault_format::keys::{IdentityKeys, Place, RunKey, RunKeys};
use runvault_format::size::Geometry;
use runvault_format::state_slot::SlotState;
use serde_json::Value;

pub const RUN: RunId = RunId([0x52; 16]);
pub const FILE: FileId = FileId([0xf1; 32]);

pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    HEXLOWER.encode(bytes.as_ref())
}

pub fn unhex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

pub fn array<const N: usize>(value: &Value) -> [u8; N] {
    unhex(value).try_into().unwrap()
}

pub fn secret<const N: usize>(value: &Value) -> Secret<N> {
    Secret::copy_from(&array(value))
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Bytes of prime period, so that blocks that swap places cannot cancel.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

pub fn run_key() -> RunKey {
    RunKey(Secret::copy_from(&[0x4b; 32]))
}

pub fn run_keys() -> RunKeys {
    RunKeys::derive(&run_key(), &RUN, Engine::Portable)
}

pub fn aead(key: &Secret<32>) -> AeadKey {
    Engine::Portable.key(key)
}

/// nonce ‖ ciphertext ‖ tag, with a nonce that follows from a number.
pub fn seal(key: &AeadKey, n: u8, aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let nonce = [n; 12];
    let mut out = vec![0; plain.len()];
    let tag = hazmat::seal(key, &nonce, aad, plain, &mut out).unwrap();
    [&nonce[..], &out, &tag].concat()
}

pub fn clear(log2: u8) -> Clear {
    Clear::new(Kind::File, Geometry::new(log2).unwrap(), FILE, RUN)
}

pub fn state(seq: u64, size: u64) -> SlotState {
    SlotState {
        seq,
        size,
        jskip: 0,
        jsession: [0; 8],
        writes: 1,
        epoch: 0,
        flags: 0,
        place: Place([0x9a; 16]),
        previous: Place([0; 16]),
        holes: Vec::new(),
    }
}

/// A header copy, laid out here by docs/format.md, not by the code under test.
pub fn copy(j: u8, clear: &Clear, key: &AeadKey, state: &SlotState) -> Vec<u8> {
    copy_of(j, &clear.encode(), key, &state.encode().unwrap())
}

pub fn copy_of(j: u8, clear: &[u8], key: &AeadKey, state: &[u8]) -> Vec<u8> {
    [clear, &seal(key, 0xc0 + j, &[2, j, 0, 0, 0, 0, 0, 0, 0], state)].concat()
}

pub fn chunk(i: u64, key: &AeadKey, plain: &[u8]) -> Vec<u8> {
    seal(key, 0x10 + i as u8, &[&[1][..], &i.to_le_bytes()].concat(), plain)
}

/// An envelope whose encapsulation follows from its `info`.
pub fn envelope(to: &KemPublic, info: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut randomness = [0; 64];
    randomness[..32].copy_from_slice(&sha256(&[b"m", info]));
    randomness[32..].copy_from_slice(&sha256(&[b"x", info]));
    envelope_file::encode(&envelope::hazmat::seal(to, info, plain, &randomness).unwrap())
}

/// A share of the owner's, made for state `made`.
pub fn share(owner: &IdentityKeys, vault: &VaultId, made: u64, y: &Secret<32>) -> Vec<u8> {
    let info = info(Purpose::Share, vault, &Scope::State(made), &Recipient::Identity(owner.public().id()));
    envelope(owner.kem.public(), &info, y.expose())
}

/// The key of the epoch before `e`.
pub fn previous(epoch: &KemPrivate, vault: &VaultId, since: u64, e: u32, key: &Secret<32>) -> Vec<u8> {
    let info = info(Purpose::Previous, vault, &Scope::State(since), &Recipient::Epoch(e));
    envelope(epoch.public(), &info, key.expose())
}
