//! Bytes to types and back: what docs/format.md says, section by section.
//!
//! No I/O, no clock, no randomness but what is passed in. Everything that is parsed is taken for
//! hostile: bounded before it is allocated, refused by name, never a panic.

pub mod approval_file;
pub mod audit_entry;
pub mod chunk;
pub mod confirmation;
pub mod continuations;
pub mod custody_copy;
pub mod custody_state;
pub mod descriptor;
pub mod digests;
pub mod envelope_file;
pub mod error;
pub mod genesis;
pub mod hardware;
pub mod header;
pub mod ids;
pub mod info;
mod json;
pub mod kek;
pub mod kept;
pub mod key_file;
pub mod keys;
pub mod labels;
pub mod lease;
pub mod ledger;
pub mod manifest;
pub mod manifest_record;
pub mod name;
pub mod note;
pub mod operation;
pub mod pins;
pub mod public_key;
pub mod read_back;
mod reader;
pub mod redo_record;
pub mod removed;
pub mod replacement;
pub mod request;
pub mod resume;
pub mod retired;
pub mod run_index;
pub mod seal_note;
pub mod share;
pub mod size;
pub mod state_slot;
mod stored_name;
pub mod time;
pub mod vault_file;
pub mod words;

pub use error::{Error, Result};
