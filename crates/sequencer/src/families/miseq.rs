//! MiSeq and MiSeqDx: HiSeq's layout for one lane, gzipped, with a marker a read.

use crate::family::{BaseCalls, Family, Per, Profile, Thumbnails};
use crate::marker::Marker;

/// MiSeq.
pub static PROFILE: Profile = Profile {
    family: Family::MiSeq,
    name: "miseq",
    instruments: &["M"],
    run_parameters: "runParameters.xml",
    configuration: "RTAConfiguration.xml",
    gzip: true,
    base_calls: BaseCalls::Bcl,
    locations: Per::Tile,
    filters: Per::Tile,
    qualities: &[2, 8, 10, 12, 14, 18, 22, 25, 28, 30, 32, 33, 34, 35, 36, 37, 38],
    interop_by_cycle: false,
    interop: &["CorrectedInt", "Error", "Extraction", "Q", "Tile"],
    thumbnails: Thumbnails { every_tile: 4, cycles: &[], channels: &["a", "c", "g", "t"] },
    cycle_seconds: 300,
    turn_seconds: 3600,
    markers: &[
        Marker::ImageAnalysis,
        Marker::BaseCalling,
        Marker::RtaComplete,
        Marker::CompletedJobInfo,
        Marker::CopyComplete,
        Marker::RunCompletionStatus,
    ],
    last: &[Marker::CopyComplete, Marker::CompletedJobInfo],
};
