//! The state that follows the newest one, for each operation.

use runvault_crypto::secrets::Secret;
use runvault_format::custody_state::{State, Status};
use runvault_format::operation::{KeyChange, Operation};

use crate::Result;
use crate::epochs::SharedKey;

/// What an operation makes of a state, and the new vault key, where it makes one. `newest` is the one before, for
/// operations that share it anew or replace it.
pub(crate) fn of(
    before: &State,
    op: &Operation,
    newest: Option<&Secret<32>>,
) -> Result<(State, Option<Secret<32>>)> {
    let mut state = op.apply(before)?;
    let newest = || newest.ok_or(runvault_format::Error::Share);
    match op.key_change() {
        KeyChange::None => Ok((state, None)),
        KeyChange::Split => {
            share_anew(&mut state, newest()?)?;
            Ok((state, None))
        }
        KeyChange::New => {
            let new = with_epoch(&mut state, newest()?)?;
            Ok((state, Some(new)))
        }
    }
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
fn with_epoch(state: &mut State, older: &Secret<32>) -> Result<Secret<32>> {
    for epoch in &mut state.epochs {
        epoch.status = Status::Kept;
        epoch.shares.clear();
    }
    let e = state.current()?.e.saturating_add(1);
    let key = Secret::random()?;
    let new = SharedKey::of(key.clone(), state.quorum, &state.custodians)?;
    let epoch = new.following(&state.vault, state.n, e, &state.custodians, older)?;
    state.epochs.push(epoch);
    Ok(key)
}
