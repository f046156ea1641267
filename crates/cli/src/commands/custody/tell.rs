//! What was done, and what it does not end, for people and machines.

use std::path::Path;

use anyhow::Result;
use runvault_custody::rotate::RotateSummary;
use runvault_format::operation::Operation;
use runvault_format::replacement::Replacement;
use serde_json::{Value, json};

use super::show::{in_one, stays_open};
use crate::acts::Acts;
use crate::args::Apart;
use crate::exit::{Exit, refuse_with};
use crate::output::{self, count, option, quoted, shown};

/// What `rekey` is to do.
pub struct Work<'a> {
    pub store: &'a Path,
    pub apart: &'a Apart,
    /// The owner's key file, outside of the store.
    pub identity: Option<&'a Path>,
    /// The worker's, with which whoever has it does the work; `None`: the owner does.
    pub worker: Option<&'a Path>,
    pub replacements: Vec<Replacement>,
}

impl Work<'_> {
    fn is_next(&self) -> String {
        let on =
            self.worker.map_or_else(String::new, |key| format!(", on any machine that has {}", shown(key)));
        let named = [("custody", self.apart.custody.as_deref()), ("identity", self.worker.or(self.identity))];
        let options: String = named.into_iter().map(|(name, path)| option(name, path)).collect();
        format!("The work is next{on}:\n  runvault rekey {}{options}", quoted(self.store))
    }
}

/// Runs and those that take their places.
pub fn replacements<'a>(all: impl IntoIterator<Item = &'a Replacement>) -> Value {
    all.into_iter().map(|one| json!({ "run": one.run.to_string(), "new": one.new.to_string() })).collect()
}

/// An act that is done.
pub struct Act<'a> {
    /// In a sentence.
    pub what: &'a str,
    pub op: &'a Operation,
    /// The line that it became.
    pub head: (u64, String),
    /// How the next ones begin.
    pub acts: &'a Acts,
}

/// `go_on`: the command that tries again what failed; `work`: of a re-keying.
///
/// # Errors
/// Exit 4 where runs were left as they were; exit 5: until they are sealed.
pub fn done(
    as_json: bool,
    act: Act,
    summary: &RotateSummary,
    go_on: &str,
    work: Option<&Work>,
) -> Result<()> {
    let Act { what, op, head, acts } = act;
    let stays_open = stays_open(op, acts);
    if as_json {
        let failed: Vec<_> =
            summary.failed.iter().map(|(run, why)| json!({ "run": run.to_string(), "why": why })).collect();
        let mut object = json!({
            "done": what,
            "line": head.0,
            "head": format!("{}:{}", head.0, head.1),
            "epoch": summary.epoch,
            "runs": summary.rotated,
            "already": summary.already,
            "failed": failed,
            "open": summary.open.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "stays_open": in_one(&stays_open),
        });
        if let Some(work) = work {
            object["worker"] = json!(work.worker.map(Path::to_string_lossy));
            object["replacements"] = replacements(&work.replacements);
        }
        output::json(&object)?;
    } else {
        let runs = summary.rotated + summary.already;
        let done = if work.is_some() { "prepared: runvault rekey" } else { "done" };
        let runs = if runs > 0 { format!("\n{} {done}.", count(runs, "run")) } else { String::new() };
        output::line(&format!("Line {}: {what}.{runs}\n\n{}", head.0, stays_open))?;
    }
    for run in &summary.open {
        output::warn(&format!(
            "run {run} was left as it was: it is open, and its seal would give the key to a standing reader again"
        ));
    }
    if summary.failed.is_empty() && !summary.open.is_empty() {
        return Err(still_open(op, acts, summary.open.len() as u64, go_on));
    }
    if summary.failed.is_empty() {
        return work.filter(|_| !as_json).map_or(Ok(()), |work| output::line(&work.is_next()));
    }
    for (run, why) in &summary.failed {
        output::warn(&format!("run {run} was left as it was: {why}"));
    }
    let what = format!("{} could not be done", count(summary.failed.len() as u64, "run"));
    let advice = match op {
        Operation::Recover { .. } => format!(
            "they were made or re-keyed after that copy. Bring key files with a newer drill: move custody/ away, keep it,\n\
             and recover again. Where it is another fault, mend it, then: {go_on}"
        ),
        _ if summary.failed.len() == 1 => format!("it keeps the envelopes that it has. Try again: {go_on}"),
        _ => format!("they keep the envelopes that they have. Try again: {go_on}"),
    };
    Err(refuse_with(Exit::Damaged, what, advice))
}

fn still_open(op: &Operation, acts: &Acts, runs: u64, go_on: &str) -> anyhow::Error {
    let (are, they_are) = if runs == 1 { ("is", "it is") } else { ("are", "they are") };
    let what = format!("{} {are} open: the reader still reads there", count(runs, "run"));
    let now = match op {
        Operation::Revoke { reader, .. } => acts.command("remove-reader", &reader.to_string()),
        _ => String::new(),
    };
    let advice =
        format!("once {they_are} sealed: {go_on}\nTo end it now, of all runs that the reader reads: {now}");
    refuse_with(Exit::Busy, what, advice)
}
