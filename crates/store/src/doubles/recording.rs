//! A store that notes every change and every sync, in the order in which they were made.
//!
//! Inode numbers tell the objects, so the store beneath must not use one twice: the memory double
//! does not.

use std::io::Result;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::observe::{Call, Change, Observer, observe};
use crate::backend::Dir;

/// The notes on one store.
#[derive(Default)]
pub struct Recording {
    notes: Mutex<Vec<Change<'static>>>,
    remote: bool,
}

impl Recording {
    /// The same store, noted from now on.
    ///
    /// # Errors
    /// When the directory has no stat.
    pub fn over(store: Arc<dyn Dir>) -> Result<(Arc<dyn Dir>, Arc<Self>)> {
        Self::default().around_store(store)
    }

    /// The same for a store behind a link: a sync of all of it reaches nobody, and is not noted.
    ///
    /// # Errors
    /// When the directory has no stat.
    pub fn over_remote(store: Arc<dyn Dir>) -> Result<(Arc<dyn Dir>, Arc<Self>)> {
        Self { remote: true, ..Self::default() }.around_store(store)
    }

    fn around_store(self, store: Arc<dyn Dir>) -> Result<(Arc<dyn Dir>, Arc<Self>)> {
        let recording = Arc::new(self);
        Ok((observe(store, recording.clone())?, recording))
    }

    /// How many changes and syncs were noted so far.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// A copy of the notes.
    pub fn changes(&self) -> Vec<Change<'static>> {
        self.lock().clone()
    }

    /// Takes the notes away.
    pub fn take(&self) -> Vec<Change<'static>> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Change<'static>>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Recording {
    fn around(&self, call: Call<'_>, run: &mut dyn FnMut() -> Result<u64>) -> Result<()> {
        let noted = call.change.filter(|change| !(self.remote && matches!(change, Change::SyncFs)));
        let Some(change) = noted else { return run().map(drop) };
        // Held over the call, so that the order noted is the order made.
        let mut notes = self.lock();
        let made = run()?;
        let mut change = change.into_owned();
        if let Change::Create { ino, .. } = &mut change {
            *ino = made;
        }
        notes.push(change);
        Ok(())
    }

    fn is_remote(&self) -> bool {
        self.remote
    }
}
