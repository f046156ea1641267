//! A directory to work in, which goes with all that is in it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

/// The mount point in it.
pub(crate) const MOUNT: &str = "mnt";

pub(crate) struct Home(pub(crate) PathBuf);

impl Home {
    /// A new one in `place`.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn new(place: &Path, name: &str) -> Result<Self> {
        let home = place.join(format!("runvault-compare-{}-{name}", std::process::id()));
        fs::create_dir(&home).with_context(|| home.display().to_string())?;
        Ok(Self(home))
    }

    /// New directories in it.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn directories<const N: usize>(&self, names: [&str; N]) -> Result<[PathBuf; N]> {
        let paths = names.map(|name| self.0.join(name));
        paths.iter().try_for_each(fs::create_dir)?;
        Ok(paths)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A gateway leaves its bare mount point immutable, where the file system can.
        let _ = File::open(self.0.join(MOUNT)).and_then(|bare| {
            let flags = ioctl_getflags(&bare)?;
            Ok(ioctl_setflags(&bare, flags - IFlags::IMMUTABLE)?)
        });
        let _ = fs::remove_dir_all(&self.0);
    }
}
