//! Runs are renamed: each carries its name, whole, in a file of its own.

use std::sync::Arc;

use runvault_format::name;
use runvault_store::backend::{Kind, Rename};
use runvault_store::replace;

use crate::api::Ino;
use crate::ledger::{RUN, RUN_NAME};
use crate::nodes::Name;
use crate::outcome::outcome;
use crate::run::{Body, Run};
use crate::run_life::FILE_MODE;
use crate::run_table::joined;
use crate::{Error, Posix, Result, Vault};
/// A run's new name, not in place yet.
struct Renamed<'a> {
    run: &'a Arc<Run>,
    body: Arc<Body>,
    /// Plaintext.
    path: Vec<u8>,
    sealed: Vec<u8>,
}

impl Renamed<'_> {
    fn put(&self) -> Result<()> {
        let replace = || replace::replace(&*self.body.dir, b"name", &self.sealed, FILE_MODE);
        let replaced = match self.body.context.ledger() {
            Some(ledger) => ledger.changing_attribute(RUN, RUN_NAME, Some(&self.path), replace),
            None => replace(),
        };
        replaced.map_err(|e| outcome("replace", format!("runs/{}/name", self.run.id), e))?;
        self.run.set_name(&self.path);
        Ok(())
    }
}

impl Vault {
    /// Renaming an open run's folder between places of run depth replaces its `name`.
    pub(crate) fn rename_run(
        &self,
        (parent, name): (Ino, &[u8]),
        run: &Arc<Run>,
        (to, new): (Ino, &[u8]),
        how: Rename,
    ) -> Result<()> {
        if !self.is_run_depth(to) {
            return Err(Posix::CrossRun.into());
        }
        // Another gateway's files outside any run: what they are shown as is no name of theirs.
        if run.is_loose() {
            return Err(Posix::Busy.into());
        }
        let there = self.run_named(to, new)?;
        if how == Rename::Exchange {
            return match there {
                Some(there) => self.exchange_runs((parent, name), run, (to, new), &there),
                None => {
                    Err(self.outside_any_run(to, new)?.map_or(Posix::NotFound, |_| Posix::CrossRun).into())
                }
            };
        }
        let renamed = self.renamed(run, to, new)?;
        if let Some(there) = there {
            if Arc::ptr_eq(&there, run) {
                return Ok(());
            }
            if how == Rename::NoReplace {
                return Err(Posix::Exists.into());
            }
            self.remove_run(to, new, &there)?;
        }
        let _names = self.locks.alone(&[parent, to]);
        if let Some(kind) = self.outside_any_run(to, new)? {
            let there = if kind == Kind::Dir { Posix::Exists } else { Posix::NotDirectory };
            return Err(if how == Rename::NoReplace { Posix::Exists } else { there }.into());
        }
        renamed.put()?;
        self.nodes.moved(renamed.body.top, &Name::new(parent, name), &Name::new(to, new));
        self.change_table(|_| {});
        Ok(())
    }

    /// One name after the other: after a power cut in between both runs have the second one's, and are shown
    /// with their ids.
    fn exchange_runs(
        &self,
        (parent, name): (Ino, &[u8]),
        run: &Arc<Run>,
        (to, new): (Ino, &[u8]),
        other: &Arc<Run>,
    ) -> Result<()> {
        if Arc::ptr_eq(run, other) {
            return Ok(());
        }
        if other.is_loose() {
            return Err(Posix::Busy.into());
        }
        if !self.is_run_depth(parent) {
            return Err(Posix::CrossRun.into());
        }
        let (there, here) = (self.renamed(run, to, new)?, self.renamed(other, parent, name)?);
        let before = self.renamed(run, parent, name)?;
        let _names = self.locks.alone(&[parent, to]);
        there.put()?;
        here.put().inspect_err(|_| {
            if let Err(error) = before.put() {
                log::warn!("run {}: its name was not put back: {error}", run.id);
            }
        })?;
        let (first, second) = (Name::new(parent, name), Name::new(to, new));
        self.nodes.moved(there.body.top, &first, &second);
        self.nodes.moved(here.body.top, &second, &first);
        self.change_table(|_| {});
        Ok(())
    }

    /// What gives a run, which this process must hold, another name in a folder.
    fn renamed<'a>(&self, run: &'a Arc<Run>, folder: Ino, name: &[u8]) -> Result<Renamed<'a>> {
        let body = self.body(run)?;
        body.check_writer()?;
        let path = joined(&self.folder_path(folder).ok_or(Posix::CrossRun)?, name);
        let key = body.context.keys.name_key();
        let sealed = name::encrypt_run_name(key, &run.id, &path).map_err(|e| match e {
            runvault_format::Error::TooLong => Error::Posix(Posix::NameTooLong),
            _ => Error::Posix(Posix::Invalid),
        })?;
        Ok(Renamed { run, body, path, sealed })
    }

    /// What stands under a name of a folder and is no run.
    pub(crate) fn outside_any_run(&self, folder: Ino, name: &[u8]) -> Result<Option<Kind>> {
        let Ok(dir) = self.directory(folder) else { return Ok(None) };
        Ok(dir.dir.stat(&dir.stored(name)?.text).ok().map(|stat| stat.kind))
    }
}
