//! The mount point: refused unless it is an empty directory apart from the store; unmounted again.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use runvault_vault::apart;
use rustix::fs::{AtFlags, CWD, FileType, IFlags, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::mount::UnmountFlags;

use crate::exit::{Exit, refuse, refuse_with};
use crate::mount_table;
use crate::output::{quoted, shown};

/// Checks the mount point against the store; both come back canonical.
///
/// # Errors
/// Exit 2, saying which: missing, no directory, mounted already, not empty, inside the store, the store
/// itself, the store inside it.
pub fn check(mount_point: &Path, store: &Path) -> Result<(PathBuf, PathBuf)> {
    let name = shown(mount_point);
    let store = store.canonicalize().map_err(|e| crate::store::no_store(store, &e))?;
    refuse_if_mounted(&absolute(mount_point)?, &name)?;
    let at = mount_point.canonicalize().map_err(|e| missing(mount_point, &store, &name, &e))?;
    refuse_if_mounted(&at, &name)?;
    if !at.is_dir() {
        return Err(refuse(Exit::Usage, format!("mount point {name}: not a directory")));
    }
    refuse_if_nested(&at, &store, &name)?;
    let mut entries =
        std::fs::read_dir(&at).map_err(|e| refuse(Exit::Usage, format!("mount point {name}: {e}")))?;
    if entries.next().is_some() {
        return Err(refuse_with(
            Exit::Usage,
            format!("mount point {name}: not empty"),
            "what is in it would be hidden: name an empty directory",
        ));
    }
    Ok((at, store))
}

/// Held from a last look at the mount point until it is mounted: of two mounts at once, the later is refused.
///
/// # Errors
/// Exit 5 if another one is under way, exit 2 if something is mounted there by now.
pub fn turn(at: &Path) -> Result<Option<File>> {
    // Who may not read the directory takes no turn; the look remains.
    let turn = File::open(at).ok();
    if let Some(file) = &turn
        && matches!(file.try_lock(), Err(TryLockError::WouldBlock))
    {
        let locked = locked_by(file).unwrap_or_else(|| "locked (flock) by another process".to_owned());
        return Err(refuse_with(
            Exit::Busy,
            format!("mount point {}: {locked}", shown(at)),
            "a mount that begins there holds the lock for a moment; anything else that does must let go of it first",
        ));
    }
    refuse_if_mounted(at, &shown(at))?;
    Ok(turn)
}

/// Which process holds a flock on a file, and its command, where /proc/locks shows it: a line is
/// `n: FLOCK ADVISORY WRITE pid major:minor:inode from to`.
fn locked_by(file: &File) -> Option<String> {
    let meta = file.metadata().ok()?;
    let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", meta.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let flock = fields.next() == Some("FLOCK");
        let pid: u32 = fields.nth(2)?.parse().ok().filter(|pid| *pid != 0)?;
        (flock && fields.next() == Some(&place)).then_some(pid)
    })?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = command.split(|b| *b == 0).filter(|word| !word.is_empty()).collect();
    let colon = if words.is_empty() { "" } else { ": " };
    Some(format!("locked (flock) by process {pid}{colon}{}", crate::output::visible(&words.join(&b' '))))
}

fn missing(at: &Path, store: &Path, name: &str, error: &io::Error) -> anyhow::Error {
    let path = absolute(at).unwrap_or_default();
    let there = path.ancestors().find_map(|path| path.canonicalize().ok());
    if there.is_some_and(|there| there.starts_with(store)) {
        return inside(store, name);
    }
    match error.raw_os_error() {
        Some(libc::ENOENT) => refuse_with(
            Exit::Usage,
            format!("mount point {name}: missing"),
            format!("mkdir -p {}", quoted(at)),
        ),
        _ => refuse(Exit::Usage, format!("mount point {name}: {error}")),
    }
}

fn refuse_if_mounted(at: &Path, name: &str) -> Result<()> {
    let Some(entry) = mount_table::at(at)? else { return Ok(()) };
    let what = if entry.is_vault() {
        format!("the vault {} is mounted there already", shown(&entry.source))
    } else {
        format!("mounted already ({})", entry.fs_type)
    };
    let dead = matches!(std::fs::metadata(at), Err(e) if entry.is_vault() && e.raw_os_error() == Some(libc::ENOTCONN));
    if dead {
        let advice = format!("its process is gone; clear it away first: runvault unmount {}", quoted(at));
        return Err(refuse_with(Exit::Usage, format!("mount point {name}: a dead mount"), advice));
    }
    Err(refuse(Exit::Usage, format!("mount point {name}: {what}")))
}

/// By device and inode of every ancestor, so that bind mounts and symlinks cannot hide it.
fn inside(store: &Path, name: &str) -> anyhow::Error {
    refuse(Exit::Usage, format!("mount point {name}: inside the store {}", shown(store)))
}

fn refuse_if_nested(at: &Path, store: &Path, name: &str) -> Result<()> {
    let of = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino()));
    let (mount_id, store_id) = (of(at)?, of(store)?);
    if mount_id == store_id {
        return Err(refuse(Exit::Usage, format!("mount point {name}: this is the store itself")));
    }
    let above = |path: &Path, id| path.ancestors().skip(1).any(|p| of(p).is_ok_and(|found| found == id));
    if above(at, store_id) {
        return Err(inside(store, name));
    }
    if above(store, mount_id) {
        let what = format!("mount point {name}: the store {} is inside it and would be hidden", shown(store));
        return Err(refuse(Exit::Usage, what));
    }
    Ok(())
}

/// The path made absolute by its text alone: canonicalising would already call a hung mount.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    let joined = std::path::absolute(path).with_context(|| shown(path))?;
    let mut clean = PathBuf::new();
    for part in joined.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    Ok(clean)
}

