//! Bytes to types and back, from outside: properties, mutations, the vectors.

mod common;
mod custody;
mod key_files;
mod manifest;
mod mutations;
mod vectors;
