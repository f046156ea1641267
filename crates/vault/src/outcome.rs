//! The store's errno as the engine's outcome: what POSIX names keeps its name.

use std::io;

use crate::{Error, Posix};

/// An error of the store, met while doing `operation` on `object`.
pub(crate) fn outcome(operation: &'static str, object: impl Into<String>, error: io::Error) -> Error {
    match error.raw_os_error().and_then(posix) {
        Some(posix) => Error::Posix(posix),
        None => Error::store(operation, object, error),
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

/// Whether it says that a name is not there.
pub(crate) fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Posix(Posix::NotFound))
}
