//! The keys of open runs in the state folder, sealed under KEK_t: `resume/<t>/<run id>`.
//!
//! Where KEK_t is overwritten, every entry under it is gone with it, also from a copy of the folder
//! that lacks `kek/`. At each seal the entries of the other runs are sealed anew under KEK_t+1, then that key is
//! written, which is the commit, then KEK_t is overwritten.

use runvault_crypto::secrets::Secret;
use runvault_format::ids::{RunId, VaultId};
use runvault_format::resume::Entry;
use runvault_store::replace::TEMPORARY;
use runvault_vault::authority::Resume;
use zeroize::Zeroizing;

use crate::layout;
use crate::state_folder::Folder;
use crate::{Error, Result};

const KEK: &str = "kek";
const RESUME: &str = "resume";
/// The first t.
const FIRST: u64 = 1;

/// The entries of the folder's one t.
#[derive(Debug)]
pub(crate) struct ResumeEntries {
    vault: VaultId,
    t: u64,
    kek: Secret<32>,
    folder: Folder,
    keks: Folder,
    resumes: Folder,
}

impl ResumeEntries {
    /// Opens them; makes KEK_1 in a new folder.
    pub(crate) fn open(folder: &Folder, vault: VaultId) -> Result<Self> {
        let keks = folder.subfolder(KEK)?;
        let resumes = folder.subfolder(RESUME)?;
        let mut numbers = numbers(&keks)?;
        numbers.sort_unstable();
        let (t, kek) = match numbers.as_slice() {
            [] => (FIRST, new_kek(&keks, &resumes)?),
            [t] => (*t, read_kek(&keks, *t)?),
            // A key is written when all its entries are: the one before has had its day.
            [before, t] if before.checked_add(1) == Some(*t) => (*t, read_kek(&keks, *t)?),
            _ => return Err(damaged(&keks, "", "more keys than one and its successor")),
        };
        let folder = resumes.subfolder(&t.to_string())?;
        Ok(Self { vault, t, kek, folder, keks, resumes })
    }

    /// Opens them where a writer has made them; makes nothing.
    pub(crate) fn existing(folder: &Folder, vault: VaultId) -> Result<Option<Self>> {
        let made = layout::exists(folder.dir(), KEK, &folder.shown(KEK))?
            && layout::exists(folder.dir(), RESUME, &folder.shown(RESUME))?
            && !numbers(&folder.subfolder(KEK)?)?.is_empty();
        if made { Self::open(folder, vault).map(Some) } else { Ok(None) }
    }

    pub(crate) fn get(&self, run: &RunId) -> Result<Option<Resume>> {
        let name = run.to_string();
        let Some(bytes) = self.folder.read(&name)? else { return Ok(None) };
        let Entry { key, session } = Entry::open(&bytes, &self.kek, self.t, &self.vault, run)
            .map_err(|e| Error::damaged(self.folder.shown(&name), e))?;
        Ok(Some(Resume { key, session }))
    }

    pub(crate) fn put(&self, run: &RunId, resume: &Resume) -> Result<()> {
        let entry = Entry { key: resume.key.clone(), session: resume.session };
        self.folder.write(&run.to_string(), &entry.seal(&self.kek, self.t, &self.vault, run)?)
    }

    pub(crate) fn remove(&self, run: &RunId) -> Result<()> {
        self.folder.remove(&run.to_string())
    }

    /// Erases the key of a run for good: the other entries go under a new KEK, and the old one is overwritten.
    pub(crate) fn erase(&mut self, run: &RunId) -> Result<()> {
        let t = self.t.checked_add(1).ok_or_else(|| damaged(&self.keks, "", "no further key"))?;
        let name = t.to_string();
        // What an attempt that was cut short left.
        self.drop_entries(t)?;
        let next = Self {
            vault: self.vault,
            t,
            kek: Secret::random()?,
            folder: self.resumes.subfolder(&name)?,
            keks: self.keks.again(),
            resumes: self.resumes.again(),
        };
        for other in self.runs()?.iter().filter(|other| *other != run) {
            // One that does not open is lost already, and `takeover` makes a new one.
            match self.get(other) {
                Ok(Some(resume)) => next.put(other, &resume)?,
                Ok(None) | Err(Error::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        next.keks.write(&name, next.kek.expose())?;
        *self = next;
        self.erase_others()
    }

    /// Every other KEK is overwritten, and the entries under it removed: also what a process left that was killed
    /// meanwhile.
    pub(crate) fn erase_others(&self) -> Result<()> {
        let keys = layout::names(self.keks.dir(), &self.keks.shown(""))?;
        let current = self.t.to_string();
        for name in keys.iter().map(|name| String::from_utf8_lossy(name)).filter(|name| *name != current) {
            // Also one that was being written.
            if name.as_bytes().starts_with(TEMPORARY) || name.parse::<u64>().is_ok() {
                self.keks.wipe(&name)?;
            }
        }
        for t in numbers(&self.resumes)?.into_iter().filter(|t| *t != self.t) {
            self.drop_entries(t)?;
        }
        Ok(())
    }

    fn drop_entries(&self, t: u64) -> Result<()> {
        let name = t.to_string();
        if !layout::exists(self.resumes.dir(), &name, &self.resumes.shown(&name))? {
            return Ok(());
        }
        let folder = self.resumes.subfolder(&name)?;
        for entry in layout::names(folder.dir(), &folder.shown(""))? {
            folder.remove(&String::from_utf8_lossy(&entry))?;
        }
        drop(folder);
        self.resumes.remove_folder(&name)
    }

    /// Runs with an entry, in order; what a killed write left is passed over.
    pub(crate) fn runs(&self) -> Result<Vec<RunId>> {
        let names = layout::names(self.folder.dir(), &self.folder.shown(""))?;
        let mut runs: Vec<RunId> =
            names.iter().filter_map(|name| std::str::from_utf8(name).ok()?.parse().ok()).collect();
        runs.sort();
        Ok(runs)
    }
}

/// A KEK is made only where no entry could have needed the one that is missing.
fn new_kek(keks: &Folder, resumes: &Folder) -> Result<Secret<32>> {
    for t in numbers(resumes)? {
        let entries = resumes.subfolder(&t.to_string())?;
        if !layout::names(entries.dir(), &entries.shown(""))?.is_empty() {
            return Err(damaged(keks, &t.to_string(), "missing: the keys of the open runs are lost with it"));
        }
    }
    let kek = Secret::random()?;
    keks.write(&FIRST.to_string(), kek.expose())?;
    Ok(kek)
}

fn read_kek(keks: &Folder, t: u64) -> Result<Secret<32>> {
    let name = t.to_string();
    let bytes = keks.read_secret(&name)?.map(Zeroizing::new);
    let bytes = bytes.ok_or_else(|| damaged(keks, &name, "missing"))?;
    let bytes: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| damaged(keks, &name, "not 32 bytes"))?;
    Ok(Secret::copy_from(bytes))
}

/// The names that are numbers, as this program writes them.
fn numbers(folder: &Folder) -> Result<Vec<u64>> {
    let names = layout::names(folder.dir(), &folder.shown(""))?;
    let number = |name: &Vec<u8>| {
        let text = std::str::from_utf8(name).ok()?;
        text.parse::<u64>().ok().filter(|n| n.to_string() == text)
    };
    Ok(names.iter().filter_map(number).collect())
}

fn damaged(folder: &Folder, name: &str, why: &str) -> Error {
    Error::Damaged { object: folder.shown(name), why: why.to_owned() }
}
