//! Models that do not write as their family's profile says: the same layout, but other endings, positions or markers.

use crate::family::{Family, Per};
use crate::marker::Marker;
use crate::spec::{RunSpec, Size};

/// A model, and the ways of its own.
#[derive(Debug)]
pub struct Model {
    /// What people call it.
    pub name: &'static str,
    /// Whose layout it writes.
    pub family: Family,
    /// A run folder of it.
    pub run: &'static str,
    /// The lanes of its smallest flow cell.
    pub lanes: u32,
    /// `.bcl.gz` instead of `.bcl`.
    pub gzip: bool,
    /// How cluster positions are stored.
    pub locations: Per,
    /// Markers in the order of their appearance, without those of single reads.
    pub markers: &'static [Marker],
}

const NETCOPY_AND_RTA: [Marker; 3] = [Marker::ImageAnalysis, Marker::BaseCalling, Marker::RtaComplete];

/// All that are known.
pub static MODELS: [Model; 6] = [
    // Nothing comes after RTAComplete.txt.
    Model {
        name: "HiSeq 2500",
        family: Family::HiSeq,
        run: "140923_SN7001179_0208_BC59RVTEST",
        lanes: 1,
        gzip: true,
        locations: Per::Tile,
        markers: &NETCOPY_AND_RTA,
    },
    Model {
        name: "HiSeq X",
        family: Family::HiSeq,
        run: "190115_ST-E00269_0332_AHWNRVTEST",
        lanes: 2,
        gzip: true,
        locations: Per::Run,
        markers: &[Marker::RtaComplete, Marker::SequencingComplete],
    },
    // Of before the copy service.
    Model {
        name: "MiSeq",
        family: Family::MiSeq,
        run: "130417_M00146_0021_000000000-RVTST",
        lanes: 1,
        gzip: false,
        locations: Per::Tile,
        markers: &[Marker::ImageAnalysis, Marker::BaseCalling, Marker::RtaComplete, Marker::CompletedJobInfo],
    },
    Model {
        name: "MiniSeq",
        family: Family::NextSeq,
        run: "180101_MN00123_0001_A000RVTEST",
        lanes: 1,
        gzip: false,
        locations: Per::Lane,
        markers: &COPY_BEFORE_STATUS,
    },
    Model {
        name: "iSeq 100",
        family: Family::NextSeq,
        run: "20180101_FS10000123_1_RVT40321-1125",
        lanes: 1,
        gzip: false,
        locations: Per::Run,
        markers: &COPY_BEFORE_STATUS,
    },
    Model {
        name: "NextSeq 2000",
        family: Family::NovaSeq,
        run: "210301_VH00123_1_AAACRVTM5",
        lanes: 1,
        gzip: false,
        locations: Per::Run,
        markers: &[Marker::RtaComplete, Marker::RunCompletionStatus, Marker::CopyComplete],
    },
];

const COPY_BEFORE_STATUS: [Marker; 3] =
    [Marker::RtaComplete, Marker::CopyComplete, Marker::RunCompletionStatus];

impl Model {
    /// A run of it, of its family's size.
    #[must_use]
    pub fn preset(&self, size: Size) -> RunSpec {
        RunSpec {
            name: self.run.into(),
            lanes: self.lanes,
            gzip: self.gzip,
            locations: self.locations,
            markers: self.markers,
            ..RunSpec::preset(self.family, size)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_name::RunName;

    #[test]
    fn models_are_told_by_their_run_folders() {
        for model in &MODELS {
            let spec = model.preset(Size::Tiny);
            spec.validate().unwrap();
            assert_eq!(Family::of_run(&RunName::parse(model.run).unwrap()), Some(model.family), "{model:?}");
            assert_ne!(spec, RunSpec { name: model.run.into(), ..RunSpec::preset(model.family, Size::Tiny) });
        }
    }
}
