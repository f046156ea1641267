//! `custody approve`: a custodian's yes, without the store.

use anyhow::Result;
use runvault_custody::quorum::approve::approve;
use runvault_custody::relock;
use serde_json::json;

use super::show;
use crate::args::Approve;
use crate::files::{must_be_new, write_new};
use crate::output::{self, shown};
use crate::prompt::{self, Asker};

pub fn run(args: &Approve) -> Result<()> {
    must_be_new(&args.out)?;
    let file = show::read(&args.request)?;
    let seen = relock::Seen::read(&args.identity, args.unlock.allow_readable_secret)?;
    if !args.json {
        output::line(&show::in_full(&file, None)?)?;
    }
    if !args.yes {
        prompt::confirm(
            "Did the one who executes this read the same six words to you, and do you agree?",
            "that you have compared the six words, and agree",
        )?;
    }
    let custodian = Asker::of(&args.unlock, &args.token).unlock(seen.file())?;
    let (approval, kept) = approve(&file, &custodian, seen.file().kept(), args.instead)?;
    // Noted before it is given away: a second request on the same line is then refused.
    seen.replace(&seen.file().keeping(kept, &custodian)?)?;
    write_new(&args.out, approval.to_text()?.as_bytes())?;
    if args.json {
        return output::json(&json!({
            "approval": args.out.to_string_lossy(),
            "what": file.sentence(),
            "words": file.words()?,
            "stays_open": show::stays_open_in_one(&file),
            "released_share": approval.env.is_some(),
        }));
    }
    let share = if approval.env.is_some() {
        "It holds your share, sealed to that machine's key for this request alone."
    } else {
        "It holds your signature, and no share of the vault key."
    };
    output::line(&format!("\nApproved: give {} to the one who executes it.\n{share}", shown(&args.out)))
}
