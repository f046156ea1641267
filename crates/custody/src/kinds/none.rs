//! No lock: the key file's mode alone protects it. For gateways, services and tests.

use runvault_crypto::secrets::Secret;
use runvault_format::key_file::Lock;

use super::{Kind, NewLock, Shown};
use crate::key_files::Prompt;
use crate::{Error, Result};

pub(super) struct Unlocked;

impl Kind for Unlocked {
    fn make(&self, new: &NewLock) -> Option<Result<(Lock, Secret<32>)>> {
        matches!(new, NewLock::None).then(|| Ok((Lock::None, public_key())))
    }

    fn key(&self, lock: &Lock, _label: &str, _prompt: &mut dyn Prompt) -> Option<Result<Secret<32>>> {
        matches!(lock, Lock::None).then(|| Ok(public_key()))
    }

    fn misfit(&self, lock: &Lock, _file: String) -> Option<Error> {
        matches!(lock, Lock::None).then(|| Error::damaged("key file", runvault_format::Error::NotAuthentic))
    }

    fn shown(&self, lock: &Lock) -> Option<Shown> {
        matches!(lock, Lock::None).then(|| Shown {
            words: "none: whoever reads the file has the key".to_owned(),
            parameters: serde_json::json!({ "kind": "none" }),
        })
    }
}

/// All zeros, known to everyone: the file is in the same shape as a locked one.
fn public_key() -> Secret<32> {
    Secret::from_fn(|key| key.fill(0))
}
