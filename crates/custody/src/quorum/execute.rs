//! An approved request becomes the next line of the chain.

use std::sync::Arc;

use runvault_crypto::secrets::Secret;
use runvault_format::approval_file::ApprovalFile;
use runvault_format::audit_entry::{Executed, Outcome};
use runvault_format::envelope_file;
use runvault_format::ids::{Digest, IdentityId};
use runvault_format::info::{Purpose, Recipient, Scope, info};
use runvault_format::operation::Operation;
use runvault_store::backend::Dir;

use super::request_file::RequestFile;
use crate::chain::{Chain, name_of};
use crate::ends::LastKnown;
use crate::epochs::EpochKeys;
use crate::identity::Identity;
use crate::{Error, Result, clock, commit, enroll, locks, next_state, rekey, retired};

/// What is known once the line stands.
#[derive(Debug)]
pub struct Done {
    /// The chain with it.
    pub chain: Chain,
    /// The vault's keys as they were before it, where shares were released.
    pub(crate) keys: Option<EpochKeys>,
    /// Who makes the runs of a re-keying.
    pub(crate) worker: Option<Identity>,
}

/// Executes a request that enough custodians approved. What is refused changes no byte of the store. `cut`: the end of a
/// gateway may be before what the store has of it by now.
///
/// # Errors
/// [`Error::RequestUsed`], those of [`resume`], [`Error::Overtaken`], [`Error::Forked`], [`Error::Expired`],
/// [`Error::ClockBehind`], [`Error::EndCuts`], [`Error::LockInStore`].
pub fn execute(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    file: &RequestFile,
    executor: &Identity,
    approvals: &[ApprovalFile],
    cut: bool,
) -> Result<Done> {
    let chain = newest(root, chain, file, executor)?;
    let (request, hash) = (&file.request, file.hash()?);
    if let Some(line) = chain.line_of(&hash) {
        return Err(Error::RequestUsed { line });
    }
    check_head(&chain, file)?;
    check_end(root, &chain, file, cut)?;
    let approved = check_approvals(file, &hash, approvals)?;
    let keys = released(file, executor, &hash, &approved)?;
    let (state, new) = next_state::of(chain.state(), &request.op, keys.as_ref().map(EpochKeys::newest_seed))?;
    if state.quorum > 1 && locks::are_there(root)? {
        return Err(Error::LockInStore);
    }
    if let Some(run) = retired::void_in(root, &chain, &state)? {
        return Err(Error::RetiredByOne { run });
    }
    let worker = worker_for(&request.op, executor)?;
    let rekeyed = match (&request.op, &worker) {
        (Operation::Rekey { runs }, Some(worker)) => rekey::replacements(root, &chain, runs, worker)?,
        _ => Vec::new(),
    };
    let head = chain.head();
    let executed = Executed {
        n: head.n.saturating_add(1),
        prev: head.hash,
        time: clock::now(),
        request: request.clone(),
        result: Outcome { state: Some(state.hash()?), runs: rekeyed },
        heads: Vec::new(),
        approvals: approved.iter().map(|file| file.approval.clone()).collect(),
    };
    match commit::commit(root, &chain, &executed.sign(&executor.keys.sign)?, state)? {
        Some(chain) => Ok(Done { keys: with_new(&chain, keys, new)?, chain, worker }),
        None => Err(Error::Overtaken { line: head.n, newest: head.n.saturating_add(1) }),
    }
}

/// Whether these approvals make a request the next line, as far as can be told without its keys.
pub fn is_ripe(chain: &Chain, file: &RequestFile, approvals: &[ApprovalFile]) -> bool {
    let approved = file.hash().and_then(|hash| check_approvals(file, &hash, approvals).map(drop));
    approved.and_then(|()| check_head(chain, file)).is_ok()
}

/// What the work of a request needs whose line stands: an execution that was interrupted goes on.
///
/// # Errors
/// [`Error::RequestNotUsed`], [`Error::RequestOfOtherVault`], [`Error::OtherExecutor`], [`Error::BadApproval`] with what is
/// wrong with which, [`Error::TooFewApprovals`], [`Error::WrongShare`]; the store's.
pub fn resume(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    file: &RequestFile,
    executor: &Identity,
    approvals: &[ApprovalFile],
) -> Result<Done> {
    let chain = newest(root, chain, file, executor)?;
    let hash = file.hash()?;
    let Some(line) = chain.line_of(&hash) else { return Err(Error::RequestNotUsed) };
    // What a later line says of the same reader must not be undone.
    let reader = reader_of(&file.request.op);
    if reader.is_some() && chain.acts_behind(line).iter().any(|op| reader_of(op) == reader) {
        return Err(Error::Overtaken { line, newest: chain.head().n });
    }
    let approved = check_approvals(file, &hash, approvals)?;
    let keys = released(file, executor, &hash, &approved)?;
    Ok(Done { chain, keys, worker: worker_for(&file.request.op, executor)? })
}

