//! The owner's key file in the store: two copies, written one after the other; either suffices.

use std::sync::Arc;

use runvault_format::key_file::LEN_MAX;
use runvault_store::backend::Dir;
use runvault_store::replace::replace;
use zeroize::Zeroizing;

use crate::identity::Identity;
use crate::key_files::{self, KeyFile, Prompt};
use crate::kinds::NewLock;
use crate::layout::{self, LOCKS, SECRET_MODE};
use crate::{Error, Result};

const COPIES: [&str; 2] = ["owner-0", "owner-1"];

/// The first copy that parses.
///
/// # Errors
/// [`Error::NoLock`], [`Error::Damaged`] when both are.
pub fn read(root: &Arc<dyn Dir>) -> Result<KeyFile> {
    read_good(root)?.into_iter().next().ok_or(Error::NoLock)
}

/// Opens the key; where a killed [`passwd`] left two different copies, either passphrase opens it.
///
/// # Errors
/// As [`read`]; [`Error::WrongPassphrase`].
pub fn unlock(root: &Arc<dyn Dir>, prompt: &mut dyn Prompt) -> Result<Identity> {
    let mut copies = read_good(root)?;
    copies.dedup();
    let mut once = AskOnce { prompt, answer: None };
    let mut refused = Error::NoLock;
    for copy in &copies {
        match key_files::unlock(copy, &mut once) {
            Err(e @ (Error::WrongPassphrase { .. } | Error::Damaged { .. } | Error::Crypto(_))) => {
                refused = e
            }
            answer => return answer,
        }
    }
    Err(refused)
}

/// Writes both copies, each synced before the next is touched.
///
/// # Errors
/// The store's; [`Error::UnlockedInStore`].
pub fn write(root: &Arc<dyn Dir>, file: &KeyFile) -> Result<()> {
    if !file.has_passphrase() {
        return Err(Error::UnlockedInStore);
    }
    let locks = locks_dir(root)?;
    let bytes = file.to_bytes()?;
    for copy in COPIES {
        replace(&*locks, copy.as_bytes(), &bytes, SECRET_MODE)
            .map_err(|e| Error::io("write", object(copy), e))?;
    }
    Ok(())
}

/// Locks the owner's key anew: O(1), nothing else of the store changes.
///
/// # Errors
/// The store's; [`Error::UnlockedInStore`]; [`Error::NoLock`] where the key is kept elsewhere.
pub fn passwd(root: &Arc<dyn Dir>, owner: &Identity, new: &NewLock) -> Result<()> {
    let kept = read(root)?;
    if kept.id() != owner.id() {
        let given = key_files::shown(&owner.label, &owner.id());
        return Err(Error::WrongKey { needed: kept.shown(), given });
    }
    write(root, &key_files::lock(owner, new, owner.vault.or(kept.vault()))?)
}

/// Both copies that parse, in order. A damaged one is told only where it was the last hope.
fn read_good(root: &Arc<dyn Dir>) -> Result<Vec<KeyFile>> {
    let locks = locks_dir(root)?;
    let mut good = Vec::new();
    let mut damage = None;
    for copy in COPIES {
        match read_copy(&locks, copy) {
            Ok(file) => good.extend(file),
            Err(e) => damage = Some(e),
        }
    }
    match damage {
        Some(damage) if good.is_empty() => Err(damage),
        _ => Ok(good),
    }
}

fn read_copy(locks: &Arc<dyn Dir>, copy: &str) -> Result<Option<KeyFile>> {
    let Some(bytes) = layout::read_if_there(locks, copy, &object(copy), LEN_MAX)? else { return Ok(None) };
    KeyFile::parse(&bytes).map(Some).map_err(|e| match e {
        Error::Damaged { why, .. } => Error::Damaged { object: object(copy), why },
        Error::UnknownVersion { version, .. } => Error::UnknownVersion { object: object(copy), version },
        e => e,
    })
}

fn locks_dir(root: &Arc<dyn Dir>) -> Result<Arc<dyn Dir>> {
    layout::open_dir(&layout::custody_dir(root)?, LOCKS, "custody/locks")
}

fn object(copy: &str) -> String {
    format!("custody/locks/{copy}")
}

/// One question, however many copies it is tried on.
struct AskOnce<'a> {
    prompt: &'a mut dyn Prompt,
    answer: Option<Zeroizing<Vec<u8>>>,
}

impl Prompt for AskOnce<'_> {
    fn passphrase(&mut self, label: &str) -> Result<Zeroizing<Vec<u8>>> {
        if let Some(answer) = &self.answer {
            return Ok(answer.clone());
        }
        let answer = self.prompt.passphrase(label)?;
        self.answer = Some(answer.clone());
        Ok(answer)
    }
}
