//! Panics in a mount's process: told without making anybody wait, and its end where it cannot go on.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic;
use std::thread;

use crate::output::error_line_later;

/// Calls `end` when a panic costs the mount a thread, on that thread. Where it happened goes to the log;
/// what it says may be private, and goes to standard error alone.
pub fn on_lost_thread(end: impl Fn() + Send + Sync + 'static) {
    panic::set_hook(Box::new(move |panic| {
        let mut text = format!("thread {:?} {panic}", thread::current().name().unwrap_or_default());
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            text = format!("{text}\n{trace}");
        }
        text.lines().for_each(error_line_later);
        if runvault_fuse::loses_a_thread() {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            log::error!("a thread of the mount failed by a bug at {place}");
            end();
        }
    }));
}
