//! A terminal whose echo is off gets it back when a signal ends the question.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// What can end a question: Ctrl-C and Ctrl-\\, `kill`, the terminal's own end.
const ENDING: [i32; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP];

/// The terminal's descriptor while a question is asked; else -1.
static TERMINAL: AtomicI32 = AtomicI32::new(-1);
/// Its modes before the first question.
static BEFORE: OnceLock<Termios> = OnceLock::new();

/// While it lives, a signal that ends the process restores the terminal first. For questions that are asked
/// before [`crate::signals::on_first`]: its signals are taken over meanwhile.
pub struct Guard {
    before: [libc::sigaction; ENDING.len()],
    /// Closed with the guard: a mount in the background keeps no terminal.
    _terminal: File,
}

impl Guard {
    /// `None` where there is no terminal.
    pub fn new() -> Option<Self> {
        let terminal = File::open("/dev/tty").ok()?;
        let modes = tcgetattr(&terminal).ok()?;
        BEFORE.get_or_init(|| modes);
        TERMINAL.store(terminal.as_raw_fd(), Ordering::Release);
        let before = ENDING.map(|signal| {
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
        });
        Some(Self { before, _terminal: terminal })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        for (signal, old) in ENDING.iter().zip(&self.before) {
            // SAFETY: `old` is what sigaction(2) gave.
            unsafe {
                libc::sigaction(*signal, old, std::ptr::null_mut());
            }
        }
        TERMINAL.store(-1, Ordering::Release);
    }
}

extern "C" fn restore_and_end(signal: i32) {
    let terminal = TERMINAL.load(Ordering::Acquire);
    if let Some(modes) = BEFORE.get().filter(|_| terminal >= 0) {
        // SAFETY: the guard keeps it open while its number is there.
        let terminal = unsafe { BorrowedFd::borrow_raw(terminal) };
        // It may have gone, which is why we end.
        let _ = tcsetattr(terminal, OptionalActions::Now, modes);
    }
    // SAFETY: both are async-signal-safe; the signal comes again when this handler returns.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}
