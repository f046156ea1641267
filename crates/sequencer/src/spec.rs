//! What run to make: geometry of the flow cell, reads, seed.

use crate::family::{BaseCalls, Family, Per};
use crate::marker::Marker;
use crate::run_info::{Layout, RunInfo, TileNaming};
use crate::{Error, Result};

/// A read of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its cycles.
    pub cycles: u32,
    /// An index read (a sample's barcode), not a template.
    pub indexed: bool,
}

/// How large a run to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// For tests: well under a megabyte of base calls.
    Tiny,
    /// For a demonstration: 100 to 300 MB.
    Demo,
    /// All files of a real run, at their real sizes (terabytes); meant for [`RunSpec::scaled`].
    Full,
}

/// A run to make. The same specification makes the same bytes everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSpec {
    /// Which instrument writes it.
    pub family: Family,
    /// The run folder's name.
    pub name: String,
    /// Lanes of the flow cell.
    pub lanes: u32,
    /// Surfaces of a lane.
    pub surfaces: u32,
    /// Swaths of a surface.
    pub swaths: u32,
    /// Cameras that each see their part of a swath; 0 where tile numbers have four digits and do not tell.
    pub sections: u32,
    /// Tiles of a swath (of a section, if there are any).
    pub tiles: u32,
    /// The reads, in order.
    pub reads: Vec<Read>,
    /// Clusters of a tile, before the filter.
    pub clusters_per_tile: u32,
    /// Base calls of a tile are `.bcl.gz` instead of `.bcl`.
    pub gzip: bool,
    /// How cluster positions are stored.
    pub locations: Per,
    /// Markers in the order of their appearance, without those of single reads.
    pub markers: &'static [Marker],
    /// What all content follows from.
    pub seed: u64,
}

impl RunSpec {
    /// A run of a family, as its instruments make them.
    #[must_use]
    pub fn preset(family: Family, size: Size) -> Self {
        let (lanes, surfaces, swaths, sections, tiles) = geometry(family, size);
        let profile = family.profile();
        Self {
            family,
            name: example_name(family).into(),
            lanes,
            surfaces,
            swaths,
            sections,
            tiles,
            reads: reads(family, size),
            clusters_per_tile: clusters(family, size),
            gzip: profile.gzip,
            locations: profile.locations,
            markers: profile.markers,
            seed: 1,
        }
    }

    /// A run with the geometry and the reads of a real one.
    ///
    /// # Errors
    /// [`Error::Spec`] if its tile numbers do not follow from its layout.
    pub fn of_run_info(family: Family, info: &RunInfo, clusters_per_tile: u32) -> Result<Self> {
        let (layout, profile) = (&info.layout, family.profile());
        let spec = Self {
            family,
            name: info.id.clone(),
            lanes: layout.lanes,
            surfaces: layout.surfaces,
            swaths: layout.swaths,
            sections: layout.sections_per_lane.unwrap_or(0),
            tiles: layout.tiles,
            reads: info.reads.clone(),
            clusters_per_tile,
            gzip: profile.gzip,
            locations: profile.locations,
            markers: profile.markers,
            seed: 1,
        };
        spec.validate()?;
        let mut listed = layout.tile_list.clone();
        listed.sort_unstable();
        if !listed.is_empty() && listed != spec.tile_list() {
            return Err(Error::Spec(format!("{}: tiles are not those of its layout", info.id)));
        }
        Ok(spec)
    }

    /// The same with another seed.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The same with `factor` times the clusters, and at least one a tile.
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> Self {
        // A saturating cast.
        self.clusters_per_tile = ((f64::from(self.clusters_per_tile) * factor) as u32).max(1);
        self
    }

