//! `gateway`: which machines may write runs.

mod enroll;

use std::ffi::OsStr;
use std::path::Path;

use anyhow::Result;
use runvault_custody::chains;
use runvault_custody::ends::CutOff;
use runvault_custody::enroll::{admit, dismiss, revoke};
use runvault_custody::follow::with_newest_keys;
use runvault_custody::gateways::{self, Enrolled};
use runvault_custody::identity::Identity;
use runvault_format::ids::{IdentityId, RunId};
use runvault_vault::runs;
use serde_json::json;

use crate::args::{Gateway, GatewayAdmit, GatewayCommand, GatewayDismiss, GatewayList, GatewayRevoke};
use crate::exit::{Exit, refuse_with};
use crate::output::{self, count, quoted, visible};
use crate::run_of_name::{find, no_run, of_id};
use crate::store::Store;

pub fn run(args: &Gateway) -> Result<()> {
    match &args.command {
        GatewayCommand::Admit(args) => run_admit(args),
        GatewayCommand::Dismiss(args) => run_dismiss(args),
        GatewayCommand::Enroll(args) => enroll::run(args),
        GatewayCommand::List(args) => run_list(args),
        GatewayCommand::Revoke(args) => run_revoke(args),
    }
}

fn run_admit(args: &GatewayAdmit) -> Result<()> {
    let mut store = Store::open(&args.store, &args.who)?;
    let id = gateways::named(&store.chain, &args.name)?;
    let owner = store.identity(&args.who)?;
    let run = named_run(&mut store, &args.store, &owner, args.run.as_deref())?;
    let before = store.chain.is_admitted(&id, run.as_ref());
    let chain = admit(&store.root, &store.chain, &owner, &id, run.as_ref(), &args.reason)?;
    store.pin(&chain)?;
    if args.json {
        return output::json(&json!({ "gateway": id, "run": run, "already": before }));
    }
    let (name, when) =
        (visible(args.name.as_bytes()), if before { "may already" } else { "may from now on" });
    output::line(&match run {
        None => format!("gateway {name} ({id}) {when} add to every sealed run"),
        Some(run) => format!(
            "gateway {name} ({id}) {when} add to run {run} once it is sealed, and seal it if it holds it"
        ),
    })
}

/// The run that an admission is for, by its name or id; `None`: all.
fn named_run(store: &mut Store, path: &Path, owner: &Identity, run: Option<&OsStr>) -> Result<Option<RunId>> {
    let Some(run) = run else { return Ok(None) };
    let none = || no_run(run, &quoted(path));
    let found = match of_id(run) {
        Some(id) if runs::list(&store.root)?.contains(&id) => id,
        Some(_) => return Err(none()),
        None => with_newest_keys(&store.root, &mut store.chain, owner, |authority| {
            find(&store.root, authority, run, |_| none())
        })?,
    };
    Ok(Some(found))
}

fn run_dismiss(args: &GatewayDismiss) -> Result<()> {
    let mut store = Store::open(&args.store, &args.who)?;
    let id = gateways::named(&store.chain, &args.name)?;
    let owner = store.identity(&args.who)?;
    // One that is gone is still named by its id.
    let run = match args.run.as_deref().map(|run| (run, of_id(run))) {
        Some((_, Some(id))) => Some(id),
        Some((run, None)) => named_run(&mut store, &args.store, &owner, Some(run))?,
        None => None,
    };
    let line = store.chain.head().n;
    let last = args.last.known();
    let dismissed = (&id, run.as_ref());
    let (chain, cut_off) = dismiss(&store.root, &store.chain, &owner, dismissed, &last, &args.reason)?;
    store.pin(&chain)?;
    let (already, left) = (chain.head().n == line, chain.admissions(&id));
    if args.json {
        return output::json(&json!({
            "gateway": id, "run": run, "already": already, "admitted": left, "cut_off": cut_off_json(&cut_off),
        }));
    }
    let name = visible(args.name.as_bytes());
    let when = if already { "was not admitted to that" } else { "is dismissed" };
    output::line(&format!(
        "gateway {name} ({id}) {when}: it may add to {}.{}",
        admitted_to(&left),
        cut_off_words(&cut_off)
    ))
}

/// Runs of others, in words.
fn admitted_to(admitted: &[Option<RunId>]) -> String {
    match admitted {
        [] => "its own runs alone".to_owned(),
        all if all.contains(&None) => "every sealed run".to_owned(),
        some => format!("its own runs and {} of others", count(some.len() as u64, "run")),
    }
}

