//! `rekey`: the work of a re-keying whose line stands in the audit log.

mod way_out;

use std::sync::Arc;

use anyhow::Result;
use runvault_custody::Error as Custody;
use runvault_custody::authority::Acting;
use runvault_custody::identity::Identity;
use runvault_custody::rekey::{self, Cleared, Left};
use runvault_custody::seen::Remembering;
use runvault_format::ids::RunId;
use runvault_format::replacement::Replacement;
use runvault_vault::authority::Authority;
use runvault_vault::pace;
use runvault_vault::runs::coming_place;
use runvault_vault::seal::rekey::{Job, Outcome, Shard, rekey as work};
use serde_json::json;

use self::way_out::with_way_out;
use crate::args::Rekey;
use crate::exit::{self, Exit, refuse, refuse_with};
use crate::output::{self, count, shown, size};
use crate::run_of_name::{no_run, of_id, parts};
use crate::store::Store;
use crate::{files, progress, signals};

pub fn run(args: &Rekey) -> Result<()> {
    pace::limit_mib(args.pace.limit);
    let store = Store::open(&args.store, &args.who)?;
    let cleared = clear(args, &store)?;
    let waiting = rekey::waiting(&store.root, store.chain.replacements())?;
    let put_back = waiting.iter().find(|(_, left)| *left == Left::PutBack);
    let something_said = cleared.runs > 0 || !cleared.stay.is_empty() || put_back.is_some();
    let asked_for = args.who.names_a_key() || !args.runs.is_empty();
    if asked_for || waiting.iter().any(|(_, left)| needs_a_key(*left)) || !something_said {
        work_with_a_key(args, &store)?;
    } else if let Some((one, _)) = put_back {
        return Err(with_way_out(is_put_back(&store, one), args, &store, one));
    }
    if cleared.stay.is_empty() { Ok(()) } else { Err(stays(&cleared.stay, &store)) }
}

/// Whether more is left to do than [`clear`] does, or a person.
fn needs_a_key(left: Left) -> bool {
    !matches!(left, Left::Rest | Left::PutBack)
}

fn work_with_a_key(args: &Rekey, store: &Store) -> Result<()> {
    let alone = store.chain.quorum().0 == 1;
    if !alone && args.who.identity.is_none() {
        return Err(not_the_workers(
            Exit::Usage,
            "several have to agree here: the work is done with the worker's key",
        ));
    }
    let identity = store.identity(&args.who)?;
    if !alone && store.chain.work_of(&identity.id()).next().is_none() {
        return Err(not_the_workers(Exit::WrongKey, "this key is not the worker's"));
    }
    let chosen = chosen(args, store, &identity)?;
    let go_on = "what was copied stays: the same command goes on".to_owned();
    signals::end_with(|| go_on)?;
    rekey_each(args, store, &identity, &chosen)?;
    let id = identity.id();
    let (own, left) = (store.chain.work_of(&id), rekey::waiting(&store.root, store.chain.work_of(&id))?);
    // A copy of it elsewhere opens nothing any more either: no envelope is left that is sealed to it.
    if let Some(key) = args.who.identity.as_ref().filter(|_| left.is_empty())
        && own.count() > 0
    {
        match files::wipe(key) {
            Ok(()) if args.json => output::json(&json!({ "worker_erased": true }))?,
            Ok(()) => output::line(&format!("{} was erased: it opens nothing any more", shown(key)))?,
            Err(e) => output::warn(&format!("{}: {e}; it is of no more use: remove it", shown(key))),
        }
    }
    Ok(())
}

