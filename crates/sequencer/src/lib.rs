//! Instrument makers' habits as data, and a replayer that writes run folders as instruments do.
//!
//! Names, times and markers only: nothing here knows keys, ciphertext or FUSE. [`family`] says how the folders
//! of a family look, [`models`] which instruments do otherwise, [`completion`] when one is finished, [`synthetic`] makes valid base calls whose FASTQ is
//! known, [`replay`] writes a whole run folder into any directory, in the ways that instruments and the services
//! beside them write.

pub mod completeness;
pub mod completion;
pub mod copy_log;
pub mod error;
pub mod families;
pub mod family;
pub mod layout;
pub mod marker;
pub mod models;
pub mod random;
pub mod replay;
pub mod run_info;
pub mod run_name;
pub mod schedule;
pub mod spec;
pub mod synthetic;

pub use error::{Error, Result};
pub use family::Family;
pub use replay::{Event, Mode, Replay};
pub use run_info::RunInfo;
pub use spec::{Read, RunSpec, Size};
pub use synthetic::fastq::expected_fastq;
