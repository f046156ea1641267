//! A request's work in parts: made by whichever core is free, taken in their order while later ones are made.
//!
//! Parts are ciphers and hashes. A helper never touches the store, so that none hangs with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use rayon_core::{ThreadPool, ThreadPoolBuilder};
use runvault_crypto::registers;

use crate::Result;

/// More threads than this do not make a request faster, whose bytes one thread writes.
const MOST: usize = 3;

/// The helpers, for one request at a time: where several are under way each has a core of its own to keep busy.
struct Helpers {
    pool: ThreadPool,
    taken: AtomicBool,
}

impl Helpers {
    /// `None` on one core, and where the machine gives no thread.
    fn get() -> Option<&'static Self> {
        static HELPERS: OnceLock<Option<Helpers>> = OnceLock::new();
        HELPERS.get_or_init(Self::new).as_ref()
    }

    fn new() -> Option<Self> {
        let others = std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1);
        if others == 0 {
            return None;
        }
        let builder = ThreadPoolBuilder::new().num_threads(others.min(MOST));
        let pool = builder.thread_name(|_| "helper".into()).stack_size(256 << 10).build().ok()?;
        Some(Self { pool, taken: AtomicBool::new(false) })
    }

    /// `None` while another request has them.
    fn take(&'static self) -> Option<Taken> {
        (!self.taken.swap(true, Ordering::Acquire)).then_some(Taken(self))
    }
}

/// Gives them back when it is dropped.
struct Taken(&'static Helpers);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
    }
}

/// Calls `make` for each of `0..parts`, on several cores, and `take` with what came of each, in their order and on
/// this thread.
///
/// # Errors
/// The first of `take`, which ends it.
pub(crate) fn in_order<T: Send>(
    parts: usize,
    make: &(impl Fn(usize) -> T + Sync),
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let helpers = if parts > 1 { Helpers::get().and_then(Helpers::take) } else { None };
    let Some(Taken(helpers)) = &helpers else { return (0..parts).try_for_each(|part| take(make(part))) };
    let line = Line::of(parts);
    helpers.pool.in_place_scope(|scope| {
        for _ in 0..helpers.pool.current_num_threads().min(parts - 1) {
            scope.spawn(|_| line.help(make));
        }
        let taken = (0..parts).try_for_each(|part| take(line.wait_for(part, make)));
        line.close();
        taken
    })
}

/// The parts of a request.
struct Line<T> {
    parts: Mutex<Parts<T>>,
    changed: Condvar,
}

struct Parts<T> {
    /// The first that nobody has begun.
    next: usize,
    /// Those that are made and not taken.
    made: Vec<Option<T>>,
    /// A helper panicked: what it had begun does not come.
    lost: bool,
}

impl<T: Send> Line<T> {
    fn of(parts: usize) -> Self {
        let made = (0..parts).map(|_| None).collect();
        Self { parts: Mutex::new(Parts { next: 0, made, lost: false }), changed: Condvar::new() }
    }

    fn parts(&self) -> MutexGuard<'_, Parts<T>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes parts until none is left to begin.
    fn help(&self, make: &impl Fn(usize) -> T) {
        let _tell = Panicking(|| {
            self.parts().lost = true;
            self.changed.notify_all();
        });
        // Not in the loop's head, where the lock would be held for its body.
        let begin = || self.parts().begin();
        while let Some(part) = begin() {
            self.finish(part, make(part));
        }
        // The thread sleeps next, perhaps for long.
        registers::wipe();
    }

    fn finish(&self, part: usize, made: T) {
        if let Some(place) = self.parts().made.get_mut(part) {
            *place = Some(made);
        }
        self.changed.notify_all();
    }

    /// What came of a part. Whoever waits for it makes others meanwhile.
    fn wait_for(&self, part: usize, make: &impl Fn(usize) -> T) -> T {
        let mut parts = self.parts();
        loop {
            if let Some(made) = parts.made.get_mut(part).and_then(Option::take) {
                return made;
            }
            if parts.lost {
                return make(part);
            }
            match parts.begin() {
                Some(other) => {
                    drop(parts);
                    let made = make(other);
                    if other == part {
                        return made;
                    }
                    self.finish(other, made);
                    parts = self.parts();
                }
                None => parts = self.changed.wait(parts).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Nobody begins another.
    fn close(&self) {
        let mut parts = self.parts();
        parts.next = parts.made.len();
    }
}

impl<T> Parts<T> {
    fn begin(&mut self) -> Option<usize> {
        let part = self.next;
        (part < self.made.len()).then(|| {
            self.next += 1;
            part
        })
    }
}

/// Calls it when a panic unwinds.
struct Panicking<F: Fn()>(F);

impl<F: Fn()> Drop for Panicking<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Error;

    #[test]
    fn parts_are_taken_in_their_order_however_long_one_takes() {
        for parts in [0, 1, 2, 3, 64] {
            let mut taken = Vec::new();
            let slow = |part: usize| {
                std::thread::sleep(Duration::from_micros(((part * 7) % 5 * 100) as u64));
                part
            };
            in_order(parts, &slow, |part| {
                taken.push(part);
                Ok(())
            })
            .unwrap();
            assert_eq!(taken, (0..parts).collect::<Vec<_>>());
        }
    }

    #[test]
    fn several_requests_at_a_time_all_come_to_their_end() {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let mut sum = 0;
                        in_order(16, &|part| part, |part| {
                            sum += part;
                            Ok(())
                        })
                        .unwrap();
                        assert_eq!(sum, 120);
                    }
                });
            }
        });
    }

    #[test]
    fn the_first_error_ends_it() {
        let mut taken = 0;
        let ended = in_order(100, &|part| part, |part| {
            taken += 1;
            if part == 3 { Err(Error::Closed) } else { Ok(()) }
        });
        assert!(matches!(ended, Err(Error::Closed)));
        assert_eq!(taken, 4);
    }

    #[test]
    fn a_panic_of_a_helper_is_the_callers() {
        let caller = std::thread::current().id();
        let panics = |part: usize| {
            assert!(part != 5 && (part == 0 || std::thread::current().id() == caller), "as asked");
            std::thread::sleep(Duration::from_micros(50));
        };
        let ended = std::panic::catch_unwind(|| in_order(6, &panics, |()| Ok(())));
        assert!(ended.is_err());
        assert!(in_order(2, &|part| part, |_| Ok(())).is_ok());
    }
}
