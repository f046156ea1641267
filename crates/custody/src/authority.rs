//! The verified chain with the keys that the acting identity opened: what the engine asks.

use std::sync::Arc;

use runvault_store::backend::Dir;
use runvault_vault::authority::Authority;

use crate::Result;
use crate::chain::Chain;
use crate::identity::Identity;

/// Who acts on a vault.
pub struct Acting {}

#[allow(unused_variables)]
impl Acting {
    /// A custodian of a 1-of-1 vault, or a reader.
    ///
    /// # Errors
    /// [`crate::Error::WrongKey`], [`crate::Error::OtherVault`], [`crate::Error::NeedsQuorum`].
    pub fn open(chain: Chain, identity: &Identity, root: &Arc<dyn Dir>) -> Result<Arc<dyn Authority>> {
        todo!()
    }

    /// No reader's key: verifies, seals new runs, opens none.
    pub fn gateway_only(chain: Chain) -> Arc<dyn Authority> {
        todo!()
    }
}
