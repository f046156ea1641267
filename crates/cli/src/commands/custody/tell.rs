//! What was done, and what it does not end, for people and machines.

use anyhow::Result;
use runvault_custody::quorum::in_words;
use runvault_custody::rotate::RotateSummary;
use runvault_format::operation::Operation;
use serde_json::json;

use crate::exit::{Exit, refuse_with};
use crate::output::{self, count};

/// `what`: the operation in a sentence; `head`: the line that it became; `go_on`: the command that tries again what
/// failed.
///
/// # Errors
/// Exit 4 where runs were left as they were.
pub fn done(
    as_json: bool,
    what: &str,
    op: &Operation,
    head: (u64, String),
    summary: &RotateSummary,
    go_on: &str,
) -> Result<()> {
    if as_json {
        let failed: Vec<_> =
            summary.failed.iter().map(|(run, why)| json!({ "run": run.to_string(), "why": why })).collect();
        output::json(&json!({
            "done": what,
            "line": head.0,
            "head": format!("{}:{}", head.0, head.1),
            "epoch": summary.epoch,
            "runs": summary.rotated,
            "already": summary.already,
            "failed": failed,
        }))?;
    } else {
        let runs = summary.rotated + summary.already;
        let done = if matches!(op, Operation::Rekey { .. }) { "prepared: runvault rekey" } else { "done" };
        let runs = if runs > 0 { format!("\n{} {done}.", count(runs, "run")) } else { String::new() };
        output::line(&format!("Line {}: {what}.{runs}\n\n{}", head.0, in_words::stays_open(op)))?;
    }
    if summary.failed.is_empty() {
        return Ok(());
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
        _ => format!("they keep the envelopes that they have. Try again: {go_on}"),
    };
    Err(refuse_with(Exit::Damaged, what, advice))
}
