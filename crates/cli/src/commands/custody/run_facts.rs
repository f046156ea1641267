//! What is signed about the runs of a request, in words: an id tells nothing to who is to say yes.

use runvault_custody::authority::Acting;
use runvault_custody::quorum::in_words;
use runvault_custody::quorum::request_file::RequestFile;
use runvault_custody::quorum::signed_runs::{SignedRun, named};
use runvault_format::ids::{IdentityId, RunId};
use runvault_format::operation::Operation;
use runvault_format::seal_note::SealNote;
use runvault_vault::authority::Authority;
use runvault_vault::{runs, seal};
use serde_json::{Value, json};

use crate::output::{count, size, visible};
use crate::store::Store;

/// A line a run, as the store has it; nothing for what is about none.
pub fn of_op(store: &Store, op: &Operation) -> String {
    let authority = Acting::gateway_only(store.chain.clone());
    let lines: Vec<String> =
        named(op).iter().map(|run| format!("  {run}: {}", of_run(store, &*authority, run))).collect();
    lines.join("\n")
}

fn of_run(store: &Store, authority: &dyn Authority, run: &RunId) -> String {
    let made = match runs::read_descriptor(&store.root, run, authority) {
        Ok(made) => made.descriptor,
        Err(error) => return visible(error.to_string().as_bytes()),
    };
    let label = store.chain.gateways().into_iter().find(|(_, id)| *id == made.signer).map(|(label, _)| label);
    let by = label.map_or_else(|| "re-keyed".to_owned(), |label| of_gateway(&label));
    let sealed = match seal::find(&store.root, run, authority) {
        Ok(seal) => seal.map_or_else(|| "not sealed".to_owned(), |seal| sealed(&seal.note)),
        Err(error) => visible(error.to_string().as_bytes()),
    };
    format!("{by}, made on {}, {sealed}", made.opened)
}

/// A line a run, as it came with the request.
pub fn of_request(file: &RequestFile) -> Vec<String> {
    let lines = in_words::runs(&file.request.op).into_iter().zip(named(&file.request.op));
    lines
        .map(|(line, run)| {
            let facts = file.signed_run(&run).map(|signed| came_along(file, signed));
            format!(
                "{line}: {}",
                facts.as_deref().unwrap_or("nothing that a gateway signed came with the request")
            )
        })
        .collect()
}

/// The same for machines.
pub fn as_json(file: &RequestFile) -> Value {
    let facts = file.signed.iter().map(|signed| {
        let (made, seal) = (&signed.made, signed.seal.as_ref());
        json!({
            "run": made.run.to_string(),
            "gateway": label(file, &made.signer),
            "made": made.opened,
            "sealed": seal.map(|seal| seal.sealed.as_str()),
            "files": seal.map(|seal| seal.files),
            "bytes": seal.map(|seal| seal.bytes),
        })
    });
    facts.collect()
}

fn came_along(file: &RequestFile, signed: &SignedRun) -> String {
    let made = &signed.made;
    let by = of_gateway(&label(file, &made.signer));
    let seal = match &signed.seal {
        None => "no seal of it came with the request".to_owned(),
        Some(seal) if seal.gateway == made.signer => sealed(seal),
        Some(seal) => {
            format!("{}, by gateway {}", sealed(seal), visible(label(file, &seal.gateway).as_bytes()))
        }
    };
    format!("{by}, made on {}, {seal}", made.opened)
}

fn label(file: &RequestFile, gateway: &IdentityId) -> String {
    file.before.gateway(gateway).map_or_else(|| gateway.to_string(), |known| known.label.clone())
}

fn of_gateway(label: &str) -> String {
    format!("of gateway {}", visible(label.as_bytes()))
}

fn sealed(note: &SealNote) -> String {
    format!("sealed on {}, {}, {}", note.sealed, count(note.files, "file"), size(note.bytes))
}
