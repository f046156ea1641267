//! A program on a terminal of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// Whether what is typed is shown.
pub fn echoes(terminal: impl AsFd) -> bool {
    tcgetattr(terminal).expect("its modes").local_modes.contains(LocalModes::ECHO)
}

/// Starts a command on a terminal of its own.
pub fn start(mut command: Command) -> (Child, File) {
    let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).expect("its access");
    unlockpt(&master).expect("its lock");
    let name = ptsname(&master, Vec::new()).expect("its name");
    let slave =
        rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other side");
    let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size).expect("its size");
    // Looked at before the program can switch it off.
    assert!(echoes(&slave));
    command.env("TERM", "xterm");
    command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
    // SAFETY: signal(2) and open(2) are async-signal-safe; `Scratch::command` has made the child a session leader,
    // so the terminal that it opens first becomes its own.
    unsafe {
        command.pre_exec(move || {
            // As a login gives them: tests that run in the background inherit that they are ignored.
            for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
                libc::signal(signal, libc::SIG_DFL);
            }
            rustix::fs::open(&name, OFlags::RDWR, Mode::empty()).map(drop).map_err(Into::into)
        });
    }
    (command.spawn().expect("the program starts"), File::from(master))
}

/// Answers each question of a command; gives what the terminal showed and the exit code.
pub fn converse(command: Command, answers: &[(&str, &str)]) -> (String, i32) {
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
pub fn read_until(mut terminal: &File, shown: &mut String, text: Option<&str>) {
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

/// Reads until a text has come.
pub fn read_past(mut terminal: &File, shown: &mut String, text: &str) {
    let mut piece = [0; 4096];
    while !shown.contains(text) {
        let limit = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
        let mut watched = [PollFd::new(terminal, PollFlags::IN)];
        let ready = rustix::event::poll(&mut watched, Some(&limit)).expect("a terminal");
        assert!(ready > 0, "{text:?} never came: {shown:?}");
        let n = terminal.read(&mut piece).expect("a terminal that is open");
        shown.push_str(&String::from_utf8_lossy(&piece[..n]));
    }
}
