//! `key check`: whether the lock of a key file opens.

use anyhow::Result;
use runvault_custody::{Error as Custody, key_files};
use serde_json::json;

use crate::args::KeyCheck;
use crate::exit::{Exit, refuse_with};
use crate::output::{self, shown, visible};
use crate::prompt::Asker;

pub fn run(args: &KeyCheck) -> Result<()> {
    let file = key_files::read(&args.file, args.unlock.allow_readable_secret)?;
    let mut asker = Asker::of(&args.unlock, &args.token);
    let identity = asker.unlock(&file).map_err(|error| match error.downcast_ref() {
        Some(Custody::WrongPassphrase { .. }) => {
            let way_out = "try again; if the passphrase was changed lately, this copy may have the old one";
            refuse_with(Exit::WrongKey, error.to_string(), way_out)
        }
        _ => error,
    })?;
    asker.warn_of_unused(&args.unlock);
    if args.json {
        return output::json(&json!({
            "key_file": args.file.to_string_lossy(),
            "label": identity.label,
            "id": identity.id().to_string(),
            "opens": true,
        }));
    }
    output::line(&format!(
        "{}: opens; the key of {} ({})",
        shown(&args.file),
        visible(identity.label.as_bytes()),
        identity.id()
    ))
}
