//! Panics on the session's threads: those of our handlers are caught, others cost the thread.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; a panic in it is a result.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> thread::Result<T> {
    CATCHING.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(false);
    result
}

/// Whether the panic that is under way on this thread costs a session the thread, and the program whose
/// request it served its answer, for as long as the process lives. For a panic hook, which should then
/// see to it that [`crate::Session::refuse_all`] is called and the process ends.
///
/// fuser 0.18 panics in its own code at a time of -2^63 seconds, before any handler is called.
pub fn loses_a_thread() -> bool {
    // What fuser calls its threads.
    thread::current().name().is_some_and(|name| name.starts_with("fuser-")) && !CATCHING.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panics_on(name: &str, work: impl FnOnce() -> bool + Send + 'static) -> bool {
        thread::Builder::new().name(name.into()).spawn(work).unwrap().join().unwrap()
    }

    #[test]
    fn only_what_is_not_caught_on_a_thread_of_the_session_costs_it() {
        assert!(panics_on("fuser-3", loses_a_thread));
        assert!(!panics_on("watchdog", loses_a_thread));
        assert!(!panics_on("fuser-3", || catch(loses_a_thread).unwrap()));
        assert!(panics_on("fuser-3", || catch(|| panic!("of a handler")).is_err() && loses_a_thread()));
    }
}
