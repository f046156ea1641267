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
    /// When it was made, as its run.json says.
    pub opened: &'a str,
    /// What it says that it adds to.
    pub after: Option<&'a After>,
    /// Text hash of its seal's note; `None` while it is open.
    pub seal: Option<Digest>,
}

/// Runs of several parts, by their places in `runs`: the first part, then those that add to it, in their order.
/// `admitted`: whether a gateway was admitted to a run, or to every run.
pub fn groups(runs: &[Part<'_>], admitted: impl Fn(&IdentityId, Option<&RunId>) -> bool) -> Vec<Vec<usize>> {
    let by_id: HashMap<RunId, usize> = (0..).zip(runs).map(|(at, run)| (run.run, at)).collect();
    let mut groups: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
    for at in 0..runs.len() {
        let found = first_of(runs, &by_id, at, &admitted).filter(|(_, between)| *between > 0);
        if let Some((first, between)) = found {
            groups.entry(first).or_default().push((between, at));
        }
    }
    let in_order = |(first, mut later): (usize, Vec<(usize, usize)>)| {
        // Behind what it continues, whatever the clocks said.
        later.sort_by_key(|(between, at)| (*between, runs.get(*at).map(|run| (run.opened, run.run))));
        std::iter::once(first).chain(later.into_iter().map(|(_, at)| at)).collect()
    };
    groups.into_iter().map(in_order).collect()
}

/// The run that one continues in the end, and by how many steps; `None` where it only says that it does.
fn first_of(
    runs: &[Part<'_>],
    by_id: &HashMap<RunId, usize>,
    run: usize,
    admitted: &impl Fn(&IdentityId, Option<&RunId>) -> bool,
) -> Option<(usize, usize)> {
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
    let may = |signer: &IdentityId| {
        *signer == first.signer || admitted(signer, None) || admitted(signer, Some(&first.run))
    };
    signers.iter().all(may).then_some((at, signers.len() - 1))
}
