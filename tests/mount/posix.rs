//! Single promises of the file system, each by its name.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use runvault_tests::snapshot::{assert_same, snapshot};
use runvault_tests::{Mount, Site};

/// A mount with one run in it, and the run's path.
fn run() -> (Site, Mount, PathBuf) {
    let site = Site::new();
    let mount = site.mount();
    let run = mount.path("run");
    fs::create_dir(&run).expect("a run");
    (site, mount, run)
}

fn errno(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(-1)
}

#[test]
fn what_was_written_is_there_after_a_remount() {
    let (site, mount, run) = run();
    fs::create_dir_all(run.join("Data/L001")).expect("directories");
    for (name, len) in [("empty", 0usize), ("one", 1), ("chunk", 8192), ("more", 8193), ("big", 3_000_000)] {
        let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        fs::write(run.join("Data/L001").join(name), bytes).expect("a file");
    }
    symlink("Data/L001/one", run.join("link")).expect("a link");
    fs::hard_link(run.join("Data/L001/one"), run.join("second")).expect("a second name");
    let before = snapshot(&mount.at, true);
    mount.unmount();
    let again = site.mount();
    assert_same(&before, &snapshot(&again.at, true), "after a remount");
    again.unmount();
    let reader = site.mount_read_only();
    assert_same(&before, &snapshot(&reader.at, true), "read-only");
    let refused = fs::write(reader.path("run/new"), b"x").expect_err("read-only");
    assert_eq!(errno(&refused), libc::EROFS);
    reader.unmount();
}

#[test]
fn names_of_255_bytes_and_of_any_byte() {
    let (site, mount, run) = run();
    let mut names: Vec<Vec<u8>> =
        [1usize, 100, 143, 144, 200, 254, 255].iter().map(|n| vec![b'n'; *n]).collect();
    names.push((1u8..=255).filter(|b| *b != b'/').collect());
    names.push("µ-Ω-日本語-🧬".as_bytes().to_vec());
    names.push(b" leading and trailing ".to_vec());
    names.push(b"_dir".to_vec());
    names.push(b"CON".to_vec());
    for name in &names {
        fs::write(run.join(OsStr::from_bytes(name)), name).expect("a file");
        fs::create_dir(run.join(OsStr::from_bytes(&name[..name.len() - 1])).with_extension("d")).ok();
    }
    let too_long = fs::write(run.join("x".repeat(256)), b"").expect_err("256 bytes");
    assert_eq!(errno(&too_long), libc::ENAMETOOLONG);
    let before = snapshot(&run, true);
    mount.unmount();
    let again = site.mount();
    assert_same(&before, &snapshot(&again.path("run"), true), "after a remount");
    for name in &names {
        fs::remove_file(again.path("run").join(OsStr::from_bytes(name))).expect("removed");
    }
    again.unmount();
}

/// Far deeper than one path can name: 60 levels of 200 bytes.
#[test]
fn deep_paths_up_to_path_max() {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let (site, mount, run) = run();
    let names: Vec<String> = (0..60).map(|level| format!("{level:0200}")).collect();
    let directory = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut at = openat(CWD, &run, directory, Mode::empty()).expect("the run");
    for name in &names {
        mkdirat(&at, name, Mode::RWXU).expect("a level");
        at = openat(&at, name, directory, Mode::empty()).expect("the level");
    }
    let file = openat(&at, "file", OFlags::CREATE | OFlags::RDWR, Mode::RUSR | Mode::WUSR).expect("a file");
    rustix::io::write(&file, b"deep").expect("write");
    rustix::fs::fsync(&file).expect("sync");
    // A rewrite of durable bytes at that depth goes through the journal with its long path.
    rustix::io::pwrite(&file, b"DEEP", 0).expect("write");
    rustix::fs::fsync(&file).expect("sync");
    drop((file, at));
    mount.unmount();

    let again = site.mount();
    // As deep as one path of PATH_MAX goes, by its path.
    let path = again.path("run").join(names[..19].join("/"));
    assert!(path.is_dir());
    // Its zero byte counts.
    let room = |dir: &Path| libc::PATH_MAX as usize - 1 - dir.as_os_str().len() - 1;
    let middle = "m".repeat(room(&path).saturating_sub(201).clamp(1, 255));
    fs::create_dir(path.join(&middle)).expect("a directory");
    let dir = path.join(&middle);
    let (longest, other) = (dir.join("x".repeat(room(&dir))), dir.join("y".repeat(room(&dir))));
    assert_eq!(longest.as_os_str().len(), libc::PATH_MAX as usize - 1);
    fs::write(&longest, b"at the end").expect("the longest path");
    fs::rename(&longest, &other).expect("rename");
    assert_eq!(fs::read(&other).expect("read"), b"at the end");
    assert_eq!(fs::metadata(&other).expect("stat").len(), 10);
    fs::remove_file(&other).expect("unlink");
    fs::remove_dir(&dir).expect("rmdir");
    let mut at = openat(CWD, again.path("run"), directory, Mode::empty()).expect("the run");
    for name in &names {
        at = openat(&at, name, directory, Mode::empty()).expect("the level");
    }
    let file = openat(&at, "file", OFlags::RDONLY, Mode::empty()).expect("the file");
    let mut text = [0; 8];
    let n = rustix::io::read(&file, &mut text).expect("read");
    assert_eq!(&text[..n], b"DEEP");
    drop((file, at));
    again.unmount();
}

