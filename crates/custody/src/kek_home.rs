//! Where KEK_t is kept: in files of the state folder, or in the machine's TPM.
//!
//! `kek/home` names the TPM; without it the folder `kek/` is the home. Both keep a key whole or not at all, and two at
//! a time: the next one is there, durable, before the one before it is overwritten.

mod files;
mod tpm;

use std::fmt;

use runvault_crypto::secrets::Secret;
use runvault_format::ids::VaultId;

use self::files::Files;
use self::tpm::Tpm;
use crate::state_folder::Folder;
pub use crate::tpm2_tools::Refused;
use crate::{Error, Result};

/// Where a new state folder is to keep its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// Where it does already, else in a file.
    #[default]
    AsItIs,
    /// In a file.
    File,
    /// In the TPM: in this NV index and the one after it, or in two that are free.
    Tpm(Option<u32>),
}

/// Where a state folder keeps its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KekHome {
    /// A file in it.
    File,
    /// The machine's TPM.
    Tpm {
        /// The first of two NV indices.
        nv_index: u32,
    },
}

impl fmt::Display for KekHome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => write!(f, "a file of the state folder"),
            Self::Tpm { nv_index } => {
                write!(f, "the TPM, NV indices {nv_index:#010x} and {:#010x}", nv_index.wrapping_add(1))
            }
        }
    }
}

/// One kind of place.
pub(crate) trait Home: fmt::Debug + Send {
    /// Which it is.
    fn is(&self) -> KekHome;
    /// There are entries under key number `t`, and no key is there.
    fn lost(&self, t: u64) -> Error;
    /// Before the first key of a folder that holds no entries.
    fn prepare(&self) -> Result<()>;
    /// No first key came to be: another home can be chosen.
    fn give_up(&self) -> Result<()>;
    /// The numbers of the keys that are there.
    fn numbers(&self) -> Result<Vec<u64>>;
    /// One of them.
    fn read(&self, t: u64) -> Result<Secret<32>>;
    /// Durable and whole, or not at all; the key before it stays.
    fn write(&self, t: u64, kek: &Secret<32>) -> Result<()>;
    /// Overwrites every other one, also one that was being written.
    fn erase_all_but(&self, t: u64) -> Result<()>;
}

/// The home of a state folder; `wish`: of one that is new.
///
/// # Errors
/// [`Error::KekElsewhere`] where a folder keeps its key somewhere else already; [`Error::Tpm`].
pub(crate) fn open(keks: &Folder, vault: VaultId, wish: Wish) -> Result<Box<dyn Home>> {
    let files = Files::new(keks.again());
    let found = Tpm::found(keks, vault)?;
    let fits = |tpm: &Tpm| match wish {
        Wish::AsItIs | Wish::Tpm(None) => true,
        Wish::File => false,
        Wish::Tpm(Some(nv_index)) => tpm.is() == KekHome::Tpm { nv_index },
    };
    match (found, wish) {
        (Some(tpm), _) if fits(&tpm) => Ok(Box::new(tpm)),
        (Some(tpm), _) => Err(Error::KekElsewhere(tpm.is())),
        (None, Wish::Tpm(_)) if !files.numbers()?.is_empty() => Err(Error::KekElsewhere(files.is())),
        (None, Wish::Tpm(index)) => Ok(Box::new(Tpm::choose(keks, vault, index)?)),
        (None, _) => Ok(Box::new(files)),
    }
}

/// Which home a folder has, without asking that.
///
/// # Errors
/// [`Error::Damaged`], [`Error::Io`].
pub(crate) fn which(keks: &Folder, vault: VaultId) -> Result<KekHome> {
    Ok(Tpm::found(keks, vault)?.map_or(KekHome::File, |tpm| tpm.is()))
}
