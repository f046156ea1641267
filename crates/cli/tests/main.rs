//! The command line: what it says, asks for, refuses and leaves, by the built program.

mod common;
mod copying;
mod damage;
mod doctor;
mod gateways;
mod given_up;
mod help;
mod install;
mod json;
mod key_files;
mod keys;
mod progress;
mod quorum;
mod recover;
mod resuming;
mod sealed;
mod takeover;
mod terminal;
mod tokens;
mod transcripts;
mod usage;
mod watch;
