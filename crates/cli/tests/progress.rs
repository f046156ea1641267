//! Progress bars: what takes long shows how far it is on a terminal, and nothing of it anywhere else.

use std::io::Write;
use std::process::Command;

use crate::common::Scratch;
use crate::common::agreeing::{self, agree, approved, confirm, enroll, run};
use crate::common::pty::{converse, read_past, read_until, start};

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
        ("seal", "292.97 KiB/292.97 KiB", &["seal", "store", "one"]),
        ("verify", "292.97 KiB/292.97 KiB", &["verify", "store", "one"]),
        ("scrub", "/", &["scrub", "store"]),
    ] {
        let keyless = ["seal", "scrub"].contains(&args[0]);
        let key: &[&str] = if keyless { &[] } else { &["--identity", "owner.key"] };
        let command = scratch.command(&[args, key].concat());
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

/// Holes are neither read nor written: a bar that counts them tells of years.
#[test]
fn a_bar_counts_what_is_stored() {
    let scratch = Scratch::new();
    scratch.vault();
    scratch.folder("one");
    scratch.secret("one/sparse", vec![7; 300_000]);
    let sparse = std::fs::OpenOptions::new().write(true).open(scratch.path("one/sparse")).expect("a file");
    sparse.set_len(1 << 40).expect("a hole");
    for (name, args) in [
        ("copy", &["cp", "-r", "one", "store:/"][..]),
        ("copy", &["cp", "-r", "store:/one", "out"]),
        ("check", &["check", "store"]),
    ] {
        let (shown, code) = converse(scratch.command(&[args, &["--identity", "owner.key"]].concat()), &[]);
        assert_eq!(code, 0, "{shown}");
        let (bar, _) = last_bar(&shown, name);
        assert!(bar.contains(" KiB/") && bar.contains(" KiB "), "{args:?}: {bar:?}");
    }
}

/// Presses Ctrl-C once that bar is shown, in work that takes some hundred times as long as that; gives what the terminal
/// showed.
fn interrupted(command: Command, bar: &str) -> String {
    let (mut child, mut terminal) = start(command);
    let mut shown = String::new();
    read_past(&terminal, &mut shown, &format!("{bar} ["));
    terminal.write_all(b"\x03").expect("Ctrl-C");
    read_until(&terminal, &mut shown, None);
    assert_eq!(child.wait().expect("a child").code(), Some(1), "{shown}");
    assert!(shown.contains("interrupted"), "{shown}");
    shown
}

/// Ctrl-C in it is safe.
#[test]
fn a_rekeying_says_what_it_waits_for() {
    let scratch = vault();
    scratch.run(&["seal", "store", "one"]).done();
    scratch.run(&["custody", "rekey", "store", "one", "--identity", "owner.key"]).done();
    let work = |grace| scratch.command(&["rekey", "store", "--identity", "owner.key", "--grace", grace]);
    let (mut child, mut terminal) = start(work("1h"));
    let mut shown = String::new();
    read_past(&terminal, &mut shown, " stays 1h more, ");
    assert!(child.try_wait().expect("a child").is_none());
    terminal.write_all(b"\x03").expect("Ctrl-C");
    read_until(&terminal, &mut shown, None);
    assert_eq!(child.wait().expect("a child").code(), Some(1), "{shown}");
    assert!(shown.contains("the same command goes on"), "{shown}");
    let (shown, code) = converse(work("0s"), &[]);
    assert!(code == 0 && shown.contains("has a new key") && !shown.contains("stays"), "{shown}");
}

/// Runs that have an envelope to this vault key.
fn sealed_to(scratch: &Scratch, key: &str) -> usize {
    let runs = std::fs::read_dir(scratch.path("store/runs")).expect("runs").flatten();
    runs.filter(|run| run.path().join("keys").join(key).exists()).count()
}

const RUNS: usize = 100;

/// Copies so many small runs, and these folders, into the vault.
fn copy_runs(scratch: &Scratch, key: &str, more: &[&str]) {
    let names: Vec<String> = (0..RUNS).map(|n| format!("run-{n}")).collect();
    names.iter().for_each(|name| drop(scratch.folder(name)));
    let from: Vec<&str> = names.iter().map(String::as_str).chain(more.iter().copied()).collect();
    scratch.run(&[&["cp", "-r", "--identity", key], &from[..], &["store:/"]].concat()).done();
}

/// A vault of three, with many small runs, and a large one that is sealed.
fn full_vault() -> Scratch {
    let scratch = agreeing::vault(&["alice", "bob", "carol", "lab"]);
    agree(&scratch, "add-reader lab=lab.key.pub --standing", ["alice", "bob"]);
    enroll(&scratch, "machine");
    scratch.folder("large");
    scratch.secret("large/file", vec![7; 32 << 20]);
    copy_runs(&scratch, "lab.key", &["large"]);
    run(&scratch, "seal store large").done();
    scratch
}

#[test]
fn what_custodians_agreed_on_shows_how_far_it_is_and_goes_on_after_ctrl_c() {
    let scratch = full_vault();
    confirm(&scratch, &["alice", "bob", "carol"]);
    let command = |line: &str| scratch.command(&line.split(' ').collect::<Vec<_>>());
    let execute = approved(&scratch, "rotate", ["alice", "bob"]);
    let shown = interrupted(command(&execute), "runs");
    assert!(shown.contains("every run stays readable") && shown.contains("--resume"), "{shown}");
    assert!(sealed_to(&scratch, "vault-2") <= RUNS, "it was at its end already");
    run(&scratch, &format!("{execute} --resume")).done();
    assert_eq!(sealed_to(&scratch, "vault-2"), RUNS + 1);

    confirm(&scratch, &["alice", "bob", "carol"]);
    let rows = run(&scratch, "runs store --json --identity lab.key").done().out();
    let row = rows.lines().find(|row| row.contains("\"large\"")).expect("the run");
    let row: serde_json::Value = serde_json::from_str(row).expect("JSON");
    agree(&scratch, &format!("rekey {}", row["run"].as_str().expect("an id")), ["alice", "bob"]);
    let rekey = "rekey store --identity req.worker --grace 0s";
    let state = scratch.path("state");
    let rekey = format!("{rekey} --state {}", state.display());
    let shown = interrupted(command(&rekey), "rekey");
    assert!(shown.contains("the same command goes on"), "{shown}");
    assert!(scratch.path("req.worker").exists(), "it has ended already");
    let done = run(&scratch, &rekey);
    assert!(done.done().out().contains("was erased"), "{}", done.all());
    // All of the new run is read before what somebody puts in the old one's place goes.
    let gone = scratch.path(&format!("store/runs/.gone-{}", row["run"].as_str().expect("an id")));
    std::fs::create_dir(&gone).expect("planted");
    std::fs::write(gone.join("run.json"), "planted").expect("planted");
    let (mut child, terminal) = start(command(&format!("rekey store --state {}", state.display())));
    let mut shown = String::new();
    read_until(&terminal, &mut shown, None);
    assert_eq!(child.wait().expect("a child").code(), Some(0), "{shown}");
    assert!(shown.contains("scrub [") && !gone.exists(), "{shown}");
    run(&scratch, "verify store large --identity lab.key").done();
}

#[test]
fn an_owners_rotation_goes_on_after_ctrl_c() {
    let scratch = Scratch::new();
    scratch.vault();
    copy_runs(&scratch, "owner.key", &[]);
    let rotate = "custody rotate store --identity owner.key";
    interrupted(scratch.command(&rotate.split(' ').collect::<Vec<_>>()), "runs");
    assert!(sealed_to(&scratch, "vault-2") < RUNS, "it was at its end already");
    run(&scratch, &format!("{rotate} --resume")).done();
    assert_eq!(sealed_to(&scratch, "vault-2"), RUNS);
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
    let shown = interrupted(command, "write");
    assert!(shown.contains("interrupted; everything was cleaned up"), "{shown}");
    assert!(!shown.contains("through the mount"), "it wrote on to the end: {shown}");
    assert_eq!(std::fs::read_dir(home.path()).expect("a directory").count(), 0, "something stays");
}
