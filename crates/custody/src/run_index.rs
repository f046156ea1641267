//! What this machine keeps of sealed runs from mount to mount: `index/<identity id>`, sealed under that identity.
//!
//! It saves work and proves nothing: where it does not open, or is another's, there is none, and one that was put back
//! only knows fewer runs.

use std::path::{Path, PathBuf};

use runvault_format::ids::VaultId;
use runvault_format::run_index::{IndexKey, Rows};

use crate::state_folder::Folder;
use crate::{Error, Result, layout};

const INDEX: &str = "index";
/// Rows of some hundred thousand runs.
const LEN_MAX: usize = 64 << 20;

/// The index of one identity in a machine's state folder.
pub(crate) struct RunIndex {
    state_dir: PathBuf,
    vault: VaultId,
    key: IndexKey,
}

impl RunIndex {
    pub(crate) fn of(state_dir: &Path, vault: VaultId, key: IndexKey) -> Self {
        Self { state_dir: state_dir.to_owned(), vault, key }
    }

    /// The rows; none where there is no index, or none that opens.
    pub(crate) fn load(&self) -> Rows {
        self.read().unwrap_or_else(|error| {
            log::warn!("{error}: it is not used, and every run is opened anew");
            Rows::new()
        })
    }

    /// Replaces it. Without one the next mount has more to do; nothing else.
    pub(crate) fn keep(&self, rows: &Rows) {
        if let Err(error) = self.write(rows) {
            log::info!("what is known of sealed runs is not kept: {error}");
        }
    }

    fn name(&self) -> String {
        self.key.identity().to_string()
    }

    fn read(&self) -> Result<Rows> {
        let Some(folder) = Folder::existing(&self.state_dir, &self.vault)? else { return Ok(Rows::new()) };
        if !layout::exists(folder.dir(), INDEX, &folder.shown(INDEX))? {
            return Ok(Rows::new());
        }
        let folder = folder.subfolder(INDEX)?;
        let shown = folder.shown(&self.name());
        let Some(bytes) = layout::read_if_there(folder.dir(), &self.name(), &shown, LEN_MAX)? else {
            return Ok(Rows::new());
        };
        self.key.open(&bytes).map_err(|e| Error::damaged(shown, e))
    }

    fn write(&self, rows: &Rows) -> Result<()> {
        let folder = Folder::open(&self.state_dir, &self.vault)?.subfolder(INDEX)?;
        let damaged = |e| Error::damaged(folder.shown(&self.name()), e);
        let bytes = self.key.seal(rows).map_err(damaged)?;
        if bytes.len() > LEN_MAX {
            return Err(damaged(runvault_format::Error::TooLong));
        }
        folder.write(&self.name(), &bytes)
    }
}
