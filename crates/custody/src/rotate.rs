//! A new epoch: a new vault key, every run sealed to it, the old envelopes removed.

use std::sync::Arc;

use runvault_format::ids::RunId;
use runvault_store::backend::Dir;

use crate::Result;
use crate::chain::Chain;
use crate::identity::Identity;

/// What a rotation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RotateSummary {
    /// The epoch that runs are sealed to now.
    pub epoch: u32,
    /// No new epoch was made: this finished a rotation that had been interrupted.
    pub resumed: bool,
    /// Runs that got an envelope to it.
    pub rotated: u64,
    /// Runs that had one already.
    pub already: u64,
    /// Runs left as they were, and why: damaged, or no envelope opens.
    pub failed: Vec<(RunId, String)>,
}

/// Rotates, or finishes a rotation that was interrupted. `progress` gets runs done and runs in all.
/// A kill at any point leaves every run readable; calling it again continues.
///
/// # Errors
/// [`crate::Error::WrongKey`], [`crate::Error::NeedsQuorum`], [`crate::Error::ChangedMeanwhile`].
#[allow(unused_variables)]
pub fn rotate(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    owner: &Identity,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RotateSummary> {
    todo!()
}
