//! What the log gets of failed requests: a line an event, not a line a retry.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the same words are not said again.
const QUIET: Duration = Duration::from_secs(10);

/// The last thing said.
struct Last {
    words: String,
    at: Instant,
    repeated: u64,
}

static LAST: Mutex<Option<Last>> = Mutex::new(None);

/// Logs an engine's error, unless it was just logged.
pub(crate) fn log(error: &runvault_vault::Error) {
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(line) = say(&mut last, error.to_string(), Instant::now()) {
        log::warn!("{line}");
    }
}

/// The line to log, if any.
fn say(last: &mut Option<Last>, words: String, now: Instant) -> Option<String> {
    let mut repeated = 0;
    if let Some(last) = last {
        if last.words == words && now.duration_since(last.at) < QUIET {
            last.repeated += 1;
            return None;
        }
        repeated = last.repeated;
    }
    let line = if repeated > 0 {
        format!("{words} (the line before, {repeated} times more)")
    } else {
        words.clone()
    };
    *last = Some(Last { words, at: now, repeated: 0 });
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_counted_and_not_logged() {
        let (mut last, now) = (None, Instant::now());
        assert_eq!(say(&mut last, "a".into(), now).unwrap(), "a");
        assert_eq!(say(&mut last, "a".into(), now), None);
        assert_eq!(say(&mut last, "a".into(), now), None);
        assert_eq!(say(&mut last, "b".into(), now).unwrap(), "b (the line before, 2 times more)");
        assert_eq!(say(&mut last, "b".into(), now + QUIET).unwrap(), "b");
    }
}
