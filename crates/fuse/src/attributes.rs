//! The engine's attributes and times as fuser's, and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, Generation, INodeNo, TimeOrNow};
use runvault_store::backend::{Kind, SetTime, Time};
use runvault_vault::api::{Attr, Ino};

/// How soon a mount sees what others do.
const SHARED: Duration = Duration::from_secs(1);

/// As long as one likes, for what only this mount changes.
const OURS: Duration = Duration::from_secs(3600);

/// How long the kernel may believe them.
pub(crate) fn kept(attr: &Attr) -> Duration {
    // Writes take set-id bits away, and the kernel asks for size and times only after one.
    let fleeting = attr.kind == Kind::File && attr.mode & 0o6000 != 0;
    match attr.ours {
        true if fleeting => Duration::ZERO,
        true => OURS,
        // A read goes past a size that the kernel believes, and who asks for the size then would find it cut.
        false if attr.open => Duration::ZERO,
        false => SHARED,
    }
}

/// What `stat` will show.
pub(crate) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        // The kernel's 32-bit encoding is the low half of the C library's 64 bits.
        rdev: attr.rdev as u32,
        blksize: attr.blksize,
        flags: 0,
    }
}

/// For a name whose attributes a listing does not carry: `.` and `..`, of which the kernel takes number
/// and type and no reference, and what is damaged.
pub(crate) fn bare(ino: Ino, kind: Kind) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: file_type(kind),
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

pub(crate) fn generation(attr: &Attr) -> Generation {
    Generation(attr.generation)
}

pub(crate) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// The type in mknod's `mode`; `None` for what mknod does not make.
pub(crate) fn node_kind(mode: u32) -> Option<Kind> {
    match mode & libc::S_IFMT {
        // mknod(2): zero means a regular file.
        0 | libc::S_IFREG => Some(Kind::File),
        libc::S_IFIFO => Some(Kind::Fifo),
        libc::S_IFSOCK => Some(Kind::Socket),
        libc::S_IFCHR => Some(Kind::CharDevice),
        libc::S_IFBLK => Some(Kind::BlockDevice),
        _ => None,
    }
}

/// The epoch for an instant that no clock shows.
fn system_time(time: Time) -> SystemTime {
    let nanoseconds = Duration::from_nanos(u64::from(time.nsec));
    let whole = Duration::from_secs(time.sec.unsigned_abs());
    let seconds = if time.sec >= 0 { UNIX_EPOCH.checked_add(whole) } else { UNIX_EPOCH.checked_sub(whole) };
    seconds.and_then(|s| s.checked_add(nanoseconds)).unwrap_or(UNIX_EPOCH)
}

/// What `setattr` asks for one of the times.
pub(crate) fn set_time(time: Option<TimeOrNow>) -> SetTime {
    match time {
        None => SetTime::Omit,
        Some(TimeOrNow::Now) => SetTime::Now,
        Some(TimeOrNow::SpecificTime(time)) => SetTime::At(time_from_fuser(time)),
    }
}

/// The instant that the kernel sent.
///
/// fuser 0.18 (`time.rs`, `system_time_from_time`) takes nanoseconds off instants before 1970, where
/// they are to be added: -2 s + 800 ms arrives as -2.8 s. Undone here; the workspace pins the version,
/// and a mount test sets such a time.
fn time_from_fuser(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => {
            Time { sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX), nsec: after.subsec_nanos() }
        }
        Err(before) => {
            let before = before.duration();
            Time { sec: 0i64.saturating_sub_unsigned(before.as_secs()), nsec: before.subsec_nanos() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let time = Time { sec: -2, nsec: 800_000_000 };
        assert_eq!(system_time(time), UNIX_EPOCH - Duration::from_millis(1200));
        let as_fuser_sends_it = UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(time_from_fuser(as_fuser_sends_it), time);
    }

    #[test]
    fn times_after_1970_pass_through() {
        let time = Time { sec: 1_700_000_000, nsec: 1 };
        assert_eq!(time_from_fuser(system_time(time)), time);
    }

    #[test]
    fn an_impossible_time_is_the_epoch_and_no_panic() {
        assert_eq!(system_time(Time { sec: i64::MAX, nsec: u32::MAX }), UNIX_EPOCH);
    }

    #[test]
    fn mknod_makes_no_directory() {
        assert_eq!(node_kind(libc::S_IFDIR | 0o755), None);
        assert_eq!(node_kind(libc::S_IFLNK), None);
        assert_eq!(node_kind(0o644), Some(Kind::File));
        assert_eq!(node_kind(libc::S_IFIFO | 0o644), Some(Kind::Fifo));
    }
}
