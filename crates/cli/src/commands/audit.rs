//! `audit`: the trail of what was done to the vault.

use anyhow::Result;
use runvault_custody::chain::history::{Entry, History, history};
use serde_json::json;

use crate::args::{Audit, AuditCommand, AuditShow, AuditVerify};
use crate::exit::{Exit, refuse_with};
use crate::output::{self, count, shown};
use crate::store::Store;

pub fn run(args: &Audit) -> Result<()> {
    match &args.command {
        AuditCommand::Show(args) => show(args),
        AuditCommand::Verify(args) => verify(args),
    }
}

fn show(args: &AuditShow) -> Result<()> {
    let store = Store::open(&args.store, &args.seen.who())?;
    let History { entries, .. } = history(&store.root)?;
    if args.json {
        let lines: Vec<_> = entries.iter().map(as_json).collect();
        return output::json(&json!({ "vault": store.chain.vault_id().to_string(), "lines": lines }));
    }
    for entry in &entries {
        output::line(&in_words(entry))?;
    }
    output::line(&format!("{}, verified from the genesis on", count(entries.len() as u64, "line")))
}

fn in_words(entry: &Entry) -> String {
    let why = if entry.reason.is_empty() {
        String::new()
    } else {
        format!("\n    why: {}", entry.reason.escape_debug())
    };
    let runs: String = entry.runs.iter().map(|run| format!("\n    run {run}")).collect();
    format!(
        "{:>4}  {}  {}{why}{runs}\n    approved: {}\n    request: {}",
        entry.head.n,
        entry.time,
        entry.what,
        entry.approved.join(", "),
        entry.words
    )
}

fn as_json(entry: &Entry) -> serde_json::Value {
    json!({
        "line": entry.head.n,
        "hash": entry.head.hash.to_string(),
        "time": entry.time,
        "what": entry.what,
        "reason": entry.reason,
        "runs": entry.runs,
        "approved": entry.approved,
        "request": entry.request.to_string(),
        "words": entry.words,
    })
}

fn verify(args: &AuditVerify) -> Result<()> {
    let store = Store::open(&args.store, &args.seen.who())?;
    let head = store.chain.head();
    if let Some((n, hash)) = args.since {
        let since = format!("{n}:{hash}");
        let way_out = "the trail that you saw is another one: put the newest custody/ back, and find out who changed it";
        match store.chain.line_hash(n) {
            Some(found) if found == hash => {}
            Some(_) => {
                let what = format!("forked: line {n} of {} is not that of {since}", shown(&args.store));
                return Err(refuse_with(Exit::Damaged, what, way_out));
            }
            None => {
                let what = format!("cut: {} ends at line {}, before {since}", shown(&args.store), head.n);
                return Err(refuse_with(Exit::Damaged, what, way_out));
            }
        }
    }
    if args.json {
        return output::json(&json!({
            "vault": store.chain.vault_id().to_string(),
            "lines": head.n,
            "head": format!("{}:{}", head.n, head.hash),
            "since": args.since.map(|(n, hash)| format!("{n}:{hash}")),
        }));
    }
    let since = args.since.map_or(String::new(), |(n, _)| format!(", and goes on from line {n}"));
    output::line(&format!(
        "The trail of vault {} verifies from the genesis on{since}. Head, to keep outside the store:\n{}:{}",
        store.chain.vault_id(),
        head.n,
        head.hash
    ))
}