/// Closes the bare directory, so that nothing lands in it while no vault is mounted there: mode 0000, and immutable,
/// which stops root too, where the file system can. It stays so: `chattr -i` opens it again. Root's alone: a user's
/// mount needs a directory that the user may write.
pub fn close_bare(at: &Path) {
    if !rustix::process::geteuid().is_root() {
        log::warn!("{}: only root can close the bare mount point to writers", shown(at));
        return;
    }
    if let Err(error) = try_close(at) {
        log::warn!(
            "{}: the bare mount point is not closed to root ({error}): stop what writes there before the mount ends",
            shown(at)
        );
    }
}

fn try_close(at: &Path) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(at, flags, Mode::empty())?;
    let attributes = rustix::fs::ioctl_getflags(&dir);
    if attributes.is_ok_and(|found| found.contains(IFlags::IMMUTABLE)) {
        return Ok(());
    }
    rustix::fs::fchmod(&dir, Mode::empty())?;
    rustix::fs::ioctl_setflags(&dir, attributes? | IFlags::IMMUTABLE)
}

/// The command that opens a bare mount point again; `None`: it is open, or not closed by [`close_bare`].
pub fn opened_by(at: &Path) -> Option<String> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let found = rustix::fs::statx(CWD, at, flags, StatxFlags::TYPE | StatxFlags::MODE).ok()?;
    let closed = found.stx_mode & 0o7777 == 0 && FileType::from_raw_mode(found.stx_mode.into()).is_dir();
    let immutable = found.stx_attributes.contains(StatxAttributes::IMMUTABLE);
    let at = quoted(at);
    let first = if immutable { format!("chattr -i {at} && ") } else { String::new() };
    closed.then(|| format!("{first}chmod 755 {at}"))
}

/// What became of an attempt to unmount.
#[derive(Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// It is gone.
    Done,
    /// Someone has a file or directory of it open.
    InUse,
}

/// Unmounts, unless it is in use: by the system call for root, by fusermount3 for others.
///
/// # Errors
/// Anything but "in use".
pub fn unmount(at: &Path) -> Result<Unmounted> {
    match rustix::mount::unmount(at, UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(Unmounted::Done),
        Err(rustix::io::Errno::BUSY) => Ok(Unmounted::InUse),
        Err(rustix::io::Errno::PERM) => by_fusermount(at),
        Err(e) => Err(anyhow::Error::from(io::Error::from(e)).context(format!("unmount {}", shown(at)))),
    }
}

fn by_fusermount(at: &Path) -> Result<Unmounted> {
    let mut command = Command::new("fusermount3");
    command.arg("-u").arg("--").arg(at).stdin(Stdio::null());
    let output = apart(|| command.output()).flatten().map_err(|e| {
        refuse_with(
            Exit::Failed,
            format!("fusermount3 could not be started: {e}"),
            "install the package fuse3",
        )
    })?;
    if output.status.success() {
        return Ok(Unmounted::Done);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("busy") {
        return Ok(Unmounted::InUse);
    }
    Err(refuse(
        Exit::Failed,
        format!("unmount {}: {}", shown(at), crate::output::visible(said.trim().as_bytes())),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(mount_point: &Path, store: &Path) -> String {
        let error = check(mount_point, store).unwrap_err();
        assert_eq!(crate::exit::of(&error), Exit::Usage);
        error.to_string()
    }

    #[test]
    fn each_unusable_mount_point_is_named() {
        let tmp = tempfile::tempdir().unwrap();
        let store = tmp.path().join("store");
        let inside = store.join("in");
        let full = tmp.path().join("full");
        let file = tmp.path().join("file");
        let good = tmp.path().join("good");
        for dir in [&inside, &full.join("x"), &good] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::fs::write(&file, b"").unwrap();
        assert!(refused(&tmp.path().join("none"), &store).ends_with("missing"));
        assert!(refused(&file, &store).ends_with("not a directory"));
        assert!(refused(&full, &store).ends_with("not empty"));
        assert!(refused(&inside, &store).contains("inside the store"));
        assert!(refused(&store, &store).ends_with("the store itself"));
        assert!(refused(tmp.path(), &store).contains("is inside it"));
        assert!(refused(Path::new("/proc"), &store).contains("mounted already"));
        std::os::unix::fs::symlink(&inside, tmp.path().join("link")).unwrap();
        assert!(refused(&tmp.path().join("link"), &store).contains("inside the store"));
        assert!(check(&good, &store).is_ok());
    }

    #[test]
    fn a_missing_store_is_a_failure_not_a_usage_error() {
        let tmp = tempfile::tempdir().unwrap();
        let error = check(tmp.path(), &tmp.path().join("none")).unwrap_err();
        assert_eq!(crate::exit::of(&error), Exit::Failed);
    }

    #[test]
    fn who_holds_a_locked_mount_point_is_named() {
        let tmp = tempfile::tempdir().unwrap();
        let mut holder =
            Command::new("flock").arg("-F").arg(tmp.path()).args(["sleep", "60"]).spawn().unwrap();
        let begin = std::time::Instant::now();
        let error = loop {
            match turn(tmp.path()) {
                Err(error) => break error,
                Ok(_) => assert!(begin.elapsed() < std::time::Duration::from_secs(20), "it locks nothing"),
            }
        };
        let (code, text) = (crate::exit::of(&error), error.to_string());
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert_eq!(code, Exit::Busy);
        assert!(text.contains(&format!("process {}: ", holder.id())), "{text}");
    }

    #[test]
    fn dots_go_by_text() {
        assert_eq!(absolute(Path::new("/a/./b/../c/")).unwrap(), Path::new("/a/c"));
    }
}
