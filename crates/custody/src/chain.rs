//! The chain of custody, verified from the genesis on.

use std::sync::Arc;

use runvault_format::ids::{IdentityId, VaultId};
use runvault_store::backend::Dir;

use crate::Result;

/// A chain whose every line and state was verified.
#[derive(Clone, Debug)]
pub struct Chain {}

/// The last line: its number (0: the genesis alone) and SHA-256 (the vault id for 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Head {
    pub n: u64,
    pub hash: [u8; 32],
}

#[allow(unused_variables, missing_docs)]
impl Chain {
    /// Reads custody/ and verifies everything from the genesis on.
    ///
    /// # Errors
    /// [`crate::Error::NotAVault`], [`crate::Error::KilledInit`], [`crate::Error::UnknownVersion`],
    /// [`crate::Error::ChainBroken`] with the line, [`crate::Error::Damaged`].
    pub fn load(root: &Arc<dyn Dir>) -> Result<Chain> {
        todo!()
    }
    pub fn vault_id(&self) -> VaultId {
        todo!()
    }
    /// Twelve words of the vault id, separated by spaces.
    pub fn words(&self) -> String {
        todo!()
    }
    pub fn head(&self) -> Head {
        todo!()
    }
    /// Number of the newest epoch.
    pub fn epoch(&self) -> u32 {
        todo!()
    }
    /// m, and how many custodians there are.
    pub fn quorum(&self) -> (u32, usize) {
        todo!()
    }
    /// Label and id of each custodian.
    pub fn custodians(&self) -> Vec<(String, IdentityId)> {
        todo!()
    }
    /// Label and id of each enrolled gateway.
    pub fn gateways(&self) -> Vec<(String, IdentityId)> {
        todo!()
    }
    /// Label and id of each reader.
    pub fn readers(&self) -> Vec<(String, IdentityId)> {
        todo!()
    }
}
