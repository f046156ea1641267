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
    /// What it says that it adds to.
    pub after: Option<&'a After>,
    /// Text hash of its seal's note; `None` while it is open.
    pub seal: Option<Digest>,
}

/// Runs of several parts, by their places in `runs` (of kind `run` alone): the first part, then those that add to it, in
/// their order.
/// `admitted`: whether a gateway was admitted to a run, or to every run.
pub fn groups(runs: &[Part<'_>], admitted: impl Fn(&IdentityId, Option<&RunId>) -> bool) -> Vec<Vec<usize>> {
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

/// Whether runs of that signer may be parts of the run `first` of the gateway `maker`: it made that one, or was admitted.
pub fn may_continue(
    signer: &IdentityId,
    maker: &IdentityId,
    first: &RunId,
    admitted: impl Fn(&IdentityId, Option<&RunId>) -> bool,
) -> bool {
    signer == maker || admitted(signer, None) || admitted(signer, Some(first))
}

/// The run that one continues in the end: itself, where it continues none; `None` where it only says that it does.
fn first_of(
    runs: &[Part<'_>],
    by_id: &HashMap<RunId, usize>,
    run: usize,
    admitted: &impl Fn(&IdentityId, Option<&RunId>) -> bool,
) -> Option<usize> {
    let (mut at, mut signers) = (run, vec![runs.get(run)?.signer]);
    // Each names the hash of a seal that was there before it, so no chain of them is longer than all.
    while let Some(after) = runs.get(at)?.after.filter(|_| signers.len() <= runs.len()) {
        at = *by_id.get(&after.run)?;
        let earlier = runs.get(at)?;
        if after.how != How::Continues || earlier.seal != Some(after.seal) {
            return None;
        }
        signers.push(earlier.signer);
    }
    let first = runs.get(at).filter(|first| first.after.is_none())?;
    let may = |signer: &IdentityId| may_continue(signer, &first.signer, &first.run, admitted);
    signers.iter().all(may).then_some(at)
}
