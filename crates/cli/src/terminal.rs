//! A terminal whose echo is off gets it back when a signal ends the question.

use std::fs::File;
use std::sync::OnceLock;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// What can end a question: Ctrl-C and Ctrl-\\, `kill`, the terminal's own end.
const ENDING: [i32; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP];

/// The terminal and its modes before the first question.
static BEFORE: OnceLock<(File, Termios)> = OnceLock::new();

/// While it lives, a signal that ends the process restores the terminal first. For questions that are asked
/// before [`crate::signals::on_first`]: its signals are taken over meanwhile.
pub struct Guard([libc::sigaction; ENDING.len()]);

impl Guard {
    /// `None` where there is no terminal.
    pub fn new() -> Option<Self> {
        if BEFORE.get().is_none() {
            let terminal = File::open("/dev/tty").ok()?;
            let modes = tcgetattr(&terminal).ok()?;
            let _ = BEFORE.set((terminal, modes));
        }
        Some(Self(ENDING.map(|signal| {
            let handler = restore_and_end as extern "C" fn(i32);
            // SAFETY: zero is a valid sigaction (default, no flags); the handler calls only what
            // signal-safety(7) allows.
            unsafe {
                let mut new: libc::sigaction = std::mem::zeroed();
                new.sa_sigaction = handler as libc::sighandler_t;
                let mut old: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &new, &mut old);
                // What nohup or a shell had ignored stays so.
                if old.sa_sigaction == libc::SIG_IGN {
                    libc::sigaction(signal, &old, std::ptr::null_mut());
                }
                old
            }
        })))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        for (signal, old) in ENDING.iter().zip(&self.0) {
            // SAFETY: `old` is what sigaction(2) gave.
            unsafe {
                libc::sigaction(*signal, old, std::ptr::null_mut());
            }
        }
    }
}

extern "C" fn restore_and_end(signal: i32) {
    if let Some((terminal, modes)) = BEFORE.get() {
        // It may have gone, which is why we end.
        let _ = tcsetattr(terminal, OptionalActions::Now, modes);
    }
    // SAFETY: both are async-signal-safe; the signal comes again when this handler returns.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}
