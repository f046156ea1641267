//! How plaintext sizes and stored lengths follow from each other.
//!
//! Sizes and chunk numbers may come from a store: what would pass 2^64 stays at its end.

use crate::{Error, Result};

/// Bytes of one header copy: one sector.
pub const COPY: u64 = 512;
/// Bytes of both header copies.
pub const HEADER: u64 = 2 * COPY;
/// Nonce and tag of a chunk.
pub const OVERHEAD: u64 = 28;
/// Plaintext bytes of a chunk in new runs: 2^13.
pub const DEFAULT_LOG2: u8 = 13;
/// Least and greatest chunk size that is accepted: 512 bytes, 1 MiB.
pub const LOG2_BOUNDS: std::ops::RangeInclusive<u8> = 9..=20;
/// No file is longer: 2^60 bytes, so that no sum of offsets overflows.
const MAX_SIZE: u64 = 1 << 60;

/// The chunk size of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    log2: u8,
}

impl Default for Geometry {
    fn default() -> Self {
        Self { log2: DEFAULT_LOG2 }
    }
}

impl Geometry {
    /// Chunks of 2^`log2` plaintext bytes.
    ///
    /// # Errors
    /// [`Error::ChunkSize`].
    pub fn new(log2: u8) -> Result<Self> {
        if LOG2_BOUNDS.contains(&log2) { Ok(Self { log2 }) } else { Err(Error::ChunkSize(log2)) }
    }

    /// log2 of the chunk size.
    pub fn log2(&self) -> u8 {
        self.log2
    }

    /// C: plaintext bytes of a whole chunk.
    pub fn chunk(&self) -> u64 {
        1 << self.log2
    }

    /// Stored bytes of a whole chunk.
    pub fn stored_chunk(&self) -> u64 {
        self.chunk() + OVERHEAD
    }

    /// The largest plaintext size.
    pub fn max_size(&self) -> u64 {
        MAX_SIZE
    }

    /// L(P): the stored length of `plain` bytes; an empty file stores nothing.
    pub fn stored_len(&self, plain: u64) -> u64 {
        if plain == 0 { 0 } else { self.stored_len_with_header(plain) }
    }

    /// L(P), where an empty file keeps its header.
    pub fn stored_len_with_header(&self, plain: u64) -> u64 {
        let (whole, rest) = (plain / self.chunk(), plain % self.chunk());
        let tail = if rest > 0 { rest + OVERHEAD } else { 0 };
        whole.saturating_mul(self.stored_chunk()).saturating_add(HEADER + tail)
    }

    /// The plaintext size of a stored length.
    ///
    /// # Errors
    /// [`Error::ImpossibleLength`].
    pub fn plain_len(&self, stored: u64) -> Result<u64> {
        let plain = self.plain_len_floor(stored).ok_or(Error::ImpossibleLength)?;
        let exact = stored == 0 || stored == self.stored_len_with_header(plain);
        if exact { Ok(plain) } else { Err(Error::ImpossibleLength) }
    }

    /// The plaintext size of the largest legal length that is not above `stored`; `None` for 1 to
    /// 1,023 bytes, which hold no header.
    pub fn plain_len_floor(&self, stored: u64) -> Option<u64> {
        if stored == 0 {
            return Some(0);
        }
        let body = stored.checked_sub(HEADER)?;
        let (whole, rest) = (body / self.stored_chunk(), body % self.stored_chunk());
        Some((whole * self.chunk() + rest.saturating_sub(OVERHEAD)).min(MAX_SIZE))
    }

    /// Where chunk `i` is stored.
    pub fn chunk_offset(&self, i: u64) -> u64 {
        i.saturating_mul(self.stored_chunk()).saturating_add(HEADER)
    }

    /// The chunk that stored offset `at` lies in; 0 within the header.
    pub fn chunk_at(&self, at: u64) -> u64 {
        at.saturating_sub(HEADER) / self.stored_chunk()
    }

    /// Plaintext bytes of chunk `i` in a file of `size` bytes.
    pub fn chunk_len(&self, i: u64, size: u64) -> usize {
        size.saturating_sub(i.saturating_mul(self.chunk())).min(self.chunk()) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn worked_lengths() {
        let g = Geometry::default();
        for (plain, stored) in [(0, 0), (1, 1053), (8192, 9244), (8193, 9273), (65536, 66784)] {
            assert_eq!(g.stored_len(plain), stored);
            assert_eq!(g.plain_len(stored), Ok(plain));
        }
        assert_eq!(g.plain_len(1024), Ok(0));
        for impossible in [1, 1023, 1025, 1052, 9245, 9272] {
            assert_eq!(g.plain_len(impossible), Err(Error::ImpossibleLength));
        }
        assert_eq!(Geometry::new(8), Err(Error::ChunkSize(8)));
        assert_eq!(Geometry::new(21), Err(Error::ChunkSize(21)));
    }

    proptest! {
        #[test]
        fn lengths_invert(plain in 0u64..=1 << 60, log2 in 9u8..=20, cut in 0u64..2_000_000) {
            let g = Geometry::new(log2).unwrap();
            prop_assert_eq!(g.plain_len(g.stored_len(plain)), Ok(plain));
            // A cut file counts as the largest legal one below.
            let stored = g.stored_len(plain).saturating_sub(cut);
            if let Some(floor) = g.plain_len_floor(stored) {
                prop_assert!(floor <= plain);
                prop_assert!(stored == 0 || g.stored_len_with_header(floor) <= stored);
            }
        }

        #[test]
        fn any_length_is_answered(stored in any::<u64>(), log2 in 9u8..=20) {
            let g = Geometry::new(log2).unwrap();
            let _ = g.plain_len(stored);
            // Sizes and chunk numbers that a header can name.
            prop_assert!(g.stored_len(stored) >= stored.min(1));
            prop_assert!(g.chunk_offset(stored) >= HEADER && g.chunk_at(stored) <= stored);
            prop_assert!(g.chunk_len(stored, u64::MAX) as u64 <= g.chunk());
        }
    }
}
