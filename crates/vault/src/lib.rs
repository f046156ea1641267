//! The engine: vault, run, directory, file; read, write, truncate, recover.
//!
//! Never knows: FUSE, quorum, instrument families, terminals.

pub mod api;
mod attributes;
pub mod authority;
pub mod buffers;
pub mod check;
mod create;
mod directory;
mod durable;
pub mod error;
pub mod file;
mod files;
mod handles;
pub mod held;
mod helpers;
mod journal;
mod lease;
mod ledger;
mod links;
mod listing;
mod locks;
mod lookup;
mod node_map;
mod nodes;
mod noted_names;
mod opening;
mod outcome;
mod own_names;
pub mod pace;
mod read_ahead;
pub mod record;
pub mod recovery;
mod redos;
mod remove;
mod rename;
mod run;
pub mod run_facts;
mod run_life;
mod run_name;
mod run_table;
pub mod runs;
pub mod seal;
mod sealed;
mod stamp;
mod sys;
pub mod takeover;
mod union;
pub mod vault;
mod view;
mod xattr;

pub use check::{CheckEvent, CheckSummary, Unproven};
pub use error::{Damage, Error, Posix, Result};
pub use runvault_crypto::registers;
pub use sys::is_on_its_way_out;
pub use vault::{Options, RunStatus, Status, Vault};
