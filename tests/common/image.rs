//! A file system of a chosen kind and size in a file in memory, mounted by loop. Needs root.

use std::path::Path;
use std::process::Command;

use tempfile::{NamedTempFile, TempDir};

use crate::tools::{output, run};

/// A mounted loop image, gone when dropped.
pub struct Image {
    at: TempDir,
    _file: NamedTempFile,
}

impl Image {
    /// A new file system of `kind` (`ext4`, `xfs`, `btrfs`) with `mib` MiB. Its path is short, so that sockets far
    /// below it can be bound (108 bytes).
    ///
    /// # Panics
    /// If it cannot be made or mounted.
    pub fn new(kind: &str, mib: u64) -> Self {
        let file = NamedTempFile::with_prefix_in("runvault-image-", "/dev/shm").expect("a temporary file");
        let at = TempDir::with_prefix("rv-").expect("a temporary directory");
        file.as_file().set_len(mib << 20).expect("a sparse file");
        let force = if kind == "ext4" { "-qF" } else { "-qf" };
        run(Command::new(format!("mkfs.{kind}")).arg(force).arg(file.path()));
        run(Command::new("mount").args(["-o", "loop"]).arg(file.path()).arg(at.path()));
        Self { at, _file: file }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.at.path()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if !output(Command::new("umount").arg(self.path())).status.success() {
            let _ = output(Command::new("umount").arg("-l").arg(self.path()));
        }
    }
}
