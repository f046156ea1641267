//! `verify`: a sealed run against its seal, with its key.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use runvault_custody::behind::{Behind, States};
use runvault_custody::chain::Chain;
use runvault_custody::checked::{Record, Resumed};
use runvault_custody::follow::with_newest_keys;
use runvault_custody::seen::Remembering;
use runvault_format::ids::RunId;
use runvault_store::backend::Dir;
use runvault_vault::authority::Authority;
use runvault_vault::seal::{self, Change, Finding, Seal, Seen, Shown, Verified};
use runvault_vault::{Error, pace};
use serde_json::{Map, Value, json};

use super::custody::left::behind_as_json;
use crate::args::{Verify, Who};
use crate::exit::{Exit, refuse_with};
use crate::output::{self, count, json_name, quoted, shown, size, visible};
use crate::run_of_name::{newest, no_run, none_of_that_name, of_id, parts};
use crate::store::Store;
use crate::{progress, resuming};

/// Names that are not shown are named up to here, where people read it.
const HIDDEN_NAMED: usize = 20;

pub fn run(args: &Verify) -> Result<()> {
    pace::limit_mib(args.pace.limit);
    let bar = progress::bytes(0, "verify");
    let (state, what) = (args.who.state.as_deref(), args.run.as_encoded_bytes());
    let (mut kept, mut states) = (None, None);
    let verified = with_sealed_run(&args.store, &args.who, &args.run, |root, run, authority| {
        let record = match kept.take() {
            Some(record) => record,
            None => resuming::open(&args.store, state, authority.vault_id(), what, &args.resuming)?,
        };
        let seal = Seal::load(root, run, authority).map_err(seal_is_missing)?;
        let checked = record.of_run(*run, seal.hash, resuming::place(&args.store, run));
        let verified = seal::verify(root, &seal, authority, &checked, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        drop(checked);
        kept = Some(record);
        let known = match &mut states {
            Some(known) => known,
            none => none.insert(States::of(&Chain::load(root)?)),
        };
        let behind = known.behind(root, run, authority);
        Ok((
            verified.map_err(seal_is_missing)?,
            seal::manifest(root, run, authority).map_err(seal_is_missing)?,
            behind,
        ))
    })?;
    bar.finish_and_clear();
    let resumed = kept.as_ref().and_then(Record::resumed);
    // All was looked at: the next time begins anew.
    if let Some(record) = kept {
        record.finish();
    }
    let findings = verified.iter().map(|(part, ..)| counted(&part.findings)).sum();
    let mut shown = Shown::default();
    for (part, manifest, behind) in &verified {
        let entries = shown.add(part.note.run, manifest).into_iter();
        let hidden = entries.filter_map(|(path, seen)| match seen {
            Seen::Hidden { by } => Some((path, by)),
            _ => None,
        });
        tell_behind(args.json, behind)?;
        tell_part(args, part, &hidden.collect::<Vec<_>>(), resumed.as_ref())?;
    }
    let name = verified.first().map_or_else(String::new, |(part, ..)| visible(&part.name));
    end(findings, &format!("run {name}"))
}

/// Under which older state a run was made or sealed. Nothing of it was changed: who keeps the vault must know.
pub fn tell_behind(json: bool, behind: &[Behind]) -> Result<()> {
    behind.iter().try_for_each(|one| match json {
        true => output::json(&json!({ "run": one.run, "behind": behind_as_json(one) })),
        false => output::line(&format!("run {}: {one}", one.run)),
    })
}

/// What was found of a run, or of a part that adds to one.
fn tell_part(
    args: &Verify,
    verified: &Verified,
    hidden: &[(Vec<u8>, RunId)],
    resumed: Option<&Resumed>,
) -> Result<()> {
    let run = &verified.note.run;
    verified.findings.iter().try_for_each(|finding| tell(args.json, &args.store, finding, run))?;
    tell_hidden(args.json, run, hidden)?;
    let (name, findings) = (visible(&verified.name), counted(&verified.findings));
    let signed = verified.origin.as_ref().unwrap_or(&verified.note);
    if args.json {
        let mut summary = Map::new();
        json_name(&mut summary, "run_name", &verified.name);
        summary.insert("summary".into(), json!({
            "run": verified.note.run, "gateway": signed.gateway, "n": signed.n, "sealed": signed.sealed,
            "rekeyed": verified.origin.as_ref().map(|_| &verified.note.sealed), "files": verified.files, "bytes": verified.bytes, "findings": findings,
            "hidden": hidden.len(),
            "read_bytes": verified.read, "resumed": resuming::to_json(resumed),
        }));
        let about = serde_json::from_str::<Value>(&verified.about).unwrap_or_default();
        summary.insert("about".into(), about);
        output::json(&Value::Object(summary))?;
    } else if findings == 0 {
        output::line(&format!(
            "run {name} is as gateway {} sealed it on {}{}: {}, {}{}",
            signed.gateway,
            signed.sealed,
            verified
                .origin
                .as_ref()
                .map_or(String::new(), |_| format!(", re-keyed on {}", verified.note.sealed)),
            count(verified.files, "file"),
            size(verified.bytes),
            resuming::as_of(resumed)
        ))?;
    }
    Ok(())
}

/// Names of a part that an earlier one has too. Nobody changed anything: who reads the folder must know.
fn tell_hidden(json: bool, part: &RunId, hidden: &[(Vec<u8>, RunId)]) -> Result<()> {
    if json {
        return hidden.iter().try_for_each(|(path, by)| {
            let mut object = Map::from_iter([("run".to_owned(), json!(part))]);
            json_name(&mut object, "path", path);
            object.insert("hidden_by".into(), json!(by));
            output::json(&Value::Object(object))
        });
    }
    for (path, by) in hidden.iter().take(HIDDEN_NAMED) {
        let path = visible(path);
        output::line(&format!(
            "{path}: that of run {part} is not shown: run {by}, an earlier part, has one"
        ))?;
    }
    match hidden.len().saturating_sub(HIDDEN_NAMED) {
        0 => Ok(()),
        more => output::line(&format!("{more} more of run {part} are not shown (--json names them)")),
    }
}

/// How many of them say that the run is not as it was sealed.
pub fn counted(findings: &[Finding]) -> u64 {
    findings.iter().filter(|finding| finding.change.counts()).count() as u64
}

/// Exit 4 where something was found.
pub fn end(findings: u64, what: &str) -> Result<()> {
    if findings == 0 {
        return Ok(());
    }
    Err(refuse_with(
        Exit::Damaged,
        format!("{what} is not as it was sealed: {}", count(findings, "finding")),
        "restore what is named from a copy whose `scrub` finds nothing; move away what was added",
    ))
}

/// One line, or one object.
pub fn tell(json: bool, store: &Path, finding: &Finding, run: &RunId) -> Result<()> {
    if json {
        let mut object = Map::new();
        object.insert("run".into(), json!(run));
        object.insert("object".into(), json!(finding.object));
        if let Some(path) = &finding.path {
            json_name(&mut object, "path", path);
        }
        object.insert("change".into(), json!(finding.change.word()));
        object.insert("what".into(), json!(finding.change.to_string()));
        return output::json(&Value::Object(object));
    }
    let stored = || format!("runs/{run}/{}", visible(finding.object.as_bytes()));
    let place = match &finding.path {
        Some(path) if !path.is_empty() => visible(path),
        _ => stored(),
    };
    let clear = match finding.change {
        Change::LeftOver => format!(". Clear it: rm {}", quoted(&store.join(stored()))),
        _ => String::new(),
    };
    output::line(&format!("{place}: {}{clear}", finding.change))
}

/// What `look` gives for the sealed run of that id, or for that of that name and each sealed part that adds to it, to
/// the acting identity.
///
/// # Errors
/// Exit 1: no such run, or an open one; exit 4: its seal, or a part of it, was taken away; those of `look`.
pub fn with_sealed_run<T>(
    store: &Path,
    who: &Who,
    run: &OsStr,
    mut look: impl FnMut(&Arc<dyn Dir>, &RunId, &dyn Authority) -> Result<T>,
) -> Result<Vec<T>> {
    let (path, command) = (quoted(store), format!("runvault verify {}", quoted(store)));
    let mut store = Store::open(store, who)?;
    let by_id = match of_id(run) {
        Some(id) => Some(id_of(&store, &id)?.ok_or_else(|| no_run(run, &path))?),
        None => None,
    };
    let identity = store.identity(who)?;
    with_newest_keys(&store.root, &mut store.chain, &identity, |authority| {
        let authority = Remembering::over(Arc::clone(authority), &store.state);
        let (first, later) = match by_id {
            Some(id) => (id, Vec::new()),
            None => {
                parts(&store.root, &authority, run, |left_out| none_of_that_name(run, &command, left_out))?
            }
        };
        require_seal(&store.root, &first, run, &*authority)?;
        let sealed = later.into_iter().filter(|part| seal::has_seal(&store.root, part).unwrap_or(true));
        let look = |part: RunId| look(&store.root, &part, &*authority);
        std::iter::once(first).chain(sealed).map(look).collect()
    })
}

/// What was re-keyed is read under its new id.
fn id_of(store: &Store, run: &RunId) -> Result<Option<RunId>> {
    let newest = newest(&store.root, &store.chain, run)?;
    if let Some(new) = newest.filter(|new| new != run) {
        output::warn(&format!("run {run} was re-keyed: it is run {new}"));
    }
    Ok(newest)
}

/// Exit 4 where a part of the seal was taken away.
pub fn seal_is_missing(error: Error) -> anyhow::Error {
    match error {
        Error::Store { source, object, .. } if source.raw_os_error() == Some(libc::ENOENT) => refuse_with(
            Exit::Damaged,
            format!("{object} is missing: the run is not as it was sealed"),
            "restore it from a copy whose `scrub` finds nothing",
        ),
        other => other.into(),
    }
}

/// Exit 1 for a run that is open; exit 4 for one that was seen with a seal, or has another one.
fn require_seal(root: &Arc<dyn Dir>, run: &RunId, name: &OsStr, authority: &dyn Authority) -> Result<()> {
    if seal::find(root, run, authority).map_err(seal_is_missing)?.is_some() {
        return Ok(());
    }
    Err(refuse_with(
        Exit::Failed,
        format!("run {} has no seal: it is open, or its seal was removed", shown(name)),
        "runvault check STORE reads what is there; runvault seal seals it, on the machine that made it",
    ))
}
