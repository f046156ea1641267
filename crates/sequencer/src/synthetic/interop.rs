//! InterOp: a header once, then records of one length. Layouts after Illumina's `interop` library.
//!
//! | metric | version, length | record after u16 lane, u16 tile, u16 cycle |
//! |---|---|---|
//! | CorrectedInt | 2, 48 | u16 average, 4 u16 corrected, 4 u16 called, 5 u32 counts (none, A, C, G, T), f32 signal to noise |
//! | EmpiricalPhasing | 1, 14 | f32 phasing, f32 prephasing |
//! | Error | 3, 30 | f32 rate, 5 u32 reads with 0 to 4 errors |
//! | Extraction | 2, 38 | 4 f32 focus, 4 u16 intensity, u64 time |
//! | Q | 4, 206 | 50 u32, clusters of each quality from 1 on |
//! | Q, binned | 6, 6 + 4 n | n u32, clusters of each bin; the header has more: u8 1, u8 n, lowest, highest, value of each |
//! | Tile | 2, 10 | (no cycle) u16 code, f32 value; once a tile when the filter has decided, and once a read |
//!
//! Event, PFGrid and Registration are read by the instrument alone; theirs are records of the right habit only.

use super::{FILTER_CYCLE, bases};
use crate::random::Stream;
use crate::spec::RunSpec;

/// Codes of tile metrics: density and number of clusters, all and those that pass.
const DENSITY: [u16; 4] = [100, 101, 102, 103];
/// Code of the first read's phasing; its prephasing and the next reads follow.
const PHASING: u16 = 200;
/// Clusters a square millimetre, if a tile had its number on one.
const TILES_PER_MM2: f32 = 1.0;

/// Version and record length, and of binned qualities their bins.
#[must_use]
pub fn header(spec: &RunSpec, metric: &str) -> Vec<u8> {
    let qualities = spec.family.profile().qualities;
    let bins = u8::try_from(qualities.len()).unwrap_or(u8::MAX);
    match metric {
        "CorrectedInt" => vec![2, 48],
        "EmpiricalPhasing" => vec![1, 14],
        "Error" => vec![3, 30],
        "Extraction" => vec![2, 38],
        "Q" if binned(spec) => {
            let highest = qualities.iter().skip(1).map(|next| next - 1).chain([40.max(last(qualities))]);
            let mut header = vec![6, 6 + 4 * bins, 1, bins];
            header.extend_from_slice(qualities);
            header.extend(highest);
            header.extend_from_slice(qualities);
            header
        }
        "Q" => vec![4, 206],
        "Tile" => vec![2, 10],
        _ => vec![1, 6 + OTHER as u8],
    }
}

/// Readers take seven qualities or fewer for bins, which a histogram of fifty does not tell apart.
fn binned(spec: &RunSpec) -> bool {
    spec.family.profile().qualities.len() <= 7
}

fn last(qualities: &[u8]) -> u8 {
    qualities.last().copied().unwrap_or_default()
}

/// Bytes of a record that only the instrument reads, after lane, tile and cycle.
const OTHER: usize = 16;

/// Whether a cycle has any: all metrics but the tiles' have.
#[must_use]
pub fn has_records(spec: &RunSpec, metric: &str, cycle: u32) -> bool {
    metric != "Tile" || !tile_records(spec, 1, 1, cycle).is_empty()
}

