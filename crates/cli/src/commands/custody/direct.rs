//! An act of one custodian of one: proposed, approved and executed at once.

use anyhow::Result;
use clap::Args;
use runvault_custody::follow::with_newest_keys;
use runvault_custody::quorum::{alone, in_words};
use runvault_format::operation::{KeyChange, Operation};

use super::tell::{self, Work};
use super::{confirmed, operations};
use crate::args::{Direct, Proposal, Renewing};
use crate::output::shown;
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
            parts(&root, authority, run, |_| no_run(run, &shown(&path)))
        })
    };
    let (proposal, unconfirmed) = proposal(act);
    let op = operations::asked(&store, &proposal, &mut by_name)?;
    confirmed::enough(&store.root, &store.chain, &op, unconfirmed)?;
    let go_on = match (&op, store.chain.quorum()) {
        (Operation::ChangeQuorum { quorum: 2.. }, _) => {
            format!("once several have to agree: runvault custody propose {} rotate", shown(&path))
        }
        (op, _) if op.key_change() == KeyChange::New => {
            format!("runvault custody rotate --resume {}", shown(&path))
        }
        _ => "the same command".to_owned(),
    };
    let left = format!("every run stays readable; what is left of it: {go_on}");
    signals::end_with(|| left)?;
    let bar = progress::items(0, "runs");
    let (after, summary) =
        alone::act(&store.root, &store.chain, &owner, op.clone(), &reason, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        })?;
    bar.finish_and_clear();
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
    tell::done(json, &what, &op, head, &summary, &go_on, work.as_ref())
}
