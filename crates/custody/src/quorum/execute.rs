//! An approved request becomes the next line of the chain.

use std::sync::Arc;

use runvault_crypto::secrets::Secret;
use runvault_format::approval_file::ApprovalFile;
use runvault_format::audit_entry::{Executed, Outcome};
use runvault_format::custody_state::State;
use runvault_format::envelope_file;
use runvault_format::ids::{Digest, IdentityId};
use runvault_format::info::{Purpose, Recipient, Scope, info};
use runvault_store::backend::Dir;

use super::request_file::RequestFile;
use crate::chain::Chain;
use crate::epochs::EpochKeys;
use crate::identity::Identity;
use crate::key_files::shown;
use crate::{Error, Result, clock, commit, next_state};

/// What is known once the line stands.
#[derive(Debug)]
pub struct Done {
    /// The chain with it.
    pub chain: Chain,
    /// The vault's keys as they were before it, where shares were released.
    pub(crate) keys: Option<EpochKeys>,
}

/// Executes a request that enough custodians approved. What is refused changes no byte of the store.
///
/// # Errors
/// [`Error::RequestUsed`], those of [`resume`], [`Error::Overtaken`], [`Error::Forked`], [`Error::Expired`].
pub fn execute(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    file: &RequestFile,
    executor: &Identity,
    approvals: &[ApprovalFile],
) -> Result<Done> {
    let chain = newest(root, chain, file, executor)?;
    let (request, hash) = (&file.request, file.hash()?);
    if let Some(line) = chain.line_of(&hash) {
        return Err(Error::RequestUsed { line });
    }
    check_head(&chain, file)?;
    let approved = check_approvals(file, &hash, approvals)?;
    let keys = released(file, executor, &hash, &approved)?;
    let gateways = request.state.as_ref().map(|outline| outline.gateways.as_slice());
    let state =
        next_state::of(chain.state(), &request.op, gateways, keys.as_ref().map(EpochKeys::newest_seed))?;
    let head = chain.head();
    let executed = Executed {
        n: head.n.saturating_add(1),
        prev: head.hash,
        time: clock::now(),
        request: request.clone(),
        result: Outcome { state: Some(state.hash()?), runs: Vec::new() },
        heads: Vec::new(),
        approvals: approved.iter().map(|file| file.approval.clone()).collect(),
    };
    match commit::commit(root, &chain, &executed.sign(&executor.keys.sign)?, state)? {
        Some(chain) => Ok(Done { chain, keys }),
        None => Err(Error::Overtaken { line: head.n, newest: head.n.saturating_add(1) }),
    }
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
    if chain.line_of(&hash).is_none() {
        return Err(Error::RequestNotUsed);
    }
    let approved = check_approvals(file, &hash, approvals)?;
    let keys = released(file, executor, &hash, &approved)?;
    Ok(Done { chain, keys })
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
    if clock::now() > file.request.expires {
        return Err(Error::Expired { at: file.request.expires.clone() });
    }
    Ok(())
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
        let bad = |why| Error::BadApproval { custodian: name(before, &id), why };
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
        y.map(|y| (id, y)).map_err(|_| Error::WrongShare { custodian: name(&file.before, &id) })
    };
    let shares = approved.iter().map(share).collect::<Result<Vec<(IdentityId, Secret<32>)>>>()?;
    EpochKeys::combine(&file.before, &shares).map(Some)
}

fn name(state: &State, id: &IdentityId) -> String {
    shown(state.custodian(id).map_or("someone else", |known| known.label.as_str()), id)
}
