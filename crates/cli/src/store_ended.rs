//! A store whose file system has ended under the mount: an sshfs that was killed, say. The mount's descriptors are dead
//! for good then, also when the share is mounted again in its place. The process ends once it is: whoever starts
//! services starts it anew, and its mount point lets nobody past meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::thread::{Builder, sleep};
use std::time::Duration;

use anyhow::Result;
use runvault_custody::chain::Chain;
use runvault_format::ids::VaultId;
use runvault_vault::{Error, Vault};

use crate::args::Apart;
use crate::mounted::{Ending, Failure};
use crate::output::shown;
use crate::store::open_store;

/// A call to the store each time.
const EVERY: Duration = Duration::from_secs(3);

/// Looks until the vault is closed; a disk of this machine does not end.
///
/// # Errors
/// No thread could be started.
pub fn watch(
    path: &Path,
    apart: &Apart,
    id: VaultId,
    vault: &Arc<Vault>,
    ending: &Arc<Ending>,
) -> Result<()> {
    if vault.store_is_local() {
        return Ok(());
    }
    let (path, apart) = (path.to_owned(), apart.clone());
    let (vault, ending) = (Arc::clone(vault), Arc::clone(ending));
    Builder::new().name("store-ended".into()).spawn(move || {
        let mut told = false;
        while !vault.is_closed() {
            sleep(EVERY);
            if !has_ended(&vault) {
                continue;
            }
            if !told {
                log::error!(
                    "the store's file system has ended; every request is EIO until it is mounted again at {}",
                    shown(&path)
                );
                told = true;
            }
            if is_there(&path, &apart, id) {
                ending.fail(Failure::Store);
                return;
            }
        }
    })?;
    Ok(())
}

/// What FUSE says once its program has gone. A server that is away for a while is another error, or none.
fn has_ended(vault: &Vault) -> bool {
    matches!(vault.statfs(), Err(Error::Store { source, .. }) if source.raw_os_error() == Some(libc::ENOTCONN))
}

/// Whether the vault lies there, on another file system than the one that has ended.
fn is_there(path: &Path, apart: &Apart, id: VaultId) -> bool {
    open_store(path, apart).is_ok_and(|root| Chain::load(&root).is_ok_and(|chain| chain.vault_id() == id))
}
