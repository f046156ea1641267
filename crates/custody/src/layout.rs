//! Where things lie in a store, and with which modes.
//!
//! Modes: whatever anyone may verify (vault.json, custody/, notes) is 0644 in directories of 0755:
//! a gateway or an auditor under another user id must read the chain, and ciphertext needs no mode
//! to stay secret. The owner's locked key file is 0600, since its passphrase can be guessed at.
//! The umask may take more away. Nothing here needs root, ACLs or locks, so NFS is no special case;
//! only `passwd` takes a lock, where there are any.

use std::io;
use std::str::FromStr;
use std::sync::Arc;

use runvault_store::backend::{Dir, File};
use runvault_store::read_whole::{self, read_whole};

use crate::{Error, Result};

/// Magic, version, vault id; written last.
pub(crate) const VAULT_JSON: &str = "vault.json";
/// There from the first to the last moment of `init`.
pub(crate) const INIT_MARKER: &str = ".init";
pub(crate) const CUSTODY: &str = "custody";
pub(crate) const LOCKS: &str = "locks";
pub(crate) const GENESIS: &str = "genesis";
pub(crate) const AUDIT_LOG: &str = "audit.log";
pub(crate) const RUNS: &str = "runs";
pub(crate) const RETIRED: &str = "retired";

pub(crate) const PUBLIC_MODE: u32 = 0o644;
pub(crate) const SECRET_MODE: u32 = 0o600;
pub(crate) const DIR_MODE: u32 = 0o755;

/// Genesis, one state, one small file.
pub(crate) const OBJECT_MAX: usize = 1 << 20;
/// The whole audit log: over 10,000 lines of a vault with several custodians.
pub(crate) const LOG_MAX: usize = 256 << 20;

/// File name of state n.
pub(crate) fn state_name(n: u64) -> String {
    format!("state-{n}")
}

/// `custody/` of a store.
pub(crate) fn custody_dir(root: &Arc<dyn Dir>) -> Result<Arc<dyn Dir>> {
    root.open_dir(CUSTODY.as_bytes()).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOTDIR | libc::ELOOP) => {
            Error::Damaged { object: CUSTODY.to_owned(), why: "not a directory".to_owned() }
        }
        Some(libc::ENOENT) => Error::NoCustody,
        _ => Error::io("open", CUSTODY, e),
    })
}

pub(crate) fn open_dir(parent: &Arc<dyn Dir>, name: &str, object: &str) -> Result<Arc<dyn Dir>> {
    parent.open_dir(name.as_bytes()).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOTDIR | libc::ELOOP) => {
            Error::Damaged { object: object.to_owned(), why: "not a directory".to_owned() }
        }
        Some(libc::ENOENT) => Error::Damaged { object: object.to_owned(), why: "missing".to_owned() },
        _ => Error::io("open", object, e),
    })
}

/// The bytes of `name`, `object` in messages.
pub(crate) fn read(dir: &Arc<dyn Dir>, name: &str, object: &str, max: usize) -> Result<Vec<u8>> {
    read_if_there(dir, name, object, max)?
        .ok_or_else(|| Error::Damaged { object: object.to_owned(), why: "missing".to_owned() })
}

/// As [`read`]; `None` where there is no such name.
pub(crate) fn read_if_there(
    dir: &Arc<dyn Dir>,
    name: &str,
    object: &str,
    max: usize,
) -> Result<Option<Vec<u8>>> {
    match read_whole(&**dir, name.as_bytes(), max) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(refused_or_io(object, e)),
    }
}

/// As [`read`], of a file that is open.
pub(crate) fn read_open(file: &dyn File, object: &str, max: usize) -> Result<Vec<u8>> {
    read_whole::read_open(file, max).map_err(|e| refused_or_io(object, e))
}

/// Errnos that tell of a planted object are damage, the rest is the store's trouble.
fn refused_or_io(object: &str, error: io::Error) -> Error {
    let why = match error.raw_os_error() {
        Some(libc::EFBIG) => "longer than is allowed",
        Some(libc::ELOOP | libc::EINVAL | libc::EISDIR | libc::ENOTDIR | libc::ENXIO) => "not a regular file",
        _ => return Error::io("read", object, error),
    };
    Error::Damaged { object: object.to_owned(), why: why.to_owned() }
}

/// Whether a name exists, of whatever kind.
pub(crate) fn exists(dir: &Arc<dyn Dir>, name: &str, object: &str) -> Result<bool> {
    match dir.stat(name.as_bytes()) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(Error::io("stat", object, e)),
    }
}

/// Makes a directory unless it is there. The caller syncs the parent.
pub(crate) fn ensure_dir(parent: &Arc<dyn Dir>, name: &str, mode: u32, object: &str) -> Result<Arc<dyn Dir>> {
    match parent.create_dir(name.as_bytes(), mode) {
        Err(e) if e.raw_os_error() != Some(libc::EEXIST) => Err(Error::io("mkdir", object, e)),
        _ => open_dir(parent, name, object),
    }
}

/// The names of a directory that are numbers, as this program writes them.
pub(crate) fn numbers(dir: &Arc<dyn Dir>, object: &str) -> Result<Vec<u64>> {
    let number = |name: &Vec<u8>| {
        let text = std::str::from_utf8(name).ok()?;
        text.parse::<u64>().ok().filter(|n| n.to_string() == text)
    };
    Ok(names(dir, object)?.iter().filter_map(number).collect())
}

/// The names of a directory that are such ids or names as this program writes them; others are passed over.
pub(crate) fn parsed<T: FromStr>(dir: &Arc<dyn Dir>, object: &str) -> Result<Vec<T>> {
    Ok(names(dir, object)?.iter().filter_map(|name| std::str::from_utf8(name).ok()?.parse().ok()).collect())
}

/// All names of a directory.
pub(crate) fn names(dir: &Arc<dyn Dir>, object: &str) -> Result<Vec<Vec<u8>>> {
    runvault_store::names::names(&**dir).map_err(|e| Error::io("list", object, e))
}
