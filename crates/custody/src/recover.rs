//! `custody/` is lost: it is made anew from the copies in a quorum's key files, and says so in a line of its own.
//!
//! Order, so that a kill at any point leaves a store without `custody/`, or one with all of it: the copy and the line are
//! written beside its place, under another name, and come there by one rename. What a kill left there is made again.

mod beyond;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::sync::Arc;

use runvault_format::descriptor::RunDescriptor;
use runvault_format::ids::VaultId;
use runvault_format::operation::{Operation, SeenBy};
use runvault_format::request::Head;
use runvault_format::vault_file;
use runvault_store::backend::{Dir, Rename};
use runvault_store::replace::replace;
use runvault_vault::remove_dir;

use crate::apart::{Place, with_custody};
use crate::authority::check_bound;
use crate::chain::Chain;
use crate::chain::copy::Copied;
use crate::epochs::wrong_key;
use crate::identity::Identity;
use crate::key_files::{KeyFile, shown};
use crate::layout::{self, DIR_MODE, PUBLIC_MODE, RUNS, VAULT_JSON};
use crate::quorum::approve::approve;
use crate::quorum::carry_out::carry_out;
use crate::quorum::execute::execute;
use crate::quorum::propose::propose;
use crate::rotate::RotateSummary;
use crate::settle::Signed;
use crate::{Error, Result, settle};

/// Seconds from the request to its line.
const EXPIRES: u64 = 3600;

/// A custodian's key file, opened.
#[derive(Debug)]
pub struct Given {
    /// As it was read.
    pub file: KeyFile,
    /// The key in it.
    pub custodian: Identity,
}

/// What the key files have together: a custody/ that verifies, and enough keys of its custodians.
#[derive(Debug)]
pub struct Found {
    copied: Copied,
    seen: Vec<SeenBy>,
    passed_over: Vec<Error>,
    unproven: Vec<Error>,
}

impl Found {
    /// The newest copy; every other one, and what each file has seen, is a part of it, and nothing in the store names more
    /// that one of them signed. `accepted`: a person knows that more than that line was seen, and that no file with it is left.
    ///
    /// # Errors
    /// [`Error::KeyTwice`], [`Error::NoCopy`], [`Error::KeysOfTwoVaults`], [`Error::OtherVault`], [`Error::Forked`],
    /// [`Error::SeenMore`], [`Error::WrongKey`], [`Error::WrongShare`], [`Error::TooFewKeys`]; those of a copy that does
    /// not verify; the store's.
    pub fn among(root: &Arc<dyn Dir>, given: &[Given], accepted: Option<u64>) -> Result<Self> {
        for (i, one) in given.iter().enumerate() {
            if given.iter().take(i).any(|other| other.custodian.id() == one.custodian.id()) {
                return Err(Error::KeyTwice { key: name(one) });
            }
        }
        let copies = given.iter().map(|one| one.file.copy().map(Copied::verify).transpose());
        let copies: Vec<Option<Copied>> = copies.collect::<Result<_>>()?;
        let head = |copy: &Copied| (copy.chain.vault_id(), copy.chain.head());
        let heads: Vec<Option<(VaultId, Head)>> = copies.iter().map(|copy| copy.as_ref().map(head)).collect();
        let newest = copies.into_iter().flatten().max_by_key(|copy| copy.chain.head().n);
        let newest = newest.ok_or(Error::NoCopy)?;
        for (vault, head) in heads.iter().flatten() {
            is_part(&newest.chain, *vault, *head)?;
        }
        let has = |own: &Option<(VaultId, Head)>| own.map_or(0, |(_, head)| head.n);
        let mut passed_over = Vec::new();
        let mut refused = |more: Error| {
            if accepted != Some(newest.chain.head().n) {
                return Err(more);
            }
            passed_over.push(more);
            Ok(())
        };
        let seen = given.iter().zip(&heads);
        let seen = seen.map(|(one, own)| seen_by(&newest.chain, one, has(own), &mut refused));
        let seen = seen.collect::<Result<Vec<_>>>()?;
        let (given, needed) = (seen.len(), newest.chain.quorum().0 as usize);
        if given < needed {
            return Err(Error::TooFewKeys { given, needed });
        }
        let beyond = beyond::beyond(root, &newest.chain)?;
        beyond.signed.map_or(Ok(()), refused)?;
        Ok(Self { copied: newest, seen: in_order(seen), passed_over, unproven: beyond.unproven })
    }

