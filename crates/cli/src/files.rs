//! Small files that a command writes for people to carry, and secrets that it erases.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};

use crate::exit::{Exit, refuse, refuse_with};
use crate::output::shown;

/// Whether a file of that name may be made: asked before anything else is done for it.
///
/// # Errors
/// Exit 2: it exists.
pub fn must_be_new(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Err(refuse_with(
            Exit::Usage,
            format!("{}: exists; it is not overwritten", shown(path)),
            "name another one with --out",
        )),
        Err(_) => Ok(()),
    }
}

/// Writes a new file, synced; nothing in it is secret.
///
/// # Errors
/// Exit 2: it exists; exit 1: the file system's.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            return Err(refuse(Exit::Usage, format!("{}: exists; it is not overwritten", shown(path))));
        }
        made => made.with_context(|| format!("make {}", shown(path)))?,
    };
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written
        .inspect_err(|_| {
            // Half of it is of no use; the first error is the one to tell.
            let _ = std::fs::remove_file(path);
        })
        .with_context(|| format!("write {}", shown(path)))
}

/// Overwritten in its place, then gone. A file system that writes elsewhere, and a backup, keep it.
///
/// # Errors
/// The file system's.
pub fn wipe(path: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(0).min(1 << 20);
    file.write_all(&vec![0; len])?;
    file.sync_all()?;
    std::fs::remove_file(path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
