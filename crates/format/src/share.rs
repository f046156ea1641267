//! Shares of a vault epoch's key, each sealed to its custodian, and the key of the epoch before.
//!
//! Splitting is not done here: with one custodian of one the share is the key itself.

use runvault_crypto::digest::sha256;
use runvault_crypto::envelope::{KemPrivate, KemPublic};
use runvault_crypto::secrets::Secret;

use crate::custody_state::{Epoch, Share};
use crate::envelope_file::{open, seal, secret_of};
use crate::ids::{Digest, IdentityId, VaultId};
use crate::info::{Purpose, Recipient, Scope, info};
use crate::{Error, Result, labels};

/// SHA-256(label ‖ epoch u32 ‖ x ‖ y): what a state names a share by.
pub fn hash(epoch: u32, x: u8, y: &Secret<32>) -> Digest {
    Digest(sha256(&[labels::SHARE, &epoch.to_le_bytes(), &[x], y.expose()]))
}

fn share_info(vault: &VaultId, made: u64, to: &IdentityId) -> Vec<u8> {
    info(Purpose::Share, vault, &Scope::State(made), &Recipient::Identity(*to))
}

/// The envelope of a share that is made for state `made`.
///
/// # Errors
/// [`Error::Crypto`].
pub fn seal_share(
    key: &KemPublic,
    vault: &VaultId,
    made: u64,
    to: &IdentityId,
    y: &Secret<32>,
) -> Result<Vec<u8>> {
    seal(key, &share_info(vault, made, to), y.expose())
}

/// Opens a custodian's share, and compares it with its hash.
///
/// # Errors
/// [`Error::Share`] where the state has no envelope or the hash differs; those of
/// [`crate::envelope_file::open`].
pub fn open_share(key: &KemPrivate, vault: &VaultId, epoch: &Epoch, share: &Share) -> Result<Secret<32>> {
    let envelope = share.env.as_ref().ok_or(Error::Share)?;
    let y = secret_of(&open(key, &share_info(vault, epoch.made, &share.to), envelope)?)?;
    if hash(epoch.e, share.x, &y) == share.sha256 { Ok(y) } else { Err(Error::Share) }
}

fn previous_info(vault: &VaultId, since: u64, epoch: u32) -> Vec<u8> {
    info(Purpose::Previous, vault, &Scope::State(since), &Recipient::Epoch(epoch))
}

/// Seals the key of the epoch before to epoch `e`, which state `since` makes.
///
/// # Errors
/// [`Error::Crypto`].
pub fn seal_previous(
    key: &KemPublic,
    vault: &VaultId,
    since: u64,
    e: u32,
    previous: &Secret<32>,
) -> Result<Vec<u8>> {
    seal(key, &previous_info(vault, since, e), previous.expose())
}

/// Opens the key of the epoch before with that of `epoch`, and compares it with `before`'s.
///
/// # Errors
/// [`Error::Share`] where there is none or it is another key; those of
/// [`crate::envelope_file::open`].
pub fn open_previous(key: &KemPrivate, vault: &VaultId, epoch: &Epoch, before: &Epoch) -> Result<Secret<32>> {
    let sealed = epoch.previous.as_ref().ok_or(Error::Share)?;
    let seed = secret_of(&open(key, &previous_info(vault, epoch.since, epoch.e), sealed)?)?;
    if *KemPrivate::from_seed(&seed)?.public() == before.kem { Ok(seed) } else { Err(Error::Share) }
}
