//! How fast whole runs are read: a seal, `verify` or `scrub` leaves the store to those who work, where it is told to.
//!
//! One for the process, as the store's disks are for the machine: all threads that read a run share it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

static PACE: Pace = Pace { limit: AtomicU64::new(0), free: Mutex::new(None) };

struct Pace {
    /// Bytes a second; 0: as fast as it goes.
    limit: AtomicU64,
    /// When the next bytes may be read.
    free: Mutex<Option<Instant>>,
}

/// Whole runs are read no faster than that from now on, in MiB a second; `None`: as fast as it goes.
pub fn limit_mib(limit: Option<u64>) {
    PACE.limit.store(limit.unwrap_or(0).saturating_mul(1 << 20), Ordering::Relaxed);
}

/// [`limit_mib`] for as long as this lives; `None` changes nothing.
pub fn limited_mib(limit: Option<u64>) -> Limited {
    let before = limit.map(|_| PACE.limit.load(Ordering::Relaxed));
    if limit.is_some() {
        limit_mib(limit);
    }
    Limited { before }
}

/// A pace of one's own; the one before comes back when it is dropped.
pub struct Limited {
    before: Option<u64>,
}

impl Drop for Limited {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            PACE.limit.store(before, Ordering::Relaxed);
        }
    }
}

/// So many bytes were read: waits for as long as they should have taken.
pub(crate) fn keep(bytes: u64) {
    if let Some(wait) = PACE.wait(bytes, Instant::now()) {
        std::thread::sleep(wait);
    }
}

impl Pace {
    fn wait(&self, bytes: u64, now: Instant) -> Option<Duration> {
        let limit = self.limit.load(Ordering::Relaxed);
        let nanoseconds = u128::from(bytes).saturating_mul(1_000_000_000).checked_div(limit.into())?;
        let took = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let from = free.filter(|free| *free > now).unwrap_or(now);
        let until = from.checked_add(took)?;
        *free = Some(until);
        Some(until.duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_together_keep_the_pace_and_a_pause_saves_nothing_up() {
        let pace = Pace { limit: AtomicU64::new(0), free: Mutex::new(None) };
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(pace.wait(1 << 40, now), None, "no limit");
        pace.limit.store(100 << 20, Ordering::Relaxed);
        assert_eq!(pace.wait(100 << 20, now), Some(second));
        assert_eq!(pace.wait(50 << 20, now), Some(second * 3 / 2), "another thread, at the same moment");
        assert_eq!(pace.wait(100 << 20, now + second * 60), Some(second));
        assert!(pace.wait(u64::MAX, now).is_some());
    }
}
