//! Which run a person means.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use anyhow::Result;
use runvault_custody::chain::Chain;
use runvault_format::ids::RunId;
use runvault_store::backend::Dir;
use runvault_vault::authority::Authority;
use runvault_vault::{Options, RunStatus, Vault, runs};

use crate::exit::{self, Exit, refuse, refuse_with};
use crate::left_out::{self, LeftOut};
use crate::output::{shown, visible};

/// The run of that id, or of that name among those that this identity opens: the first of its parts. `none` says that
/// there is none; it is given the runs whose names are not known, since they do not open.
///
/// # Errors
/// Exit 2: several have the name; that of `none`; the engine's.
pub fn find(
    root: &Arc<dyn Dir>,
    authority: &Arc<dyn Authority>,
    run: &OsStr,
    none: impl FnOnce(Vec<LeftOut>) -> anyhow::Error,
) -> Result<RunId> {
    parts(root, authority, run, none).map(|(first, _)| first)
}

/// The run of that id alone; of that name, as [`find`], and behind it what adds to it. Runs in trouble, which may be parts of it
/// too, are warned of.
///
/// # Errors
/// As of [`find`].
pub fn parts(
    root: &Arc<dyn Dir>,
    authority: &Arc<dyn Authority>,
    run: &OsStr,
    none: impl FnOnce(Vec<LeftOut>) -> anyhow::Error,
) -> Result<(RunId, Vec<RunId>)> {
    if let Some(id) = of_id(run) {
        return Ok((id, Vec::new()));
    }
    let vault = Vault::open(Arc::clone(root), Arc::clone(authority), None, Options::default())?;
    let runs = vault.status().runs;
    let named =
        |known: &&RunStatus| known.continues.is_none() && known.name.as_deref() == Some(run.as_bytes());
    let found: Vec<RunId> = runs.iter().filter(named).map(|run| run.run).collect();
    let later = found.first().map(|first| vault.parts_of(first).split_off(1)).unwrap_or_default();
    let left_out = left_out::of(&vault);
    if !found.is_empty() {
        left_out::warn_all(&vault);
    }
    vault.close()?;
    match found.as_slice() {
        [one] => Ok((*one, later)),
        [] => Err(match below_a_folder(&runs, run.as_bytes()) {
            Some(name) if left_out.is_empty() => {
                refuse_with(Exit::Failed, format!("there is no run {}", shown(run)), is_it(name))
            }
            _ => none(left_out),
        }),
        _ => Err(refuse(Exit::Usage, format!("several runs are named {}: name one by its id", shown(run)))),
    }
}

/// The one run that a folder holds under that name (`--run-depth`): its name has the folder's before it.
pub fn below_a_folder<'a>(runs: &'a [RunStatus], typed: &[u8]) -> Option<&'a [u8]> {
    let ends = |name: &&[u8]| name.strip_suffix(typed).is_some_and(|folders| folders.ends_with(b"/"));
    let mut names: Vec<&[u8]> = runs.iter().filter_map(|run| run.name.as_deref()).filter(ends).collect();
    // What adds to a run has its name.
    names.sort_unstable();
    names.dedup();
    match names.as_slice() {
        [one] if !typed.is_empty() => Some(one),
        _ => None,
    }
}

/// Asks whether that one is meant.
pub fn is_it(name: &[u8]) -> String {
    format!("is it {}?", visible(name))
}

/// Why none is found by its name. `command`: what takes its id behind it.
pub fn none_of_that_name(run: &OsStr, command: &str, left_out: Vec<LeftOut>) -> anyhow::Error {
    among(left_out, run, command).unwrap_or_else(|| {
        refuse_with(
            Exit::Failed,
            format!("no run that this key opens is named {}", shown(run)),
            "runvault runs STORE lists them; a run whose name is damaged goes by its id",
        )
    })
}

/// The name of a run that does not open is not known: each of these may be the one that is meant. `None` where there are
/// none.
pub fn among(left_out: Vec<LeftOut>, run: &OsStr, command: &str) -> Option<anyhow::Error> {
    let damaged = left_out.iter().any(|run| run.exit() == Exit::Damaged);
    let mut lines: Vec<String> =
        left_out.into_iter().take(left_out::NAMED).map(|run| exit::chain(&run.into())).collect();
    if lines.is_empty() {
        return None;
    }
    lines.push(format!("If it is one of these, name it by its id: {command} ID"));
    let exit = if damaged { Exit::Damaged } else { Exit::Failed };
    Some(refuse_with(exit, format!("no run that opens is named {}", shown(run)), lines.join("\n")))
}

/// Why nothing is done; `store`: as it is typed.
pub fn no_run(run: &OsStr, store: &str) -> anyhow::Error {
    let what = format!("there is no run {}", shown(run));
    refuse_with(Exit::Failed, what, format!("runvault runs {store} lists them"))
}

/// The run of that id, or the one that has taken its place under another key. `None`: neither is in the store.
///
/// # Errors
/// The store's.
pub fn newest(root: &Arc<dyn Dir>, chain: &Chain, run: &RunId) -> Result<Option<RunId>> {
    let there = runs::list(root)?;
    if there.contains(run) {
        return Ok(Some(*run));
    }
    Ok(there.into_iter().find(|new| chain.stands_for(new, run)))
}

/// [`no_run`], of one that is not in the store under this id: it may have been re-keyed.
pub fn not_there(root: &Arc<dyn Dir>, chain: &Chain, run: &OsStr, store: &str) -> anyhow::Error {
    match of_id(run).map(|id| newest(root, chain, &id)) {
        Some(Ok(Some(new))) => {
            let what = format!("run {} was re-keyed: it is run {new}", shown(run));
            refuse_with(Exit::Failed, what, "name it by that id")
        }
        Some(Err(error)) => error,
        Some(Ok(None)) | None => no_run(run, store),
    }
}

/// What is typed, where it is an id.
pub fn of_id(run: &OsStr) -> Option<RunId> {
    run.to_str()?.parse().ok()
}
