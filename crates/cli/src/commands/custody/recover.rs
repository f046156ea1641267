//! `custody recover`: custody/ is lost, and is made anew from what key files keep of it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use runvault_custody::chain::Chain;
use runvault_custody::key_files::{self, KeyFile};
use runvault_custody::quorum::in_words;
use runvault_custody::recover::{Found, Given, check_place, recover};
use runvault_custody::{Error as Custody, locks, pins};
use runvault_store::backend::Dir;

use super::tell::{self, Act};
use crate::acts::Acts;
use crate::args::{Recover, Token, Unlock};
use crate::exit::{Exit, refuse_with};
use crate::output::{option, quoted, shown, warn};
use crate::prompt::Asker;
use crate::store::{is_rollback, lies, open_store, state_folder};
use crate::{progress, signals};

/// Where there is no store yet to make custody/ anew for.
const RUNS_FIRST: &str = "put runs/ of the store back first, from any copy";

pub fn run(args: &Recover) -> Result<()> {
    let root = open_store(&args.store, &args.apart).map_err(|error| match args.store.exists() {
        true => error,
        false => refuse_with(Exit::Failed, error.to_string(), RUNS_FIRST),
    })?;
    let place = lies(&root, &args.apart)?;
    check_place(&root, &place).map_err(|error| match error {
        Custody::NotAVault { .. } => refuse_with(Exit::Failed, error.to_string(), RUNS_FIRST),
        error => error.into(),
    })?;
    let state = state_folder(args.state.as_deref())?;
    let given = opened(args)?;
    let found = Found::among(&root, &given, args.accept_rollback)?;
    for unproven in found.unproven() {
        let what = format!(
            "{unproven}. Nobody whom the copies know signed that: whoever writes to the store can put it there. Is it \
             true, runs that were made, re-keyed or sealed to another key since are named as not opened: then bring a key file \
             that did its drill later"
        );
        log::warn!("{what}");
        warn(&what);
    }
    let own = key_for_store(args, &found, &given)?;
    let line = found.chain().head().n;
    let custody = option("custody", args.apart.custody.as_deref());
    let acts = Acts::of(found.chain().quorum().0, quoted(&args.store) + &custody);
    let go_on = acts.command("rotate", "");
    signals::end_with(|| "custody/ is there whole, or not at all: run the same command again".to_owned())?;
    let agrees = |view: &Arc<dyn Dir>, chain: &Chain| {
        let pinned = match pins::check_and_advance(&state, view, chain) {
            Err(error) if is_rollback(&error) && args.accept_rollback == Some(line) => Some(error),
            other => other.map(|()| None)?,
        };
        for error in found.passed_over().iter().chain(&pinned) {
            let what = format!("{error}; accepted by --accept-rollback {line}");
            log::warn!("{what}");
            warn(&what);
            pins::accept_rollback(&state, view, chain, error)?;
        }
        Ok(())
    };
    let bar = progress::items(0, "runs");
    let done = recover(&root, &place, &found, &given, &args.reason, agrees, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    let done = done.map_err(|error| match is_rollback(&error) {
        true => refuse_with(Exit::Damaged, error.to_string(), more_was_seen(line)),
        false => error.into(),
    })?;
    bar.finish_and_clear();
    pins::check_and_advance(&state, &root, &done.chain)?;
    own.map_or(Ok(()), |file| locks::write(&root, file))?;
    let (what, head) = (in_words::of_act(&done.op, found.chain(), &done.chain), done.chain.head());
    let act = Act { what: &what, op: &done.op, head: (head.n, head.hash.to_string()), acts: &acts };
    tell::done(args.json, act, &done.runs, &go_on, None)
}

/// Where one custodian of one has it in the store.
fn key_for_store<'a>(args: &Recover, found: &Found, given: &'a [Given]) -> Result<Option<&'a KeyFile>> {
    let file = given.first().map(|one| &one.file).filter(|_| args.key_in_store);
    let (quorum, custodians) = found.chain().quorum();
    match file {
        Some(_) if (quorum, custodians) != (1, 1) => Err(Custody::LockInStore.into()),
        Some(file) if !file.has_passphrase() => Err(Custody::UnlockedInStore.into()),
        file => Ok(file),
    }
}

fn more_was_seen(line: u64) -> String {
    format!(
        "this machine has seen more of the audit log than the key files: bring one that did its drill later. If there is\n\
         none: --accept-rollback {line}"
    )
}

/// The files, or else the descriptors, that passphrases or PINs come from, as [`Unlock`] and [`Token`] have them.
type Secrets = VecDeque<(Option<PathBuf>, Option<u32>)>;

fn secrets(files: &[PathBuf], fds: &[u32]) -> Secrets {
    let files = files.iter().map(|path| (Some(path.clone()), None));
    files.chain(fds.iter().map(|fd| (None, Some(*fd)))).collect()
}

/// Each key file, opened with the next passphrase or PIN that is left.
fn opened(args: &Recover) -> Result<Vec<Given>> {
    let mut passphrases = secrets(&args.passphrase_file, &args.passphrase_fd);
    let mut pins = secrets(&args.pin_file, &args.pin_fd);
    let mut modules: VecDeque<PathBuf> = args.pkcs11_module.iter().cloned().collect();
    let mut given = Vec::new();
    for path in &args.identity {
        let file = key_files::read(path, args.allow_readable_secret)?;
        let (passphrase_file, passphrase_fd) = passphrases.front().cloned().unwrap_or_default();
        let (pin_file, pin_fd) = pins.front().cloned().unwrap_or_default();
        let allow_readable_secret = args.allow_readable_secret;
        let unlock = Unlock { passphrase_file, passphrase_fd, allow_readable_secret };
        let (pkcs11_module, last_pin_try) = (modules.front().cloned(), args.last_pin_try);
        let token = Token { pkcs11_module, pin_file, pin_fd, last_pin_try };
        let mut asker = Asker::of(&unlock, &token);
        let custodian = asker.unlock(&file)?;
        if asker.asked_passphrase() {
            passphrases.pop_front();
        }
        if asker.reached_token() {
            pins.pop_front();
            if modules.len() > 1 {
                modules.pop_front();
            }
        }
        given.push(Given { file, custodian });
    }
    for (file, fd) in passphrases.iter().chain(&pins) {
        let fd = || fd.map_or_else(String::new, |fd| format!("file descriptor {fd}"));
        let unused = file.as_ref().map_or_else(fd, shown);
        warn(&format!("{unused} was not read: no key file was left that wants it"));
    }
    Ok(given)
}
