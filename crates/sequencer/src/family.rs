//! What is known of a family of instruments: one [`Profile`] each, data only.

use std::fmt;

use crate::families;
use crate::marker::Marker;
use crate::run_name::RunName;

/// A family of instruments whose run folders look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// HiSeq 2000, 2500, 4000, X.
    HiSeq,
    /// MiSeq, MiSeqDx.
    MiSeq,
    /// NextSeq 500 and 550; MiniSeq and iSeq write like it.
    NextSeq,
    /// NovaSeq 6000; NextSeq 1000 and 2000 write like it.
    NovaSeq,
    /// NovaSeq X.
    NovaSeqX,
}

/// How base calls are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseCalls {
    /// A file a tile and cycle, plain (`.bcl`) or in gzip (`.bcl.gz`).
    Bcl,
    /// A file a lane and cycle in blocks of gzip, with an index: `.bcl.bgzf`, `.bcl.bgzf.bci`.
    Bgzf,
    /// A file a lane, surface and cycle: `.cbcl`.
    Cbcl,
}

/// How many files of a kind there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// One a tile.
    Tile,
    /// One a lane.
    Lane,
    /// One a run.
    Run,
}

/// Which images are kept, of every cycle in `cycles` (all, where empty).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thumbnails {
    /// Every n-th tile of a lane.
    pub every_tile: usize,
    /// The cycles; empty for all.
    pub cycles: &'static [u32],
    /// Names of the channels, as in the file's name.
    pub channels: &'static [&'static str],
}

/// The habits of a family.
#[derive(Debug)]
pub struct Profile {
    /// Which family.
    pub family: Family,
    /// Its name on a command line.
    pub name: &'static str,
    /// What instruments' serial numbers start with, in capitals; the longest match decides.
    pub instruments: &'static [&'static str],
    /// `RunParameters.xml` or `runParameters.xml`.
    pub run_parameters: &'static str,
    /// The base caller's configuration.
    pub configuration: &'static str,
    /// Of files a tile and cycle: `.bcl.gz` instead of `.bcl`.
    pub gzip: bool,
    /// How base calls are stored.
    pub base_calls: BaseCalls,
    /// How cluster positions are stored.
    pub locations: Per,
    /// How filter decisions are stored.
    pub filters: Per,
    /// Quality scores that occur, ascending. A CBCL's bins are these; its bin 0 with base A is a no-call.
    pub qualities: &'static [u8],
    /// Files `InterOp/C<cycle>.1/` beside those that grow.
    pub interop_by_cycle: bool,
    /// Files of InterOp/, without `MetricsOut.bin`.
    pub interop: &'static [&'static str],
    /// Images.
    pub thumbnails: Thumbnails,
    /// A cycle, in seconds.
    pub cycle_seconds: u64,
    /// The silence between reads, in seconds.
    pub turn_seconds: u64,
    /// Markers in the order of their appearance, without those of single reads.
    pub markers: &'static [Marker],
    /// Any of these says that the transfer has ended.
    pub last: &'static [Marker],
}

/// All families.
pub const FAMILIES: [Family; 5] =
    [Family::HiSeq, Family::MiSeq, Family::NextSeq, Family::NovaSeq, Family::NovaSeqX];

impl Family {
    /// What is known of it.
    #[must_use]
    pub fn profile(self) -> &'static Profile {
        match self {
            Self::HiSeq => &families::hiseq::PROFILE,
            Self::MiSeq => &families::miseq::PROFILE,
            Self::NextSeq => &families::nextseq::PROFILE,
            Self::NovaSeq => &families::novaseq::PROFILE,
            Self::NovaSeqX => &families::novaseq_x::PROFILE,
        }
    }

    /// The family that a command line names, such as `novaseq-x`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        FAMILIES.into_iter().find(|family| family.profile().name == name)
    }

    /// The family of a run folder, by its instrument's serial number.
    #[must_use]
    pub fn of_run(name: &RunName<'_>) -> Option<Self> {
        let instrument = name.instrument.to_ascii_uppercase();
        let prefixes = FAMILIES
            .iter()
            .flat_map(|family| family.profile().instruments.iter().map(|prefix| (*family, *prefix)));
        prefixes
            .filter(|(_, prefix)| starts_serial(&instrument, prefix))
            .max_by_key(|(_, prefix)| prefix.len())
            .map(|(family, _)| family)
    }
}

/// A prefix counts only where digits follow: `M` is a MiSeq's, `MN` is not.
fn starts_serial(instrument: &str, prefix: &str) -> bool {
    instrument.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.profile().name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_real_runs_are_told_apart() {
        for (name, family) in [
            ("140923_SN7001179_0208_BC59Y4ACXX", Some(Family::HiSeq)),
            ("190115_ST-E00269_0332_AHWNK2CCXY", Some(Family::HiSeq)),
            ("130417_M00146_0021_000000000-A2WDF", Some(Family::MiSeq)),
            ("170609_NB551051_0017_AHLFFJBGX2", Some(Family::NextSeq)),
            ("180101_MN00123_0001_A000H2GXX", Some(Family::NextSeq)),
            ("180101_FS10000123_1_BNT40321-1125", Some(Family::NextSeq)),
            ("230912_A00187_1009_AHK33MDRX3", Some(Family::NovaSeq)),
            ("210301_VH00123_1_AAAC7WMM5", Some(Family::NovaSeq)),
            ("20240531_LH00130_0061_A22CC55LT4", Some(Family::NovaSeqX)),
            ("20241111_SH00016_0114_ASC2060969-SC3", None),
        ] {
            let run = RunName::parse(name).expect(name);
            assert_eq!(Family::of_run(&run), family, "{name}");
        }
    }

    #[test]
    fn profiles_are_whole() {
        for family in FAMILIES {
            let profile = family.profile();
            assert_eq!(profile.family, family);
            assert_eq!(Family::named(profile.name), Some(family));
            assert!(profile.qualities.is_sorted() && profile.qualities.len() >= 2);
            assert!(profile.last.iter().all(|last| profile.markers.contains(last)), "{family}");
        }
    }
}
