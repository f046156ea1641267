//! What a seal that is being made has read back of its run, for the next try: the file `read-back` of a run's directory.
//!
//! The plaintext of a file of kind 4, in whole chunks:
//!
//! ```text
//! magic "rvread/1" 8 | gateway 16, then frames; zeros between frames go to the end of their chunk
//! nonces  1 u8 | entry u32 | count u16 | nonces 12 * count
//! file    2 u8 | entry u32 | object 16 | read u64 | ino u64 | stored u64 | mtime i64 u32 | ctime i64 u32 |
//!         size u64 | id 32 | epoch u32 | sha256 32 | stored sha256 32
//! ```
//! A file's nonces stand before it, in their order, under the same number.

use crate::ids::{Digest, FileId, IdentityId};
use crate::pins::NONCE;
use crate::reader::Reader;
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"rvread/1";
/// Bytes before the first frame.
pub const HEAD: usize = 8 + 16;
/// Bytes of a frame that say which it is.
pub const FRAME: usize = 1 + 4;
/// Bytes that follow in a frame of nonces, before those.
pub const COUNT: usize = 2;
/// Bytes that follow in a frame of a file.
pub const FILE: usize = 16 + 3 * 8 + 2 * 12 + 8 + 32 + 4 + 32 + 32;
const NONCES: u8 = 1;
const FILES: u8 = 2;

/// The first bytes: whose seal it was.
pub fn head(gateway: &IdentityId) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(MAGIC);
    head[8..].copy_from_slice(&gateway.0);
    head
}

/// Which frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Nonces of that entry.
    Nonces(u32),
    /// That entry was read to its end.
    File(u32),
    /// None: the next one begins with the next chunk.
    Padding,
}

impl Frame {
    /// Reads the first bytes of one.
    ///
    /// # Errors
    /// [`Error::Reserved`] for one that is unknown.
    pub fn decode(bytes: &[u8; FRAME]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        match (r.u8()?, r.u32()?) {
            (NONCES, entry) => Ok(Frame::Nonces(entry)),
            (FILES, entry) => Ok(Frame::File(entry)),
            (0, _) => Ok(Frame::Padding),
            _ => Err(Error::Reserved),
        }
    }
}

/// A frame of at most 65,535 nonces; more are cut.
pub fn nonces(entry: u32, nonces: &[[u8; NONCE]]) -> Vec<u8> {
    let count = u16::try_from(nonces.len()).unwrap_or(u16::MAX);
    let mut frame = vec![NONCES];
    frame.extend_from_slice(&entry.to_le_bytes());
    frame.extend_from_slice(&count.to_le_bytes());
    nonces.iter().take(count.into()).for_each(|nonce| frame.extend_from_slice(nonce));
    frame
}

/// A stored file, so that it is known whether it was changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its number in the store's file system.
    pub ino: u64,
    /// Stored bytes.
    pub stored: u64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Seconds and nanoseconds.
    pub ctime: (i64, u32),
}

/// A file that was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// The first bytes of SHA-256 of its place in the run's directory.
    pub object: [u8; 16],
    /// When, in seconds since 1970.
    pub read: u64,
    /// What it was like.
    pub stamp: Stamp,
    /// Plaintext bytes.
    pub size: u64,
    /// Its identity.
    pub id: FileId,
    /// Its epoch.
    pub epoch: u32,
    /// Of the plaintext.
    pub sha256: Digest,
    /// Of what is stored.
    pub digest: Digest,
}

impl File {
    /// Its frame.
    pub fn encode(&self, entry: u32) -> Vec<u8> {
        let time = |(seconds, nanoseconds): (i64, u32)| {
            [&seconds.to_le_bytes()[..], &nanoseconds.to_le_bytes()].concat()
        };
        [
            &[FILES][..],
            &entry.to_le_bytes(),
            &self.object,
            &self.read.to_le_bytes(),
            &self.stamp.ino.to_le_bytes(),
            &self.stamp.stored.to_le_bytes(),
            &time(self.stamp.mtime),
            &time(self.stamp.ctime),
            &self.size.to_le_bytes(),
            &self.id.0,
            &self.epoch.to_le_bytes(),
            &self.sha256.0,
            &self.digest.0,
        ]
        .concat()
    }

    /// What follows the first bytes of its frame.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn decode(bytes: &[u8; FILE]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let time = |r: &mut Reader<'_>| Ok::<_, Error>((i64::from_le_bytes(r.array()?), r.u32()?));
        let (object, read) = (r.array()?, r.u64()?);
        let stamp = Stamp { ino: r.u64()?, stored: r.u64()?, mtime: time(&mut r)?, ctime: time(&mut r)? };
        let (size, id, epoch) = (r.u64()?, FileId(r.array()?), r.u32()?);
        let (sha256, digest) = (Digest(r.array()?), Digest(r.array()?));
        Ok(Self { object, read, stamp, size, id, epoch, sha256, digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        let file = File {
            object: [1; 16],
            read: 2,
            stamp: Stamp { ino: 3, stored: 4, mtime: (-5, 6), ctime: (7, 8) },
            size: 9,
            id: FileId([10; 32]),
            epoch: 11,
            sha256: Digest([12; 32]),
            digest: Digest([13; 32]),
        };
        let frame = file.encode(7);
        assert_eq!(frame.len(), FRAME + FILE);
        let (first, rest) = frame.split_first_chunk::<FRAME>().unwrap();
        assert_eq!(Frame::decode(first), Ok(Frame::File(7)));
        assert_eq!(File::decode(rest.try_into().unwrap()), Ok(file));
        let frame = nonces(8, &[[1; NONCE], [2; NONCE]]);
        assert_eq!(frame.len(), FRAME + COUNT + 2 * NONCE);
        assert_eq!(Frame::decode(frame.first_chunk().unwrap()), Ok(Frame::Nonces(8)));
        assert_eq!(frame[FRAME..FRAME + COUNT], [2, 0]);
        assert_eq!(Frame::decode(&[0; FRAME]), Ok(Frame::Padding));
        assert_eq!(Frame::decode(&[9; FRAME]), Err(Error::Reserved));
        assert_eq!(head(&IdentityId([3; 16]))[7..9], [b'1', 3]);
    }
}
