//! A key file: an identity's seed under its lock, with the public keys in clear.
//!
//! `runvault/1 key`, then one line of JSON: `{id, label, sign, kem, vault?, lock, sealed}`. `sealed` is
//! nonce 12 | ciphertext 32 | tag 16 under the lock key; its associated data is the same two lines
//! without `lock` and `sealed`. A custodian's has a note of kind `kept` behind them, and then a copy of `custody/`.

use runvault_crypto::aead::Engine;
use runvault_crypto::passphrase::{self, Params};
use runvault_crypto::secrets::Secret;
use serde::{Deserialize, Serialize};

use crate::custody_copy::{self, CustodyCopy};
use crate::hardware::{TokenLock, TpmLock};
use crate::ids::{IdentityId, Salt, VaultId};
use crate::kept::Kept;
use crate::keys::{IdentityKeys, IdentityPublic};
use crate::note::{self, Note};
use crate::reader::Reader;
use crate::{Error, Result, json};

const KIND: &str = "key";
/// The locks that this program knows.
const KINDS: [&str; 4] = ["none", "argon2id", "pkcs11", "tpm2"];
const SEALED: usize = 12 + 32 + 16;
/// A key file is never longer, but for its copy of `custody/`.
pub const LEN_MAX: usize = 16 << 10;
/// With the copy.
pub const WHOLE_MAX: usize = LEN_MAX + custody_copy::LEN_MAX;

/// What opens the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Lock {
    /// Nothing: whoever has the file has the key.
    None,
    /// A passphrase.
    Argon2id {
        /// Random, fresh at each locking.
        salt: Salt,
        /// Memory in KiB.
        m_kib: u32,
        /// Passes.
        t: u32,
        /// Lanes.
        p: u32,
    },
    /// A key in a PKCS#11 token.
    Pkcs11(TokenLock),
    /// A TPM 2.0.
    Tpm2(TpmLock),
}

impl Lock {
    /// A passphrase's lock.
    pub fn argon2id(salt: Salt, params: Params) -> Self {
        Lock::Argon2id { salt, m_kib: params.m_kib, t: params.t, p: params.p }
    }

    /// The lock key, where no hardware is needed. Without a lock it is all zeros, and the passphrase is not looked at.
    ///
    /// # Errors
    /// [`Error::Crypto`] for costs out of their bounds (before anything is allocated) or too
    /// little memory; [`Error::Hardware`].
    pub fn key(&self, passphrase: &[u8]) -> Result<Secret<32>> {
        match self {
            Lock::None => Ok(Secret::from_fn(|key| key.fill(0))),
            Lock::Argon2id { salt, m_kib, t, p } => {
                let params = Params { m_kib: *m_kib, t: *t, p: *p };
                Ok(passphrase::derive(params, passphrase, &salt.0)?)
            }
            Lock::Pkcs11(_) => Err(Error::Hardware("a PKCS#11 token")),
            Lock::Tpm2(_) => Err(Error::Hardware("a TPM")),
        }
    }
}

/// A parsed key file.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// For people.
    pub label: String,
    /// The identity's public keys.
    pub public: IdentityPublic,
    /// The vault that the identity belongs to, where it is of one: opening the file pins it.
    pub vault: Option<VaultId>,
    /// What opens it.
    pub lock: Lock,
    sealed: Vec<u8>,
    /// What a custodian keeps beside the key.
    kept: Option<Kept>,
    /// The note of it, as it was signed.
    note: Vec<u8>,
    /// What `custody/` was at the last drill.
    copy: Option<CustodyCopy>,
}

fn parse_kept(note: &str, public: &IdentityPublic) -> Result<Kept> {
    let note = Note::parse(note.as_bytes())?;
    let text = note.verify(&public.id(), &public.sign)?;
    Kept::parse_text(&text)
}

/// What stands before the copy of `custody/`, and the copy, where there is one.
fn split_copy(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    let first = format!("\n{}", custody_copy::FIRST_LINE);
    match bytes.windows(first.len()).position(|found| found == first.as_bytes()) {
        Some(at) => {
            let (own, copy) = bytes.split_at(at + 1);
            (own, Some(copy))
        }
        None => (bytes, None),
    }
}

/// Without a lock the sealed bytes are as good as the key: they do not print.
impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyFile")
            .field("id", &self.public.id())
            .field("label", &self.label)
            .field("vault", &self.vault)
            .field("lock", &self.lock)
            .finish_non_exhaustive()
    }
}

/// What is authenticated beside the seed.
#[derive(Serialize)]
struct Named<'a> {
    id: IdentityId,
    #[serde(with = "json::label")]
    label: &'a String,
    #[serde(with = "json::sign")]
    sign: &'a runvault_crypto::signature::VerifyingKey,
    #[serde(with = "json::kem")]
    kem: &'a runvault_crypto::envelope::KemPublic,
    #[serde(skip_serializing_if = "Option::is_none")]
    vault: Option<VaultId>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    id: IdentityId,
    #[serde(with = "json::label")]
    label: String,
    #[serde(with = "json::sign")]
    sign: runvault_crypto::signature::VerifyingKey,
    #[serde(with = "json::kem")]
    kem: runvault_crypto::envelope::KemPublic,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vault: Option<VaultId>,
    lock: Lock,
    #[serde(with = "json::bytes")]
    sealed: Vec<u8>,
}

