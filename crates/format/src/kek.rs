//! KEK_t of a gateway's state folder as a TPM keeps it, in an NV index.
//!
//! ```text
//! magic "rvkek/1" and a zero byte 8 | t u64 | key 32 | check 16
//! ```
//! check = the first 16 bytes of SHA-256(label ‖ vault id ‖ t u64 ‖ key): a write that was cut short is none.

use runvault_crypto::digest::{ct_eq, sha256};
use runvault_crypto::secrets::Secret;
use zeroize::Zeroizing;

use crate::ids::VaultId;
use crate::reader::Reader;
use crate::{Error, Result, labels};

const MAGIC: &[u8; 8] = b"rvkek/1\0";
const CHECK: usize = 16;
/// Bytes of it, and of the NV index.
pub const LEN: usize = 8 + 8 + 32 + CHECK;

/// Key number `t` as it is kept.
pub fn encode(t: u64, kek: &Secret<32>, vault: &VaultId) -> Zeroizing<[u8; LEN]> {
    let mut bytes = Zeroizing::new([0; LEN]);
    let check = check(t, kek.expose(), vault);
    let parts = [&MAGIC[..], &t.to_le_bytes(), kek.expose(), &check];
    let mut rest = &mut bytes[..];
    for part in parts {
        let (place, behind) = rest.split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = behind;
    }
    bytes
}

/// Number and key.
///
/// # Errors
/// [`Error::Magic`], [`Error::Truncated`], [`Error::Trailing`]; [`Error::NotAuthentic`]: cut short, or of another vault.
pub fn decode(bytes: &[u8], vault: &VaultId) -> Result<(u64, Secret<32>)> {
    let mut r = Reader::new(bytes);
    if r.array::<8>()? != *MAGIC {
        return Err(Error::Magic);
    }
    let t = u64::from_le_bytes(r.array()?);
    let key: &[u8; 32] = r.take(32)?.try_into().map_err(|_| Error::Truncated)?;
    let found = r.array::<CHECK>()?;
    if !r.rest().is_empty() {
        return Err(Error::Trailing);
    }
    if !ct_eq(&found, &check(t, key, vault)) {
        return Err(Error::NotAuthentic);
    }
    Ok((t, Secret::copy_from(key)))
}

fn check(t: u64, key: &[u8; 32], vault: &VaultId) -> [u8; CHECK] {
    let mut check = [0; CHECK];
    let hash = sha256(&[labels::KEK, &vault.0, &t.to_le_bytes(), key]);
    check.iter_mut().zip(hash).for_each(|(place, byte)| *place = byte);
    check
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_comes_back_and_nothing_else_does(t in any::<u64>(), key in any::<[u8; 32]>(), at in 0..LEN, bit in 0..8u32) {
            let vault = VaultId([9; 32]);
            let bytes = encode(t, &Secret::copy_from(&key), &vault);
            let (number, back) = decode(&bytes[..], &vault).unwrap();
            prop_assert_eq!((number, back.expose()), (t, &key));
            prop_assert_eq!(decode(&bytes[..], &VaultId([8; 32])).err(), Some(Error::NotAuthentic));
            prop_assert_eq!(decode(&bytes[..at], &vault).err(), Some(Error::Truncated));
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            let refused = decode(&changed[..], &vault).err();
            prop_assert_eq!(refused, Some(if at < 8 { Error::Magic } else { Error::NotAuthentic }));
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2 * LEN)) {
            prop_assert!(decode(&bytes, &VaultId([0; 32])).is_err());
        }
    }

    #[test]
    fn an_index_that_was_overwritten_holds_none() {
        assert_eq!(decode(&[0; LEN], &VaultId([0; 32])).err(), Some(Error::Magic));
        assert_eq!(decode(&[0; LEN + 1], &VaultId([0; 32])).err(), Some(Error::Magic));
        let mut long = encode(1, &Secret::copy_from(&[2; 32]), &VaultId([0; 32])).to_vec();
        long.push(0);
        assert_eq!(decode(&long, &VaultId([0; 32])).err(), Some(Error::Trailing));
    }
}
