//! The directory that a vault is written to, and all that can go wrong in it.
//! Never knows: keys, plaintext, instrument families, FUSE.
//!
//! The error of this crate is [`std::io::Error`] with an errno: callers know the object's place.

pub mod apart;
pub mod backend;
#[cfg(any(test, feature = "doubles"))]
pub mod doubles;
pub mod guarded;
pub mod journal_files;
pub mod names;
pub mod posix;
pub mod read_whole;
pub mod replace;
