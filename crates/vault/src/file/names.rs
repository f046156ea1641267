//! Before a name changes: no record names the old path any more, and the header bears what the
//! new name will be. The file stays locked until the name has changed.

use std::sync::{Arc, RwLockWriteGuard};

use runvault_format::keys::Place;

use super::FileObject;
use super::state::State;
use crate::Result;

/// A file that is locked while one of its names changes.
#[must_use = "the file must stay locked until its name has changed"]
pub struct Held<'a> {
    file: &'a Arc<FileObject>,
    state: RwLockWriteGuard<'a, State>,
    /// Where a rename that was prepared leads from and to.
    renaming: Option<(Place, Place)>,
    last_name: bool,
}

impl Held<'_> {
    /// The name has changed (or is gone).
    pub fn done(mut self) {
        self.renaming = None;
        if self.last_name {
            self.state.detached = true;
            self.file.note_residue(&self.state);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some((old, new)) = self.renaming.take() {
            // A store may have done what it called a failure: either name must do.
            (self.state.place, self.state.previous) = (old, new);
            self.state.stale |= self.state.has_written_header();
        }
        self.file.keep_while_needed(&mut self.state);
    }
}

impl FileObject {
    fn held<'a>(self: &'a Arc<Self>, state: RwLockWriteGuard<'a, State>) -> Held<'a> {
        Held { file: self, state, renaming: None, last_name: false }
    }

    /// Before renameat2: in place, slot{previous = old, place = new}, F where the file (or, with
    /// `force_sync`, the one that is renamed over) has acknowledged data. Call
    /// [`Held::done`] once the rename has happened; dropped without, the old place counts first again.
    /// The caller syncs the directories of an earlier rename first if they are not known durable.
    ///
    /// # Errors
    /// [`crate::Error::Poisoned`] and the store's; the rename must not happen then.
    pub fn prepare_rename(self: &Arc<Self>, old: Place, new: Place, force_sync: bool) -> Result<Held<'_>> {
        let mut state = self.settled()?;
        self.write_tail(&mut state)?;
        if self.has_other_names()? {
            self.unbind(&mut state)?;
            return Ok(self.held(state));
        }
        let mut held = self.held(state);
        held.renaming = Some((old, new));
        let state = &mut *held.state;
        state.bind(new, old);
        if !state.has_written_header() {
            return Ok(held);
        }
        self.write_slot_quietly(state)?;
        if force_sync || state.durable > 0 || state.safe.is_some() {
            self.sync_file(state)?;
        } else {
            // Under its new name the file could not be read without it.
            self.deliver(state)?;
        }
        Ok(held)
    }

    /// Before linkat of the file called `old`: slot{place = old, previous = new}, or, where it has
    /// other names or that one is not certain, slot{several links}; F. The caller syncs the directories of names that went
    /// earlier first if they are not known durable.
    ///
    /// # Errors
    /// [`crate::Error::Poisoned`] and the store's; the link must not be made then.
    pub fn prepare_link(self: &Arc<Self>, old: Option<Place>, new: Place) -> Result<Held<'_>> {
        let mut state = self.settled()?;
        self.write_tail(&mut state)?;
        match old {
            Some(old) if !self.has_other_names()? => {
                state.bind(old, new);
                self.write_places(&mut state)?;
            }
            _ => self.unbind(&mut state)?,
        }
        Ok(self.held(state))
    }

    /// Whether the file has more than one name now. No other name can come while it is locked.
    fn has_other_names(&self) -> Result<bool> {
        Ok(self.file.stat().map_err(self.io("stat"))?.nlink > 1)
    }

    /// The header no longer binds the file to its names, durably.
    fn unbind(&self, state: &mut State) -> Result<()> {
        if state.several_links {
            return Ok(());
        }
        state.several_links = true;
        (state.place, state.previous) = (Place::default(), Place::default());
        self.write_places(state)
    }

    fn write_places(&self, state: &mut State) -> Result<()> {
        if state.has_written_header() {
            self.write_slot_quietly(state)?;
            self.sync_file(state)?;
        }
        Ok(())
    }

    /// Before a name goes (unlinkat, or another file is renamed over it). `last`: the file lives on
    /// only for those who have it open. Call [`Held::done`] once the name is gone.
    ///
    /// # Errors
    /// [`crate::Error::Poisoned`] and the store's, never for the last name.
    pub fn prepare_unlink(self: &Arc<Self>, last: bool) -> Result<Held<'_>> {
        if last || self.run.read_only() {
            let mut held = self.held(self.exclusive());
            held.last_name = last;
            return Ok(held);
        }
        let mut state = self.settled()?;
        if state.live {
            self.sync_file(&mut state)?;
        }
        Ok(self.held(state))
    }
}
