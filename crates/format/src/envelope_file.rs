//! An envelope: a secret sealed to one recipient by HPKE; in a run's `keys/` it is a file.
//!
//! ```text
//! magic "rvkey/1" and a zero byte 8 | suite u16 | enc 1120 | ciphertext
//! ```

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use runvault_crypto::envelope::{self, ENC, KemPrivate, KemPublic, OVERHEAD, Sealed};
use runvault_crypto::secrets::Secret;
use zeroize::Zeroizing;

use crate::header::SUITE;
use crate::ids::{IdentityId, RunId, VaultId};
use crate::info::{Purpose, Recipient, Scope, info};
use crate::keys::RunKey;
use crate::reader::Reader;
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"rvkey/1\0";
/// Longest secret in an envelope.
pub const SECRET_MAX: usize = 64;
/// Bytes of a run's key.
const RUN_KEY: usize = 32;
/// Longest envelope.
pub const LEN_MAX: usize = 8 + 2 + ENC + SECRET_MAX + OVERHEAD;

/// Seals `secret` to `key` and writes the envelope.
///
/// # Errors
/// [`Error::TooLong`], [`Error::Crypto`].
pub fn seal(key: &KemPublic, info: &[u8], secret: &[u8]) -> Result<Vec<u8>> {
    if secret.len() > SECRET_MAX {
        return Err(Error::TooLong);
    }
    Ok(encode(&envelope::seal(key, info, secret)?))
}

/// Opens an envelope.
///
/// # Errors
/// Those of [`parse`], [`Error::NotAuthentic`].
pub fn open(key: &KemPrivate, info: &[u8], bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let sealed = parse(bytes)?;
    Ok(key.open(info, &sealed.enc, &sealed.ciphertext)?)
}

/// The envelope's bytes.
pub fn encode(sealed: &Sealed) -> Vec<u8> {
    [MAGIC, &SUITE.to_le_bytes()[..], &sealed.enc[..], &sealed.ciphertext].concat()
}

/// Splits an envelope.
///
/// # Errors
/// [`Error::TooLong`], [`Error::Magic`], [`Error::Suite`], [`Error::Truncated`].
pub fn parse(bytes: &[u8]) -> Result<Sealed> {
    if bytes.len() > LEN_MAX {
        return Err(Error::TooLong);
    }
    let mut r = Reader::new(bytes);
    if r.array::<8>()? != *MAGIC {
        return Err(Error::Magic);
    }
    match r.u16()? {
        SUITE => {}
        other => return Err(Error::Suite(other.into())),
    }
    let enc = Box::new(r.array::<ENC>()?);
    let ciphertext = r.rest().to_vec();
    if ciphertext.len() < OVERHEAD { Err(Error::Truncated) } else { Ok(Sealed { enc, ciphertext }) }
}

/// [`parse`] of a file in `keys/`, whose secret is a run's key.
///
/// # Errors
/// As of [`parse`]; [`Error::Truncated`] and [`Error::Trailing`] for a secret of another length.
pub fn parse_run_key(bytes: &[u8]) -> Result<Sealed> {
    let sealed = parse(bytes)?;
    match sealed.ciphertext.len().cmp(&(RUN_KEY + OVERHEAD)) {
        Ordering::Less => Err(Error::Truncated),
        Ordering::Equal => Ok(sealed),
        Ordering::Greater => Err(Error::Trailing),
    }
}

/// Seals a run's key to whom the file's name says: the content of a file in `keys/`.
///
/// # Errors
/// [`Error::Crypto`].
pub fn seal_run_key(
    key: &KemPublic,
    vault: &VaultId,
    run: &RunId,
    name: &EnvelopeName,
    secret: &RunKey,
) -> Result<Vec<u8>> {
    seal(key, &name.info(vault, run), secret.0.expose())
}

/// Opens a file of `keys/`. The caller compares the key's commitment with run.json's.
///
/// # Errors
/// Those of [`open`]; [`Error::Truncated`] and [`Error::Trailing`] for a key that is not 32 bytes.
pub fn open_run_key(
    key: &KemPrivate,
    vault: &VaultId,
    run: &RunId,
    name: &EnvelopeName,
    bytes: &[u8],
) -> Result<RunKey> {
    let secret = open(key, &name.info(vault, run), bytes)?;
    secret_of(&secret).map(RunKey)
}

/// 32 bytes of an opened envelope as a secret.
///
/// # Errors
/// [`Error::Truncated`], [`Error::Trailing`].
pub fn secret_of(bytes: &[u8]) -> Result<Secret<32>> {
    let (secret, rest) = bytes.split_first_chunk::<32>().ok_or(Error::Truncated)?;
    if rest.is_empty() { Ok(Secret::copy_from(secret)) } else { Err(Error::Trailing) }
}

