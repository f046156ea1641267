//! What the kernel is told without having asked: by a second descriptor of the device, in a thread of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use runvault_vault::Vault;

use crate::prune::Pruning;
use crate::stale::Stale;

/// How often there may be something to tell.
const EVERY: Duration = Duration::from_secs(1);

/// Keeps the vault's nodes to about `max_nodes`, and makes the kernel ask anew for those of runs that were lost, in
/// a thread that ends when what is given is dropped.
///
/// # Errors
/// The thread could not be made.
pub(crate) fn start(vault: Arc<Vault>, device: OwnedFd, max_nodes: u64) -> io::Result<Sender<()>> {
    let (stop, stopped) = channel();
    let telling = move || {
        let (mut pruning, mut stale) = (Pruning::to(max_nodes), Stale::default());
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(EVERY) {
            stale.tell(&vault, &device);
            pruning.tell(&vault, &device);
        }
    };
    thread::Builder::new().name("notices".into()).spawn(telling)?;
    Ok(stop)
}

/// `fuse_out_header` (length, code, 0) and what follows it.
#[expect(clippy::host_endian_bytes, reason = "the kernel's own")]
pub(crate) fn message(code: i32, body: &[u8]) -> Vec<u8> {
    const HEAD: usize = 16;
    let len = HEAD + body.len();
    let mut message = Vec::with_capacity(len);
    message.extend((len as u32).to_ne_bytes());
    message.extend(code.to_ne_bytes());
    message.extend(0u64.to_ne_bytes());
    message.extend_from_slice(body);
    message
}
