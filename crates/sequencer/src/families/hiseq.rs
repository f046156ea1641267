//! HiSeq 2000 to 4000 and X: a file a tile and cycle, hundreds of thousands a run.

use crate::family::{BaseCalls, Family, Per, Profile, Thumbnails};
use crate::marker::Marker;

/// HiSeq.
pub static PROFILE: Profile = Profile {
    family: Family::HiSeq,
    name: "hiseq",
    instruments: &["SN", "D", "C", "J", "K", "ST-K", "E", "ST-E", "HWI-ST", "HWI-D"],
    run_parameters: "runParameters.xml",
    configuration: "RTAConfiguration.xml",
    gzip: false,
    base_calls: BaseCalls::Bcl,
    locations: Per::Tile,
    filters: Per::Tile,
    qualities: &[2, 7, 11, 16, 19, 22, 25, 27, 29, 31, 33, 35, 37, 39, 41],
    interop_by_cycle: false,
    interop: &["CorrectedInt", "Error", "Extraction", "Q", "Tile"],
    thumbnails: Thumbnails { every_tile: 4, cycles: &[], channels: &["a", "c", "g", "t"] },
    cycle_seconds: 900,
    turn_seconds: 9000,
    markers: &[Marker::ImageAnalysis, Marker::BaseCalling, Marker::RtaComplete, Marker::SequencingComplete],
    last: &[Marker::SequencingComplete],
};
