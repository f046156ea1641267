//! Locks of a key file that hardware opens: what is in the file of them, and the lock key that follows from what the
//! hardware gives (docs/format.md, 6.1). No module's path and no PIN is ever in here.

use runvault_crypto::kdf::{hkdf_expand, hkdf_extract};
use runvault_crypto::passphrase::{self, Params};
use runvault_crypto::secrets::Secret;
use serde::{Deserialize, Serialize};

use crate::ids::Salt;
use crate::{Result, json, labels};

/// Most PCRs of a TPM.
const PCRS: u8 = 24;

/// A key in a PKCS#11 token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenLock {
    /// The token's label, without the blanks behind it.
    #[serde(with = "json::short")]
    pub token: String,
    /// Its serial number, likewise.
    #[serde(with = "json::short")]
    pub serial: String,
    /// The key's label (CKA_LABEL); may be empty.
    #[serde(with = "json::short")]
    pub key: String,
    /// The key's id (CKA_ID); may be empty.
    #[serde(with = "json::key_id")]
    pub id: Vec<u8>,
    /// What the lock key follows from.
    pub sealed: TokenSealed,
}

/// How the lock key is sealed to the token's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mechanism", deny_unknown_fields)]
pub enum TokenSealed {
    /// CKM_ECDH1_DERIVE on P-256, CKD_NULL.
    #[serde(rename = "ecdh-p256")]
    Ecdh {
        /// The token's point.
        #[serde(with = "json::point")]
        public: Vec<u8>,
        /// The point of the key that was made for this lock alone.
        #[serde(with = "json::point")]
        ephemeral: Vec<u8>,
    },
    /// CKM_RSA_PKCS_OAEP with SHA-1 and MGF1 of it, no label.
    #[serde(rename = "rsa-oaep-sha1")]
    Oaep {
        /// The lock key under the token's.
        #[serde(with = "json::rsa_block")]
        sealed: Vec<u8>,
    },
}

/// The lock key of [`TokenSealed::Ecdh`]: from the x that both share.
pub fn ecdh_key(shared: &Secret<32>, public: &[u8], ephemeral: &[u8]) -> Secret<32> {
    hkdf_expand(&hkdf_extract(b"", shared), &[labels::PKCS11, ephemeral, public])
}

/// Bytes that a TPM sealed under its owner hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmLock {
    /// TPM2B_PUBLIC of the sealed object.
    #[serde(with = "json::tpm_part")]
    pub public: Vec<u8>,
    /// TPM2B_PRIVATE of it.
    #[serde(with = "json::tpm_part")]
    pub private: Vec<u8>,
    /// The PCRs of the bank sha256 that its policy names, in order; none: the TPM demands the value that [`auth`]
    /// gives instead.
    #[serde(with = "json::pcrs")]
    pub pcrs: Vec<u8>,
    /// What is needed beside the TPM.
    pub with: TpmWith,
}

/// What is needed beside the TPM: 32 bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum TpmWith {
    /// Nothing: they are here.
    Value {
        /// Random.
        #[serde(with = "json::half")]
        value: Vec<u8>,
    },
    /// A passphrase, by Argon2id.
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
}

/// The value does not print.
impl std::fmt::Debug for TpmWith {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TpmWith::Value { .. } => "Value(..)",
            TpmWith::Argon2id { .. } => "Argon2id(..)",
        })
    }
}

impl TpmWith {
    /// A passphrase, stretched so.
    pub fn argon2id(salt: Salt, params: Params) -> Self {
        TpmWith::Argon2id { salt, m_kib: params.m_kib, t: params.t, p: params.p }
    }

    /// A value of its own.
    pub fn value(value: &Secret<32>) -> Self {
        TpmWith::Value { value: value.expose().to_vec() }
    }

    /// The costs of a passphrase.
    pub fn params(&self) -> Option<Params> {
        match *self {
            TpmWith::Value { .. } => None,
            TpmWith::Argon2id { m_kib, t, p, .. } => Some(Params { m_kib, t, p }),
        }
    }

    /// The 32 bytes. The passphrase is not looked at where none is needed.
    ///
    /// # Errors
    /// As [`passphrase::derive`].
    pub fn bytes(&self, passphrase: &[u8]) -> Result<Secret<32>> {
        match self {
            TpmWith::Value { value } => Ok(Secret::from_fn(|out: &mut [u8; 32]| out.copy_from_slice(value))),
            TpmWith::Argon2id { salt, m_kib, t, p } => {
                let params = Params { m_kib: *m_kib, t: *t, p: *p };
                Ok(passphrase::derive(params, passphrase, &salt.0)?)
            }
        }
    }
}

/// The authorization value of a sealed object without PCRs.
pub fn auth(with: &Secret<32>) -> Secret<32> {
    hkdf_expand(&hkdf_extract(b"", with), &[labels::TPM_AUTH])
}

/// The lock key: from what the TPM unsealed and what is needed beside it. Who listens on the way to the TPM has half
/// of it.
pub fn tpm_key(unsealed: &Secret<32>, with: &Secret<32>) -> Secret<32> {
    hkdf_expand(&hkdf_extract(with.expose(), unsealed), &[labels::TPM_LOCK])
}

/// Numbers of PCRs, each once, in order.
pub fn is_pcrs(pcrs: &[u8]) -> bool {
    pcrs.is_sorted_by(|a, b| a < b) && pcrs.iter().all(|pcr| *pcr < PCRS)
}
