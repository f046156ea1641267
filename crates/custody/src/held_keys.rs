//! The keys of the runs that this machine writes: in the state folder, or in this process alone.

use std::collections::BTreeMap;

use runvault_format::ids::RunId;
use runvault_vault::authority::Resume;

use crate::kek_home::KekHome;
use crate::resume_entries::ResumeEntries;
use crate::{Error, Result};

#[derive(Debug)]
pub(crate) struct HeldKeys {
    kept: ResumeEntries,
    /// Where nothing is kept: what dies with the process.
    in_memory: Option<InMemory>,
}

#[derive(Default)]
struct InMemory(BTreeMap<RunId, Resume>);

impl std::fmt::Debug for InMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys in memory", self.0.len())
    }
}

impl HeldKeys {
    pub(crate) fn new(kept: ResumeEntries) -> Self {
        Self { kept, in_memory: None }
    }

    /// From now on nothing more is kept. Runs that were kept go on until this process ends, and are kept until
    /// [`HeldKeys::erase_kept`].
    pub(crate) fn keep_none(&mut self) -> Result<()> {
        let mut held = InMemory::default();
        for run in self.kept.runs()? {
            match self.kept.get(&run) {
                Ok(Some(resume)) => drop(held.0.insert(run, resume)),
                // Lost already.
                Ok(None) | Err(Error::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.in_memory = Some(held);
        Ok(())
    }

    /// What was kept before nothing more was goes for good.
    pub(crate) fn erase_kept(&mut self) -> Result<()> {
        if self.are_kept() { Ok(()) } else { self.kept.erase_all() }
    }

    pub(crate) fn are_kept(&self) -> bool {
        self.in_memory.is_none()
    }

    pub(crate) fn home(&self) -> KekHome {
        self.kept.home()
    }

    pub(crate) fn get(&self, run: &RunId) -> Result<Option<Resume>> {
        match &self.in_memory {
            Some(held) => Ok(held.0.get(run).map(again)),
            None => self.kept.get(run),
        }
    }

    pub(crate) fn put(&mut self, run: &RunId, resume: &Resume) -> Result<()> {
        match &mut self.in_memory {
            Some(held) => {
                held.0.insert(*run, again(resume));
                Ok(())
            }
            None => self.kept.put(run, resume),
        }
    }

    pub(crate) fn remove(&mut self, run: &RunId) -> Result<()> {
        match &mut self.in_memory {
            Some(held) => {
                held.0.remove(run);
                Ok(())
            }
            None => self.kept.remove(run),
        }
    }

    /// The key of a run that was sealed goes for good; KEK_t is replaced.
    pub(crate) fn erase(&mut self, run: &RunId) -> Result<()> {
        if let Some(held) = &mut self.in_memory {
            held.0.remove(run);
        }
        self.kept.erase(run)
    }

    pub(crate) fn runs(&self) -> Result<Vec<RunId>> {
        match &self.in_memory {
            Some(held) => Ok(held.0.keys().copied().collect()),
            None => self.kept.runs(),
        }
    }
}

fn again(resume: &Resume) -> Resume {
    Resume { key: resume.key.clone(), session: resume.session }
}
