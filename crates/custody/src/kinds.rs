//! What can lock a key file. How a kind opens and is shown is one file here and one line in `KINDS`. Its bytes in the file
//! are a variant of `Lock` in the format; how it is chosen is one of [`NewLock`] and of the binary's `--lock`.

mod none;
mod passphrase;
mod pkcs11;
mod tpm2;

use runvault_crypto::passphrase::Params;
use runvault_crypto::secrets::Secret;
use runvault_format::key_file::Lock;

use crate::key_files::Prompt;
use crate::token::{Key, Token};
use crate::{Error, Result};

/// What a lock tells without being opened, never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// For people: one line.
    pub words: String,
    /// For programs: an object, `kind` as the file has it.
    pub parameters: serde_json::Value,
}

/// How a key file is to be locked.
#[derive(Clone, Copy)]
pub enum NewLock<'a> {
    /// By nothing but its mode: whoever reads the file has the key.
    None,
    /// By Argon2id of a passphrase.
    Passphrase {
        /// The bytes as typed, no line end.
        passphrase: &'a [u8],
        /// Cost; [`Params::DEFAULT`] but in tests.
        params: Params,
    },
    /// By a key in a PKCS#11 token.
    Pkcs11 {
        /// Logged in.
        token: &'a Token,
        /// In it.
        key: &'a Key,
    },
    /// By this machine's TPM.
    Tpm2 {
        /// Those of the bank sha256 that have to stay as they are now.
        pcrs: &'a [u8],
        /// Beside the TPM; cost as above.
        passphrase: Option<(&'a [u8], Params)>,
    },
}

impl std::fmt::Debug for NewLock<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NewLock::None => "None",
            NewLock::Passphrase { .. } => "Passphrase(..)",
            NewLock::Pkcs11 { .. } => "Pkcs11(..)",
            NewLock::Tpm2 { .. } => "Tpm2(..)",
        })
    }
}

/// One way to lock: from what the holder gives to the key that seals the seed. Each answers `None`
/// for locks of another kind.
trait Kind: Sync {
    /// A lock with fresh parameters, and its key.
    fn make(&self, new: &NewLock) -> Option<Result<(Lock, Secret<32>)>>;

    /// The key of a lock that exists; `label` tells the holder which one is asked for.
    fn key(&self, lock: &Lock, label: &str, prompt: &mut dyn Prompt) -> Option<Result<Secret<32>>>;

    /// What a key that does not fit means; `file` is the key file's label and id.
    fn misfit(&self, lock: &Lock, file: String) -> Option<Error>;

    /// What it is.
    fn shown(&self, lock: &Lock) -> Option<Shown>;
}

const KINDS: &[&dyn Kind] = &[&none::Unlocked, &passphrase::Passphrase, &pkcs11::Pkcs11, &tpm2::Tpm2];

pub(crate) fn make(new: &NewLock) -> Result<(Lock, Secret<32>)> {
    KINDS.iter().find_map(|kind| kind.make(new)).unwrap_or_else(|| Err(unknown()))
}

pub(crate) fn key(lock: &Lock, label: &str, prompt: &mut dyn Prompt) -> Result<Secret<32>> {
    KINDS.iter().find_map(|kind| kind.key(lock, label, prompt)).unwrap_or_else(|| Err(unknown()))
}

/// Opening gave another key than the one that sealed the seed.
pub(crate) fn misfit(lock: &Lock, file: &str) -> Error {
    KINDS.iter().find_map(|kind| kind.misfit(lock, file.to_owned())).unwrap_or_else(unknown)
}

pub(crate) fn shown(lock: &Lock) -> Result<Shown> {
    KINDS.iter().find_map(|kind| kind.shown(lock)).ok_or_else(unknown)
}

fn unknown() -> Error {
    Error::Format(runvault_format::Error::Lock("no such kind".to_owned()))
}
