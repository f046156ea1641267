//! One act of a single owner: proposed, approved and executed at once.

use std::sync::Arc;
use std::time::Duration;

use runvault_crypto::secrets::Secret;
use runvault_format::audit_entry::{Executed, Line, Outcome};
use runvault_format::custody_state::State;
use runvault_format::envelope_file;
use runvault_format::info::{Purpose, Recipient, Scope, info};
use runvault_format::operation::Operation;
use runvault_format::request::Approval;
use runvault_store::backend::Dir;

use crate::chain::Chain;
use crate::commit::commit;
use crate::epochs::require_quorum_of_one;
use crate::identity::Identity;
use crate::quorum::propose;
use crate::{Error, Result};

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
    let mut chain = chain.clone();
    for attempt in 0..ATTEMPTS {
        std::thread::sleep(WAIT * attempt);
        chain = chain.continued(root)?.unwrap_or(chain);
        require_quorum_of_one(&chain, "execute this")?;
        let Some(act) = act(&chain)? else { return Ok(chain) };
        let line = line(&chain, owner, &act)?;
        if let Some(done) = commit(root, &chain, &line, act.state)? {
            return Ok(done);
        }
    }
    Err(Error::ChangedMeanwhile)
}

/// The audit line: a request under a fresh executor key, the owner's approval, the executor's signature.
fn line(chain: &Chain, owner: &Identity, act: &Act) -> Result<Line> {
    let (executor, head) = (Identity::generate("executor")?, chain.head());
    let gateways = Some(act.state.gateways.as_slice());
    let request = propose::request(chain, act.op.clone(), gateways, &executor, act.reason, EXPIRES_SECONDS)?;
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
        time: request.created.clone(),
        request,
        result: Outcome { state: Some(act.state.hash()?), runs: Vec::new() },
        heads: Vec::new(),
        approvals: vec![approval],
    };
    Ok(executed.sign(&executor.keys.sign)?)
}
