//! Key files: an identity's seed under a lock, in a file that only its owner reads.

use std::path::Path;

use runvault_format::ids::{IdentityId, VaultId};
use zeroize::Zeroizing;

use crate::identity::Identity;
pub use crate::kinds::NewLock;
use crate::{Error, Result};

/// Asks a person, a file or a service manager; [`Error::NoPassphrase`] where none is to be had.
pub trait Prompt {
    /// The passphrase of the key with this label.
    ///
    /// # Errors
    /// [`Error::NoPassphrase`], [`Error::BadFile`], [`Error::Permissions`].
    fn passphrase(&mut self, label: &str) -> Result<Zeroizing<Vec<u8>>>;
}

/// A key file as it was read: its lock is closed.
#[derive(Clone, Debug)]
pub struct KeyFile {}

#[allow(unused_variables, missing_docs)]
impl KeyFile {
    pub fn label(&self) -> &str {
        todo!()
    }
    pub fn id(&self) -> IdentityId {
        todo!()
    }
    pub fn vault(&self) -> Option<VaultId> {
        todo!()
    }
    /// Whether opening it asks for a passphrase.
    pub fn has_passphrase(&self) -> bool {
        todo!()
    }
    /// The file's bytes, for copies.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        todo!()
    }
}

/// Writes the identity's key file, mode 0600, synced; never overwrites.
///
/// # Errors
/// [`Error::KeyFileExists`], [`Error::Io`].
#[allow(unused_variables)]
pub fn write_new(path: &Path, identity: &Identity, lock: &NewLock, vault: Option<VaultId>) -> Result<()> {
    todo!()
}

/// Writes a copy of a key file, same lock, mode 0600, synced; never overwrites.
///
/// # Errors
/// [`Error::KeyFileExists`], [`Error::Io`].
#[allow(unused_variables)]
pub fn write_copy(path: &Path, file: &KeyFile) -> Result<()> {
    todo!()
}

/// Reads a key file. One that others can read is refused unless `allow_readable`.
///
/// # Errors
/// [`Error::Permissions`], [`Error::BadFile`], [`Error::Damaged`].
#[allow(unused_variables)]
pub fn read(path: &Path, allow_readable: bool) -> Result<KeyFile> {
    todo!()
}

/// Opens the lock.
///
/// # Errors
/// [`Error::WrongPassphrase`], what the prompt gives.
#[allow(unused_variables)]
pub fn unlock(file: &KeyFile, prompt: &mut dyn Prompt) -> Result<Identity> {
    todo!()
}

/// Reads a file that holds a secret: a regular file of at most `max` bytes, that group and others
/// cannot read unless `allow_readable`.
///
/// # Errors
/// [`Error::Permissions`], [`Error::BadFile`], [`Error::Io`].
#[allow(unused_variables)]
pub fn read_secret(path: &Path, max: usize, allow_readable: bool) -> Result<Zeroizing<Vec<u8>>> {
    todo!()
}
