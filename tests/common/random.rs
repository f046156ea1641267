//! A small generator: tests must repeat by their seed alone.

/// Numbers and bytes that follow from a seed.
pub struct Random(u64);

impl Random {
    /// The generator of a seed.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    /// 1 to `most` bytes.
    pub fn some(&mut self, most: u64) -> Vec<u8> {
        let len = 1 + self.below(most) as usize;
        self.bytes(len)
    }

    /// That many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}
