//! The owner's key file in the store: two copies, written one after the other; either suffices.

use std::sync::Arc;

use runvault_store::backend::Dir;

use crate::Result;
use crate::identity::Identity;
use crate::key_files::{KeyFile, Prompt};
use crate::kinds::NewLock;

/// The first copy that parses.
///
/// # Errors
/// [`crate::Error::NoLock`], [`crate::Error::Damaged`] when both are.
#[allow(unused_variables)]
pub fn read(root: &Arc<dyn Dir>) -> Result<KeyFile> {
    todo!()
}

/// Opens the key; where a killed [`passwd`] left two different copies, either passphrase opens it.
///
/// # Errors
/// As [`read`]; [`crate::Error::WrongPassphrase`].
#[allow(unused_variables)]
pub fn unlock(root: &Arc<dyn Dir>, prompt: &mut dyn Prompt) -> Result<Identity> {
    todo!()
}

/// Writes both copies, each synced before the next is touched.
///
/// # Errors
/// The store's.
#[allow(unused_variables)]
pub fn write(root: &Arc<dyn Dir>, file: &KeyFile) -> Result<()> {
    todo!()
}

/// Locks the owner's key anew: O(1), nothing else of the store changes.
///
/// # Errors
/// The store's, [`crate::Error::UnlockedInStore`].
#[allow(unused_variables)]
pub fn passwd(root: &Arc<dyn Dir>, owner: &Identity, lock: &NewLock) -> Result<()> {
    todo!()
}