#[test]
fn o_append_o_trunc_o_excl_and_o_direct() {
    let (_site, mount, run) = run();
    let path = run.join("file");
    fs::write(&path, b"first").expect("a file");
    let refused = OpenOptions::new().write(true).create_new(true).open(&path).expect_err("it exists");
    assert_eq!(errno(&refused), libc::EEXIST);
    let mut writers: Vec<File> =
        (0..4).map(|_| OpenOptions::new().append(true).open(&path).expect("a writer")).collect();
    for n in 0..400 {
        writers[n % 4].write_all(format!("line {n:04}\n").as_bytes()).expect("append");
    }
    let text = fs::read_to_string(&path).expect("text");
    assert_eq!(text.len(), 5 + 400 * 10);
    assert!((0..400).all(|n| text.contains(&format!("line {n:04}\n"))));
    drop(OpenOptions::new().write(true).truncate(true).open(&path).expect("truncating"));
    assert_eq!(fs::metadata(&path).expect("metadata").len(), 0);

    let direct =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).expect("O_DIRECT");
    let block = vec![7u8; 4096];
    direct.write_all_at(&block, 4096).expect("write");
    let mut back = vec![1u8; 8192];
    direct.read_exact_at(&mut back, 0).expect("read");
    assert!(back[..4096].iter().all(|b| *b == 0) && back[4096..] == block[..]);
    drop((writers, direct));
    mount.unmount();
}

#[test]
fn unlinked_and_replaced_files_live_on_while_open() {
    let (_site, mount, run) = run();
    let (a, b) = (run.join("a"), run.join("b"));
    fs::write(&a, b"old a").expect("a file");
    fs::write(&b, b"old b").expect("a file");
    let open_a = OpenOptions::new().read(true).write(true).open(&a).expect("open");
    let open_b = File::open(&b).expect("open");
    fs::rename(&a, &b).expect("rename over an open file");
    fs::remove_file(&b).expect("unlink while open");
    let mut text = String::new();
    (&open_b).read_to_string(&mut text).expect("read");
    assert_eq!(text, "old b");
    open_a.write_all_at(b"NEW", 0).expect("write");
    open_a.sync_all().expect("sync");
    let mut text = String::new();
    (&open_a).read_to_string(&mut text).expect("read");
    assert_eq!(text, "NEW a");
    assert_eq!(open_a.metadata().expect("metadata").nlink(), 0);
    assert_eq!(fs::read_dir(&run).expect("a run").count(), 0);
    drop((open_a, open_b));
    mount.unmount();
}

#[test]
fn an_8_tib_sparse_file() {
    let (site, mount, run) = run();
    let path = run.join("sparse");
    let file = File::create(&path).expect("a file");
    let end = 8u64 << 40;
    file.set_len(end).expect("8 TiB");
    file.write_all_at(b"middle", 4 << 40).expect("write");
    file.write_all_at(b"end", end - 3).expect("write");
    file.sync_all().expect("sync");
    drop(file);
    mount.unmount();
    let again = site.mount();
    let file = File::open(again.path("run/sparse")).expect("open");
    let meta = file.metadata().expect("metadata");
    assert_eq!(meta.len(), end);
    assert!(meta.blocks() < 1000, "{} blocks", meta.blocks());
    for (at, want) in [(4u64 << 40, &b"middle"[..]), (end - 3, b"end"), (1 << 40, b"\0\0\0\0")] {
        let mut got = vec![1u8; want.len()];
        file.read_exact_at(&mut got, at).expect("read");
        assert_eq!(got, want);
    }
    let peak = again.peak_memory();
    assert!(peak < 256 << 20, "{} MiB", peak >> 20);
    drop(file);
    again.unmount();
}

