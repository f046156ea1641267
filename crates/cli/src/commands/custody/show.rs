//! `custody show`: a request in words.

use std::path::Path;

use anyhow::{Context, Result};
use runvault_custody::key_files::read_secret;
use runvault_custody::quorum::in_words;
use runvault_custody::quorum::request_file::{LEN_MAX, RequestFile};
use serde_json::json;

use crate::args::Show;
use crate::output::{self, shown};

pub fn run(args: &Show) -> Result<()> {
    let file = read(&args.request)?;
    if args.json {
        return output::json(&as_json(&file)?);
    }
    output::line(&in_full(&file)?)
}

/// A request whose parts fit each other.
///
/// # Errors
/// Exit 4: damaged, or no request; exit 2: not a file.
pub fn read(path: &Path) -> Result<RequestFile> {
    let bytes = read_secret(path, LEN_MAX, true)?;
    RequestFile::parse(&bytes).with_context(|| shown(path))
}

/// All of it, for a person who is to say yes.
pub fn in_full(file: &RequestFile) -> Result<String> {
    let request = &file.request;
    let mut text = output::pairs(&[
        ("what", file.sentence()),
        ("why", if request.reason.is_empty() { "(not said)".to_owned() } else { request.reason.clone() }),
        ("vault", request.vault.to_string()),
        ("follows", format!("line {} of the audit log", request.head.n)),
        ("proposed", request.created.clone()),
        ("until", request.expires.clone()),
        ("approvals", format!("{} of {} custodians", file.before.quorum, file.before.custodians.len())),
        ("gives", in_words::released(&request.op).to_owned()),
        ("six words", file.words()?),
    ]);
    let runs = in_words::runs(&request.op);
    if !runs.is_empty() {
        text += &format!("\nRuns:\n  {}", runs.join("\n  "));
    }
    if let Some(after) = &request.state {
        text += &format!("\nAfterwards:\n  {}", in_words::people(after).join("\n  "));
    }
    text += &format!("\n\n{}", in_words::stays_open(&request.op));
    Ok(text)
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
        "afterwards": request.state.as_ref().map(in_words::people),
        "words": file.words()?,
        "request": file.hash()?.to_string(),
    }))
}
