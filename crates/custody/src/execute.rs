//! One act of a single owner: proposed, approved and executed at once.
//!
//! Order: the line and its state are claimed as one file, which is the commit; then the state is copied to
//! its place, then the line to the log, which is replaced whole by one rename, so it never ends in half a
//! line. Whoever finds the place taken finishes what is there and follows it with another line.

use std::sync::Arc;
use std::time::Duration;

use runvault_crypto::random;
use runvault_crypto::secrets::Secret;
use runvault_format::audit_entry::{Executed, Line, Outcome};
use runvault_format::custody_state::State;
use runvault_format::envelope_file;
use runvault_format::ids::Salt;
use runvault_format::info::{Purpose, Recipient, Scope, info};
use runvault_format::request::{Approval, Executor, Operation, Request};
use runvault_store::backend::Dir;

use crate::chain::Chain;
use crate::claim::{self, Claim};
use crate::epochs::require_quorum_of_one;
use crate::identity::Identity;
use crate::{Error, Result, clock, layout};

/// How long an act may take between its request and its line.
const EXPIRES_SECONDS: u64 = 3600;
/// How often another's line may come first.
const ATTEMPTS: u32 = 40;
/// Each wait is longer by so much than the one before.
const WAIT: Duration = Duration::from_millis(5);

/// What is done, why, and what the custody state is then.
pub(crate) struct Act<'a> {
    pub(crate) op: Operation,
    pub(crate) reason: &'a str,
    /// The vault key, for operations that release shares.
    pub(crate) share: Option<&'a Secret<32>>,
    pub(crate) state: State,
}

/// Executes what `act` makes of the newest chain, and gives the chain with its line, read back from the
/// store. `act` is asked anew when another's line came first; `None`: nothing is to be done any more.
///
/// # Errors
/// [`Error::Forked`] if the store's chain does not go on from this one; [`Error::ChangedMeanwhile`] where
/// others were first again and again; the store's.
pub(crate) fn execute<'a>(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    owner: &Identity,
    mut act: impl FnMut(&Chain) -> Result<Option<Act<'a>>>,
) -> Result<Chain> {
    let custody = layout::custody_dir(root)?;
    let mut chain = chain.clone();
    for attempt in 0..ATTEMPTS {
        std::thread::sleep(WAIT * attempt);
        chain = chain.continued(root)?.unwrap_or(chain);
        require_quorum_of_one(&chain, "execute this")?;
        let Some(act) = act(&chain)? else { return Ok(chain) };
        if let Some(next) = try_claim(&custody, &chain, owner, act)? {
            claim::finish(&custody, &next)?;
            claim::tidy(&custody, next.head().n)?;
            return read_back(root, &next);
        }
    }
    Err(Error::ChangedMeanwhile)
}

/// The chain with the act's line; `None`: another has claimed that line.
fn try_claim(custody: &Arc<dyn Dir>, chain: &Chain, owner: &Identity, act: Act) -> Result<Option<Chain>> {
    let (line, text) = line(chain, owner, &act)?;
    let claim = Claim::new(&text, &act.state.to_text()?);
    // What is written is what was verified: by the very code that will read it.
    let mut next = chain.clone();
    next.append(&line, claim.line(), Some(act.state))?;
    Ok(claim::put(custody, next.head().n, &claim)?.then_some(next))
}

/// The store's chain, which has our line and perhaps more by now.
fn read_back(root: &Arc<dyn Dir>, next: &Chain) -> Result<Chain> {
    let (stored, head) = (Chain::load(root)?, next.head());
    match stored.line_hash(head.n) {
        Some(hash) if hash == head.hash => Ok(stored),
        _ => Err(Error::Forked { line: head.n }),
    }
}

/// The audit line and its text: a request under a fresh executor key, the owner's approval, the
/// executor's signature.
fn line(chain: &Chain, owner: &Identity, act: &Act) -> Result<(Line, String)> {
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
