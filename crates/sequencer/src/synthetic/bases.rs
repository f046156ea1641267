//! Base calls, filter decisions and positions of every cluster, each from the seed and its place alone.

use crate::family::Per;
use crate::random::Stream;
use crate::spec::RunSpec;

const CALLS: u64 = 1;
const PASSES: u64 = 2;
const POSITIONS: u64 = 3;

/// Calls of a tile in a cycle, one byte a cluster as in a BCL: quality above, two bits of base below, 0 for none.
#[must_use]
pub fn calls(spec: &RunSpec, lane: u32, tile: u32, cycle: u32) -> Vec<u8> {
    let place = [CALLS, lane.into(), tile.into(), cycle.into()];
    let raw = Stream::new(spec.seed, &place).bytes(spec.clusters_per_tile as usize);
    let table = call_table(spec.family.profile().qualities);
    raw.iter().map(|byte| table[usize::from(*byte)]).collect()
}

/// Of 256 draws: one is no call, a quarter has a lower quality, the rest the highest.
fn call_table(qualities: &[u8]) -> [u8; 256] {
    let highest = qualities.last().copied().unwrap_or(2);
    let low = 16;
    let quality = |draw: usize| {
        let below = draw * qualities.len().saturating_sub(1) / low;
        if draw < low { qualities.get(below).copied().unwrap_or(highest) } else { highest }
    };
    let call = |byte: u8| quality(usize::from(byte >> 2)) << 2 | (byte & 3);
    std::array::from_fn(|byte| if byte == 0 { 0 } else { call(byte as u8) })
}

/// Which clusters of a tile pass the filter: about four of five, the first always.
#[must_use]
pub fn passes(spec: &RunSpec, lane: u32, tile: u32) -> Vec<bool> {
    let raw =
        Stream::new(spec.seed, &[PASSES, lane.into(), tile.into()]).bytes(spec.clusters_per_tile as usize);
    let mut passes: Vec<bool> = raw.iter().map(|byte| *byte < 205).collect();
    if let Some(first) = passes.first_mut() {
        *first = true;
    }
    passes
}

/// Positions of a tile's clusters, in tenths of a pixel from 1000 on, as read names show them; all different.
///
/// Patterned flow cells (one file of positions a run) have the same ones in every tile.
#[must_use]
pub fn positions(spec: &RunSpec, lane: u32, tile: u32) -> Vec<(u32, u32)> {
    let same = spec.locations == Per::Run;
    let (lane, tile) = if same { (0, 0) } else { (lane, tile) };
    let mut stream = Stream::new(spec.seed, &[POSITIONS, lane.into(), tile.into()]);
    // Each cluster in a cell of its own.
    let (cell, columns) = (24, 1500);
    (0..spec.clusters_per_tile)
        .map(|i| {
            let jitter = stream.next_u64();
            let within = |bits: u64| u32::try_from(bits % u64::from(cell)).unwrap_or(0);
            (1000 + i % columns * cell + within(jitter), 1000 + i / columns * cell + within(jitter >> 32))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{FAMILIES, Family};
    use crate::spec::Size;

    #[test]
    fn calls_have_the_family_s_qualities_and_differ_by_place() {
        for family in FAMILIES {
            let spec = RunSpec { clusters_per_tile: 20_000, ..RunSpec::preset(family, Size::Tiny) };
            let calls = calls(&spec, 1, 1101, 1);
            let qualities = family.profile().qualities;
            assert!(calls.iter().all(|call| *call == 0 || qualities.contains(&(call >> 2))));
            for quality in qualities {
                assert!(calls.iter().any(|call| call >> 2 == *quality), "{family} never has {quality}");
            }
            assert!((40..120).contains(&calls.iter().filter(|call| **call == 0).count()));
            assert_ne!(calls, super::calls(&spec, 1, 1101, 2));
            assert_ne!(calls, super::calls(&spec.seeded(2), 1, 1101, 1));
        }
    }

    #[test]
    fn positions_are_all_different() {
        let spec = RunSpec { clusters_per_tile: 5000, ..RunSpec::preset(Family::HiSeq, Size::Tiny) };
        let mut positions = positions(&spec, 1, 1101);
        positions.sort_unstable();
        positions.dedup();
        assert_eq!(positions.len(), 5000);
    }
}
