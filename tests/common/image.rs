//! A file system of a chosen kind and size in a file, mounted by loop. Needs root.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::tools::{output, run};

/// A mounted loop image, gone when dropped.
pub struct Image {
    at: PathBuf,
    _dir: TempDir,
}

impl Image {
    /// A new file system of `kind` (`ext4`, `xfs`, `btrfs`) with `mib` MiB.
    ///
    /// # Panics
    /// If it cannot be made or mounted.
    pub fn new(kind: &str, mib: u64) -> Self {
        let dir =
            tempfile::Builder::new().prefix("runvault-image-").tempdir().expect("a temporary directory");
        let (file, at) = (dir.path().join("image"), dir.path().join("mnt"));
        std::fs::create_dir(&at).expect("a directory");
        std::fs::File::create(&file).and_then(|f| f.set_len(mib << 20)).expect("a sparse file");
        run(Command::new(format!("mkfs.{kind}")).arg(if kind == "ext4" { "-qF" } else { "-qf" }).arg(&file));
        run(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&at));
        Self { at, _dir: dir }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if !output(Command::new("umount").arg(&self.at)).status.success() {
            let _ = output(Command::new("umount").arg("-l").arg(&self.at));
        }
    }
}
