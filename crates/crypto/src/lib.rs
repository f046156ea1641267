//! Published primitives under their standard names, and types that keep secrets.
//!
//! Never knows: paths, JSON, labels, the clock, whose key it is. No I/O but getrandom(2) and the
//! memory calls that lock the arena of secrets.

pub mod aead;
pub mod digest;
mod engines;
pub mod envelope;
pub mod error;
pub mod kdf;
pub mod passphrase;
pub mod random;
pub mod registers;
pub mod secrets;
pub mod sharing;
pub mod signature;
pub mod siv;
pub mod to_hardware;
#[cfg(test)]
mod wycheproof;

pub use error::{Error, Result};
