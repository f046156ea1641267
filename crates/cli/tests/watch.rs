//! `runs --watch` on a terminal of its own: what it shows, and that it leaves the terminal as it was.

use std::io::Write;

use crate::common::pty::{echoes, read_past, start};
use crate::common::{Outcome, Scratch, text};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::ptsname;
use rustix::termios::{Winsize, tcsetwinsize};

const WATCH: [&str; 5] = ["runs", "--watch", "--identity", "owner.key", "store"];

/// A vault with a run whose name would clear the screen.
fn vault() -> Scratch {
    let scratch = Scratch::new();
    scratch.vault();
    let run = scratch.folder("a\u{1b}[2Jb");
    scratch.secret("a\u{1b}[2Jb/RunInfo.xml", "<RunInfo/>");
    scratch.run(&["cp", "-r", "--identity", "owner.key", text(&run), "store:/"]).done();
    scratch
}

#[test]
fn runs_are_shown_live_and_the_terminal_comes_back_however_it_ends() {
    let scratch = vault();
    for (typed, signal) in [("q", None), ("\x03", None), ("", Some(Signal::TERM)), ("", Some(Signal::HUP))] {
        let (mut child, terminal) = start(scratch.command(&WATCH));
        // One side that stays open keeps the modes.
        let name = ptsname(&terminal, Vec::new()).expect("its name");
        let _other =
            rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other side");
        let mut shown = String::new();
        read_past(&terminal, &mut shown, "a\\x1b[2Jb");
        assert!(!echoes(&terminal) && shown.contains("\u{1b}[?1049h"), "{shown:?}");
        // What is drawn anew for another size has everything again.
        let size = Winsize { ws_row: 10, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).expect("its size");
        shown.clear();
        read_past(&terminal, &mut shown, "a\\x1b[2Jb");
        match signal {
            Some(signal) => kill_process(Pid::from_child(&child), signal).expect("a signal"),
            None => (&terminal).write_all(typed.as_bytes()).expect("a key"),
        }
        read_past(&terminal, &mut shown, "\u{1b}[?1049l");
        let ended = child.wait().expect("a child");
        assert_eq!(ended.code(), Some(0), "{typed:?} {signal:?}: {shown:?}");
        assert!(echoes(&terminal), "{typed:?} {signal:?}");
        assert!(!shown.contains("a\u{1b}[2Jb"), "{shown:?}");
    }
}

#[test]
fn what_is_no_terminal_is_told_what_to_use() {
    let scratch = vault();
    let ended = Outcome::of(scratch.command(&WATCH));
    ended.refused(2, "--watch needs a terminal").refused(2, "runs --json");
    let both = [&WATCH[..], &["--json"]].concat();
    scratch.run(&both).refused(2, "--json");
}
