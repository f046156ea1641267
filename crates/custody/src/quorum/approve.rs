//! A custodian's yes, given without the store: the signature, and the share where the request releases any.

use runvault_crypto::secrets::Secret;
use runvault_format::approval_file::ApprovalFile;
use runvault_format::envelope_file;
use runvault_format::info::{Purpose, Recipient, Scope, info};
use runvault_format::kept::{Approved, Kept};
use runvault_format::request::{Approval, Head};
use runvault_format::{share, words};

use super::request_file::RequestFile;
use crate::identity::Identity;
use crate::key_files::shown;
use crate::{Error, Result, clock};

/// What `custodian` answers, and what its key file keeps from then on. A second request on one head is refused while
/// the first can still be executed, unless it is approved `instead`: a store that is shown differently to two who
/// propose cannot fork the chain unnoticed.
///
/// # Errors
/// [`Error::OtherVault`] and [`Error::WrongKey`]; [`Error::Expired`], [`Error::Overtaken`],
/// [`Error::ApprovedAnother`]; [`Error::WrongShare`] where the own share does not open.
pub fn approve(
    file: &RequestFile,
    custodian: &Identity,
    kept: Option<&Kept>,
    instead: bool,
) -> Result<(ApprovalFile, Kept)> {
    let (request, id) = (&file.request, custodian.id());
    let given = || shown(&custodian.label, &id);
    let others = file.before.custodians.iter().map(|c| shown(&c.label, &c.id)).collect::<Vec<_>>();
    let needed = others.join(" or ");
    if let Some(bound) = custodian.vault.filter(|bound| *bound != request.vault) {
        return Err(Error::OtherVault { needed, given: given(), bound, found: request.vault });
    }
    if file.before.custodian(&id).is_none() {
        return Err(Error::WrongKey { needed, given: given() });
    }
    if clock::now() > request.expires {
        return Err(Error::Expired { at: request.expires.clone() });
    }
    let hash = file.hash()?;
    if let Some(kept) = kept {
        // Only a drill binds the file to a vault: it saw the chain, and a request alone may be anybody's.
        if kept.vault != request.vault && kept.share.is_some() {
            return Err(Error::OtherVault {
                needed,
                given: given(),
                bound: kept.vault,
                found: request.vault,
            });
        }
        if kept.vault == request.vault {
            refuse_other_history(&kept.head, &request.head)?;
        }
        let other = kept.approved.as_ref().filter(|a| a.request != hash && a.head == request.head);
        if let Some(other) = other.filter(|other| !instead && clock::now() <= other.expires) {
            return Err(Error::ApprovedAnother {
                words: words::of_request(&other.request).join(" "),
                until: other.expires.clone(),
            });
        }
    }
    // Opened also where it stays here: a state whose shares do not open must not become the next one's.
    let share = own_share(file, custodian)?;
    let env = if request.releases_share { Some(release(file, &share)?) } else { None };
    let approval = Approval::sign(id, &custodian.keys.sign, &hash, env.as_deref());
    let kept = kept.filter(|kept| kept.vault == request.vault);
    let keeps = Kept {
        vault: request.vault,
        // A request says what it likes of the head: what was seen is for the drill to note.
        head: kept.map_or(Head::start(&request.vault), |kept| kept.head),
        share: kept.and_then(|kept| kept.share.clone()),
        approved: Some(Approved { request: hash, head: request.head, expires: request.expires.clone() }),
    };
    Ok((ApprovalFile { request: hash, approval, env }, keeps))
}

/// A request for a head that is older than one this custodian saw, or of another history.
fn refuse_other_history(seen: &Head, asked: &Head) -> Result<()> {
    match asked.n.cmp(&seen.n) {
        std::cmp::Ordering::Less => Err(Error::Overtaken { line: asked.n, newest: seen.n }),
        std::cmp::Ordering::Equal if asked.hash != seen.hash => Err(Error::Forked { line: asked.n }),
        _ => Ok(()),
    }
}

fn own_share(file: &RequestFile, custodian: &Identity) -> Result<Secret<32>> {
    let id = custodian.id();
    let wrong = || Error::WrongShare { custodian: shown(&custodian.label, &id) };
    let epoch = file.before.current()?;
    let own = epoch.shares.iter().find(|share| share.to == id).ok_or_else(wrong)?;
    share::open_share(&custodian.keys.kem, &file.request.vault, epoch, own).map_err(|_| wrong())
}

/// The custodian's share, sealed to the key of this request.
fn release(file: &RequestFile, y: &Secret<32>) -> Result<Vec<u8>> {
    let request = &file.request;
    let to = Recipient::Identity(request.executor.public().id());
    let text = info(Purpose::Approval, &request.vault, &Scope::Request(file.hash()?), &to);
    Ok(envelope_file::seal(&request.executor.kem, &text, y.expose())?)
}
