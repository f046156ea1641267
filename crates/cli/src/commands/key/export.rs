//! `key export`: the owner's key file, out of the store.

use anyhow::Result;
use runvault_custody::{key_files, locks};
use serde_json::json;

use crate::args::KeyExport;
use crate::exit::{Exit, refuse};
use crate::output::{self, shown, visible};
use crate::store::{load_chain, open_root};

pub fn run(args: &KeyExport) -> Result<()> {
    let root = open_root(&args.store)?;
    // Says what is wrong with a directory that is no vault.
    load_chain(&root, &args.store)?;
    let file = locks::read(&root)?;
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
        "{}: the key of {} ({}), under the same passphrase as in the store.\n{rest}",
        shown(&args.out),
        visible(file.label().as_bytes()),
        file.id()
    ))
}
