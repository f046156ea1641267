//! A resume entry of a gateway's state folder: the key of a run that it holds open.
//!
//! ```text
//! magic "rvheld/1" 8 | nonce 12 | ciphertext of run key 32, session id 16 | tag 16
//! ```
//! Sealed under KEK t; associated data: label ‖ vault id ‖ run id ‖ t u64.

use runvault_crypto::aead::Engine;
use runvault_crypto::secrets::Secret;
use zeroize::Zeroizing;

use crate::ids::{RunId, SessionId, VaultId};
use crate::keys::RunKey;
use crate::reader::Reader;
use crate::{Error, Result, labels};

const MAGIC: &[u8; 8] = b"rvheld/1";
const PLAIN: usize = 32 + 16;
/// Bytes of an entry.
pub const LEN: usize = 8 + 12 + PLAIN + 16;

/// What the state folder keeps of a run.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The run's key.
    pub key: RunKey,
    /// The session whose journal may be in the store.
    pub session: SessionId,
}

impl Entry {
    /// Seals the entry of `run` under key number `t`.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn seal(&self, kek: &Secret<32>, t: u64, vault: &VaultId, run: &RunId) -> Result<Vec<u8>> {
        let mut plain = Zeroizing::new([0; PLAIN]);
        let (key, session) = plain.split_at_mut(32);
        key.copy_from_slice(self.key.0.expose());
        session.copy_from_slice(&self.session.0);
        let mut sealed = [0; PLAIN];
        let (nonce, tag) = Engine::Portable.key(kek).seal(&aad(t, vault, run), &plain[..], &mut sealed)?;
        Ok([&MAGIC[..], &nonce, &sealed, &tag].concat())
    }

    /// Opens an entry.
    ///
    /// # Errors
    /// [`Error::Magic`], [`Error::Truncated`], [`Error::Trailing`], [`Error::NotAuthentic`].
    pub fn open(bytes: &[u8], kek: &Secret<32>, t: u64, vault: &VaultId, run: &RunId) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.array::<8>()? != *MAGIC {
            return Err(Error::Magic);
        }
        let nonce = r.array::<12>()?;
        let sealed = r.take(PLAIN)?;
        let tag = r.array::<16>()?;
        if !r.rest().is_empty() {
            return Err(Error::Trailing);
        }
        let mut plain = Zeroizing::new([0; PLAIN]);
        Engine::Portable.key(kek).open(&nonce, &aad(t, vault, run), sealed, &tag, &mut plain[..])?;
        let (key, session) = plain.split_first_chunk::<32>().ok_or(Error::Truncated)?;
        let session = session.try_into().map_err(|_| Error::Truncated)?;
        Ok(Self { key: RunKey(Secret::copy_from(key)), session: SessionId(session) })
    }
}

fn aad(t: u64, vault: &VaultId, run: &RunId) -> Vec<u8> {
    [labels::RESUME, &vault.0, &run.0, &t.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn opens_in_its_place_only(key in any::<[u8; 32]>(), ids in any::<([u8; 16], [u8; 32], [u8; 16])>(), t in any::<u64>(), flip in 8usize..LEN) {
            let (session, vault, run) = (SessionId(ids.0), VaultId(ids.1), RunId(ids.2));
            let kek = Secret::copy_from(&[6; 32]);
            let entry = Entry { key: RunKey(Secret::copy_from(&key)), session };
            let bytes = entry.seal(&kek, t, &vault, &run).unwrap();
            prop_assert_eq!(bytes.len(), LEN);
            let back = Entry::open(&bytes, &kek, t, &vault, &run).unwrap();
            prop_assert_eq!((back.key.0.expose(), back.session), (&key, session));
            prop_assert_eq!(Entry::open(&bytes, &kek, t ^ 1, &vault, &run).err(), Some(Error::NotAuthentic));
            let mut changed = bytes;
            changed[flip] ^= 1;
            prop_assert_eq!(Entry::open(&changed, &kek, t, &vault, &run).err(), Some(Error::NotAuthentic));
        }

        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let kek = Secret::copy_from(&[6; 32]);
            prop_assert!(Entry::open(&bytes, &kek, 0, &VaultId([0; 32]), &RunId([0; 16])).is_err());
        }
    }

    #[test]
    fn refusals_by_name() {
        let kek = Secret::copy_from(&[6; 32]);
        let open = |bytes: &[u8]| Entry::open(bytes, &kek, 1, &VaultId([0; 32]), &RunId([0; 16])).err();
        let entry = Entry { key: RunKey(Secret::copy_from(&[1; 32])), session: SessionId([2; 16]) };
        let bytes = entry.seal(&kek, 1, &VaultId([0; 32]), &RunId([0; 16])).unwrap();
        assert_eq!(open(&bytes), None);
        assert_eq!(open(&bytes[..LEN - 1]), Some(Error::Truncated));
        assert_eq!(open(&[&bytes[..], &[0]].concat()), Some(Error::Trailing));
        assert_eq!(open(&[0; LEN]), Some(Error::Magic));
        assert!(!format!("{entry:?}").contains("01"));
    }
}
