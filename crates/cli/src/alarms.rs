//! Alarms of a gateway's mount: what a person has to hear of while nobody looks.
//!
//! In the order of what happens: `look` gathers [`facts`], and may wait for the store; `rules` says which of them are
//! alarming, and is pure; `board` raises and clears; `post` asks all of that again and again, logs what changed, runs
//! the program of `--exec` (`exec`) and writes `--metrics` (`metrics`, `metrics_socket`). Nothing here names a run otherwise than by its
//! id, but for the one variable of `--exec` that says so.

mod board;
mod exec;
mod facts;
mod incomplete;
mod look;
mod metrics;
mod metrics_socket;
mod post;
mod rules;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime};

use runvault_format::ids::RunId;
use serde_json::{Value, json};

use crate::output::utc;

use self::board::Board;
pub use self::exec::Program;
pub use self::facts::{Limits, Notes};
pub use self::incomplete::Incomplete;
pub use self::metrics::Metrics;
pub use self::post::{Post, Wish};

/// How long a thread may take to end; some may hang in a file system that is not the store's.
const LETTING_GO: Duration = Duration::from_secs(5);

/// What a mount keeps of them, for all who find or ask something.
pub struct Alarms {
    board: Mutex<Board>,
    /// What sealing has found.
    pub notes: Notes,
}

impl Alarms {
    /// Of a mount with that `<state>/<vault id>`.
    pub fn of(folder: Option<&Path>) -> Self {
        Self { board: Mutex::default(), notes: Notes::of(folder) }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object for each that is raised.
    pub fn raised(&self) -> Vec<Value> {
        self.board().raised().map(Alarm::to_json).collect()
    }
}

/// What may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A run is still open long after it began.
    Unsealed,
    /// Nothing is written to a run that is open.
    Stuck,
    /// A run is over, or sealed, and lacks files.
    Incomplete,
    /// What was read back for a seal does not authenticate, or is not what was written.
    Refused,
    /// A run's lease is not renewed, or another's.
    Lease,
    /// What is signed about a run does not hold.
    Damaged,
    /// The store keeps calls waiting, or does not answer.
    Slow,
    /// The store has little room left.
    Filling,
    /// This machine's clock, or the store's.
    Clock,
    /// This gateway's chain was ended.
    Revoked,
}

impl Kind {
    pub const ALL: [Kind; 10] = [
        Kind::Unsealed,
        Kind::Stuck,
        Kind::Incomplete,
        Kind::Refused,
        Kind::Lease,
        Kind::Damaged,
        Kind::Slow,
        Kind::Filling,
        Kind::Clock,
        Kind::Revoked,
    ];

    /// As logs, variables and metrics have it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Unsealed => "unsealed",
            Kind::Stuck => "stuck",
            Kind::Incomplete => "incomplete",
            Kind::Refused => "refused",
            Kind::Lease => "lease",
            Kind::Damaged => "damaged",
            Kind::Slow => "slow",
            Kind::Filling => "filling",
            Kind::Clock => "clock",
            Kind::Revoked => "revoked",
        }
    }
}

/// An alarm that is raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    pub kind: Kind,
    /// The run that it is about, where it is about one.
    pub run: Option<RunId>,
    /// What was found, without any plaintext name.
    pub text: String,
    pub since: SystemTime,
}

impl Alarm {
    /// For `runs`, which has the name by the id.
    fn to_json(&self) -> Value {
        json!({
            "alarm": self.kind.word(),
            "run": self.run.map(|run| run.to_string()),
            "text": self.text,
            "since": utc(facts::unix_seconds(self.since)),
        })
    }
}

/// Waits for the end of a thread that was told to; one that hangs is left behind. What panicked has been reported by the
/// panic itself.
fn await_end(thread: JoinHandle<()>) {
    let since = Instant::now();
    while !thread.is_finished() && since.elapsed() < LETTING_GO {
        sleep(Duration::from_millis(1));
    }
}
