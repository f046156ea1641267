//! An act of one custodian of one: proposed, approved and executed at once.

use anyhow::Result;
use clap::Args;
use runvault_custody::Error as Custody;
use runvault_custody::follow::with_newest_keys;
use runvault_custody::quorum::{alone, in_words};
use runvault_format::operation::{KeyChange, Operation};

use super::{confirmed, operations, tell};
use crate::args::{Direct, Proposal};
use crate::output::shown;
use crate::run_of_name::{find, no_run};
use crate::store::Store;
use crate::{progress, signals};

pub fn run<T: Args>(args: Direct<T>, proposal: fn(T) -> Proposal) -> Result<()> {
    let Direct { store: path, act, reason, unconfirmed, json, who } = args;
    let mut store = Store::open(&path, &who)?;
    let owner = store.identity(&who)?;
    let mut chain = store.chain.clone();
    let root = store.root.clone();
    let mut by_name = |run: &std::ffi::OsString| {
        with_newest_keys(&root, &mut chain, &owner, |authority| {
            find(&root, authority, run, |_| no_run(run, &shown(&path)))
        })
    };
    // Said before anything else is asked for.
    if store.chain.quorum().0 > 1 {
        let (quorum, custodians) = store.chain.quorum();
        return Err(Custody::NeedsQuorum { quorum, custodians, what: "do this" }.into());
    }
    let op = operations::asked(&store, &proposal(act), &mut by_name)?;
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
    store.chain = after;
    store.pin(&store.chain)?;
    let head = store.chain.head();
    tell::done(json, &what, &op, (head.n, head.hash.to_string()), &summary, &go_on)
}
