//! AES-256-GCM by AWS-LC (`aws-lc-rs`), which wipes its key schedules on drop.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce as AwsNonce, UnboundKey};

use crate::aead::{Nonce, Tag};
use crate::secrets::Secret;
use crate::{Error, Result};

/// An expanded key. "Less safe" is the library's word for nonces chosen by the caller; ours come
/// from [`crate::random::Nonces`] alone.
pub struct Key(LessSafeKey);

impl Key {
    pub(crate) fn new(key: &Secret<32>) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, key.expose()).ok()?;
        Some(Self(LessSafeKey::new(key)))
    }

    pub(crate) fn seal(&self, nonce: &Nonce, aad: &[u8], plain: &[u8], out: &mut [u8]) -> Result<Tag> {
        let mut tag = Tag::default();
        let nonce = AwsNonce::assume_unique_for_key(*nonce);
        self.0
            .seal_out_of_place_scatter(nonce, Aad::from(aad), plain, out, &[], &mut tag)
            .map_err(|_| Error::Library)?;
        Ok(tag)
    }

    pub(crate) fn open(
        &self,
        nonce: &Nonce,
        aad: &[u8],
        sealed: &[u8],
        tag: &Tag,
        out: &mut [u8],
    ) -> Result<()> {
        let nonce = AwsNonce::assume_unique_for_key(*nonce);
        self.0.open_separate_gather(nonce, Aad::from(aad), sealed, tag, out).map_err(|_| Error::NotAuthentic)
    }
}
