//! What this machine has seen of a vault's chain, so that less, or another one, is refused.

use std::path::Path;
use std::sync::Arc;

use runvault_format::ids::VaultId;
use runvault_store::backend::Dir;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::chain::{Chain, Head};
use crate::layout;
use crate::state_folder::Folder;
use crate::{Error, Result};

const PINS: &str = "pins";
const PINS_LOCK: &str = "pins.lock";

/// The file `pins`, one line of JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pins {
    vault: VaultId,
    head: Head,
}

/// Compares the chain with the pin in `<state_dir>/<vault id>/pins` and advances it; makes the
/// first one. Every command that loaded a chain calls this. Takes no lasting lock.
///
/// # Errors
/// [`Error::CutShort`], [`Error::RolledBack`], [`Error::Forked`]; [`Error::Damaged`] for a pin that
/// does not parse; [`Error::Io`] where the folder cannot be written.
pub fn check_and_advance(state_dir: &Path, root: &Arc<dyn Dir>, chain: &Chain) -> Result<()> {
    let folder = Folder::open(state_dir, &chain.vault_id())?;
    // Two commands that advance at once must not leave the lower pin.
    let _lock = lock(state_dir, chain, &folder)?;
    advance(&folder, root, chain)
}

fn lock(state_dir: &Path, chain: &Chain, folder: &Folder) -> Result<std::fs::File> {
    let shown = || folder.shown(PINS_LOCK);
    let path = state_dir.join(chain.vault_id().to_string()).join(PINS_LOCK);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| Error::io("open", shown(), e))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)
        .map_err(|e| Error::io("lock", shown(), e.into()))?;
    Ok(file)
}

pub(crate) fn advance(folder: &Folder, root: &Arc<dyn Dir>, chain: &Chain) -> Result<()> {
    let pinned = read(folder, chain)?;
    if let Some(pinned) = &pinned {
        compare(pinned, root, chain)?;
    }
    let head = chain.head();
    if pinned.is_some_and(|p| p.n == head.n) {
        return Ok(());
    }
    let pins = Pins { vault: chain.vault_id(), head };
    let mut text = serde_json::to_vec(&pins)
        .map_err(|e| Error::Damaged { object: folder.shown(PINS), why: e.to_string() })?;
    text.push(b'\n');
    folder.write(PINS, &text)
}

fn read(folder: &Folder, chain: &Chain) -> Result<Option<Head>> {
    let Some(bytes) = folder.read(PINS)? else { return Ok(None) };
    let damaged = |why: String| Error::Damaged { object: folder.shown(PINS), why };
    let pins: Pins = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    if pins.vault != chain.vault_id() {
        return Err(damaged(format!("of another vault, {}", pins.vault)));
    }
    Ok(Some(pins.head))
}

/// The pinned line must be part of the chain.
fn compare(pinned: &Head, root: &Arc<dyn Dir>, chain: &Chain) -> Result<()> {
    let found = chain.head().n;
    match chain.line_hash(pinned.n) {
        Some(hash) if hash == pinned.hash => Ok(()),
        Some(_) => Err(Error::Forked { line: pinned.n }),
        None if later_state_exists(root, pinned.n)? => Err(Error::CutShort { pinned: pinned.n, found }),
        None => Err(Error::RolledBack { pinned: pinned.n, found }),
    }
}

/// A log that was cut leaves its states behind; a copy restored from a backup has neither.
fn later_state_exists(root: &Arc<dyn Dir>, n: u64) -> Result<bool> {
    layout::exists(&layout::custody_dir(root)?, &layout::state_name(n), "custody/")
}
