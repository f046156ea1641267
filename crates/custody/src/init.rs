//! Making a vault, and knowing what an `init` that was killed has left.

use std::sync::Arc;

use runvault_format::ids::VaultId;
use runvault_store::backend::Dir;

use crate::Result;
use crate::identity::Identity;
use crate::kinds::NewLock;

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Empty,
    /// A vault.
    Vault,
    /// What a killed `init` left.
    KilledInit,
    /// Something else: these names, the first few of them.
    NotEmpty(Vec<String>),
}

/// Looks at a directory without trusting it.
///
/// # Errors
/// The store's.
#[allow(unused_variables)]
pub fn inspect(root: &Arc<dyn Dir>) -> Result<Found> {
    todo!()
}

/// A vault that is not written yet: its id is known, so that a key file can be bound to it and be
/// durable before the store changes.
#[derive(Debug)]
pub struct NewVault {}

#[allow(unused_variables)]
impl NewVault {
    /// A vault of one owner, 1 of 1.
    ///
    /// # Errors
    /// No random bytes.
    pub fn prepare(owner: &Identity) -> Result<Self> {
        todo!()
    }

    /// SHA-256 of its genesis.
    pub fn vault_id(&self) -> VaultId {
        todo!()
    }

    /// Writes it; `lock_in_store` keeps the owner's key file in custody/locks.
    ///
    /// # Errors
    /// [`crate::Error::NotEmpty`], [`crate::Error::KilledInit`], [`crate::Error::UnlockedInStore`].
    pub fn write(self, root: &Arc<dyn Dir>, owner: &Identity, lock_in_store: Option<&NewLock>) -> Result<()> {
        todo!()
    }
}

/// Both at once.
///
/// # Errors
/// As [`NewVault::write`].
pub fn init(root: &Arc<dyn Dir>, owner: &Identity, lock_in_store: Option<&NewLock>) -> Result<VaultId> {
    let new = NewVault::prepare(owner)?;
    let id = new.vault_id();
    new.write(root, owner, lock_in_store)?;
    Ok(id)
}
