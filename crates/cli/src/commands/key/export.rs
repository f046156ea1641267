//! `key export`: the owner's key file, out of the store.

use std::sync::Arc;

use anyhow::Result;
use runvault_custody::chain::Chain;
use runvault_custody::{Error, key_files, locks};
use runvault_store::backend::Dir;
use serde_json::json;

use crate::args::{KeyExport, Token};
use crate::exit::{Exit, refuse, refuse_with};
use crate::output::{self, quoted, shown, visible};
use crate::prompt::Asker;
use crate::store::{load_chain, open_store, require_lock};

pub fn run(args: &KeyExport) -> Result<()> {
    let root = open_store(&args.store, &args.apart)?;
    // Says what is wrong with a directory that is no vault.
    let chain = load_chain(&root, &args.store)?;
    require_lock(&root, &chain)?;
    if args.remove {
        opens(args, &root, &chain)?;
    }
    // With it this file alone makes a lost custody/ anew.
    let file = locks::read(&root).map_err(elsewhere)?.with_copy(Some(chain.copy(&root)?));
    key_files::write_copy(&args.out, &file)?;
    if args.remove {
        // Seen to be there, whole, before the other goes.
        if key_files::read(&args.out, false)? != file {
            return Err(refuse(
                Exit::Failed,
                format!("{} does not read back as it was written", shown(&args.out)),
            ));
        }
        locks::remove(&root)?;
    }
    if args.json {
        return output::json(&json!({
            "key_file": args.out.to_string_lossy(),
            "label": file.label(),
            "id": file.id().to_string(),
            "removed": args.remove,
        }));
    }
    let rest = if args.remove {
        "It is in the store no more: without this file nobody opens the vault, ever. Keep a copy elsewhere."
    } else {
        "It goes on opening by this passphrase when the one in the store is changed."
    };
    output::line(&format!(
        "{}: the key of {} ({}), under the same passphrase as in the store.\n\
         A copy of custody/ up to line {} is in it: labels, reasons and ids in clear.\n{rest}",
        shown(&args.out),
        visible(file.label().as_bytes()),
        file.id(),
        chain.head().n
    ))
}

/// No option of this command names a key file.
fn elsewhere(error: Error) -> anyhow::Error {
    match error {
        Error::NoLock => {
            let hint = "it is outside, where init wrote it (--identity): a copy of that file does";
            refuse_with(Exit::Usage, error.to_string(), hint)
        }
        error => error.into(),
    }
}

/// The only key file goes out of the store whole: both copies are the same, and open to a custodian of this vault.
fn opens(args: &KeyExport, root: &Arc<dyn Dir>, chain: &Chain) -> Result<()> {
    let mut asker = Asker::of(&args.unlock, &Token::default());
    let (owner, faults) = asker.told(|asker| locks::unlock(root, asker))?;
    if let Some(fault) = faults.first() {
        return Err(refuse_with(
            Exit::Damaged,
            format!("one of the two copies of the key file is not whole: {fault}; nothing was removed"),
            format!("runvault passwd {} writes both anew", quoted(&args.store)),
        ));
    }
    if chain.custodians().iter().any(|(_, id)| *id == owner.id()) {
        return Ok(());
    }
    Err(refuse(
        Exit::WrongKey,
        "custody/locks holds the key of nobody who is a custodian of this vault; nothing was removed",
    ))
}
