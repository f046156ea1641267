//! Putting a whole small file in the store so that a crash leaves the old one or the new one.

use std::io::Result;
use std::sync::Arc;

use crate::backend::{Dir, File, Rename};

/// How the names of files begin that are not yet what they will be; left over after a crash.
pub const TEMPORARY: &[u8] = b".tmp-";

/// How file systems say that they have no hard links.
const NO_LINKS: [i32; 4] = [libc::EPERM, libc::EOPNOTSUPP, libc::ENOSYS, libc::EINVAL];

/// Writes `name` anew: temporary, fsync, rename, fsync of the directory. Never falls back to
/// writing in place.
///
/// # Errors
/// The store's; `name` is then what it was.
pub fn replace(dir: &dyn Dir, name: &[u8], bytes: &[u8], mode: u32) -> Result<()> {
    let temporary = temporary_name()?;
    let file = dir.create_file(&temporary, mode)?;
    let written = fill(&file, bytes).and_then(|()| dir.rename(&temporary, dir, name, Rename::Over));
    if let Err(error) = written {
        // The first error is the one to tell; what stays behind is known by its name.
        let _ = dir.unlink(&temporary);
        return Err(error);
    }
    dir.sync()
}

/// Makes `name` whole and durable, and never in the place of another: of many callers one succeeds, where
/// the file system has hard links or renames that replace nothing.
///
/// # Errors
/// EEXIST if there is one; the store's: whether it was made is then not known.
pub fn put_new(dir: &dyn Dir, name: &[u8], bytes: &[u8], mode: u32) -> Result<()> {
    let temporary = temporary_name()?;
    let file = dir.create_file(&temporary, mode)?;
    let made = fill(&file, bytes).and_then(|()| match dir.link(&temporary, dir, name) {
        Err(e) if e.raw_os_error().is_some_and(|errno| NO_LINKS.contains(&errno)) => {
            dir.rename(&temporary, dir, name, Rename::NoReplace)
        }
        linked => linked,
    });
    // A second name of what was made, gone with a rename, or of no more use.
    let _ = dir.unlink(&temporary);
    made?;
    dir.sync()
}

/// Makes `name`, durable with its content. A crash may leave it incomplete.
///
/// # Errors
/// EEXIST if there is one; the store's.
pub fn create(dir: &dyn Dir, name: &[u8], bytes: &[u8], mode: u32) -> Result<()> {
    let file = dir.create_file(name, mode)?;
    if let Err(error) = fill(&file, bytes) {
        let _ = dir.unlink(name);
        return Err(error);
    }
    dir.sync()
}

fn fill(file: &Arc<dyn File>, bytes: &[u8]) -> Result<()> {
    file.write_at(bytes, 0)?;
    file.sync_all()
}

/// A name that nobody else has, for a file that is not yet, or no longer, what its own says.
///
/// # Errors
/// The system's, for want of random bytes.
pub fn temporary_name() -> Result<Vec<u8>> {
    let mut random = [0u8; 8];
    let mut filled = 0;
    while let Some(rest) = random.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
    }
    let digits = random.iter().map(|b| format!("{b:02x}")).collect::<String>();
    Ok([TEMPORARY, digits.as_bytes()].concat())
}
