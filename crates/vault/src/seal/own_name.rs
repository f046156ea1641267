//! The name of a run that is sealed: an older one authenticates too.

use runvault_format::ledger;
use runvault_store::backend::Dir;

use super::survey::{Fault, damage_of};
use crate::file::RunContext;
use crate::ledger::{Expected, RUN, RUN_NAME};
use crate::run::{self, Run};
use crate::{Damage, Result};

/// What is wrong with the name that is stored, beside what this process and the ledger know.
///
/// # Errors
/// The store's.
pub(super) fn fault(
    dir: &dyn Dir,
    run: &Run,
    context: &RunContext,
    expected: Option<&mut Expected>,
) -> Result<Option<Fault>> {
    let key = context.keys.ledger_key();
    let noted = expected.and_then(|expected| {
        expected.attributes.get_mut(&RUN)?.remove(&ledger::attribute(&key, RUN_NAME, b""))
    });
    let damage = match run::read_name(dir, &run.id, &context.keys) {
        Ok(found) => {
            let is_noted = |noted: Option<_>| noted == Some(ledger::attribute(&key, RUN_NAME, &found));
            if found == run.name() && noted.is_none_or(is_noted) {
                return Ok(None);
            }
            Some(Damage::NotAsWritten("another name of the run"))
        }
        Err(error) => damage_of(error)?,
    };
    Ok(Some(Fault { object: "name".to_owned(), path: None, damage }))
}
