//! Attaching to the kernel and detaching again.
//!
//! fuser can mount too, but in 0.18 its unmount acts on the path without looking whose mount is there
//! (`is_mounted` is true also for one that has gone): an automount that came back in the meantime would
//! be torn down. It also cannot tell a missing device from a refusal. So this is ours, and fuser is
//! given the device.

use std::ffi::CString;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use runvault_vault::apart;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{getegid, geteuid};

use crate::options::{fusermount_options, mount_flags};
use crate::{Error, MountOptions};

const DEVICE: &str = "/dev/fuse";
const HELPER: &str = "fusermount3";

/// Pages of read-ahead, in KiB; INIT can only lower the kernel's 128.
const READ_AHEAD_KIB: &str = "1024";

/// A place that shows our mount.
pub(crate) struct Mount {
    path: PathBuf,
    identity: Identity,
}

/// What the kernel calls a mount, so that nothing else is ever unmounted.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: (u32, u32),
    id: u64,
    /// The id is never given again (Linux 6.8 on); else both may be, once the mount has gone.
    unique: bool,
}

/// Mounts at `at`. The descriptor is for the session; the mount answers once that has begun.
///
/// # Errors
/// All of [`Error`].
pub(crate) fn attach(at: &Path, options: &MountOptions) -> Result<(OwnedFd, Mount), Error> {
    let refused = |source| Error::MountPoint { path: at.to_owned(), source };
    let path = at.canonicalize().map_err(refused)?;
    if !path.is_dir() {
        return Err(refused(io::ErrorKind::NotADirectory.into()));
    }
    let fuse =
        if geteuid().is_root() { mount_directly(&path, options) } else { mount_by_helper(&path, options) }?;
    let identity = identity_at(&path).map_err(Error::Mount)?;
    Ok((fuse, Mount { path, identity }))
}

fn mount_directly(path: &Path, options: &MountOptions) -> Result<OwnedFd, Error> {
    let flags = mount_flags(options)?;
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::NoDevice(e.into()))?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        geteuid().as_raw(),
        getegid().as_raw()
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let data = CString::new(data).map_err(|e| Error::Mount(e.into()))?;
    match rustix::mount::mount(options.source.as_str(), path, "fuse.runvault", flags, data.as_c_str()) {
        Ok(()) => Ok(device),
        // The device file is there, the file system is not: a kernel without the module.
        Err(e @ Errno::NODEV) => Err(Error::NoDevice(e.into())),
        Err(e) => Err(Error::Mount(e.into())),
    }
}

/// fusermount3 is set-uid root: it mounts, and sends the device over a socket, here its stdin.
fn mount_by_helper(path: &Path, options: &MountOptions) -> Result<OwnedFd, Error> {
    if !Path::new(DEVICE).exists() {
        return Err(Error::NoDevice(Errno::NOENT.into()));
    }
    let (ours, its) = UnixStream::pair().map_err(Error::Mount)?;
    let mut helper = Command::new(HELPER)
        .arg("-o")
        .arg(fusermount_options(options)?)
        .arg("--")
        .arg(path)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(its)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(
            |e| if e.kind() == io::ErrorKind::NotFound { Error::NoFusermount } else { Error::Mount(e) },
        )?;
    let device = receive_descriptor(&ours);
    let mut said = String::new();
    if let Some(stderr) = &mut helper.stderr {
        let _ = stderr.take(4096).read_to_string(&mut said);
    }
    let _ = helper.wait();
    match device {
        Ok(Some(device)) => Ok(device),
        Ok(None) => Err(refusal(&said)),
        Err(e) => Err(Error::Mount(e)),
    }
}

/// What fusermount3 said, as one of ours; its own words where they are none of those.
fn refusal(said: &str) -> Error {
    if said.contains("user_allow_other") {
        Error::AllowOtherForbidden
    } else if said.contains("device not found") {
        Error::NoDevice(Errno::NOENT.into())
    } else if said.contains("failed to open /dev/fuse") {
        // It opens the device as the user.
        Error::NoDevice(Errno::ACCESS.into())
    } else {
        let said = said.trim().trim_start_matches("fusermount3: ");
        Error::Mount(io::Error::other(if said.is_empty() { "fusermount3 failed" } else { said }.to_owned()))
    }
}

