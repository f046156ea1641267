//! An identity: one 32-byte seed, from which a signing key and an envelope key follow.

use runvault_crypto::kdf::{hkdf_expand, hkdf_extract};
use runvault_crypto::secrets::Secret;
use runvault_format::ids::{IdentityId, VaultId};
use runvault_format::keys::{IdentityKeys, IdentityPublic};
use runvault_format::labels;
use runvault_format::run_index::IndexKey;

use crate::Result;

/// A custodian, reader or gateway whose key is open.
#[derive(Debug)]
pub struct Identity {
    /// What people call it; public, in custody/.
    pub label: String,
    /// The vault that its key file is bound to: the first pin.
    pub vault: Option<VaultId>,
    /// Its private keys.
    pub keys: IdentityKeys,
    seed: Secret<32>,
}

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// No random bytes.
    pub fn generate(label: &str) -> Result<Self> {
        Self::from_seed(label, None, Secret::random()?)
    }

    /// The one of this seed.
    ///
    /// # Errors
    /// The library's.
    pub fn from_seed(label: &str, vault: Option<VaultId>, seed: Secret<32>) -> Result<Self> {
        Ok(Self { label: label.to_owned(), vault, keys: IdentityKeys::from_seed(&seed)?, seed })
    }

    /// SHA-256 of its public keys, cut to 16 bytes.
    pub fn id(&self) -> IdentityId {
        self.public().id()
    }

    /// Its public keys.
    pub fn public(&self) -> IdentityPublic {
        self.keys.public()
    }

    /// Another handle on the same keys.
    pub(crate) fn again(&self) -> Result<Self> {
        Self::from_seed(&self.label, self.vault, self.seed.clone())
    }

    /// Who works for the one who executes a request: the same again from the same key, and nobody's who lacks it.
    ///
    /// # Errors
    /// The library's.
    pub fn worker(&self) -> Result<Self> {
        let seed = hkdf_expand(&hkdf_extract(b"", &self.seed), &[labels::WORKER]);
        Self::from_seed("worker", self.vault, seed)
    }

    /// Of what a machine keeps under it of a vault's sealed runs.
    pub fn index_key(&self, vault: &VaultId) -> IndexKey {
        IndexKey::derive(&self.seed, self.id(), vault)
    }

    /// For key files, which keep nothing else.
    pub(crate) fn seed(&self) -> &Secret<32> {
        &self.seed
    }
}
