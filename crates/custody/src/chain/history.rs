//! The audit log as people read it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use runvault_format::audit_entry::Line;
use runvault_format::custody_state::State;
use runvault_format::ids::{Digest, IdentityId};
use runvault_format::words;
use runvault_store::backend::Dir;

use super::load::{broken, genesis, lines};
use super::{Chain, Head, name_of};
use crate::Result;
use crate::layout::{self, AUDIT_LOG, LOG_MAX};
use crate::quorum::in_words;

/// One line of the audit log, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number and hash of the line.
    pub head: Head,
    /// By the executor's clock, RFC 3339 in UTC.
    pub time: String,
    /// What was done.
    pub what: String,
    /// The runs that it was about.
    pub runs: Vec<String>,
    /// Why, as its request says.
    pub reason: String,
    /// Label and id of those who approved.
    pub approved: Vec<String>,
    /// Hash of the request.
    pub request: Digest,
    /// Six words of it.
    pub words: String,
}

/// The trail from the genesis on.
#[derive(Debug)]
pub struct History {
    /// When the vault was made, RFC 3339 in UTC.
    pub created: String,
    /// In order.
    pub entries: Vec<Entry>,
    let_in: BTreeMap<IdentityId, String>,
}

impl History {
    /// Since when one who is custodian, reader or gateway has been so without a break, RFC 3339 in UTC: the key is at
    /// least that old.
    pub fn known_since(&self, id: &IdentityId) -> &str {
        self.let_in.get(id).unwrap_or(&self.created)
    }

    /// When the newest vault key of this chain was made, RFC 3339 in UTC.
    pub fn key_since(&self, chain: &Chain) -> &str {
        let since = chain.current().since;
        self.entries.iter().find(|line| line.head.n == since).map_or(&self.created, |line| &line.time)
    }
}

/// What was done, in order, each line verified from the genesis on once more: what it says depends on the state before.
///
/// # Errors
/// As [`Chain::load`].
pub fn history(root: &Arc<dyn Dir>) -> Result<History> {
    let (mut entries, mut let_in) = (Vec::new(), BTreeMap::new());
    let created = walk(root, |before, after, line| {
        let known: BTreeSet<_> = ids(before).collect();
        let new = ids(after.state()).filter(|id| !known.contains(id));
        let_in.extend(new.map(|id| (id, line.executed.time.clone())));
        entries.push(entry(before, after, line)?);
        Ok(())
    })?;
    Ok(History { created, entries, let_in })
}

fn ids(state: &State) -> impl Iterator<Item = IdentityId> {
    let people = state.custodians.iter().map(|one| one.id).chain(state.readers.iter().map(|one| one.id));
    people.chain(state.gateways.iter().map(|one| one.id))
}

/// Line by line: the state before, the chain with the line, the line. Gives when the vault was made.
pub(crate) fn walk(
    root: &Arc<dyn Dir>,
    mut visit: impl FnMut(&State, &Chain, &Line) -> Result<()>,
) -> Result<String> {
    let custody = layout::custody_dir(root)?;
    let (genesis, vault) = genesis(&custody)?;
    let log = layout::read(&custody, AUDIT_LOG, "custody/audit.log", LOG_MAX)?;
    let mut chain = Chain::start(State::zero(&genesis, vault))?;
    for text in lines(&log)? {
        let before = chain.state().clone();
        chain.follow(&custody, text)?;
        visit(&before, &chain, &parsed(&chain, text)?)?;
    }
    loop {
        let (before, len) = (chain.state().clone(), chain.log().len());
        if !chain.take_next_claimed(&custody)? {
            return Ok(genesis.created);
        }
        let text = chain.log().get(len..).and_then(|text| text.strip_suffix(b"\n")).unwrap_or_default();
        visit(&before, &chain, &parsed(&chain, text)?)?;
    }
}

/// The newest line of a chain.
fn parsed(chain: &Chain, text: &[u8]) -> Result<Line> {
    Line::parse(text).map_err(|e| broken(chain.head().n, e))
}

fn entry(before: &State, after: &Chain, line: &Line) -> Result<Entry> {
    let head = after.head();
    let (request, executed) = (&line.executed.request, &line.executed);
    let hash = request.hash()?;
    Ok(Entry {
        head,
        time: executed.time.clone(),
        what: in_words::sentence(&request.op, before, &after.state().outline()),
        runs: in_words::runs(&request.op),
        reason: request.reason.clone(),
        approved: executed.approvals.iter().map(|approval| name_of(before, &approval.custodian)).collect(),
        request: hash,
        words: words::of_request(&hash).join(" "),
    })
}
