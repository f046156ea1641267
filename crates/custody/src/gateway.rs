//! The state folder of a writing machine: its identity, its open runs' keys, its place in its chain.

use std::path::Path;
use std::sync::Arc;

use runvault_format::ids::{IdentityId, RunId, VaultId};
use runvault_store::backend::Dir;
use runvault_vault::authority::{ChainPlace, Gateway, Resume};

use crate::Result;
use crate::chain::Chain;
use crate::identity::Identity;

/// `<state dir>/<vault id>`, locked for this process.
#[derive(Debug)]
pub struct StateFolder {}

/// What [`StateFolder::settle`] had to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// A run whose making was cut short is in the store, or got a retired note.
    pub pending: Option<RunId>,
    /// The store has runs of this gateway that the folder (restored from a backup?) does not know.
    pub restored: bool,
}

#[allow(unused_variables)]
impl StateFolder {
    /// Makes or opens the folder (0700) and locks it.
    ///
    /// # Errors
    /// [`crate::Error::Busy`], [`crate::Error::Damaged`], [`crate::Error::Io`].
    pub fn open(state_dir: &Path, vault: VaultId) -> Result<StateFolder> {
        todo!()
    }

    /// The lock file then names the mount point to whoever finds the folder busy.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn note_mountpoint(&self, mountpoint: &Path) -> Result<()> {
        todo!()
    }

    /// Whether the newest state names this gateway.
    pub fn is_enrolled(&self, chain: &Chain) -> bool {
        todo!()
    }

    /// [`crate::Error::NotEnrolled`], with the request to propose, unless it is.
    ///
    /// # Errors
    /// That one.
    pub fn require_enrolled(&self, chain: &Chain) -> Result<()> {
        todo!()
    }

    /// Enrols this gateway: one line of the audit log, signed by the owner. Nothing if it is.
    ///
    /// # Errors
    /// [`crate::Error::WrongKey`], [`crate::Error::NeedsQuorum`], [`crate::Error::ChangedMeanwhile`].
    pub fn enroll(&self, root: &Arc<dyn Dir>, chain: &mut Chain, owner: &Identity) -> Result<()> {
        todo!()
    }

    /// Finishes what a killed process left: a pending run is adopted or retired; runs of this
    /// gateway that the folder does not know are counted. To be called before a writing mount.
    ///
    /// # Errors
    /// The store's, [`crate::Error::Damaged`].
    pub fn settle(&self, root: &Arc<dyn Dir>) -> Result<Settled> {
        todo!()
    }
}

#[allow(unused_variables)]
impl Gateway for StateFolder {
    fn id(&self) -> IdentityId {
        todo!()
    }
    fn holder(&self) -> String {
        todo!()
    }
    fn begin_run(
        &self,
        run: &RunId,
        resume: &Resume,
        text: &mut dyn FnMut(ChainPlace) -> runvault_vault::Result<String>,
    ) -> runvault_vault::Result<Vec<u8>> {
        todo!()
    }
    fn commit_run(&self, run: &RunId) -> runvault_vault::Result<()> {
        todo!()
    }
    fn retire_run(&self, run: &RunId, run_note: &[u8], time: &str) -> runvault_vault::Result<Vec<u8>> {
        todo!()
    }
    fn resume(&self, run: &RunId) -> runvault_vault::Result<Option<Resume>> {
        todo!()
    }
    fn hold(&self, run: &RunId, resume: &Resume) -> runvault_vault::Result<()> {
        todo!()
    }
    fn release(&self, run: &RunId) -> runvault_vault::Result<()> {
        todo!()
    }
    fn held(&self) -> runvault_vault::Result<Vec<RunId>> {
        todo!()
    }
}
