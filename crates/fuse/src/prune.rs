//! Asks the kernel to let go of names that nothing uses, so that the table of nodes stays bounded.
//!
//! By FUSE_NOTIFY_PRUNE (protocol 7.45, Linux 6.18), which fuser 0.18 does not know: the kernel drops
//! what nobody has open or stands in, takes no lock that a request may hold, and sends FORGET. Older
//! kernels have FUSE_NOTIFY_INVAL_ENTRY alone, which drops what is in use too, and waits for the lock of
//! the directory: a thread in that wait outlives kill -9, keeps the device open, and so keeps the lock's
//! holder waiting for our answer for ever. There, names go when the kernel itself is short of memory; it
//! needs several times as much for each as we do.

use std::io;
use std::os::fd::OwnedFd;

use runvault_vault::Vault;
use runvault_vault::api::Ino;

use crate::notices::message;

/// Nodes in one message, and places of the table that are looked at for it.
const BATCH: usize = 4096;

const FUSE_NOTIFY_PRUNE: i32 = 9;

/// How far the sweeps through the table have come.
pub(crate) struct Pruning {
    /// Nodes that may be known; `None`: the kernel does not know how to forget.
    limit: Option<u64>,
    hand: usize,
}

impl Pruning {
    pub(crate) fn to(limit: u64) -> Self {
        Self { limit: Some(limit), hand: 0 }
    }

    /// Asks for about as much as is known too much.
    pub(crate) fn tell(&mut self, vault: &Vault, device: &OwnedFd) {
        let (Some(limit), known) = (self.limit, vault.known_nodes()) else { return };
        if known <= limit {
            return;
        }
        // An eighth more, so that not every second begins with too many.
        let excess = (known - limit).saturating_add(limit / 8);
        if let Err(e) = sweep(vault, device, &mut self.hand, known, excess) {
            log::info!("the kernel keeps names as long as it likes: {e}");
            self.limit = None;
        }
    }
}

/// Once around the table at most: what is in use stays, however often it is asked for.
fn sweep(vault: &Vault, device: &OwnedFd, hand: &mut usize, known: u64, excess: u64) -> io::Result<()> {
    let mut asked = 0;
    for _ in 0..=known / BATCH as u64 {
        let idle = vault.idle_nodes(hand, BATCH);
        ask(device, &idle)?;
        asked += idle.len() as u64;
        if asked >= excess {
            break;
        }
    }
    Ok(())
}

/// Asks the kernel to let go of nodes that nothing uses.
///
/// # Errors
/// One that does not know how.
pub(crate) fn ask(device: &OwnedFd, nodes: &[Ino]) -> io::Result<()> {
    for nodes in nodes.chunks(BATCH) {
        rustix::io::write(device, &message(FUSE_NOTIFY_PRUNE, &numbers(nodes)))?;
    }
    Ok(())
}

/// `fuse_notify_prune_out` (count, padding, spare), the numbers.
#[expect(clippy::host_endian_bytes, reason = "the kernel's own")]
fn numbers(nodes: &[Ino]) -> Vec<u8> {
    const HEAD: usize = 16;
    let mut body = Vec::with_capacity(HEAD + size_of_val(nodes));
    body.extend((nodes.len() as u32).to_ne_bytes());
    body.resize(HEAD, 0);
    nodes.iter().for_each(|ino| body.extend(ino.to_ne_bytes()));
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_kernels_layout() {
        let message = message(FUSE_NOTIFY_PRUNE, &numbers(&[0x0102_0304_0506_0708, 9]));
        assert_eq!(message.len(), 48);
        #[expect(clippy::host_endian_bytes, reason = "the kernel's own")]
        let word = |at: usize| u32::from_ne_bytes(message[at..at + 4].try_into().unwrap());
        assert_eq!([0, 4, 8, 12, 16, 20, 24, 28].map(word), [48, 9, 0, 0, 2, 0, 0, 0]);
        #[expect(clippy::host_endian_bytes, reason = "the kernel's own")]
        let last = u64::from_ne_bytes(message[40..].try_into().unwrap());
        assert_eq!(last, 9);
    }
}
