//! The directory that a vault is written to, and all that can go wrong in it.
//! Never knows: keys, plaintext, instrument families, FUSE.

pub mod backend;
