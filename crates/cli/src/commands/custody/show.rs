//! `custody show`: a request in words.

use std::path::Path;

use anyhow::{Context, Result};
use runvault_custody::key_files::read_secret;
use runvault_custody::quorum::in_words;
use runvault_custody::quorum::request_file::{LEN_MAX, RequestFile};
use runvault_format::operation::Operation;
use serde_json::json;

use super::run_facts;
use crate::acts::Acts;
use crate::args::Show;
use crate::output::{self, quoted as typed, shown};
use crate::store::Store;

pub fn run(args: &Show) -> Result<()> {
    let file = read(&args.request)?;
    if args.json {
        return output::json(&as_json(&file)?);
    }
    output::line(&in_full(&file, args.store.as_deref())?)?;
    let Some(path) = &args.store else { return Ok(()) };
    let store = Store::open(path, &args.seen.who())?;
    match run_facts::of_op(&store, &file.request.op) {
        facts if facts.is_empty() => Ok(()),
        facts => output::line(&format!("\nIn the store {}:\n{facts}", shown(path))),
    }
}

/// A request whose parts fit each other.
///
/// # Errors
/// Exit 4: damaged, or no request; exit 2: not a file.
pub fn read(path: &Path) -> Result<RequestFile> {
    let bytes = read_secret(path, ("request", LEN_MAX), true)?;
    RequestFile::parse(&bytes).with_context(|| shown(path))
}

/// All of it, for a person who is to say yes. `store`: where that is reached.
pub fn in_full(file: &RequestFile, store: Option<&Path>) -> Result<String> {
    let request = &file.request;
    let mut text = output::pairs(&[
        ("what", file.sentence()),
        ("vault", request.vault.to_string()),
        ("follows", format!("line {} of the audit log", request.head.n)),
        ("proposed", request.created.clone()),
        ("until", request.expires.clone()),
        ("approvals", format!("{} of {} custodians", file.before.quorum, file.before.custodians.len())),
        ("gives", in_words::released(&request.op).to_owned()),
        ("six words", file.words()?),
    ]);
    let runs = run_facts::of_request(file);
    if !runs.is_empty() {
        text += &format!("\nRuns, as their gateways signed it:\n  {}", runs.join("\n  "));
        if runs.len() > file.signed.len() {
            text += "\nWhere you reach the store, more is told by: runvault custody show REQ --store STORE";
        }
    }
    if let Some(after) = &request.state {
        let gap = if runs.is_empty() { "\n" } else { "\n\n" };
        text += &format!("{gap}Afterwards:\n  {}", in_words::changed(&file.before, after).join("\n  "));
    }
    text += &format!("\n\n{}", stays_open(&request.op, &acts_after(file, store)));
    if !request.reason.is_empty() {
        // Last, and marked: it is the proposer's word, and could be made to look like the lines above.
        text += &format!("\n\nThe reason, as the one who proposed it gives it:\n{}", quoted(&request.reason));
    }
    Ok(text)
}

/// Lines of at most 72 characters behind a mark, nothing unprintable.
pub fn quoted(text: &str) -> String {
    const WIDTH: usize = 72;
    let characters: Vec<char> = text.escape_debug().collect();
    let lines = characters.chunks(WIDTH).map(|line| format!("  | {}", line.iter().collect::<String>()));
    lines.collect::<Vec<_>>().join("\n")
}

/// How acts begin once this one is done.
fn acts_after(file: &RequestFile, store: Option<&Path>) -> Acts {
    let quorum = file.request.state.as_ref().map_or(file.before.quorum, |after| after.quorum);
    Acts::of(quorum.into(), store.map_or_else(|| "STORE".to_owned(), typed))
}

/// What it does not end.
pub fn stays_open(op: &Operation, acts: &Acts) -> String {
    in_words::stays_open(op, &|act, rest| acts.command(act, rest))
}

/// The same of a request, in one line.
pub fn stays_open_in_one(file: &RequestFile) -> String {
    in_one(&stays_open(&file.request.op, &acts_after(file, None)))
}

/// A text in one line.
pub fn in_one(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub fn as_json(file: &RequestFile) -> Result<serde_json::Value> {
    let request = &file.request;
    Ok(json!({
        "what": file.sentence(),
        "reason": request.reason,
        "vault": request.vault.to_string(),
        "line": request.head.n,
        "created": request.created,
        "expires": request.expires,
        "approvals": file.before.quorum,
        "custodians": file.before.custodians.len(),
        "releases_share": request.releases_share,
        "runs": in_words::runs(&request.op),
        "signed": run_facts::as_json(file),
        "afterwards": request.state.as_ref().map(in_words::people),
        "stays_open": stays_open_in_one(file),
        "words": file.words()?,
        "request": file.hash()?.to_string(),
    }))
}
