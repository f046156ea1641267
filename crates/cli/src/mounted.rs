//! A live mount as its control socket and its signals see it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use anyhow::Result;
use runvault_custody::gateway::StateFolder;
use runvault_fuse::{Health, Session};
use runvault_sequencer::completion::Patience;
use runvault_vault::{Vault, pace};
use serde_json::{Value, json};

use crate::alarms::Alarms;
use crate::control::{Server, Service};
use crate::exit::{self, Exit, refuse_with};
use crate::mount_point::{self, Unmounted};
use crate::sealing::{self, Sealing, Wish};
use crate::store::{Open, Store};
use crate::{run_report, vault_status};

/// The end of a mount: a wish for it may come before the mount is there, and programs that keep files
/// open do not delay it.
#[derive(Default)]
pub struct Ending {
    state: Mutex<State>,
    changed: Condvar,
}

/// Why a mount cannot go on.
#[derive(Clone, Copy)]
pub enum Failure {
    /// A thread of it panicked.
    Bug,
    /// The store's file system has ended, and there is another in its place.
    Store,
}

#[derive(Default)]
struct State {
    asked: bool,
    failed: Option<Failure>,
    over: bool,
    session: Option<Arc<Session>>,
}

impl Ending {
    /// Ends the mount, now or as soon as it is there.
    pub fn ask(&self) {
        let session = {
            let mut state = self.lock();
            state.asked = true;
            state.session.clone()
        };
        if let Some(session) = session {
            session.unmount();
            self.over();
        }
    }

    /// The mount ends, and stays behind as a dead one.
    pub fn fail(&self, why: Failure) {
        let mut state = self.lock();
        state.failed = Some(why);
        state.over = true;
        self.changed.notify_all();
    }

