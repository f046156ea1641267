//! AES-256-GCM by RustCrypto's `aes-gcm`.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce as GcmNonce};

use crate::aead::{Nonce, Tag};
use crate::secrets::Secret;
use crate::{Error, Result};

/// An expanded key, zeroized on drop by the library.
pub struct Key(Aes256Gcm);

impl Key {
    pub(crate) fn new(key: &Secret<32>) -> Self {
        Self(Aes256Gcm::new(key.expose().into()))
    }

    pub(crate) fn seal(&self, nonce: &Nonce, aad: &[u8], plain: &[u8], out: &mut [u8]) -> Result<Tag> {
        out.copy_from_slice(plain);
        let nonce = GcmNonce::from(*nonce);
        let tag = self.0.encrypt_inout_detached(&nonce, aad, out.into()).map_err(|_| Error::Library)?;
        Ok(tag.into())
    }

    pub(crate) fn open(
        &self,
        nonce: &Nonce,
        aad: &[u8],
        sealed: &[u8],
        tag: &Tag,
        out: &mut [u8],
    ) -> Result<()> {
        out.copy_from_slice(sealed);
        let nonce = GcmNonce::from(*nonce);
        self.0
            .decrypt_inout_detached(&nonce, aad, out.into(), &(*tag).into())
            .map_err(|_| Error::NotAuthentic)
    }
}
