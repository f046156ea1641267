//! SIGTERM, SIGINT and SIGHUP end a mount cleanly; a second one loses nothing.

use std::fs;

use runvault_tests::{Mount, Site};
use rustix::process::Signal;

fn ends_cleanly(send: impl Fn(&Mount)) {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/file"), b"written, not synced").expect("a file");
    send(&mount);
    let status = mount.wait();
    assert_eq!(status.code(), Some(0));
    assert!(!runvault_tests::site::is_mounted(&site.at));
    let again = site.mount();
    assert_eq!(fs::read(again.path("run/file")).expect("the file"), b"written, not synced");
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
