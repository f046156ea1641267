//! `custody list`: who may do what, and what is due.

use anyhow::Result;
use runvault_custody::chain::Chain;
use runvault_custody::chain::history::{History, history};
use runvault_custody::clock;
use runvault_custody::confirm::{Drill, drills};
use runvault_custody::locks;
use runvault_custody::rekey::{self, Left};
use runvault_format::ids::IdentityId;
use serde_json::json;

use super::ages::{self, YEAR_DAYS, is_older, old};
use super::tell::replacements;
use super::{drill, left};
use crate::args::List;
use crate::output::{self, visible};
use crate::store::Store;
use crate::undone;

pub fn run(args: &List) -> Result<()> {
    let store = Store::open(&args.store, &args.seen.who())?;
    let history = history(&store.root)?;
    let chain = &store.chain;
    let since = history.key_since(chain);
    let drills = drills(&store.root, chain)?;
    let key_in_store = locks::are_there(&store.root)?;
    let mut due = due(&store, &history, &drills, key_in_store);
    if chain.quorum().0 > 1 && key_in_store {
        due.push("custody/locks holds a key file, whose passphrase can be guessed at: remove it".to_owned());
    }
    let rekeying = rekey::waiting(&store.root, chain.replacements())?;
    let worker = if chain.quorum().0 == 1 { "" } else { " --identity REQ.worker" };
    let undone = undone::of(&store)?;
    for (one, left) in &rekeying {
        let (path, run) = (store.typed(), one.run);
        due.push(match undone.iter().find(|undone| undone.of.run == run) {
            Some(undone) => format!("run {run}: {undone} ({})", undone::WAY_OUT),
            None if *left == Left::Rest => {
                let new = one.new;
                format!("what is left beside run {new}, of the worker or of run {run}, is there still: runvault rekey {path}")
            }
            None if *left == Left::PutBack => {
                format!("run {run} is there again, beside run {} that took its place: runvault rekey {path}", one.new)
            }
            None => format!("run {run} waits for its new key: runvault rekey {path}{worker}"),
        });
    }
    due.extend(unkept(&store, &drills, key_in_store));
    let left = left::of(&store)?;
    due.extend(left.due(&store));
    if args.json {
        let mut object = as_json(chain, &history, &drills, &due);
        object["rekeying"] = replacements(rekeying.iter().map(|(one, _)| one));
        (object["unfinished"], object["behind"]) = left.as_json();
        return output::json(&object);
    }
    let (quorum, custodians) = chain.quorum();
    let head = chain.head();
    output::line(&output::pairs(&[
        ("vault", chain.vault_id().to_string()),
        ("quorum", format!("{quorum} of {custodians}")),
        ("vault key", format!("number {}, {}, since {since}", chain.epoch(), old(since))),
        ("head", format!("{}:{}", head.n, head.hash)),
    ]))?;
    let mut rows = Vec::new();
    for drill in &drills {
        let state =
            drill.confirmed.as_ref().map_or("not confirmed".to_owned(), |at| format!("confirmed {at}"));
        let state = state + &kept(drill);
        rows.push(row(&history, "custodian", &drill.label, &drill.custodian, state));
    }
    for reader in chain.reader_terms() {
        let kind = if reader.standing { "standing reader" } else { "reader" };
        let until = reader.expires.as_ref().map_or(String::new(), |at| format!("until {at}"));
        rows.push(row(&history, kind, &reader.label, &reader.id, until));
    }
    for (label, id) in chain.gateways() {
        let until = chain.gateway_key(&id).and_then(|known| known.until);
        let ended = until.map_or(String::new(), |until| format!("ended with run {}", until.run.n));
        rows.push(row(&history, "gateway", &label, &id, ended));
    }
    output::line(&output::table(&rows, &[]))?;
    for one in &due {
        output::line(&format!("due: {one}"))?;
    }
    if due.is_empty() { output::line("nothing is due") } else { Ok(()) }
}

