//! Where each file of a run folder lies, both ways: from what it is to its path, and back.
//!
//! Paths are relative to the run folder, with `/`.

use crate::family::{BaseCalls, Family, Per};
use crate::marker::Marker;
use crate::spec::RunSpec;

/// What a file of a run folder is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum File {
    /// Base calls of one cycle: of a tile (BCL), a lane (`part` 0) or a surface (CBCL).
    BaseCalls {
        /// Lane.
        lane: u32,
        /// Tile or surface; 0 where the file is the lane's.
        part: u32,
        /// Cycle, from 1.
        cycle: u32,
    },
    /// `<cycle>.bcl.bgzf.bci`: where each tile begins in that file.
    BaseCallIndex {
        /// Lane.
        lane: u32,
        /// Cycle, from 1.
        cycle: u32,
    },
    /// `s_<lane>.bci`: tiles of a lane and their clusters.
    TileIndex {
        /// Lane.
        lane: u32,
    },
    /// Which clusters pass the filter.
    Filter {
        /// Lane.
        lane: u32,
        /// Tile; 0 where the file is the lane's.
        tile: u32,
    },
    /// Where clusters lie.
    Locations {
        /// Lane; 0 where the file is the run's.
        lane: u32,
        /// Tile; 0 where the file is the lane's or the run's.
        tile: u32,
    },
    /// `InterOp/<metric>MetricsOut.bin`.
    Metric {
        /// Its name, without `MetricsOut.bin`.
        metric: String,
        /// The cycle whose directory it lies in; `None` for the one that grows.
        cycle: Option<u32>,
    },
    /// A small picture of a tile.
    Thumbnail {
        /// Lane.
        lane: u32,
        /// Tile.
        tile: u32,
        /// Cycle, from 1.
        cycle: u32,
        /// Channel.
        channel: String,
    },
    /// RunInfo.xml.
    RunInfo,
    /// SampleSheet.csv.
    SampleSheet,
    /// A marker.
    Marker(Marker),
    /// Another text file: parameters, configuration, recipe, logs.
    Text(String),
}

/// Path of a file of such a run.
#[must_use]
pub fn path_of(spec: &RunSpec, file: &File) -> String {
    match file {
        File::BaseCalls { lane, part, cycle } => base_calls(spec, *lane, *part, *cycle),
        File::BaseCallIndex { lane, cycle } => format!("{}/{cycle:04}.bcl.bgzf.bci", calls_of(*lane)),
        File::TileIndex { lane } => format!("{}/s_{lane}.bci", calls_of(*lane)),
        File::Filter { lane, tile: 0 } => format!("{}/s_{lane}.filter", calls_of(*lane)),
        File::Filter { lane, tile } => format!("{}/s_{lane}_{tile}.filter", calls_of(*lane)),
        File::Locations { lane: 0, .. } => format!("{INTENSITIES}/s.locs"),
        File::Locations { lane, tile: 0 } => format!("{INTENSITIES}/L{lane:03}/s_{lane}.locs"),
        File::Locations { lane, tile } => format!("{INTENSITIES}/L{lane:03}/s_{lane}_{tile}.locs"),
        File::Metric { metric, cycle: None } => format!("InterOp/{metric}MetricsOut.bin"),
        File::Metric { metric, cycle: Some(cycle) } => format!("InterOp/C{cycle}.1/{metric}MetricsOut.bin"),
        File::Thumbnail { lane, tile, cycle, channel } => {
            format!("Thumbnail_Images/L{lane:03}/C{cycle}.1/s_{lane}_{tile}_{channel}.jpg")
        }
        File::RunInfo => "RunInfo.xml".into(),
        File::SampleSheet => "SampleSheet.csv".into(),
        File::Marker(marker) => marker.file_name(),
        File::Text(path) => path.clone(),
    }
}

/// What the file at a path of such a run is; `None` for a path that the family does not have.
#[must_use]
pub fn file_at(family: Family, path: &str) -> Option<File> {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["Data", "Intensities", "BaseCalls", lane, rest @ ..] => in_lane(family, lane_of(lane)?, rest),
        ["Data", "Intensities", "s.locs"] => Some(File::Locations { lane: 0, tile: 0 }),
        ["Data", "Intensities", lane, name] => {
            let (named, tile) = lane_and_tile(name.strip_suffix(".locs")?)?;
            (named == lane_of(lane)?).then_some(File::Locations { lane: named, tile })
        }
        ["InterOp", name] => metric(name, None),
        ["InterOp", cycle, name] => metric(name, Some(cycle_of(cycle)?)),
        ["Thumbnail_Images", _, cycle, name] => thumbnail(cycle_of(cycle)?, name),
        ["RunInfo.xml"] => Some(File::RunInfo),
        ["SampleSheet.csv"] => Some(File::SampleSheet),
        [name] if Marker::of_name(name).is_some() => Marker::of_name(name).map(File::Marker),
        _ => Some(File::Text(path.into())),
    }
}

