//! A panic that the mount cannot go on after.

use std::panic;

/// Calls `end` when a panic costs the mount a thread, on that thread. Where it happened goes to the log;
/// what it says may be private, and goes to standard error alone.
pub fn on_lost_thread(end: impl Fn() + Send + Sync + 'static) {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        report(panic);
        if runvault_fuse::loses_a_thread() {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            log::error!("a thread of the mount failed by a bug at {place}");
            end();
        }
    }));
}
