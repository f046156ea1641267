//! Questions on a terminal: what is asked, how often, and that no answer is shown.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};
use std::time::Duration;

use common::{STRONG, Scratch};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

fn echoes(terminal: impl AsFd) -> bool {
    tcgetattr(terminal).expect("its modes").local_modes.contains(LocalModes::ECHO)
}

/// Starts a command on a terminal of its own.
fn start(mut command: Command) -> (Child, File) {
    let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).expect("its access");
    unlockpt(&master).expect("its lock");
    let name = ptsname(&master, Vec::new()).expect("its name");
    let slave =
        rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other side");
    // Looked at before the program can switch it off.
    assert!(echoes(&slave));
    command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
    // SAFETY: open(2) is async-signal-safe; `Scratch::command` has made the child a session leader, so
    // the terminal that it opens first becomes its own.
    unsafe {
        command.pre_exec(move || {
            rustix::fs::open(&name, OFlags::RDWR, Mode::empty()).map(drop).map_err(Into::into)
        });
    }
    (command.spawn().expect("the program starts"), File::from(master))
}

/// Answers each question of a command; gives what the terminal showed and the exit code.
fn converse(command: Command, answers: &[(&str, &str)]) -> (String, i32) {
    let (mut child, mut terminal) = start(command);
    let mut shown = String::new();
    for (question, answer) in answers {
        read_until(&terminal, &mut shown, Some(question));
        // The echo is switched off after the question is printed.
        std::thread::sleep(Duration::from_millis(100));
        terminal.write_all(format!("{answer}\n").as_bytes()).expect("an answer");
    }
    read_until(&terminal, &mut shown, None);
    (shown, child.wait().expect("a child").code().unwrap_or(-1))
}

/// Reads until a text stands at the end, or until the terminal is closed.
fn read_until(mut terminal: &File, shown: &mut String, text: Option<&str>) {
    let mut piece = [0; 4096];
    while !text.is_some_and(|text| shown.ends_with(text)) {
        let limit = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
        let mut watched = [PollFd::new(terminal, PollFlags::IN)];
        let ready = rustix::event::poll(&mut watched, Some(&limit)).expect("a terminal");
        // Closing the terminal then ends the program by SIGHUP.
        assert!(ready > 0, "{text:?} was never asked: {shown}");
        match terminal.read(&mut piece) {
            Ok(n) if n > 0 => shown.push_str(&String::from_utf8_lossy(&piece[..n])),
            // EIO: every process has closed the other side.
            _ => {
                assert!(text.is_none(), "{text:?} was never asked: {shown}");
                return;
            }
        }
    }
}

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
