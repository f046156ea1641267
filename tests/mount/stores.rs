//! Stores that cannot be written, are gone, or were left half made.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use runvault_tests::Site;
use runvault_tests::image::Image;
use runvault_tests::site::detach;
use runvault_tests::tools::{leave_out, output, printed, root_for, run, runvault};

fn remount(at: &Path, how: &str) {
    run(Command::new("mount").arg("-o").arg(format!("remount,{how}")).arg(at));
}

#[test]
fn a_read_only_store_is_read_and_not_written() {
    if !root_for("a loop image") {
        return;
    }
    let image = Image::new("ext4", 64);
    let site = Site::new();
    let store = image.path().join("store");
    run(Command::new("cp").arg("-a").arg(&site.store).arg(&store));
    let mount = site.builder().store(&store).mount();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/file"), b"kept").expect("a file");
    // Not unmounted: a journal is left for a reader to look through.
    let file = fs::File::options().write(true).open(mount.path("run/file")).expect("a file");
    file.sync_all().expect("sync");
    file.write_all_at(b"KEPT", 0).expect("written over");
    file.sync_all().expect("sync");
    drop(file);
    mount.kill();
    remount(image.path(), "ro");
    let checked = printed(&run(site.command(&["check"]).arg(&store)));
    assert!(checked.contains("1 record in journals"), "{checked}");
    remount(image.path(), "rw");
    let mount = site.builder().store(&store).mount();
    mount.unmount();
    remount(image.path(), "ro");

    let reader = site.builder().store(&store).args(["--read-only", "--open"]).mount();
    assert_eq!(fs::read(reader.path("run/file")).expect("read").len(), 4);
    let refused = fs::write(reader.path("run/new"), b"x").expect_err("read-only");
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    reader.unmount();

    match site.builder().store(&store).try_mount() {
        Ok(mount) => {
            for refused in [fs::write(mount.path("run/new"), b"x"), fs::create_dir(mount.path("second"))] {
                assert_eq!(refused.expect_err("read-only").raw_os_error(), Some(libc::EROFS));
            }
            fs::read(mount.path("run/file"))
                .unwrap_or_else(|e| panic!("reading goes on: {e}\n{}", mount.log()));
            mount.unmount();
        }
        Err(said) => assert!(said.to_lowercase().contains("read-only"), "{said}"),
    }
    remount(image.path(), "rw");
    let mount = site.builder().store(&store).mount();
    fs::write(mount.path("run/new"), b"again").expect("works again");
    mount.unmount();
}

#[test]
fn a_store_that_turns_read_only_says_so_and_works_again() {
    if !root_for("a loop image") {
        return;
    }
    let image = Image::new("ext4", 64);
    let site = Site::new();
    let bind = image.path().join("store");
    run(Command::new("cp").arg("-a").arg(&site.store).arg(&bind));
    let mount = site.builder().store(&bind).mount();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/file"), b"before").expect("a file");
    mount.unmount();
    // A bind mount: the kernel refuses to make a file system read-only that is being written.
    let at = site.dir().join("bound");
    fs::create_dir(&at).expect("a directory");
    run(Command::new("mount").arg("--bind").arg(&bind).arg(&at));
    let mount = site.builder().store(&at).mount();
    fs::create_dir(mount.path("run/earlier")).expect("the run is written here");
    run(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&at));
    let refused = fs::create_dir(mount.path("run/new"));
    let (read, again) = (fs::read(mount.path("run/file")), fs::read(mount.path("run/file")));
    let written = fs::File::options().write(true).open(mount.path("run/file"));
    run(Command::new("mount").args(["-o", "remount,bind,rw"]).arg(&at));
    // The store is asked again a moment later.
    std::thread::sleep(std::time::Duration::from_millis(4000));
    let works = fs::create_dir(mount.path("run/again"));
    let appended = fs::File::options().append(true).open(mount.path("run/file"));
    let appended = appended.and_then(|mut file| file.write_all(b" and after"));
    let log = mount.log();
    let whole = fs::read(mount.path("run/file"));
    mount.unmount();
    run(Command::new("umount").arg(&at));
    assert_eq!(refused.expect_err("read-only").raw_os_error(), Some(libc::EROFS));
    assert_eq!(written.expect_err("read-only").raw_os_error(), Some(libc::EROFS));
    works.expect("works again");
    appended.expect("writing works again");
    for before in [read, again] {
        assert_eq!(before.expect("read while read-only"), b"before");
    }
    assert_eq!(whole.expect("read"), b"before and after");
    assert_eq!(log.matches("can only be read").count(), 1, "{log}");
}

#[test]
fn a_store_that_is_gone_is_an_error_and_no_hang() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/file"), vec![3; 100_000]).expect("a file");
    fs::File::open(mount.path("run/file")).and_then(|file| file.sync_all()).expect("sync");
    fs::remove_dir_all(&site.store).expect("the store goes");
    for refused in [fs::write(mount.path("run/new"), b"x"), fs::create_dir(mount.path("second"))] {
        let number = refused.expect_err("gone").raw_os_error();
        assert!(matches!(number, Some(libc::EIO | libc::ENOENT | libc::ESTALE)), "{number:?}");
    }
    let unmount = output(Command::new(runvault()).arg("unmount").arg(&mount.at));
    assert!(!printed(&unmount).contains("panicked"), "{}", printed(&unmount));
    assert!(mount.wait().code().is_some_and(|code| code <= 1));
    let ls = output(site.command(&["ls"]).arg(&site.store));
    assert_eq!(ls.status.code(), Some(1), "{}", printed(&ls));
    assert!(printed(&ls).contains("no such directory"), "{}", printed(&ls));
}

