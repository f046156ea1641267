//! A file for each key: `kek/<t>`, 32 bytes, 0600.
//!
//! What is overwritten in its place is gone where the file system writes in place, and the disk does. A file system
//! that writes elsewhere, a snapshot, and flash that wears its cells evenly may keep it.

use runvault_crypto::secrets::Secret;
use runvault_store::replace::TEMPORARY;
use zeroize::Zeroizing;

use super::{Home, KekHome};
use crate::state_folder::Folder;
use crate::{Error, Result, layout};

#[derive(Debug)]
pub(super) struct Files(Folder);

impl Files {
    pub(super) fn new(folder: Folder) -> Self {
        Self(folder)
    }

    fn damaged(&self, name: &str, why: &str) -> Error {
        Error::Damaged { object: self.0.shown(name), why: why.to_owned() }
    }
}

impl Home for Files {
    fn is(&self) -> KekHome {
        KekHome::File
    }

    fn lost(&self, t: u64) -> Error {
        self.damaged(&t.to_string(), "missing: the keys of the open runs are lost with it")
    }

    fn prepare(&self) -> Result<()> {
        Ok(())
    }

    fn give_up(&self) -> Result<()> {
        Ok(())
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        layout::numbers(self.0.dir(), &self.0.shown(""))
    }

    fn read(&self, t: u64) -> Result<Secret<32>> {
        let name = t.to_string();
        let bytes = self.0.read_secret(&name)?.map(Zeroizing::new);
        let bytes = bytes.ok_or_else(|| self.damaged(&name, "missing"))?;
        let bytes: &[u8; 32] =
            bytes.as_slice().try_into().map_err(|_| self.damaged(&name, "not 32 bytes"))?;
        Ok(Secret::copy_from(bytes))
    }

    fn write(&self, t: u64, kek: &Secret<32>) -> Result<()> {
        self.0.write(&t.to_string(), kek.expose())
    }

    fn erase_all_but(&self, t: u64) -> Result<()> {
        let keys = layout::names(self.0.dir(), &self.0.shown(""))?;
        let current = t.to_string();
        for name in keys.iter().map(|name| String::from_utf8_lossy(name)).filter(|name| *name != current) {
            // Also one that was being written.
            if name.as_bytes().starts_with(TEMPORARY) || name.parse::<u64>().is_ok() {
                self.0.wipe(&name)?;
            }
        }
        Ok(())
    }
}
