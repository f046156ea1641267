//! Single system calls, each by its name.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use runvault_tests::Site;
use runvault_tests::tools::{output, printed, tool};
use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with, statvfs};

/// A vault, mounted, with one run, and the run's path.
fn run() -> (Site, runvault_tests::Mount, PathBuf) {
    let site = Site::new();
    let mount = site.mount();
    let run = mount.path("run");
    fs::create_dir(&run).expect("a run");
    (site, mount, run)
}

/// The largest file of the store's runs, as it lies there.
fn stored(site: &Site) -> Vec<u8> {
    fn all(dir: &Path, found: &mut Vec<Vec<u8>>) {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                all(&path, found);
            } else if path.parent().is_some_and(|dir| dir.ends_with("tree")) {
                found.push(fs::read(path).expect("a stored file"));
            }
        }
    }
    let mut found = Vec::new();
    all(&site.store.join("runs"), &mut found);
    found.into_iter().max_by_key(Vec::len).expect("a file")
}

/// Bytes that wait in memory when a program sets the time are written later; the time stays the program's.
#[test]
fn a_time_that_is_set_while_bytes_wait_stays() {
    let (site, mut mount, _) = run();
    let mut waited = 0;
    for n in 0..5 {
        let name = format!("run/file {n}");
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_400_000_000 + n, 123_456_789);
        let file = File::create(mount.path(&name)).expect("a file");
        file.write_all_at(&vec![1; 30_000 + 10_000 * n as usize], 0).expect("written");
        file.sync_all().expect("synced");
        let before = stored(&site);
        file.write_all_at(&[2; 5000], 3000).expect("durable bytes written over: an overlay");
        file.write_all_at(&[3; 100], 30_000 + 10_000 * n).expect("a piece of a chunk: a tail");
        file.set_times(FileTimes::new().set_modified(time)).expect("a time");
        let waits = stored(&site) == before;
        // The even ones wait for the mount's end, the others for this.
        if n % 2 == 1 {
            file.sync_all().expect("synced");
            assert_eq!(file.metadata().and_then(|m| m.modified()).expect("a time"), time);
        }
        drop(file);
        mount.unmount();
        waited += u64::from(waits && stored(&site) != before);
        mount = site.mount();
        assert_eq!(fs::metadata(mount.path(&name)).and_then(|m| m.modified()).expect("a time"), time);
    }
    mount.unmount();
    assert!(waited > 0, "no bytes waited when the time was set: the case is not tested");
}

