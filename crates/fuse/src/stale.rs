//! Makes the kernel ask anew for attributes in runs that another machine has taken over.
//!
//! It was told that only this mount changes them, and may keep them long. By FUSE_NOTIFY_INVAL_INODE with a
//! negative offset: attributes alone, so that it waits for no page and for no directory. Names need no notice:
//! what they lead to is asked for, and is there no more, or another.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use runvault_vault::Vault;
use runvault_vault::api::Ino;

use crate::notices::message;

const FUSE_NOTIFY_INVAL_INODE: i32 = 2;

/// The runs whose loss the kernel knows.
#[derive(Default)]
pub(crate) struct Stale {
    told: HashSet<u32>,
}

impl Stale {
    /// Tells of runs that were lost since, and of runs that were sealed.
    pub(crate) fn tell(&mut self, vault: &Vault, device: &OwnedFd) {
        let lost = vault.nodes_lost_since(&mut self.told).into_iter().map(|ino| from(ino, ATTRIBUTES));
        let sealed = vault.nodes_sealed_since().into_iter().map(|ino| from(ino, PAGES_TOO));
        for body in lost.chain(sealed) {
            // ENOENT: the kernel has forgotten it already.
            let _ = rustix::io::write(device, &message(FUSE_NOTIFY_INVAL_INODE, &body));
        }
    }
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
