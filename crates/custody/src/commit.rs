//! How a line comes into the chain.
//!
//! Order: the line and its state are claimed as one file, which is the commit; then the state is copied to
//! its place, then the line to the log, which is replaced whole by one rename, so it never ends in half a
//! line. Whoever finds the place taken finishes what is there and follows it with another line.

use std::sync::Arc;

use runvault_format::audit_entry::Line;
use runvault_format::custody_state::State;
use runvault_store::backend::Dir;

use crate::chain::Chain;
use crate::claim::{self, Claim};
use crate::{Error, Result, layout};

/// The chain with the line, read back from the store; `None`: another has claimed that line.
pub(crate) fn commit(root: &Arc<dyn Dir>, chain: &Chain, line: &Line, state: State) -> Result<Option<Chain>> {
    let custody = layout::custody_dir(root)?;
    let claim = Claim::new(&line.to_line()?, &state.to_text()?);
    // What is written is what was verified: by the very code that will read it.
    let mut next = chain.clone();
    next.append(line, claim.line(), Some(state))?;
    if !claim::put(&custody, next.head().n, &claim)? {
        return Ok(None);
    }
    claim::finish(&custody, &next)?;
    claim::tidy(&custody, next.head().n)?;
    read_back(root, &next).map(Some)
}

/// The store's chain, which has our line and perhaps more by now.
fn read_back(root: &Arc<dyn Dir>, next: &Chain) -> Result<Chain> {
    let (stored, head) = (Chain::load(root)?, next.head());
    match stored.line_hash(head.n) {
        Some(hash) if hash == head.hash => Ok(stored),
        _ => Err(Error::Forked { line: head.n }),
    }
}
