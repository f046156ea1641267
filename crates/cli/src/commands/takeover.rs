//! `takeover`: a run whose writer on another host is gone; a person says so.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use anyhow::Result;
use runvault_format::ids::RunId;
use runvault_vault::authority::Authority;
use runvault_vault::{Vault, takeover};
use serde_json::json;

use crate::args::Takeover;
use crate::exit::{Exit, refuse, refuse_with};
use crate::output::{self, shown, visible};
use crate::prompt::confirm;
use crate::store::Store;

pub fn run(args: &Takeover) -> Result<()> {
    let mut store = Store::open(&args.store, &args.who)?;
    let (folder, authority) = store.gateway(&args.who)?;
    let run = find(&store, &authority, args)?;
    let name = visible(args.run.as_bytes());
    if let Some(writer) = takeover::writer_here(&store.root, &*folder, &run)? {
        return Err(refuse_with(
            Exit::Busy,
            format!(
                "run {name} is written by {}, which is alive on this machine",
                visible(writer.as_bytes())
            ),
            "unmount it there: runvault unmount MOUNTPOINT",
        ));
    }
    if takeover::goes_on(&store.root, &*folder, &run)? {
        return tell(args, &run, false);
    }
    if let Some(holder) = takeover::holder(&store.root, &run)?.filter(|_| !args.yes) {
        let question = format!(
            "Run {name} ({run}) is held by {}.\n\
             If that machine still writes it, both destroy what they write. Is it gone, or its mount ended?",
            visible(holder.as_bytes())
        );
        confirm(&question, "that the machine which holds the run does not write it any more")?;
    }
    takeover::takeover(&store.root, &*authority, &*folder, &run)?;
    tell(args, &run, true)
}

/// `taken`: by this command; it was this machine's before otherwise.
fn tell(args: &Takeover, run: &RunId, taken: bool) -> Result<()> {
    if args.json {
        return output::json(&json!({ "run": run.to_string(), "taken": taken }));
    }
    let (name, when) = (visible(args.run.as_bytes()), if taken { "now" } else { "already" });
    output::line(&format!("run {name} is this machine's {when}; the next mount goes on with it"))
}

/// By id, else by name among the runs that this identity opens.
fn find(store: &Store, authority: &Arc<dyn Authority>, args: &Takeover) -> Result<RunId> {
    if let Some(id) = args.run.to_str().and_then(|text| text.parse::<RunId>().ok()) {
        return Ok(id);
    }
    let vault = Vault::open(
        Arc::clone(&store.root),
        Arc::clone(authority),
        None,
        runvault_vault::Options::default(),
    )?;
    let wanted = args.run.as_bytes();
    let found: Vec<RunId> = vault
        .status()
        .runs
        .iter()
        .filter(|run| run.name.as_deref() == Some(wanted))
        .map(|run| run.run)
        .collect();
    vault.close()?;
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(refuse_with(
            Exit::Failed,
            format!("there is no run {}", shown(&args.run)),
            format!("runvault ls {} lists them", shown(&args.store)),
        )),
        _ => Err(refuse(
            Exit::Usage,
            format!("several runs are named {}: name one by its id", shown(&args.run)),
        )),
    }
}
