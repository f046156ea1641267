//! CBCL: the calls of one surface of a lane in a cycle.
//!
//! | bytes | what |
//! |---|---|
//! | u16 | version, 1 |
//! | u32 | size of the header, all up to the first block |
//! | u8, u8 | bits of a base call, of a quality: 2, 2 |
//! | u32 | number of quality bins, then for each u32 bin, u32 quality |
//! | u32 | number of tiles, then for each u32 tile, u32 clusters, u32 plain size, u32 packed size |
//! | u8 | 1 if clusters that did not pass the filter are left out |
//! | | one gzip member a tile: two clusters a byte, the first below; quality bin above two bits of base |

use super::bases;
use super::bcl::count;
use super::bgzf::gzip;
use crate::spec::RunSpec;

/// Header without its bins and tiles.
const FIXED: usize = 2 + 4 + 1 + 1 + 4 + 4 + 1;

/// Base calls of a surface.
#[must_use]
pub fn base_calls(spec: &RunSpec, lane: u32, surface: u32, cycle: u32) -> Vec<u8> {
    let only_passing = cycle > super::FILTER_CYCLE;
    let tiles: Vec<Tile> = spec
        .tiles_of_surface(lane, surface)
        .into_iter()
        .map(|tile| {
            let mut calls = bases::calls(spec, lane, tile, cycle);
            if only_passing {
                let mut passes = bases::passes(spec, lane, tile).into_iter();
                calls.retain(|_| passes.next() == Some(true));
            }
            Tile { number: tile, calls }
        })
        .collect();
    encode(spec.family.profile().qualities, &tiles, only_passing)
}

/// A tile and its calls, a byte each as in a BCL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Its number.
    pub number: u32,
    /// The calls.
    pub calls: Vec<u8>,
}

/// A CBCL of these tiles. At most four qualities; a call of another quality falls into bin 0.
#[must_use]
pub fn encode(qualities: &[u8], tiles: &[Tile], only_passing: bool) -> Vec<u8> {
    let packed: Vec<(usize, Vec<u8>)> = tiles
        .iter()
        .map(|tile| {
            let plain = nibbles(qualities, &tile.calls);
            (plain.len(), gzip(&plain))
        })
        .collect();
    let mut bytes = 1u16.to_le_bytes().to_vec();
    bytes.extend(count(FIXED + 8 * qualities.len() + 16 * tiles.len()).to_le_bytes());
    bytes.extend([2, 2]);
    bytes.extend(count(qualities.len()).to_le_bytes());
    for (bin, quality) in (0u32..).zip(qualities) {
        bytes.extend(bin.to_le_bytes());
        bytes.extend(u32::from(*quality).to_le_bytes());
    }
    bytes.extend(count(tiles.len()).to_le_bytes());
    for (tile, (plain, packed)) in tiles.iter().zip(&packed) {
        for field in [tile.number, count(tile.calls.len()), count(*plain), count(packed.len())] {
            bytes.extend(field.to_le_bytes());
        }
    }
    bytes.push(u8::from(only_passing));
    packed.into_iter().for_each(|(_, block)| bytes.extend(block));
    bytes
}

fn nibbles(qualities: &[u8], calls: &[u8]) -> Vec<u8> {
    let bin = |quality| qualities.iter().position(|known| *known == quality).unwrap_or(0) as u8 & 3;
    let nibble_of = |call: u8| if call == 0 { 0 } else { bin(call >> 2) << 2 | call & 3 };
    // Looked up, not searched for: runs have billions of calls.
    let table: [u8; 256] = std::array::from_fn(|call| nibble_of(call as u8));
    let nibble = |call: &u8| table[usize::from(*call)];
    let (pairs, last) = calls.as_chunks::<2>();
    let whole = pairs.iter().map(|[first, second]| nibble(first) | nibble(second) << 4);
    whole.chain(last.iter().map(nibble)).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;
    use crate::family::Family;
    use crate::spec::Size;

    const QUALITIES: [u8; 4] = [2, 12, 23, 37];

    /// A tile, and the base and quality of each call.
    type Decoded = (u32, Vec<(u8, u8)>);

    /// A reader of its own: it knows the table above, not the code below it.
    fn decode(bytes: &[u8]) -> (Vec<Decoded>, bool) {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!((&bytes[..2], &bytes[6..8]), (&[1u8, 0][..], &[2u8, 2][..]));
        let (mut block, bins) = (u32_at(2), u32_at(8));
        let quality: Vec<u8> = (0..bins).map(|bin| u32_at(12 + 8 * bin + 4) as u8).collect();
        let tiles = 12 + 8 * bins;
        let mut found = Vec::new();
        for tile in 0..u32_at(tiles) {
            let [number, clusters, plain_size, packed] =
                [0, 4, 8, 12].map(|field| u32_at(tiles + 4 + 16 * tile + field));
            let mut plain = Vec::new();
            GzDecoder::new(&bytes[block..block + packed]).read_to_end(&mut plain).unwrap();
            assert_eq!(plain.len(), plain_size);
            block += packed;
            let calls = plain.iter().flat_map(|byte| [byte & 15, byte >> 4]).take(clusters);
            let call = |nibble: u8| match nibble {
                0 => (b'N', 2),
                _ => (b"ACGT"[usize::from(nibble & 3)], quality[usize::from(nibble >> 2)]),
            };
            found.push((number as u32, calls.map(call).collect()));
        }
        assert_eq!(block, bytes.len());
        (found, bytes[tiles + 4 + 16 * u32_at(tiles)] == 1)
    }

    fn meant(call: u8) -> (u8, u8) {
        match call {
            0 => (b'N', 2),
            _ if call == QUALITIES[0] << 2 => (b'N', 2),
            _ => (b"ACGT"[usize::from(call & 3)], call >> 2),
        }
    }

    proptest! {
        #[test]
        fn another_reader_finds_the_calls(
            tiles in proptest::collection::vec(proptest::collection::vec((0usize..4, 0u8..4), 0..50), 0..4),
            only_passing: bool,
        ) {
            let tiles: Vec<Tile> = (1101..).zip(tiles).map(|(number, calls)| Tile {
                number,
                calls: calls.into_iter().map(|(bin, base)| QUALITIES[bin] << 2 | base).collect(),
            }).collect();
            let (found, flag) = decode(&encode(&QUALITIES, &tiles, only_passing));
            prop_assert_eq!(flag, only_passing);
            let expected: Vec<_> =
                tiles.iter().map(|t| (t.number, t.calls.iter().map(|c| meant(*c)).collect())).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn after_the_filter_only_what_passed_is_kept() {
        let spec = RunSpec { clusters_per_tile: 100, ..RunSpec::preset(Family::NovaSeq, Size::Tiny) };
        let (early, flag) = decode(&base_calls(&spec, 1, 2, 25));
        assert!(!flag && early.iter().all(|(tile, calls)| *tile > 2000 && calls.len() == 100));
        let (late, flag) = decode(&base_calls(&spec, 1, 2, 26));
        assert!(flag);
        for (tile, calls) in late {
            assert_eq!(calls.len(), bases::passes(&spec, 1, tile).into_iter().filter(|pass| *pass).count());
        }
    }
}
