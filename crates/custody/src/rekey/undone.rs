//! A re-keying that somebody undid: the old run lies there again, and the new one is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use runvault_format::ids::RunId;
use runvault_format::replacement::Replacement;
use runvault_store::backend::{Dir, Kind};

use crate::Result;
use crate::chain::Chain;
use crate::layout::{self, RUNS};
use crate::rekey::is_coming;

/// A run that is there although the log says that another one replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undone {
    /// What the log says.
    pub of: Replacement,
    /// The run in its place that this machine has seen sealed: then that was done, whatever is on its way.
    pub seen: Option<RunId>,
}

impl fmt::Display for Undone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.seen {
            Some(new) => write!(
                f,
                "its re-keying was undone: run {new} took its place, which this machine has seen, and which is gone"
            ),
            None => write!(
                f,
                "its re-keying was undone, or never begun: run {}, which is to take its place, is neither there nor on its way",
                self.of.new
            ),
        }
    }
}

/// Runs that are there although neither the run that is to replace them is, nor one that replaces that, nor is it on its
/// way. So lies a copy of before the re-keying that was put back; or nothing was prepared yet. `seen`: whether this machine
/// has seen a run sealed.
///
/// # Errors
/// The store's.
pub fn undone(root: &Arc<dyn Dir>, chain: &Chain, seen: &dyn Fn(&RunId) -> bool) -> Result<Vec<Undone>> {
    let names: BTreeSet<Vec<u8>> =
        layout::names(&layout::open_dir(root, RUNS, RUNS)?, RUNS)?.into_iter().collect();
    let there = |name: String| names.contains(name.as_bytes());
    let mut last = BTreeMap::new();
    for one in chain.replacements().filter(|one| there(one.run.to_string())) {
        // Of several the one that is on its way: an earlier one came to nothing.
        let known = last.entry(one.run).or_insert(one);
        if is_coming(root, one)? {
            *known = one;
        }
    }
    let mut undone = Vec::new();
    for (run, of) in last {
        let mut later = chain.standing_for(&run);
        // Where its seal was seen, a directory of its name is not enough.
        if later.any(|new| there(new.to_string()) && (!seen(new) || has_seal(root, new))) {
            continue;
        }
        let seen = chain.standing_for(&run).find(|new| seen(new)).copied();
        if seen.is_some() || !is_coming(root, of)? {
            undone.push(Undone { of: of.clone(), seen });
        }
    }
    Ok(undone)
}

fn has_seal(root: &Arc<dyn Dir>, run: &RunId) -> bool {
    let run = root.open_dir(RUNS.as_bytes()).and_then(|runs| runs.open_dir(run.to_string().as_bytes()));
    let note = run.and_then(|run| run.open_dir(b"seal")).and_then(|seal| seal.stat(b"seal.note"));
    note.is_ok_and(|stat| stat.kind == Kind::File)
}
