//! SIGTERM, SIGINT and SIGHUP end a mount cleanly; a second one loses nothing.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use runvault_tests::{Mount, Site};
use rustix::process::Signal;

fn ends_cleanly(send: impl Fn(&Mount)) {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/file"), b"written, not synced").expect("a file");
    let mut bytes = vec![b'a'; 20_000];
    fs::write(mount.path("run/open"), &bytes).expect("a file");
    let open = OpenOptions::new().write(true).open(mount.path("run/open")).expect("open");
    open.sync_all().expect("a sync");
    // These wait in the mount's memory when it is told to end.
    open.write_all_at(b"over what is durable", 5000).expect("written over");
    open.write_all_at(b"behind it", 20_000).expect("appended");
    bytes[5000..5020].copy_from_slice(b"over what is durable");
    bytes.extend(b"behind it");
    send(&mount);
    let status = mount.wait();
    assert_eq!(status.code(), Some(0));
    assert!(!runvault_tests::site::is_mounted(&site.at));
    drop(open);
    let again = site.mount();
    assert_eq!(fs::read(again.path("run/file")).expect("the file"), b"written, not synced");
    assert!(fs::read(again.path("run/open")).expect("the file") == bytes, "bytes that waited are lost");
    again.unmount();
}

#[test]
fn sigterm() {
    ends_cleanly(|mount| mount.signal(Signal::TERM));
}

#[test]
fn sigint() {
    ends_cleanly(|mount| mount.signal(Signal::INT));
}

#[test]
fn sighup() {
    ends_cleanly(|mount| mount.signal(Signal::HUP));
}

#[test]
fn a_second_signal_loses_nothing() {
    ends_cleanly(|mount| {
        mount.signal(Signal::TERM);
        mount.signal(Signal::TERM);
        mount.signal(Signal::INT);
    });
}
