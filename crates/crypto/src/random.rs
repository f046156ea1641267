//! Random bytes from getrandom(2), which reseeds after a virtual machine was cloned.

use std::cell::RefCell;

use crate::{Error, Result};

/// Fills `buf`.
///
/// # Errors
/// [`Error::Random`].
pub fn fill(buf: &mut [u8]) -> Result<()> {
    getrandom::fill(buf).map_err(|_| Error::Random)
}

const BATCH: usize = 256 * 12;

/// Nonces drawn ahead by one thread, and the process that drew them.
struct Batch {
    bytes: [u8; BATCH],
    used: usize,
    process: u32,
}

thread_local! {
    static NONCES: RefCell<Batch> = const { RefCell::new(Batch { bytes: [0; BATCH], used: BATCH, process: 0 }) };
}

/// A fresh 96-bit nonce. Batches are at most 3 KiB, never survive a fork, and each nonce is
/// handed out once.
///
/// # Errors
/// [`Error::Random`].
pub fn nonce() -> Result<[u8; 12]> {
    NONCES.with_borrow_mut(|batch| {
        let process = std::process::id();
        if batch.used == BATCH || batch.process != process {
            fill(&mut batch.bytes)?;
            batch.used = 0;
            batch.process = process;
        }
        let mut nonce = [0; 12];
        let drawn = &mut batch.bytes[batch.used..batch.used + 12];
        nonce.copy_from_slice(drawn);
        drawn.fill(0);
        batch.used += 12;
        Ok(nonce)
    })
}
