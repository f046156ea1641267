//! Buffers for bytes on their way through a request.
//!
//! The one given back last is the next to be given out: whichever thread of many works, it finds a
//! buffer that is still in the processor's caches, and there are no more of them than requests that
//! were under way at one time.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers kept for later, where nothing else is said: a request has at most one of such a pool.
const KEPT: usize = 16;

/// Buffers of one kind: what one holds when it is given out is left from another request, so that
/// plaintext and ciphertext have pools of their own.
pub struct Pool {
    kept: Mutex<Vec<Vec<u8>>>,
    most: usize,
}

impl Pool {
    /// Without any buffer.
    #[expect(clippy::new_without_default, reason = "made as a static")]
    pub const fn new() -> Self {
        Self::keeping(KEPT)
    }

    /// Of which no more than `most` are kept.
    pub(crate) const fn keeping(most: usize) -> Self {
        Self { kept: Mutex::new(Vec::new()), most }
    }

    /// A buffer of at least `len` bytes, their content undefined.
    pub fn take(&'static self, len: usize) -> Buffer {
        let mut bytes = self.kept().pop().unwrap_or_default();
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        Buffer { pool: self, bytes }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer of a pool, to which it goes back.
pub struct Buffer {
    pool: &'static Pool,
    bytes: Vec<u8>,
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut kept = self.pool.kept();
        if kept.len() < self.pool.most {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_given_back_is_given_out_first() {
        static POOL: Pool = Pool::new();
        let (first, second) = (POOL.take(10), POOL.take(20));
        let last = second.as_ptr();
        drop(first);
        drop(second);
        let again = POOL.take(5);
        assert_eq!((again.as_ptr(), again.len()), (last, 20));
        assert_eq!(POOL.take(30).len(), 30);
        drop((0..KEPT + 5).map(|_| POOL.take(1)).collect::<Vec<_>>());
        assert_eq!(POOL.kept().len(), KEPT);
    }
}
