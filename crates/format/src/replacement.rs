//! What an audit line says of a run that is re-keyed: which run stands for it from then on, and who makes that.

use runvault_crypto::signature::VerifyingKey;
use serde::{Deserialize, Serialize};

use crate::ids::{Digest, IdentityId, RunId};
use crate::json;

/// A re-keying names no more runs at once: a line has at most 1 MiB.
pub const REKEY_MAX: usize = 1000;

/// One run of a `rekey` line. A run that replaces another counts only where a line says this of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replacement {
    /// The run under the old key.
    pub run: RunId,
    /// Text hash of its seal's note.
    pub seal: Digest,
    /// The run under the new key.
    pub new: RunId,
    /// Who makes it.
    pub worker: IdentityId,
    /// Verifies the worker's run.json and seal.
    #[serde(with = "json::sign")]
    pub sign: VerifyingKey,
}

/// Whether these are one for each of `runs`, in their order, all new and of one worker.
pub fn are_of(replacements: &[Replacement], runs: &[RunId]) -> bool {
    let named = replacements.iter().map(|one| one.run).eq(runs.iter().copied());
    let worker = |one: &Replacement| (one.worker, one.sign);
    let alike = replacements.windows(2).all(|pair| matches!(pair, [a, b] if worker(a) == worker(b)));
    let mut ids: Vec<RunId> = replacements.iter().flat_map(|one| [one.run, one.new]).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    named && alike && ids.len() == all
}
