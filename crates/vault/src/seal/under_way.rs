//! The seal that is being made. One at a time: their numbers follow each other, and each replaces the key of the state
//! folder.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use runvault_format::ids::RunId;

use crate::{Error, Result};

/// Of one vault.
#[derive(Default)]
pub(crate) struct UnderWay {
    run: Mutex<Option<RunId>>,
    /// Plaintext bytes that were read back, and all of them.
    done: AtomicU64,
    total: AtomicU64,
    /// Whoever asked for it wants it no longer.
    given_up: AtomicBool,
    /// None is made any more.
    ended: AtomicBool,
}

/// The turn of one run, until it is dropped.
pub(crate) struct Turn<'a>(&'a UnderWay);

impl UnderWay {
    /// # Errors
    /// [`Error::Sealing`] while another has its turn.
    pub(crate) fn begin(&self, run: RunId) -> Result<Turn<'_>> {
        let mut now = self.now();
        if let Some(other) = *now {
            let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
            return Err(Error::Sealing { run: other.to_string(), done, total });
        }
        *now = Some(run);
        self.tell(0, 0);
        self.given_up.store(false, Ordering::Relaxed);
        Ok(Turn(self))
    }

    pub(crate) fn tell(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// The one that is being made, if any.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// [`Error::Closed`], [`Error::GivenUp`].
    pub(crate) fn check(&self) -> Result<()> {
        if self.ended.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        if self.given_up.load(Ordering::Relaxed) { Err(Error::GivenUp) } else { Ok(()) }
    }

    fn now(&self) -> MutexGuard<'_, Option<RunId>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.now() = None;
    }
}