/// `None`: the other end closed without sending one.
fn receive_descriptor(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}

impl Mount {
    /// Takes it off the tree, lazily when something still uses it. Nothing is done when it has gone, or
    /// something else was mounted over it. `ended`: the session has, so that on an older kernel a mount
    /// that looks like ours is taken for another's.
    ///
    /// # Errors
    /// The kernel or fusermount3 refused.
    pub(crate) fn detach(&self, ended: bool) -> io::Result<()> {
        if !self.is_there() || (ended && !self.identity.unique) {
            return Ok(());
        }
        match unmount(&self.path, UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(Errno::BUSY) => Ok(unmount(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?),
            Err(Errno::PERM) => self.detach_by_helper(),
            Err(e) => Err(e.into()),
        }
    }

    fn detach_by_helper(&self) -> io::Result<()> {
        let mut helper = Command::new(HELPER);
        helper.args(["-u", "-z", "--"]).arg(&self.path).stdin(Stdio::null()).stdout(Stdio::null());
        let said = apart(|| helper.output())??;
        if said.status.success() || !self.is_there() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&said.stderr).trim().to_owned()))
    }

    fn is_there(&self) -> bool {
        identity_at(&self.path).is_ok_and(|identity| identity == self.identity)
    }

    /// Best effort: the file is root's, and containers mount /sys read-only.
    pub(crate) fn raise_read_ahead(&self) {
        let (major, minor) = self.identity.device;
        let file = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
        if let Err(e) = std::fs::write(&file, READ_AHEAD_KIB) {
            log::info!("read-ahead stays at the kernel's default: {file}: {e}");
        }
    }
}

/// Asks the kernel alone, not the file system, which may be ours and not answer yet.
fn identity_at(path: &Path) -> io::Result<Identity> {
    /// STATX_MNT_ID_UNIQUE, which rustix 1.1 does not name.
    const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT | AtFlags::SYMLINK_NOFOLLOW;
    let stat = statx(CWD, path, flags, StatxFlags::MNT_ID | UNIQUE)?;
    Ok(Identity {
        device: (stat.stx_dev_major, stat.stx_dev_minor),
        id: stat.stx_mnt_id,
        unique: stat.stx_mask & UNIQUE.bits() != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_fusermount_are_told_apart() {
        let forbidden =
            "fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf";
        assert!(matches!(refusal(forbidden), Error::AllowOtherForbidden));
        assert!(matches!(
            refusal("fusermount3: fuse device not found, try 'modprobe fuse' first"),
            Error::NoDevice(e) if e.kind() == io::ErrorKind::NotFound
        ));
        assert!(matches!(
            refusal("fusermount3: failed to open /dev/fuse: Permission denied"),
            Error::NoDevice(e) if e.kind() == io::ErrorKind::PermissionDenied
        ));
        let other = refusal("fusermount3: mount failed: Operation not permitted\n");
        assert_eq!(other.to_string(), "mount: mount failed: Operation not permitted");
    }

    #[test]
    fn a_missing_mount_point_is_named() {
        let options = MountOptions {
            source: "s".into(),
            allow_other: false,
            options: vec![],
            threads: 2,
            local_store: true,
            stuck_after: std::time::Duration::from_secs(1),
            max_nodes: u64::MAX,
        };
        let missing = Path::new("/nonexistent/mount point");
        let Err(Error::MountPoint { path, source }) = attach(missing, &options) else { panic!() };
        assert_eq!((path.as_path(), source.kind()), (missing, io::ErrorKind::NotFound));
        let Err(Error::MountPoint { source, .. }) = attach(Path::new("/dev/null"), &options) else {
            panic!()
        };
        assert_eq!(source.kind(), io::ErrorKind::NotADirectory);
    }
}
