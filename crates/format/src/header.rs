//! The header of a file or directory: two copies of one sector each, each complete in itself.
//!
//! ```text
//! clear part 64 | nonce 12 | sealed state 420 | tag 16
//! clear = magic "runvault" 8 | version u16 | suite u16 | log2 C u8 | kind u8 | zero u16 | file id 32 | run id 16
//! ```

use runvault_crypto::aead::AeadKey;

use crate::ids::{FileId, RunId};
use crate::reader::Reader;
use crate::size::{COPY, Geometry};
use crate::state_slot::{self, SlotState};
use crate::{Error, Result};

/// Format version of this program.
pub const VERSION: u16 = 1;
/// HKDF-SHA-256, AES-256-GCM, AES-256-SIV, SHA-256, Ed25519, HPKE with X-Wing.
pub const SUITE: u16 = 1;
const MAGIC: &[u8; 8] = b"runvault";
const CLEAR: usize = 64;
/// First byte of a header copy's associated data.
const AAD_SLOT: u8 = 0x02;

/// What a header is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Kind {
    File = 1,
    Directory = 2,
    Manifest = 3,
    Pins = 4,
}

impl Kind {
    fn from_byte(byte: u8) -> Result<Self> {
        Ok(match byte {
            1 => Kind::File,
            2 => Kind::Directory,
            3 => Kind::Manifest,
            4 => Kind::Pins,
            other => return Err(Error::Kind(other)),
        })
    }
}

/// The part that keys derive from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clear {
    /// Chunk size of the run.
    pub geometry: Geometry,
    /// What the header is of.
    pub kind: Kind,
    /// Its identity.
    pub file_id: FileId,
    /// The run that it belongs to.
    pub run_id: RunId,
}

impl Clear {
    /// The clear part of a header of this program's version and suite.
    pub fn new(kind: Kind, geometry: Geometry, file_id: FileId, run_id: RunId) -> Self {
        Self { geometry, kind, file_id, run_id }
    }

    /// 64 bytes.
    pub fn encode(&self) -> [u8; CLEAR] {
        let mut out = [0; CLEAR];
        out[..8].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10..12].copy_from_slice(&SUITE.to_le_bytes());
        out[12] = self.geometry.log2();
        out[13] = self.kind as u8;
        out[16..48].copy_from_slice(&self.file_id.0);
        out[48..].copy_from_slice(&self.run_id.0);
        out
    }

    /// Parses 64 bytes.
    ///
    /// # Errors
    /// [`Error::Magic`], [`Error::Version`], [`Error::Suite`], [`Error::ChunkSize`],
    /// [`Error::Kind`], [`Error::Reserved`].
    pub fn decode(bytes: &[u8; CLEAR]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.array::<8>()? != *MAGIC {
            return Err(Error::Magic);
        }
        match r.u16()? {
            VERSION => {}
            other => return Err(Error::Version(other.into())),
        }
        match r.u16()? {
            SUITE => {}
            other => return Err(Error::Suite(other.into())),
        }
        let geometry = Geometry::new(r.u8()?)?;
        let kind = Kind::from_byte(r.u8()?)?;
        if r.u16()? != 0 {
            return Err(Error::Reserved);
        }
        Ok(Self { geometry, kind, file_id: FileId(r.array()?), run_id: RunId(r.array()?) })
    }
}

/// The clear part of a copy; `None` for one that was never written.
///
/// # Errors
/// Those of [`Clear::decode`].
pub fn clear_of(copy: &[u8; COPY as usize]) -> Result<Option<Clear>> {
    if copy.iter().all(|b| *b == 0) {
        return Ok(None);
    }
    let mut clear = [0; CLEAR];
    clear.copy_from_slice(&copy[..CLEAR]);
    Clear::decode(&clear).map(Some)
}

fn aad(j: u8) -> [u8; 9] {
    let mut aad = [0; 9];
    aad[0] = AAD_SLOT;
    aad[1] = j;
    aad
}

/// Copy `j` (0 or 1), sealed under the slot key.
///
/// # Errors
/// [`Error::Holes`], [`Error::Crypto`].
pub fn seal_copy(j: u8, clear: &Clear, key: &AeadKey, state: &SlotState) -> Result<[u8; COPY as usize]> {
    let mut out = [0; COPY as usize];
    out[..CLEAR].copy_from_slice(&clear.encode());
    let plain = state.encode()?;
    let (nonce, tag) = key.seal(&aad(j), &plain, &mut out[76..76 + state_slot::LEN])?;
    out[CLEAR..76].copy_from_slice(&nonce);
    out[76 + state_slot::LEN..].copy_from_slice(&tag);
    Ok(out)
}

/// The state of copy `j`.
///
/// # Errors
/// [`Error::NotAuthentic`]; those of [`SlotState::decode`].
pub fn open_copy(j: u8, copy: &[u8; COPY as usize], key: &AeadKey) -> Result<SlotState> {
    let mut r = Reader::new(copy);
    r.take(CLEAR)?;
    let nonce = r.array::<12>()?;
    let sealed = r.take(state_slot::LEN)?;
    let tag = r.array::<16>()?;
    let mut plain = [0; state_slot::LEN];
    key.open(&nonce, &aad(j), sealed, &tag, &mut plain)?;
    SlotState::decode(&plain)
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
            log2 in 9u8..=20, kind in 1u8..=4, ids in any::<([u8; 32], [u8; 16])>(), j in 0u8..2, seq in any::<u64>(), at in 0usize..512,
        ) {
            let key = Engine::Portable.key(&Secret::copy_from(&[1; 32]));
            let clear = Clear::new(Kind::from_byte(kind).unwrap(), Geometry::new(log2).unwrap(), FileId(ids.0), RunId(ids.1));
            let state = SlotState { seq, ..SlotState::decode(&[0; state_slot::LEN]).unwrap() };
            let mut copy = seal_copy(j, &clear, &key, &state).unwrap();
            prop_assert_eq!(clear_of(&copy), Ok(Some(clear.clone())));
            prop_assert_eq!(open_copy(j, &copy, &key), Ok(state));
            prop_assert_eq!(open_copy(1 - j, &copy, &key), Err(Error::NotAuthentic));
            copy[at] ^= 1;
            // The clear part is authenticated by the slot key, which is expanded from it.
            if at < CLEAR {
                prop_assert!(clear_of(&copy) != Ok(Some(clear)));
            } else {
                prop_assert_eq!(open_copy(j, &copy, &key), Err(Error::NotAuthentic));
            }
        }

        #[test]
        fn any_clear_part_is_answered(bytes in any::<[u8; 32]>(), rest in any::<[u8; 32]>(), ours in any::<bool>()) {
            let mut clear: [u8; CLEAR] = [bytes, rest].concat().try_into().unwrap();
            if ours {
                clear[..12].copy_from_slice(b"runvault\x01\0\x01\0");
                (clear[14], clear[15]) = (0, 0);
            }
            if let Ok(parsed) = Clear::decode(&clear) {
                prop_assert_eq!(parsed.encode(), clear);
            }
        }
    }
}
