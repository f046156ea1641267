//! The lock that a key file is to get: what was chosen, and what it needs of a person.

use anyhow::Result;
use runvault_crypto::passphrase::Params;
use runvault_custody::key_files::NewLock;
use zeroize::Zeroizing;

use crate::args::LockKind;
use crate::prompt::Source;

/// A lock to be made.
pub enum Chosen {
    /// By nothing.
    None,
    /// By this passphrase.
    Passphrase(Zeroizing<Vec<u8>>),
}

impl Chosen {
    /// Asks for what this kind of lock needs.
    ///
    /// # Errors
    /// Exit 2: as [`Source::new_one`].
    pub fn ask(kind: LockKind, passphrase: &Source, label: &str) -> Result<Self> {
        Ok(match kind {
            LockKind::None => Self::None,
            LockKind::Passphrase => Self::Passphrase(passphrase.new_one(label)?),
        })
    }

    /// As custody wants it.
    pub fn lock(&self) -> NewLock<'_> {
        match self {
            Self::None => NewLock::None,
            Self::Passphrase(passphrase) => NewLock::Passphrase { passphrase, params: Params::DEFAULT },
        }
    }
}