/// All records of a cycle.
#[must_use]
pub fn records(spec: &RunSpec, metric: &str, cycle: u32) -> Vec<u8> {
    let tiles = spec.tile_list();
    if metric == "Tile" {
        return tiles.into_iter().flat_map(|(lane, tile)| tile_records(spec, lane, tile, cycle)).collect();
    }
    let salt = metric.bytes().fold(5, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let mut bytes = Vec::new();
    for (lane, tile) in tiles {
        let mut stream = Stream::new(spec.seed, &[salt, lane.into(), tile.into(), cycle.into()]);
        bytes.extend(place(lane, tile));
        bytes.extend(short(cycle));
        body(&mut bytes, spec, metric, &mut stream, cycle);
    }
    bytes
}

fn body(bytes: &mut Vec<u8>, spec: &RunSpec, metric: &str, stream: &mut Stream, cycle: u32) {
    let mut intensity = || (600 + stream.next_u64() % 200) as u16;
    let clusters = spec.clusters_per_tile;
    match metric {
        "CorrectedInt" => {
            (0..9).for_each(|_| bytes.extend(intensity().to_le_bytes()));
            let quarter = clusters / 4;
            let counts = [0, clusters - 3 * quarter, quarter, quarter, quarter];
            counts.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
            bytes.extend(12.5f32.to_le_bytes());
        }
        "EmpiricalPhasing" => {
            [0.0012f32, 0.0008].iter().for_each(|w| bytes.extend((w * cycle as f32).to_le_bytes()))
        }
        "Error" => {
            bytes.extend(0.35f32.to_le_bytes());
            [clusters, 0, 0, 0, 0].iter().for_each(|n| bytes.extend(n.to_le_bytes()));
        }
        "Extraction" => {
            (0..4).for_each(|_| bytes.extend(2.75f32.to_le_bytes()));
            (0..4).for_each(|_| bytes.extend(intensity().to_le_bytes()));
            bytes.extend((TICKS_2020 + u64::from(cycle) * TICKS_5_MINUTES).to_le_bytes());
        }
        "Q" => histogram(spec).iter().for_each(|n| bytes.extend(n.to_le_bytes())),
        _ => bytes.extend(stream.bytes(OTHER)),
    }
}

/// 2020-01-01 in 100 ns since the year 1, in the notation of the instruments' system (kind: UTC in the top bits).
const TICKS_2020: u64 = 637_134_336_000_000_000 | 1 << 62;
const TICKS_5_MINUTES: u64 = 3_000_000_000;

/// Clusters of each quality: a quarter spread over the lower ones, the rest at the highest.
fn histogram(spec: &RunSpec) -> Vec<u32> {
    let qualities = spec.family.profile().qualities;
    let each = (spec.clusters_per_tile / 4 / u32::try_from(qualities.len()).unwrap_or(1)).max(1);
    let mut left = spec.clusters_per_tile;
    let mut shares = Vec::new();
    for quality in qualities {
        let share = if *quality == last(qualities) { left } else { each.min(left) };
        left -= share;
        shares.push((*quality, share));
    }
    if binned(spec) {
        return shares.into_iter().map(|(_, share)| share).collect();
    }
    let of = |quality| shares.iter().find(|(known, _)| *known == quality).map_or(0, |(_, share)| *share);
    (1..=50).map(of).collect()
}

fn tile_records(spec: &RunSpec, lane: u32, tile: u32, cycle: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut record = |code: u16, value: f32| {
        bytes.extend(place(lane, tile));
        bytes.extend(code.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    };
    if cycle == FILTER_CYCLE.min(spec.cycles()) {
        let all = spec.clusters_per_tile as f32;
        let passing = bases::passes(spec, lane, tile).into_iter().filter(|pass| *pass).count() as f32;
        let values = [all * TILES_PER_MM2, passing * TILES_PER_MM2, all, passing];
        DENSITY.into_iter().zip(values).for_each(|(code, value)| record(code, value));
    }
    for ((first, read), number) in spec.spans().zip(0u16..) {
        if cycle == first + read.cycles.min(FILTER_CYCLE) - 1 {
            record(PHASING + 2 * number, 0.0012);
            record(PHASING + 2 * number + 1, 0.0008);
        }
    }
    bytes
}

fn place(lane: u32, tile: u32) -> [u8; 4] {
    let ([a, b], [c, d]) = (short(lane), short(tile));
    [a, b, c, d]
}

fn short(n: u32) -> [u8; 2] {
    u16::try_from(n).unwrap_or(u16::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::FAMILIES;
    use crate::spec::Size;

    #[test]
    fn records_have_the_length_that_the_header_says() {
        for family in FAMILIES {
            let spec = RunSpec::preset(family, Size::Tiny);
            let tiles = spec.tile_list().len();
            for metric in family.profile().interop {
                let length = usize::from(header(&spec, metric)[1]);
                let bytes = records(&spec, metric, FILTER_CYCLE);
                assert_eq!(bytes.len() % length, 0, "{family} {metric}");
                if *metric != "Tile" {
                    assert_eq!(bytes.len(), tiles * length, "{family} {metric}");
                }
            }
        }
    }

    #[test]
    fn histograms_count_every_cluster() {
        for family in FAMILIES {
            let spec = RunSpec::preset(family, Size::Demo);
            assert_eq!(histogram(&spec).iter().sum::<u32>(), spec.clusters_per_tile);
        }
    }
}
