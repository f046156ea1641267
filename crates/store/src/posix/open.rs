//! Opening one component beneath a directory.

use std::io::{Error, Result};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{attributes, shut};
use crate::backend::{Access, Kind, Stat};

/// Where the kernel (before 5.6) or a seccomp filter has no openat2.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// A name that can leave its directory, or that no directory can hold, is EINVAL.
pub(super) fn component(name: &[u8]) -> Result<&[u8]> {
    let bad = matches!(name, b"" | b"." | b"..") || name.iter().any(|b| matches!(b, 0 | b'/'));
    if bad { Err(Errno::INVAL.into()) } else { Ok(name) }
}

/// openat2 of one component, never following a symlink, nor into another file system: EXDEV.
pub(super) fn beneath(
    dir: BorrowedFd<'_>,
    name: &[u8],
    flags: OFlags,
    mode: u32,
) -> rustix::io::Result<OwnedFd> {
    // openat2 refuses flags that mean nothing for O_PATH.
    let terminal = if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NOCTTY };
    let flags = flags | terminal | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(mode);
    if !NO_OPENAT2.load(Ordering::Relaxed) {
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
        // O_PATH | O_NOFOLLOW asks for the symlink itself, which NO_SYMLINKS would refuse.
        let nofollow = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let resolve = if flags.contains(OFlags::PATH) { within } else { within | nofollow };
        match retry_on_intr(|| rustix::fs::openat2(dir, name, flags, mode, resolve)) {
            Err(Errno::NOSYS | Errno::PERM) => NO_OPENAT2.store(true, Ordering::Relaxed),
            // A rename elsewhere made the kernel unsure that this stayed beneath.
            Err(Errno::AGAIN) => {}
            done => return done,
        }
    }
    // One checked component and NOFOLLOW: there is nothing else that openat could resolve.
    retry_on_intr(|| rustix::fs::openat(dir, name, flags, mode))
}

/// A handle on whatever the name stands for, opened for nothing.
pub(super) fn handle(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    shut::within(&[dir], || beneath(dir, name, OFlags::PATH, 0))
}

pub(super) fn directory(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    match beneath(dir, name, flags, 0) {
        Err(Errno::ACCESS) => shut::open(dir, name, flags, 0o700),
        done => Ok(done?),
    }
}

/// Looks before it opens: opening alone can already act on a device. What is exchanged in between
/// is refused after it, and O_NONBLOCK keeps a fifo from holding us.
pub(super) fn regular_file(dir: BorrowedFd<'_>, name: &[u8], access: Access) -> Result<(OwnedFd, Stat)> {
    let found = shut::within(&[dir], || rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW))?;
    require_regular(attributes::kind(FileType::from_raw_mode(found.st_mode)))?;
    let (flags, needed) = match access {
        Access::Read => (OFlags::RDONLY, 0o400),
        Access::ReadWrite => (OFlags::RDWR, 0o600),
    };
    let flags = flags | OFlags::NONBLOCK;
    let fd = match beneath(dir, name, flags, 0) {
        Err(Errno::ACCESS) => shut::open(dir, name, flags, needed)?,
        Err(Errno::NXIO) => return Err(Errno::INVAL.into()),
        done => done?,
    };
    let stat = attributes::statx(&attributes::ask(&fd)?)?;
    require_regular(Some(stat.kind))?;
    Ok((fd, stat))
}

fn require_regular(kind: Option<Kind>) -> Result<()> {
    let refusal = match kind {
        Some(Kind::File) => return Ok(()),
        Some(Kind::Symlink) => Errno::LOOP,
        Some(Kind::Dir) => Errno::ISDIR,
        _ => Errno::INVAL,
    };
    Err(Error::from(refusal))
}
