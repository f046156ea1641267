//! The drill: a custodian opens its own share, keeps a copy of it, and says so in the store. It opens no data.

use std::sync::Arc;

use runvault_format::confirmation::Confirmation;
use runvault_format::ids::IdentityId;
use runvault_format::kept::{Kept, KeptShare};
use runvault_format::note::{self, Note};
use runvault_store::backend::Dir;
use runvault_store::replace::replace;

use crate::authority::check_bound;
use crate::chain::Chain;
use crate::epochs::{needed_and_given, open_share, wrong_key};
use crate::identity::Identity;
use crate::key_files::KeyFile;
use crate::layout::{self, OBJECT_MAX, PUBLIC_MODE};
use crate::{Error, Result, clock};

/// A custodian and its last drill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drill {
    /// Whose.
    pub custodian: IdentityId,
    /// For people.
    pub label: String,
    /// When it saw its newest share open, RFC 3339 in UTC; `None`: not since that was made.
    pub confirmed: Option<String>,
    /// Up to which line of this log its key file keeps a copy of custody/, whatever the shares were then.
    pub line: Option<u64>,
}

fn name(custodian: &IdentityId) -> String {
    format!("confirmed-{custodian}")
}

/// A share that opened: what is to be put in place, the key file first.
#[derive(Debug)]
pub struct Confirmed {
    /// The key file with a copy of the share, the chain's head, and custody/ up to it.
    pub file: KeyFile,
    custodian: IdentityId,
    note: Vec<u8>,
}

impl Confirmed {
    /// Says so in the store.
    ///
    /// # Errors
    /// The store's.
    pub fn write(&self, root: &Arc<dyn Dir>) -> Result<()> {
        let (custody, name) = (layout::custody_dir(root)?, name(&self.custodian));
        replace(&*custody, name.as_bytes(), &self.note, PUBLIC_MODE)
            .map_err(|e| Error::io("write", format!("custody/{name}"), e))
    }
}

/// Opens the custodian's share of the newest state. `accepted`: a person said that the store was put back on purpose, so
/// that the key file may have seen more of the chain.
///
/// # Errors
/// [`Error::WrongKey`], [`Error::OtherVault`], [`Error::Forked`], [`Error::RolledBack`]; [`Error::Damaged`] for a share
/// that does not open.
pub fn confirm(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    custodian: &Identity,
    file: &KeyFile,
    accepted: bool,
) -> Result<Confirmed> {
    check_bound(chain, custodian)?;
    let (id, epoch) = (custodian.id(), chain.current());
    let share =
        epoch.shares.iter().find(|share| share.to == id).ok_or_else(|| wrong_key(chain, custodian))?;
    // The share itself is dropped: that it opens is all that is asked.
    open_share(chain, custodian)?;
    let (vault, head) = (chain.vault_id(), chain.head());
    if let Some(kept) = file.kept().filter(|kept| !accepted && kept.share.is_some()) {
        refuse_other_chain(chain, custodian, kept)?;
    }
    let kept = KeptShare { epoch: epoch.e, made: epoch.made, share: share.clone() };
    let approved = file.kept().filter(|kept| kept.vault == vault).and_then(|kept| kept.approved.clone());
    let file = file.keeping(Kept { vault, head, share: Some(kept), approved }, custodian)?;
    let file = file.with_copy(Some(chain.copy(root)?));
    let confirmation =
        Confirmation { vault, custodian: id, epoch: epoch.e, made: epoch.made, head, time: clock::now() };
    let note = note::sign(&confirmation.to_text()?, &id, &custodian.keys.sign);
    Ok(Confirmed { file, custodian: id, note })
}

/// A key file is of one vault, and its holder has seen the chain up to the head that it keeps.
fn refuse_other_chain(chain: &Chain, custodian: &Identity, kept: &Kept) -> Result<()> {
    if kept.vault != chain.vault_id() {
        let (needed, given) = needed_and_given(chain, custodian);
        return Err(Error::OtherVault { needed, given, bound: kept.vault, found: chain.vault_id() });
    }
    match chain.line_hash(kept.head.n) {
        Some(hash) if hash == kept.head.hash => Ok(()),
        Some(_) => Err(Error::Forked { line: kept.head.n }),
        None => Err(Error::RolledBack { pinned: kept.head.n, found: chain.head().n }),
    }
}

