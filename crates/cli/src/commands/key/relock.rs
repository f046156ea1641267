//! `key relock`: the same key under another lock.

use anyhow::Result;
use runvault_custody::relock;
use serde_json::json;

use crate::args::{KeyRelock, LockKind};
use crate::exit::{Exit, refuse_with};
use crate::new_lock::{self, Chosen, Passphrase};
use crate::output::{self, shown, visible};
use crate::prompt::{Asker, Source};

pub fn run(args: &KeyRelock) -> Result<()> {
    let allow_readable = args.unlock.allow_readable_secret;
    let seen = relock::Seen::read(&args.file, allow_readable)?;
    if args.lock == LockKind::Pkcs11 && seen.file().lock()?.parameters["kind"] == "pkcs11" {
        return Err(refuse_with(
            Exit::Usage,
            format!("{} is locked by a token already, and one command reaches one token", shown(&args.file)),
            "go by way of a passphrase: --lock passphrase first",
        ));
    }
    let mut asker = Asker::of(&args.unlock, &args.reach);
    let wanted = Passphrase {
        source: Source::of_new(&args.new, allow_readable),
        option: "--new-passphrase-file",
        named: args.new.new_passphrase_file.is_some() || args.new.new_passphrase_fd.is_some(),
    };
    new_lock::check(args.lock, &args.options, &wanted, &asker)?;
    let identity = asker.unlock(seen.file())?;
    let chosen = Chosen::ask(args.lock, &args.options, &wanted, &mut asker, &identity.label)?;
    asker.warn_of_unused(&args.unlock);
    let locked = seen.relock(&identity, &chosen.lock())?;
    let lock = locked.lock()?;
    if args.json {
        return output::json(&json!({
            "key_file": args.file.to_string_lossy(),
            "label": identity.label,
            "id": identity.id().to_string(),
            "lock": lock.parameters,
        }));
    }
    output::line(&format!(
        "{}: the key of {} ({}); its lock is now {}.\n\n\
         What this does not end: it is the same key. Whoever has an old copy of the file (a backup, a snapshot)\n\
         and what opened it then still has the key. If that has happened, let another key in\n\
         (add-custodian, or add-reader), and take this one out (remove-custodian, or remove-reader): one owner by\n\
         runvault custody, where several have to agree by runvault custody propose STORE.",
        shown(&args.file),
        visible(identity.label.as_bytes()),
        identity.id(),
        visible(lock.words.as_bytes()),
    ))
}