/// The name of a file in `keys/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EnvelopeName {
    /// `vault-<epoch>`.
    Vault(u32),
    /// `reader-<id>`.
    Reader(IdentityId),
    /// `worker-<id>`, for as long as a run is re-keyed.
    Worker(IdentityId),
}

impl EnvelopeName {
    /// Whom the envelope is sealed to.
    pub fn recipient(&self) -> Recipient {
        match self {
            EnvelopeName::Vault(e) => Recipient::Epoch(*e),
            EnvelopeName::Reader(id) | EnvelopeName::Worker(id) => Recipient::Identity(*id),
        }
    }

    fn info(&self, vault: &VaultId, run: &RunId) -> Vec<u8> {
        let purpose = match self {
            EnvelopeName::Worker(_) => Purpose::Worker,
            EnvelopeName::Vault(_) | EnvelopeName::Reader(_) => Purpose::RunKey,
        };
        info(purpose, vault, &Scope::Run(*run), &self.recipient())
    }
}

impl fmt::Display for EnvelopeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EnvelopeName::Vault(e) => write!(f, "vault-{e}"),
            EnvelopeName::Reader(id) => write!(f, "reader-{id}"),
            EnvelopeName::Worker(id) => write!(f, "worker-{id}"),
        }
    }
}

impl FromStr for EnvelopeName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let id = |id: &str| id.parse().map_err(|_| Error::ForeignName);
        let name = if let Some(reader) = text.strip_prefix("reader-") {
            EnvelopeName::Reader(id(reader)?)
        } else if let Some(worker) = text.strip_prefix("worker-") {
            EnvelopeName::Worker(id(worker)?)
        } else {
            let epoch = text.strip_prefix("vault-").ok_or(Error::ForeignName)?;
            EnvelopeName::Vault(epoch.parse().map_err(|_| Error::ForeignName)?)
        };
        // Leading zeros and signs: one epoch, one name.
        if name.to_string() == text { Ok(name) } else { Err(Error::ForeignName) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_run_key_opens_in_its_place_only() {
        let reader = KemPrivate::from_seed(&Secret::copy_from(&[1; 32])).unwrap();
        let (vault, run) = (VaultId([2; 32]), RunId([3; 16]));
        let to = EnvelopeName::Vault(1);
        let key = RunKey(Secret::copy_from(&[4; 32]));
        let file = seal_run_key(reader.public(), &vault, &run, &to, &key).unwrap();
        assert_eq!(file.len(), 8 + 2 + ENC + 32 + OVERHEAD);
        assert_eq!(open_run_key(&reader, &vault, &run, &to, &file).unwrap().0.expose(), key.0.expose());
        let refused = |vault, run, to| open_run_key(&reader, &vault, &run, &to, &file).err();
        assert_eq!(refused(VaultId([9; 32]), run, to), Some(Error::NotAuthentic));
        assert_eq!(refused(vault, RunId([9; 16]), to), Some(Error::NotAuthentic));
        assert_eq!(refused(vault, run, EnvelopeName::Vault(2)), Some(Error::NotAuthentic));

        let with = |at: usize| {
            let mut changed = file.clone();
            changed[at] ^= 1;
            parse(&changed).map(|_| ())
        };
        assert_eq!(with(0), Err(Error::Magic));
        assert_eq!(with(8), Err(Error::Suite(0)));
        assert_eq!(parse(&file[..1145]), Err(Error::Truncated));
        assert_eq!(parse(&vec![0; LEN_MAX + 1]), Err(Error::TooLong));
        assert_eq!(secret_of(&[0; 31]).err(), Some(Error::Truncated));
        assert_eq!(secret_of(&[0; 33]).err(), Some(Error::Trailing));
        assert_eq!(seal(reader.public(), b"", &[0; 65]), Err(Error::TooLong));
    }

    #[test]
    fn names() {
        for name in [
            "vault-1",
            "vault-4294967295",
            "reader-00112233445566778899aabbccddeeff",
            "worker-00112233445566778899aabbccddeeff",
        ] {
            assert_eq!(name.parse::<EnvelopeName>().unwrap().to_string(), name);
        }
        for name in ["", "vault-", "vault-01", "vault-+1", "vault-4294967296", "reader-0", "seal-1", ".nfs1"]
        {
            assert_eq!(name.parse::<EnvelopeName>(), Err(Error::ForeignName), "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_encodes_back(enc in prop::collection::vec(any::<u8>(), ENC), text in prop::collection::vec(any::<u8>(), 16..=80)) {
            let sealed = Sealed { enc: Box::new(enc.try_into().unwrap()), ciphertext: text };
            let bytes = encode(&sealed);
            prop_assert_eq!(parse(&bytes), Ok(sealed));
        }

        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..1300), name in ".{0,50}") {
            prop_assert!(parse(&bytes).is_err());
            let _ = name.parse::<EnvelopeName>();
        }
    }
}
