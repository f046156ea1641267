//! Plaintext on its way out of the vault, in buffers that are used again.

use runvault_vault::api::Handle;
use runvault_vault::buffers::Pool;
use runvault_vault::{Result, Vault};

/// Where reads put their bytes.
static BUFFERS: Pool = Pool::new();

/// Bytes that one copy_file_range may move: an answer must come long before the watchdog does.
pub(super) const COPY_AT_ONCE: u64 = 8 << 20;

pub(super) fn copy(
    vault: &Vault,
    from: (Handle, u64),
    to: (Handle, u64),
    len: u64,
    strip: bool,
) -> Result<u64> {
    with_buffer(1 << 20, |buffer| {
        let mut done = 0;
        while done < len {
            let want = usize::try_from(len - done).unwrap_or(usize::MAX).min(buffer.len());
            let piece = buffer.get_mut(..want).unwrap_or_default();
            let got = vault.read(from.0, from.1.saturating_add(done), piece)?;
            if got == 0 {
                break;
            }
            vault.write(to.0, to.1.saturating_add(done), piece.get(..got).unwrap_or_default(), strip)?;
            done += got as u64;
        }
        Ok(done)
    })
}

pub(super) fn with_buffer<T>(size: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    work(BUFFERS.take(size).get_mut(..size).unwrap_or_default())
}