/// What its key file has for the day that custody/ is lost.
fn kept(drill: &Drill) -> String {
    drill.line.map_or_else(String::new, |line| format!(", keeps custody/ up to line {line}"))
}

fn row(history: &History, kind: &str, label: &str, id: &IdentityId, state: String) -> Vec<String> {
    let since = history.known_since(id);
    let age = format!("{}, since {since}", old(since));
    vec![kind.to_owned(), visible(label.as_bytes()), id.to_string(), age, state]
}

/// What a person has to do, and by which command. `key_in_store`: the owner's key file lies in it, and the drill is done
/// with a copy of that.
fn due(store: &Store, history: &History, drills: &[Drill], key_in_store: bool) -> Vec<String> {
    let (chain, acts) = (&store.chain, &store.acts());
    let (mut due, since) = (Vec::new(), history.key_since(chain));
    if is_older(since, YEAR_DAYS) {
        due.push(format!("vault key {} is over a year old: {}", chain.epoch(), acts.command("rotate", "")));
    }
    let confirm = drill::command(store, key_in_store);
    for one in drills {
        let name = visible(one.label.as_bytes());
        match &one.confirmed {
            None => due.push(format!("{name} has not seen the own share open: {confirm}")),
            Some(at) if is_older(at, YEAR_DAYS) => {
                due.push(format!("{name} has not seen the own share open for a year: {confirm}"));
            }
            Some(_) => {}
        }
    }
    let now = clock::now();
    for reader in chain.reader_terms() {
        if reader.expires.as_ref().is_some_and(|at| *at <= now) {
            let name = visible(reader.label.as_bytes());
            due.push(format!(
                "the time of reader {name} is over; its envelopes go by: {}",
                acts.command("remove-reader", &reader.id.to_string())
            ));
        }
    }
    due.extend(ages::due(chain, history, acts));
    due
}

/// A re-keyed run stands by its line: a custody/ from key files that do not have it is of no use to the run.
fn unkept(store: &Store, drills: &[Drill], key_in_store: bool) -> Option<String> {
    let chain = &store.chain;
    let (line, needed) = (chain.rekeyed()?, chain.quorum().0 as usize);
    let keep = drills.iter().filter(|drill| drill.line >= Some(line)).count();
    (keep < needed).then(|| {
        format!(
            "runs were re-keyed by line {line}, which the key files of {keep} custodians keep, and {needed} are needed: {}",
            drill::command(store, key_in_store)
        )
    })
}

fn as_json(chain: &Chain, history: &History, drills: &[Drill], due: &[String]) -> serde_json::Value {
    let since = |id: &IdentityId| history.known_since(id);
    let (quorum, _) = chain.quorum();
    let head = chain.head();
    let custodians: Vec<_> = drills
        .iter()
        .map(|d| {
            let (id, since) = (d.custodian.to_string(), since(&d.custodian));
            json!({
                "label": d.label, "id": id, "since": since, "confirmed": d.confirmed, "keeps_line": d.line
            })
        })
        .collect();
    let readers: Vec<_> = chain
        .reader_terms()
        .iter()
        .map(|r| {
            let (id, since) = (r.id.to_string(), since(&r.id));
            json!({
                "label": r.label, "id": id, "since": since, "standing": r.standing, "expires": r.expires
            })
        })
        .collect();
    let gateways: Vec<_> = chain
        .gateways()
        .into_iter()
        .map(|(label, id)| {
            let until = chain.gateway_key(&id).and_then(|known| known.until);
            let last = until.map(|until| until.run.n);
            json!({ "label": label, "id": id.to_string(), "since": since(&id), "last_run": last })
        })
        .collect();
    json!({
        "vault": chain.vault_id().to_string(),
        "quorum": quorum,
        "epoch": chain.epoch(),
        "epoch_since": history.key_since(chain),
        "head": format!("{}:{}", head.n, head.hash),
        "custodians": custodians,
        "readers": readers,
        "gateways": gateways,
        "due": due,
    })
}
