//! A sealed run that another one replaces, of the same manifest under a new key: its nodes lead to that one's files, so
//! whoever reads it goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use runvault_format::ids::RunId;

use super::{SealedFile, SealedTree, tell};
use crate::api::{Handle, Ino};
use crate::run::Run;
use crate::{Error, Posix, Result, Vault, runs};

impl Vault {
    /// What `act` gives for a node of a sealed run: for its run, or for the one that replaces it where that has gone
    /// meanwhile.
    pub(super) fn of_sealed<T>(
        &self,
        ino: Ino,
        act: impl Fn(&Arc<SealedTree>, u32) -> Result<T>,
    ) -> Result<T> {
        let (run, entry) = self.sealed.of(ino)?;
        let done = match self.sealed_tree(&run).and_then(|tree| act(&tree, entry)) {
            Err(error) if !matches!(error, Error::Posix(_)) && self.is_replaced(ino, &run) => {
                let (run, entry) = self.sealed.of(ino)?;
                self.sealed_tree(&run).and_then(|tree| act(&tree, entry))
            }
            done => done,
        };
        done.inspect_err(tell)
    }

    /// Whether the node leads to another run than that one, after a look where its directory is not there any more.
    fn is_replaced(&self, ino: Ino, run: &Arc<Run>) -> bool {
        let other = || self.sealed.of(ino).is_ok_and(|(now, _)| now.id != run.id);
        if other() {
            return true;
        }
        if !runs::is_gone(&self.root, &run.id) {
            return false;
        }
        let mut scans = self.hold_scans();
        // Who waited for the same may have looked.
        if !other()
            && let Err(error) = self.list_runs(&mut scans, false)
        {
            log::warn!("{error}");
        }
        drop(scans);
        other()
    }

    /// Reads a file of a sealed run that is open; from the run that replaces its own, where one does.
    pub(crate) fn read_sealed(
        &self,
        handle: Handle,
        file: &Arc<SealedFile>,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize> {
        if file.is_superseded() {
            // Until that one can be opened the old one is read, as long as it is there.
            if let Ok(newer) = self.reopen(handle, file) {
                return newer.read(offset, buf).inspect_err(tell);
            }
        }
        let error = match file.read(offset, buf) {
            Err(error) => error,
            read => return read,
        };
        let now = self.sealed.of(file.ino());
        if now.is_ok_and(|(run, _)| run.id != file.run() || self.is_replaced(file.ino(), &run)) {
            return self.reopen(handle, file)?.read(offset, buf).inspect_err(tell);
        }
        tell(&error);
        Err(error)
    }

    /// Lets go of what is left of runs that were replaced, which takes room for as long as a program has it open.
    pub(crate) fn reopen_superseded(&self) {
        for (handle, file) in self.handles.all_sealed().iter().filter(|(_, file)| file.is_superseded()) {
            if let Err(error) = self.reopen(*handle, file) {
                log::warn!("a file of a run that was replaced is read from the old one: {error}");
            }
        }
    }

    fn reopen(&self, handle: Handle, file: &Arc<SealedFile>) -> Result<Arc<SealedFile>> {
        let newer = Arc::new(self.of_sealed(file.ino(), SealedTree::open_file)?);
        if newer.size != file.size {
            return Err(Posix::Stale.into());
        }
        self.handles.replace_sealed(handle, &newer);
        Ok(newer)
    }
}

impl SealedFile {
    fn run(&self) -> RunId {
        self.tree.context.id
    }

    fn is_superseded(&self) -> bool {
        self.tree.superseded.load(Ordering::Relaxed)
    }
}
