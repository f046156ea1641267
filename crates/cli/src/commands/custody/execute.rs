//! `custody execute`: what enough custodians approved becomes the next line of the audit log.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use runvault_custody::Error as Custody;
use runvault_custody::identity::Identity;
use runvault_custody::key_files::{self, NewLock, NoPrompt, read_secret};
use runvault_custody::quorum::carry_out::carry_out;
use runvault_custody::quorum::execute::{execute, is_ripe, resume};
use runvault_format::approval_file::ApprovalFile;
use runvault_format::ids::IdentityId;
use runvault_format::operation::Operation;

use super::tell::{self, Act, Work};
use super::{confirmed, drill, propose::executor_of, show};
use crate::args::Execute;
use crate::exit::{Exit, refuse_with};
use crate::files;
use crate::given::given;
use crate::output::{self, quoted, shown};
use crate::store::Store;
use crate::{progress, signals};

/// An approval is a signature and an envelope.
const APPROVAL_MAX: usize = 16 << 10;

pub fn run(args: &Execute) -> Result<()> {
    let file = show::read(&args.request)?;
    let approvals = args.approval.iter().map(|path| approval(path)).collect::<Result<Vec<_>>>()?;
    let mut store = Store::open(&args.store, &args.seen.who())?;
    let key = executor_of(&args.request);
    if let Some(line) = store.chain.line_of(&file.hash()?).filter(|_| !key.exists()) {
        let hint = "its executor's key was erased: runvault audit show STORE; what is left: runvault custody list STORE";
        return Err(refuse_with(Exit::Failed, Custody::RequestUsed { line }.to_string(), hint));
    }
    let executor = key_files::read(&key, false).and_then(|file| key_files::unlock(&file, &mut NoPrompt));
    let executor = executor.with_context(|| "the executor's key, which propose made beside the request")?;
    // What is refused for another reason needs no drills.
    let ripe = is_ripe(&store.chain, &file, &approvals);
    confirmed::enough(&store.root, &store.chain, &file.request.op, args.unconfirmed || args.resume || !ripe)?;
    end_at_ctrl_c(args)?;
    let done = match args.resume {
        true => resume(&store.root, &store.chain, &file, &executor, &approvals),
        false => execute(&store.root, &store.chain, &file, &executor, &approvals, args.cut),
    };
    let done = done.inspect_err(|error| erase_if_dead(error, &key))?;
    let worker = match file.request.op {
        Operation::Rekey { .. } => Some(keep_worker(args, &executor, &store)?),
        _ => None,
    };
    drop(executor);
    store.pin(&done.chain)?;
    let line = done.chain.line_of(&file.hash()?).unwrap_or_default();
    let head = (line, done.chain.line_hash(line).map_or_else(String::new, |hash| hash.to_string()));
    let work = worker.as_ref().map(|(worker, id)| Work {
        store: &args.store,
        apart: &args.seen.apart,
        identity: None,
        worker: Some(worker),
        replacements: done.chain.work_of(id).cloned().collect(),
    });
    store.chain = done.chain.clone();
    let summary = progress::of_runs(|told| carry_out(&store.root, done, &file.request.op, told))?;
    if summary.failed.is_empty() && summary.open.is_empty() {
        erase(&key);
    } else {
        output::warn(&format!(
            "{} stays for --resume: whoever has it and the approvals has the vault key. Given up: remove it",
            shown(&key)
        ));
    }
    let act = Act { what: &file.sentence(), op: &file.request.op, head, acts: &store.acts() };
    let told = tell::done(args.json, act, &summary, &go_on(args), work.as_ref());
    if !args.json {
        drill::tell_due_after(&file.request.op, &store)?;
    }
    told
}

/// The key of those who do the work of a re-keying, as REQ.worker, and its id.
fn keep_worker(args: &Execute, executor: &Identity, store: &Store) -> Result<(PathBuf, IdentityId)> {
    let mut name = args.request.as_os_str().to_owned();
    name.push(".worker");
    let path = PathBuf::from(name);
    let worker = executor.worker()?;
    match key_files::write_new(&path, &worker, &NewLock::None, Some(store.chain.vault_id())) {
        // An execution that was interrupted has made it.
        Err(Custody::KeyFileExists(_)) if key_files::read(&path, false)?.id() == worker.id() => {}
        written => written?,
    }
    Ok((path, worker.id()))
}

fn erase(key: &Path) {
    files::wipe(key).unwrap_or_else(|e| {
        output::warn(&format!("{}: {e}; it is of no more use: remove it", shown(key)));
    });
}

/// A request that can never be executed any more needs no key, and shares that were released for it open to this one.
fn erase_if_dead(error: &Custody, key: &Path) {
    if matches!(error, Custody::Overtaken { .. } | Custody::Expired { .. } | Custody::Forked { .. }) {
        erase(key);
        output::warn(&format!("{} was erased: the request can be executed no more", shown(key)));
    }
}

fn approval(path: &Path) -> Result<ApprovalFile> {
    let bytes = read_secret(path, ("approval", APPROVAL_MAX), true)?;
    let parsed = ApprovalFile::parse(&bytes).map_err(runvault_custody::Error::from);
    parsed.with_context(|| format!("{}: not an approval, or a damaged one", shown(path)))
}

fn go_on(args: &Execute) -> String {
    let approvals: String =
        args.approval.iter().map(|path| format!(" --approval {}", quoted(path))).collect();
    let options = given(&args.seen.who());
    format!(
        "runvault custody execute {} {}{approvals}{options} --resume",
        quoted(&args.store),
        quoted(&args.request)
    )
}

/// Any point is as good as another: every run stays readable.
fn end_at_ctrl_c(args: &Execute) -> Result<()> {
    let hint = format!(
        "every run stays readable; if the audit log has its line already, go on with: {}",
        go_on(args)
    );
    signals::end_with(|| hint)
}
