//! A store whose calls take their time, and are counted: a share on a network.

use std::collections::BTreeMap;
use std::io::Result;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::observe::{Call, Observer, Op, observe};
use crate::backend::Dir;

/// Latencies and counts of one slow store.
#[derive(Default)]
pub struct Delays(Mutex<State>);

#[derive(Default)]
struct State {
    each: Duration,
    of: BTreeMap<Op, Duration>,
    counts: BTreeMap<Op, u64>,
}

impl Delays {
    /// The same store, with `each` before every call.
    ///
    /// # Errors
    /// When the directory has no stat.
    pub fn over(store: Arc<dyn Dir>, each: Duration) -> Result<(Arc<dyn Dir>, Arc<Self>)> {
        let delays = Arc::new(Self(Mutex::new(State { each, ..State::default() })));
        Ok((observe(store, delays.clone())?, delays))
    }

    /// Another latency for one function.
    pub fn set(&self, op: Op, latency: Duration) {
        self.lock().of.insert(op, latency);
    }

    /// Calls of one function so far.
    pub fn count(&self, op: Op) -> u64 {
        self.lock().counts.get(&op).copied().unwrap_or(0)
    }

    /// Calls of all functions so far.
    pub fn total(&self) -> u64 {
        self.lock().counts.values().sum()
    }

    /// Counts from zero again.
    pub fn reset(&self) {
        self.lock().counts.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Delays {
    fn around(&self, call: Call<'_>, run: &mut dyn FnMut() -> Result<u64>) -> Result<()> {
        let latency = {
            let mut state = self.lock();
            *state.counts.entry(call.op).or_default() += 1;
            state.of.get(&call.op).copied().unwrap_or(state.each)
        };
        if !latency.is_zero() {
            std::thread::sleep(latency);
        }
        run().map(drop)
    }
}
