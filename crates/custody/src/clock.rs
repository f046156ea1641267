//! The time of day in the one form that notes and audit lines carry: RFC 3339, UTC, whole seconds.

use std::time::{SystemTime, UNIX_EPOCH};

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
