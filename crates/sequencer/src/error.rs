//! What can go wrong, and with which object.

use std::io;
use std::path::{Path, PathBuf};

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call to the file system failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A RunInfo.xml is not one.
    #[error("RunInfo.xml: {0}")]
    RunInfo(String),
    /// A copy log is not one.
    #[error("copy log, line {line}: {what}")]
    CopyLog {
        /// Line, counted from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A run specification that no instrument of the family could have.
    #[error("run specification: {0}")]
    Spec(String),
    /// A file of a run has no synthetic content.
    #[error("{0}: not a file of such a run")]
    UnknownFile(String),
    /// A reader saw bytes that were never written.
    #[error("{path}: at byte {offset} a reader saw what was never written")]
    Garbage {
        /// The file that was read.
        path: PathBuf,
        /// Offset of the first wrong byte.
        offset: usize,
    },
    /// The caller wanted no more of it.
    #[error("stopped before all was written")]
    Stopped,
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