/// Every file that one cycle's base calls are in.
#[must_use]
pub fn base_call_files(spec: &RunSpec, cycle: u32) -> Vec<File> {
    let mut files = Vec::new();
    for lane in 1..=spec.lanes {
        let calls = |part| File::BaseCalls { lane, part, cycle };
        match spec.family.profile().base_calls {
            BaseCalls::Bcl => files.extend(spec.tiles_of_lane(lane).into_iter().map(calls)),
            BaseCalls::Bgzf => files.extend([File::BaseCallIndex { lane, cycle }, calls(0)]),
            BaseCalls::Cbcl => files.extend((1..=spec.surfaces).map(calls)),
        }
    }
    files
}

/// Every file of cluster positions.
#[must_use]
pub fn location_files(spec: &RunSpec) -> Vec<File> {
    match spec.locations {
        Per::Run => vec![File::Locations { lane: 0, tile: 0 }],
        Per::Lane => (1..=spec.lanes).map(|lane| File::Locations { lane, tile: 0 }).collect(),
        Per::Tile => {
            spec.tile_list().into_iter().map(|(lane, tile)| File::Locations { lane, tile }).collect()
        }
    }
}

/// Every file of filter decisions.
#[must_use]
pub fn filter_files(spec: &RunSpec) -> Vec<File> {
    match spec.family.profile().filters {
        Per::Tile => spec.tile_list().into_iter().map(|(lane, tile)| File::Filter { lane, tile }).collect(),
        Per::Lane | Per::Run => (1..=spec.lanes).map(|lane| File::Filter { lane, tile: 0 }).collect(),
    }
}

const INTENSITIES: &str = "Data/Intensities";

fn calls_of(lane: u32) -> String {
    format!("{INTENSITIES}/BaseCalls/L{lane:03}")
}

fn base_calls(spec: &RunSpec, lane: u32, part: u32, cycle: u32) -> String {
    let lane_dir = calls_of(lane);
    match spec.family.profile().base_calls {
        BaseCalls::Bcl => {
            let end = if spec.gzip { ".gz" } else { "" };
            format!("{lane_dir}/C{cycle}.1/s_{lane}_{part}.bcl{end}")
        }
        BaseCalls::Bgzf => format!("{lane_dir}/{cycle:04}.bcl.bgzf"),
        BaseCalls::Cbcl => format!("{lane_dir}/C{cycle}.1/L{lane:03}_{part}.cbcl"),
    }
}

fn in_lane(family: Family, lane: u32, rest: &[&str]) -> Option<File> {
    let file = match (family.profile().base_calls, rest) {
        // Plain or in gzip: models of a family differ, and software versions of a model.
        (BaseCalls::Bcl, [cycle, name]) => {
            let stem = name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".bcl")?;
            File::BaseCalls { lane, part: lane_and_tile(stem)?.1, cycle: cycle_of(cycle)? }
        }
        (BaseCalls::Cbcl, [cycle, name]) => {
            let (named, surface) = name.strip_suffix(".cbcl")?.split_once('_')?;
            (lane_of(named)? == lane).then_some(())?;
            File::BaseCalls { lane, part: surface.parse().ok()?, cycle: cycle_of(cycle)? }
        }
        (_, [name]) => lone_file(family, lane, name)?,
        _ => return None,
    };
    Some(file)
}

fn lone_file(family: Family, lane: u32, name: &str) -> Option<File> {
    if let Some(stem) = name.strip_suffix(".filter") {
        return Some(File::Filter { lane, tile: lane_and_tile(stem)?.1 });
    }
    if family.profile().base_calls != BaseCalls::Bgzf {
        return None;
    }
    if let Some(cycle) = name.strip_suffix(".bcl.bgzf.bci") {
        return Some(File::BaseCallIndex { lane, cycle: cycle.parse().ok()? });
    }
    if let Some(cycle) = name.strip_suffix(".bcl.bgzf") {
        return Some(File::BaseCalls { lane, part: 0, cycle: cycle.parse().ok()? });
    }
    let stem = name.strip_suffix(".bci")?;
    (lane_and_tile(stem)? == (lane, 0)).then_some(File::TileIndex { lane })
}

