//! What acts of custody have left to do, and runs that a gateway sealed to whom it should not have: for `list`, with the
//! commands that put it right.

use anyhow::Result;
use runvault_custody::authority::Acting;
use runvault_custody::behind::{Behind, States};
use runvault_custody::unfinished::{OfReader, Unfinished, unfinished};
use runvault_format::ids::RunId;
use runvault_vault::runs;
use serde_json::{Value, json};

use crate::acts::Acts;
use crate::output::{count, quoted, visible};
use crate::progress;
use crate::store::Store;

/// Runs that a line names; `--json` has all.
const NAMED: usize = 5;

pub struct Left {
    unfinished: Unfinished,
    behind: Vec<Behind>,
}

/// Looks into every run: seconds for many thousands, on a store on a network more.
pub fn of(store: &Store) -> Result<Left> {
    let bar = progress::items(0, "runs");
    let unfinished = unfinished(&store.root, &store.chain, &mut |done, total| {
        bar.set_length(2 * total);
        bar.set_position(done);
    })?;
    let (states, authority) = (States::of(&store.chain), Acting::gateway_only(store.chain.clone()));
    let mut behind = Vec::new();
    for run in runs::list(&store.root)? {
        behind.extend(states.behind(&store.root, &run, &*authority));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Left { unfinished, behind })
}

impl Left {
    /// One line each.
    pub fn due(&self, store: &Store) -> Vec<String> {
        let how = How { acts: store.acts(), store: store.typed() };
        let Unfinished { older_key, not_taken, not_given } = &self.unfinished;
        let mut due = Vec::new();
        if !older_key.is_empty() {
            let (runs, key) = (runs_in_words(older_key), store.chain.epoch());
            due.push(format!("not sealed to vault key {key} yet: {runs}: {}", how.to_newest_key()));
        }
        for one in not_taken {
            let (who, runs) = (who(one), runs_in_words(&one.runs));
            due.push(match one.known {
                true => format!(
                    "taken from reader {who}, and its envelopes are there: {runs}: {}",
                    how.to_take(one)
                ),
                false => format!("{who} is no reader, and has envelopes of {runs}: {}", how.to_remove(one)),
            });
        }
        for one in not_given {
            let (who, runs) = (who(one), runs_in_words(&one.runs));
            due.push(format!(
                "granted to reader {who}, and its envelopes are missing: {runs}: {}",
                how.to_give(one)
            ));
        }
        let mut exposed: Vec<RunId> =
            self.behind.iter().filter(|one| !one.opens.is_empty()).map(|one| one.run).collect();
        exposed.dedup();
        if !exposed.is_empty() {
            due.push(format!(
                "made or sealed by a gateway that was shown an older custody/ (runvault scrub {} tells for whom they open): \
                 {}: new keys end that, once they are sealed: {}",
                how.store,
                runs_in_words(&exposed),
                how.acts.command("rekey", &first_of(&exposed))
            ));
        }
        due
    }

    pub fn as_json(&self) -> (Value, Value) {
        let ids = |runs: &[RunId]| runs.iter().map(ToString::to_string).collect::<Vec<_>>();
        let readers = |all: &[OfReader]| -> Value {
            let one = |one: &OfReader| json!({ "reader": one.reader.to_string(), "label": one.label, "runs": ids(&one.runs) });
            all.iter().map(one).collect()
        };
        let unfinished = json!({
            "older_key": ids(&self.unfinished.older_key),
            "not_taken": readers(&self.unfinished.not_taken),
            "not_given": readers(&self.unfinished.not_given),
        });
        (unfinished, self.behind.iter().map(behind_as_json).collect())
    }
}

pub fn behind_as_json(one: &Behind) -> Value {
    json!({
        "run": one.run.to_string(),
        "what": one.to_string(),
        "at": one.at,
        "state": one.state,
        "newest": one.newest.0,
        "since": one.newest.1,
        "opens_for": one.opens,
    })
}

/// How something is done in this vault.
struct How {
    acts: Acts,
    store: String,
}

impl How {
    /// Where several agreed, who executed it goes on; without that machine's REQ.executor it is agreed on anew.
    fn again(&self, anew: String) -> String {
        match self.acts.alone() {
            true => anew,
            false => format!(
                "runvault custody execute {} REQ --approval ... --resume, with the request that says so; where REQ.executor \
                 is gone: {anew}",
                self.store
            ),
        }
    }

    fn to_newest_key(&self) -> String {
        match self.acts.alone() {
            true => format!("runvault custody rotate --resume {}", self.store),
            false => self.again(self.acts.command("rotate", "")),
        }
    }

    fn to_take(&self, of: &OfReader) -> String {
        self.again(self.acts.command("revoke", &format!("{} {}", first_of(&of.runs), name(of))))
    }

    fn to_give(&self, of: &OfReader) -> String {
        self.again(self.acts.command("grant", &format!("{} {}", first_of(&of.runs), name(of))))
    }

    fn to_remove(&self, of: &OfReader) -> String {
        match (self.acts.alone(), &of.label) {
            (_, None) => {
                format!("no line ever let it in: look at {}/runs/RUN/keys/reader-{}", self.store, of.reader)
            }
            (true, Some(_)) => self.acts.command("remove-reader", &name(of)),
            (false, Some(_)) => self.again("let it in again with add-reader, then remove-reader".to_owned()),
        }
    }
}

fn name(of: &OfReader) -> String {
    of.label.as_ref().map_or_else(|| of.reader.to_string(), quoted)
}

fn who(of: &OfReader) -> String {
    of.label.as_ref().map_or_else(
        || of.reader.to_string(),
        |label| format!("{} ({})", visible(label.as_bytes()), of.reader),
    )
}

fn first_of(runs: &[RunId]) -> String {
    let first: Vec<_> = runs.iter().take(NAMED).map(ToString::to_string).collect();
    if runs.len() > NAMED { format!("{} ...", first.join(" ")) } else { first.join(" ") }
}

fn runs_in_words(runs: &[RunId]) -> String {
    format!("{} ({})", count(runs.len() as u64, "run"), first_of(runs))
}
