//! `key check`: whether the lock of a key file opens.

use anyhow::Result;
use runvault_custody::key_files;
use serde_json::json;

use crate::args::KeyCheck;
use crate::output::{self, shown, visible};
use crate::prompt::Asker;

pub fn run(args: &KeyCheck) -> Result<()> {
    let file = key_files::read(&args.file, args.unlock.allow_readable_secret)?;
    let mut asker = Asker::of(&args.unlock, &args.token);
    let identity = asker.unlock(&file)?;
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