#[test]
fn attributes_go_and_come_back() {
    let (site, mount, run) = run();
    let file = run.join("file");
    File::create(&file).expect("an empty file");
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty())
    };
    set(&file, "user.DOSATTRIB", b"0x20").expect("an attribute of an empty file");
    set(&file, "user.empty", b"").expect("an empty value");
    set(&run, "user.of-a-run", b"value").expect("of a directory");
    set(&file, "user.DOSATTRIB", b"0x22").expect("replaced");
    let listed = |path: &Path| {
        let mut names = [0u8; 1024];
        let n = rustix::fs::listxattr(path, &mut names).expect("names");
        let mut names: Vec<String> = names[..n]
            .split(|b| *b == 0)
            .filter(|n| !n.is_empty())
            .map(|n| String::from_utf8_lossy(n).into_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(listed(&file), ["user.DOSATTRIB", "user.empty"]);
    mount.unmount();
    let again = site.mount();
    let file = again.path("run/file");
    let mut value = [0u8; 64];
    let n = rustix::fs::getxattr(&file, "user.DOSATTRIB", &mut value).expect("the value");
    assert_eq!(&value[..n], b"0x22");
    rustix::fs::removexattr(&file, "user.DOSATTRIB").expect("removed");
    let missing = rustix::fs::getxattr(&file, "user.DOSATTRIB", &mut value).expect_err("gone");
    assert_eq!(missing.raw_os_error(), libc::ENODATA);
    let capability = rustix::fs::getxattr(&file, "security.capability", &mut value).expect_err("none");
    assert_eq!(capability.raw_os_error(), libc::ENODATA);
    assert_eq!(listed(&again.path("run")), ["user.of-a-run"]);
    again.unmount();
}

#[test]
fn inode_numbers_stay() {
    let (site, mount, run) = run();
    fs::create_dir(run.join("d")).expect("a directory");
    for n in 0..50 {
        fs::write(run.join("d").join(format!("{n}")), b"x").expect("a file");
    }
    let numbers = |run: &Path| -> Vec<(PathBuf, u64)> {
        let mut all: Vec<_> = fs::read_dir(run.join("d"))
            .expect("a directory")
            .map(|e| {
                let e = e.expect("an entry");
                assert_eq!(e.ino(), e.metadata().expect("metadata").ino());
                (e.file_name().into(), e.ino())
            })
            .collect();
        all.sort();
        all
    };
    use std::os::unix::fs::DirEntryExt;
    let before = numbers(&run);
    mount.unmount();
    let again = site.mount();
    assert_eq!(before, numbers(&again.path("run")));
    again.unmount();
}

#[test]
fn a_directory_that_is_emptied_while_it_is_listed() {
    let (_site, mount, run) = run();
    for n in 0..3000 {
        File::create(run.join(format!("file-{n}"))).expect("a file");
    }
    let mut seen = 0;
    for entry in fs::read_dir(&run).expect("a run") {
        fs::remove_file(entry.expect("an entry").path()).expect("removed");
        seen += 1;
    }
    assert_eq!(seen, 3000);
    assert_eq!(fs::read_dir(&run).expect("a run").count(), 0);
    mount.unmount();
}

#[test]
fn runs_are_renamed_and_removed() {
    let (site, mount, run) = run();
    fs::write(run.join("file"), b"kept").expect("a file");
    let busy = fs::remove_dir(&run).expect_err("not empty");
    assert_eq!(errno(&busy), libc::ENOTEMPTY);
    fs::rename(&run, mount.path("renamed")).expect("a run is renamed");
    fs::create_dir(mount.path("other")).expect("a second run");
    let across = fs::rename(mount.path("renamed/file"), mount.path("other/file")).expect_err("another key");
    assert_eq!(errno(&across), libc::EXDEV);
    fs::remove_dir(mount.path("other")).expect("an empty run goes");
    fs::write(mount.path("loose-file"), b"a write probe").expect("a loose file");
    mount.unmount();
    let again = site.mount();
    assert_eq!(fs::read(again.path("renamed/file")).expect("the file"), b"kept");
    assert_eq!(fs::read(again.path("loose-file")).expect("the file"), b"a write probe");
    let mut names: Vec<_> =
        fs::read_dir(&again.at).expect("the root").map(|e| e.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["loose-file", "renamed"]);
    assert_eq!(fs::read_dir(site.store.join("retired")).expect("retired").count(), 1);
    again.unmount();
}

#[test]
fn files_that_shut_their_owner_out_still_work() {
    use std::os::unix::fs::PermissionsExt;
    let (site, mount, run) = run();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o000)
        .open(run.join("file"))
        .expect("mode 0");
    (&file).write_all(b"written through an open handle").expect("write");
    file.sync_all().expect("sync");
    drop(file);
    mount.unmount();
    let again = site.mount();
    fs::set_permissions(again.path("run/file"), fs::Permissions::from_mode(0o400)).expect("chmod");
    assert_eq!(fs::read(again.path("run/file")).expect("read"), b"written through an open handle");
    again.unmount();
}