fn run_list(args: &GatewayList) -> Result<()> {
    let store = Store::open(&args.store, &args.who)?;
    let all = gateways::list(&store.root, &store.chain)?;
    if args.json {
        return all.iter().try_for_each(|g| {
            output::json(&json!({
                "gateway": g.id, "name": g.label, "newest_run": g.newest_run, "last_run": g.last_run,
                "admitted": g.admitted,
            }))
        });
    }
    if all.is_empty() {
        return output::line("no machine was enrolled yet");
    }
    let row = |g: &Enrolled| {
        vec![
            visible(g.label.as_bytes()),
            g.id.to_string(),
            g.newest_run.to_string(),
            right(g),
            admitted_to(&g.admitted),
        ]
    };
    let head = ["NAME", "ID", "NEWEST RUN", "MAY WRITE", "MAY ADD TO"].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(all.iter().map(row)).collect();
    output::bytes(output::table(&rows, &[2]).as_bytes())
}

fn right(gateway: &Enrolled) -> String {
    match gateway.last_run {
        None => "yes".to_owned(),
        Some(0) => "no: none of its runs counts".to_owned(),
        Some(last) => format!("no: its runs count up to number {last}"),
    }
}

/// Whoever has a gateway's key can give a run any number: where some are missing, a person says which is the last.
fn refuse_gaps(store: &Store, id: &IdentityId) -> Result<()> {
    let gaps = chains::gaps(&store.root, &store.chain)?;
    let Some(gap) = gaps.iter().find(|gap| gap.gateway == *id) else { return Ok(()) };
    Err(refuse_with(
        Exit::Damaged,
        format!(
            "gateway {id}: {}: its newest run may be forged, and would make all below it count",
            gap.what
        ),
        "find its last genuine run (runvault runs --json STORE, by begun), and name its number or id: --last-run N.\n\
         Where runs were only removed, that is the newest: runvault gateway list STORE shows it",
    ))
}

fn run_revoke(args: &GatewayRevoke) -> Result<()> {
    let store = Store::open(&args.store, &args.who)?;
    let id = gateways::named(&store.chain, &args.name)?;
    let before = store.chain.gateway_key(&id).and_then(|known| known.until);
    if before.is_none() && args.last.last_run.is_none() {
        refuse_gaps(&store, &id)?;
    }
    let owner = store.identity(&args.who)?;
    let (chain, cut_off) = revoke(&store.root, &store.chain, &owner, &id, &args.last.known(), &args.reason)?;
    store.pin(&chain)?;
    let until = chain.gateway_key(&id).and_then(|known| known.until);
    let (last, last_seal) = until.map_or((0, 0), |until| (until.run.n, until.seal.n));
    if args.json {
        return output::json(&json!({
            "gateway": id, "last_run": last, "last_seal": last_seal, "already": before.is_some(),
            "cut_off": cut_off_json(&cut_off),
        }));
    }
    let (name, when) =
        (visible(args.name.as_bytes()), if before.is_some() { "was revoked before" } else { "is revoked" });
    output::line(&format!(
        "gateway {name} ({id}) {when}: its runs count up to number {last}, its seals up to number {last_seal}, and no\n\
         others will.{}\n\n\
         What it still has: the keys of the runs that it holds open, and whatever it could read. A mount of it that is\n\
         up makes no new run that anyone accepts; end it, and take its open runs over on another machine:\n  \
         runvault takeover {} RUN",
        cut_off_words(&cut_off),
        store.typed()
    ))
}

fn cut_off_json(cut_off: &CutOff) -> serde_json::Value {
    json!({ "runs": cut_off.runs, "seals": cut_off.seals })
}

/// What is there and no longer counts, a line each.
pub fn cut_off_words(cut_off: &CutOff) -> String {
    let line = |(what, run): (&str, &RunId)| format!("\n  {what} {run}");
    let runs = cut_off.runs.iter().map(|run| line(("run", run)));
    let seals = cut_off.seals.iter().map(|run| line(("the seal of run", run)));
    let all: Vec<String> = runs.chain(seals).collect();
    if all.is_empty() {
        String::new()
    } else {
        format!("\nIn the store, and no longer counted:{}", all.concat())
    }
}
