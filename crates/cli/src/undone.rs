//! Runs that stand where others took their places: somebody put back what was there before a re-keying.

use anyhow::{Context, Result};
use runvault_custody::authority::Acting;
use runvault_custody::rekey::{Undone, undone};
use runvault_custody::seen::Remembering;

use crate::exit::{Exit, refuse_with};
use crate::output::{count, shown};
use crate::store::Store;

/// What a person does about one.
pub const WAY_OUT: &str = "put the run that took its place back, and take this one away; where an execution was interrupted: \
     custody execute --resume; if it is lost, agree on a new key again";

/// Those of a store.
///
/// # Errors
/// The store's.
pub fn of(store: &Store) -> Result<Vec<Undone>> {
    let seen = Remembering::over(Acting::gateway_only(store.chain.clone()), &store.state);
    undone(&store.root, &store.chain, &|run| seen.seal_seen(run).is_some()).with_context(|| store.named())
}

/// Those that no seal tells: this machine has seen nothing in their places, and opens them.
///
/// # Errors
/// The store's.
pub fn unseen(store: &Store) -> Result<Vec<Undone>> {
    Ok(of(store)?.into_iter().filter(|one| one.seen.is_none()).collect())
}

/// Exit 4 where there is one.
///
/// # Errors
/// That.
pub fn end(undone: &[Undone], store: &std::path::Path) -> Result<()> {
    if undone.is_empty() {
        return Ok(());
    }
    let what = format!("{}: {} under an old key", shown(store), count(undone.len() as u64, "run"));
    Err(refuse_with(Exit::Damaged, what, WAY_OUT))
}
