//! Reading a small file of the store whole, whatever somebody has put in its place.

use std::io::{Error, Result};

use crate::backend::{Access, Dir, File};

/// The bytes of a regular file, at most `max`.
///
/// # Errors
/// EFBIG over `max`; ELOOP, EISDIR or EINVAL for what is no regular file; the store's.
pub fn read_whole(dir: &dyn Dir, name: &[u8], max: usize) -> Result<Vec<u8>> {
    read_open(&*dir.open_file(name, Access::Read)?, max)
}

/// [`read_whole`] of one that is open.
///
/// # Errors
/// EFBIG over `max`; the store's.
pub fn read_open(file: &dyn File, max: usize) -> Result<Vec<u8>> {
    let size = usize::try_from(file.stat()?.size).unwrap_or(usize::MAX);
    if size > max {
        return Err(Error::from_raw_os_error(libc::EFBIG));
    }
    // One byte more than expected, so that a file that has just grown is noticed.
    let mut bytes = vec![0; size + 1];
    let got = file.read_at(&mut bytes, 0)?;
    if got > size {
        return Err(Error::from_raw_os_error(libc::EFBIG));
    }
    bytes.truncate(got);
    Ok(bytes)
}
