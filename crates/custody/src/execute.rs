//! One act of a single owner: proposed, approved and executed at once.
//!
//! Order: what a killed execute left is removed, `state-<n>` is written and synced, then the line.
//! The line is the commit. The log is replaced whole by one rename, so it never ends in half a line.
//! Every command compares the chain with its pin first; so a state above the chain's end is never one
//! that this machine has seen a line for, and may go.

use std::sync::Arc;

use runvault_crypto::random;
use runvault_crypto::secrets::Secret;
use runvault_format::audit_entry::{Executed, Outcome};
use runvault_format::custody_state::State;
use runvault_format::envelope_file;
use runvault_format::ids::Salt;
use runvault_format::info::{Purpose, Recipient, Scope, info};
use runvault_format::request::{Approval, Executor, Operation, Request};
use runvault_store::backend::Dir;
use runvault_store::replace::{TEMPORARY, replace};

use crate::chain::Chain;
use crate::epochs::require_quorum_of_one;
use crate::identity::Identity;
use crate::layout::{self, AUDIT_LOG, PUBLIC_MODE};
use crate::{Error, Result, clock};

/// How long an act may take between its request and its line.
const EXPIRES_SECONDS: u64 = 3600;

/// What is done, why, and what the custody state is then.
pub(crate) struct Act<'a> {
    pub(crate) op: Operation,
    pub(crate) reason: &'a str,
    /// The vault key, for operations that release shares.
    pub(crate) share: Option<&'a Secret<32>>,
    pub(crate) state: State,
}

/// Executes the act on the chain as it was loaded, and gives the chain with its line.
///
/// # Errors
/// [`Error::ChangedMeanwhile`] if the store's chain is another one by now; the store's.
pub(crate) fn execute(root: &Arc<dyn Dir>, chain: &Chain, owner: &Identity, act: Act) -> Result<Chain> {
    require_quorum_of_one(chain, "execute this")?;
    let custody = layout::custody_dir(root)?;
    check_unchanged(&custody, chain)?;
    let line = line(chain, owner, &act)?;
    // What is written is what was verified: by the very code that will read it.
    let mut next = chain.clone();
    let state_text = act.state.to_text()?;
    let name = layout::state_name(act.state.n);
    next.append(&line.0, line.1.as_bytes(), Some(act.state))?;
    remove_leftovers(&custody, chain)?;
    replace(&*custody, name.as_bytes(), state_text.as_bytes(), PUBLIC_MODE)
        .map_err(|e| Error::io("write", format!("custody/{name}"), e))?;
    // Directories have no lock that works everywhere: two owners' commands at the same moment are
    // told apart here but for this instant; the loser's line is then missed by its own pin.
    check_unchanged(&custody, chain)?;
    replace(&*custody, AUDIT_LOG.as_bytes(), next.log(), PUBLIC_MODE)
        .map_err(|e| Error::io("write", "custody/audit.log", e))?;
    let stored = Chain::load(root)?;
    if stored.head() == next.head() { Ok(stored) } else { Err(Error::ChangedMeanwhile) }
}

fn check_unchanged(custody: &Arc<dyn Dir>, chain: &Chain) -> Result<()> {
    let log = layout::read(custody, AUDIT_LOG, "custody/audit.log", layout::LOG_MAX)?;
    if log == chain.log() { Ok(()) } else { Err(Error::ChangedMeanwhile) }
}

/// The audit line and its text: a request under a fresh executor key, the owner's approval, the
/// executor's signature.
fn line(chain: &Chain, owner: &Identity, act: &Act) -> Result<(runvault_format::audit_entry::Line, String)> {
    let executor = Identity::generate("executor")?;
    let keys = executor.public();
    let mut nonce = Salt([0; 16]);
    random::fill(&mut nonce.0)?;
    let (created, head) = (clock::now(), chain.head());
    let request = Request {
        vault: chain.vault_id(),
        head,
        op: act.op.clone(),
        reason: act.reason.to_owned(),
        releases_share: act.op.releases_share(),
        executor: Executor { kem: keys.kem, sign: keys.sign },
        created: created.clone(),
        expires: clock::in_seconds(EXPIRES_SECONDS),
        nonce,
        state: Some(act.state.outline()),
    };
    let hash = request.hash()?;
    let envelope = match act.share {
        Some(share) => {
            let to = Recipient::Identity(executor.id());
            let text = info(Purpose::Approval, &chain.vault_id(), &Scope::Request(hash), &to);
            Some(envelope_file::seal(&request.executor.kem, &text, share.expose())?)
        }
        None => None,
    };
    let approval = Approval::sign(owner.id(), &owner.keys.sign, &hash, envelope.as_deref());
    let executed = Executed {
        n: head.n.saturating_add(1),
        prev: head.hash,
        time: created,
        request,
        result: Outcome { state: Some(act.state.hash()?), runs: Vec::new() },
        heads: Vec::new(),
        approvals: vec![approval],
    };
    let line = executed.sign(&executor.keys.sign)?;
    let text = line.to_line()?;
    Ok((line, text))
}

/// States above the chain's end, and temporaries: an execute was killed before its line. Its executor
/// key is gone with it, so nothing can adopt them.
fn remove_leftovers(custody: &Arc<dyn Dir>, chain: &Chain) -> Result<()> {
    let end = chain.head().n;
    for name in layout::names(custody, "custody")? {
        let state =
            std::str::from_utf8(&name).ok().and_then(|n| n.strip_prefix("state-")?.parse::<u64>().ok());
        if name.starts_with(TEMPORARY) || state.is_some_and(|n| n > end) {
            custody
                .unlink(&name)
                .map_err(|e| Error::io("remove", format!("custody/{}", String::from_utf8_lossy(&name)), e))?;
        }
    }
    Ok(())
}
