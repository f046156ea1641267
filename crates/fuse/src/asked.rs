//! What a kernel call asks, in the engine's words.

use fuser::{Errno, RenameFlags, ReplyXattr, Request};
use runvault_store::backend::Rename;
use runvault_vault::api::{Allocate, Caller, OpenFlags};

pub(crate) fn caller(request: &Request, umask: u32) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid(), umask }
}

/// Whether a change of contents strips suid and sgid.
///
/// The kernel decides by CAP_FSETID and says so in FUSE_OPEN_KILL_SUIDGID and FATTR_KILL_SUIDGID; fuser
/// 0.18 hands on neither, and FALLOCATE has no such word. Root stands for the capability: a capable user who is not root loses a bit
/// that it could have kept, which is the safe way to be wrong.
pub(crate) fn strips(request: &Request) -> bool {
    request.uid() != 0
}

pub(crate) fn open_flags(request: &Request, flags: i32) -> OpenFlags {
    let access = flags & libc::O_ACCMODE;
    let truncate = flags & libc::O_TRUNC != 0;
    OpenFlags {
        read: access != libc::O_WRONLY,
        write: access != libc::O_RDONLY,
        truncate,
        append: flags & libc::O_APPEND != 0,
        kill_suidgid: truncate && strips(request),
    }
}

pub(crate) fn allocation(mode: i32) -> Option<Allocate> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = ZERO | KEEP;
    match mode {
        0 => Some(Allocate::Plain),
        KEEP => Some(Allocate::KeepSize),
        PUNCH => Some(Allocate::PunchHole),
        ZERO => Some(Allocate::ZeroRange { keep_size: false }),
        ZERO_KEEP => Some(Allocate::ZeroRange { keep_size: true }),
        _ => None,
    }
}

pub(crate) fn rename_how(flags: RenameFlags) -> Option<Rename> {
    if flags.is_empty() {
        Some(Rename::Over)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Some(Rename::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Some(Rename::Exchange)
    } else {
        None
    }
}

/// The two steps of getxattr and listxattr: size 0 asks how long the answer would be.
pub(crate) fn sized(reply: ReplyXattr, size: u32, value: &[u8]) {
    match u32::try_from(value.len()) {
        Ok(len) if size == 0 => reply.size(len),
        Ok(len) if len <= size => reply.data(value),
        Ok(_) => reply.error(Errno::ERANGE),
        Err(_) => reply.error(Errno::E2BIG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_four_ways_to_allocate_exist() {
        let (keep, punch) = (libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_PUNCH_HOLE);
        assert_eq!(allocation(0), Some(Allocate::Plain));
        assert_eq!(allocation(keep), Some(Allocate::KeepSize));
        assert_eq!(allocation(punch | keep), Some(Allocate::PunchHole));
        assert_eq!(allocation(libc::FALLOC_FL_ZERO_RANGE), Some(Allocate::ZeroRange { keep_size: false }));
        assert_eq!(
            allocation(libc::FALLOC_FL_ZERO_RANGE | keep),
            Some(Allocate::ZeroRange { keep_size: true })
        );
        for mode in [punch, libc::FALLOC_FL_COLLAPSE_RANGE, libc::FALLOC_FL_INSERT_RANGE, -1] {
            assert_eq!(allocation(mode), None, "{mode}");
        }
    }

    #[test]
    fn a_rename_is_one_of_three() {
        assert_eq!(rename_how(RenameFlags::empty()), Some(Rename::Over));
        assert_eq!(rename_how(RenameFlags::RENAME_NOREPLACE), Some(Rename::NoReplace));
        assert_eq!(rename_how(RenameFlags::RENAME_EXCHANGE), Some(Rename::Exchange));
        assert_eq!(rename_how(RenameFlags::RENAME_WHITEOUT), None);
        assert_eq!(rename_how(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_NOREPLACE), None);
    }
}
