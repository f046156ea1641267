//! A seeded stream of numbers, the same on every machine and in every build.
//!
//! SplitMix64 (Steele, Lea, Flood 2014): enough for data that must look random and be known again; never for keys.

/// The stream.
#[derive(Clone, Debug)]
pub struct Stream(u64);

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Stream {
    /// A stream that depends on the seed and on each number of the place that it is for.
    #[must_use]
    pub fn new(seed: u64, place: &[u64]) -> Self {
        let mut stream = Self(seed);
        for part in place {
            stream.0 = stream.next_u64() ^ part.wrapping_mul(GOLDEN);
        }
        stream
    }

    /// The next number.
    #[must_use]
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next `n` bytes.
    #[must_use]
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(n + 8);
        while bytes.len() < n {
            bytes.extend_from_slice(&self.next_u64().to_le_bytes());
        }
        bytes.truncate(n);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_the_published_ones_and_differ_by_place() {
        // First outputs of SplitMix64 for the seed 1234567, as its authors' program prints them.
        let mut stream = Stream::new(1_234_567, &[]);
        assert_eq!(stream.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(stream.next_u64(), 3_203_168_211_198_807_973);
        assert_ne!(Stream::new(1, &[1, 2]).bytes(16), Stream::new(1, &[2, 1]).bytes(16));
        assert_eq!(Stream::new(1, &[1]).bytes(9)[..5], Stream::new(1, &[1]).bytes(5)[..]);
    }
}
