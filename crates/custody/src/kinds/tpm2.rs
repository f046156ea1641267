//! The machine's TPM 2.0: 32 bytes that it sealed under its owner hierarchy, by the programs of tpm2-tools. To copy the
//! file is then not enough, and with a passphrase to have the machine neither.

use runvault_crypto::passphrase::Params;
use runvault_crypto::random;
use runvault_crypto::secrets::Secret;
use runvault_format::hardware::{TpmLock, TpmWith, tpm_key};
use runvault_format::ids::Salt;
use runvault_format::key_file::Lock;

use super::{Kind, NewLock, Shown};
use crate::key_files::Prompt;
use crate::tpm2_tools::Refused;
use crate::{Error, Result, tpm_sealed};

pub(super) struct Tpm2;

impl Kind for Tpm2 {
    fn make(&self, new: &NewLock) -> Option<Result<(Lock, Secret<32>)>> {
        let NewLock::Tpm2 { pcrs, passphrase } = *new else { return None };
        Some(make(pcrs, passphrase))
    }

    fn key(&self, lock: &Lock, label: &str, prompt: &mut dyn Prompt) -> Option<Result<Secret<32>>> {
        let Lock::Tpm2(lock) = lock else { return None };
        Some(open(lock, label, prompt))
    }

    fn misfit(&self, lock: &Lock, custodian: String) -> Option<Error> {
        let Lock::Tpm2(lock) = lock else { return None };
        Some(match lock.with {
            TpmWith::Argon2id { .. } => Error::WrongPassphrase { custodian },
            TpmWith::Value { .. } => Error::damaged("key file", runvault_format::Error::NotAuthentic),
        })
    }

    fn shown(&self, lock: &Lock) -> Option<Shown> {
        let Lock::Tpm2(TpmLock { pcrs, with, .. }) = lock else { return None };
        let passphrase = with.params();
        let mut words = "the TPM of the machine that locked it".to_owned();
        if passphrase.is_some() {
            words += ", and a passphrase";
        }
        if !pcrs.is_empty() {
            let numbers: Vec<String> = pcrs.iter().map(u8::to_string).collect();
            words += &match numbers.as_slice() {
                [one] => format!("; as long as its PCR {one} of sha256 stays as it was"),
                _ => format!("; as long as its PCRs {} of sha256 stay as they were", numbers.join(", ")),
            };
        }
        let costs =
            passphrase.map(|costs| serde_json::json!({ "m_kib": costs.m_kib, "t": costs.t, "p": costs.p }));
        let parameters = serde_json::json!({ "kind": "tpm2", "pcrs": pcrs, "passphrase": costs });
        Some(Shown { words, parameters })
    }
}

fn make(pcrs: &[u8], passphrase: Option<(&[u8], Params)>) -> Result<(Lock, Secret<32>)> {
    let (with, bytes) = match passphrase {
        None => {
            let value = Secret::random()?;
            (TpmWith::value(&value), value)
        }
        Some((passphrase, params)) => {
            super::passphrase::not_empty(passphrase)?;
            let mut salt = Salt([0; 16]);
            random::fill(&mut salt.0)?;
            let with = TpmWith::argon2id(salt, params);
            let bytes = with.bytes(passphrase)?;
            (with, bytes)
        }
    };
    let secret = Secret::random()?;
    let (public, private) = tpm_sealed::seal(&secret, pcrs, &bytes).map_err(tpm)?;
    let lock = TpmLock { public, private, pcrs: pcrs.to_vec(), with };
    // What cannot be opened again is not a lock.
    let opened = tpm_sealed::unseal(&lock, &bytes).map_err(tpm)?;
    if opened.expose() != secret.expose() {
        return Err(tpm(Refused::OtherTpm));
    }
    Ok((Lock::Tpm2(lock), tpm_key(&secret, &bytes)))
}

fn open(lock: &TpmLock, label: &str, prompt: &mut dyn Prompt) -> Result<Secret<32>> {
    let passphrase = match lock.with.params() {
        None => Default::default(),
        // Absurd parameters are refused before anyone is asked.
        Some(params) => params.checked().map(|_| prompt.passphrase(label))??,
    };
    let with = lock.with.bytes(&passphrase)?;
    let unsealed = tpm_sealed::unseal(lock, &with).map_err(|why| match why {
        Refused::NotOurs if lock.with.params().is_some() => {
            Error::WrongPassphrase { custodian: format!("{label:?}") }
        }
        Refused::NotOurs => Error::damaged("key file", runvault_format::Error::NotAuthentic),
        why => tpm(why),
    })?;
    Ok(tpm_key(&unsealed, &with))
}

fn tpm(why: Refused) -> Error {
    Error::Tpm { nv_index: None, why }
}
