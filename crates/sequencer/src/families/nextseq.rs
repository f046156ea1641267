//! NextSeq 500 and 550: a file a lane and cycle. MiniSeq and iSeq 100 write like it.

use crate::family::{BaseCalls, Family, Per, Profile, Thumbnails};
use crate::marker::Marker;

/// NextSeq 550.
pub static PROFILE: Profile = Profile {
    family: Family::NextSeq,
    name: "nextseq",
    instruments: &["NB", "NS", "NDX", "MN", "FS"],
    run_parameters: "RunParameters.xml",
    configuration: "RTAConfiguration.xml",
    gzip: false,
    base_calls: BaseCalls::Bgzf,
    locations: Per::Lane,
    filters: Per::Lane,
    qualities: &[2, 14, 21, 27, 32, 36],
    interop_by_cycle: false,
    interop: &[
        "CorrectedInt",
        "EmpiricalPhasing",
        "Event",
        "Extraction",
        "PFGrid",
        "Q",
        "Registration",
        "Tile",
    ],
    thumbnails: Thumbnails { every_tile: 6, cycles: &[], channels: &["red", "green"] },
    cycle_seconds: 272,
    turn_seconds: 6833,
    markers: &[Marker::RtaComplete, Marker::RunCompletionStatus, Marker::CopyComplete],
    // The copy service marks the end only in later versions; the control software's status file has always come.
    last: &[Marker::RunCompletionStatus, Marker::CopyComplete],
};
