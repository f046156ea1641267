//! A chunk as stored: nonce 12 | ciphertext | tag 16; associated data 0x01 ‖ chunk number u64.

use runvault_crypto::aead::AeadKey;

use crate::{Error, Result};

/// Stored bytes beyond the plaintext's.
pub const OVERHEAD: usize = crate::size::OVERHEAD as usize;
const AAD_CHUNK: u8 = 0x01;

fn aad(i: u64) -> [u8; 9] {
    let mut aad = [AAD_CHUNK; 9];
    aad[1..].copy_from_slice(&i.to_le_bytes());
    aad
}

/// Seals chunk `i` into `out`, which is 28 bytes longer than `plain`.
///
/// # Errors
/// [`Error::Crypto`].
pub fn seal(key: &AeadKey, i: u64, plain: &[u8], out: &mut [u8]) -> Result<()> {
    let (nonce_out, rest) = out.split_at_mut_checked(12).ok_or(Error::Truncated)?;
    let (sealed, tag_out) = rest.split_at_mut_checked(plain.len()).ok_or(Error::Truncated)?;
    let (nonce, tag) = key.seal(&aad(i), plain, sealed)?;
    nonce_out.copy_from_slice(&nonce);
    if tag_out.len() != tag.len() {
        return Err(Error::Truncated);
    }
    tag_out.copy_from_slice(&tag);
    Ok(())
}

/// Opens chunk `i` into `out`, which is 28 bytes shorter than `stored`.
///
/// # Errors
/// [`Error::NotAuthentic`], [`Error::Truncated`].
pub fn open(key: &AeadKey, i: u64, stored: &[u8], out: &mut [u8]) -> Result<()> {
    let (nonce, rest) = stored.split_first_chunk::<12>().ok_or(Error::Truncated)?;
    let (sealed, tag) = rest.split_last_chunk::<16>().ok_or(Error::Truncated)?;
    Ok(key.open(nonce, &aad(i), sealed, tag, out)?)
}