fn refused(command: &mut Command, says: &str) {
    let done = output(command);
    assert_eq!(done.status.code(), Some(1), "{}", printed(&done));
    assert!(printed(&done).contains(says), "{}", printed(&done));
}

/// Killed when its first, second, third name appears in the store; each sync before the last gives the time for it.
#[test]
fn what_a_killed_init_left_is_named() {
    let mut killed = 0;
    for names in [1, 2, 3, 1, 2, 3] {
        let site = Site::uninitialised(&std::env::temp_dir());
        let init = || {
            let mut command = Command::new(runvault());
            command.args(["init", "--no-lock", "--identity"]).arg(&site.identity).arg(&site.store);
            command
        };
        let mut child = init().stdout(std::process::Stdio::null()).spawn().expect("init starts");
        let made = || fs::read_dir(&site.store).expect("the store").count();
        while made() < names && child.try_wait().expect("a child").is_none() {}
        let _ = child.kill();
        child.wait().expect("a child");
        let whole = site.store.join("vault.json").exists();
        let _ = fs::remove_file(&site.identity);
        let says = if whole { "is a vault already" } else { "an `init` was killed here" };
        refused(&mut init(), says);
        if !whole {
            refused(site.command(&["ls"]).arg(&site.store), says);
        }
        killed += u32::from(!whole);
    }
    assert!(killed > 0, "none was killed half way");
}

/// Everything goes by descriptors, so that a store may be moved under a mount.
#[test]
fn a_store_that_is_moved_while_mounted_goes_on() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/before"), b"before").expect("a file");
    let moved = site.dir().join("moved");
    fs::rename(&site.store, &moved).expect("moved");
    fs::write(mount.path("run/after"), b"after").expect("a file");
    fs::create_dir(mount.path("second")).expect("a run");
    fs::write(mount.path("loose"), b"outside").expect("a file outside any run");
    mount.unmount();
    let mount = site.builder().store(&moved).mount();
    for (path, text) in [("run/before", "before"), ("run/after", "after"), ("loose", "outside")] {
        assert_eq!(fs::read(mount.path(path)).expect("read"), text.as_bytes());
    }
    mount.unmount();
}

#[test]
fn a_store_that_is_deleted_while_mounted_is_an_error_and_not_durable() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    let file = fs::File::create(mount.path("run/file")).expect("a file");
    fs::write(mount.path("run/other"), b"other").expect("a file");
    let dir = fs::File::open(mount.path("run")).expect("a directory");
    dir.sync_all().expect("fsync of a directory");
    fs::remove_dir_all(&site.store).expect("deleted");
    let eio = |what: &str, outcome: std::io::Result<()>| {
        let error = outcome.err().and_then(|e| e.raw_os_error());
        assert_eq!(error, Some(libc::EIO), "{what}\n{}", mount.log());
    };
    eio("fsync of a directory", dir.sync_all());
    drop(dir);
    eio("a new file", fs::write(mount.path("run/new"), b"x"));
    eio("a new run", fs::create_dir(mount.path("second")));
    eio("an old file", fs::File::open(mount.path("run/other")).map(drop));
    eio("a missing name", fs::metadata(mount.path("none")).map(drop));
    eio("the listing", fs::read_dir(&mount.at).map(drop));
    let _ = std::io::Write::write_all(&mut &file, b"into nowhere");
    eio("fsync", file.sync_all());
    drop(file);
    let done = output(Command::new(runvault()).arg("unmount").arg(&mount.at));
    assert_eq!(done.status.code(), Some(1), "{}", printed(&done));
    assert!(printed(&done).contains("the store was deleted"), "{}", printed(&done));
    let log = mount.log_path();
    assert_eq!(mount.wait().code(), Some(1));
    let said = fs::read_to_string(log).expect("the log");
    assert!(said.contains("the store was deleted") && !said.contains("everything is durable"), "{said}");
}

/// A directory seen through bindfs.
struct Bound(PathBuf);

impl Bound {
    /// `None` leaves a test out, and says so: there is no bindfs.
    fn new(dir: &Path, at: PathBuf) -> Option<Self> {
        fs::create_dir(&at).expect("a directory");
        match Command::new("bindfs").arg(dir).arg(&at).status() {
            Ok(status) => assert!(status.success(), "bindfs: {status}"),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                leave_out("there is no bindfs");
                return None;
            }
            Err(error) => panic!("bindfs: {error}"),
        }
        Some(Self(at))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        detach(&self.0);
    }
}

/// Such a store gives the number of a directory that was removed to the next one, also while someone stands in it.
#[test]
fn a_store_that_uses_numbers_again_confuses_no_directories() {
    let site = Site::new();
    let Some(bound) = Bound::new(&site.store, site.dir().join("bound")) else { return };
    let mount = site.builder().store(&bound.0).mount();
    let run = mount.path("run");
    fs::create_dir(&run).expect("a run");
    for round in 0..5 {
        let path = |name: &str| run.join(format!("{name}{round}"));
        for name in ["a", "b"] {
            fs::create_dir(path(name)).expect("a directory");
        }
        fs::write(path("a").join("x"), b"x").expect("a file");
        // Over another one, which goes.
        let moved = fs::rename(path("a"), path("b"))
            .and_then(|()| fs::create_dir(path("c")))
            .and_then(|()| fs::rename(path("b"), path("c").join("in")))
            .and_then(|()| fs::read(path("c").join("in/x")));
        assert_eq!(moved.expect("renamed"), b"x");
    }
    mount.unmount();
}
