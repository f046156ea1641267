//! What is signed about the runs of a request, in words: an id tells nothing to who is to say yes.

use runvault_custody::authority::Acting;
use runvault_format::ids::RunId;
use runvault_format::operation::Operation;
use runvault_vault::authority::Authority;
use runvault_vault::{runs, seal};

use crate::output::{count, size, visible};
use crate::store::Store;

/// A line a run; nothing for what is about none.
pub fn of_op(store: &Store, op: &Operation) -> String {
    let runs: Vec<RunId> = match op {
        Operation::Grant { runs, .. } | Operation::Revoke { runs, .. } | Operation::Rekey { runs } => {
            runs.clone()
        }
        Operation::Retire { runs } => runs.iter().map(|gone| gone.run).collect(),
        _ => Vec::new(),
    };
    let authority = Acting::gateway_only(store.chain.clone());
    let lines: Vec<String> =
        runs.iter().map(|run| format!("  {run}: {}", of_run(store, &*authority, run))).collect();
    lines.join("\n")
}

fn of_run(store: &Store, authority: &dyn Authority, run: &RunId) -> String {
    let made = match runs::read_descriptor(&store.root, run, authority) {
        Ok(made) => made.descriptor,
        Err(error) => return visible(error.to_string().as_bytes()),
    };
    let label = store.chain.gateways().into_iter().find(|(_, id)| *id == made.signer).map(|(label, _)| label);
    let by = label
        .map_or_else(|| "re-keyed".to_owned(), |label| format!("of gateway {}", visible(label.as_bytes())));
    let sealed = match seal::find(&store.root, run, authority) {
        Ok(Some(seal)) => {
            let note = seal.note;
            format!("sealed on {}, {}, {}", note.sealed, count(note.files, "file"), size(note.bytes))
        }
        Ok(None) => "not sealed".to_owned(),
        Err(error) => visible(error.to_string().as_bytes()),
    };
    format!("{by}, made on {}, {sealed}", made.opened)
}
