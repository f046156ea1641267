//! `retire`: the owner says that a run is not missed when it is gone from this store.

use anyhow::Result;
use runvault_custody::authority::Acting;
use runvault_custody::follow::with_newest_keys;
use runvault_custody::retired;
use runvault_custody::seen::Remembering;
use runvault_vault::runs;
use serde_json::json;

use crate::args::Retire;
use crate::output::{self, quoted, shown};
use crate::run_of_name::{find, none_of_that_name, not_there, of_id};
use crate::store::Store;

pub fn run(args: &Retire) -> Result<()> {
    let mut store = Store::open(&args.store, &args.who)?;
    let owner = store.identity(&args.who)?;
    let run = match of_id(&args.run) {
        Some(id) if runs::list(&store.root)?.contains(&id) => id,
        Some(_) => return Err(not_there(&store.root, &store.chain, &args.run, &store.typed())),
        None => with_newest_keys(&store.root, &mut store.chain, &owner, |authority| {
            find(&store.root, authority, &args.run, |left_out| {
                let command = format!("runvault retire {}", quoted(&args.store));
                none_of_that_name(&args.run, &command, left_out)
            })
        })?,
    };
    // What is signed about it needs no key; a seal that was seen must still be there.
    let authority = Remembering::over(Acting::gateway_only(store.chain.clone()), &store.state);
    let removed = retired::retire(&store.root, &store.chain, &owner, &*authority, &run, &args.reason)?;
    let (run, sealed) = (removed.run, removed.seal.as_ref().map(|seal| seal.n));
    if args.json {
        return output::json(&json!({
            "run": run, "gateway": removed.gateway, "seq": removed.seq, "seal": sealed, "time": removed.time,
        }));
    }
    output::line(&format!(
        "run {run}, number {} of gateway {}, is not missed any more when it is gone. Nothing was removed: move or remove\n\
         {}/runs/{run} now; a mount that has it open ends first.\n\
         This is a note beside the runs, and no line of the audit log.",
        removed.seq,
        removed.gateway,
        shown(&args.store)
    ))
}
