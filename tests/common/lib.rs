//! What whole-program tests share: a throw-away vault, its mount, and the programs of others.
//!
//! Everything is cleaned up by its id when it is dropped, also when a test fails.

pub mod analysis;
pub mod image;
pub mod keeper;
pub mod making;
pub mod model;
pub mod programs;
pub mod random;
pub mod rsync;
pub mod sharing;
pub mod site;
pub mod snapshot;
pub mod swtpm;
pub mod tailing;
pub mod tools;
pub mod traced;
pub mod watched;

pub use random::Random;
pub use site::{Mount, MountBuilder, Site};
pub use swtpm::SwTpm;
