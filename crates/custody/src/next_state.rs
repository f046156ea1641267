//! The state that follows the newest one, for each operation.

use runvault_crypto::secrets::Secret;
use runvault_format::custody_state::{GatewayEntry, State, Status};

use crate::Result;
use crate::chain::Chain;
use crate::epochs::NewEpoch;
use crate::identity::Identity;

/// The newest state under the next line's number.
fn next(chain: &Chain) -> State {
    State { n: chain.head().n.saturating_add(1), ..chain.state().clone() }
}

/// One more gateway.
pub(crate) fn with_gateway(chain: &Chain, gateway: &Identity) -> State {
    let mut state = next(chain);
    state.gateways.push(GatewayEntry {
        id: gateway.id(),
        label: gateway.label.clone(),
        sign: gateway.public().sign,
        until: None,
    });
    state
}

/// One more epoch; the one before is kept in the keyring, its shares are not.
pub(crate) fn with_epoch(chain: &Chain, new: &NewEpoch, older: &Secret<32>) -> Result<State> {
    let mut state = next(chain);
    for epoch in &mut state.epochs {
        epoch.status = Status::Kept;
        epoch.shares.clear();
    }
    let e = chain.epoch().saturating_add(1);
    let epoch = new.following(&state.vault, state.n, e, &state.custodians, older)?;
    state.epochs.push(epoch);
    Ok(state)
}