#[test]
fn files_that_shut_an_ordinary_owner_out_still_work() {
    if runvault_tests::tools::root_for("becoming another user") {
        runvault_tests::tools::again_as(65_534, 65_534, "posix::files_that_shut_their_owner_out_still_work");
    }
}

#[test]
fn write_shrink_write_shrink() {
    let (site, mount, run) = run();
    let path = run.join("file");
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).expect("a file");
    file.write_all_at(&[1; 20_000], 0).expect("write");
    file.set_len(9_000).expect("shrink");
    file.write_all_at(&[2; 15_000], 5_000).expect("write");
    file.set_len(8_500).expect("shrink");
    file.set_len(17_000).expect("grow");
    drop(file);
    let mut want = vec![1u8; 5_000];
    want.extend([2u8; 3_500]);
    want.resize(17_000, 0);
    assert!(fs::read(&path).expect("read") == want);
    mount.unmount();
    let again = site.mount();
    assert!(fs::read(again.path("run/file")).expect("read") == want);
    again.unmount();
}

/// A write of our own (the header that a rename needs) strips nothing that only a program's may.
#[test]
fn a_rename_keeps_set_id_bits() {
    use std::os::unix::fs::PermissionsExt;
    let (_site, mount, run) = run();
    let (a, b) = (run.join("a"), run.join("b"));
    fs::write(&a, b"x").expect("a file");
    File::open(&a).and_then(|f| f.sync_all()).expect("sync");
    fs::set_permissions(&a, fs::Permissions::from_mode(0o6755)).expect("chmod");
    fs::rename(&a, &b).expect("rename");
    fs::hard_link(&b, &a).expect("a second name");
    assert_eq!(fs::metadata(&b).expect("metadata").mode() & 0o7777, 0o6755);
    mount.unmount();
}

#[test]
fn a_rename_keeps_set_id_bits_for_an_ordinary_user() {
    if runvault_tests::tools::root_for("becoming another user") {
        runvault_tests::tools::again_as(65534, 65534, "posix::a_rename_keeps_set_id_bits");
    }
}

/// The open fails, so nothing of the file may be gone.
#[test]
fn a_program_that_runs_is_not_cut_by_an_open_that_is_refused() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    let program = mount.path("run/sleep");
    fs::copy("/bin/sleep", &program).expect("a program");
    let size = fs::metadata(&program).expect("it is there").len();
    let mut running = Command::new(&program).arg("60").spawn().expect("it runs");
    let opened = OpenOptions::new().write(true).truncate(true).open(&program);
    let left = fs::metadata(&program).map(|meta| meta.len());
    running.kill().expect("it still runs");
    running.wait().expect("it ends");
    assert_eq!(opened.expect_err("it runs").raw_os_error(), Some(libc::ETXTBSY));
    assert_eq!(left.expect("it is there"), size);
}

/// Old or new, never missing: analysis follows what an instrument replaces.
#[test]
fn a_reader_always_finds_a_file_that_is_replaced_meanwhile() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/file"), b"version 0").expect("a file");
    let at = site.dir().join("reader");
    fs::create_dir(&at).expect("a mount point");
    let reader = site.builder().at(&at).args(["--read-only", "--open"]).mount();
    for version in 1..30 {
        fs::write(mount.path("run/new"), format!("version {version}")).expect("a file");
        fs::rename(mount.path("run/new"), mount.path("run/file")).expect("replaced");
        for _ in 0..3 {
            let found = fs::read(reader.path("run/file")).expect("it is always there");
            assert!(found.starts_with(b"version "), "{found:?}");
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
    }
    reader.unmount();
    mount.unmount();
}
