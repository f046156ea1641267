//! What can go wrong in the engine. Objects are named by their place in the store, never by a
//! plaintext name, so that a message may be logged.

use std::io;

use runvault_format::ids::{IdentityId, RunId};

use crate::seal::Change;

/// A refusal that POSIX has a name for; told in the words that strerror(3) has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Posix {
    #[error("no such file or directory")]
    NotFound,
    #[error("exists")]
    Exists,
    #[error("not a directory")]
    NotDirectory,
    #[error("a directory")]
    IsDirectory,
    #[error("the directory is not empty")]
    NotEmpty,
    #[error("the name is too long")]
    NameTooLong,
    #[error("not possible with this kind of object")]
    Invalid,
    #[error("moving between runs is not possible: copy instead")]
    CrossRun,
    #[error("opened for reading only")]
    ReadOnly,
    #[error("no such attribute")]
    NoAttribute,
    #[error("the attribute's name is too long")]
    AttributeNameTooLong,
    #[error("not permitted")]
    NotPermitted,
    #[error("not supported by the store")]
    Unsupported,
    #[error("not open")]
    BadHandle,
    #[error("it is gone")]
    Stale,
    #[error("no data from there on")]
    NoSuchData,
    #[error("the file would become too large")]
    FileTooLarge,
    #[error("too many links")]
    TooManyLinks,
    #[error("in use")]
    Busy,
    #[error("out of range")]
    Range,
}

/// What was found where authentic bytes should have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Damage {
    #[error("no header copy authenticates")]
    Header,
    #[error("one of its two header copies is damaged")]
    HeaderCopy,
    #[error("shorter than its authenticated size")]
    Short,
    #[error("chunk {0} does not authenticate")]
    Chunk(u64),
    #[error("it was moved, swapped or renamed by someone without the key")]
    Place,
    #[error("version, suite, chunk size or run id differ from run.json")]
    Foreign,
    #[error("the directory has no record (_dir) and is not empty")]
    DirectoryRecord,
    #[error("the name does not authenticate in this directory")]
    Name,
    #[error("{0}")]
    Run(String),
    /// Nobody who may sign it did, or only later than that.
    #[error("{0}")]
    Signer(String),
    #[error("another kind of object than belongs there")]
    Kind,
    #[error("not what was written: {0}")]
    NotAsWritten(&'static str),
    /// Of a run that has just taken another one's place.
    #[error("{change}: the run that it replaces stays")]
    OldStays {
        /// What differs from its seal.
        change: Change,
        /// The run that it replaces.
        old: RunId,
        /// It itself.
        new: RunId,
    },
}