/// `L001`.
fn lane_of(name: &str) -> Option<u32> {
    name.strip_prefix('L')?.parse().ok()
}

/// `C12.1`.
fn cycle_of(name: &str) -> Option<u32> {
    name.strip_prefix('C')?.strip_suffix(".1")?.parse().ok()
}

/// `s_1` or `s_1_1101`.
fn lane_and_tile(stem: &str) -> Option<(u32, u32)> {
    let rest = stem.strip_prefix("s_")?;
    let (lane, tile) = rest.split_once('_').unwrap_or((rest, "0"));
    Some((lane.parse().ok()?, tile.parse().ok()?))
}

fn metric(name: &str, cycle: Option<u32>) -> Option<File> {
    let metric = name.strip_suffix("MetricsOut.bin")?;
    (!metric.is_empty()).then(|| File::Metric { metric: metric.into(), cycle })
}

fn thumbnail(cycle: u32, name: &str) -> Option<File> {
    let (place, channel) = name.strip_suffix(".jpg")?.rsplit_once('_')?;
    let (lane, tile) = lane_and_tile(place)?;
    Some(File::Thumbnail { lane, tile, cycle, channel: channel.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::FAMILIES;
    use crate::spec::Size;

    fn tiny(family: Family) -> RunSpec {
        RunSpec::preset(family, Size::Tiny)
    }

    #[test]
    fn real_paths() {
        let path_of = |family, file| path_of(&tiny(family), file);
        let calls = File::BaseCalls { lane: 1, part: 1101, cycle: 12 };
        assert_eq!(path_of(Family::HiSeq, &calls), "Data/Intensities/BaseCalls/L001/C12.1/s_1_1101.bcl");
        assert_eq!(path_of(Family::MiSeq, &calls), "Data/Intensities/BaseCalls/L001/C12.1/s_1_1101.bcl.gz");
        let calls = File::BaseCalls { lane: 3, part: 0, cycle: 157 };
        assert_eq!(path_of(Family::NextSeq, &calls), "Data/Intensities/BaseCalls/L003/0157.bcl.bgzf");
        let calls = File::BaseCalls { lane: 2, part: 1, cycle: 318 };
        assert_eq!(path_of(Family::NovaSeqX, &calls), "Data/Intensities/BaseCalls/L002/C318.1/L002_1.cbcl");
        let locs = File::Locations { lane: 4, tile: 0 };
        assert_eq!(path_of(Family::NextSeq, &locs), "Data/Intensities/L004/s_4.locs");
    }

    #[test]
    fn paths_say_what_they_are() {
        for family in FAMILIES {
            let spec = tiny(family);
            let mut files = base_call_files(&spec, 7);
            files.extend(location_files(&spec));
            files.extend(filter_files(&spec));
            files.extend([
                File::Metric { metric: "Q".into(), cycle: None },
                File::Metric { metric: "Q".into(), cycle: Some(9) },
                File::Thumbnail { lane: 1, tile: 1101, cycle: 3, channel: "red".into() },
                File::RunInfo,
                File::SampleSheet,
                File::Marker(Marker::RtaComplete),
                File::Text("Logs/a.log".into()),
            ]);
            if family == Family::NextSeq {
                files.push(File::TileIndex { lane: 2 });
            }
            for file in files {
                for gzip in [false, true] {
                    let spec = RunSpec { gzip, ..spec.clone() };
                    assert_eq!(file_at(family, &path_of(&spec, &file)).as_ref(), Some(&file));
                }
            }
        }
    }

    #[test]
    fn paths_of_other_families_are_none() {
        for path in [
            "Data/Intensities/BaseCalls/L001/0001.bcl.bgzf",
            "Data/Intensities/BaseCalls/L001/C1.1/L001_1.cbcl",
            "Data/Intensities/BaseCalls/L001/C1.1/s_1_1101.bcl.zst",
            "Data/Intensities/BaseCalls/L001",
            "InterOp/notes.txt",
        ] {
            assert_eq!(file_at(Family::HiSeq, path), None, "{path}");
        }
        assert_eq!(file_at(Family::NovaSeq, "Data/Intensities/BaseCalls/L001/C1.1/L002_1.cbcl"), None);
    }
}
