//! A live mount as its control socket and its signals see it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Builder;

use anyhow::Result;
use runvault_fuse::Session;
use runvault_vault::Vault;
use serde_json::{Value, json};

use crate::control::{Server, Service};
use crate::mount_point::{self, Unmounted};
use crate::store::{Open, Store};
use crate::vault_status;

/// The end of a mount: a wish for it may come before the mount is there, and programs that keep files
/// open do not delay it.
#[derive(Default)]
pub struct Ending {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    asked: bool,
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

    fn over(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `status` and `unmount` ask.
pub struct Mounted {
    at: PathBuf,
    store: PathBuf,
    vault_id: String,
    vault: Arc<Vault>,
    outcome: Mutex<Option<Value>>,
    ended: Condvar,
    sockets: OnceLock<Server>,
}

impl Mounted {
    /// Of an open vault and its session.
    pub fn new(at: &Path, path: &Path, store: &Store, open: &Open) -> Arc<Mounted> {
        Arc::new(Mounted {
            at: at.to_owned(),
            store: path.to_owned(),
            vault_id: store.chain.vault_id().to_string(),
            vault: Arc::clone(&open.vault),
            outcome: Mutex::new(None),
            ended: Condvar::new(),
            sockets: OnceLock::new(),
        })
    }

    /// Answers on the control sockets from now on.
    pub fn listen(self: &Arc<Self>, state: Option<&Path>, device: Option<&str>) {
        let service = Arc::clone(self) as Arc<dyn Service>;
        // Called once a mount.
        let _ = self.sockets.set(Server::start(state, device, &service));
    }

    /// What closing gave; whoever asked for the unmount waits for it.
    pub fn closed(&self, result: &Result<()>) {
        let value = match result {
            Ok(()) => json!({ "closed": true }),
            Err(error) => json!({ "error": format!("{error:#}") }),
        };
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        self.ended.notify_all();
    }
}

impl Service for Mounted {
    fn status(&self) -> Value {
        let mut status = vault_status::of_vault(&self.vault);
        vault_status::add(&mut status, "mount_point", self.at.to_string_lossy());
        vault_status::add(&mut status, "store", self.store.to_string_lossy());
        vault_status::add(&mut status, "vault", self.vault_id.as_str());
        vault_status::add(&mut status, "pid", std::process::id());
        Value::Object(status)
    }

    fn unmount(&self) -> Value {
        match mount_point::unmount(&self.at) {
            Ok(Unmounted::Done) => json!({ "stopping": true }),
            Ok(Unmounted::InUse) => json!({ "busy": true }),
            Err(error) => json!({ "error": format!("{error:#}") }),
        }
    }

    fn wait_closed(&self) -> Value {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.ended.wait_while(outcome, |value| value.is_none());
        outcome.unwrap_or_else(PoisonError::into_inner).clone().unwrap_or(Value::Null)
    }
}
