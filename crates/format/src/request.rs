//! A request: an operation on the vault, as custodians see and approve it before it is executed.

use runvault_crypto::digest::{ct_eq, sha256};
use runvault_crypto::envelope::KemPublic;
use runvault_crypto::signature::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::custody_state::{Custodian, Outline};
use crate::ids::{Digest, IdentityId, Salt, VaultId};
use crate::json;
use crate::keys::IdentityPublic;
use crate::note::text_hash;
use crate::operation::Operation;
use crate::{Error, Result, labels};

const KIND: &str = "request";

/// The newest audit line; before the first, 0 and the vault id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Number of the line.
    #[serde(with = "json::int")]
    pub n: u64,
    /// Its hash.
    pub hash: Digest,
}

impl Head {
    /// Before the first line.
    pub fn start(vault: &VaultId) -> Self {
        Self { n: 0, hash: Digest(vault.0) }
    }
}

/// Fresh keys for one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Executor {
    /// X-Wing: released shares are sealed to it.
    #[serde(with = "json::kem")]
    pub kem: KemPublic,
    /// Ed25519: signs what was done.
    #[serde(with = "json::sign")]
    pub sign: VerifyingKey,
}

impl Executor {
    /// Both keys.
    pub fn public(&self) -> IdentityPublic {
        IdentityPublic { sign: self.sign, kem: self.kem.clone() }
    }
}

/// What custodians approve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The vault.
    pub vault: VaultId,
    /// The line that it follows.
    pub head: Head,
    /// Hash of the state that it follows.
    pub before: Digest,
    /// What is to be done.
    pub op: Operation,
    /// Why, for people.
    #[serde(with = "json::reason")]
    pub reason: String,
    /// Whether approvals carry shares.
    pub releases_share: bool,
    /// Who executes.
    pub executor: Executor,
    /// When it was made, RFC 3339 in UTC.
    #[serde(with = "json::time")]
    pub created: String,
    /// When it can no longer be executed.
    #[serde(with = "json::time")]
    pub expires: String,
    /// Random.
    pub nonce: Salt,
    /// The next state, as far as it is known before it is executed; null where there is none.
    pub state: Option<Outline>,
}

impl Request {
    /// The request's text.
    ///
    /// # Errors
    /// [`Error::Json`] for a field out of its bounds, [`Error::TooLong`].
    pub fn to_text(&self) -> Result<String> {
        json::to_text(KIND, self)
    }

    /// Parses a request.
    ///
    /// # Errors
    /// Those of a text of two lines.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        json::parse_text(KIND, json::utf8(bytes)?)
    }

    /// What approvals sign: SHA-256 of the text.
    ///
    /// # Errors
    /// Those of [`Request::to_text`].
    pub fn hash(&self) -> Result<Digest> {
        Ok(text_hash(&self.to_text()?))
    }
}

/// A custodian's yes, as an audit line keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Whose.
    pub custodian: IdentityId,
    /// SHA-256 of the envelope with the released share; null where none is released.
    pub env_sha256: Option<Digest>,
    /// Ed25519.
    #[serde(with = "json::signature")]
    pub sig: [u8; 64],
}

impl Approval {
    /// Approves a request; `envelope` holds the share, sealed to the request's executor.
    pub fn sign(custodian: IdentityId, key: &SigningKey, request: &Digest, envelope: Option<&[u8]>) -> Self {
        let env_sha256 = envelope.map(|e| Digest(sha256(&[e])));
        Self { custodian, env_sha256, sig: key.sign(&message(request, env_sha256.as_ref())) }
    }

    /// Whether the custodian signed this for the request.
    ///
    /// # Errors
    /// [`Error::Signature`], [`Error::Chain`] for another custodian.
    pub fn verify(&self, custodian: &Custodian, request: &Digest) -> Result<()> {
        if !ct_eq(&custodian.id.0, &self.custodian.0) {
            return Err(Error::Chain("approved by someone else"));
        }
        Ok(custodian.sign.verify(&message(request, self.env_sha256.as_ref()), &self.sig)?)
    }
}

/// label ‖ request hash ‖ SHA-256 of the envelope, or zeros.
fn message(request: &Digest, envelope: Option<&Digest>) -> Vec<u8> {
    let envelope = envelope.map_or([0; 32], |e| e.0);
    [labels::APPROVAL, &request.0, &envelope].concat()
}
