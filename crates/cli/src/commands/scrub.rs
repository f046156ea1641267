//! `scrub`: the whole store against its signatures, without any key.

use anyhow::Result;
use runvault_custody::authority::Acting;
use runvault_custody::behind::States;
use runvault_custody::chains::{self, Gap};
use runvault_custody::seen::Remembering;
use runvault_format::ids::{Digest, RunId};
use runvault_vault::authority::Authority;
use runvault_vault::seal::{self, Change, Checked, Finding, Scrubbed};
use runvault_vault::{Error, pace, runs};
use serde_json::json;

use super::verify::{counted, end, tell, tell_behind};
use crate::args::Scrub;
use crate::output::{self, count, visible};
use crate::store::Store;
use crate::{progress, resuming, undone};

pub fn run(args: &Scrub) -> Result<()> {
    pace::limit_mib(args.pace.limit);
    let store = Store::open(&args.store, &args.who)?;
    let authority = Remembering::over(Acting::ingest(&store.root, store.chain.clone()), &store.state);
    let listed = runs::list(&store.root)?;
    let vault = store.chain.vault_id();
    let record = resuming::open(&args.store, args.who.state.as_deref(), vault, b"", &args.resuming)?;
    let bar = progress::items(0, "scrub");
    let (mut sealed, mut open, mut findings, mut read) = (0u64, 0u64, 0u64, 0u64);
    let (states, mut behind) = (States::of(&store.chain), 0u64);
    for (i, run) in listed.iter().enumerate() {
        let of_all = format!("run {} of {}", i + 1, listed.len());
        let checked = |hash: Digest| record.of_run(*run, hash, resuming::place(&args.store, run));
        let found = look(&store, run, &*authority, checked, &|done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            // After its length: a bar without one looks as if it were done.
            bar.set_message(of_all.clone());
        })?;
        let older = states.behind(&store.root, run, &*authority);
        behind += older.len() as u64;
        // A bar that has no length yet would be drawn as if it were done.
        if !older.is_empty() {
            bar.suspend(|| tell_behind(args.json, &older))?;
        }
        match found {
            None => open += 1,
            Some(found) => {
                sealed += 1;
                findings += counted(&found.findings);
                read += found.read;
                bar.suspend(|| {
                    found.findings.iter().try_for_each(|finding| tell(args.json, &args.store, finding, run))
                })?;
            }
        }
    }
    bar.finish_and_clear();
    for undone in undone::unseen(&store)? {
        findings += 1;
        let change = Change::Damaged(undone.to_string());
        let found = Finding { object: String::new(), path: None, change };
        tell(args.json, &args.store, &found, &undone.of.run)?;
    }
    for gap in chains::gaps(&store.root, &store.chain)? {
        findings += 1;
        tell_gap(args.json, &gap)?;
    }
    let resumed = record.resumed();
    record.finish();
    if args.json {
        output::json(&json!({ "summary": {
            "sealed_runs": sealed, "open_runs": open, "findings": findings, "behind": behind,
            "read_bytes": read, "resumed": resuming::to_json(resumed.as_ref()),
        } }))?;
    } else if findings == 0 {
        output::line(&format!(
            "{} as signed; {} not sealed, of which only the signature was verified{}",
            count(sealed, "sealed run"),
            count(open, "run"),
            resuming::as_of(resumed.as_ref())
        ))?;
    }
    end(findings, &store.named())
}

/// A run or seal that a gateway's chain names and the store has not.
fn tell_gap(json: bool, gap: &Gap) -> Result<()> {
    if json {
        return output::json(&json!({ "gateway": gap.gateway, "change": "missing", "what": gap.what }));
    }
    output::line(&format!("gateway {} ({}): {}", visible(gap.label.as_bytes()), gap.gateway, gap.what))
}

/// What is wrong with a run; `None` for one that is open and rightly signed. `checked`: what was checked of that seal.
fn look<C: Checked>(
    store: &Store,
    run: &RunId,
    authority: &dyn Authority,
    checked: impl FnOnce(Digest) -> C,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Option<Scrubbed>> {
    let looked = runs::read_descriptor(&store.root, run, authority).and_then(|_| {
        match seal::find(&store.root, run, authority)? {
            Some(seal) => seal::scrub(&store.root, &seal, authority, &checked(seal.hash), progress).map(Some),
            None => Ok(None),
        }
    });
    let (object, change) = match looked {
        Err(Error::Damaged { object, damage }) => (object, Change::Damaged(damage.to_string())),
        Err(Error::Store { source, object, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
            (object, Change::Missing)
        }
        looked => return Ok(looked?),
    };
    let object = object.strip_prefix(&format!("runs/{run}/")).unwrap_or(&object).to_owned();
    Ok(Some(Scrubbed { findings: vec![Finding { object, path: None, change }], read: 0 }))
}
