//! Gzip, and blocked gzip (BGZF) with the two indexes of a NextSeq.
//!
//! A `.bcl.bgzf` is u32 number of clusters and then the calls of all tiles of the lane, in blocks of at most 64 KiB;
//! `.bcl.bgzf.bci` is u32 0, u32 number of tiles, and for each tile where it begins: u64, the block's offset in the
//! file above 16 bits of offset within the block. `s_<lane>.bci` has u32 tile, u32 clusters for each tile.

use std::io::Write;

use flate2::write::{DeflateEncoder, GzEncoder};
use flate2::{Compression, Crc};

use super::bases;
use super::bcl::count;
use crate::spec::RunSpec;

/// Most plain bytes of a block, so that what does not compress still fits a u16.
const BLOCK: usize = 0xff00;
/// An empty block, which ends a file.
const END: [u8; 28] =
    [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 6, 0, 0x42, 0x43, 2, 0, 0x1b, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// One gzip member.
#[must_use]
pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing into memory cannot fail.
    let _ = encoder.write_all(plain);
    encoder.finish().unwrap_or_default()
}

/// Base calls of a lane in a cycle, and their index.
#[must_use]
pub fn base_calls(spec: &RunSpec, lane: u32, cycle: u32) -> (Vec<u8>, Vec<u8>) {
    let tiles = spec.tiles_of_lane(lane);
    let mut blocks = Blocks::default();
    let total = tiles.len() * spec.clusters_per_tile as usize;
    blocks.write(&count(total).to_le_bytes());
    let mut index = 0u32.to_le_bytes().to_vec();
    index.extend(count(tiles.len()).to_le_bytes());
    for tile in tiles {
        index.extend(blocks.position().to_le_bytes());
        blocks.write(&bases::calls(spec, lane, tile, cycle));
    }
    (blocks.finish(), index)
}

/// Tiles of a lane and their clusters.
#[must_use]
pub fn tile_index(spec: &RunSpec, lane: u32) -> Vec<u8> {
    let record = |tile: u32| [tile.to_le_bytes(), spec.clusters_per_tile.to_le_bytes()];
    spec.tiles_of_lane(lane).into_iter().flat_map(record).flatten().collect()
}

/// A BGZF file being written.
#[derive(Default)]
struct Blocks {
    done: Vec<u8>,
    open: Vec<u8>,
}

impl Blocks {
    fn position(&self) -> u64 {
        (self.done.len() as u64) << 16 | self.open.len() as u64
    }

    /// Leaves room in the open block, so that its end is never a position.
    fn write(&mut self, mut plain: &[u8]) {
        while let Some((now, later)) = plain.split_at_checked(BLOCK - self.open.len()) {
            self.open.extend_from_slice(now);
            self.close();
            plain = later;
        }
        self.open.extend_from_slice(plain);
    }

    fn close(&mut self) {
        self.done.extend(block(&self.open));
        self.open.clear();
    }

    fn finish(mut self) -> Vec<u8> {
        if !self.open.is_empty() {
            self.close();
        }
        self.done.extend(END);
        self.done
    }
}

/// One block: a gzip member whose extra field `BC` holds its own length less one.
fn block(plain: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    let _ = encoder.write_all(plain);
    let packed = encoder.finish().unwrap_or_default();
    let mut crc = Crc::new();
    crc.update(plain);
    let size = u16::try_from(packed.len() + 25).unwrap_or(u16::MAX);
    let mut bytes = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 6, 0, b'B', b'C', 2, 0];
    bytes.extend(size.to_le_bytes());
    bytes.extend(packed);
    bytes.extend(crc.sum().to_le_bytes());
    bytes.extend(count(plain.len()).to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::{GzDecoder, MultiGzDecoder};
    use proptest::prelude::*;

    use super::*;
    use crate::family::Family;
    use crate::spec::Size;

    /// What a reader finds at a position of the index: `n` bytes from there on.
    fn read_at(file: &[u8], position: u64, n: usize) -> Vec<u8> {
        let mut plain = Vec::new();
        MultiGzDecoder::new(&file[(position >> 16) as usize..]).read_to_end(&mut plain).unwrap();
        plain[(position & 0xffff) as usize..][..n].to_vec()
    }

    #[test]
    fn each_tile_is_where_the_index_says() {
        let spec = RunSpec { clusters_per_tile: 50_000, ..RunSpec::preset(Family::NextSeq, Size::Tiny) };
        let (file, index) = base_calls(&spec, 2, 3);
        assert!(file.ends_with(&END));
        let tiles = spec.tiles_of_lane(2);
        assert_eq!(index.len(), 8 + 8 * tiles.len());
        for (tile, place) in tiles.into_iter().zip(index[8..].chunks(8)) {
            let position = u64::from_le_bytes(place.try_into().unwrap());
            assert_eq!(read_at(&file, position, 50_000), bases::calls(&spec, 2, tile, 3));
        }
    }

    proptest! {
        #[test]
        fn blocks_hold_what_was_written(pieces in proptest::collection::vec(0usize..70_000, 0..5), seed: u64) {
            let mut stream = crate::random::Stream::new(seed, &[]);
            let mut blocks = Blocks::default();
            let mut plain = Vec::new();
            for n in pieces {
                let piece = stream.bytes(n);
                blocks.write(&piece);
                plain.extend(piece);
            }
            let mut read = Vec::new();
            MultiGzDecoder::new(&blocks.finish()[..]).read_to_end(&mut read).unwrap();
            prop_assert_eq!(read, plain);
        }
    }

    #[test]
    fn gzip_round_trip() {
        let mut read = Vec::new();
        GzDecoder::new(&gzip(b"ACGT")[..]).read_to_end(&mut read).unwrap();
        assert_eq!(read, b"ACGT");
    }
}