    /// The chain up to the newest line that the key files know.
    pub fn chain(&self) -> &Chain {
        &self.copied.chain
    }

    /// What each file has seen.
    pub fn seen(&self) -> &[SeenBy] {
        &self.seen
    }

    /// What was seen beyond the copies, and accepted.
    pub fn passed_over(&self) -> &[Error] {
        &self.passed_over
    }

    /// What was seen beyond the copies, by what nobody signed whom they know: no reason to refuse, since whoever writes to
    /// the store can put it there.
    pub fn unproven(&self) -> &[Error] {
        &self.unproven
    }
}

fn line_of_log(n: u64) -> String {
    format!("line {n} of the audit log")
}

fn in_order(mut seen: Vec<SeenBy>) -> Vec<SeenBy> {
    seen.sort_by_key(|seen| seen.custodian.0);
    seen
}

fn name(given: &Given) -> String {
    shown(&given.custodian.label, &given.custodian.id())
}

/// One history has both.
fn is_part(chain: &Chain, vault: VaultId, head: Head) -> Result<()> {
    if vault != chain.vault_id() {
        return Err(Error::KeysOfTwoVaults { one: chain.vault_id(), other: vault });
    }
    match chain.line_hash(head.n) {
        Some(hash) if hash == head.hash => Ok(()),
        _ => Err(Error::Forked { line: head.n }),
    }
}

/// The newest line that a file's holder has seen, and that its key counts here. `n`: the last one of its copy. `refused`
/// is asked where that is more than the copies have.
fn seen_by(
    chain: &Chain,
    given: &Given,
    mut n: u64,
    refused: &mut dyn FnMut(Error) -> Result<()>,
) -> Result<SeenBy> {
    let (file, id) = (&given.file, given.custodian.id());
    check_bound(chain, &given.custodian)?;
    if let Some((kept, share)) = file.kept().and_then(|kept| Some((kept, kept.share.as_ref()?))) {
        if kept.vault != chain.vault_id() {
            return Err(Error::KeysOfTwoVaults { one: chain.vault_id(), other: kept.vault });
        }
        match kept.head.n.cmp(&chain.head().n) {
            Ordering::Greater => {
                let (who, seen) = (format!("the key file of {}", name(given)), line_of_log(kept.head.n));
                refused(Error::SeenMore { who, seen, found: chain.head().n })?;
            }
            _ => is_part(chain, kept.vault, kept.head)?,
        }
        n = n.max(kept.head.n);
        let current = chain.current();
        let of_this_set = (share.epoch, share.made) == (current.e, current.made);
        if of_this_set && !current.shares.contains(&share.share) {
            return Err(Error::WrongShare { custodian: name(given) });
        }
    }
    match chain.state().custodian(&id) {
        Some(_) => Ok(SeenBy { custodian: id, n }),
        None => Err(wrong_key(chain, &given.custodian)),
    }
}

/// A custody/ that was made anew.
#[derive(Debug)]
pub struct Recovered {
    /// With the line that says so.
    pub chain: Chain,
    /// What the line says.
    pub op: Operation,
    /// The runs: each is seen to open, and what an interrupted rotation left is sealed to the newest key.
    pub runs: RotateSummary,
}

