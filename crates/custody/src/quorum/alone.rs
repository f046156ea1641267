//! With one custodian of one the three steps are one.

use std::sync::Arc;

use runvault_format::operation::Operation;
use runvault_store::backend::Dir;

use super::approve::approve;
use super::carry_out::carry_out;
use super::execute::{Done, execute};
use super::propose::propose;
use crate::chain::Chain;
use crate::epochs::require_quorum_of_one;
use crate::identity::Identity;
use crate::rotate::RotateSummary;
use crate::{Error, Result};

/// Seconds from the request to its line.
const EXPIRES: u64 = 3600;

/// Proposes, approves, executes and carries out. `progress` gets runs done and runs in all.
///
/// # Errors
/// [`Error::NeedsQuorum`], [`Error::LockInStore`], [`Error::WrongKey`], [`Error::OtherVault`], [`Error::BadRequest`];
/// [`Error::ChangedMeanwhile`] where someone else was first; the store's.
pub fn act(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    owner: &Identity,
    op: Operation,
    reason: &str,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Chain, RotateSummary)> {
    let (done, op) = decide(root, chain, owner, op, reason)?;
    let chain = done.chain.clone();
    Ok((chain, carry_out(root, done, &op, progress)?))
}

/// [`act`] up to its line: what it says is not carried out yet.
pub(super) fn decide(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    owner: &Identity,
    op: Operation,
    reason: &str,
) -> Result<(Done, Operation)> {
    require_quorum_of_one(chain, "do this")?;
    let (file, executor) = propose(chain, op, reason, EXPIRES)?;
    let (approval, _) = approve(&file, owner, None, false)?;
    let done = execute(root, chain, &file, &executor, &[approval], false).map_err(|error| match error {
        Error::Overtaken { .. } => Error::ChangedMeanwhile,
        error => error,
    })?;
    Ok((done, file.request.op))
}
