//! The store's errno as the engine's outcome: what POSIX names keeps its name.

use std::io;

use runvault_store::backend::Dir;

use crate::{Damage, Error, Posix};

/// An error of the store, met while doing `operation` on `object`.
pub(crate) fn outcome(operation: &'static str, object: impl Into<String>, error: io::Error) -> Error {
    match error.raw_os_error().and_then(posix) {
        Some(posix) => Error::Posix(posix),
        None => Error::store(operation, object, error),
    }
}

/// [`outcome`] of opening what must be a file or a directory of ours. Another kind of object under its
/// name is nothing that the caller did wrong: someone else put it there.
pub(crate) fn opened(operation: &'static str, object: impl Into<String>, error: io::Error) -> Error {
    match planted(&error) {
        Some(damage) => Error::damaged(object, damage),
        None => outcome(operation, object, error),
    }
}

/// [`opened`] for what a run is never without: where it is missing, that is the store's error.
pub(crate) fn part_opened(operation: &'static str, object: impl Into<String>, error: io::Error) -> Error {
    match planted(&error) {
        Some(damage) => Error::damaged(object, damage),
        None => Error::store(operation, object, error),
    }
}

/// What the errno of opening, or of reading a small file whole, tells of the object found there.
fn planted(error: &io::Error) -> Option<Damage> {
    match error.raw_os_error()? {
        libc::ENOTDIR | libc::EISDIR | libc::ELOOP | libc::EINVAL | libc::ENXIO => Some(Damage::Kind),
        libc::EFBIG => Some(Damage::Run("longer than is allowed".to_owned())),
        _ => None,
    }
}

fn posix(errno: i32) -> Option<Posix> {
    Some(match errno {
        libc::ENOENT => Posix::NotFound,
        libc::EEXIST => Posix::Exists,
        libc::ENOTDIR => Posix::NotDirectory,
        libc::EISDIR => Posix::IsDirectory,
        libc::ENOTEMPTY => Posix::NotEmpty,
        libc::ENODATA => Posix::NoAttribute,
        libc::EOPNOTSUPP => Posix::Unsupported,
        libc::EMLINK => Posix::TooManyLinks,
        libc::ERANGE => Posix::Range,
        libc::ESTALE => Posix::Stale,
        _ => return None,
    })
}

/// Somebody took it away, or put something else on the way to it.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EINVAL | libc::EISDIR | libc::ENXIO)
    )
}

/// Whether a name is there. A store that does not say is not believed to have none.
pub(crate) fn exists(dir: &dyn Dir, name: &[u8]) -> io::Result<bool> {
    match dir.stat(name) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether a directory has any entry, whoever made it.
pub(crate) fn holds_something(dir: &dyn Dir) -> io::Result<bool> {
    let mut something = false;
    dir.entries(0, &mut |_| {
        something = true;
        false
    })?;
    Ok(something)
}

/// Whether it says that a name is not there.
pub(crate) fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Posix(Posix::NotFound))
}