/// Makes custody/ anew at its place, where there is none. `root` finds it there afterwards. `agrees` is asked once the
/// chain can be read from the store that is passed to it, and before anything stands.
///
/// # Errors
/// [`Error::CustodyThere`], [`Error::NotAVault`], [`Error::KeysOfTwoVaults`]; what `agrees` says; those of a request that
/// is approved and executed; the store's.
pub fn recover(
    root: &Arc<dyn Dir>,
    place: &Place,
    found: &Found,
    given: &[Given],
    reason: &str,
    agrees: impl FnOnce(&Arc<dyn Dir>, &Chain) -> Result<()>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Recovered> {
    check_place(root, place)?;
    let named = check_store(root, found)?;
    let beside =
        Place { parent: place.parent.clone(), name: [b".", &place.name[..], b".recovering"].concat() };
    remove(&beside.parent, &beside.name)?;
    if !named {
        let bytes = vault_file::to_bytes(&found.chain().vault_id())?;
        replace(&**root, VAULT_JSON.as_bytes(), &bytes, PUBLIC_MODE)
            .map_err(|e| Error::io("write", VAULT_JSON, e))?;
    }
    let made = make(root, &beside, found, given, reason, agrees);
    let (done, op) = made.inspect_err(|_| {
        // The first error is the one to tell; what stays is removed by the next one.
        let _ = remove(&beside.parent, &beside.name);
        if !named {
            let _ = root.unlink(VAULT_JSON.as_bytes());
        }
    })?;
    // A rename over a directory replaces an empty one alone.
    beside
        .parent
        .rename(&beside.name, &*place.parent, &place.name, Rename::Over)
        .and_then(|()| place.parent.sync())
        .map_err(|e| Error::io("put in place", "custody/", e))?;
    let chain = done.chain.clone();
    let runs = carry_out(root, done, &op, progress)?;
    Ok(Recovered { chain, op, runs })
}

/// All of it, under another name.
fn make(
    root: &Arc<dyn Dir>,
    beside: &Place,
    found: &Found,
    given: &[Given],
    reason: &str,
    agrees: impl FnOnce(&Arc<dyn Dir>, &Chain) -> Result<()>,
) -> Result<(crate::quorum::execute::Done, Operation)> {
    let io = |e| Error::io("make", "custody/", e);
    beside.parent.create_dir(&beside.name, DIR_MODE).map_err(io)?;
    found.copied.write(&beside.parent.open_dir(&beside.name).map_err(io)?)?;
    let view = with_custody(root, beside.clone());
    let chain = Chain::load(&view)?;
    agrees(&view, &chain)?;
    let op = Operation::Recover { copies: found.seen.clone() };
    let (file, executor) = propose(&chain, op.clone(), reason, EXPIRES)?;
    let approvals = given
        .iter()
        .map(|one| approve(&file, &one.custodian, None, false).map(|(approval, _)| approval))
        .collect::<Result<Vec<_>>>()?;
    Ok((execute(&view, &chain, &file, &executor, &approvals, false)?, op))
}

/// That `custody/` is to be made anew there: before anybody is asked for a passphrase.
///
/// # Errors
/// [`Error::CustodyThere`], [`Error::NotAVault`]; the store's.
pub fn check_place(root: &Arc<dyn Dir>, place: &Place) -> Result<()> {
    match place.parent.open_dir(&place.name) {
        Ok(there) if layout::names(&there, "custody/")?.is_empty() => {}
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
        Err(e) if !matches!(e.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => {
            return Err(Error::io("open", "custody/", e));
        }
        _ => return Err(Error::CustodyThere),
    }
    if !layout::exists(root, RUNS, RUNS)? {
        return Err(Error::NotAVault { found: "no runs/".to_owned() });
    }
    Ok(())
}

/// That the store is of the vault of these keys; whether it says so itself.
fn check_store(root: &Arc<dyn Dir>, found: &Found) -> Result<bool> {
    let there = layout::read_if_there(root, VAULT_JSON, VAULT_JSON, vault_file::LEN_MAX)?;
    let there = there.map(|bytes| vault_file::parse(&bytes)).transpose();
    match there.map_err(|e| Error::damaged(VAULT_JSON, e))? {
        Some(named) if named != found.chain().vault_id() => {
            Err(Error::KeysOfTwoVaults { one: named, other: found.chain().vault_id() })
        }
        Some(_) => Ok(true),
        None => check_runs(root, found.chain().vault_id()).map(|()| false),
    }
}

/// Where nothing names the vault its runs do: one of them at least is of these keys, or there is none.
fn check_runs(root: &Arc<dyn Dir>, vault: VaultId) -> Result<()> {
    let mut other = None;
    for run in settle::runs(root)? {
        let note = settle::run_note(root, &run)?;
        match Signed::parse(&note, RunDescriptor::parse_text).map(|run| run.said.vault) {
            Some(named) if named == vault => return Ok(()),
            // What cannot be read is of no vault.
            named => other = named.or(other),
        }
    }
    other.map_or(Ok(()), |one| Err(Error::KeysOfTwoVaults { one, other: vault }))
}

/// What a kill left.
fn remove(parent: &Arc<dyn Dir>, name: &[u8]) -> Result<()> {
    remove_dir(&**parent, name).map_err(|e| Error::io("remove", String::from_utf8_lossy(name), e))
}
