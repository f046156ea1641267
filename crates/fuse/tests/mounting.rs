//! Mounting and unmounting, with a file system that has one file and needs no engine.
//!
//! Needs /dev/fuse, and root or fusermount3; says so where they are missing and nothing demands all tests.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, KernelConfig, ReplyAttr,
    ReplyEntry, Request,
};
use runvault_fuse::{Error, MountOptions, Session, negotiate};
use rustix::process::geteuid;

/// A root directory with an empty `file`.
struct OneFile;

fn attr(ino: u64, kind: FileType) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0o755,
        nlink: 1,
        uid: geteuid().as_raw(),
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for OneFile {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        negotiate(config, true);
        Ok(())
    }

    fn lookup(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == "file" {
            reply.entry(&Duration::ZERO, &attr(2, FileType::RegularFile), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let kind = if ino == INodeNo::ROOT { FileType::Directory } else { FileType::RegularFile };
        reply.attr(&Duration::ZERO, &attr(ino.0, kind));
    }
}

fn options() -> MountOptions {
    MountOptions {
        source: "one, file".into(),
        allow_other: false,
        options: vec!["noatime".into()],
        threads: 2,
        local_store: true,
        stuck_after: Duration::from_secs(10),
        max_nodes: u64::MAX,
    }
}

/// A mount point of this test; whatever is left on it is taken off.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("runvault-fuse-{name}-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    /// `None` where nothing can be mounted.
    fn mount(&self) -> Option<Session> {
        match Session::serve(OneFile, &self.0, &options()) {
            Ok(session) => Some(session),
            Err(e @ (Error::NoDevice(_) | Error::NoFusermount)) => {
                assert!(std::env::var_os("RUNVAULT_REQUIRE_ALL").is_none(), "may not be left out: {e}");
                println!("left out: {e}");
                None
            }
            Err(e) => panic!("{e}"),
        }
    }

    fn line(&self) -> Option<String> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let at = format!(" {} ", self.0.display());
        mounts.lines().rfind(|line| line.contains(&at)).map(str::to_owned)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        while self.line().is_some() && umount(&self.0, &["-l"]) {}
        let _ = fs::remove_dir(&self.0);
    }
}

fn umount(at: &Path, how: &[&str]) -> bool {
    let mut command = if geteuid().is_root() { Command::new("umount") } else { Command::new("fusermount3") };
    if !geteuid().is_root() {
        command.args(["-u", "-z"]);
    } else {
        command.args(how);
    }
    command.arg(at).status().is_ok_and(|status| status.success())
}

/// Runs `work`, which must end by itself.
fn in_time(work: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        work();
        done.send(()).unwrap();
    });
    ended.recv_timeout(Duration::from_secs(30)).expect("it hangs");
}

#[test]
fn a_mount_answers_at_once_with_the_options_that_are_always_set() {
    let place = Place::new("options");
    let Some(session) = place.mount() else { return };
    assert!(fs::metadata(place.0.join("file")).unwrap().is_file());
    assert!(fs::metadata(place.0.join("other")).is_err());
    let line = place.line().unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!((words[0], words[2]), ("one,\\040file", "fuse.runvault"));
    for option in ["nosuid", "nodev", "noatime", "default_permissions"] {
        assert!(words[3].split(',').any(|word| word == option), "{option} is not in {}", words[3]);
    }
    session.unmount();
    session.wait();
    assert_eq!(place.line(), None);
}

#[test]
fn waiting_ends_when_someone_else_unmounts() {
    let place = Place::new("outside");
    let Some(session) = place.mount() else { return };
    assert!(umount(&place.0, &[]));
    in_time(move || session.wait());
}

#[test]
fn a_busy_mount_is_taken_off_lazily() {
    let place = Place::new("busy");
    let Some(session) = place.mount() else { return };
    let user = File::open(&place.0).unwrap();
    in_time(move || session.unmount());
    assert_eq!(place.line(), None);
    drop(user);
}

#[test]
fn what_was_mounted_since_is_left_alone() {
    let place = Place::new("since");
    let Some(old) = place.mount() else { return };
    assert!(umount(&place.0, &[]));
    old.wait();
    let new = place.mount().unwrap();
    old.unmount();
    drop(old);
    assert!(fs::metadata(place.0.join("file")).unwrap().is_file());
    new.unmount();
    assert_eq!(place.line(), None);
}

#[test]
fn a_dropped_session_is_unmounted() {
    let place = Place::new("dropped");
    let Some(session) = place.mount() else { return };
    drop(session);
    assert_eq!(place.line(), None);
}

#[test]
fn an_option_that_is_not_the_kernels_is_refused_before_anything_is_mounted() {
    let place = Place::new("unknown");
    let options = MountOptions { options: vec!["suid".into()], ..options() };
    let refused = Session::serve(OneFile, &place.0, &options);
    assert!(matches!(refused, Err(Error::Option(name)) if name == "suid"));
    assert_eq!(place.line(), None);
}
