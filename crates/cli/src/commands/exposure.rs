//! `exposure`: which runs a lost key could have opened.

use std::path::Path;

use anyhow::Result;
use runvault_custody::exposure::{As, Exposed, Exposure as Found, Opens, Role, exposure};
use runvault_custody::public_file;
use runvault_format::ids::IdentityId;
use serde_json::json;

use crate::args::Exposure;
use crate::exit::{Exit, refuse, refuse_with};
use crate::output::{self, count, visible};
use crate::progress;
use crate::store::Store;

pub fn run(args: &Exposure) -> Result<()> {
    if args.from.as_deref().zip(args.to.as_deref()).is_some_and(|(from, to)| from > to) {
        return Err(refuse(Exit::Usage, "--from is later than --to"));
    }
    let store = Store::open(&args.store, &args.seen.who())?;
    let key = named(&store, &args.key)?;
    let time = (args.from.as_deref(), args.to.as_deref());
    let found = progress::of_runs(|told| exposure(&store.root, &store.chain, &key, time, told))?;
    match args.json {
        true => output::json(&as_json(&found)),
        false => output::line(&as_text(&found, &store)),
    }
}

fn named(store: &Store, key: &str) -> Result<IdentityId> {
    if let Ok(id) = key.parse() {
        return Ok(id);
    }
    let chain = &store.chain;
    let known = [chain.readers(), chain.custodians(), chain.gateways()].concat();
    let mut found: Vec<IdentityId> =
        known.into_iter().filter(|(label, _)| label == key).map(|(_, id)| id).collect();
    found.sort();
    found.dedup();
    match found.as_slice() {
        [id] => Ok(*id),
        [] if Path::new(key).exists() => Ok(public_file::read_any(Path::new(key))?.id),
        [] => Err(refuse_with(
            Exit::Failed,
            format!(
                "{}: nobody of that name is in this vault now, and there is no such file",
                visible(key.as_bytes())
            ),
            "give the public key file, or the id: runvault audit show STORE has those of the past",
        )),
        several => Err(refuse_with(
            Exit::Usage,
            format!("{}: the name of {} keys", visible(key.as_bytes()), several.len()),
            format!(
                "give the id: {}",
                several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
        )),
    }
}

fn opens(opens: Opens) -> &'static str {
    match opens {
        Opens::Now => "now",
        Opens::Then => "then",
        Opens::OldCopies => "old-copies",
    }
}

fn by(one: &Exposed) -> &'static str {
    match one.by {
        As::Reader => "reader",
        As::Custodian { .. } => "custodian",
        As::Gateway => "gateway",
    }
}

fn others(one: &Exposed) -> u8 {
    match one.by {
        As::Custodian { others } => others,
        As::Reader | As::Gateway => 0,
    }
}

fn as_json(found: &Found) -> serde_json::Value {
    let role = |role: &Role| {
        json!({
            "what": role.what,
            "from": { "line": role.from.0, "time": role.from.1 },
            "to": role.to.as_ref().map(|(line, time)| json!({ "line": line, "time": time })),
        })
    };
    let run = |one: &Exposed| {
        json!({
            "run": one.run.to_string(),
            "opens": opens(one.opens),
            "as": by(one),
            "other_custodians": others(one),
            "since": one.since,
            "until": one.until,
            "why": one.why,
        })
    };
    json!({
        "key": found.key.to_string(),
        "label": found.label,
        "roles": found.roles.iter().map(role).collect::<Vec<_>>(),
        "runs": found.runs.iter().map(run).collect::<Vec<_>>(),
        "of": found.of,
    })
}

fn as_text(found: &Found, store: &Store) -> String {
    let mut text = format!("{} ({})\n", visible(found.label.as_bytes()), found.key);
    for role in &found.roles {
        let (line, time) = &role.from;
        let to = role
            .to
            .as_ref()
            .map_or_else(|| "and still is".to_owned(), |(line, time)| format!("to line {line}, {time}"));
        text += &format!("  {}: from line {line}, {time}, {to}\n", role.what);
    }
    for (kind, title) in [
        (Opens::Now, "Opens now, in the store as it is"),
        (Opens::Then, "Opened then; copies of the store from that time still open"),
        (Opens::OldCopies, "Ended before: opens only in copies of the store from before its end"),
    ] {
        let rows: Vec<&Exposed> = found.runs.iter().filter(|one| one.opens == kind).collect();
        if rows.is_empty() {
            continue;
        }
        text += &format!("\n{title}: {}\n", count(rows.len() as u64, "run"));
        for one in rows {
            let until = one.until.as_deref().map_or_else(String::new, |at| format!(" to {at}"));
            text += &format!("  {}  {}  from {}{until}: {}\n", one.run, who(one), one.since, one.why);
        }
    }
    if found.runs.is_empty() {
        text += &format!("\nNone of the {} here.\n", count(found.of, "run"));
    }
    text + &format!("\n{}", what_next(found, store))
}

fn who(one: &Exposed) -> String {
    match one.by {
        As::Reader => "by its own envelope".to_owned(),
        As::Custodian { others: 0 } => "by its share, alone".to_owned(),
        As::Custodian { others } => {
            format!("by its share, with {} of that time", count(others.into(), "other custodian"))
        }
        As::Gateway => "by its state folder".to_owned(),
    }
}

/// The commands that end what can be ended.
fn what_next(found: &Found, store: &Store) -> String {
    let (acts, (quorum, custodians)) = (store.acts(), store.chain.quorum());
    let mut next = vec!["What was read, or copied with its envelopes, cannot be taken back.".to_owned()];
    let end = |act: &str| acts.command(act, &found.key.to_string());
    let now = |is: fn(&As) -> bool| found.runs.iter().any(|one| one.opens == Opens::Now && is(&one.by));
    if now(|by| matches!(by, As::Reader)) {
        next.push(format!("What opens by its own envelopes ends with:\n  {}", end("remove-reader")));
    }
    // Of one that was removed, runs may still open by the keys of before; nothing more ends there.
    let still = |kind: &str| found.roles.iter().any(|role| role.to.is_none() && role.what.starts_with(kind));
    if still("custodian") {
        // Nobody leaves before another one has come where all are needed.
        let first = match custodians > quorum as usize {
            true => String::new(),
            false => format!("\n  {}", acts.command("add-custodian", "NAME=FILE.pub")),
        };
        next.push(format!(
            "What is made from now on is closed to it by:{first}\n  {}",
            end("remove-custodian")
        ));
    }
    if still("gateway") {
        next.push(format!(
            "A run is closed to that machine once it is sealed; it makes none that count after:\n  {}",
            end("revoke-gateway")
        ));
    }
    if !found.runs.is_empty() {
        next.push(format!(
            "Runs under a new key (docs/custody.md, \"A key was exposed\"):\n  {}",
            acts.command("rekey", "RUN...")
        ));
    }
    next.join("\n")
}
