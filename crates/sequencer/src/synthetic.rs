//! Valid content for every file of a run, from a seed: so that its FASTQ is known before anything reads it.

pub mod bases;
pub mod bcl;
pub mod bgzf;
pub mod cbcl;
pub mod fastq;
pub mod filter;
pub mod interop;
pub mod locs;
pub mod text;
pub mod thumbnail;

use crate::family::{BaseCalls, Per};
use crate::layout::File;
use crate::spec::RunSpec;
use crate::{Error, Result};

/// The cycle at whose end the filter decides; from the next one on, a CBCL leaves out what did not pass.
pub const FILTER_CYCLE: u32 = 25;

/// Whole content of a file. Of one that grows: its content after the run's last cycle.
///
/// # Errors
/// [`Error::UnknownFile`] for a lane, tile, cycle or metric that the run does not have.
pub fn content(spec: &RunSpec, file: &File) -> Result<Vec<u8>> {
    content_after(spec, file, spec.cycles())
}

/// Content of a file after a cycle. Only files that [`grow`](grows) or are replaced depend on the cycle.
///
/// # Errors
/// As [`content`].
pub fn content_after(spec: &RunSpec, file: &File, after: u32) -> Result<Vec<u8>> {
    let known = Known { spec, file };
    match file {
        File::BaseCalls { lane, part, cycle } => base_calls(&known, *lane, *part, *cycle),
        File::BaseCallIndex { lane, cycle } => {
            known.lane_and_cycle(*lane, *cycle)?;
            Ok(bgzf::base_calls(spec, *lane, *cycle).1)
        }
        File::TileIndex { lane } => {
            known.lane_and_cycle(*lane, 1)?;
            Ok(bgzf::tile_index(spec, *lane))
        }
        File::Filter { lane, tile } => Ok(filter::encode(&per_tile(&known, *lane, *tile, bases::passes)?)),
        File::Locations { lane: 0, tile: 0 } if spec.locations == Per::Run => {
            Ok(locs::encode(&bases::positions(spec, 0, 0)))
        }
        File::Locations { lane, tile } => {
            Ok(locs::encode(&per_tile(&known, *lane, *tile, bases::positions)?))
        }
        File::Metric { metric, cycle: Some(cycle) } => {
            known.lane_and_cycle(1, *cycle)?;
            let mut bytes = interop::header(spec, metric);
            bytes.extend(interop::records(spec, metric, *cycle));
            Ok(bytes)
        }
        File::Metric { cycle: None, .. } => grown(spec, file, after),
        File::Thumbnail { lane, tile, cycle, channel } => {
            known.lane_and_cycle(*lane, *cycle)?;
            Ok(thumbnail::encode(spec, *lane, *tile, *cycle, channel))
        }
        File::RunInfo => Ok(spec.run_info().to_xml().into_bytes()),
        File::SampleSheet => Ok(text::sample_sheet(spec).into_bytes()),
        File::Marker(marker) => Ok(text::marker(spec, *marker).into_bytes()),
        File::Text(_) if grows(file) => grown(spec, file, after),
        File::Text(path) => Ok(text::other(spec, path, after).into_bytes()),
    }
}

/// Whether a file grows over the run: what it holds after a cycle begins with what it held before.
#[must_use]
pub fn grows(file: &File) -> bool {
    match file {
        File::Metric { cycle, .. } => cycle.is_none(),
        File::Text(path) => text::is_log(path),
        _ => false,
    }
}

/// What a file that [`grows`] gains in a cycle; its head comes with cycle 1.
#[must_use]
pub fn gain(spec: &RunSpec, file: &File, cycle: u32) -> Vec<u8> {
    match file {
        File::Metric { metric, .. } => {
            let mut bytes = if cycle == 1 { interop::header(spec, metric) } else { Vec::new() };
            bytes.extend(interop::records(spec, metric, cycle));
            bytes
        }
        File::Text(path) => text::log_lines(spec, path, cycle).into_bytes(),
        _ => Vec::new(),
    }
}

fn grown(spec: &RunSpec, file: &File, after: u32) -> Result<Vec<u8>> {
    Ok((1..=after).flat_map(|cycle| gain(spec, file, cycle)).collect())
}

fn base_calls(known: &Known<'_>, lane: u32, part: u32, cycle: u32) -> Result<Vec<u8>> {
    known.lane_and_cycle(lane, cycle)?;
    let spec = known.spec;
    match spec.family.profile().base_calls {
        BaseCalls::Bcl => {
            known.tile(lane, part)?;
            let plain = bcl::encode(&bases::calls(spec, lane, part, cycle));
            Ok(if spec.gzip { bgzf::gzip(&plain) } else { plain })
        }
        BaseCalls::Bgzf => Ok(bgzf::base_calls(spec, lane, cycle).0),
        BaseCalls::Cbcl if (1..=spec.surfaces).contains(&part) => {
            Ok(cbcl::base_calls(spec, lane, part, cycle))
        }
        BaseCalls::Cbcl => Err(known.unknown()),
    }
}

/// What one tile gives, or all tiles of the lane one after the other (`tile` 0).
fn per_tile<T>(
    known: &Known<'_>,
    lane: u32,
    tile: u32,
    of_tile: impl Fn(&RunSpec, u32, u32) -> Vec<T>,
) -> Result<Vec<T>> {
    known.lane_and_cycle(lane, 1)?;
    if tile != 0 {
        known.tile(lane, tile)?;
        return Ok(of_tile(known.spec, lane, tile));
    }
    Ok(known.spec.tiles_of_lane(lane).into_iter().flat_map(|tile| of_tile(known.spec, lane, tile)).collect())
}

/// A file, and the run that must have it.
struct Known<'a> {
    spec: &'a RunSpec,
    file: &'a File,
}

impl Known<'_> {
    fn lane_and_cycle(&self, lane: u32, cycle: u32) -> Result<()> {
        let there = (1..=self.spec.lanes).contains(&lane) && (1..=self.spec.cycles()).contains(&cycle);
        if there { Ok(()) } else { Err(self.unknown()) }
    }

    fn tile(&self, lane: u32, tile: u32) -> Result<()> {
        if self.spec.tiles_of_lane(lane).contains(&tile) { Ok(()) } else { Err(self.unknown()) }
    }

    fn unknown(&self) -> Error {
        Error::UnknownFile(crate::layout::path_of(self.spec, self.file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{FAMILIES, Family};
    use crate::spec::Size;

    #[test]
    fn what_grows_only_grows() {
        for family in FAMILIES {
            let spec = RunSpec::preset(family, Size::Tiny);
            for name in family.profile().interop {
                let file = File::Metric { metric: (*name).into(), cycle: None };
                let (early, late) =
                    (content_after(&spec, &file, 26).unwrap(), content(&spec, &file).unwrap());
                assert!(late.starts_with(&early) && late.len() > early.len(), "{family} {name}");
            }
        }
    }

    #[test]
    fn files_that_a_run_lacks_are_named() {
        let spec = RunSpec::preset(Family::NovaSeq, Size::Tiny);
        for file in [
            File::BaseCalls { lane: 9, part: 1, cycle: 1 },
            File::BaseCalls { lane: 1, part: 3, cycle: 1 },
            File::BaseCalls { lane: 1, part: 1, cycle: 999 },
            File::Filter { lane: 1, tile: 7 },
            File::Locations { lane: 1, tile: 7 },
        ] {
            assert!(matches!(content(&spec, &file), Err(Error::UnknownFile(_))), "{file:?}");
        }
    }
}
