//! NovaSeq 6000: a file a lane, surface and cycle. NextSeq 1000 and 2000 write like it.

use crate::family::{BaseCalls, Family, Per, Profile, Thumbnails};
use crate::marker::Marker;

/// NovaSeq 6000.
pub static PROFILE: Profile = Profile {
    family: Family::NovaSeq,
    name: "novaseq",
    instruments: &["A", "VH"],
    run_parameters: "RunParameters.xml",
    configuration: "RTA3.cfg",
    gzip: false,
    base_calls: BaseCalls::Cbcl,
    locations: Per::Run,
    filters: Per::Tile,
    qualities: &[2, 12, 23, 37],
    interop_by_cycle: true,
    interop: &["CorrectedInt", "EmpiricalPhasing", "Extraction", "Q", "Tile"],
    thumbnails: Thumbnails { every_tile: 10, cycles: &[], channels: &["red", "green"] },
    cycle_seconds: 405,
    turn_seconds: 5400,
    markers: &[Marker::RtaComplete, Marker::SequenceComplete, Marker::CopyComplete],
    last: &[Marker::CopyComplete],
};
