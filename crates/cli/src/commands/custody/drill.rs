//! How the drill is done, and that it is due after an act.

use anyhow::Result;
use runvault_custody::confirm::drills;
use runvault_custody::locks;
use runvault_format::operation::{KeyChange, Operation};

use crate::output;
use crate::store::Store;

/// By which command: by one owner with a copy of the key file, where that is in the store (`key_in_store`).
pub fn command(store: &Store, key_in_store: bool) -> String {
    let path = store.typed();
    match key_in_store && store.acts().alone() {
        true => {
            format!(
                "runvault key export {path} --out FILE, then runvault custody confirm {path} --identity FILE"
            )
        }
        false => format!("runvault custody confirm {path} --identity KEY"),
    }
}

/// [`tell_due`] after an act that made new shares.
///
/// # Errors
/// Output.
pub fn tell_due_after(op: &Operation, store: &Store) -> Result<()> {
    if op.key_change() == KeyChange::None { Ok(()) } else { tell_due(store) }
}

/// Says that it is due where a custodian has not seen the newest share open.
///
/// # Errors
/// Output.
pub fn tell_due(store: &Store) -> Result<()> {
    // The act is done, whatever else is wrong in custody/: `custody list` names that.
    let (Ok(drills), Ok(key_in_store)) = (drills(&store.root, &store.chain), locks::are_there(&store.root))
    else {
        return Ok(());
    };
    if drills.iter().all(|drill| drill.confirmed.is_some()) {
        return Ok(());
    }
    let command = command(store, key_in_store);
    output::line(&format!(
        "\nOnly custody/ has the new shares until each custodian does the drill, now: {command}"
    ))
}
