//! Secrets that neither print nor linger: one locked, undumpable arena, zeroized on drop.
//!
//! The key schedules that cipher libraries expand a key into live on the ordinary heap; those
//! libraries zeroize them on drop, and [`harden_process`] keeps them out of core dumps.

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use zeroize::Zeroize;

use crate::{Result, random};

/// Bytes of one slot: the largest secret (an AES-SIV key).
const SLOT: usize = 64;
/// Bytes mapped and locked at a time.
const BLOCK: usize = 64 << 10;

/// `N` secret bytes (at most 64) in the arena.
pub struct Secret<const N: usize> {
    slot: NonNull<u8>,
}

// SAFETY: a Secret owns its slot exclusively; shared references only read it.
unsafe impl<const N: usize> Send for Secret<N> {}
// SAFETY: as above, `&Secret` gives only `&[u8; N]`.
unsafe impl<const N: usize> Sync for Secret<N> {}

impl<const N: usize> Secret<N> {
    const FITS: () = assert!(N <= SLOT);

    /// A secret that `fill` writes in its place, so that no copy is left elsewhere.
    pub fn from_fn(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let () = Self::FITS;
        let mut secret = Self { slot: take_slot() };
        fill(secret.bytes_mut());
        secret
    }

    /// Fresh random bytes.
    ///
    /// # Errors
    /// [`crate::Error::Random`].
    pub fn random() -> Result<Self> {
        let mut result = Ok(());
        let secret = Self::from_fn(|bytes| result = random::fill(bytes));
        result.map(|()| secret)
    }

    /// A copy of `bytes`; the caller wipes the original.
    pub fn copy_from(bytes: &[u8; N]) -> Self {
        Self::from_fn(|secret| secret.copy_from_slice(bytes))
    }

    /// The one way to the bytes.
    pub fn expose(&self) -> &[u8; N] {
        // SAFETY: the slot has SLOT >= N initialised bytes, is aligned for u8, and is ours.
        unsafe { self.slot.cast::<[u8; N]>().as_ref() }
    }

    fn bytes_mut(&mut self) -> &mut [u8; N] {
        // SAFETY: as in `expose`; `&mut self` makes the access exclusive.
        unsafe { self.slot.cast::<[u8; N]>().as_mut() }
    }
}

impl<const N: usize> Clone for Secret<N> {
    fn clone(&self) -> Self {
        Self::copy_from(self.expose())
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        give_slot(self.slot);
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({N} bytes)")
    }
}

struct Slot(NonNull<u8>);
// SAFETY: a free slot is plain memory that nobody refers to.
unsafe impl Send for Slot {}

static FREE: Mutex<Vec<Slot>> = Mutex::new(Vec::new());
static UNLOCKED: AtomicBool = AtomicBool::new(false);

fn take_slot() -> NonNull<u8> {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    if free.is_empty() {
        free.extend(map_block());
    }
    match free.pop() {
        Some(slot) => slot.0,
        // No mapping to be had: better an ordinary allocation, said by `memory_locked`.
        None => {
            UNLOCKED.store(true, Ordering::Relaxed);
            NonNull::from(Box::leak(Box::new([0u8; SLOT]))).cast()
        }
    }
}

fn give_slot(slot: NonNull<u8>) {
    FREE.lock().unwrap_or_else(PoisonError::into_inner).push(Slot(slot));
}

fn map_block() -> Vec<Slot> {
    // SAFETY: an anonymous private mapping of a fixed size touches no memory of ours.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            BLOCK,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    let Some(base) = NonNull::new(base.cast::<u8>()).filter(|_| base != libc::MAP_FAILED) else {
        return Vec::new();
    };
    // SAFETY: the range is the mapping just made, which is never unmapped.
    let locked = unsafe {
        libc::madvise(base.as_ptr().cast(), BLOCK, libc::MADV_DONTDUMP);
        libc::mlock(base.as_ptr().cast(), BLOCK)
    };
    if locked != 0 {
        UNLOCKED.store(true, Ordering::Relaxed);
    }
    // SAFETY: offsets below BLOCK stay inside the mapping.
    (0..BLOCK / SLOT).map(|n| Slot(unsafe { base.add(n * SLOT) })).collect()
}

/// Whether every secret so far lies in locked memory. False where RLIMIT_MEMLOCK is too low.
pub fn memory_locked() -> bool {
    drop(Secret::<1>::from_fn(|_| {}));
    !some_unlocked()
}

/// Whether some secret so far lies in memory that could not be locked. Where there was none, none does.
pub fn some_unlocked() -> bool {
    UNLOCKED.load(Ordering::Relaxed)
}

/// No core dumps, no ptrace by the same user, as much lockable memory as the hard limit gives.
pub fn harden_process() {
    // SAFETY: plain system calls on this process's own limits.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        if libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print_and_is_wiped() {
        let secret = Secret::<32>::copy_from(&[0xa5; 32]);
        assert_eq!(format!("{secret:?}"), "Secret(32 bytes)");
        // Another test may take the slot as soon as it is free: then it is tried with another secret.
        let wiped = (0..1000).find_map(|_| {
            let secret = Secret::<32>::copy_from(&[0xa5; 32]);
            let at = secret.slot;
            drop(secret);
            let free = FREE.lock().unwrap();
            let slot = free.iter().find(|slot| slot.0 == at)?;
            // SAFETY: a free slot is memory of ours, which nobody changes while the list is locked.
            Some(unsafe { *slot.0.cast::<[u8; 32]>().as_ref() })
        });
        assert_eq!(wiped, Some([0; 32]));
    }

    #[test]
    fn secrets_are_distinct() {
        let all: Vec<_> = (0..5000).map(|_| Secret::<64>::random().unwrap()).collect();
        let mut seen = std::collections::HashSet::new();
        assert!(all.iter().all(|s| seen.insert(*s.expose())));
    }
}
