//! Whom `runs` asks: the mount that writes the runs, or the store itself.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use runvault_custody::gateway::StateFolder;
use runvault_sequencer::completion::Patience;
use serde_json::{Map, Value};

use crate::alarms::Incomplete;
use crate::args;
use crate::control::{Client, alarms_request, runs_request};
use crate::run_report;
use crate::store::{Open, Store};
use crate::vault_status::add;

/// May be asked again and again.
pub struct Source {
    runs: Runs,
    /// The vault's folder in this machine's state folder, whose mount knows of alarms.
    folder: PathBuf,
}

enum Runs {
    /// The mount that uses the state folder.
    Mount,
    /// A vault that is open here, and where it is.
    Here(Box<Open>, PathBuf),
}

impl Source {
    /// The mount where there is one, unless a key is named: whoever does that wants to see what it opens.
    ///
    /// # Errors
    /// The store's, the key's.
    pub fn of(args: &args::Runs, store: &Store) -> Result<Source> {
        let folder = store.state_of_vault();
        if !args.who.names_a_key() && ask(&folder, &alarms_request()).is_ok() {
            return Ok(Source { runs: Runs::Mount, folder });
        }
        let open = if args.who.names_a_key() {
            store.read(&args.who, runvault_vault::Options::default())?
        } else {
            store.look()?
        };
        Ok(Source { runs: Runs::Here(Box::new(open), args.store.clone()), folder })
    }

    /// An object for each run.
    ///
    /// # Errors
    /// The mount is gone, or answers nonsense.
    pub fn runs(&self) -> Result<Vec<Value>> {
        match &self.runs {
            Runs::Mount => {
                let answer = ask(&self.folder, &runs_request())?;
                list(answer, "runs").context("the mount's process says nothing of runs")
            }
            Runs::Here(open, store) => {
                let mut runs = run_report::of_vault(&open.vault, store, &Patience::default());
                Incomplete::of(&self.folder).tell(&mut runs);
                runs.iter_mut().filter_map(Value::as_object_mut).for_each(|run| self.tell_held(run));
                Ok(runs)
            }
        }
    }

    /// What the process of a mount finds wrong, which it says although its store hangs. Nothing where there is none, or it
    /// is of a version that has no alarms.
    pub fn alarms(&self) -> Vec<Value> {
        ask(&self.folder, &alarms_request())
            .ok()
            .and_then(|answer| list(answer, "alarms"))
            .unwrap_or_default()
    }

    /// Of a run that this machine writes, and that does not open without its mount.
    fn tell_held(&self, run: &mut Map<String, Value>) {
        let id = run.get("run").and_then(Value::as_str).and_then(|id| id.parse().ok());
        let unknown = run.get("state").is_some_and(|state| state == "open") && !run.contains_key("waits_for");
        if unknown && id.is_some_and(|id| StateFolder::keeps_key_of(&self.folder, &id)) {
            let what =
                "a mount: this machine keeps its key, and no mount of it answers (runvault mount --ingest)";
            add(run, "waits_for", what);
        }
    }

    /// # Errors
    /// The store's.
    pub fn close(self) -> Result<()> {
        match self.runs {
            Runs::Mount => Ok(()),
            Runs::Here(open, _) => open.close(),
        }
    }
}

fn ask(state: &Path, request: &str) -> Result<Value> {
    Client::of_state(state).map(Client::patient)?.ask(request)
}

fn list(mut answer: Value, key: &str) -> Option<Vec<Value>> {
    match answer.get_mut(key).map(Value::take) {
        Some(Value::Array(list)) => Some(list),
        _ => None,
    }
}
