//! What a bug in the mount's own process costs: an error and an end in order, but no byte.

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use runvault_tests::Site;
use runvault_tests::site::is_mounted;
use runvault_tests::tools::{run, runvault};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

/// fuser 0.18 panics at this time in a thread that serves the mount, before anything of ours is called.
const PANICS: Timespec = Timespec { tv_sec: i64::MIN, tv_nsec: 1 };

/// Goes with fuser's next release, and then sets the time or refuses it.
#[test]
fn a_lost_thread_ends_the_mount_in_order() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    let path = mount.path("run/file");
    fs::write(&path, b"closed, not synced").expect("a file");
    let mut open = File::create(mount.path("run/open")).expect("a file");
    open.write_all(b"still open, not synced").expect("write");
    let (tell, told) = mpsc::channel();
    // A thread of its own: where nothing ends the mount, the call never returns.
    thread::spawn(move || {
        let times = Timestamps { last_access: PANICS, last_modification: PANICS };
        let _ = tell.send(utimensat(CWD, &path, &times, AtFlags::empty()));
    });
    let answer = told.recv_timeout(Duration::from_secs(30)).expect("the caller hangs");
    assert!(answer.is_err(), "set: has fuser been mended?");
    let log = mount.log_path();
    assert_eq!(mount.wait().code(), Some(1));
    drop(open);
    // Closed, so that nothing is written below it in the clear.
    assert!(is_mounted(&site.at));
    assert_eq!(fs::metadata(&site.at).expect_err("a dead mount").raw_os_error(), Some(libc::ENOTCONN));
    let log = fs::read_to_string(log).expect("a log");
    assert!(log.contains("everything is durable") && log.contains("time.rs"), "{log}");
    run(Command::new(runvault()).arg("unmount").arg(&site.at));
    let again = site.mount();
    assert_eq!(fs::read(again.path("run/file")).expect("the file"), b"closed, not synced");
    assert_eq!(fs::read(again.path("run/open")).expect("the file"), b"still open, not synced");
    again.unmount();
}
