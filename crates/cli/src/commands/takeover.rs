//! `takeover`: a run whose writer on another host is gone; a person says so.

use std::os::unix::ffi::OsStrExt;

use anyhow::Result;
use runvault_custody::authority::Acting;
use runvault_custody::follow::with_newest_keys;
use runvault_custody::gateway::StateFolder;
use runvault_custody::identity::Identity;
use runvault_custody::{Error, enroll};
use runvault_format::ids::RunId;
use runvault_vault::authority::Gateway;
use runvault_vault::runs;
use runvault_vault::takeover::{self, RENEW, SILENCE, Silent};
use serde_json::json;

use crate::args::Takeover;
use crate::exit::{Exit, refuse_with};
use crate::left_out::LeftOut;
use crate::output::{self, quoted, shown, visible};
use crate::progress;
use crate::prompt::confirm;
use crate::run_of_name::{among, find, not_there, of_id};
use crate::store::Store;

pub fn run(args: &Takeover) -> Result<()> {
    let mut store = Store::open(&args.store, &args.who)?;
    // Before anybody is asked for a passphrase: it may have another id by now.
    if let Some(id) = of_id(&args.run)
        && !runs::list(&store.root)?.contains(&id)
    {
        return Err(not_there(&store.root, &store.chain, &args.run, &store.typed()));
    }
    let (folder, identity) = store.gateway(&args.who)?;
    let run = match of_id(&args.run) {
        Some(id) => id,
        None => with_newest_keys(&store.root, &mut store.chain, &identity, |authority| {
            find(&store.root, authority, &args.run, |left_out| none_of_that_name(args, left_out))
        })?,
    };
    let name = visible(args.run.as_bytes());
    if let Some(writer) = takeover::writer_here(&store.root, &*folder, &run)? {
        return Err(refuse_with(
            Exit::Busy,
            format!(
                "run {name} is written by {}, which is alive on this machine",
                visible(writer.as_bytes())
            ),
            format!(
                "runvault status {} shows where it is mounted; runvault unmount ends it",
                quoted(&args.store)
            ),
        ));
    }
    if takeover::goes_on(&store.root, &*folder, &run)? {
        takeover::forget_notes(&*folder, &run)?;
        admit(&store, &folder, &identity, &run)?;
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
    let silent = silent(&store, &folder, &run, &name)?;
    with_newest_keys(&store.root, &mut store.chain, &identity, |authority| {
        Ok::<_, anyhow::Error>(takeover::takeover(&store.root, &**authority, &*folder, &run, &silent)?)
    })?;
    admit(&store, &folder, &identity, &run)?;
    tell(args, &run, true)
}

/// Whatever a person says: a machine that renews its lease writes the run.
fn silent(store: &Store, folder: &StateFolder, run: &RunId, name: &str) -> Result<Silent> {
    let bar = progress::items(SILENCE.as_secs(), "seconds");
    let mut told = false;
    let watched = takeover::watch(&store.root, &folder.id(), run, SILENCE, &mut |left| {
        if !std::mem::replace(&mut told, true) {
            let (wait, renewed) = (SILENCE.as_secs(), RENEW.as_secs());
            bar.suspend(|| {
                output::advice(&format!(
                    "watching the lease of run {name} for {wait} seconds: a writer that is alive renews it each {renewed}"
                ));
            });
        }
        bar.set_position((SILENCE - left).as_secs());
    });
    bar.finish_and_clear();
    watched?.ok_or_else(|| {
        refuse_with(
            Exit::Busy,
            format!("run {name} is being written: its lease was renewed while it was watched"),
            "end that mount there (runvault unmount), or that machine (power it off), and take the run over then",
        )
    })
}

/// Who holds another machine's run may seal it only with the owner's word, or the custodians'.
fn admit(store: &Store, folder: &StateFolder, owner: &Identity, run: &RunId) -> Result<()> {
    let authority = Acting::gateway_only(store.chain.clone());
    let maker = runs::read_descriptor(&store.root, run, &*authority)?.descriptor.signer;
    if maker == folder.id() || authority.is_admitted(&folder.id(), Some(run)) {
        return Ok(());
    }
    match enroll::admit(&store.root, &store.chain, owner, &folder.id(), Some(run), "takeover") {
        Ok(chain) => store.pin(&chain),
        Err(error @ (Error::NeedsQuorum { .. } | Error::WrongKey { .. })) => {
            output::warn(&format!(
                "this machine cannot seal the run: {error}. Who may, lets it: {}",
                store.acts().command("admit-gateway", &format!("{} {run}", folder.id()))
            ));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// `taken`: by this command; it was this machine's before otherwise.
fn tell(args: &Takeover, run: &RunId, taken: bool) -> Result<()> {
    if args.json {
        return output::json(&json!({ "run": run.to_string(), "taken": taken }));
    }
    let (name, when) = (visible(args.run.as_bytes()), if taken { "now" } else { "already" });
    output::line(&format!("run {name} is this machine's {when}; the next mount goes on with it"))
}

fn none_of_that_name(args: &Takeover, left_out: Vec<LeftOut>) -> anyhow::Error {
    let (run, store) = (shown(&args.run), quoted(&args.store));
    among(left_out, &args.run, &format!("runvault takeover {store}")).unwrap_or_else(|| {
        refuse_with(
            Exit::Failed,
            format!("there is no run {run}"),
            format!("runvault runs {store} lists them"),
        )
    })
}