/// The engine's one error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A plain POSIX outcome.
    #[error(transparent)]
    Posix(#[from] Posix),
    /// The store's own error.
    #[error("{operation} {object}: {source}")]
    Store {
        /// What was tried.
        operation: &'static str,
        /// The object's place in the store.
        object: String,
        /// The errno is in here.
        source: io::Error,
    },
    /// Tampered with or damaged.
    #[error("{object}: {damage}")]
    Damaged {
        /// The object's place in the store.
        object: String,
        /// What was found.
        damage: Damage,
    },
    /// Signed by a gateway of this vault, in a version or suite that this program does not know.
    #[error("{object}: {source}")]
    Newer {
        /// The object's place in the store.
        object: String,
        /// Which version or suite.
        source: runvault_format::Error,
    },
    /// Someone else writes this run.
    #[error("run {run} is written by {holder}")]
    Held {
        /// Run id.
        run: String,
        /// What the lease says.
        holder: String,
    },
    /// A run of another gateway, whose key this machine does not hold, whoever writes it now.
    #[error(
        "run {run} is read-only here: gateway {maker} made it, and its key is not in this machine's state folder"
    )]
    NotHeld {
        /// Run id.
        run: String,
        /// The gateway that signed it.
        maker: String,
    },
    /// A run that nobody writes any more.
    #[error("run {run} is sealed: it can be read, and no more")]
    Sealed {
        /// Run id.
        run: String,
    },
    /// A run that another gateway made: its end, and its seal, are that one's to sign, or the seal of one that was
    /// admitted.
    #[error(
        "run {run} was made by gateway {maker}: only that one can remove it; it, or one that was admitted, seals it"
    )]
    NotMaker {
        /// Run id.
        run: String,
        /// The gateway that signed it.
        maker: String,
    },
    /// This machine's chain was ended while it had the vault open.
    #[error("gateway {gateway}, which this machine is, was revoked: a run that it made would be refused")]
    Revoked {
        /// Its id.
        gateway: String,
    },
    /// An earlier write or sync failed; nothing is retried into success.
    #[error("{object}: an earlier write failed; close the file and write it again")]
    Poisoned {
        /// The object's place in the store.
        object: String,
    },
    /// 2^31 chunk writes under one key.
    #[error("{object}: rewritten too often under one key; copy the file")]
    WornOut {
        /// The object's place in the store.
        object: String,
    },
    /// A seal is being made, of this run or another, and there is one at a time.
    #[error("run {run} is being sealed: {done} of {total} bytes are read back")]
    Sealing {
        /// Run id.
        run: String,
        /// Plaintext bytes that are read back.
        done: u64,
        /// And in all; 0 before that is known.
        total: u64,
    },
    /// A seal is in place and counts; what comes after it failed, and the next try goes on with that.
    #[error("run {run} is sealed, but its key is not erased here yet: {source}")]
    Unfinished {
        /// Run id.
        run: String,
        /// What failed.
        source: Box<Error>,
    },
    /// A seal that was not to be gone on with; the run is as it was before.
    #[error("the seal was given up")]
    GivenUp,
    /// No key for this.
    #[error("{0}")]
    WrongKey(String),
    /// The audit log names a run that is to replace this one, and nothing of that is there.
    #[error("nothing is there of the run that is to take the place of run {run}")]
    NotBegun {
        /// The run that is to be replaced.
        run: String,
    },
    /// Found out before anything is written.
    #[error("the store has {free} bytes free, and {needed} are needed")]
    NoRoom {
        /// Bytes that are to be written, at least.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A bug or a refusal of a lower crate.
    #[error(transparent)]
    Format(#[from] runvault_format::error::Error),
    /// Randomness or memory could not be had.
    #[error(transparent)]
    Crypto(#[from] runvault_crypto::error::Error),
    /// The store's directory was deleted while the vault was open: nothing can be made durable there.
    #[error("the store was deleted while it was in use: what was written there since is lost")]
    Deleted,
    /// The vault was shut down.
    #[error("the vault is closed")]
    Closed,
}

/// Shorthand of the crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Wraps a store error.
    pub fn store(operation: &'static str, object: impl Into<String>, source: io::Error) -> Self {
        Error::Store { operation, object: object.into(), source }
    }
    /// The store is full, or a quota or limit is reached: nothing is wrong with the file.
    pub fn is_out_of_space(&self) -> bool {
        let Error::Store { source, .. } = self else { return false };
        matches!(source.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
    }
    /// This machine is short of descriptors or memory, or this user of permission: that says nothing about
    /// the store.
    pub fn is_of_this_machine(&self) -> bool {
        let Error::Store { source, .. } = self else { return false };
        self.is_forbidden()
            || matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
    }
    /// This user may not do it; others of the store's objects may well be open to it.
    pub fn is_forbidden(&self) -> bool {
        let Error::Store { source, .. } = self else { return false };
        matches!(source.raw_os_error(), Some(libc::EACCES | libc::EPERM))
    }
    /// The place in the store of what is damaged.
    pub fn object(&self) -> Option<&str> {
        if let Error::Damaged { object, .. } = self { Some(object) } else { None }
    }
    /// A run that this machine does not hold.
    pub(crate) fn not_held(run: RunId, maker: IdentityId) -> Self {
        Error::NotHeld { run: run.to_string(), maker: maker.to_string() }
    }
    /// Names damage.
    pub fn damaged(object: impl Into<String>, damage: Damage) -> Self {
        Error::Damaged { object: object.into(), damage }
    }
}
