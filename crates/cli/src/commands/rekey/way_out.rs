//! What a person does where something in the store keeps a run from its new key: the same command would say the same again.

use std::path::Path;

use anyhow::Result;
use runvault_custody::{Error as Custody, rekey};
use runvault_format::envelope_file::EnvelopeName;
use runvault_format::replacement::Replacement;
use runvault_vault::Error as Vault;
use runvault_vault::runs::coming_place;

use crate::args::{Rekey, Who};
use crate::exit::{self, refuse_with};
use crate::given::given;
use crate::hint;
use crate::store::Store;

/// The error with that advice, where nothing better is known of it.
pub fn with_way_out(error: anyhow::Error, args: &Rekey, store: &Store, one: &Replacement) -> anyhow::Error {
    match way_out(&error, args, store, one) {
        Ok(Some(advice)) => refuse_with(exit::of(&error), exit::chain(&error), advice),
        // The first error is the one to tell.
        _ => error,
    }
}

/// Whether it is about the new run, or what the worker opens the old one by, and not about the old one.
fn is_in_the_way(error: &anyhow::Error, one: &Replacement) -> bool {
    let own = [
        coming_place(&one.new),
        one.new.to_string(),
        format!("{}/keys/{}", one.run, EnvelopeName::Worker(one.worker)),
    ];
    object(error).is_some_and(|object| own.iter().any(|own| object.starts_with(Path::new("runs").join(own))))
}

/// The place in the store that it is about.
fn object(error: &anyhow::Error) -> Option<&Path> {
    error.chain().find_map(|cause| match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(Custody::Damaged { object, .. } | Custody::Io { object, .. }), _)
        | (Some(Custody::Vault(Vault::Damaged { object, .. } | Vault::Store { object, .. })), _)
        | (_, Some(Vault::Damaged { object, .. } | Vault::Store { object, .. })) => Some(Path::new(object)),
        _ => None,
    })
}

fn way_out(error: &anyhow::Error, args: &Rekey, store: &Store, one: &Replacement) -> Result<Option<String>> {
    let (path, run, new) = (store.typed(), one.run, one.new);
    let there = |name: &str| args.store.join("runs").join(name).symlink_metadata().is_ok();
    let (old_is_there, new_is_there) = (there(&run.to_string()), there(&new.to_string()));
    // In this order: a run that gets its name meanwhile is not on its way any more.
    let coming = rekey::is_coming(&store.root, one)?;
    if (coming && old_is_there && !is_in_the_way(error, one)) || !hint::is_general(error) {
        return Ok(None);
    }
    let (give_up, anew) = (hint::give_up(store, &new), agree_anew(args, store, one));
    Ok(Some(match (old_is_there, new_is_there, coming) {
        (true, false, true) => format!(
            "mend that, and the same command goes on. Or give it up, which loses nothing, and agree anew (by this mv, within\n\
             the store: whoever is still at it finds its place gone; remove it once that is done):\n\
             {give_up} && {anew}"
        ),
        (true, false, false) if there(&coming_place(&new)) => {
            format!("{}agree anew:\n{give_up} && {anew}", resume(store))
        }
        (true, false, false) => format!("{}agree anew:\n{anew}", resume(store)),
        (true, true, true) => format!(
            "something else has the place of the run that is being made: move it away, and the same command goes on:\n\
             {}",
            store.aside(&new.to_string(), &format!("in-the-way-{new}"))
        ),
        // Anybody can put a directory, or an old copy, in the place of a run that was replaced.
        (true, true, false) => format!(
            "where runs/{new} is as it was sealed (runvault scrub {path}) runs/{run} is what is too much: move it away:\n\
             {}\n\
             Else put runs/{new} back from a copy; without one agree on a new key for run {run} again, and take runs/{new}\n\
             away once that is done, not before:\n{anew}",
            hint::too_much(store, &run)
        ),
        (false, false, true) => format!(
            "run {run} is not there any more: put it back, and the same command goes on. Where another run has taken its\n\
             place, what is made here is of no use:\n{give_up}"
        ),
        (false, ..) => return Ok(None),
    }))
}

fn resume(store: &Store) -> String {
    match store.chain.quorum().0 {
        1 => String::new(),
        _ => format!(
            "an execution that was interrupted goes on: runvault custody execute {} REQ --approval ... --resume. Else\n",
            store.typed()
        ),
    }
}

fn agree_anew(args: &Rekey, store: &Store, one: &Replacement) -> String {
    let (path, run) = (store.typed(), one.run);
    if store.chain.quorum().0 == 1 {
        return format!("runvault custody rekey {path} {run}{}", given(&args.who));
    }
    // It needs no key.
    let who = Who { state: args.who.state.clone(), apart: args.who.apart.clone(), ..Who::default() };
    format!("runvault custody propose {path} rekey {run} --out REQ{}", given(&who))
}
