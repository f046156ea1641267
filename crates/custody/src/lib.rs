//! Who may do what, and the signed trail: identities and their locks, the chain of custody,
//! epochs, gateways.
//!
//! Never knows: chunks, mounts, file contents, how a question reaches a person.

pub mod authority;
pub mod chain;
pub mod clock;
pub mod error;
pub mod gateway;
pub mod identity;
pub mod init;
pub mod key_files;
pub mod kinds;
pub mod locks;
pub mod pins;
pub mod rotate;

pub use error::{Error, Result};
