//! The engine: vault, run, directory, file; read, write, truncate, recover.
//!
//! Never knows: FUSE, quorum, instrument families, terminals.

pub mod api;
pub mod authority;
pub mod error;
pub mod file;
mod journal;
pub mod record;
pub mod recovery;
pub mod vault;

pub use error::{Damage, Error, Posix, Result};
pub use vault::{Options, Status, Vault};
