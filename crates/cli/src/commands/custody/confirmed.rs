//! Whether enough custodians have seen their shares open before a new vault key depends on them.

use std::sync::Arc;

use anyhow::Result;
use runvault_custody::chain::Chain;
use runvault_custody::confirm::drills;
use runvault_format::operation::{KeyChange, Operation};
use runvault_store::backend::Dir;

use crate::exit::{Exit, refuse_with};

/// A new key that several have to open together is made for custodians of whom a quorum has done the drill: a key file
/// that is lost or garbled would be found out when it is too late.
///
/// # Errors
/// Exit 1: too few have, and nobody said `--unconfirmed`.
pub fn enough(root: &Arc<dyn Dir>, chain: &Chain, op: &Operation, unconfirmed: bool) -> Result<()> {
    let quorum = match op {
        Operation::ChangeQuorum { quorum } => u32::from(*quorum),
        _ => chain.quorum().0,
    };
    if unconfirmed || quorum < 2 || op.key_change() != KeyChange::New {
        return Ok(());
    }
    let stays = |id| !matches!(op, Operation::RemoveCustodian { custodian } if *custodian == id);
    let drills = drills(root, chain)?;
    let there = drills.iter().filter(|drill| stays(drill.custodian) && drill.confirmed.is_some()).count();
    if there >= quorum as usize {
        return Ok(());
    }
    Err(refuse_with(
        Exit::Failed,
        format!(
            "{there} of the {quorum} custodians that the new vault key will need have seen their shares open"
        ),
        "each of them does: runvault custody confirm STORE --identity KEY. Whoever is sure all the same: --unconfirmed",
    ))
}
