//! Where the sockets lie, and whose are taken for a mount's.

use std::cmp::Reverse;
use std::fs::{DirBuilder, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// What the names of a device number's sockets begin with.
pub(super) fn prefix(device: &str) -> String {
    format!("{}.", device.replace(':', "-"))
}

/// The sockets of a device number; mostly one. The newest first: an older process that does not answer keeps nobody from
/// the one that serves the mount.
pub(super) fn sockets(folder: &Path, device: &str) -> Vec<PathBuf> {
    let prefix = prefix(device);
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = names
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| (Reverse(entry.metadata().and_then(|meta| meta.modified()).ok()), entry.path()))
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// What killed processes left under a number that is now another mount's.
pub(super) fn remove_dead(folder: &Path, device: &str) {
    for name in sockets(folder, device) {
        let refused = in_folder(&name, UnixStream::connect)
            .is_err_and(|e| io_kind(&e) == Some(std::io::ErrorKind::ConnectionRefused));
        if refused {
            // Gone already is as good.
            let _ = std::fs::remove_file(name);
        }
    }
}

fn io_kind(error: &anyhow::Error) -> Option<std::io::ErrorKind> {
    error.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
}

/// Where a user's sockets may lie, the best place first.
pub(super) fn runtime_folders(user: u32) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if user == 0 {
        folders.push(PathBuf::from("/run/runvault"));
    } else {
        folders.push(PathBuf::from(format!("/run/user/{user}/runvault")));
    }
    folders.push(PathBuf::from(format!("/tmp/runvault-{user}")));
    folders
}

/// Makes the folder, or takes one that is this user's alone.
pub(super) fn make_private(folder: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e.into()),
    }
    let meta = std::fs::symlink_metadata(folder)?;
    let private =
        meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o077 == 0;
    if private { Ok(()) } else { bail!("{}: not a private folder of this user", folder.display()) }
}

/// Calls with a name short enough for a socket address (108 bytes), whatever the folder's path is.
pub fn in_folder<T>(name: &Path, call: impl FnOnce(PathBuf) -> std::io::Result<T>) -> Result<T> {
    let (folder, base) = name.parent().zip(name.file_name()).context("a socket has a folder and a name")?;
    let handle = File::open(folder)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd())).join(base);
    Ok(call(short)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn dead_sockets_of_a_number_go_and_live_ones_stay() {
        let tmp = tempfile::tempdir().unwrap();
        let (dead, live, other) = ("0-52.1.sock", "0-52.2.sock", "0-5.1.sock");
        drop(UnixListener::bind(tmp.path().join(dead)).unwrap());
        drop(UnixListener::bind(tmp.path().join(other)).unwrap());
        let _live = UnixListener::bind(tmp.path().join(live)).unwrap();
        remove_dead(tmp.path(), "0:52");
        assert_eq!(sockets(tmp.path(), "0:52"), [tmp.path().join(live)]);
        assert_eq!(sockets(tmp.path(), "0:5"), [tmp.path().join(other)]);
    }

    #[test]
    fn the_newest_socket_of_a_number_is_asked_first() {
        let tmp = tempfile::tempdir().unwrap();
        let places = ["0-52.1.sock", "0-52.3.sock", "0-52.2.sock"].map(|name| tmp.path().join(name));
        for (n, place) in places.iter().enumerate() {
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(n as u64);
            File::create(place).and_then(|file| file.set_modified(at)).unwrap();
        }
        assert!(sockets(tmp.path(), "0:52").iter().eq(places.iter().rev()));
    }

    #[test]
    fn a_folder_that_others_may_enter_is_not_used() {
        let tmp = tempfile::tempdir().unwrap();
        let open = tmp.path().join("open");
        DirBuilder::new().mode(0o755).create(&open).unwrap();
        assert!(make_private(&open).is_err());
        assert!(make_private(&tmp.path().join("new")).is_ok());
    }
}
