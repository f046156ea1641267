//! The post where alarms are kept: one thread gathers facts, another decides and tells. Neither waits for the other,
//! since gathering waits for the store, and a store that hangs is what must be told.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use runvault_fuse::Health;
use runvault_vault::Vault;

use super::board::Change;
use super::exec::{Names, Program, Runner};
use super::facts::{Clock, Facts, Limits};
use super::look::{Look, Looked};
use super::metrics::Metrics;
use super::{Alarms, await_end, rules};
use crate::clock;

/// How often is looked, at most.
const EVERY: Duration = Duration::from_secs(10);
/// For how long a jump of the clock is told.
const JUMPED: Duration = Duration::from_secs(3600);

/// What a mount was asked for.
pub struct Wish {
    pub limits: Limits,
    pub program: Option<Program>,
    /// Where a collector of metrics looks.
    pub metrics: Option<Metrics>,
}

/// Watches until it is dropped.
pub struct Post {
    stop: Vec<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What was gathered last, and since when no answer has come to what is being gathered.
#[derive(Default)]
struct Gathered {
    looked: Looked,
    asked: Option<Instant>,
}

impl Post {
    /// Starts both threads. `health` is the mount's.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn start(
        vault: &Arc<Vault>,
        store: &Path,
        wish: Wish,
        alarms: &Arc<Alarms>,
        health: impl Fn() -> Health + Send + 'static,
    ) -> Result<Post> {
        let every = every(&wish.limits);
        let gathered = Arc::new(Mutex::new(Gathered::default()));
        let look = Look::new(vault, store.to_owned(), wish.limits.patience, alarms);
        let (stop_looking, stopped_looking) = channel();
        let shared = Arc::clone(&gathered);
        // Never joined: it may hang in the store.
        Builder::new()
            .name("alarm-look".into())
            .spawn(move || gather(look, &shared, every, &stopped_looking))?;
        let keeper = Keeper {
            gathered,
            alarms: Arc::clone(alarms),
            limits: wish.limits,
            runner: wish.program.map(|program| Runner::start(program, names_of(vault))).transpose()?,
            metrics: wish.metrics,
            clock: Jumps::default(),
        };
        let (stop, stopped) = channel();
        let keep = move || keep(keeper, every, &stopped, &health);
        let thread = Builder::new().name("alarms".into()).spawn(keep)?;
        Ok(Post { stop: vec![stop_looking, stop], thread: Some(thread) })
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.stop.clear();
        self.thread.take().into_iter().for_each(await_end);
    }
}

fn names_of(vault: &Arc<Vault>) -> Names {
    let vault = Arc::clone(vault);
    Box::new(move |run| vault.held_name(run))
}

/// Short limits are looked at often enough to mean something.
fn every(limits: &Limits) -> Duration {
    let shortest = limits.stuck.min(limits.unsealed).min(limits.patience.quiet);
    EVERY.min(shortest / 4).max(Duration::from_millis(100))
}

fn gather(mut look: Look, gathered: &Mutex<Gathered>, every: Duration, stopped: &Receiver<()>) {
    loop {
        lock(gathered).asked = Some(Instant::now());
        let looked = look.look();
        *lock(gathered) = Gathered { looked, asked: None };
        if !matches!(stopped.recv_timeout(every), Err(RecvTimeoutError::Timeout)) {
            return;
        }
    }
}

fn keep(mut keeper: Keeper, every: Duration, stopped: &Receiver<()>, health: &dyn Fn() -> Health) {
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
        keeper.turn(health());
    }
}

struct Keeper {
    gathered: Arc<Mutex<Gathered>>,
    alarms: Arc<Alarms>,
    limits: Limits,
    runner: Option<Runner>,
    metrics: Option<Metrics>,
    clock: Jumps,
}

impl Keeper {
    fn turn(&mut self, health: Health) {
        let facts = self.facts(health);
        let found = rules::findings(&facts, &self.limits);
        let changes = self.alarms.board().update(found, Instant::now(), facts.clock.now);
        for change in &changes {
            tell(change);
            if let Some(runner) = &self.runner {
                runner.run(change);
            }
        }
        if let Some(metrics) = &self.metrics {
            let raised: Vec<_> = self.alarms.board().raised().cloned().collect();
            let seals = self.alarms.notes.lock().seals;
            metrics.write(&facts, &raised, seals);
        }
    }

    fn facts(&mut self, health: Health) -> Facts {
        let gathered = lock(&self.gathered);
        let looked = gathered.looked.clone();
        let unanswered = gathered.asked.map(|asked| asked.elapsed()).unwrap_or_default();
        drop(gathered);
        let now = SystemTime::now();
        let clock = Clock {
            now,
            synchronised: clock::is_synchronised(),
            jumped: self.clock.look(now, clock::since_boot()),
            store_ahead: looked.store_ahead,
        };
        let store = super::facts::Store { health, unanswered, ..looked.store };
        Facts { store, clock, revoked: looked.revoked, runs: looked.runs }
    }
}

/// By the id of the run: the log of a gateway has no name of what it keeps.
fn tell(change: &Change) {
    let alarm = &change.alarm;
    let about = alarm.run.map(|run| format!("run {run}: ")).unwrap_or_default();
    if change.raised {
        log::warn!("alarm {} raised: {about}{}", alarm.kind.word(), alarm.text);
    } else {
        log::info!("alarm {} cleared: {about}it was: {}", alarm.kind.word(), alarm.text);
    }
}

/// By how much the clock was set, against one that nobody sets.
#[derive(Default)]
struct Jumps {
    last: Option<(SystemTime, Duration)>,
    jumped: Option<(Duration, i64)>,
}

impl Jumps {
    /// The latest jump, in seconds; slewing is none, since it is slow.
    fn look(&mut self, now: SystemTime, since_boot: Duration) -> Option<i64> {
        if let Some((then, before)) = self.last.replace((now, since_boot)) {
            let expected = then + since_boot.saturating_sub(before);
            let by = match now.duration_since(expected) {
                Ok(ahead) => i64::try_from(ahead.as_secs()).unwrap_or(i64::MAX),
                Err(behind) => i64::try_from(behind.duration().as_secs()).map_or(i64::MIN, |by| -by),
            };
            if by != 0 {
                self.jumped = Some((since_boot, by));
            }
        }
        self.jumped = self.jumped.filter(|(at, _)| since_boot.saturating_sub(*at) < JUMPED);
        self.jumped.map(|(_, by)| by)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_is_told_for_an_hour() {
        let (mut jumps, begin) =
            (Jumps::default(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let seconds = Duration::from_secs;
        assert_eq!(jumps.look(begin, seconds(100)), None);
        assert_eq!(jumps.look(begin + seconds(10), seconds(110)), None);
        // Suspended for a day, which is no jump.
        assert_eq!(jumps.look(begin + seconds(86_410), seconds(86_510)), None);
        assert_eq!(jumps.look(begin + seconds(82_820), seconds(86_520)), Some(-3600));
        assert_eq!(jumps.look(begin + seconds(82_830), seconds(86_530)), Some(-3600));
        assert_eq!(jumps.look(begin + seconds(82_940), seconds(86_540)), Some(100));
        assert_eq!(jumps.look(begin + seconds(86_540), seconds(90_140)), None);
    }
}
