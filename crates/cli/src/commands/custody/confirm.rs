//! `custody confirm`: the own share opens, and its copy goes into the key file.

use anyhow::Result;
use runvault_custody::confirm::confirm;
use runvault_custody::relock;
use serde_json::json;

use crate::args::Confirm;
use crate::exit::{Exit, refuse_with};
use crate::output::{self, shown};
use crate::store::Store;

pub fn run(args: &Confirm) -> Result<()> {
    let Some(path) = &args.who.identity else {
        let what = "whose share is to be opened is not said: --identity FILE";
        return Err(refuse_with(
            Exit::Usage,
            what,
            "a copy of the owner's key file: runvault key export STORE --out FILE",
        ));
    };
    let store = Store::open(&args.store, &args.who)?;
    let seen = relock::Seen::read(path, args.who.unlock.allow_readable_secret)?;
    let custodian = store.identity(&args.who)?;
    let accepted = args.who.accept_rollback == Some(store.chain.head().n);
    let confirmed = confirm(&store.root, &store.chain, &custodian, seen.file(), accepted)?;
    // The copy first: the store must not say what the file does not have.
    seen.replace(&confirmed.file)?;
    confirmed.write(&store.root)?;
    let head = store.chain.head();
    if args.json {
        return output::json(&json!({
            "custodian": custodian.id().to_string(),
            "key_file": path.to_string_lossy(),
            "epoch": store.chain.epoch(),
            "head": format!("{}:{}", head.n, head.hash),
        }));
    }
    output::line(&format!(
        "Your share of vault key {} opens. {} keeps a copy of it, and the head of the audit log:\n  {}:{}\n\
         and a copy of custody/ up to that line: labels, reasons and ids in clear.\n\
         Renew your copies of that file.",
        store.chain.epoch(),
        shown(path),
        head.n,
        head.hash
    ))
}
