//! What its own mode shuts its owner out of still works for a user other than root.

use std::os::unix::fs::{PermissionsExt, chown};

use runvault_store::backend::{Access, Kind, Rename};
use runvault_store::posix;
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

const NOBODY: u32 = 65_534;

/// Runs in a thread that is nobody where the test runs as root; Linux keeps ids by thread.
fn as_nobody(test: impl FnOnce() + Send) {
    let place_owner = rustix::process::geteuid();
    std::thread::scope(|scope| {
        let outcome = scope
            .spawn(|| {
                if place_owner.is_root() {
                    let (uid, gid) =
                        (rustix::process::Uid::from_raw(NOBODY), rustix::process::Gid::from_raw(NOBODY));
                    set_thread_res_gid(gid, gid, gid).unwrap();
                    set_thread_res_uid(uid, uid, uid).unwrap();
                }
                test();
            })
            .join();
        assert!(outcome.is_ok());
    });
}

#[test]
fn shut_files_and_directories_open_for_their_owner() {
    let place = tempfile::tempdir().unwrap();
    if rustix::process::geteuid().is_root() {
        chown(place.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let root = posix::open_root(place.path()).unwrap();
    as_nobody(|| {
        let file = root.create_file(b"f", 0o000).unwrap();
        file.write_at(b"shut", 0).unwrap();
        let again = root.open_file(b"f", Access::ReadWrite).unwrap();
        again.write_at(b"S", 0).unwrap();
        assert_eq!(root.stat(b"f").unwrap().mode, 0);
        root.create_dir(b"d", 0o700).unwrap();
        let d = root.open_dir(b"d").unwrap();
        d.create_file(b"x", 0o400).unwrap();
        for mode in [0o000, 0o500, 0o400] {
            root.set_mode(b"d", mode).unwrap();
            let d = root.open_dir(b"d").unwrap();
            d.create_file(b"new", 0o600).unwrap();
            assert_eq!(d.stat(b"new").unwrap().kind, Kind::File);
            d.open_file(b"x", Access::ReadWrite).unwrap();
            d.rename(b"new", &*d, b"newer", Rename::Over).unwrap();
            d.rename(b"newer", &*root, b"out", Rename::Over).unwrap();
            root.rename(b"out", &*d, b"in", Rename::NoReplace).unwrap();
            d.set_mode(b"in", 0o640).unwrap();
            d.entry_xattrs(b"in").unwrap().xattrs().unwrap();
            d.unlink(b"in").unwrap();
            let mut count = 0;
            d.entries(0, &mut |_| {
                count += 1;
                true
            })
            .unwrap();
            assert_eq!((count, root.stat(b"d").unwrap().mode), (1, mode));
        }
        d.unlink(b"x").unwrap();
        root.remove_dir(b"d").unwrap();
        root.unlink(b"f").unwrap();
    });
}

#[test]
fn what_belongs_to_others_stays_shut() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let root = posix::open_root(place.path()).unwrap();
    root.create_file(b"f", 0o600).unwrap();
    root.create_dir(b"d", 0o700).unwrap();
    as_nobody(|| {
        let refused = |error: Option<std::io::Error>| {
            assert_eq!(error.unwrap().raw_os_error(), Some(libc::EACCES));
        };
        refused(root.open_file(b"f", Access::Read).err());
        refused(root.open_dir(b"d").err());
        refused(root.create_file(b"n", 0o600).err());
        refused(root.unlink(b"f").err());
    });
}
