//! The real directory: each name is resolved beneath its parent's descriptor, one component at a
//! time, and nothing but a regular file is opened for reading or writing.

mod attributes;
mod descriptor;
mod dir;
mod file;
mod listing;
mod local;
mod open;
mod shut;

use std::io::Result;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};

use crate::backend::Dir;

/// Opens the directory that holds, or will hold, a store. The path is trusted: symlinks in it are
/// followed.
///
/// # Errors
/// ENOENT, ENOTDIR, EACCES as open(2) gives them.
pub fn open_root(path: &Path) -> Result<Arc<dyn Dir>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    Ok(Arc::new(dir::PosixDir::new(fd)))
}
