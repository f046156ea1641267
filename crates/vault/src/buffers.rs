//! Buffers for bytes on their way through a request.
//!
//! The one given back last is the next to be given out: whichever thread of many works, it finds a
//! buffer that is still in the processor's caches, and there are no more of them than requests that
//! were under way at one time.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers kept for later, where nothing else is said: a request has at most one of such a pool.
const KEPT: usize = 16;

/// Every pool that has given out a buffer.
static POOLS: Mutex<Vec<&'static Pool>> = Mutex::new(Vec::new());
/// How often all pools were emptied.
static EMPTIED: AtomicU64 = AtomicU64::new(0);

/// Gives the memory of all pools back: what requests have left in it is of a run that has no place here any more.
/// A buffer that is in use goes when it is given back.
pub(crate) fn empty_all() {
    EMPTIED.fetch_add(1, Ordering::SeqCst);
    let pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    pools.iter().for_each(|pool| drop(std::mem::take(&mut pool.kept().free)));
}

/// Buffers of one kind: what one holds when it is given out is left from another request, so that
/// plaintext and ciphertext have pools of their own.
pub struct Pool {
    kept: Mutex<Kept>,
    most: usize,
}

struct Kept {
    free: Vec<Vec<u8>>,
    /// It is among [`POOLS`].
    known: bool,
}

impl Pool {
    /// Without any buffer.
    #[expect(clippy::new_without_default, reason = "made as a static")]
    pub const fn new() -> Self {
        Self::keeping(KEPT)
    }

    /// Of which no more than `most` are kept.
    pub(crate) const fn keeping(most: usize) -> Self {
        Self { kept: Mutex::new(Kept { free: Vec::new(), known: false }), most }
    }

    /// A buffer of at least `len` bytes, their content undefined.
    pub fn take(&'static self, len: usize) -> Buffer {
        let emptied = EMPTIED.load(Ordering::SeqCst);
        let (free, new) = {
            let mut kept = self.kept();
            (kept.free.pop(), !std::mem::replace(&mut kept.known, true))
        };
        if new {
            POOLS.lock().unwrap_or_else(PoisonError::into_inner).push(self);
        }
        let mut bytes = free.unwrap_or_default();
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        Buffer { pool: self, emptied, bytes }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer of a pool, to which it goes back.
pub struct Buffer {
    pool: &'static Pool,
    /// [`EMPTIED`] when it was given out.
    emptied: u64,
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
        // Looked at under the lock, which whoever empties the pool takes after it has counted.
        if kept.free.len() < self.pool.most && self.emptied == EMPTIED.load(Ordering::SeqCst) {
            kept.free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one empties is also the other's.
    static ONE: Mutex<()> = Mutex::new(());

    #[test]
    fn the_last_one_given_back_is_given_out_first() {
        static POOL: Pool = Pool::new();
        let _one = ONE.lock();
        let (first, second) = (POOL.take(10), POOL.take(20));
        let last = second.as_ptr();
        drop(first);
        drop(second);
        let again = POOL.take(5);
        assert_eq!((again.as_ptr(), again.len()), (last, 20));
        assert_eq!(POOL.take(30).len(), 30);
        drop((0..KEPT + 5).map(|_| POOL.take(1)).collect::<Vec<_>>());
        assert_eq!(POOL.kept().free.len(), KEPT);
    }

    #[test]
    fn what_is_emptied_is_not_given_out_again() {
        static POOL: Pool = Pool::new();
        let _one = ONE.lock();
        let (mut free, mut used) = (POOL.take(10), POOL.take(10));
        free.fill(1);
        used.fill(2);
        drop(free);
        empty_all();
        assert!(POOL.kept().free.is_empty());
        drop(used);
        assert!(POOL.kept().free.is_empty(), "it was given out before");
        assert_eq!(**POOL.take(10), [0; 10]);
    }
}
