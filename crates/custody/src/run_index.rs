//! What this machine keeps of sealed runs from mount to mount: `index/<identity id>`, sealed under that identity.
//!
//! It saves work and proves nothing: where it does not open, or is another's, there is none, and one that was put back
//! only knows fewer runs.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use runvault_format::ids::VaultId;
use runvault_format::run_index::{IndexKey, Rows};
use runvault_store::replace::TEMPORARY;

use crate::state_folder::Folder;
use crate::{Error, Result, layout};

const INDEX: &str = "index";
/// Rows of some hundred thousand runs.
const LEN_MAX: usize = 64 << 20;
/// Seconds after which nobody writes on at a temporary.
const LEFTOVER: i64 = 3600;

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
        drop_leftovers(&folder);
        folder.write(&self.name(), &bytes)
    }
}

/// What killed processes were writing: it is as large as an index each time.
fn drop_leftovers(folder: &Folder) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
    for name in layout::names(folder.dir(), &folder.shown("")).unwrap_or_default() {
        let is_old = || folder.dir().stat(&name).is_ok_and(|stat| stat.mtime.sec < now - LEFTOVER);
        if name.starts_with(TEMPORARY) && is_old() {
            // The next one tries again.
            let _ = folder.dir().unlink(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use runvault_format::ids::{Digest, IdentityId, RunId};
    use runvault_format::run_index::Row;

    use super::*;
    use crate::identity::Identity;

    const VAULT: VaultId = VaultId([7; 32]);

    fn rows(n: u8) -> Rows {
        let row = Row {
            maker: IdentityId([1; 16]),
            seq: 1,
            run_note: Digest([2; 32]),
            sealer: IdentityId([1; 16]),
            n: 1,
            seal: Digest([3; 32]),
            shown: None,
        };
        (0..n).map(|n| (RunId([n; 16]), row.clone())).collect()
    }

    fn index(state: &Path, identity: &Identity) -> RunIndex {
        RunIndex::of(state, VAULT, identity.index_key(&VAULT))
    }

    #[test]
    fn each_identity_has_its_own_and_what_does_not_open_is_none() {
        let state = tempfile::tempdir().unwrap();
        let [owner, gateway] = ["owner", "gateway"].map(|label| Identity::generate(label).unwrap());
        assert_eq!(index(state.path(), &owner).load(), Rows::new());
        assert!(!state.path().join(VAULT.to_string()).exists(), "looking makes nothing");
        index(state.path(), &owner).keep(&rows(3));
        index(state.path(), &gateway).keep(&rows(1));
        let folder = state.path().join(VAULT.to_string()).join(INDEX);
        let path = |identity: &Identity| folder.join(identity.id().to_string());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "no temporary is left");
        assert_eq!(index(state.path(), &owner).load(), rows(3));
        assert_eq!(index(state.path(), &gateway).load(), rows(1));
        // One that was put back knows less.
        let older = std::fs::read(path(&owner)).unwrap();
        index(state.path(), &owner).keep(&rows(5));
        std::fs::write(path(&owner), older).unwrap();
        assert_eq!(index(state.path(), &owner).load(), rows(3));
        // Another's, a changed one, one that is too long to be ours, what is no file: none, until it is written again.
        let hostile: [&dyn Fn(&Path); 4] = [
            &|at| assert!(std::fs::copy(path(&gateway), at).unwrap() > 0),
            &|at| std::fs::write(at, [0; 100]).unwrap(),
            &|at| std::fs::File::create(at).unwrap().set_len(1 << 40).unwrap(),
            &|at| std::os::unix::fs::symlink("/dev/zero", at).unwrap(),
        ];
        for plant in hostile {
            std::fs::remove_file(path(&owner)).unwrap();
            plant(&path(&owner));
            assert_eq!(index(state.path(), &owner).load(), Rows::new());
            index(state.path(), &owner).keep(&rows(2));
            assert_eq!(index(state.path(), &owner).load(), rows(2));
        }
        // What a killed process left goes, what one writes now stays.
        let [old, new] = [".tmp-1", ".tmp-2"].map(|name| folder.join(name));
        [&old, &new].into_iter().for_each(|path| std::fs::write(path, b"x").unwrap());
        let file = std::fs::File::options().write(true).open(&old).unwrap();
        file.set_modified(SystemTime::now() - std::time::Duration::from_secs(7200)).unwrap();
        index(state.path(), &owner).keep(&rows(3));
        assert_eq!((old.exists(), new.exists()), (false, true));
        // Nowhere to write to.
        let nowhere = index(Path::new("/proc/none"), &owner);
        nowhere.keep(&rows(1));
        assert_eq!(nowhere.load(), Rows::new());
    }
}
