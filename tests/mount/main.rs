//! What POSIX programs do, on a real mount.

mod bad_input;
mod model;
mod plaintext;
mod posix;
mod signals;
