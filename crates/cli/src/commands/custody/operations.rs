//! From what was typed to the operation that a request names.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use runvault_custody::authority::Acting;
use runvault_custody::chain::Chain;
use runvault_custody::ends::CutOff;
use runvault_custody::rekey::Left;
use runvault_custody::seen::Remembering;
use runvault_custody::{Error, clock, gateways, public_file, rekey, retired};
use runvault_format::custody_state::{Custodian, ReaderEntry, Until};
use runvault_format::ids::{IdentityId, RunId};
use runvault_format::operation::Operation;
use runvault_format::public_key::PublicKey;
use runvault_store::backend::Dir;
use runvault_vault::runs;

use crate::args::{LastOf, Proposal, RunsAndPerson};
use crate::commands::gateway::cut_off_words;
use crate::exit::{Exit, refuse, refuse_with};
use crate::hint;
use crate::output::{self, visible, warn};
use crate::progress;
use crate::run_of_name::{not_there, of_id};
use crate::store::Store;

/// Finds a run by its name: it, and behind it what was added to it.
pub type ByName<'a> = dyn FnMut(&OsString) -> Result<(RunId, Vec<RunId>)> + 'a;

/// What is to be done. `by_name` finds runs that are not named by their ids.
///
/// # Errors
/// Exit 1: nobody of that name, no such run; exit 2: a file that is no public key.
pub fn asked(store: &Store, proposal: &Proposal, by_name: &mut ByName<'_>) -> Result<Operation> {
    let (root, chain) = (&store.root, &store.chain);
    Ok(match proposal {
        Proposal::Rotate => Operation::Rotate { epoch: chain.epoch().saturating_add(1) },
        Proposal::AddCustodian(args) => {
            let public = public(chain, &args.key.1)?;
            Operation::AddCustodian { custodian: Custodian::new(&args.key.0, &public.keys()) }
        }
        Proposal::RemoveCustodian(args) => {
            Operation::RemoveCustodian { custodian: named(&chain.custodians(), "custodian", &args.name)? }
        }
        Proposal::Quorum(args) => {
            let (_, custodians) = chain.quorum();
            if usize::from(args.quorum) > custodians {
                return Err(unreachable_quorum(args.quorum, custodians));
            }
            Operation::ChangeQuorum { quorum: args.quorum }
        }
        Proposal::EnrollGateway(args) => {
            let public = public(chain, &args.request)?;
            Operation::EnrolGateway { gateway: chain.machine(&public) }
        }
        Proposal::RevokeGateway(args) => {
            let gateway = gateways::named(chain, &args.name)?;
            Operation::RevokeGateway { gateway, until: end_of(root, chain, &gateway, &args.last)? }
        }
        Proposal::DismissGateway(args) => {
            let gateway = gateways::named(chain, &args.name)?;
            let run = args.run.as_ref().map(|run| one_listed(root, chain, run, by_name)).transpose()?;
            Operation::DismissGateway { gateway, run, until: end_of(root, chain, &gateway, &args.last)? }
        }
        Proposal::AdmitGateway(args) => {
            let gateway = gateways::named(chain, &args.name)?;
            let run = args.run.as_ref().map(|run| one_listed(root, chain, run, by_name)).transpose()?;
            Operation::AdmitGateway { gateway, run }
        }
        Proposal::AddReader(args) => {
            if let Some(at) = args.expires.as_ref().filter(|at| **at <= clock::now()) {
                let hint = "give a later one; to end a reader's part: remove-reader, or revoke";
                return Err(refuse_with(Exit::Usage, format!("--expires {at}: that time is over"), hint));
            }
            let public = public(chain, &args.key.1)?;
            Operation::AddReader {
                reader: ReaderEntry {
                    id: public.id,
                    label: args.key.0.clone(),
                    sign: public.sign,
                    kem: public.kem,
                    standing: args.standing,
                    expires: args.expires.clone(),
                },
            }
        }
        Proposal::RemoveReader(args) => Operation::RemoveReader { reader: reader(chain, &args.name)? },
        Proposal::Grant(args) => {
            let (runs, reader) = runs_and_reader(root, chain, args, by_name)?;
            Operation::Grant { reader, runs }
        }
        Proposal::Revoke(args) => {
            let (runs, reader) = runs_and_reader(root, chain, args, by_name)?;
            Operation::Revoke { reader, runs }
        }
        Proposal::Rekey(args) => {
            let runs = listed(root, chain, &args.runs, by_name)?;
            for run in &runs {
                not_rekeyed(store, run)?;
                rekey::check(root, chain, run).map_err(|error| under_way(store, error))?;
            }
            Operation::Rekey { runs }
        }
        Proposal::Retire(args) => {
            // What is signed about them needs no key; a seal that was seen must still be there.
            let authority = Remembering::over(Acting::gateway_only(chain.clone()), &store.state);
            let mut gone = Vec::new();
            for run in &args.runs {
                let id = id_of(run, by_name)?;
                let named = retired::named(root, chain, &*authority, &id)?;
                gone.push(named.ok_or_else(|| not_there(root, chain, run, "STORE"))?);
            }
            gone.sort_by_key(|gone| gone.run);
            gone.dedup();
            Operation::Retire { runs: gone }
        }
    })
}

