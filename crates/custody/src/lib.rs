//! Who may do what, and the signed trail: identities and their locks, the chain of custody,
//! epochs, gateways.
//!
//! Never knows: chunks, mounts, file contents, how a question reaches a person.

pub mod apart;
pub mod authority;
pub mod behind;
pub mod chain;
pub mod chains;
pub mod checked;
mod claim;
pub mod clock;
mod commit;
pub mod confirm;
pub mod ends;
pub mod enroll;
mod epochs;
pub mod error;
mod execute;
pub mod exposure;
pub mod faults;
pub mod follow;
pub mod gateway;
pub mod gateways;
mod held_keys;
pub mod identity;
pub mod init;
pub mod kek_home;
pub mod key_files;
pub mod kinds;
mod layout;
pub mod locks;
mod next_state;
pub mod pins;
pub mod public_file;
pub mod quorum;
#[cfg(test)]
mod races;
pub mod recover;
pub mod rekey;
pub mod relock;
mod resume_entries;
pub mod retired;
pub mod rotate;
mod run_index;
mod sealed_names;
pub mod seen;
mod settle;
mod state_folder;
#[cfg(test)]
mod testing;
pub mod token;
mod tpm2_tools;
mod tpm_sealed;
pub mod unfinished;

pub use error::{Error, Result};
