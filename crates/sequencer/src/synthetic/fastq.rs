//! The FASTQ that a reader of the run must arrive at, as picard's IlluminaBasecallsToFastq writes it.
//!
//! Its conventions: one file a template read (`<prefix>.<n>.fastq`) and one an index read
//! (`<prefix>.barcode_<n>.fastq`); a tile after the other in the order of their numbers as text; within a tile by
//! name as text; of a CBCL only clusters that passed the filter; a call without base is `N` with quality 2.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::bases;
use crate::family::BaseCalls;
use crate::spec::RunSpec;
use crate::{Error, Result};

/// One cluster: its name without the read's number, and all its reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// `<run>:<lane>:<tile>:<x>:<y>`.
    pub name: String,
    /// Whether it passed the filter.
    pub passes: bool,
    /// Bases and qualities (Phred + 33) of each read.
    pub reads: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What `RUN_BARCODE` must be so that names agree: the run's number.
#[must_use]
pub fn run_barcode(spec: &RunSpec) -> String {
    spec.run_info().number.to_string()
}

/// The run's `READ_STRUCTURE`, such as `26T8B26T`.
#[must_use]
pub fn read_structure(spec: &RunSpec) -> String {
    spec.reads.iter().map(|read| format!("{}{}", read.cycles, if read.indexed { 'B' } else { 'T' })).collect()
}

/// Clusters of a lane in the order of the files; a tile at a time in memory.
pub fn expected_fastq(spec: &RunSpec, lane: u32) -> impl Iterator<Item = Cluster> + '_ {
    let mut tiles = spec.tiles_of_lane(lane);
    tiles.sort_by_key(|tile| tile.to_string());
    tiles.into_iter().flat_map(move |tile| clusters(spec, lane, tile))
}

/// Names of the files, in the order of the reads.
#[must_use]
pub fn file_names(spec: &RunSpec, prefix: &str) -> Vec<String> {
    let (mut templates, mut barcodes) = (0, 0);
    let name = |indexed| {
        if indexed {
            barcodes += 1;
            format!("{prefix}.barcode_{barcodes}.fastq")
        } else {
            templates += 1;
            format!("{prefix}.{templates}.fastq")
        }
    };
    spec.reads.iter().map(|read| read.indexed).map(name).collect()
}

/// Writes the files of a lane into a directory.
///
/// # Errors
/// [`Error::Io`].
pub fn write_expected(spec: &RunSpec, lane: u32, dir: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let paths: Vec<PathBuf> = file_names(spec, prefix).into_iter().map(|name| dir.join(name)).collect();
    let open = |path: &PathBuf| File::create(path).map(BufWriter::new).map_err(Error::io(path));
    let mut files = paths.iter().map(open).collect::<Result<Vec<_>>>()?;
    let suffixes = suffixes(spec);
    for cluster in expected_fastq(spec, lane) {
        for (((file, path), suffix), read) in files.iter_mut().zip(&paths).zip(&suffixes).zip(&cluster.reads)
        {
            write_record(file, &cluster.name, suffix, read).map_err(Error::io(path))?;
        }
    }
    for (file, path) in files.iter_mut().zip(&paths) {
        file.flush().map_err(Error::io(path))?;
    }
    Ok(paths)
}

fn write_record(
    out: &mut impl Write,
    name: &str,
    suffix: &str,
    (bases, qualities): &(Vec<u8>, Vec<u8>),
) -> std::io::Result<()> {
    writeln!(out, "@{name}{suffix}")?;
    out.write_all(bases)?;
    out.write_all(b"\n+\n")?;
    out.write_all(qualities)?;
    out.write_all(b"\n")
}

/// What follows a name: the number of a template read, if there are several.
fn suffixes(spec: &RunSpec) -> Vec<String> {
    let several = spec.reads.iter().filter(|read| !read.indexed).count() > 1;
    let mut templates = 0;
    let suffix = |indexed: bool| {
        if indexed || !several {
            return String::new();
        }
        templates += 1;
        format!("/{templates}")
    };
    spec.reads.iter().map(|read| read.indexed).map(suffix).collect()
}

fn clusters(spec: &RunSpec, lane: u32, tile: u32) -> Vec<Cluster> {
    let run = run_barcode(spec);
    let positions = bases::positions(spec, lane, tile);
    let mut clusters: Vec<Cluster> = positions
        .into_iter()
        .zip(bases::passes(spec, lane, tile))
        .map(|((x, y), passes)| Cluster {
            name: format!("{run}:{lane}:{tile}:{x}:{y}"),
            passes,
            reads: spec.reads.iter().map(|_| (Vec::new(), Vec::new())).collect(),
        })
        .collect();
    for (number, (first, read)) in spec.spans().enumerate() {
        for cycle in first..first + read.cycles {
            for (cluster, call) in clusters.iter_mut().zip(bases::calls(spec, lane, tile, cycle)) {
                if let Some((bases, qualities)) = cluster.reads.get_mut(number) {
                    let (base, quality) = shown(spec, call);
                    bases.push(base);
                    qualities.push(quality + 33);
                }
            }
        }
    }
    if spec.family.profile().base_calls == BaseCalls::Cbcl {
        clusters.retain(|cluster| cluster.passes);
    }
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    clusters
}

/// Base and quality of a call. In a CBCL, an A of the lowest bin is the same as no call.
fn shown(spec: &RunSpec, call: u8) -> (u8, u8) {
    let profile = spec.family.profile();
    let (base, quality) = (call & 3, call >> 2);
    let lowest = profile.base_calls == BaseCalls::Cbcl && profile.qualities.first() == Some(&quality);
    if call == 0 || (lowest && base == 0) {
        return (b'N', 2);
    }
    (b"ACGT".get(usize::from(base)).copied().unwrap_or(b'N'), quality)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Family;
    use crate::spec::Size;

    #[test]
    fn names_and_structure_are_picard_s() {
        let spec = RunSpec::preset(Family::NovaSeqX, Size::Tiny);
        assert_eq!(read_structure(&spec), "26T8B26T");
        assert_eq!(run_barcode(&spec), "12");
        assert_eq!(file_names(&spec, "out"), ["out.1.fastq", "out.barcode_1.fastq", "out.2.fastq"]);
        assert_eq!(suffixes(&spec), ["/1", "", "/2"]);
    }

    #[test]
    fn clusters_that_fail_the_filter_are_only_in_a_bcl_s() {
        let novaseq = RunSpec::preset(Family::NovaSeq, Size::Tiny);
        let hiseq = RunSpec::preset(Family::HiSeq, Size::Tiny);
        assert!(expected_fastq(&novaseq, 1).all(|cluster| cluster.passes));
        assert!(!expected_fastq(&hiseq, 1).all(|cluster| cluster.passes));
        assert_eq!(expected_fastq(&hiseq, 1).count(), 4 * 41);
    }
}
