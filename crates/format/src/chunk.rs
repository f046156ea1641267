//! A chunk as stored: nonce 12 | ciphertext | tag 16; associated data 0x01 ‖ chunk number u64.

use runvault_crypto::aead::AeadKey;
use runvault_crypto::random::Nonces;

use crate::{Error, Result};

/// Stored bytes beyond the plaintext's.
pub const OVERHEAD: usize = crate::size::OVERHEAD as usize;
const AAD_CHUNK: u8 = 0x01;

fn aad(i: u64) -> [u8; 9] {
    let mut aad = [AAD_CHUNK; 9];
    aad[1..].copy_from_slice(&i.to_le_bytes());
    aad
}

/// Seals chunk `i` under a fresh nonce into `out`, which is 28 bytes longer than `plain`.
///
/// # Errors
/// [`Error::Crypto`].
pub fn seal(key: &AeadKey, nonces: &mut Nonces, i: u64, plain: &[u8], out: &mut [u8]) -> Result<()> {
    let (nonce_out, rest) = out.split_at_mut_checked(12).ok_or(Error::Truncated)?;
    let (sealed, tag_out) = rest.split_at_mut_checked(plain.len()).ok_or(Error::Truncated)?;
    let (nonce, tag) = key.seal_drawing(nonces, &aad(i), plain, sealed)?;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use runvault_crypto::aead::Engine;
    use runvault_crypto::secrets::Secret;

    use super::*;

    proptest! {
        #[test]
        fn what_opens_is_what_was_sealed(
            plain in prop::collection::vec(any::<u8>(), 0..2000), i in any::<u64>(), other in any::<u64>(), at in any::<u16>(),
        ) {
            let key = Engine::Portable.key(&Secret::copy_from(&[1; 32]));
            let mut stored = vec![0; plain.len() + OVERHEAD];
            seal(&key, &mut Nonces::new(1), i, &plain, &mut stored).unwrap();
            let mut back = vec![1; plain.len()];
            open(&key, i, &stored, &mut back).unwrap();
            prop_assert_eq!(&back, &plain);
            if other != i {
                prop_assert_eq!(open(&key, other, &stored, &mut back), Err(Error::NotAuthentic));
            }
            let at = usize::from(at) % stored.len();
            stored[at] ^= 1;
            prop_assert_eq!(open(&key, i, &stored, &mut back), Err(Error::NotAuthentic));
        }

        #[test]
        fn any_lengths_are_answered(stored in prop::collection::vec(any::<u8>(), 0..100), out in 0usize..100) {
            let key = Engine::Portable.key(&Secret::copy_from(&[1; 32]));
            let mut buffer = vec![0; out];
            prop_assert!(open(&key, 0, &stored, &mut buffer).is_err());
            if stored.len() + OVERHEAD != out {
                prop_assert!(seal(&key, &mut Nonces::new(1), 0, &stored, &mut buffer).is_err());
            }
        }
    }
}
