//! Runs that a vault does not show: those in trouble, each with its cause, and those that no key opens.

use std::sync::Arc;

use runvault_format::ids::RunId;
use runvault_vault::{Error, Vault};

use crate::exit::{Exit, Refusal};
use crate::given::with_store;
use crate::output::{self, count, warn};
use crate::{exit, hint};

/// A run that is left out.
#[derive(Clone, Debug)]
pub struct LeftOut {
    run: RunId,
    cause: Arc<Error>,
}

impl LeftOut {
    /// Damage of the vault, whatever the store's error was, unless it is this machine, user or program that lacks
    /// something.
    pub fn exit(&self) -> Exit {
        let lacking = self.cause.is_of_this_machine() || matches!(&*self.cause, Error::Newer { .. });
        if lacking { Exit::Failed } else { Exit::Damaged }
    }
}

impl LeftOut {
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Without any plaintext name.
    pub fn why(&self) -> String {
        self.cause.to_string()
    }
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "run {} is left out", self.run)
    }
}

impl std::error::Error for LeftOut {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.cause)
    }
}

/// The runs in trouble, by their ids.
pub fn of(vault: &Vault) -> Vec<LeftOut> {
    vault.left_out().into_iter().map(|(run, cause)| LeftOut { run, cause }).collect()
}

/// An error about a name that may be that of a run which is left out: those are told before it, and where one is damaged
/// the command ends as for damage.
pub fn told_before(runs: Vec<LeftOut>, error: anyhow::Error) -> anyhow::Error {
    let damaged = runs.iter().any(|run| run.exit() == Exit::Damaged);
    for run in runs.into_iter().take(NAMED) {
        exit::report(&run.into());
    }
    if !damaged {
        return error;
    }
    Refusal { exit: Exit::Damaged, what: exit::chain(&error), hint: hint::hint(&error) }.into()
}

/// Warnings of one kind; who plants more fills no screen.
pub const NAMED: usize = 20;

/// Warns of every run that is not shown: for commands that do all that they were asked to without them.
pub fn warn_all(vault: &Vault) {
    let runs = of(vault);
    for left_out in runs.iter().take(NAMED) {
        let error = left_out.clone().into();
        warn(&exit::chain(&error));
        output::advice(&hint::hint(&error).unwrap_or_default());
    }
    if let Some(more) = runs.len().checked_sub(NAMED).filter(|more| *more > 0) {
        let more = format!("{} more left out: runvault check STORE names them", count(more as u64, "run"));
        warn(&with_store(&more));
    }
    warn_closed(vault);
    if let Some(text) = open_runs(vault) {
        warn(&text);
    }
}

/// That files outside runs are; `None`: there are none.
pub fn outside_runs(vault: &Vault) -> Option<&'static str> {
    vault
        .is_outside_left_out()
        .then_some("files outside runs are left out: no seal proves them; --open shows them")
}

/// That runs are left out because no seal proves them, and the way to them; `None`: none is.
pub fn open_runs(vault: &Vault) -> Option<String> {
    let open = vault.open_runs_left_out();
    match open {
        0 => None,
        1 => Some(
            "1 open run left out: no seal proves it yet; --open shows it, and it appears once it is sealed"
                .to_owned(),
        ),
        _ => Some(format!(
            "{open} open runs left out: no seal proves them yet; --open shows them, and each appears once it is sealed"
        )),
    }
}

/// Says how many runs the key does not open: no damage, but what is shown is not everything.
pub fn warn_closed(vault: &Vault) {
    match vault.closed_runs() {
        0 => {}
        1 => warn("1 run not shown: no key that is held here opens it"),
        closed => warn(&format!("{closed} runs not shown: no key that is held here opens them")),
    }
}
