//! Numbers that follow from a seed: the same at each run.

/// xorshift.
pub struct Dice(u64);

impl Dice {
    /// Those of one of several threads.
    pub fn of(seed: u64, me: u64) -> Self {
        Self((seed ^ me.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}