    /// The mount is there; someone else may unmount it too.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn watch(self: &Arc<Self>, session: Session) -> Result<()> {
        let session = Arc::new(session);
        let (waiting, ending) = (Arc::clone(&session), Arc::clone(self));
        Builder::new().name("mount-end".into()).spawn(move || {
            waiting.wait();
            ending.over();
        })?;
        let asked = {
            let mut state = self.lock();
            state.session = Some(session);
            state.asked
        };
        if asked {
            self.ask();
        }
        Ok(())
    }

    /// Until it was unmounted, by whomever.
    pub fn wait(&self) {
        let state = self.lock();
        drop(self.changed.wait_while(state, |state| !state.over).unwrap_or_else(PoisonError::into_inner));
    }

    /// How the store has answered since this was asked last.
    pub fn health(&self) -> Health {
        let session = self.lock().session.clone();
        session.map(|session| session.health()).unwrap_or_default()
    }

    /// How it ended. After a failure no request is under way, and none will be; of one that has ended nothing is kept.
    ///
    /// # Errors
    /// Exit 1: it failed.
    pub fn outcome(&self) -> Result<()> {
        let (failed, session) = {
            let mut state = self.lock();
            // A dead mount stays where it is: with the session it would go.
            let session = if state.failed.is_some() { state.session.clone() } else { state.session.take() };
            (state.failed, session)
        };
        let Some(why) = failed else { return Ok(()) };
        if let Some(session) = session {
            session.refuse_all();
        }
        let advice = "its mount point stays closed: runvault unmount clears it away, then mount again";
        let what = match why {
            Failure::Bug => "a thread of the mount failed by a bug",
            Failure::Store => "the store's file system had ended, and is another now",
        };
        Err(refuse_with(Exit::Failed, what, advice))
    }

    fn over(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How closing went, and who is to be told.
#[derive(Default)]
struct Outcome {
    /// The mount is gone; whoever asks from now on means another one.
    gone: bool,
    value: Option<Value>,
    /// Requests for the unmount that are being answered.
    listeners: usize,
}

/// How long the process stays for those who asked for its end.
const FAREWELL: Duration = Duration::from_secs(5);

/// How often someone who waits for a seal is told how far it is.
const TELL: Duration = Duration::from_millis(500);

/// What `status`, `runs`, `seal` and `unmount` ask.
pub struct Mounted {
    at: PathBuf,
    store: PathBuf,
    vault_id: String,
    vault: Arc<Vault>,
    /// Of a mount that writes.
    folder: Option<Arc<StateFolder>>,
    /// What counts as silence of a run.
    patience: Patience,
    alarms: Arc<Alarms>,
    outcome: Mutex<Outcome>,
    changed: Condvar,
    sockets: Mutex<Option<Server>>,
}

impl Mounted {
    /// Of an open vault and its session.
    pub fn new(
        at: &Path,
        path: &Path,
        store: &Store,
        open: &Open,
        patience: Patience,
        alarms: &Arc<Alarms>,
    ) -> Arc<Mounted> {
        Arc::new(Mounted {
            at: at.to_owned(),
            store: path.to_owned(),
            vault_id: store.chain.vault_id().to_string(),
            vault: Arc::clone(&open.vault),
            folder: open.folder.clone(),
            patience,
            alarms: Arc::clone(alarms),
            outcome: Mutex::default(),
            changed: Condvar::new(),
            sockets: Mutex::new(None),
        })
    }

    /// Answers on the control sockets from now on.
    pub fn listen(self: &Arc<Self>, state: Option<&Path>, device: Option<&str>) {
        let service = Arc::clone(self) as Arc<dyn Service>;
        *self.sockets() = Some(Server::start(state, device, &service));
    }

    /// It is unmounted, and closing begins. The sockets' names go while the state folder is still ours.
    pub fn gone(&self) {
        self.lock().gone = true;
        drop(self.sockets().take());
    }

    fn sockets(&self) -> MutexGuard<'_, Option<Server>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What closing gave; returns when those who asked for the unmount have been told.
    pub fn closed(&self, result: &Result<()>) {
        let value = match result {
            Ok(()) => json!({ "closed": true }),
            Err(error) => json!({ "error": exit::chain(error) }),
        };
        let mut outcome = self.lock();
        outcome.value = Some(value);
        self.changed.notify_all();
        // Whoever does not listen any more is not waited for.
        drop(self.changed.wait_timeout_while(outcome, FAREWELL, |outcome| outcome.listeners > 0));
    }

    /// Counts one who is to be told, unless it is too late for that.
    fn heard(&self) -> bool {
        let mut outcome = self.lock();
        if !outcome.gone {
            outcome.listeners += 1;
        }
        !outcome.gone
    }

    fn lock(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for Mounted {
    fn status(&self) -> Value {
        let mut status = vault_status::of_vault(&self.vault);
        vault_status::add(&mut status, "runs_to_open", self.vault.runs_to_open());
        vault_status::add(&mut status, "mount_point", self.at.to_string_lossy());
        vault_status::add(&mut status, "store", self.store.to_string_lossy());
        vault_status::add(&mut status, "vault", self.vault_id.as_str());
        vault_status::add(&mut status, "pid", std::process::id());
        if let Some(folder) = &self.folder {
            vault_status::add_gateway_key(&mut status, folder.kek_home(), folder.keeps_keys());
        }
        Value::Object(status)
    }

    fn runs(&self) -> Value {
        // A list that leaves out what is not opened yet would say that it is not there.
        while !self.vault.await_runs(TELL) && !self.vault.is_closed() {}
        let mut runs = run_report::of_vault(&self.vault, &self.store, &self.patience);
        self.alarms.notes.lock().incomplete.tell(&mut runs);
        json!({ "runs": runs })
    }

    fn alarms(&self) -> Value {
        json!({ "alarms": self.alarms.raised() })
    }

    fn is_gone(&self) -> bool {
        self.lock().gone
    }

    fn seal(&self, run: &[u8], limit: Option<u64>, reply: &mut dyn FnMut(&Value) -> bool) {
        let _limited = pace::limited_mib(limit);
        let mut told = Instant::now();
        let sealed = sealing::seal(&self.vault, run, &Wish::by_hand(), &mut |done, total| {
            if told.elapsed() > TELL {
                told = Instant::now();
                if !reply(&json!({ "done": done, "total": total })) {
                    self.vault.give_up_seal();
                }
            }
        });
        let id = sealing::find(&self.vault, run).map(|(id, _)| id);
        match (&sealed, id) {
            (Ok(Sealing::Sealed(said)), _) => {
                sealing::log_sealed(said);
                self.alarms.notes.sealed(said);
            }
            (Ok(Sealing::Refused(faults)), Ok(id)) => {
                sealing::log_refused(&id, faults);
                self.alarms.notes.refused(id, faults.len());
            }
            (Err(error), Ok(id)) if matches!(error.downcast_ref(), Some(runvault_vault::Error::GivenUp)) => {
                log::info!("run {id}: its seal is given up: whoever asked for it has gone");
            }
            _ => {}
        }
        reply(&sealing::answer(sealed));
    }

    fn unmount(&self, at: &str, reply: &mut dyn FnMut(&Value)) -> bool {
        if self.at.to_string_lossy() != at || !self.heard() {
            reply(&json!({ "gone": true }));
            return false;
        }
        let unmounted = mount_point::unmount(&self.at);
        let done = matches!(unmounted, Ok(Unmounted::Done));
        reply(&match unmounted {
            Ok(Unmounted::Done) => json!({ "stopping": true }),
            Ok(Unmounted::InUse) => json!({ "busy": true }),
            Err(error) => json!({ "error": exit::chain(&error) }),
        });
        if done {
            let outcome = self.changed.wait_while(self.lock(), |outcome| outcome.value.is_none());
            let value = outcome.unwrap_or_else(PoisonError::into_inner).value.clone();
            reply(&value.unwrap_or_default());
        }
        self.lock().listeners -= 1;
        self.changed.notify_all();
        done
    }
}
