//! NovaSeq X: NovaSeq's layout, few images, and an Analysis folder that fills for hours after the end.

use crate::family::{BaseCalls, Family, Per, Profile, Thumbnails};
use crate::marker::Marker;

/// NovaSeq X.
pub static PROFILE: Profile = Profile {
    family: Family::NovaSeqX,
    name: "novaseq-x",
    instruments: &["LH"],
    run_parameters: "RunParameters.xml",
    configuration: "RTA.cfg",
    gzip: false,
    base_calls: BaseCalls::Cbcl,
    locations: Per::Run,
    filters: Per::Tile,
    qualities: &[2, 9, 24, 40],
    interop_by_cycle: true,
    interop: &["CorrectedInt", "EmpiricalPhasing", "Extraction", "Q", "Tile"],
    thumbnails: Thumbnails { every_tile: 10, cycles: &[1, 50, 100, 151], channels: &["blue", "green"] },
    cycle_seconds: 450,
    turn_seconds: 5400,
    markers: &[Marker::RtaComplete, Marker::RunCompletionStatus, Marker::CopyComplete],
    last: &[Marker::CopyComplete],
};
