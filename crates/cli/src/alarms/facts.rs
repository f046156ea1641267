//! What alarms are decided by: times, sizes and states, as they were at one moment.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use runvault_format::ids::RunId;
use runvault_fuse::Health;
use runvault_sequencer::completion::{Patience, State};
use serde_json::Value;

use super::incomplete::Incomplete;

/// From where on each of them is alarming.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A run's age, while it is not sealed.
    pub unsealed: Duration,
    /// A run's silence.
    pub stuck: Duration,
    /// Since a lease was renewed, or another's was met.
    pub lease: Duration,
    /// What a call into the store may take.
    pub slow: Duration,
    /// Room of the store, in percent of its size.
    pub free: u32,
    /// Time after which the store is full, at the rate of the last hour.
    pub full: Duration,
    /// Jumps of the clock, and what the store's may differ from it.
    pub clock: Duration,
    /// When runs are sealed by themselves.
    pub patience: Patience,
}

impl Limits {
    /// Longer than the longest runs last (HiSeq 2500: 3 days and more) and any paired-end turn is silent (2 hours);
    /// the watchdog gives calls up after 45 s.
    pub fn usual(patience: Patience) -> Self {
        const HOUR: u64 = 3600;
        Self {
            unsealed: Duration::from_secs(96 * HOUR),
            stuck: Duration::from_secs(4 * HOUR),
            lease: Duration::from_secs(300),
            slow: Duration::from_secs(15),
            free: 10,
            full: Duration::from_secs(12 * HOUR),
            clock: Duration::from_secs(60),
            patience,
        }
    }
}

/// All that is known.
#[derive(Clone, Debug)]
pub struct Facts {
    pub store: Store,
    pub clock: Clock,
    /// This gateway's chain was ended.
    pub revoked: bool,
    pub runs: Vec<Run>,
}

/// The store, and what went there and came from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Store {
    pub health: Health,
    /// How long a look at the runs has had no answer.
    pub unanswered: Duration,
    /// Bytes.
    pub size: u64,
    pub available: u64,
    /// Of the files that it can have, in percent; 100 where it does not count them.
    pub files_free: u32,
    pub written: u64,
    pub read: u64,
    pub files_written: u64,
    pub open_files: u64,
    /// Bytes a second over the last hour; `None` where that is not known yet.
    pub rate: Option<u64>,
}

/// This machine's clock and the store's.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub now: SystemTime,
    pub synchronised: bool,
    /// The latest jump, in seconds, where it was within the last hour.
    pub jumped: Option<i64>,
    /// By how many seconds the store's is ahead.
    pub store_ahead: Option<i64>,
}

/// A run that is open here, or one that something is wrong with. Its name is nowhere in what is kept from one look to the
/// next, nor in an alarm: it would be there after the seal.
#[derive(Clone, Debug)]
pub struct Run {
    pub run: RunId,
    /// It adds to a sealed run: it has no markers, and ends by silence alone.
    pub addition: bool,
    /// How far it is; `None` where it is not written here.
    pub state: Option<State>,
    /// Since it began.
    pub age: Duration,
    /// Since anything of it was changed.
    pub quiet: Duration,
    /// Since its lease was renewed, where this process holds it.
    pub lease_age: Option<Duration>,
    /// Who else holds it, and for how long that has been met.
    pub holder: Option<(String, Duration)>,
    /// What is wrong with what is signed about it.
    pub trouble: Option<String>,
    /// What its RunInfo.xml promises and is not there.
    pub missing: Option<Missing>,
    /// How much of it could not be signed.
    pub refused: Option<usize>,
}

/// Counted, and the first of them as people name them (`L003 C112.1`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    pub count: usize,
    pub named: Vec<String>,
}

/// What sealing has found, of runs that nobody can look into afterwards.
#[derive(Default)]
pub struct Notes(Mutex<Noted>);

/// See [`Notes`].
#[derive(Default)]
pub struct Noted {
    /// Seals that were made.
    pub seals: u64,
    /// Runs whose seal was refused, and how much of each.
    pub refused: HashMap<RunId, usize>,
    /// Runs that were sealed as incomplete.
    pub incomplete: Incomplete,
}

impl Missing {
    /// Of an object that counts and names it.
    pub fn of(said: &Value) -> Self {
        let named = said["named"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Self {
            count: said["missing"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
            named: named.map(str::to_owned).collect(),
        }
    }
}

impl Notes {
    /// With what `<state>/<vault id>` keeps of them.
    pub fn of(folder: Option<&Path>) -> Self {
        let incomplete = folder.map(Incomplete::of).unwrap_or_default();
        Self(Mutex::new(Noted { incomplete, ..Noted::default() }))
    }

    pub fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The facts of a seal that was made.
    pub fn sealed(&self, said: &Value) {
        let Some(run) = said["run"].as_str().and_then(|run| run.parse().ok()) else { return };
        let mut noted = self.lock();
        noted.seals += 1;
        noted.refused.remove(&run);
        if said["complete"] == false {
            noted.incomplete.note(run, Missing::of(said));
        }
    }

    pub fn refused(&self, run: RunId, faults: usize) {
        self.lock().refused.insert(run, faults);
    }
}

/// Seconds since 1970; 0 before.
pub fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}
