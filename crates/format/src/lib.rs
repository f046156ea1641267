//! Bytes to types and back: what docs/format.md says, section by section.
//!
//! No I/O, no clock, no randomness but what is passed in. Everything that is parsed is taken for
//! hostile: bounded before it is allocated, refused by name, never a panic.

pub mod chunk;
pub mod error;
pub mod header;
pub mod ids;
pub mod keys;
pub mod labels;
pub mod name;
mod reader;
pub mod redo_record;
pub mod size;
pub mod state_slot;

pub use error::{Error, Result};
