//! Progress bars: what takes long shows how far it is on a terminal, and nothing of it anywhere else.

mod common;

use std::io::Write;

use common::Scratch;
use common::pty::{converse, read_past, read_until, start};

/// A vault with two runs, and a folder to be copied.
fn vault() -> Scratch {
    let scratch = Scratch::new();
    scratch.vault();
    for name in ["one", "two"] {
        scratch.folder(name);
        scratch.secret(&format!("{name}/file"), vec![7; 300_000]);
        let copy = scratch.run(&["cp", "-r", "--identity", "owner.key", name, "store:/"]);
        assert!(!copy.done().all().contains('\r') && !copy.all().contains("copy ["), "{}", copy.all());
    }
    scratch
}

/// The last bar of that name that the terminal showed, and what it showed after that.
fn last_bar<'a>(shown: &'a str, name: &str) -> (&'a str, &'a str) {
    let begin = format!("{name} [");
    let (_, bar) = shown.rsplit_once(&begin).unwrap_or_else(|| panic!("no bar of {name}: {shown:?}"));
    bar.split_at(bar.find(char::is_control).unwrap_or(bar.len()))
}

#[test]
fn what_takes_long_shows_how_far_it_is() {
    let scratch = vault();
    for (name, count, args) in [
        ("copy", "292.97 KiB/292.97 KiB", &["cp", "-r", "one", "store:/three"][..]),
        ("copy", "292.97 KiB/292.97 KiB", &["cp", "-r", "store:/one", "out"]),
        ("check", " KiB ", &["check", "store"]),
        ("runs", "3/3", &["custody", "rotate", "store"]),
    ] {
        let command = scratch.command(&[args, &["--identity", "owner.key"]].concat());
        let (shown, code) = converse(command, &[]);
        assert_eq!(code, 0, "{shown}");
        let (bar, then) = last_bar(&shown, name);
        assert!(bar.contains(count), "{args:?}: {bar:?}");
        assert!(
            !shown.contains("[==============================] 0"),
            "it begins as if it were done: {shown:?}"
        );
        assert!(then.starts_with("\r\u{1b}[2K"), "the line is not cleared: {shown:?}");
    }
}

#[test]
fn the_demo_shows_how_far_it_is() {
    if !std::path::Path::new("/dev/fuse").exists() {
        return;
    }
    let scratch = Scratch::new();
    let mut command = scratch.command(&["demo", "--size", "4"]);
    command.env("TMPDIR", scratch.path(""));
    let (shown, code) = converse(command, &[]);
    assert_eq!(code, 0, "{shown}");
    for name in ["write", "verify"] {
        last_bar(&shown, name);
    }
}

#[test]
fn the_demo_ends_at_ctrl_c_while_it_writes_and_leaves_nothing() {
    if !std::path::Path::new("/dev/fuse").exists() {
        return;
    }
    let scratch = Scratch::new();
    let home = tempfile::TempDir::with_prefix("runvault-test-").expect("a temporary directory");
    let mut command = scratch.command(&["demo", "--size", "64"]);
    command.env("TMPDIR", home.path());
    let (mut child, terminal) = start(command);
    let mut shown = String::new();
    read_past(&terminal, &mut shown, "write [");
    (&terminal).write_all(b"\x03").expect("a key");
    read_until(&terminal, &mut shown, None);
    assert_eq!(child.wait().expect("a child").code(), Some(1), "{shown}");
    assert!(shown.contains("interrupted; everything was cleaned up"), "{shown}");
    assert!(!shown.contains("through the mount"), "it wrote on to the end: {shown}");
    assert_eq!(std::fs::read_dir(home.path()).expect("a directory").count(), 0, "something stays");
}
