//! Which runs are parts of one (docs/format.md, section 8.1).

use std::collections::{BTreeMap, HashMap};

use crate::descriptor::{After, How};
use crate::ids::{Digest, IdentityId, RunId};

/// A run, as its verified run.json and its seal name it.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The run.
    pub run: RunId,
    /// Signer of its run.json.
    pub signer: IdentityId,
    /// Its number in the chain of its signer; `None` for one that replaces another.
    pub seq: Option<u64>,
    /// Text hash of its run.json.
    pub note: Digest,
    /// What it says that it adds to.
    pub after: Option<&'a After>,
    /// Text hash of its seal's note; `None` while it is open.
    pub seal: Option<Digest>,
}

/// Runs of several parts, by their places in `runs` (of kind `run` alone): the first part, then those that add to it, in
/// their order.
/// `admitted`: whether the signer of a part was admitted to a run, or to every run, when it made that part.
pub fn groups(runs: &[Part<'_>], admitted: impl Fn(&Part<'_>, Option<&RunId>) -> bool) -> Vec<Vec<usize>> {
    let by_id: HashMap<RunId, usize> = (0..).zip(runs).map(|(at, run)| (run.run, at)).collect();
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for at in 0..runs.len() {
        if let Some(first) = first_of(runs, &by_id, at, &admitted).filter(|first| *first != at) {
            groups.entry(first).or_default().push(at);
        }
    }
    let in_order = |(first, mut later): (usize, Vec<usize>)| {
        let maker = runs.get(first).map(|run| run.signer);
        // By what a signer cannot choose: not by a clock, and nobody comes before the first run's gateway.
        let place =
            |at: &usize| runs.get(*at).map(|run| (Some(run.signer) != maker, run.signer, run.seq, run.run));
        later.sort_by_key(place);
        std::iter::once(first).chain(later).collect()
    };
    groups.into_iter().map(in_order).collect()
}

/// The run that one continues in the end: itself, where it continues none; `None` where it only says that it does.
fn first_of(
    runs: &[Part<'_>],
    by_id: &HashMap<RunId, usize>,
    run: usize,
    admitted: &impl Fn(&Part<'_>, Option<&RunId>) -> bool,
) -> Option<usize> {
    let (mut at, mut parts) = (run, vec![runs.get(run)?]);
    // Each names the hash of a seal that was there before it, so no chain of them is longer than all.
    while let Some(after) = runs.get(at)?.after.filter(|_| parts.len() <= runs.len()) {
        at = *by_id.get(&after.run)?;
        let earlier = runs.get(at)?;
        if after.how != How::Continues || earlier.seal != Some(after.seal) {
            return None;
        }
        parts.push(earlier);
    }
    let first = runs.get(at).filter(|first| first.after.is_none())?;
    let may = |part: &&Part<'_>| {
        part.signer == first.signer || admitted(part, None) || admitted(part, Some(&first.run))
    };
    parts.iter().all(may).then_some(at)
}