/// What is left of workers and old runs where nothing else is goes.
fn clear(args: &Rekey, store: &Store) -> Result<Cleared> {
    let bar = progress::items(0, "scrub");
    let cleared = rekey::clear(&store.root, &store.chain, &|done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    if cleared.runs > 0 {
        match args.json {
            true => output::json(&json!({ "cleared_runs": cleared.runs }))?,
            false => output::line(&format!(
                "what was left beside {}, of the worker or of the old run, was taken away: nobody needs it any more",
                count(cleared.runs as u64, "re-keyed run")
            ))?,
        }
    }
    for (of, error) in &cleared.stay {
        let (new, run) = (of.new, of.run);
        output::warn(&format!("what is left beside run {new}, which took the place of {run}: {error}"));
    }
    Ok(cleared)
}

fn stays(stay: &[(Replacement, Custody)], store: &Store) -> anyhow::Error {
    let is_damage = |(_, error): &(_, Custody)| matches!(error, Custody::Damaged { .. });
    refuse_with(
        if stay.iter().any(is_damage) { Exit::Damaged } else { Exit::Failed },
        format!("what is left beside {} stays", count(stay.len() as u64, "re-keyed run")),
        format!(
            "runvault scrub {} names what is not as it was sealed: mend that, then the same command",
            store.typed()
        ),
    )
}

/// What there is to say of one whose run has its old name again.
fn is_put_back(store: &Store, one: &Replacement) -> anyhow::Error {
    match rekey::replaced(&store.root, &store.chain, one) {
        Ok(_) => Custody::Rekeyed { run: one.run, new: one.new }.into(),
        Err(error) => error.into(),
    }
}

fn not_the_workers(exit: Exit, what: &str) -> anyhow::Error {
    refuse_with(exit, what, "--identity REQ.worker, which execute wrote")
}

/// Runs that were asked for, or all that wait.
fn chosen(args: &Rekey, store: &Store, identity: &Identity) -> Result<Vec<Replacement>> {
    let own: Vec<_> = store.chain.work_of(&identity.id()).cloned().collect();
    let all = if own.is_empty() { store.chain.replacements().cloned().collect() } else { own };
    if args.runs.is_empty() {
        let waiting = rekey::waiting(&store.root, &all)?;
        let work: Vec<_> =
            waiting.into_iter().filter(|(_, left)| *left != Left::Rest).map(|(one, _)| one).collect();
        if work.is_empty() && !args.json {
            output::line("No run waits for this key.")?;
        }
        return Ok(work);
    }
    let mut authority = None;
    let mut chosen = Vec::new();
    for run in &args.runs {
        let (first, later) = match of_id(run) {
            Some(id) => (id, Vec::new()),
            None => {
                let authority = match &authority {
                    Some(authority) => authority,
                    None => authority.insert(Acting::open(&store.root, store.chain.clone(), identity)?),
                };
                parts(&store.root, authority, run, |_| no_run(run, &shown(&args.store)))?
            }
        };
        let before = chosen.len();
        for id in [first].into_iter().chain(later) {
            chosen.extend(meant(store, &all, &id)?);
        }
        if chosen.len() == before {
            return Err(nobody_agreed(args, run));
        }
    }
    Ok(chosen)
}

/// The line's word about a run, by its old id or its new one: one that waits, if there is one.
fn meant(store: &Store, all: &[Replacement], id: &RunId) -> Result<Option<Replacement>> {
    let meant: Vec<_> = all.iter().filter(|one| [one.run, one.new].contains(id)).collect();
    let waiting = rekey::waiting(&store.root, meant.iter().copied())?;
    Ok(waiting.into_iter().next().map(|(one, _)| one).or_else(|| meant.first().copied().cloned()))
}

fn nobody_agreed(args: &Rekey, run: &std::ffi::OsStr) -> anyhow::Error {
    let (store, run) = (shown(&args.store), shown(run));
    refuse_with(
        Exit::Failed,
        format!("no line of the audit log has run {run} re-keyed by this key"),
        format!(
            "one owner: runvault custody rekey {store} {run}. Where several have to agree: runvault custody propose {store}\n\
             rekey {run} --out REQ, then approve, then execute, which writes REQ.worker"
        ),
    )
}

/// One after the other; what fails of one is told, and the next one's turn comes.
fn rekey_each(args: &Rekey, store: &Store, identity: &Identity, chosen: &[Replacement]) -> Result<()> {
    if let [one] = chosen {
        return rekey_one(args, store, identity, one);
    }
    let mut failed = Vec::new();
    for one in chosen {
        if let Err(error) = rekey_one(args, store, identity, one) {
            failed.push(exit::report(&error.context(format!("run {}", one.run))));
        }
    }
    // Whoever reads no more of what is told is no failure.
    failed.retain(|exit| *exit != Exit::Done);
    let Some(first) = failed.first() else { return Ok(()) };
    let exit = if failed.contains(&Exit::Damaged) { Exit::Damaged } else { *first };
    Err(refuse(
        exit,
        format!("{} of {} could not be re-keyed", failed.len(), count(chosen.len() as u64, "run")),
    ))
}

fn rekey_one(args: &Rekey, store: &Store, identity: &Identity, one: &Replacement) -> Result<()> {
    try_one(args, store, identity, one).map_err(|error| with_way_out(error, args, store, one))
}

fn try_one(args: &Rekey, store: &Store, identity: &Identity, one: &Replacement) -> Result<()> {
    let left = rekey::left(&store.root, one)?;
    let before = left == Left::Nothing;
    if left == Left::PutBack {
        return Err(is_put_back(store, one));
    }
    let sealed_to_owner;
    let worker = if one.worker == identity.id() {
        identity
    } else {
        match rekey::worker_of(&store.root, &store.chain, identity, one)? {
            Some(worker) => {
                sealed_to_owner = worker;
                &sealed_to_owner
            }
            None if before || left == Left::Rest => {
                let replaced = rekey::replaced(&store.root, &store.chain, one)?;
                return tell(args, one, &Outcome::Replaced(replaced), before);
            }
            None if left == Left::All => {
                let object = format!("runs/{}/worker-vault-...", coming_place(&one.new));
                let why = "missing: what is being made there opens by no other key".to_owned();
                return Err(Custody::Damaged { object, why }.into());
            }
            None => return Err(runvault_vault::Error::NotBegun { run: one.run.to_string() }.into()),
        }
    };
    let acting = Acting::open(&store.root, store.chain.clone(), worker)?;
    let authority: Arc<dyn Authority> = Remembering::over(acting, &store.state);
    let bar = progress::bytes(0, "rekey");
    let job = Job {
        root: &store.root,
        authority: &*authority,
        worker,
        old: one.run,
        new: one.new,
        grace: args.grace,
        waits: &|| {
            bar.println(format!(
                "run {} is there. Run {} stays {} more, until mounts have found it (--grace). Ctrl-C is safe: the same command\n\
                 goes on",
                one.new, one.run, humantime::format_duration(args.grace)
            ));
        },
    };
    let outcome = work(&job, args.shard.map_or(Shard::ALL, |shard| shard.0), &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    tell(args, one, &outcome?, before)
}

/// `before`: it had been done when the command began.
fn tell(args: &Rekey, one: &Replacement, outcome: &Outcome, before: bool) -> Result<()> {
    let (run, new) = (one.run.to_string(), one.new.to_string());
    match outcome {
        Outcome::Replaced(done) if args.json => output::json(&json!({
            "run": run, "new": new, "replaced": true,
            "files": done.files, "bytes": done.bytes, "copied_bytes": done.copied,
        })),
        Outcome::Waiting(left) if args.json => output::json(&json!({
            "run": run, "new": new, "replaced": false,
            "files": left.files, "missing": left.missing, "copied_bytes": left.copied, "sealing": left.sealing,
        })),
        Outcome::Replaced(_) if before => {
            output::line(&format!("run {run} was re-keyed before: it is run {new}"))
        }
        Outcome::Replaced(done) => output::line(&format!(
            "run {run} has a new key, as run {new}: {}, {}, read back and sealed; what its gateway signed is kept.\n\
             The old run is removed from this store. Whoever kept a copy of it and its key still opens that copy.",
            count(done.files, "file"),
            size(done.bytes)
        )),
        Outcome::Waiting(left) => match &left.sealing {
            Some(holder) => output::line(&format!(
                "run {run}: all is there; {holder} reads it back and seals it.\n\
                     Where that has ended, this command goes on with it three minutes after it did"
            )),
            None => output::line(&format!(
                "run {run}: {} copied here; {} of {} are missing, which other parts copy",
                size(left.copied),
                left.missing,
                count(left.files, "file")
            )),
        },
    }
}
