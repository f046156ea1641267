//! `cp --force` that does not come to its end: the old file is whole, and nothing else is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use runvault_tests::Site;
use runvault_tests::image::Image;
use runvault_tests::tools::{output, printed, root_for, run};
use rustix::process::{Pid, Signal, kill_process};

const OLD: &[u8] = b"the old file";

/// A file that takes a while to copy.
fn large(at: &Path, mib: usize) -> PathBuf {
    fs::create_dir_all(at).expect("a directory");
    let path = at.join("file");
    fs::write(&path, (0..mib << 20).map(|i| (i % 251) as u8).collect::<Vec<_>>()).expect("a file");
    path
}

fn in_vault(site: &Site, path: &str) -> String {
    format!("{}:/{path}", site.store.display())
}

/// The site's vault with the old file as `run/file`.
fn with_an_old_file(site: &Site) {
    let old = site.dir().join("run");
    fs::create_dir(&old).expect("a directory");
    fs::write(old.join("file"), OLD).expect("a file");
    run(site.command(&["cp", "-r"]).arg(&old).arg(in_vault(site, "")));
}

fn is_as_before(site: &Site, done: &Output) {
    assert_eq!(run(site.command(&["cat"]).arg(&site.store).arg("run/file")).stdout, OLD, "{}", printed(done));
    let names = run(site.command(&["ls"]).arg(&site.store).arg("run"));
    assert_eq!(printed(&names), "file\n", "{}", printed(done));
    run(site.command(&["check"]).arg(&site.store));
}

fn names(at: &Path) -> Vec<String> {
    let entries = fs::read_dir(at).expect("a directory").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Bytes of all files below.
fn bytes(at: &Path) -> u64 {
    let entries = fs::read_dir(at).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Ctrl-C once some of the file has arrived.
fn interrupted(copy: &mut Command, target: &Path) -> Output {
    let before = bytes(target);
    let child =
        copy.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let until = Instant::now() + Duration::from_secs(60);
    while bytes(target) < before + (2 << 20) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    kill_process(Pid::from_child(&child), Signal::INT).expect("Ctrl-C");
    let done = child.wait_with_output().expect("a child");
    assert_eq!(done.status.code(), Some(1), "{}", printed(&done));
    assert!(printed(&done).contains("interrupted"), "{}", printed(&done));
    done
}

#[test]
fn ctrl_c_leaves_the_old_file_in_the_vault() {
    let site = Site::in_memory();
    with_an_old_file(&site);
    let file = large(&site.dir().join("new"), 256);
    let mut copy = site.command(&["cp", "--force"]);
    let done = interrupted(copy.arg(file).arg(in_vault(&site, "run/")), &site.store);
    is_as_before(&site, &done);
}

#[test]
fn ctrl_c_leaves_the_old_file_here() {
    let site = Site::in_memory();
    run(site
        .command(&["cp", "-r"])
        .arg(large(&site.dir().join("run"), 256).parent().expect("a run"))
        .arg(in_vault(&site, "")));
    let here = site.dir().join("here");
    fs::create_dir(&here).expect("a directory");
    fs::write(here.join("file"), OLD).expect("a file");
    let mut copy = site.command(&["cp", "--force"]);
    interrupted(copy.arg(in_vault(&site, "run/file")).arg(&here), &here);
    assert_eq!(fs::read(here.join("file")).expect("the old file"), OLD);
    assert_eq!(names(&here), ["file"]);
}

fn full(copy: &mut Command) -> Output {
    let done = output(copy);
    assert_eq!(done.status.code(), Some(1), "{}", printed(&done));
    assert!(printed(&done).contains("No space left on device"), "{}", printed(&done));
    assert!(printed(&done).contains("file"), "which one is not said: {}", printed(&done));
    done
}

#[test]
fn a_store_that_fills_keeps_the_old_file() {
    if !root_for("a loop image") {
        return;
    }
    let image = Image::new("ext4", 24);
    let site = Site::below(image.path());
    with_an_old_file(&site);
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let file = large(elsewhere.path(), 32);
    let done = full(site.command(&["cp", "--force"]).arg(file).arg(in_vault(&site, "run/")));
    is_as_before(&site, &done);
}

#[test]
fn a_disk_that_fills_keeps_the_old_file() {
    if !root_for("a loop image") {
        return;
    }
    let site = Site::in_memory();
    run(site
        .command(&["cp", "-r"])
        .arg(large(&site.dir().join("run"), 32).parent().expect("a run"))
        .arg(in_vault(&site, "")));
    let image = Image::new("ext4", 24);
    let here = image.path().join("here");
    fs::create_dir(&here).expect("a directory");
    fs::write(here.join("file"), OLD).expect("a file");
    full(site.command(&["cp", "--force"]).arg(in_vault(&site, "run/file")).arg(&here));
    assert_eq!(fs::read(here.join("file")).expect("the old file"), OLD);
    assert_eq!(names(&here), ["file"]);
}
