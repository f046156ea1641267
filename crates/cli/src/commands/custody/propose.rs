//! `custody propose`: a request, and the key of the one who will execute it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use runvault_custody::key_files::{self, NewLock};
use runvault_custody::quorum::propose::propose;
use runvault_custody::quorum::request_file::RequestFile;
use serde_json::json;

use super::{operations, run_facts};
use crate::args::Propose;
use crate::exit::{Exit, refuse_with};
use crate::files::{must_be_new, write_new};
use crate::output::{self, quoted, shown};
use crate::store::Store;

pub fn run(args: &Propose) -> Result<()> {
    let Some(out) = &args.out else {
        let hint = "runvault custody propose STORE rotate --out req";
        return Err(refuse_with(Exit::Usage, "where the request goes is not said: --out REQ", hint));
    };
    let store = Store::open(&args.store, &args.seen.who())?;
    let by_name = &mut |run: &std::ffi::OsString| {
        let what = format!("{} is no run id", shown(run));
        Err(refuse_with(
            Exit::Usage,
            what,
            "names are encrypted, and this needs no key: runvault runs STORE shows the ids",
        ))
    };
    let op = operations::asked(&store, &args.what, by_name)?;
    let seconds = args.expires_in.as_secs();
    let (mut file, executor) = propose(&store.chain, op, &args.reason, seconds)?;
    file.take_along(&store.root);
    let key = executor_of(out);
    for path in [out, &key] {
        must_be_new(path)?;
    }
    key_files::write_new(&key, &executor, &NewLock::None, Some(store.chain.vault_id()))?;
    write_new(out, &file.to_bytes()?).inspect_err(|_| {
        // Made a moment ago, for a request that does not exist.
        let _ = std::fs::remove_file(&key);
    })?;
    tell(args, &store, &file, out, &key)
}

/// Where the executor's key of a request lies.
pub fn executor_of(request: &Path) -> PathBuf {
    let mut name = request.as_os_str().to_owned();
    name.push(".executor");
    PathBuf::from(name)
}

fn tell(args: &Propose, store: &Store, file: &RequestFile, out: &Path, key: &Path) -> Result<()> {
    if args.json {
        return output::json(&json!({
            "request": out.to_string_lossy(),
            "executor": key.to_string_lossy(),
            "what": file.sentence(),
            "words": file.words()?,
            "expires": file.request.expires,
            "approvals": file.before.quorum,
            "releases_share": file.request.releases_share,
        }));
    }
    let facts = match run_facts::of_op(store, &file.request.op) {
        facts if facts.is_empty() => facts,
        facts => format!("\n{facts}"),
    };
    let (request, store) = (quoted(out), store.typed());
    output::line(&format!(
        "Proposed: {}.{facts}\nSix words: {}\n\n\
         Give {request} to the custodians; {} of them say yes until {}:\n  \
         runvault custody approve {request} --identity KEY --out NAME.ok\n\
         Read the six words to each of them. Then, on this machine, which has {}:\n  \
         runvault custody execute {store} {request} --approval NAME.ok ...",
        file.sentence(),
        file.words()?,
        file.before.quorum,
        file.request.expires,
        shown(key),
    ))
}
