//! `fingerprint`: which vault a store is, without any key.

use anyhow::Result;
use serde_json::json;

use crate::args::Fingerprint;
use crate::output;
use crate::store::{load_chain, open_store};

pub fn run(args: &Fingerprint) -> Result<()> {
    let chain = load_chain(&open_store(&args.store, &args.apart)?, &args.store)?;
    let (vault, words) = (chain.vault_id().to_string(), chain.words());
    if args.json {
        return output::json(&json!({ "vault": vault, "words": words }));
    }
    output::line(&words)?;
    output::line(&vault)
}
