//! The state that follows the newest one, for each operation.

use runvault_crypto::secrets::Secret;
use runvault_format::custody_state::{GatewayEntry, State, Status, Until};
use runvault_format::ids::IdentityId;
use runvault_format::public_key::PublicKey;

use crate::Result;
use crate::chain::Chain;
use crate::epochs::NewEpoch;

/// The newest state under the next line's number.
fn next(chain: &Chain) -> State {
    State { n: chain.head().n.saturating_add(1), ..chain.state().clone() }
}

/// Nothing changes but what the line says.
pub(crate) fn unchanged(chain: &Chain) -> State {
    next(chain)
}

/// One more gateway, under a label that no other has.
pub(crate) fn with_gateway(chain: &Chain, gateway: &PublicKey) -> State {
    let mut state = next(chain);
    let taken = |label: &str| state.gateways.iter().any(|g| g.label == label);
    let numbered = (2..).map(|n: u32| format!("{}-{n}", gateway.label));
    let label = std::iter::once(gateway.label.clone()).chain(numbered).find(|label| !taken(label));
    state.gateways.push(GatewayEntry {
        id: gateway.id,
        label: label.unwrap_or_else(|| gateway.label.clone()),
        sign: gateway.sign,
        until: None,
    });
    state
}

/// The end of a gateway's chains: its last run and its last seal that count.
pub(crate) fn without_gateway(chain: &Chain, gateway: &IdentityId, until: &Until) -> State {
    let mut state = next(chain);
    state.gateways.iter_mut().filter(|g| g.id == *gateway).for_each(|g| g.until = Some(until.clone()));
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
