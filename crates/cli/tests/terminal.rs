//! Questions on a terminal: what is asked, how often, and that no answer is shown.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::pty::{converse, echoes, read_until, start};
use crate::common::{STRONG, Scratch, held_elsewhere};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::ptsname;

const FIRST: &str = "New passphrase for owner: ";
const AGAIN: &str = "The same again: ";

#[test]
fn init_asks_twice_and_shows_neither() {
    let scratch = Scratch::new();
    let (shown, code) = converse(scratch.command(&["init", "store"]), &[(FIRST, STRONG), (AGAIN, STRONG)]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("fingerprint") && !shown.contains(STRONG), "{shown}");
    assert!(scratch.path("store/vault.json").exists());
}

#[test]
fn two_answers_that_differ_and_an_empty_one_make_nothing() {
    let scratch = Scratch::new();
    let (shown, code) = converse(scratch.command(&["init", "store"]), &[(FIRST, STRONG), (AGAIN, "typo")]);
    assert_eq!(code, 2, "{shown}");
    assert!(shown.contains("the two passphrases differ"), "{shown}");
    let (shown, code) = converse(scratch.command(&["init", "store"]), &[(FIRST, "")]);
    assert_eq!(code, 2, "{shown}");
    assert!(shown.contains("an empty passphrase locks nothing"), "{shown}");
    assert!(!scratch.path("store").exists());
}

#[test]
fn the_passphrase_of_a_locked_key_is_asked_once() {
    let scratch = Scratch::new();
    scratch.secret("pass", STRONG);
    scratch.run(&["init", "--passphrase-file", "pass", "store"]).done();
    let question = "Passphrase of owner: ";
    let (shown, code) = converse(scratch.command(&["passwd", "store"]), &[(question, "wrong")]);
    assert_eq!(code, 3, "{shown}");
    let new = "other seven words nobody guesses zither quagmire";
    let answers = [(question, STRONG), (FIRST, new), (AGAIN, new)];
    let (shown, code) = converse(scratch.command(&["passwd", "store"]), &answers);
    assert_eq!(code, 0, "{shown}");
    assert!(!shown.contains(STRONG) && !shown.contains(new), "{shown}");
}

#[test]
fn a_signal_at_a_question_leaves_the_terminal_as_it_was() {
    for (typed, signal) in [("\x03", Signal::INT), ("", Signal::TERM), ("", Signal::HUP)] {
        let scratch = Scratch::new();
        let (mut child, terminal) = start(scratch.command(&["init", "store"]));
        // One side that stays open keeps the modes.
        let name = ptsname(&terminal, Vec::new()).expect("its name");
        let _other =
            rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other side");
        let echoes = || echoes(&terminal);
        read_until(&terminal, &mut String::new(), Some(FIRST));
        let begin = std::time::Instant::now();
        while echoes() {
            assert!(begin.elapsed() < Duration::from_secs(20), "the echo stays on");
            std::thread::sleep(Duration::from_millis(10));
        }
        if typed.is_empty() {
            kill_process(Pid::from_child(&child), signal).expect("a signal");
        } else {
            (&terminal).write_all(typed.as_bytes()).expect("a key");
        }
        let ended = child.wait().expect("a child");
        assert_eq!(ended.signal(), Some(signal.as_raw()));
        assert!(echoes(), "{signal:?}");
    }
}

#[test]
fn a_mount_in_the_background_keeps_no_terminal_that_it_asked_on() {
    if !Path::new("/dev/fuse").exists() {
        return;
    }
    let scratch = Scratch::new();
    scratch.vault();
    scratch.lock_cheaply("owner.key");
    scratch.folder("mnt");
    let mount = scratch.command(&["mount", "--identity", "owner.key", "store", "mnt"]);
    let (shown, code) = converse(mount, &[("Passphrase of owner: ", STRONG)]);
    assert_eq!(code, 0, "{shown}");
    let status = scratch.run(&["status", "mnt", "--json"]).out();
    let pid = serde_json::from_str::<serde_json::Value>(&status).map(|status| status["pid"].to_string());
    let open = pid.ok().and_then(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).ok());
    let open: Vec<PathBuf> = open
        .into_iter()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.expect("an entry").path()).ok())
        .collect();
    scratch.run(&["unmount", "mnt"]).done();
    assert!(open.contains(&"/dev/fuse".into()), "{open:?} {status}");
    let terminal = |path: &PathBuf| path.starts_with("/dev/tty") || path.starts_with("/dev/pts");
    assert!(!open.iter().any(terminal), "{open:?}");
}

#[test]
fn a_run_is_taken_over_by_a_yes_alone() {
    let scratch = Scratch::new();
    held_elsewhere(&scratch);
    let question = "Type yes to go on: ";
    let takeover = || scratch.command(&["takeover", "--identity", "owner.key", "store", "run"]);
    let write = ["cp", "--identity", "owner.key", "owner.key", "store:/run/new"];
    for answer in ["", "y", "no"] {
        let (shown, code) = converse(takeover(), &[(question, answer)]);
        assert_eq!(code, 1, "{shown}");
        assert!(shown.contains("process 4711") && shown.contains("nothing was done"), "{shown}");
        scratch.run(&write).refused(5, "process 4711");
    }
    let (shown, code) = converse(takeover(), &[(question, "yes")]);
    assert_eq!(code, 0, "{shown}");
    scratch.run(&write).done();
}
