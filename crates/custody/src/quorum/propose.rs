//! A request for the newest state, and the key of the one who will execute it.

use runvault_crypto::random;
use runvault_format::ids::Salt;
use runvault_format::operation::Operation;
use runvault_format::request::{Executor, Request};

use super::request_file::RequestFile;
use crate::chain::Chain;
use crate::identity::Identity;
use crate::{Error, Result, clock};

/// Makes a request that can be executed for `seconds` from now on. Released shares are sealed to the identity that
/// comes with it, which signs the line.
///
/// # Errors
/// [`Error::CannotBe`] with what does not fit the newest state.
pub fn propose(chain: &Chain, op: Operation, reason: &str, seconds: u64) -> Result<(RequestFile, Identity)> {
    let mut executor = Identity::generate("executor")?;
    executor.vault = Some(chain.vault_id());
    let request = request(chain, op, &executor, reason, seconds)?;
    Ok((RequestFile { request, before: chain.state().clone(), signed: Vec::new() }, executor))
}

/// The request alone.
pub(crate) fn request(
    chain: &Chain,
    op: Operation,
    executor: &Identity,
    reason: &str,
    seconds: u64,
) -> Result<Request> {
    let keys = executor.public();
    let mut nonce = Salt([0; 16]);
    random::fill(&mut nonce.0)?;
    let cannot = |why: runvault_format::Error| Error::CannotBe {
        why: match why {
            runvault_format::Error::Chain(why) => why.to_owned(),
            why => why.to_string(),
        },
    };
    let state = op.outline(chain.state()).map_err(cannot)?;
    Ok(Request {
        vault: chain.vault_id(),
        head: chain.head(),
        before: chain.state_ref().hash,
        releases_share: op.releases_share(),
        op,
        reason: reason.to_owned(),
        executor: Executor { kem: keys.kem, sign: keys.sign },
        created: clock::now(),
        expires: clock::in_seconds(seconds),
        nonce,
        state: Some(state),
    })
}