/// Every custodian's last drill. A note that is damaged, or by another key, counts as none: it is only a reminder.
///
/// # Errors
/// The store's.
pub fn drills(root: &Arc<dyn Dir>, chain: &Chain) -> Result<Vec<Drill>> {
    let custody = layout::custody_dir(root)?;
    let drill = |(label, custodian): (String, IdentityId)| {
        let name = name(&custodian);
        let bytes = layout::read_if_there(&custody, &name, &format!("custody/{name}"), OBJECT_MAX)?;
        let said = bytes.and_then(|bytes| signed(chain, &custodian, &bytes));
        let head = said.as_ref().map(|said| said.head);
        let line = head.filter(|head| chain.line_hash(head.n) == Some(head.hash)).map(|head| head.n);
        let newest =
            |said: &Confirmation| (said.epoch, said.made) == (chain.current().e, chain.current().made);
        let confirmed = said.filter(newest).map(|said| said.time);
        Ok(Drill { custodian, label, confirmed, line })
    };
    chain.custodians().into_iter().map(drill).collect()
}

/// A confirmation that this custodian signed.
fn signed(chain: &Chain, custodian: &IdentityId, bytes: &[u8]) -> Option<Confirmation> {
    let note = Note::parse(bytes).ok()?;
    let known = chain.state().custodian(custodian)?;
    let text = note.verify(custodian, &known.sign).ok()?;
    let said = Confirmation::parse_text(&text).ok()?;
    ((said.vault, said.custodian) == (chain.vault_id(), *custodian)).then_some(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_files::{self, NewLock, NoPrompt};
    use crate::testing::{custody, put, vault};

    #[test]
    fn a_drill_is_kept_and_counts_for_its_shares() {
        let (root, owner, chain) = vault();
        let file = key_files::lock(&owner, &NewLock::None, Some(chain.vault_id())).unwrap();
        assert_eq!(drills(&root, &chain).unwrap()[0].confirmed, None);
        let confirmed = confirm(&root, &chain, &owner, &file, false).unwrap();
        confirmed.write(&root).unwrap();
        let kept = confirmed.file;
        let back = KeyFile::parse(&kept.to_bytes().unwrap()).unwrap();
        assert_eq!(back, kept);
        assert_eq!(key_files::unlock(&back, &mut NoPrompt).unwrap().id(), owner.id());
        let share = back.kept().unwrap().share.clone().unwrap();
        assert_eq!((share.epoch, share.made, back.kept().unwrap().head), (1, 0, chain.head()));
        assert!(drills(&root, &chain).unwrap()[0].confirmed.is_some());

        // Of another key, or cut: none.
        let name = name(&owner.id());
        let good = crate::testing::get(&custody(&root), &name);
        let forged = String::from_utf8(good.clone()).unwrap().replace("\"epoch\":1", "\"epoch\":2");
        for bad in [&good[..good.len() - 5], forged.as_bytes()] {
            put(&custody(&root), &name, bad);
            assert_eq!(drills(&root, &chain).unwrap()[0].confirmed, None);
        }
        put(&custody(&root), &name, &good);
        crate::rotate::rotate(&root, &chain, &owner, &mut |_, _| {}).unwrap();
        let line = chain.head().n;
        let chain = Chain::load(&root).unwrap();
        let drill = drills(&root, &chain).unwrap().remove(0);
        assert_eq!((drill.confirmed, drill.line), (None, Some(line)), "of the shares before");

        // What this key saw is not undone unseen, and it is of one vault.
        let older = crate::testing::vault();
        let mut rolled_back = kept.kept().unwrap().clone();
        rolled_back.head.n = 7;
        let ahead = kept.keeping(rolled_back, &owner).unwrap();
        let refused = confirm(&root, &chain, &owner, &ahead, false).unwrap_err();
        confirm(&root, &chain, &owner, &ahead, true).unwrap();
        assert!(matches!(refused, Error::RolledBack { pinned: 7, found: 1 }), "{refused}");
        let moved = Kept { vault: older.2.vault_id(), ..kept.kept().unwrap().clone() };
        let refused =
            confirm(&root, &chain, &owner, &kept.keeping(moved, &owner).unwrap(), false).unwrap_err();
        assert!(matches!(refused, Error::OtherVault { .. }), "{refused}");

        let stranger = Identity::generate("stranger").unwrap();
        let file = key_files::lock(&stranger, &NewLock::None, None).unwrap();
        assert!(matches!(confirm(&root, &chain, &stranger, &file, false), Err(Error::WrongKey { .. })));
    }
}
