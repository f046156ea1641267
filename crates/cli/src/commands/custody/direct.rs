//! An act of one custodian of one: proposed, approved and executed at once.

use anyhow::Result;
use clap::Args;
use runvault_custody::follow::with_newest_keys;
use runvault_custody::quorum::{alone, in_words};

use super::operations::{self, Asked};
use super::tell;
use crate::args::{Direct, Proposal};
use crate::exit::{Exit, refuse_with};
use crate::output::shown;
use crate::progress;
use crate::run_of_name::find;
use crate::store::Store;

pub fn run<T: Args>(args: Direct<T>, proposal: fn(T) -> Proposal) -> Result<()> {
    let Direct { store: path, act, reason, json, who } = args;
    let mut store = Store::open(&path, &who)?;
    let owner = store.identity(&who)?;
    let mut chain = store.chain.clone();
    let root = store.root.clone();
    let mut by_name = |run: &std::ffi::OsString| {
        with_newest_keys(&root, &mut chain, &owner, |authority| {
            find(&root, authority, run, |_| {
                refuse_with(
                    Exit::Failed,
                    format!("there is no run {}", shown(run)),
                    format!("runvault runs {} lists them", shown(&path)),
                )
            })
        })
    };
    let Asked { op, .. } = operations::asked(&store.root, &store.chain, &proposal(act), &mut by_name)?;
    let bar = progress::items(0, "runs");
    let (before, after) =
        alone::act(&store.root, &store.chain, &owner, op.clone(), &reason, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        })
        .map(|(chain, summary)| (summary, chain))?;
    bar.finish_and_clear();
    let what = in_words::of_act(&op, &store.chain, &after);
    store.chain = after;
    store.pin(&store.chain)?;
    let head = store.chain.head();
    let go_on = "the same command, or runvault custody rotate --resume";
    tell::done(json, &what, &op, (head.n, head.hash.to_string()), &before, go_on)
}