/// A private map shows the file, and what is written into it stays the process's own.
#[test]
fn a_private_map_leaves_the_file() {
    let (_site, mount, run) = run();
    let path = run.join("file");
    let bytes: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
    fs::write(&path, &bytes).expect("a file");
    let file = File::open(&path).expect("open");
    // SAFETY: a new mapping of an open file, of its length.
    let base = unsafe {
        let write = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(std::ptr::null_mut(), bytes.len(), write, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
    };
    assert_ne!(base, libc::MAP_FAILED, "{}", io::Error::last_os_error());
    // SAFETY: the mapping has that many bytes, which nothing else of this process uses.
    let map = unsafe { std::slice::from_raw_parts_mut(base.cast::<u8>(), bytes.len()) };
    assert!(map == bytes);
    map[9000..9100].fill(0xff);
    drop(file);
    assert!(fs::read(&path).expect("read") == bytes);
    assert!(map[9000..9100].iter().all(|b| *b == 0xff) && map[..9000] == bytes[..9000]);
    // SAFETY: the mapping from above; `map` is not used any more.
    unsafe { libc::munmap(base, bytes.len()) };
    mount.unmount();
}

#[test]
fn rename_noreplace_replaces_nothing() {
    let (site, mount, run) = run();
    for name in ["a", "b", "dir/in it", "other/"] {
        fs::create_dir_all(run.join(name).parent().expect("a parent")).expect("directories");
        if !name.ends_with('/') {
            fs::write(run.join(name), name).expect("a file");
        }
    }
    fs::create_dir_all(run.join("other")).expect("an empty directory");
    let rename =
        |from: &str, to: &str| renameat_with(CWD, run.join(from), CWD, run.join(to), RenameFlags::NOREPLACE);
    for (from, to) in
        [("a", "b"), ("a", "dir"), ("a", "a"), ("dir", "other"), ("dir", "a"), ("b", "dir/in it")]
    {
        assert_eq!(rename(from, to), Err(rustix::io::Errno::EXIST), "{from} to {to}");
    }
    assert_eq!(rename("none", "new"), Err(rustix::io::Errno::NOENT));
    rename("a", "dir/free").expect("nothing is there");
    rename("dir", "free").expect("nothing is there");
    let runs = renameat_with(CWD, &run, CWD, mount.path("second"), RenameFlags::NOREPLACE);
    runs.expect("a run, to a free name");
    mount.unmount();
    let again = site.mount();
    for (path, text) in [("b", "b"), ("free/in it", "dir/in it"), ("free/free", "a")] {
        assert_eq!(fs::read_to_string(again.path("second").join(path)).expect("read"), text);
    }
    again.unmount();
}

#[test]
fn fallocate_keep_size_keeps_the_size() {
    let (site, mount, run) = run();
    let path = run.join("file");
    fs::write(&path, [7; 10_000]).expect("a file");
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("open");
    for (at, len) in [(5_000, 100_000), (0, 4096), (1 << 20, 8192)] {
        fallocate(&file, FallocateFlags::KEEP_SIZE, at, len).expect("room");
        assert_eq!(file.metadata().expect("metadata").len(), 10_000);
    }
    file.write_all_at(&[8; 100], 20_000).expect("beyond the end, in what is reserved");
    drop(file);
    mount.unmount();
    let again = site.mount();
    let mut wanted = vec![7; 10_000];
    wanted.resize(20_000, 0);
    wanted.resize(20_100, 8);
    assert!(fs::read(again.path("run/file")).expect("read") == wanted);
    again.unmount();
}

/// The store's room is the mount's; other programs use the file system meanwhile.
#[test]
fn statfs_is_the_stores() {
    let (site, mount, run) = run();
    let [store, ours] = [&site.store, &run].map(|at| statvfs(at).expect("statvfs"));
    assert_eq!((ours.f_blocks * ours.f_frsize, ours.f_namemax), (store.f_blocks * store.f_frsize, 255));
    for (ours, store) in [
        (ours.f_bavail * ours.f_frsize, store.f_bavail * store.f_frsize),
        (ours.f_bfree * ours.f_frsize, store.f_bfree * store.f_frsize),
        (ours.f_ffree, store.f_ffree),
    ] {
        assert!(ours.abs_diff(store) <= store / 10, "{ours}, of the store {store}");
    }
    mount.unmount();
}

/// Whether another process gets a lock at once, by a function of Python's module fcntl.
fn another_locks(path: &Path, call: &str) -> bool {
    let script = "import fcntl, sys; f = open(sys.argv[1], 'r+b')
try: eval(sys.argv[2])
except BlockingIOError: sys.exit(3)";
    let done = output(Command::new(tool("python/bin/python")).args(["-c", script]).arg(path).arg(call));
    assert!(matches!(done.status.code(), Some(0 | 3)), "{}", printed(&done));
    done.status.success()
}

fn set_lock(file: &File, command: i32, kind: i32, len: i64) -> io::Result<()> {
    let lock = libc::flock { l_type: kind as i16, l_whence: 0, l_start: 0, l_len: len, l_pid: 0 };
    // SAFETY: the descriptor is open and `lock` outlives the call.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), command, &lock) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[test]
fn locks_hold_between_processes() {
    let (_site, mount, run) = run();
    let path = run.join("file");
    let file = File::create(&path).expect("a file");
    let flock = "fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)";
    let first_bytes = "fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)";
    let further_bytes = "fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10)";
    file.try_lock().expect("flock");
    assert!(!another_locks(&path, flock));
    file.unlock().expect("unlock");
    assert!(another_locks(&path, flock));
    for command in [libc::F_SETLK, libc::F_OFD_SETLK] {
        set_lock(&file, command, libc::F_WRLCK, 10).expect("a lock");
        assert!(!another_locks(&path, first_bytes), "{command}");
        assert!(another_locks(&path, further_bytes), "{command}");
        set_lock(&file, command, libc::F_UNLCK, 10).expect("unlocked");
        assert!(another_locks(&path, first_bytes), "{command}");
    }
    drop(file);
    mount.unmount();
}

/// Of two handles in one process the lock of one shuts the other out.
#[test]
fn locks_hold_between_handles() {
    let (_site, mount, run) = run();
    let path = run.join("file");
    let first = File::create(&path).expect("a file");
    let second = OpenOptions::new().write(true).open(&path).expect("a second handle");
    first.try_lock().expect("flock");
    assert!(second.try_lock().is_err(), "flock is held");
    first.unlock().expect("unlock");
    set_lock(&first, libc::F_OFD_SETLK, libc::F_WRLCK, 10).expect("a lock");
    assert!(set_lock(&second, libc::F_OFD_SETLK, libc::F_WRLCK, 10).is_err(), "the lock is held");
    assert_eq!(first.metadata().expect("metadata").nlink(), 1);
    drop((first, second));
    mount.unmount();
}