/// What must be known of a file with any lock.
#[derive(Deserialize)]
struct Known {
    lock: KnownLock,
}

#[derive(Deserialize)]
struct KnownLock {
    kind: String,
}

impl KeyFile {
    /// Seals an identity's seed under `lock`, whose key is `lock_key`.
    ///
    /// # Errors
    /// [`Error::Json`] for a bad label, [`Error::Crypto`].
    pub fn seal(
        seed: &Secret<32>,
        label: &str,
        vault: Option<VaultId>,
        lock: Lock,
        lock_key: &Secret<32>,
    ) -> Result<Self> {
        let public = IdentityKeys::from_seed(seed)?.public();
        let (label, sealed, note) = (label.into(), Vec::new(), Vec::new());
        let mut file = Self { label, public, vault, lock, sealed, kept: None, note, copy: None };
        let mut sealed = [0; 32];
        let key = Engine::Portable.key(lock_key);
        let (nonce, tag) = key.seal(file.associated()?.as_bytes(), seed.expose(), &mut sealed)?;
        file.sealed = [&nonce[..], &sealed, &tag].concat();
        Ok(file)
    }

    /// The seed, which must give the public keys that the file names.
    ///
    /// # Errors
    /// [`Error::NotAuthentic`] for a wrong lock key or a changed file, [`Error::OtherKey`].
    pub fn open(&self, lock_key: &Secret<32>) -> Result<Secret<32>> {
        let mut r = Reader::new(&self.sealed);
        let (nonce, sealed, tag) = (r.array()?, r.take(32)?, r.array()?);
        let (key, aad) = (Engine::Portable.key(lock_key), self.associated()?);
        let mut opened = Ok(());
        let seed = Secret::from_fn(|out: &mut [u8; 32]| {
            opened = key.open(&nonce, aad.as_bytes(), sealed, &tag, out);
        });
        opened?;
        if IdentityKeys::from_seed(&seed)?.public() == self.public { Ok(seed) } else { Err(Error::OtherKey) }
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// [`Error::Json`] for a bad label.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let fields = Fields {
            id: self.public.id(),
            label: self.label.clone(),
            sign: self.public.sign,
            kem: self.public.kem.clone(),
            vault: self.vault,
            lock: self.lock.clone(),
            sealed: self.sealed.clone(),
        };
        let copy = self.copy.as_ref().map(CustodyCopy::to_bytes).transpose()?.unwrap_or_default();
        Ok([json::to_text(KIND, &fields)?.as_bytes(), &self.note, &copy].concat())
    }

    /// The copy of `custody/` behind it: nobody signs it, since it proves itself to whoever knows the vault id.
    pub fn copy(&self) -> Option<&CustodyCopy> {
        self.copy.as_ref()
    }

    /// The same file with this copy of `custody/` behind it, or none.
    #[must_use]
    pub fn with_copy(mut self, copy: Option<CustodyCopy>) -> Self {
        self.copy = copy;
        self
    }

    /// What a custodian keeps beside the key.
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// The same file with this beside the key, signed by it.
    ///
    /// # Errors
    /// Those of [`Kept::to_text`], [`Error::OtherKey`] for keys of another file.
    pub fn keeping(mut self, kept: Kept, keys: &IdentityKeys) -> Result<Self> {
        if keys.public() != self.public {
            return Err(Error::OtherKey);
        }
        self.note = note::sign(&kept.to_text()?, &self.public.id(), &keys.sign);
        self.kept = Some(kept);
        Ok(self)
    }

    /// Parses a key file.
    ///
    /// # Errors
    /// Those of a text of two lines; [`Error::Lock`] for a kind that is not known;
    /// [`Error::OtherKey`] for an id that is not that of the keys; [`Error::Truncated`],
    /// [`Error::Trailing`] for `sealed`; those of a note that is not signed by the key, and of [`CustodyCopy::parse`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (own, copy) = split_copy(bytes);
        if own.len() > LEN_MAX {
            return Err(Error::TooLong);
        }
        let copy = copy.map(CustodyCopy::parse).transpose()?;
        let text = json::utf8(own)?;
        let end = text.match_indices('\n').nth(1).map_or(text.len(), |(at, _)| at + 1);
        let (own, note) = text.split_at(end);
        let line = json::line_of(KIND, own)?;
        let known: Known = json::parse_loose(line)?;
        if !KINDS.contains(&known.lock.kind.as_str()) {
            return Err(Error::Lock(json::shown(&known.lock.kind)));
        }
        let f: Fields = json::parse_line(line)?;
        match f.sealed.len() {
            SEALED => {}
            short if short < SEALED => return Err(Error::Truncated),
            _ => return Err(Error::Trailing),
        }
        let public = IdentityPublic { sign: f.sign, kem: f.kem };
        if public.id() != f.id {
            return Err(Error::OtherKey);
        }
        let kept = if note.is_empty() { None } else { Some(parse_kept(note, &public)?) };
        let note = note.as_bytes().to_vec();
        Ok(Self { label: f.label, public, vault: f.vault, lock: f.lock, sealed: f.sealed, kept, note, copy })
    }

    fn associated(&self) -> Result<String> {
        let public = &self.public;
        json::to_text(
            KIND,
            &Named {
                id: public.id(),
                label: &self.label,
                sign: &public.sign,
                kem: &public.kem,
                vault: self.vault,
            },
        )
    }
}