fn worker_for(op: &Operation, executor: &Identity) -> Result<Option<Identity>> {
    matches!(op, Operation::Rekey { .. }).then(|| executor.worker()).transpose()
}

fn newest(root: &Arc<dyn Dir>, chain: &Chain, file: &RequestFile, executor: &Identity) -> Result<Chain> {
    if file.request.vault != chain.vault_id() {
        return Err(Error::RequestOfOtherVault { bound: file.request.vault, found: chain.vault_id() });
    }
    if executor.public() != file.request.executor.public() {
        return Err(Error::OtherExecutor);
    }
    Ok(chain.continued(root)?.unwrap_or_else(|| chain.clone()))
}

fn check_head(chain: &Chain, file: &RequestFile) -> Result<()> {
    let (asked, head) = (file.request.head, chain.head());
    if asked.n != head.n {
        return Err(Error::Overtaken { line: asked.n, newest: head.n });
    }
    if asked.hash != head.hash || file.before != *chain.state() {
        return Err(Error::Forked { line: asked.n });
    }
    let now = clock::now();
    if now > file.request.expires {
        return Err(Error::Expired { at: file.request.expires.clone() });
    }
    if now < file.request.created {
        return Err(Error::ClockBehind { created: file.request.created.clone(), now });
    }
    Ok(())
}

/// What a gateway made since its end was proposed would count for nobody from then on.
fn check_end(root: &Arc<dyn Dir>, chain: &Chain, file: &RequestFile, cut: bool) -> Result<()> {
    let (Operation::RevokeGateway { gateway, until } | Operation::DismissGateway { gateway, until, .. }) =
        &file.request.op
    else {
        return Ok(());
    };
    if cut {
        return Ok(());
    }
    let (newest, _) = enroll::ended(root, chain, gateway, &LastKnown::default())?;
    if newest.seq > until.seq || newest.seals > until.seals {
        return Err(Error::EndCuts {
            run: until.seq,
            newest: newest.seq,
            seal: until.seals,
            newest_seal: newest.seals,
        });
    }
    Ok(())
}

fn reader_of(op: &Operation) -> Option<IdentityId> {
    match op {
        Operation::AddReader { reader } => Some(reader.id),
        Operation::RemoveReader { reader }
        | Operation::Grant { reader, .. }
        | Operation::Revoke { reader, .. } => Some(*reader),
        _ => None,
    }
}

/// The keys before, and the new one, which lives in this process alone: what is sealed to it is seen to open.
fn with_new(chain: &Chain, before: Option<EpochKeys>, new: Option<Secret<32>>) -> Result<Option<EpochKeys>> {
    match new {
        Some(new) => EpochKeys::of_newest(chain.state(), new).map(Some),
        None => Ok(before),
    }
}

/// The approvals, each of another custodian and for this request, at least as many as the quorum.
fn check_approvals<'a>(
    file: &RequestFile,
    hash: &Digest,
    approvals: &'a [ApprovalFile],
) -> Result<Vec<&'a ApprovalFile>> {
    let before = &file.before;
    for (i, given) in approvals.iter().enumerate() {
        let id = given.approval.custodian;
        let custodian = before.custodian(&id);
        let bad = |why| Error::BadApproval { custodian: name_of(before, &id), why };
        let custodian = custodian.ok_or_else(|| bad("is by nobody who is a custodian"))?;
        if given.request != *hash {
            return Err(bad("is for another request"));
        }
        if approvals.iter().take(i).any(|other| other.approval.custodian == id) {
            return Err(bad("is there twice"));
        }
        given.approval.verify(custodian, hash).map_err(|_| bad("is not signed by that custodian's key"))?;
        if given.env.is_some() != file.request.releases_share {
            return Err(bad("does not bring the share that the request asks for, or one that it does not"));
        }
    }
    let (given, needed) = (approvals.len(), usize::from(before.quorum));
    if given < needed {
        Err(Error::TooFewApprovals { given, needed })
    } else {
        Ok(approvals.iter().collect())
    }
}

/// The vault's keys, where the request releases shares.
fn released(
    file: &RequestFile,
    executor: &Identity,
    hash: &Digest,
    approved: &[&ApprovalFile],
) -> Result<Option<EpochKeys>> {
    if !file.request.releases_share {
        return Ok(None);
    }
    let text = info(
        Purpose::Approval,
        &file.request.vault,
        &Scope::Request(*hash),
        &Recipient::Identity(executor.id()),
    );
    let share = |given: &&ApprovalFile| {
        let id = given.approval.custodian;
        let opened = envelope_file::open(&executor.keys.kem, &text, given.env.as_deref().unwrap_or_default());
        let y = opened.and_then(|y| envelope_file::secret_of(&y));
        y.map(|y| (id, y)).map_err(|_| Error::WrongShare { custodian: name_of(&file.before, &id) })
    };
    let shares = approved.iter().map(share).collect::<Result<Vec<(IdentityId, Secret<32>)>>>()?;
    EpochKeys::combine(&file.before, &shares).map(Some)
}
