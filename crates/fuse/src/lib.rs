//! fuser's calls to the engine. Never knows: keys, chunk size, store layout, instruments.
//!
//! Read it in the order in which a mount lives: [`MountOptions`] and `options` say what is asked of
//! the kernel, `mount` attaches, `session` keeps it alive, `adapter` has one short handler for each
//! kernel call, `asked`, `attributes` and `errno` translate, `watchdog` answers where the store does not,
//! `lost` tells a panic that costs a thread, `notices` tells the kernel what it did not ask for: `prune` keeps
//! it from knowing too much, `stale` from believing what is not so any more.

mod adapter;
mod asked;
mod attributes;
mod complaints;
mod errno;
mod lost;
mod mount;
mod notices;
mod options;
mod owed;
mod parked;
mod prune;
mod session;
mod stale;
mod watchdog;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use lost::loses_a_thread;
pub use options::{is_kernel_option, negotiate};
pub use session::Session;
pub use watchdog::Health;

/// How a vault is mounted.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Shown as the source in /proc/mounts.
    pub source: String,
    /// Other users may use it (needs root or `user_allow_other`).
    pub allow_other: bool,
    /// Kernel mount options to pass on (`noatime`, `noexec`, ...): those that [`is_kernel_option`]
    /// knows, anything else is [`Error::Option`]. nosuid, nodev and default_permissions are always set.
    pub options: Vec<String>,
    /// Session threads; at least 2, one of which is kept free of the store.
    pub threads: usize,
    /// The store is local: close() needs no FLUSH.
    pub local_store: bool,
    /// A request that the store has not answered for so long gets EIO. A sync may take ten times as
    /// long while the store answers otherwise.
    pub stuck_after: Duration,
    /// Nodes above which the kernel is asked to forget those that nothing uses (Linux 6.18 on).
    pub max_nodes: u64,
}

/// What can go wrong with the mount itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has no FUSE, or this machine shows no device for it.
    #[error("/dev/fuse: {0}")]
    NoDevice(io::Error),
    /// Only root mounts without it.
    #[error("fusermount3 is not installed, and only root mounts without it")]
    NoFusermount,
    /// /etc/fuse.conf lacks `user_allow_other`.
    #[error("other users are allowed on a mount of yours only with user_allow_other in /etc/fuse.conf")]
    AllowOtherForbidden,
    /// The mount point is missing or no directory.
    #[error("{}: {source}", path.display())]
    MountPoint {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A mount option that the kernel does not have, or that is ours to set.
    #[error("mount option {0:?} is not one of the kernel's")]
    Option(String),
    /// The kernel or fusermount3 refused otherwise.
    #[error("mount: {0}")]
    Mount(io::Error),
}
