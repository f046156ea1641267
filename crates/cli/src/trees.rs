//! Files and directories as `ls`, `cat` and `cp` see them: here, and in a vault without a mount.

mod local;
mod vault;

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use runvault_store::backend::{Kind, Time};

use crate::exit::{Exit, refuse, refuse_with};
use crate::output::shown;

pub use local::Local;
pub use vault::InVault;

/// Directories below each other that `ls -R` and `cp -r` walk: twice what one path can name on Linux.
const LEVELS: usize = 4096;

/// What is known of an object without opening it.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    pub kind: Kind,
    /// Which object it is, among all file systems and open vaults; names of one file share it.
    pub object: (u64, u64),
    /// Permission bits, 0o7777.
    pub mode: u32,
    pub nlink: u64,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    /// Bytes.
    pub size: u64,
    /// Stored, of 512 bytes each.
    pub blocks: u64,
    pub atime: Time,
    pub mtime: Time,
}

/// A file being read.
pub trait Source {
    /// The next range that holds data, from `from` on; `None` past the last one.
    ///
    /// # Errors
    /// The file system's or the vault's.
    fn next_data(&mut self, from: u64) -> Result<Option<Range<u64>>>;
    /// Bytes read; 0 at the end.
    ///
    /// # Errors
    /// The file system's or the vault's.
    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize>;
    /// Bytes to the end of the file, which may be a hole.
    ///
    /// # Errors
    /// The file system's or the vault's.
    fn size(&self) -> Result<u64>;
}

/// A file being written.
pub trait Sink {
    /// All of it.
    ///
    /// # Errors
    /// The file system's or the vault's.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()>;
    /// Sets the size (a hole at the end is not written) and reports what is still wrong; `durable`: only
    /// once it is safe from a crash.
    ///
    /// # Errors
    /// The file system's or the vault's.
    fn close(self: Box<Self>, size: u64, durable: bool) -> Result<()>;
}

/// What a directory holds.
pub struct Names {
    /// Sorted by their bytes.
    pub names: Vec<OsString>,
    /// Fails, with exit 4, where names are left out because they do not authenticate.
    pub complete: Result<()>,
}

/// One side of a copy. Symbolic links are never followed, but by `is_dir`.
#[allow(missing_docs)]
pub trait Tree {
    fn stat(&self, path: &Path) -> Result<Option<Meta>>;
    /// Whether it is a directory, or here a link to one.
    fn is_dir(&self, path: &Path) -> Result<bool>;
    fn list(&self, path: &Path) -> Result<Names>;
    fn read_link(&self, path: &Path) -> Result<OsString>;
    fn open<'a>(&'a self, path: &Path) -> Result<Box<dyn Source + 'a>>;
    /// Makes a file where there is nothing; only its owner may read it until `finish`.
    fn create<'a>(&'a self, path: &Path) -> Result<Box<dyn Sink + 'a>>;
    fn make_dir(&self, path: &Path) -> Result<()>;
    fn make_link(&self, path: &Path, target: &OsString) -> Result<()>;
    /// A fifo, socket or device.
    fn make_node(&self, path: &Path, meta: &Meta) -> Result<()>;
    /// Anything but a directory.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Takes the place of what is there, in the same directory.
    fn rename(&self, path: &Path, to: &Path) -> Result<()>;
    /// Beyond its number, what all names of an object have in common: a store may tell any numbers.
    fn identity(&self, path: &Path, meta: &Meta) -> Result<Vec<u8>>;
    /// Makes `to` a further name of what is at `path`.
    fn link(&self, path: &Path, to: &Path) -> Result<()>;
    /// Names of extended attributes, ACLs among them.
    fn attributes(&self, path: &Path) -> Result<Vec<Vec<u8>>>;
    fn attribute(&self, path: &Path, name: &[u8]) -> Result<Vec<u8>>;
    fn set_attribute(&self, path: &Path, name: &[u8], value: &[u8]) -> Result<()>;
    /// Owner and group as in `meta`, by their numbers.
    fn set_owner(&self, path: &Path, meta: &Meta) -> Result<()>;
    /// Mode and times as in `meta`.
    fn finish(&self, path: &Path, meta: &Meta) -> Result<()>;
    /// Whether it is below a run that is sealed.
    fn is_in_sealed_run(&self, path: &Path) -> Result<bool>;
    /// For messages.
    fn shown(&self, path: &Path) -> String;
}

/// Refuses a directory that lies deeper than any program needs: whoever writes to a store can make levels
/// without end.
///
/// # Errors
/// Exit 1.
pub fn refuse_deep(tree: &dyn Tree, path: &Path) -> Result<()> {
    if path.components().count() <= LEVELS {
        return Ok(());
    }
    let top: PathBuf = path.components().take(3).collect();
    let what = format!("{}/...: more than {LEVELS} levels deep, left out", tree.shown(&top));
    Err(refuse_with(Exit::Failed, what, "a mount has no such limit: find and rm -r walk all of it"))
}

/// A path inside a vault: relative, without empty and `.` components.
///
/// # Errors
/// Exit 2 for `..`.
pub fn vault_path(typed: &Path) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for part in typed.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                let what = format!("{}: a path inside a vault has no ..", shown(typed));
                return Err(refuse(Exit::Usage, what));
            }
            _ => {}
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vault_paths_stay_inside() {
        assert_eq!(vault_path(Path::new("//a/./b/")).unwrap(), Path::new("a/b"));
        assert_eq!(vault_path(Path::new("/")).unwrap(), Path::new(""));
        assert!(vault_path(Path::new("a/../..")).is_err());
    }

    #[test]
    fn levels_have_an_end() {
        let levels = |n| std::iter::repeat_n("d", n).collect::<PathBuf>();
        assert!(refuse_deep(&Local, &levels(LEVELS)).is_ok());
        let refused = refuse_deep(&Local, &levels(LEVELS + 1)).unwrap_err().to_string();
        assert!(refused.starts_with("d/d/d/...: more than 4096 levels"), "{refused}");
    }
}
