//! Whom `runs` asks: the mount that writes the runs, or the store itself.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use runvault_sequencer::completion::Patience;
use serde_json::Value;

use crate::args::Runs;
use crate::control::{Client, alarms_request, runs_request};
use crate::run_report;
use crate::store::{Open, Store};

/// May be asked again and again.
pub enum Source {
    /// The mount that uses this state folder.
    Mount(PathBuf),
    /// A vault that is open here, and where it is.
    Here(Box<Open>, PathBuf),
}

impl Source {
    /// The mount where there is one, unless a key is named: whoever does that wants to see what it opens.
    ///
    /// # Errors
    /// The store's, the key's.
    pub fn of(args: &Runs, store: &Store) -> Result<Source> {
        let state = store.state_of_vault();
        if !args.who.names_a_key() && ask(&state, &alarms_request()).is_ok() {
            return Ok(Source::Mount(state));
        }
        let open = if args.who.names_a_key() {
            store.read(&args.who, runvault_vault::Options::default())?
        } else {
            store.look()?
        };
        Ok(Source::Here(Box::new(open), args.store.clone()))
    }

    /// An object for each run.
    ///
    /// # Errors
    /// The mount is gone, or answers nonsense.
    pub fn runs(&self) -> Result<Vec<Value>> {
        match self {
            Source::Mount(state) => {
                let answer = ask(state, &runs_request())?;
                list(answer, "runs").context("the mount's process says nothing of runs")
            }
            Source::Here(open, store) => Ok(run_report::of_vault(&open.vault, store, &Patience::default())),
        }
    }

    /// What a mount's process finds wrong, which it says although its store hangs. Nothing where it is of a version
    /// that has no alarms.
    pub fn alarms(&self) -> Vec<Value> {
        let Source::Mount(state) = self else { return Vec::new() };
        ask(state, &alarms_request()).ok().and_then(|answer| list(answer, "alarms")).unwrap_or_default()
    }

    /// # Errors
    /// The store's.
    pub fn close(self) -> Result<()> {
        match self {
            Source::Mount(_) => Ok(()),
            Source::Here(open, _) => open.close(),
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
