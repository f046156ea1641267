//! AES-256-SIV (RFC 5297): deterministic, for names.

use std::sync::Mutex;

use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;

use crate::secrets::Secret;
use crate::{Error, Result};

/// A 512-bit AES-SIV key.
pub struct SivKey {
    key: Secret<64>,
    /// Expanded once: that takes a third as long as a name does.
    expanded: Mutex<Box<Aes256Siv>>,
}

impl SivKey {
    /// Takes the key.
    pub fn new(key: Secret<64>) -> Self {
        let expanded = Mutex::new(Box::new(expand(&key)));
        Self { key, expanded }
    }

    /// 16 bytes of synthetic IV, then the ciphertext, as long as `plain`.
    ///
    /// # Errors
    /// [`Error::Library`] for more than 126 associated strings.
    pub fn seal(&self, associated: &[&[u8]], plain: &[u8]) -> Result<Vec<u8>> {
        self.with(|cipher| cipher.encrypt(associated, plain)).map_err(|_| Error::Library)
    }

    /// Opens what [`SivKey::seal`] made.
    ///
    /// # Errors
    /// [`Error::NotAuthentic`].
    pub fn open(&self, associated: &[&[u8]], mut sealed: Vec<u8>) -> Result<Vec<u8>> {
        let opened = self.with(|cipher| cipher.decrypt_in_place(associated, &mut sealed));
        opened.map_err(|_| Error::NotAuthentic)?;
        Ok(sealed)
    }

    /// The library's calls want the cipher alone: where another thread has it one more is made, which takes less than
    /// a wait.
    fn with<T>(&self, call: impl FnOnce(&mut Aes256Siv) -> T) -> T {
        match self.expanded.try_lock() {
            Ok(mut cipher) => call(&mut cipher),
            Err(_) => call(&mut expand(&self.key)),
        }
    }
}

fn expand(key: &Secret<64>) -> Aes256Siv {
    Aes256Siv::new(key.expose().into())
}

impl std::fmt::Debug for SivKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SivKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use aes_siv::siv::Aes128Siv;

    use super::*;

    fn hex(s: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(s.as_bytes()).unwrap()
    }

    /// RFC 5297, A.1 and A.2 (both with the 256-bit key that the RFC's vectors have).
    #[test]
    fn rfc_5297() {
        let key = hex("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
        let sealed = Aes128Siv::new_from_slice(&key)
            .unwrap()
            .encrypt(
                [hex("101112131415161718191a1b1c1d1e1f2021222324252627")],
                &hex("112233445566778899aabbccddee"),
            )
            .unwrap();
        assert_eq!(sealed, hex("85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c"));
        let key = hex("7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f");
        let headers = [
            hex("00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100"),
            hex("102030405060708090a0"),
            hex("09f911029d74e35bd84156c5635688c0"),
        ];
        let plain = hex(
            "7468697320697320736f6d6520706c61696e7465787420746f20656e6372797074207573696e67205349562d414553",
        );
        let sealed = Aes128Siv::new_from_slice(&key).unwrap().encrypt(headers, &plain).unwrap();
        assert_eq!(
            sealed,
            hex(
                "7bdb6e3b432667eb06f4d14bff2fbd0fcb900f2fddbe404326601965c889bf17dba77ceb094fa663b7a3f748ba8af829ea64ad544a272e9c485b62a3fd5c0d"
            )
        );
    }

    #[test]
    fn the_associated_data_counts() {
        let key = SivKey::new(Secret::random().unwrap());
        for plain in [&b""[..], b"a", &[7; 255]] {
            let sealed = key.seal(&[b"one", b"two"], plain).unwrap();
            assert_eq!(sealed.len(), plain.len() + 16);
            assert_eq!(key.seal(&[b"one", b"two"], plain).unwrap(), sealed);
            assert_eq!(key.open(&[b"one", b"two"], sealed.clone()).unwrap(), plain);
            assert_eq!(key.open(&[b"onet", b"wo"], sealed), Err(Error::NotAuthentic));
        }
        assert_eq!(key.open(&[], vec![0; 15]), Err(Error::NotAuthentic));
    }

    /// The library's state is the same after each call, refusals too, and whoever finds it in use.
    #[test]
    fn one_expanded_key_serves_every_call() {
        let key = SivKey::new(Secret::from_fn(|bytes| bytes.fill(7)));
        let fresh = |plain: &[u8]| expand(&key.key).encrypt([b"one"], plain).unwrap();
        let many = vec![&b"x"[..]; 127];
        for plain in [&b""[..], b"a", &[7; 255]] {
            assert_eq!(key.seal(&many, plain), Err(Error::Library));
            assert_eq!(key.open(&[b"two"], fresh(plain)), Err(Error::NotAuthentic));
            assert_eq!(key.seal(&[b"one"], plain).unwrap(), fresh(plain));
            let _other = key.expanded.lock();
            assert_eq!(key.open(&[b"one"], fresh(plain)).unwrap(), plain);
        }
    }
}
