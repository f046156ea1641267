//! fuser's calls to the engine. Never knows: keys, chunk size, store layout, instruments.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runvault_vault::Vault;

/// How a vault is mounted.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Shown as the source in /proc/mounts.
    pub source: String,
    /// Other users may use it (needs root or `user_allow_other`).
    pub allow_other: bool,
    /// Kernel mount options to pass on (`noatime`, `noexec`, ...), checked by the caller.
    pub options: Vec<String>,
    /// Session threads.
    pub threads: usize,
    /// The store is local: close() needs no FLUSH.
    pub local_store: bool,
    /// A request that the store has not answered for so long gets EIO.
    pub stuck_after: Duration,
}

/// What can go wrong with the mount itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel or fusermount3 refused.
    #[error("mount: {0}")]
    Mount(std::io::Error),
}

/// A live mount.
pub struct Session {}

#[allow(unused_variables, missing_docs)]
impl Session {
    /// Mounts and answers in threads of its own; the mount answers when this returns.
    ///
    /// # Errors
    /// [`Error::Mount`].
    pub fn mount(vault: Arc<Vault>, at: &Path, options: &MountOptions) -> Result<Session, Error> {
        todo!()
    }
    /// Blocks until it was unmounted from outside or by [`Session::unmount`].
    pub fn wait(&self) {
        todo!()
    }
    /// Unmounts (lazily if busy) and waits for requests under way. The vault is closed by the caller.
    pub fn unmount(&self) {
        todo!()
    }
}