    /// Refuses what no run can be.
    ///
    /// # Errors
    /// [`Error::Spec`], naming what is wrong.
    pub fn validate(&self) -> Result<()> {
        let bounds = [
            ("lanes", self.lanes, 1, 8),
            ("surfaces", self.surfaces, 1, 2),
            ("swaths", self.swaths, 1, 9),
            ("sections", self.sections, 0, 4),
            ("tiles", self.tiles, 1, 99),
            ("clusters", self.clusters_per_tile, 1, 1 << 24),
            ("reads", u32::try_from(self.reads.len()).unwrap_or(u32::MAX), 1, 4),
        ];
        for (what, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                return Err(Error::Spec(format!("{what}: {value} is not within {least} to {most}")));
            }
        }
        if self.reads.iter().any(|read| !(1..=1000).contains(&read.cycles)) {
            return Err(Error::Spec("a read has 1 to 1000 cycles".into()));
        }
        if self.name.is_empty() || self.name.contains(['/', '\\', '\0']) || self.name.starts_with('.') {
            return Err(Error::Spec("the name is not a directory's".into()));
        }
        Ok(())
    }

    /// Cycles of all reads.
    #[must_use]
    pub fn cycles(&self) -> u32 {
        self.reads.iter().map(|read| read.cycles).sum()
    }

    /// First cycle and length of each read.
    pub fn spans(&self) -> impl Iterator<Item = (u32, Read)> + '_ {
        self.reads.iter().scan(1, |next, read| {
            let first = *next;
            *next += read.cycles;
            Some((first, *read))
        })
    }

    /// Tiles of a lane, ascending.
    #[must_use]
    pub fn tiles_of_lane(&self, lane: u32) -> Vec<u32> {
        (1..=self.surfaces).flat_map(|surface| self.tiles_of_surface(lane, surface)).collect()
    }

    /// Tiles of one surface of a lane, ascending.
    #[must_use]
    pub fn tiles_of_surface(&self, lane: u32, surface: u32) -> Vec<u32> {
        let swaths = 1..=self.swaths;
        if self.sections == 0 {
            return swaths.flat_map(|swath| self.numbered(surface * 1000 + swath * 100)).collect();
        }
        // Lanes 1 and 2 lie before the first cameras, 3 and 4 before the next ones.
        let first = (lane.saturating_sub(1) / 2) * self.sections + 1;
        let cameras = first..first + self.sections;
        swaths
            .flat_map(|swath| {
                cameras
                    .clone()
                    .flat_map(move |camera| self.numbered(surface * 10_000 + swath * 1000 + camera * 100))
            })
            .collect()
    }

    fn numbered(&self, base: u32) -> impl Iterator<Item = u32> + use<> {
        (1..=self.tiles).map(move |tile| base + tile)
    }

    /// Every lane and tile, sorted.
    #[must_use]
    pub fn tile_list(&self) -> Vec<(u32, u32)> {
        let of_lane = |lane| self.tiles_of_lane(lane).into_iter().map(move |tile| (lane, tile));
        (1..=self.lanes).flat_map(of_lane).collect()
    }

    /// A rough size of all base calls, in bytes, for a progress bar before the first byte.
    #[must_use]
    pub fn estimated_bytes(&self) -> u64 {
        let calls =
            self.tile_list().len() as u64 * u64::from(self.clusters_per_tile) * u64::from(self.cycles());
        match self.family.profile().base_calls {
            BaseCalls::Bcl if !self.gzip => calls,
            BaseCalls::Bcl | BaseCalls::Bgzf => calls / 2,
            BaseCalls::Cbcl => calls / 3,
        }
    }

    /// Its RunInfo.xml.
    #[must_use]
    pub fn run_info(&self) -> RunInfo {
        let run = crate::run_name::RunName::parse(&self.name);
        RunInfo {
            id: self.name.clone(),
            number: run.map_or(1, |run| run.number),
            flowcell: run.map_or("FLOWCELL", |run| run.barcode()).into(),
            instrument: run.map_or("INSTRUMENT", |run| run.instrument).into(),
            date: run.map_or("010101", |run| run.date).into(),
            reads: self.reads.clone(),
            layout: Layout {
                lanes: self.lanes,
                surfaces: self.surfaces,
                swaths: self.swaths,
                tiles: self.tiles,
                sections_per_lane: (self.sections > 0).then_some(self.sections),
                naming: Some(if self.sections > 0 { TileNaming::FiveDigit } else { TileNaming::FourDigit }),
                tile_list: self.tile_list(),
            },
        }
    }
}

fn example_name(family: Family) -> &'static str {
    match family {
        Family::HiSeq => "160128_D00456_0123_AHRVTEST01",
        Family::MiSeq => "180320_M01234_0042_000000000-RVTST",
        Family::NextSeq => "190411_NB501234_0007_AHRVTESTX2",
        Family::NovaSeq => "220607_A01234_0310_BHRVTESTX3",
        Family::NovaSeqX => "20250214_LH00999_0012_A22RVTSTT4",
    }
}

