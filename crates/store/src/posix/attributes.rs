//! stat, times and extended attributes, between the kernel's types and ours.

use std::io::Result;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Stat as RawStat, Statx, StatxFlags, StatxTimestamp, Timespec, Timestamps,
    UTIME_NOW, UTIME_OMIT, Uid, XattrFlags, makedev,
};
use rustix::io::Errno;

use super::shut::proc_path;
use crate::backend::{Kind, SetTime, Stat, Time, Xattrs};

/// The largest value and the largest list of names that Linux hands out.
const XATTR_MAX: usize = 65_536;

pub(super) fn kind(file_type: FileType) -> Option<Kind> {
    Some(match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Unknown => return None,
    })
}

#[expect(clippy::unnecessary_cast, reason = "widths of the fields differ between architectures")]
pub(super) fn stat(raw: &RawStat) -> Result<Stat> {
    let time = |sec: i64, nsec: u64| Time { sec, nsec: nsec as u32 };
    Ok(Stat {
        dev: raw.st_dev as u64,
        ino: raw.st_ino as u64,
        kind: kind(FileType::from_raw_mode(raw.st_mode)).ok_or(Errno::IO)?,
        mode: raw.st_mode & 0o7777,
        nlink: raw.st_nlink as u32,
        uid: raw.st_uid,
        gid: raw.st_gid,
        rdev: raw.st_rdev as u64,
        size: raw.st_size as u64,
        blocks: raw.st_blocks as u64,
        blksize: raw.st_blksize as u32,
        atime: time(raw.st_atime as i64, raw.st_atime_nsec as u64),
        mtime: time(raw.st_mtime as i64, raw.st_mtime_nsec as u64),
        ctime: time(raw.st_ctime as i64, raw.st_ctime_nsec as u64),
    })
}

/// `fstat` of an open file. Not of the time of the last access: over a network each read leaves it unknown, and
/// asking for it would be a round trip. What the kernel remembers of it is shown.
pub(super) fn ask(fd: &OwnedFd) -> rustix::io::Result<Statx> {
    let asked = StatxFlags::BASIC_STATS.difference(StatxFlags::ATIME);
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, asked)
}

/// [`stat`] of what [`ask`] gives.
pub(super) fn statx(raw: &Statx) -> Result<Stat> {
    let time = |at: &StatxTimestamp| Time { sec: at.tv_sec, nsec: at.tv_nsec };
    Ok(Stat {
        dev: makedev(raw.stx_dev_major, raw.stx_dev_minor),
        ino: raw.stx_ino,
        kind: kind(FileType::from_raw_mode(raw.stx_mode.into())).ok_or(Errno::IO)?,
        mode: u32::from(raw.stx_mode) & 0o7777,
        nlink: raw.stx_nlink,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        rdev: makedev(raw.stx_rdev_major, raw.stx_rdev_minor),
        size: raw.stx_size,
        blocks: raw.stx_blocks,
        blksize: raw.stx_blksize,
        atime: time(&raw.stx_atime),
        mtime: time(&raw.stx_mtime),
        ctime: time(&raw.stx_ctime),
    })
}

pub(super) fn timestamps(atime: SetTime, mtime: SetTime) -> Timestamps {
    let spec = |time| match time {
        SetTime::Omit => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        SetTime::Now => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        SetTime::At(Time { sec, nsec }) => Timespec { tv_sec: sec, tv_nsec: nsec.into() },
    };
    Timestamps { last_access: spec(atime), last_modification: spec(mtime) }
}

pub(super) fn owner(uid: Option<u32>, gid: Option<u32>) -> (Option<Uid>, Option<Gid>) {
    // All ones mean "leave it" to the kernel, as `None` does.
    let given = |id: Option<u32>| id.filter(|id| *id != u32::MAX);
    (given(uid).map(Uid::from_raw), given(gid).map(Gid::from_raw))
}

/// Fills a buffer that is as large as needed; `call` gives ERANGE while it is too small.
fn read_all(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < XATTR_MAX => buffer = vec![0; XATTR_MAX],
            Err(error) => return Err(error.into()),
        }
    }
}

fn split_names(list: &[u8]) -> Vec<Vec<u8>> {
    list.split(|b| *b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

/// Extended attributes by a descriptor that is open for more than O_PATH.
pub(super) struct OfFd<F>(pub(super) F);

impl<F: AsFd> Xattrs for OfFd<F> {
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        read_all(|buffer| rustix::fs::fgetxattr(&self.0, name, buffer))
    }
    fn xattrs(&self) -> Result<Vec<Vec<u8>>> {
        Ok(split_names(&read_all(|buffer| rustix::fs::flistxattr(&self.0, buffer))?))
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        Ok(rustix::fs::fsetxattr(&self.0, name, value, xattr_flags(flags))?)
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        Ok(rustix::fs::fremovexattr(&self.0, name)?)
    }
}

/// Extended attributes of an entry of any kind, by an O_PATH handle on it.
pub(super) struct OfEntry {
    /// Keeps the number in `path` ours.
    _handle: OwnedFd,
    path: String,
}

impl OfEntry {
    pub(super) fn new(handle: OwnedFd) -> Self {
        let path = proc_path(&handle);
        Self { _handle: handle, path }
    }
}

impl Xattrs for OfEntry {
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        read_all(|buffer| rustix::fs::getxattr(&*self.path, name, buffer))
    }
    fn xattrs(&self) -> Result<Vec<Vec<u8>>> {
        Ok(split_names(&read_all(|buffer| rustix::fs::listxattr(&*self.path, buffer))?))
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        Ok(rustix::fs::setxattr(&*self.path, name, value, xattr_flags(flags))?)
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        Ok(rustix::fs::removexattr(&*self.path, name)?)
    }
}

fn xattr_flags(flags: i32) -> XattrFlags {
    XattrFlags::from_bits_retain(flags.cast_unsigned())
}
