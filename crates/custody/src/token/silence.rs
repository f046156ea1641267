//! A module that does not come back. Its code cannot be stopped within this process, so the process has to end.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::Refused;
use crate::Error;

/// How long one call may take: the button of a token waits for its holder for some 15 s, an HSM behind a network may
/// have to be found first.
const LIMIT: Duration = Duration::from_secs(60);
/// How often the time is looked at.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Tells the error and ends the process, by no means that wait for the module.
type End = fn(Error) -> !;

static END: OnceLock<End> = OnceLock::new();

/// What is done when a module gives no answer. Without it such a module is waited for.
pub fn on_silence(end: End) {
    let _ = END.set(end);
}

/// While it lives a module is at work. Where neither a pipe nor a thread is to be had the module is waited for.
#[derive(Debug, Default)]
pub(super) struct Watch {
    over: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// `token`: for the message.
    pub(super) fn of(token: String) -> Self {
        let Ok((at_work, over)) = pipe_with(PipeFlags::CLOEXEC) else { return Self::default() };
        let watch = move || {
            let begun = Instant::now();
            let looks = || poll(&mut [PollFd::new(&at_work, PollFlags::IN)], Some(&LOOK));
            while matches!(looks(), Ok(0) | Err(Errno::INTR)) {
                if let Some(end) = END.get().filter(|_| begun.elapsed() >= LIMIT) {
                    end(Error::Token { token: token.clone(), why: Refused::Silent(LIMIT) });
                }
            }
        };
        let thread = std::thread::Builder::new().name("token".to_owned()).spawn(watch).ok();
        Self { over: Some(over), thread }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.over.take());
        if let Some(thread) = self.thread.take() {
            // It ends at once, and has nothing to say.
            let _ = thread.join();
        }
    }
}