/// Lanes, surfaces, swaths, sections, tiles.
fn geometry(family: Family, size: Size) -> (u32, u32, u32, u32, u32) {
    match (family, size) {
        (Family::HiSeq | Family::NovaSeq, Size::Tiny) => (1, 2, 1, 0, 2),
        (Family::MiSeq, Size::Tiny) => (1, 1, 1, 0, 2),
        (Family::NextSeq, Size::Tiny) => (2, 2, 1, 2, 1),
        (Family::NovaSeqX, Size::Tiny) => (2, 2, 1, 0, 2),
        (Family::HiSeq, Size::Demo) => (8, 2, 2, 0, 2),
        (Family::MiSeq, Size::Demo | Size::Full) => (1, 2, 1, 0, 14),
        (Family::NextSeq, Size::Demo) => (4, 2, 3, 3, 2),
        (Family::NovaSeq, Size::Demo) => (4, 2, 2, 0, 10),
        (Family::NovaSeqX, Size::Demo) => (8, 2, 2, 0, 10),
        (Family::HiSeq, Size::Full) => (8, 2, 3, 0, 16),
        (Family::NextSeq, Size::Full) => (4, 2, 3, 3, 12),
        (Family::NovaSeq, Size::Full) => (4, 2, 6, 0, 78),
        (Family::NovaSeqX, Size::Full) => (8, 2, 4, 0, 98),
    }
}

fn clusters(family: Family, size: Size) -> u32 {
    match (family, size) {
        // Odd, so that the last byte of a CBCL's tile holds one call.
        (_, Size::Tiny) => 41,
        (Family::HiSeq, Size::Demo) => 40_000,
        (Family::MiSeq, Size::Demo) => 100_000,
        (Family::NextSeq, Size::Demo) => 30_000,
        (Family::NovaSeq, Size::Demo) => 40_000,
        (Family::NovaSeqX, Size::Demo) => 20_000,
        (Family::HiSeq, Size::Full) => 2_500_000,
        (Family::MiSeq, Size::Full) => 900_000,
        (Family::NextSeq, Size::Full) => 600_000,
        (Family::NovaSeq, Size::Full) => 4_000_000,
        (Family::NovaSeqX, Size::Full) => 5_200_000,
    }
}

/// All longer than 25 cycles: that is when the filter decides.
fn reads(family: Family, size: Size) -> Vec<Read> {
    let read = |cycles, indexed| Read { cycles, indexed };
    match (family, size) {
        (Family::MiSeq, Size::Tiny | Size::Demo) => vec![read(28, false), read(28, false)],
        (_, Size::Tiny | Size::Demo) => vec![read(26, false), read(8, true), read(26, false)],
        (Family::MiSeq, Size::Full) => vec![read(301, false), read(8, true), read(8, true), read(301, false)],
        (Family::HiSeq, Size::Full) => vec![read(126, false), read(8, true), read(126, false)],
        (Family::NextSeq, Size::Full) => vec![read(75, false), read(8, true), read(75, false)],
        (Family::NovaSeq | Family::NovaSeqX, Size::Full) => {
            vec![read(151, false), read(8, true), read(8, true), read(151, false)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::FAMILIES;

    #[test]
    fn presets_are_sound() {
        for family in FAMILIES {
            for size in [Size::Tiny, Size::Demo, Size::Full] {
                let spec = RunSpec::preset(family, size);
                spec.validate().unwrap();
                assert!(spec.tile_list().is_sorted());
                let name = crate::run_name::RunName::parse(&spec.name).unwrap();
                assert_eq!(Family::of_run(&name), Some(family));
            }
            let demo = RunSpec::preset(family, Size::Demo).estimated_bytes();
            assert!((50_000_000..300_000_000).contains(&demo), "{family}: {demo}");
        }
        assert_eq!(RunSpec::preset(Family::NovaSeqX, Size::Full).tile_list().len(), 6272);
        assert_eq!(RunSpec::preset(Family::NextSeq, Size::Full).tile_list().len(), 864);
        assert_eq!(RunSpec::preset(Family::NovaSeqX, Size::Full).scaled(1e-9).clusters_per_tile, 1);
    }

    #[test]
    fn impossible_runs_are_refused() {
        let good = RunSpec::preset(Family::HiSeq, Size::Tiny);
        for broken in [
            RunSpec { lanes: 0, ..good.clone() },
            RunSpec { tiles: 100, ..good.clone() },
            RunSpec { reads: vec![], ..good.clone() },
            RunSpec { name: "../up".into(), ..good.clone() },
            RunSpec { clusters_per_tile: 0, ..good },
        ] {
            assert!(matches!(broken.validate(), Err(Error::Spec(_))), "{broken:?}");
        }
    }
}