/// Refuses a run whose place another one has taken: what has its name is to go, or goes in a moment.
fn not_rekeyed(store: &Store, run: &RunId) -> Result<()> {
    let (root, chain) = (&store.root, &store.chain);
    let bar = progress::items(0, "scrub");
    let stands = rekey::stands(root, chain, run, &|done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    let Some(new) = stands else { return Ok(()) };
    let waits = rekey::waiting(root, chain.replaced_by(run).filter(|one| one.new == new))?;
    let advice = match waits.first() {
        Some((_, Left::OldRun)) => {
            format!("both are there until that has come to its end: {}", hint::finish(&store.typed(), run))
        }
        _ => format!(
            "run {new} is as it was sealed (if runvault verify says otherwise, move that one away instead): what has the name of\n\
             run {run} is what is too much: move it away:\n{}",
            hint::too_much(store, run)
        ),
    };
    Err(refuse_with(Exit::Failed, Error::Rekeyed { run: *run, new }.to_string(), advice))
}

/// With a way out that works when it is pasted.
fn under_way(store: &Store, error: Error) -> anyhow::Error {
    match &error {
        Error::UnderWay { run, new } => {
            refuse_with(Exit::Failed, error.to_string(), hint::under_way(store, run, new))
        }
        _ => error.into(),
    }
}

/// Where its chains end; what no longer counts then is told.
fn end_of(root: &Arc<dyn Dir>, chain: &Chain, gateway: &IdentityId, last: &LastOf) -> Result<Until> {
    let (until, cut_off) = runvault_custody::enroll::ended(root, chain, gateway, &last.known())?;
    if cut_off != CutOff::default() {
        warn(cut_off_words(&cut_off).trim());
    }
    Ok(until)
}

fn public(chain: &Chain, path: &Path) -> Result<PublicKey> {
    Ok(public_file::read(path, chain.vault_id())?)
}

/// Exit 2, with the numbers.
pub fn unreachable_quorum(quorum: u8, custodians: usize) -> anyhow::Error {
    let custodians = output::count(custodians as u64, "custodian");
    refuse(Exit::Usage, format!("a quorum of {quorum} cannot be reached by {custodians}"))
}

fn reader(chain: &Chain, name: &str) -> Result<IdentityId> {
    named(&chain.readers(), "reader", name)
}

/// By name or id.
fn named(known: &[(String, IdentityId)], what: &str, name: &str) -> Result<IdentityId> {
    let found = known.iter().find(|(label, id)| label == name || id.to_string() == name);
    let names: Vec<_> = known.iter().map(|(label, _)| visible(label.as_bytes())).collect();
    let names = if names.is_empty() { "there is none".to_owned() } else { names.join(", ") };
    found.map(|(_, id)| *id).ok_or_else(|| {
        refuse_with(
            Exit::Failed,
            format!("no {what} {}", visible(name.as_bytes())),
            format!("{what}s: {names}"),
        )
    })
}

fn runs_and_reader(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    args: &RunsAndPerson,
    by_name: &mut ByName<'_>,
) -> Result<(Vec<RunId>, IdentityId)> {
    let reader = reader(chain, &args.reader)?;
    Ok((listed(root, chain, &args.runs, by_name)?, reader))
}

/// In ascending order, each once: by its id that run alone, by its name also what was added to it.
fn listed(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    named: &[OsString],
    by_name: &mut ByName<'_>,
) -> Result<Vec<RunId>> {
    let there = runs::list(root)?;
    let mut runs = Vec::new();
    for run in named {
        match of_id(run) {
            Some(_) => runs.push(run_of(root, chain, &there, run, by_name)?),
            None => {
                let (first, later) = by_name(run)?;
                runs.push(first);
                runs.extend(later);
            }
        }
    }
    runs.sort();
    runs.dedup();
    Ok(runs)
}

fn id_of(run: &OsString, by_name: &mut ByName<'_>) -> Result<RunId> {
    of_id(run).map_or_else(|| by_name(run).map(|(first, _)| first), Ok)
}

/// A single run that is in the store.
fn one_listed(root: &Arc<dyn Dir>, chain: &Chain, run: &OsString, by_name: &mut ByName<'_>) -> Result<RunId> {
    run_of(root, chain, &runs::list(root)?, run, by_name)
}

fn run_of(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    there: &[RunId],
    run: &OsString,
    by_name: &mut ByName<'_>,
) -> Result<RunId> {
    let id = id_of(run, by_name)?;
    if there.contains(&id) { Ok(id) } else { Err(not_there(root, chain, run, "STORE")) }
}
