//! A file of a vault, open for a copy.

use std::ops::Range;

use anyhow::Result;
use runvault_vault::api::{Handle, SetAttr};
use runvault_vault::{Error, Posix, Vault};

use super::{InVault, Node};
use crate::trees::{Sink, Source};

/// An open file; released when dropped, flushed when closed.
pub(super) struct File {
    pub(super) node: Node,
    pub(super) handle: Handle,
    /// The end of what was written, for files being written.
    pub(super) size: Option<u64>,
}

impl File {
    pub(super) fn vault(&self) -> &Vault {
        &self.node.vault
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // Whoever wanted to know has closed it before.
        let _ = self.node.vault.release(self.handle);
    }
}

impl Source for File {
    fn next_data(&mut self, from: u64) -> Result<Option<Range<u64>>> {
        match self.vault().seek(self.handle, from, true) {
            Ok(start) => Ok(Some(start..self.vault().seek(self.handle, start, false)?)),
            Err(Error::Posix(Posix::NoSuchData)) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        Ok(self.vault().read(self.handle, offset, buf)?)
    }

    fn size(&self) -> Result<u64> {
        Ok(self.vault().vouched_size(self.handle)?)
    }
}

impl Sink for File {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.vault().write(self.handle, offset, data, false)?;
        self.size = self.size.max(Some(offset.saturating_add(data.len() as u64)));
        Ok(())
    }

    fn close(self: Box<Self>, size: u64, durable: bool) -> Result<()> {
        if self.size != Some(size) {
            let change = SetAttr { size: Some(size), ..SetAttr::NOTHING };
            self.vault().setattr(&InVault::caller(), self.node.attr.ino, Some(self.handle), &change)?;
        }
        self.vault().flush(self.handle)?;
        if durable {
            self.vault().fsync(self.handle, false)?;
        }
        Ok(())
    }
}
