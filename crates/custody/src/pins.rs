//! What this machine has seen of a vault's chain, so that less, or another one, is refused.

use std::path::Path;
use std::sync::Arc;

use runvault_store::backend::Dir;

use crate::Result;
use crate::chain::Chain;

/// Compares the chain with the pin in `<state_dir>/<vault id>/pins` and advances it; makes the
/// first one. Every command that loaded a chain calls this. Takes no lasting lock.
///
/// # Errors
/// [`crate::Error::CutShort`], [`crate::Error::RolledBack`], [`crate::Error::Forked`];
/// [`crate::Error::Io`] where the folder cannot be written.
#[allow(unused_variables)]
pub fn check_and_advance(state_dir: &Path, root: &Arc<dyn Dir>, chain: &Chain) -> Result<()> {
    todo!()
}
