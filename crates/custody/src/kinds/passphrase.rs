//! A passphrase, stretched by Argon2id with a fresh salt at each lock.

use runvault_crypto::passphrase::{Params, derive};
use runvault_crypto::random;
use runvault_crypto::secrets::Secret;
use runvault_format::ids::Salt;
use runvault_format::key_file::Lock;

use super::{Kind, NewLock, Shown};
use crate::key_files::Prompt;
use crate::{Error, Result};

pub(super) struct Passphrase;

impl Kind for Passphrase {
    fn make(&self, new: &NewLock) -> Option<Result<(Lock, Secret<32>)>> {
        let NewLock::Passphrase { passphrase, params } = *new else { return None };
        Some(make(passphrase, params))
    }

    fn key(&self, lock: &Lock, label: &str, prompt: &mut dyn Prompt) -> Option<Result<Secret<32>>> {
        let Lock::Argon2id { salt, m_kib, t, p } = *lock else { return None };
        Some(key(Params { m_kib, t, p }, &salt, label, prompt))
    }

    fn misfit(&self, lock: &Lock, custodian: String) -> Option<Error> {
        matches!(lock, Lock::Argon2id { .. }).then_some(Error::WrongPassphrase { custodian })
    }

    fn shown(&self, lock: &Lock) -> Option<Shown> {
        let Lock::Argon2id { m_kib, t, p, .. } = *lock else { return None };
        Some(Shown {
            words: format!("a passphrase (Argon2id: {} MiB, {t} passes, {p} lanes)", m_kib / 1024),
            parameters: serde_json::json!({ "kind": "argon2id", "m_kib": m_kib, "t": t, "p": p }),
        })
    }
}

fn make(passphrase: &[u8], params: Params) -> Result<(Lock, Secret<32>)> {
    not_empty(passphrase)?;
    let mut salt = Salt([0; 16]);
    random::fill(&mut salt.0)?;
    let key = derive(params, passphrase, &salt.0)?;
    Ok((Lock::argon2id(salt, params), key))
}

fn key(params: Params, salt: &Salt, label: &str, prompt: &mut dyn Prompt) -> Result<Secret<32>> {
    // Absurd parameters are refused before anyone is asked.
    let params = params.checked()?;
    let passphrase = prompt.passphrase(label)?;
    not_empty(&passphrase)?;
    Ok(derive(params, &passphrase, &salt.0)?)
}

pub(super) fn not_empty(passphrase: &[u8]) -> Result<()> {
    if passphrase.is_empty() { Err(Error::NoPassphrase("it is empty".to_owned())) } else { Ok(()) }
}
