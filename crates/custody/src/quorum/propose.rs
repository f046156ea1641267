//! A request for the newest state, and the key of the one who will execute it.

use runvault_crypto::random;
use runvault_format::custody_state::GatewayEntry;
use runvault_format::ids::Salt;
use runvault_format::operation::Operation;
use runvault_format::request::{Executor, Request};

use super::request_file::RequestFile;
use crate::chain::Chain;
use crate::identity::Identity;
use crate::{Result, clock, next_state};

/// Makes a request that can be executed for `seconds` from now on. `gateways` is what it says of them, where it says
/// anything. Released shares are sealed to the identity that comes with it, which signs the line.
///
/// # Errors
/// [`crate::Error::BadRequest`] with what does not fit the newest state.
pub fn propose(
    chain: &Chain,
    op: Operation,
    gateways: Option<&[GatewayEntry]>,
    reason: &str,
    seconds: u64,
) -> Result<(RequestFile, Identity)> {
    let mut executor = Identity::generate("executor")?;
    executor.vault = Some(chain.vault_id());
    let request = request(chain, op, gateways, &executor, reason, seconds)?;
    Ok((RequestFile { request, before: chain.state().clone() }, executor))
}

/// The request alone.
pub(crate) fn request(
    chain: &Chain,
    op: Operation,
    gateways: Option<&[GatewayEntry]>,
    executor: &Identity,
    reason: &str,
    seconds: u64,
) -> Result<Request> {
    let keys = executor.public();
    let mut nonce = Salt([0; 16]);
    random::fill(&mut nonce.0)?;
    let state = next_state::outline(chain.state(), &op, gateways)
        .map_err(|why| crate::Error::BadRequest { why: why.to_string() })?;
    Ok(Request {
        vault: chain.vault_id(),
        head: chain.head(),
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
