//! An act of one custodian of one: proposed, approved and executed at once.

use anyhow::Result;
use clap::Args;
use runvault_custody::follow::with_newest_keys;
use runvault_custody::quorum::already::{already, finish as finish_act, removed};
use runvault_custody::quorum::{alone, in_words};
use runvault_format::ids::IdentityId;
use runvault_format::operation::{KeyChange, Operation};

use super::tell::{self, Act, Work};
use super::{confirmed, drill, operations};
use crate::acts::Acts;
use crate::args::{Direct, Proposal, Renewing};
use crate::given::given;
use crate::output::{quoted, warn};
use crate::run_of_name::{no_run, parts};
use crate::store::Store;
use crate::{progress, signals};

pub fn run<T: Args>(args: Direct<T>, proposal: fn(T) -> Proposal) -> Result<()> {
    act(args, |act| (proposal(act), false))
}

/// What makes a new vault key.
pub fn renew<T: Args>(args: Direct<Renewing<T>>, proposal: fn(T) -> Proposal) -> Result<()> {
    act(args, |Renewing { act, unconfirmed }| (proposal(act), unconfirmed))
}

/// `proposal`: and whether it passes over drills.
fn act<T: Args>(args: Direct<T>, proposal: impl FnOnce(T) -> (Proposal, bool)) -> Result<()> {
    let Direct { store: path, act, reason, json, who } = args;
    let mut store = Store::open(&path, &who)?;
    // Said before anything else is asked for.
    store.require_one_custodian("do this")?;
    let owner = store.identity(&who)?;
    let mut chain = store.chain.clone();
    let root = store.root.clone();
    let mut by_name = |run: &std::ffi::OsString| {
        with_newest_keys(&root, &mut chain, &owner, |authority| {
            parts(&root, authority, run, |_| no_run(run, &quoted(&path)))
        })
    };
    let (proposal, unconfirmed) = proposal(act);
    let op = match gone_reader(&store, &proposal) {
        Some(reader) => Operation::RemoveReader { reader },
        None => operations::asked(&store, &proposal, &mut by_name)?,
    };
    if let Some(line) = already(&store.chain, &op) {
        return finish(&store, &op, line, json);
    }
    confirmed::enough(&store.root, &store.chain, &op, unconfirmed)?;
    let go_on = match (&op, store.chain.quorum()) {
        (Operation::ChangeQuorum { quorum: 2.. }, _) => {
            let propose = Acts::of(2, store.typed()).command("rotate", "");
            format!("once several have to agree: {propose}")
        }
        (op, _) if op.key_change() == KeyChange::New => {
            format!("runvault custody rotate --resume {}{}", store.typed(), given(&who))
        }
        _ => "the same command".to_owned(),
    };
    let left = format!("every run stays readable; what is left of it: {go_on}");
    signals::end_with(|| left)?;
    let (after, summary) =
        progress::of_runs(|told| alone::act(&store.root, &store.chain, &owner, op.clone(), &reason, told))?;
    let what = in_words::of_act(&op, &store.chain, &after);
    let work = matches!(op, Operation::Rekey { .. }).then(|| Work {
        store: &path,
        apart: &who.apart,
        identity: who.identity.as_deref(),
        worker: None,
        replacements: after
            .replacements()
            .filter(|one| store.chain.replacement(&one.new).is_none())
            .cloned()
            .collect(),
    });
    store.chain = after;
    store.pin(&store.chain)?;
    let head = (store.chain.head().n, store.chain.head().hash.to_string());
    let act = Act { what: &what, op: &op, head, acts: &store.acts() };
    let told = tell::done(json, act, &summary, &go_on, work.as_ref());
    if !json {
        drill::tell_due_after(&op, &store)?;
    }
    told
}

/// Whoever is to be removed and is no reader any more: the act was interrupted.
fn gone_reader(store: &Store, proposal: &Proposal) -> Option<IdentityId> {
    let Proposal::RemoveReader(person) = proposal else { return None };
    let known = |(label, id): &(String, IdentityId)| *label == person.name || id.to_string() == person.name;
    let is_there = store.chain.readers().iter().any(known);
    if is_there { None } else { removed(&store.chain, &person.name) }
}

/// What is left of an act that a line says already.
fn finish(store: &Store, op: &Operation, line: u64, json: bool) -> Result<()> {
    warn(&format!(
        "line {line} of the audit log says so already: no other is written, what is left of it is done"
    ));
    let summary = progress::of_runs(|told| finish_act(&store.root, &store.chain, op, told))?;
    let what = in_words::of_act(op, &store.chain, &store.chain);
    let head = (line, store.chain.line_hash(line).map_or_else(String::new, |hash| hash.to_string()));
    tell::done(json, Act { what: &what, op, head, acts: &store.acts() }, &summary, "the same command", None)
}
