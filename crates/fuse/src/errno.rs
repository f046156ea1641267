//! The one place where the engine's errors become numbers.

use runvault_vault::{Error, Posix};

/// The errno that the application sees.
pub(crate) fn of(error: &Error) -> i32 {
    match error {
        Error::Posix(posix) => of_posix(*posix),
        Error::Store { source, .. } => of_store(source.raw_os_error()),
        // EBADMSG would be more exact, but programs know EIO: stop, and tell a person.
        Error::Damaged { .. } | Error::Newer { .. } | Error::Format(_) => libc::EIO,
        // The run can be read, and someone else's writes go on: for this mount it is a read-only one.
        Error::Held { .. }
        | Error::NotHeld { .. }
        | Error::Revoked { .. }
        | Error::Sealed { .. }
        | Error::NotMaker { .. } => libc::EROFS,
        // POSIX: an error at a deferred write is EIO at every later call on it.
        Error::Poisoned { .. } => libc::EIO,
        // What is there stays readable, nothing more can be written: EROFS makes a program say so,
        // EIO would have it distrust what it reads.
        Error::WornOut { .. } => libc::EROFS,
        Error::WrongKey(_) => libc::EACCES,
        // Randomness or locked memory could not be had: the same request may succeed later.
        Error::Crypto(_) => libc::ENOMEM,
        // No mount re-keys.
        Error::Deleted | Error::NotBegun { .. } => libc::EIO,
        Error::NoRoom { .. } => libc::ENOSPC,
        // Nor seals.
        Error::Sealing { .. } | Error::Unfinished { .. } | Error::GivenUp => libc::EBUSY,
        // What the kernel itself says of a FUSE mount whose program has gone.
        Error::Closed => libc::ENOTCONN,
    }
}

/// Whether the log should have it: anything that an application does not cause by a wrong call.
pub(crate) fn is_trouble(error: &Error) -> bool {
    match error {
        Error::Posix(_) | Error::Closed => false,
        Error::Store { .. } => of(error) == libc::EIO,
        _ => true,
    }
}

fn of_posix(posix: Posix) -> i32 {
    match posix {
        Posix::NotFound => libc::ENOENT,
        Posix::Exists => libc::EEXIST,
        Posix::NotDirectory => libc::ENOTDIR,
        Posix::IsDirectory => libc::EISDIR,
        Posix::NotEmpty => libc::ENOTEMPTY,
        Posix::NameTooLong => libc::ENAMETOOLONG,
        Posix::Invalid => libc::EINVAL,
        Posix::CrossRun => libc::EXDEV,
        Posix::ReadOnly => libc::EROFS,
        Posix::NoAttribute => libc::ENODATA,
        // setxattr(2): "The specified name is too long" is ERANGE.
        Posix::AttributeNameTooLong => libc::ERANGE,
        Posix::NotPermitted => libc::EPERM,
        // Never ENOSYS: the kernel would not send that kind of call again while mounted.
        Posix::Unsupported => libc::EOPNOTSUPP,
        Posix::BadHandle => libc::EBADF,
        Posix::Stale => libc::ESTALE,
        Posix::NoSuchData => libc::ENXIO,
        Posix::FileTooLarge => libc::EFBIG,
        Posix::TooManyLinks => libc::EMLINK,
        Posix::Busy => libc::EBUSY,
        Posix::Range => libc::ERANGE,
    }
}

/// A store's own errno goes through where it means the same to the application as it meant to us.
/// All else (a share that went away, a descriptor of ours that is stale, a symlink where a file should
/// be) is EIO: the application did nothing wrong, and must not be told that it did.
fn of_store(raw: Option<i32>) -> i32 {
    match raw {
        Some(
            errno @ (libc::EROFS
            | libc::ENOSPC
            | libc::EDQUOT
            | libc::EFBIG
            | libc::EACCES
            | libc::EPERM
            | libc::ENOENT
            | libc::EEXIST
            | libc::ENOTDIR
            | libc::EISDIR
            | libc::ENOTEMPTY
            | libc::ENAMETOOLONG
            | libc::EINVAL
            | libc::EXDEV
            | libc::ENODATA
            | libc::ERANGE
            | libc::E2BIG
            | libc::ENXIO
            | libc::EMLINK
            | libc::EBUSY
            | libc::ETXTBSY
            | libc::EMFILE
            | libc::ENFILE
            | libc::ENOMEM
            | libc::EOPNOTSUPP),
        ) => errno,
        // See `of_posix`: what the store lacks today another run's store may have.
        Some(libc::ENOSYS) => libc::EOPNOTSUPP,
        _ => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use runvault_vault::Damage;

    use super::*;

    fn store(errno: i32) -> Error {
        Error::store("write", "runs/0", io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn a_store_that_is_full_or_read_only_says_so() {
        assert_eq!(of(&store(libc::ENOSPC)), libc::ENOSPC);
        assert_eq!(of(&store(libc::EROFS)), libc::EROFS);
        assert!(!is_trouble(&store(libc::ENOSPC)));
    }

    #[test]
    fn a_store_that_went_away_is_an_input_output_error() {
        for errno in [
            libc::ENOTCONN,
            libc::ENODEV,
            libc::ESTALE,
            libc::ETIMEDOUT,
            libc::EHOSTDOWN,
            libc::ECONNRESET,
            libc::EBADF,
            libc::ELOOP,
            libc::EINTR,
        ] {
            assert_eq!(of(&store(errno)), libc::EIO, "{errno}");
            assert!(is_trouble(&store(errno)));
        }
        assert_eq!(of(&Error::store("write", "x", io::Error::other("no number"))), libc::EIO);
    }

    #[test]
    fn the_kernel_is_never_told_to_stop_asking() {
        assert_eq!(of(&store(libc::ENOSYS)), libc::EOPNOTSUPP);
        assert_eq!(of(&Posix::Unsupported.into()), libc::EOPNOTSUPP);
    }

    #[test]
    fn damage_and_an_earlier_failure_are_input_output_errors() {
        assert_eq!(of(&Error::damaged("runs/0/tree/x", Damage::Header)), libc::EIO);
        assert_eq!(of(&Error::Poisoned { object: "x".into() }), libc::EIO);
        assert!(is_trouble(&Error::damaged("x", Damage::Short)));
    }

    #[test]
    fn what_someone_else_writes_is_read_only_here() {
        assert_eq!(of(&Error::Held { run: "0".into(), holder: "1".into() }), libc::EROFS);
        assert_eq!(of(&Error::WornOut { object: "x".into() }), libc::EROFS);
        assert_eq!(of(&Posix::ReadOnly.into()), libc::EROFS);
    }

    #[test]
    fn posix_outcomes_keep_their_numbers() {
        for (posix, errno) in [
            (Posix::NotFound, libc::ENOENT),
            (Posix::Exists, libc::EEXIST),
            (Posix::NotEmpty, libc::ENOTEMPTY),
            (Posix::CrossRun, libc::EXDEV),
            (Posix::NoAttribute, libc::ENODATA),
            (Posix::AttributeNameTooLong, libc::ERANGE),
            (Posix::NoSuchData, libc::ENXIO),
        ] {
            assert_eq!(of(&posix.into()), errno);
            assert!(!is_trouble(&posix.into()));
        }
        assert_eq!(of(&Error::Closed), libc::ENOTCONN);
        assert_eq!(of(&Error::WrongKey("a reader's key".into())), libc::EACCES);
    }
}
