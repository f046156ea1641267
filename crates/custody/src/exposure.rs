//! Which runs a key could have opened: the first question after it was lost. Answered from the audit log, from what is
//! signed about each run, and from the envelopes that are there, without any key.
//!
//! Where something cannot be told, the answer is that it could.

mod past;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use runvault_format::ids::{IdentityId, RunId};
use runvault_store::backend::Dir;
use runvault_vault::runs;

use self::past::{Past, Sealed};
use crate::authority::Acting;
use crate::chain::Chain;
use crate::retired::{self, Gone};
use crate::{Error, Result, clock};

/// As what the key was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum As {
    /// By its own envelopes.
    Reader,
    /// By its share of a vault key.
    Custodian {
        /// How many other custodians of that time it takes.
        others: u8,
    },
    /// By what its state folder held while the run was open there.
    Gateway,
}

/// What the key has of a run, in the time that was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opens {
    /// The store as it is opens.
    Now,
    /// It opened, and whoever copied the store then still opens that copy.
    Then,
    /// Its time was over before: a copy of the store from before opens, and nothing else.
    OldCopies,
}

/// A run that the key could have opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// Its id.
    pub run: RunId,
    /// Whether it still does.
    pub opens: Opens,
    /// How.
    pub by: As,
    /// From when on, RFC 3339 in UTC.
    pub since: String,
    /// Until when; `None`: it has not ended, or nobody wrote down when.
    pub until: Option<String>,
    /// Which word, such as `line 4: granted`.
    pub why: String,
}

/// A time in which the key had a part in the vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// What it was, for people.
    pub what: String,
    /// The line that began it, and when.
    pub from: (u64, String),
    /// The line that ended it, and when.
    pub to: Option<(u64, String)>,
}

/// All that is known of a key.
#[derive(Debug)]
pub struct Exposure {
    /// Whose.
    pub key: IdentityId,
    /// The newest name that it had.
    pub label: String,
    /// In order.
    pub roles: Vec<Role>,
    /// By run.
    pub runs: Vec<Exposed>,
    /// Runs in the store.
    pub of: u64,
}

/// Looks at every run. `from` and `to`: when the key was in wrong hands, RFC 3339 in UTC; without them, always.
/// `progress` gets runs done and runs in all.
///
/// # Errors
/// [`Error::UnknownKey`] where it was never let in; as [`Chain::load`]; the store's.
pub fn exposure(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    key: &IdentityId,
    (from, to): (Option<&str>, Option<&str>),
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Exposure> {
    let past = Past::read(root, key)?;
    let label = past.label.clone().ok_or(Error::UnknownKey(*key))?;
    let authority = Acting::gateway_only(chain.clone());
    let listed = runs::list_all(root)?;
    let there = &listed.runs;
    let (total, now) = (there.len() as u64, clock::now());
    let (mut found, mut told) = (Vec::new(), BTreeSet::from_iter(there.iter().copied()));
    for (run, done) in there.iter().zip(1..) {
        let sealed = past.as_rekeyed(Sealed::read(root, &*authority, run, key)?);
        found.extend(past.of_run(&sealed, &now));
        let between = past.between(&sealed);
        let before = between.iter().chain(sealed.first.as_deref());
        for one in before.filter(|one| told.insert(one.run)) {
            found.extend(past.of_run(one, &now));
        }
        progress(done, total);
    }
    // What is in the store no more may be elsewhere.
    let mut gone: BTreeSet<RunId> = past.granted().copied().collect();
    gone.extend(retired::all(root, chain)?.iter().map(Gone::run));
    gone.extend(chain.replacements().map(|one| one.run));
    // Those that took the places of others, and are not there either.
    let coming: BTreeSet<RunId> = listed.coming().collect();
    let made = chain.replacements().filter(|one| !told.contains(&one.run) && !coming.contains(&one.new));
    let made: Vec<RunId> = made.map(|one| one.new).collect();
    gone.extend(made);
    found.extend(gone.difference(&told).flat_map(|run| past.gone(run, &now)));
    let mut runs: Vec<Exposed> = found.into_iter().filter_map(|one| within(one, from, to)).collect();
    runs.sort_by_key(|one| (one.run, one.opens, one.by));
    runs.dedup();
    Ok(Exposure { key: *key, label, roles: past.roles, runs, of: total })
}

/// What it means for the time in which the key was in wrong hands; `None`: it did not open before the end of that. Times
/// are by the clocks of several machines: without an end none is too late.
fn within(one: Exposed, from: Option<&str>, to: Option<&str>) -> Option<Exposed> {
    if to.is_some_and(|to| one.since.as_str() > to) {
        return None;
    }
    let over = one.until.as_deref().zip(from).is_some_and(|(until, from)| until < from);
    let opens = if over && one.opens == Opens::Then { Opens::OldCopies } else { one.opens };
    Some(Exposed { opens, ..one })
}
