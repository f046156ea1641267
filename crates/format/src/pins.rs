//! Which version of each chunk a seal means: the nonces that were found when the run was read back.
//!
//! ```text
//! header 128 = magic "rvpins/1" 8 | entries u32 | zero u32 | nonces u64 | zeros
//! nonces, 12 bytes each, in the order of the entries; twelve zeros for a hole
//! for each entry of the manifest 64 = id 32 | epoch u32 | zero u32 | first u64 | chunks u64 | zeros 8
//! ```
//!
//! The table comes last: a file's id is known when its chunks have been read.

use crate::ids::FileId;
use crate::reader::Reader;
use crate::{Error, Result};

/// Bytes of the header.
pub const HEADER: usize = 128;
/// Bytes of each entry.
pub const LEN: usize = 64;
/// Bytes of a nonce.
pub const NONCE: usize = 12;
/// What stands for a chunk that is a hole.
pub const HOLE: [u8; NONCE] = [0; NONCE];
const MAGIC: &[u8; 8] = b"rvpins/1";

/// The first 128 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// As many as the manifest has.
    pub entries: u32,
    /// Of all files together.
    pub nonces: u64,
}

impl Header {
    /// 128 bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&self.entries.to_le_bytes());
        out[16..24].copy_from_slice(&self.nonces.to_le_bytes());
        out
    }

    /// Parses them.
    ///
    /// # Errors
    /// [`Error::Magic`], [`Error::Reserved`].
    pub fn decode(bytes: &[u8; HEADER]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.array::<8>()? != *MAGIC {
            return Err(Error::Magic);
        }
        let (entries, zero, nonces) = (r.u32()?, r.u32()?, r.u64()?);
        if zero != 0 {
            return Err(Error::Reserved);
        }
        r.zeros_to_end()?;
        Ok(Self { entries, nonces })
    }

    /// Bytes of the whole.
    pub fn pins_len(&self) -> u64 {
        self.entry_offset(self.entries)
    }

    /// Where nonce `i` begins.
    pub fn nonce_offset(i: u64) -> u64 {
        (HEADER as u64).saturating_add(i.saturating_mul(NONCE as u64))
    }

    /// Where entry `i` begins.
    pub fn entry_offset(&self, i: u32) -> u64 {
        Self::nonce_offset(self.nonces).saturating_add(u64::from(i) * LEN as u64)
    }
}

/// What is pinned of an entry of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The id of the file, or of the directory; zeros for an empty file, for the top, and for anything else.
    pub id: FileId,
    /// Of the file's key.
    pub epoch: u32,
    /// The number of its first nonce.
    pub first: u64,
    /// How many chunks it has; 0 for all but files with content, and for further names of one.
    pub chunks: u64,
}

impl Pinned {
    /// Of what has no content and no id.
    pub const NOTHING: Pinned = Pinned { id: FileId::ROOT, epoch: 0, first: 0, chunks: 0 };

    /// 64 bytes.
    pub fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[..32].copy_from_slice(&self.id.0);
        out[32..36].copy_from_slice(&self.epoch.to_le_bytes());
        out[40..48].copy_from_slice(&self.first.to_le_bytes());
        out[48..56].copy_from_slice(&self.chunks.to_le_bytes());
        out
    }

    /// Parses them.
    ///
    /// # Errors
    /// [`Error::Reserved`].
    pub fn decode(bytes: &[u8; LEN]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let (id, epoch, zero) = (FileId(r.array()?), r.u32()?, r.u32()?);
        let (first, chunks) = (r.u64()?, r.u64()?);
        if zero != 0 {
            return Err(Error::Reserved);
        }
        r.zeros_to_end()?;
        Ok(Self { id, epoch, first, chunks })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_decodes_encodes_back(
            id in any::<[u8; 32]>(), epoch in any::<u32>(), first in any::<u64>(), chunks in any::<u64>(), at in 0usize..64,
        ) {
            let header = Header { entries: epoch, nonces: first };
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
            let pinned = Pinned { id: FileId(id), epoch, first, chunks };
            let mut bytes = pinned.encode();
            prop_assert_eq!(Pinned::decode(&bytes), Ok(pinned));
            bytes[at] ^= 1;
            if let Ok(other) = Pinned::decode(&bytes) {
                prop_assert_eq!(other.encode(), bytes);
            }
        }

        #[test]
        fn any_bytes_are_answered(a in any::<[u8; 32]>(), b in any::<[u8; 32]>(), ours in any::<bool>()) {
            let mut bytes: [u8; HEADER] = [a, b, a, b].concat().try_into().unwrap();
            if ours {
                bytes[..8].copy_from_slice(MAGIC);
                bytes[12..16].fill(0);
                bytes[24..].fill(0);
            }
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
                prop_assert!(header.pins_len() >= HEADER as u64);
            }
        }
    }
}
