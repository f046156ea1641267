//! The state that follows the newest one, for each operation.

use runvault_crypto::secrets::Secret;
use runvault_format::custody_state::{GatewayEntry, Outline, State, Status, Until};
use runvault_format::ids::IdentityId;
use runvault_format::operation::{KeyChange, Operation};
use runvault_format::public_key::PublicKey;

use crate::Result;
use crate::chain::Chain;
use crate::epochs::SharedKey;
use crate::settle::Newest;

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
pub(crate) fn without_gateway(chain: &Chain, gateway: &IdentityId, last: Newest) -> State {
    let mut state = next(chain);
    let until = Until {
        seq: last.run.map_or(0, |run| run.seq),
        hash: last.run.map(|run| run.hash),
        seals: last.seal.map_or(0, |seal| seal.n),
        seals_hash: last.seal.map(|seal| seal.hash),
    };
    state.gateways.iter_mut().filter(|g| g.id == *gateway).for_each(|g| g.until = Some(until.clone()));
    state
}

/// Who there is after an operation: what its request says of the next state.
///
/// # Errors
/// [`runvault_format::Error::Chain`] with what does not fit.
pub(crate) fn outline(
    before: &State,
    op: &Operation,
    gateways: Option<&[GatewayEntry]>,
) -> runvault_format::Result<Outline> {
    let mut outline = op.apply(before)?.outline();
    if let Some(gateways) = gateways {
        outline.gateways = gateways.to_vec();
    }
    if op.key_change() == KeyChange::New {
        outline.epoch = outline.epoch.saturating_add(1);
    }
    Ok(outline)
}

/// What an operation makes of a state. `gateways` is what it says of them, where it says anything; `newest` the vault
/// key, for operations that share it anew or replace it.
pub(crate) fn of(
    before: &State,
    op: &Operation,
    gateways: Option<&[GatewayEntry]>,
    newest: Option<&Secret<32>>,
) -> Result<State> {
    let mut state = op.apply(before)?;
    if let Some(gateways) = gateways {
        state.gateways = gateways.to_vec();
    }
    let newest = || newest.ok_or(runvault_format::Error::Share);
    match op.key_change() {
        KeyChange::None => {}
        KeyChange::Split => share_anew(&mut state, newest()?)?,
        KeyChange::New => with_epoch(&mut state, newest()?)?,
    }
    Ok(state)
}

/// Other shares of the same key.
fn share_anew(state: &mut State, key: &Secret<32>) -> Result<()> {
    let shared = SharedKey::of(key.clone(), state.quorum, &state.custodians)?;
    let (vault, n) = (state.vault, state.n);
    if let Some(epoch) = state.epochs.last_mut() {
        epoch.made = n;
        epoch.shares = shared.shares(&vault, n, epoch.e, &state.custodians)?;
    }
    Ok(())
}

/// One more epoch; the one before is kept in the keyring, its shares are not.
fn with_epoch(state: &mut State, older: &Secret<32>) -> Result<()> {
    for epoch in &mut state.epochs {
        epoch.status = Status::Kept;
        epoch.shares.clear();
    }
    let e = state.current()?.e.saturating_add(1);
    let new = SharedKey::draw(state.quorum, &state.custodians)?;
    let epoch = new.following(&state.vault, state.n, e, &state.custodians, older)?;
    state.epochs.push(epoch);
    Ok(())
}
