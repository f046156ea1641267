//! The directory as a server would have it: each call takes a round trip, and is counted.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

/// The attribute of the top directory that tells how many there were: a line for each kind of call.
pub(crate) const TOLD: &str = "user.runvault.trips";

/// What each call costs, and how many there were.
pub(crate) struct Trips {
    delay: Duration,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Trips {
    pub(crate) fn new(delay: Duration) -> Self {
        Self { delay, counts: Mutex::default() }
    }

    pub(crate) fn take(&self, call: &'static str) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(call).or_default() += 1;
        if !self.delay.is_zero() {
            sleep(self.delay);
        }
    }

    pub(crate) fn told(&self) -> String {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().fold(String::new(), |mut told, (call, n)| {
            // A string takes whatever is written.
            let _ = writeln!(told, "{call} {n}");
            told
        })
    }
}
