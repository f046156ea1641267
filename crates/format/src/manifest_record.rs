//! What a manifest says of an entry in a fixed number of bytes.

use crate::manifest::{LEN, demand};
use crate::reader::Reader;
use crate::{Error, Result};

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Kind {
    File = 1,
    Dir = 2,
    Symlink = 3,
    Fifo = 4,
    Socket = 5,
    CharDevice = 6,
    BlockDevice = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Result<Self> {
        Ok(match byte {
            1 => Kind::File,
            2 => Kind::Dir,
            3 => Kind::Symlink,
            4 => Kind::Fifo,
            5 => Kind::Socket,
            6 => Kind::CharDevice,
            7 => Kind::BlockDevice,
            other => return Err(Error::Kind(other)),
        })
    }

    fn is_device(self) -> bool {
        matches!(self, Kind::CharDevice | Kind::BlockDevice)
    }
}

/// 128 bytes:
///
/// ```text
/// kind u8 | zero u8 | mode u16 | uid u32 | gid u32 | nlink u32 | object u32 | parent u32 | first u32 | children u32
/// rdev u64 | size u64 | mtime i64 | mtime ns u32 | name u16 | target u16 | xattrs u32 | heap u64 | sha256 32 | zeros 20
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, 07777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names of the object in the run.
    pub nlink: u32,
    /// The first entry of the same object (hard links); its own number for nearly all.
    pub object: u32,
    /// The directory that it is in; 0 for the top.
    pub parent: u32,
    /// A directory's first child; 0 where it has none.
    pub first: u32,
    /// How many children it has.
    pub children: u32,
    /// A device's number.
    pub rdev: u64,
    /// Plaintext bytes of a file, or of a symlink's target.
    pub size: u64,
    /// The application's mtime: seconds since 1970.
    pub mtime: i64,
    /// And nanoseconds.
    pub mtime_ns: u32,
    /// Bytes of its name in the heap.
    pub name: u16,
    /// Bytes of its link target, which follow.
    pub target: u16,
    /// Bytes of its attributes, which follow.
    pub xattrs: u32,
    /// Where its part of the heap begins, counted from the heap's start.
    pub heap: u64,
    /// SHA-256 of a file's content; zeros for anything else.
    pub sha256: [u8; 32],
}

impl Record {
    /// Bytes of its part of the heap.
    pub fn heap_len(&self) -> u64 {
        u64::from(self.name) + u64::from(self.target) + u64::from(self.xattrs)
    }

    /// 128 bytes.
    pub fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[0] = self.kind as u8;
        out[2..4].copy_from_slice(&self.mode.to_le_bytes());
        let words = [self.uid, self.gid, self.nlink, self.object, self.parent, self.first, self.children];
        for (slot, word) in out[4..32].chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        out[32..40].copy_from_slice(&self.rdev.to_le_bytes());
        out[40..48].copy_from_slice(&self.size.to_le_bytes());
        out[48..56].copy_from_slice(&self.mtime.to_le_bytes());
        out[56..60].copy_from_slice(&self.mtime_ns.to_le_bytes());
        out[60..62].copy_from_slice(&self.name.to_le_bytes());
        out[62..64].copy_from_slice(&self.target.to_le_bytes());
        out[64..68].copy_from_slice(&self.xattrs.to_le_bytes());
        out[68..76].copy_from_slice(&self.heap.to_le_bytes());
        out[76..108].copy_from_slice(&self.sha256);
        out
    }

    /// Parses them.
    ///
    /// # Errors
    /// [`Error::Kind`], [`Error::Reserved`], [`Error::Manifest`].
    pub fn decode(bytes: &[u8; LEN]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let kind = Kind::from_byte(r.u8()?)?;
        if r.u8()? != 0 {
            return Err(Error::Reserved);
        }
        let record = Self {
            kind,
            mode: r.u16()?,
            uid: r.u32()?,
            gid: r.u32()?,
            nlink: r.u32()?,
            object: r.u32()?,
            parent: r.u32()?,
            first: r.u32()?,
            children: r.u32()?,
            rdev: r.u64()?,
            size: r.u64()?,
            mtime: r.u64()? as i64,
            mtime_ns: r.u32()?,
            name: r.u16()?,
            target: r.u16()?,
            xattrs: r.u32()?,
            heap: r.u64()?,
            sha256: r.array()?,
        };
        r.zeros_to_end()?;
        demand(record.mode <= 0o7777, "mode")?;
        demand(record.mtime_ns < 1_000_000_000, "time")?;
        demand(kind == Kind::File || record.sha256 == [0; 32], "hash")?;
        demand(matches!(kind, Kind::File | Kind::Symlink) || record.size == 0, "size")?;
        demand(kind.is_device() || record.rdev == 0, "device")?;
        Ok(record)
    }
}
