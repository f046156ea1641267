//! Makes the kernel ask anew for attributes in runs that another machine has taken over, and of files that another one
//! writes when they are opened.
//!
//! Of the former it was told that only this mount changes them, and may keep them long. By FUSE_NOTIFY_INVAL_INODE with a
//! negative offset: attributes alone, so that it waits for no page and for no directory. Names need no notice:
//! what they lead to is asked for, and is there no more, or another.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use runvault_vault::Vault;
use runvault_vault::api::Ino;

use crate::notices::message;
use crate::prune;

const FUSE_NOTIFY_INVAL_INODE: i32 = 2;
/// Every name is asked for anew once (Linux 6.16 on); without a lock, unlike FUSE_NOTIFY_INVAL_ENTRY.
const FUSE_NOTIFY_INC_EPOCH: i32 = 8;

/// What the kernel was told.
#[derive(Default)]
pub(crate) struct Stale {
    /// Runs whose loss it knows.
    told: HashSet<u32>,
    /// Nodes of sealed runs, which it still has names of.
    sealed: Vec<Ino>,
}

impl Stale {
    /// Tells of runs that were lost since, and of runs that were sealed.
    pub(crate) fn tell(&mut self, vault: &Vault, device: &OwnedFd) {
        let lost = vault.nodes_lost_since(&mut self.told).into_iter().map(|ino| (ino, ATTRIBUTES));
        let sealed = vault.nodes_sealed_since();
        let pages = sealed.iter().map(|ino| (*ino, PAGES_TOO));
        lost.chain(pages).for_each(|(ino, offset)| forget(device, ino, offset));
        self.let_go(vault, device, sealed);
        tell_closed(&vault.nodes_closed_since(), device);
    }

    /// Names of sealed runs go too, where the kernel knows how: a directory's once all below it have gone, so that
    /// it is asked again for as long as that leads to something.
    fn let_go(&mut self, vault: &Vault, device: &OwnedFd, sealed: Vec<Ino>) {
        let before = self.sealed.len();
        self.sealed.retain(|ino| vault.knows_node(*ino));
        let stuck = sealed.is_empty() && self.sealed.len() == before;
        self.sealed.extend(sealed);
        if stuck || prune::ask(device, &self.sealed).is_err() {
            self.sealed.clear();
        }
    }
}

/// Sealed runs that are closed to this mount. A file that is open goes on, so pages stay. A kernel that cannot have names
/// asked for anew does so when it finds by the attributes that they lead to nothing.
fn tell_closed(closed: &[(Ino, u32)], device: &OwnedFd) {
    if closed.is_empty() {
        return;
    }
    for ino in closed.iter().flat_map(|(top, nodes)| (0..*nodes).map(move |n| top | Ino::from(n))) {
        forget(device, ino, ATTRIBUTES);
    }
    let _ = rustix::io::write(device, &message(FUSE_NOTIFY_INC_EPOCH, &[]));
}

/// Makes the kernel ask anew for a file's attributes when it is opened: those of before would count for a while, and what
/// it was told last of a file that is open never does. Answers that are under way then count no more either.
#[derive(Clone, Default)]
pub(crate) struct AtOpen(Arc<OnceLock<OwnedFd>>);

impl AtOpen {
    /// The device, once there is one.
    pub(crate) fn by(&self, device: OwnedFd) {
        let _ = self.0.set(device);
    }

    pub(crate) fn tell(&self, ino: Ino) {
        if let Some(device) = self.0.get() {
            forget(device, ino, ATTRIBUTES);
        }
    }
}

fn forget(device: &OwnedFd, ino: Ino, offset: i64) {
    // ENOENT: the kernel has forgotten it already.
    let _ = rustix::io::write(device, &message(FUSE_NOTIFY_INVAL_INODE, &from(ino, offset)));
}

/// Offsets that stand for what is forgotten: of a store that hangs, pages may be waited for.
const ATTRIBUTES: i64 = -1;
const PAGES_TOO: i64 = 0;

/// `fuse_notify_inval_inode_out`: number, offset, length.
#[expect(clippy::host_endian_bytes, reason = "the kernel's own")]
fn from(ino: Ino, offset: i64) -> [u8; 24] {
    let mut body = [0; 24];
    body[..8].copy_from_slice(&ino.to_ne_bytes());
    body[8..16].copy_from_slice(&offset.to_ne_bytes());
    body
}
