//! Sealing by itself: when a run's markers, or silence, say that it is over.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Once};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use runvault_format::ids::RunId;
use runvault_sequencer::completion::{Patience, State, Why};
use runvault_vault::held::HeldRun;
use runvault_vault::{Error, Posix, Vault};

use crate::alarms::Alarms;
use crate::exit::{self, Exit};
use crate::run_report;
use crate::sealing::{self, Sealing, Wish};

/// How often runs are looked at, at most.
const EVERY: Duration = Duration::from_secs(10);
/// How long a run is left alone that could not be sealed: someone has to look at it.
const AGAIN: Duration = Duration::from_secs(3600);

/// Looks at the runs that a gateway holds, until it is dropped.
pub struct Sealer {
    vault: Arc<Vault>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sealer {
    /// Starts looking.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        vault: &Arc<Vault>,
        store: &Path,
        patience: Patience,
        alarms: &Arc<Alarms>,
    ) -> Result<Sealer> {
        let (stop, stopped) = channel();
        let mut watch = Watch {
            vault: Arc::clone(vault),
            store: store.to_owned(),
            patience,
            alarms: Arc::clone(alarms),
            known: HashMap::new(),
            unfinished: String::new(),
        };
        let thread = Builder::new().name("sealer".into()).spawn(move || watch.run(&stopped))?;
        Ok(Sealer { vault: Arc::clone(vault), stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Sealer {
    /// A seal that is under way is given up; the next mount makes it anew.
    fn drop(&mut self) {
        self.vault.end_seals();
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // What panicked has been reported by the panic itself.
            let _ = thread.join();
        }
    }
}

struct Watch {
    vault: Arc<Vault>,
    store: PathBuf,
    patience: Patience,
    alarms: Arc<Alarms>,
    known: HashMap<RunId, Known>,
    /// What the log has of seals that are not finished.
    unfinished: String,
}

/// What is known of a run, and what the log has of it.
#[derive(Default)]
struct Known {
    said: String,
    not_before: Option<Instant>,
    /// When it was found complete: all of it was walked, once after each change.
    whole: Option<Instant>,
}

impl Watch {
    fn run(&mut self, stopped: &Receiver<()>) {
        let every = EVERY.min(self.patience.quiet / 4).max(Duration::from_millis(100));
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
            self.finish_seals();
            let held = self.vault.held_runs();
            self.known.retain(|run, _| held.iter().any(|held| held.run == *run));
            for run in held {
                let waits = self.known.get(&run.run).and_then(|known| known.not_before);
                if waits.is_none_or(|until| Instant::now() >= until) {
                    self.look(&run);
                }
            }
        }
    }

    fn look(&mut self, run: &HeldRun) {
        let files = match self.vault.top_files(&run.run) {
            Ok(files) => files,
            // Someone seals it by hand at this moment, or it is sealed and could not be finished yet.
            Err(Error::Posix(Posix::Stale)) => return,
            Err(error) => return self.say(run, log::Level::Warn, &error.to_string()),
        };
        match sealing::progress_of_held(&self.vault, run, &files, &self.patience) {
            State::Open => {}
            State::Draining => {
                self.say(run, log::Level::Info, "base calling has ended; files are still sent")
            }
            State::Complete { why: Why::Abandoned, .. } => {
                let what = "nothing was written for so long and no marker is there: was it aborted? It is sealed by \
                            hand only: runvault seal";
                self.say(run, log::Level::Warn, what);
            }
            State::Complete { quiet: false, .. } => {
                let what = format!(
                    "complete; it is sealed when it was quiet for {} s",
                    self.patience.quiet.as_secs()
                );
                self.say(run, log::Level::Info, &what);
            }
            State::Complete { why, quiet: true } => self.seal(run, why),
        }
    }

    /// Of runs that were sealed while something failed.
    fn finish_seals(&mut self) {
        let unfinished = match self.vault.finish_seals() {
            Err(error @ Error::Unfinished { .. }) => error.to_string(),
            // While one is made nothing else can be done.
            Ok(()) | Err(_) => String::new(),
        };
        if unfinished != self.unfinished && !unfinished.is_empty() {
            log::error!("{unfinished}");
        }
        self.unfinished = unfinished;
    }

    fn seal(&mut self, run: &HeldRun, why: Why) {
        let wish = match why {
            Why::Marker(marker) => Wish { ended: marker.file_name(), complete: false },
            // Half a run must not pass as one because the line to the instrument is down.
            Why::Drained | Why::Abandoned => Wish { ended: "silence".to_owned(), complete: !run.continues },
        };
        // Nothing of the run opens while it is read back, which takes hours: what will not be sealed is not begun.
        let whole = self.known.get(&run.run).and_then(|known| known.whole);
        if wish.complete && whole.is_none_or(|at| at.elapsed() >= run.quiet) {
            // Not its end: what is written while it is walked counts as later.
            let begun = Instant::now();
            if !self.is_complete(run) {
                return self.withhold(run);
            }
            self.known.entry(run.run).or_default().whole = Some(begun);
        }
        // Not before: something of it may be open, again and again.
        let begun = Once::new();
        let begins = || log::info!("run {}: {}; it is read back for its seal", run.run, wish.ended);
        let mut told = |_, _| begun.call_once(begins);
        match sealing::seal(&self.vault, run.run.to_string().as_bytes(), &wish, &mut told) {
            Ok(Sealing::Sealed(said)) => {
                sealing::log_sealed(&said);
                self.alarms.notes.sealed(&said);
            }
            Ok(Sealing::Refused(faults)) => {
                sealing::log_refused(&run.run, &faults);
                self.alarms.notes.refused(run.run, faults.len());
                self.leave(run);
            }
            Ok(Sealing::Withheld) => self.withhold(run),
            Ok(Sealing::Finished) => {}
            // Said by the next look.
            Err(error) if matches!(error.downcast_ref(), Some(Error::Unfinished { .. })) => {}
            Err(error) if matches!(error.downcast_ref(), Some(Error::Closed)) => {
                log::info!(
                    "run {}: its seal is given up, since the mount ends; the next one goes on",
                    run.run
                );
            }
            // Whoever has it open is waited for.
            Err(error) if exit::of(&error) == Exit::Busy => {
                self.say(run, log::Level::Info, &exit::chain(&error))
            }
            Err(error) => {
                self.say(run, log::Level::Error, &format!("not sealed: {}", exit::chain(&error)));
                self.leave(run);
            }
        }
    }

    /// Whether everything is there that its RunInfo.xml promises.
    fn is_complete(&self, run: &HeldRun) -> bool {
        let compared = run_report::completeness_of(&self.vault, &self.store, &run.run);
        compared.is_some_and(|compared| compared.missing.is_empty())
    }

    fn withhold(&mut self, run: &HeldRun) {
        let what = "it was quiet for long and is not complete: sealed by hand only, runvault seal";
        self.say(run, log::Level::Warn, what);
        self.leave(run);
    }

    fn leave(&mut self, run: &HeldRun) {
        self.known.entry(run.run).or_default().not_before = Some(Instant::now() + AGAIN);
    }

    /// The same of a run is one line, however often it is looked at.
    fn say(&mut self, run: &HeldRun, level: log::Level, what: &str) {
        let known = self.known.entry(run.run).or_default();
        if known.said != what {
            log::log!(level, "run {}: {what}", run.run);
            what.clone_into(&mut known.said);
        }
    }
}
