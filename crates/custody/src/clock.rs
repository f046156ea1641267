//! The time of day in the one form that notes and audit lines carry: RFC 3339, UTC, whole seconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use runvault_format::time::text;

/// Now, such as `2026-11-24T05:56:08Z`.
pub fn now() -> String {
    text(seconds())
}

/// Now and so many seconds more.
pub(crate) fn in_seconds(more: u64) -> String {
    text(seconds().saturating_add(more))
}

/// So many days before now.
pub fn days_ago(days: u64) -> String {
    text(seconds().saturating_sub(days.saturating_mul(24 * 3600)))
}

/// Now, in seconds since 1970.
pub fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A clock that being put back does not hold up: it goes on from where it was started.
#[derive(Debug)]
pub(crate) struct Steady {
    seconds: u64,
    since_boot: Duration,
}

impl Steady {
    pub(crate) fn start() -> Self {
        Self { seconds: seconds(), since_boot: since_boot() }
    }

    /// Now, as [`now`] gives it, and never less than what has passed since the start.
    pub(crate) fn now(&self) -> String {
        text(self.at(seconds(), since_boot()))
    }

    fn at(&self, seconds: u64, since_boot: Duration) -> u64 {
        let passed = since_boot.saturating_sub(self.since_boot).as_secs();
        seconds.max(self.seconds.saturating_add(passed))
    }
}

/// Time since the machine started, suspended or not: nobody sets it.
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_put_back_goes_on() {
        let seconds = Duration::from_secs;
        let steady = Steady { seconds: 1000, since_boot: seconds(50) };
        assert_eq!(steady.at(1010, seconds(60)), 1010);
        assert_eq!(steady.at(100, seconds(60)), 1010, "put back");
        assert_eq!(steady.at(5000, seconds(60)), 5000, "put forward");
        assert_eq!(steady.at(1011, seconds(61)), 1011, "and right again");
    }
}
