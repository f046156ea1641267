//! The keys of open runs in the state folder, sealed under KEK_t: `resume/<t>/<run id>`.
//!
//! Where KEK_t is overwritten, every entry under it is gone with it, also from a copy of the folder
//! that lacks `kek/`. At each seal the entries of the other runs are sealed anew under KEK_t+1, then that key is
//! written, which is the commit, then KEK_t is overwritten. Where the keys are: [`crate::kek_home`].

use std::path::Path;

use runvault_crypto::secrets::Secret;
use runvault_format::ids::{RunId, VaultId};
use runvault_format::resume::Entry;
use runvault_vault::authority::Resume;

use crate::kek_home::{self, Home, KekHome, Wish};
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
    home: Box<dyn Home>,
    resumes: Folder,
}

impl ResumeEntries {
    /// Opens them; makes KEK_1 in a new folder, in the home that is wished for.
    pub(crate) fn open(folder: &Folder, vault: VaultId, wish: Wish) -> Result<Self> {
        let keks = folder.subfolder(KEK)?;
        let resumes = folder.subfolder(RESUME)?;
        let home = kek_home::open(&keks, vault, wish)?;
        let mut numbers = home.numbers()?;
        numbers.sort_unstable();
        let (t, kek) = match numbers.as_slice() {
            [] => (FIRST, new_kek(&*home, &resumes)?),
            [t] => (*t, home.read(*t)?),
            // A key is written when all its entries are: the one before has had its day.
            [before, t] if before.checked_add(1) == Some(*t) => (*t, home.read(*t)?),
            _ => return Err(damaged(&keks, "", "more keys than one and its successor")),
        };
        let folder = resumes.subfolder(&t.to_string())?;
        Ok(Self { vault, t, kek, folder, home, resumes })
    }

    /// Opens them where a writer has made them; makes nothing.
    pub(crate) fn existing(folder: &Folder, vault: VaultId) -> Result<Option<Self>> {
        let made = layout::exists(folder.dir(), KEK, &folder.shown(KEK))?
            && layout::exists(folder.dir(), RESUME, &folder.shown(RESUME))?
            && !kek_home::open(&folder.subfolder(KEK)?, vault, Wish::AsItIs)?.numbers()?.is_empty();
        if made { Self::open(folder, vault, Wish::AsItIs).map(Some) } else { Ok(None) }
    }

    /// Whether there is an entry of that run, of any t.
    pub(crate) fn keeps(folder: &Path, run: &RunId) -> bool {
        let numbers = std::fs::read_dir(folder.join(RESUME)).into_iter().flatten().flatten();
        numbers.into_iter().any(|number| number.path().join(run.to_string()).exists())
    }

    /// Where the folder keeps its key; nothing is made, and no TPM is asked.
    pub(crate) fn home_of(folder: &Folder, vault: VaultId) -> Result<Option<KekHome>> {
        if !layout::exists(folder.dir(), KEK, &folder.shown(KEK))? {
            return Ok(None);
        }
        kek_home::which(&folder.subfolder(KEK)?, vault).map(Some)
    }

    /// Where the key is kept.
    pub(crate) fn home(&self) -> KekHome {
        self.home.is()
    }

    pub(crate) fn get(&self, run: &RunId) -> Result<Option<Resume>> {
        let name = run.to_string();
        let Some(bytes) = self.folder.read(&name)? else { return Ok(None) };
        let Entry { key, session } = Entry::open(&bytes, &self.kek, self.t, &self.vault, run)
            .map_err(|e| Error::damaged(self.folder.shown(&name), e))?;
        Ok(Some(Resume { key, session }))
    }

    pub(crate) fn put(&self, run: &RunId, resume: &Resume) -> Result<()> {
        put(&self.folder, self.t, &self.kek, &self.vault, run, resume)
    }

    pub(crate) fn remove(&self, run: &RunId) -> Result<()> {
        self.folder.remove(&run.to_string())
    }

    /// Erases the key of a run for good: the other entries go under a new KEK, and the old one is overwritten.
    pub(crate) fn erase(&mut self, run: &RunId) -> Result<()> {
        self.renew(|other| other != run)
    }

    /// Erases the keys of all runs.
    pub(crate) fn erase_all(&mut self) -> Result<()> {
        self.renew(|_| false)
    }

    /// A new KEK, and under it the entries of the runs that `stay`.
    fn renew(&mut self, stay: impl Fn(&RunId) -> bool) -> Result<()> {
        let object = || self.resumes.shown("");
        let no_more = || Error::Damaged { object: object(), why: "no further key".to_owned() };
        let t = self.t.checked_add(1).ok_or_else(no_more)?;
        let name = t.to_string();
        // What an attempt that was cut short left: its key first, which else would count without its entries.
        self.home.erase_all_but(self.t)?;
        self.drop_entries(t)?;
        let (kek, folder) = (Secret::random()?, self.resumes.subfolder(&name)?);
        for run in self.runs()?.iter().filter(|run| stay(run)) {
            // One that does not open is lost already, and `takeover` makes a new one.
            match self.get(run) {
                Ok(Some(resume)) => put(&folder, t, &kek, &self.vault, run, &resume)?,
                Ok(None) | Err(Error::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // One that failed may be there all the same: it must not count for entries that come under the old one.
        self.home.write(t, &kek).inspect_err(|_| {
            if let Err(error) = self.home.erase_all_but(self.t) {
                log::error!("the next key of the open runs may be there, half made: {error}");
            }
        })?;
        (self.t, self.kek, self.folder) = (t, kek, folder);
        self.erase_others()
    }

    /// Every other KEK is overwritten, and the entries under it removed: also what a process left that was killed
    /// meanwhile.
    pub(crate) fn erase_others(&self) -> Result<()> {
        self.home.erase_all_but(self.t)?;
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
        let mut runs: Vec<RunId> = layout::parsed(self.folder.dir(), &self.folder.shown(""))?;
        runs.sort();
        Ok(runs)
    }
}

fn put(
    folder: &Folder,
    t: u64,
    kek: &Secret<32>,
    vault: &VaultId,
    run: &RunId,
    resume: &Resume,
) -> Result<()> {
    let entry = Entry { key: resume.key.clone(), session: resume.session };
    folder.write(&run.to_string(), &entry.seal(kek, t, vault, run)?)
}

/// A KEK is made only where no entry could have needed the one that is missing.
fn new_kek(home: &dyn Home, resumes: &Folder) -> Result<Secret<32>> {
    for t in numbers(resumes)? {
        let entries = resumes.subfolder(&t.to_string())?;
        if !layout::names(entries.dir(), &entries.shown(""))?.is_empty() {
            return Err(home.lost(t));
        }
    }
    let kek = Secret::random()?;
    home.prepare().and_then(|()| home.write(FIRST, &kek)).inspect_err(|_| {
        if let Err(error) = home.give_up() {
            log::warn!("what was prepared for the key of the open runs stays: {error}");
        }
    })?;
    Ok(kek)
}

fn numbers(folder: &Folder) -> Result<Vec<u64>> {
    layout::numbers(folder.dir(), &folder.shown(""))
}

fn damaged(folder: &Folder, name: &str, why: &str) -> Error {
    Error::Damaged { object: folder.shown(name), why: why.to_owned() }
}
