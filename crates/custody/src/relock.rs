//! A new lock for a key file that is kept outside the store.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::identity::Identity;
use crate::key_files::{self, KeyFile, NewLock};
use crate::{Error, Result};

/// A key file as it was before its lock was opened: what a new lock goes on from.
#[derive(Debug)]
pub struct Seen {
    /// The file itself, whatever links led to it.
    path: PathBuf,
    file: KeyFile,
}

impl Seen {
    /// Reads the key file, links followed.
    ///
    /// # Errors
    /// As [`key_files::read`]; [`Error::BadFile`] for one of several names, of which the others would keep the old
    /// lock.
    pub fn read(path: &Path, allow_readable: bool) -> Result<Self> {
        let file = key_files::read(path, allow_readable)?;
        let path = std::fs::canonicalize(path).map_err(io("find", path))?;
        refuse_other_names(&path)?;
        Ok(Self { path, file })
    }

    /// The file as it was read.
    pub fn file(&self) -> &KeyFile {
        &self.file
    }

    /// Puts the identity under another lock, with what its file keeps beside the key. Gives the new file.
    ///
    /// # Errors
    /// As [`key_files::lock`] and [`Seen::replace`].
    pub fn relock(&self, identity: &Identity, new: &NewLock) -> Result<KeyFile> {
        let mut file = key_files::lock(identity, new, identity.vault)?;
        if let Some(kept) = self.file.kept() {
            file = file.keeping(kept.clone(), identity)?;
        }
        file = file.with_copy(self.file.copy().cloned());
        self.replace(&file)?;
        Ok(file)
    }

    /// Puts `new` in its place: a crash leaves one of the two, whole. Of two at once one fails, where the file system
    /// has locks.
    ///
    /// # Errors
    /// [`Error::LockChanged`] where it is not what was seen any more; [`Error::Io`], as [`Seen::read`].
    pub fn replace(&self, new: &KeyFile) -> Result<()> {
        let _alone = lock(&self.path)?;
        refuse_other_names(&self.path)?;
        if key_files::read(&self.path, true)? != self.file {
            return Err(Error::LockChanged);
        }
        let temporary = self.temporary();
        // What root locks anew stays its owner's.
        let uid = std::fs::symlink_metadata(&self.path).map_err(io("stat", &self.path))?.uid();
        key_files::write_copy_of(&temporary, new, Some(uid))?;
        let put = std::fs::rename(&temporary, &self.path).map_err(io("replace", &self.path));
        if put.is_err() {
            // The old file is untouched; the new one would only be in the way.
            let _ = std::fs::remove_file(&temporary);
        }
        put?;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|dir| dir.sync_all()).map_err(io("sync the directory of", &self.path))?;
        if key_files::read(&self.path, true)? == *new { Ok(()) } else { Err(Error::LockChanged) }
    }

    /// Beside it.
    fn temporary(&self) -> PathBuf {
        let mut name: OsString = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".new-{}", std::process::id()));
        self.path.with_file_name(name)
    }
}

fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |e| Error::io(operation, path.display().to_string(), e)
}

fn refuse_other_names(path: &Path) -> Result<()> {
    match std::fs::metadata(path).map_err(io("stat", path))?.nlink() {
        names if names > 1 => Err(Error::BadFile {
            path: path.to_owned(),
            why: format!(
                "it has {names} names (hard links), and the others would keep the old passphrase: remove those first"
            ),
        }),
        _ => Ok(()),
    }
}

/// Locks the file's folder as long as it is held: on SMB nobody could read the file itself while it is locked, nor
/// replace it. Network file systems keep this lock to one machine.
fn lock(path: &Path) -> Result<File> {
    let folder =
        File::open(path.parent().unwrap_or(Path::new("/"))).map_err(io("open the directory of", path))?;
    match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::LockChanged),
        // A file system without locks.
        _ => Ok(folder),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Folder {
        place: tempfile::TempDir,
        owner: Identity,
    }

    impl Folder {
        fn with_key() -> Self {
            let folder =
                Self { place: tempfile::tempdir().unwrap(), owner: Identity::generate("owner").unwrap() };
            key_files::write_copy(&folder.path("owner.key"), &folder.locked()).unwrap();
            folder
        }

        fn path(&self, name: &str) -> PathBuf {
            self.place.path().join(name)
        }

        /// Under a nonce of its own.
        fn locked(&self) -> KeyFile {
            key_files::lock(&self.owner, &NewLock::None, None).unwrap()
        }

        fn names(&self) -> usize {
            std::fs::read_dir(self.place.path()).unwrap().count()
        }
    }

    #[test]
    fn a_link_stays_and_what_it_leads_to_is_replaced() {
        let folder = Folder::with_key();
        std::fs::create_dir(folder.path("links")).unwrap();
        let (link, new) = (folder.path("links/link.key"), folder.locked());
        std::os::unix::fs::symlink("../owner.key", &link).unwrap();
        Seen::read(&link, false).unwrap().replace(&new).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(key_files::read(&folder.path("owner.key"), false).unwrap(), new);
        assert_eq!(std::fs::metadata(&link).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(folder.names(), 2);
    }

    #[test]
    fn a_file_of_several_names_is_refused() {
        let folder = Folder::with_key();
        let (path, new) = (folder.path("owner.key"), folder.locked());
        let seen = Seen::read(&path, false).unwrap();
        std::fs::hard_link(&path, folder.path("other.key")).unwrap();
        for refused in [Seen::read(&path, false).map(drop), seen.replace(&new)] {
            assert!(refused.unwrap_err().to_string().contains("2 names"));
        }
        assert_ne!(key_files::read(&path, false).unwrap(), new);
        std::fs::remove_file(folder.path("other.key")).unwrap();
        seen.replace(&new).unwrap();
    }

    #[test]
    fn of_two_that_saw_the_same_lock_one_changes_it() {
        let folder = Folder::with_key();
        let (path, one, two) = (folder.path("owner.key"), folder.locked(), folder.locked());
        let seen = Seen::read(&path, false).unwrap();
        let at_work = lock(&path).unwrap();
        assert!(matches!(seen.replace(&one), Err(Error::LockChanged)));
        drop(at_work);
        seen.replace(&one).unwrap();
        assert!(matches!(seen.replace(&two), Err(Error::LockChanged)));
        assert_eq!(key_files::read(&path, false).unwrap(), one);
        assert_eq!(folder.names(), 1);
    }
}
