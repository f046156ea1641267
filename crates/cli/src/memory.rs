//! How the process keeps its memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Once;

use runvault_crypto::secrets;

use crate::output;

/// Blocks up to here are kept when they are freed; larger ones the system takes back at once, and clears them.
const KEPT: usize = 16 << 20;

/// The system's allocator, which gets memory back wiped: whoever has an image of the process finds nothing of what
/// is not in use any more, whatever part of the program, or crate, had it. Secrets wipe themselves.
struct Wiping;

#[global_allocator]
static MEMORY: Wiping = Wiping;

// SAFETY: all of it is the system's allocator's. `realloc` stays the trait's own: a new block, a copy, and
// `dealloc` of the old one, since the system's would leave what it copied.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() <= KEPT {
            // SAFETY: the block has that size and is the caller's until it is freed.
            unsafe { libc::explicit_bzero(block.cast(), layout.size()) };
        }
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(block, layout) }
    }
}

/// glibc gives every thread a heap of its own and each returns what it frees to the system, only to
/// ask for it again at the next request. A few heaps that keep some megabytes take half the memory
/// and fault fewer pages in. Other C libraries are left as they are.
pub(crate) fn few_heaps() {
    #[cfg(target_env = "gnu")]
    {
        const HEAPS: i32 = 4;
        // SAFETY: mallopt(3) changes numbers of the allocator's own, before other threads exist.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, HEAPS);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT as i32);
            libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT as i32);
        }
    }
}

/// Says once where a secret could not be locked in memory: the system may write it to a swap file.
pub(crate) fn warn_of_unlocked() {
    static ONCE: Once = Once::new();
    if secrets::some_unlocked() {
        ONCE.call_once(|| {
            output::warn(
                "keys could not be locked in memory, and may have gone to the swap file: raise the limit (ulimit -l, in a \
                 unit LimitMEMLOCK=), or have swap encrypted or off",
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_freed_holds_nothing() {
        // The C library may write its lists into the first words of a free block.
        const LISTS: usize = 32;
        let layout = Layout::array::<u8>(4096).unwrap();
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        let mut found = vec![1; layout.size() - LISTS];
        let left = (0..1000).find_map(|_| {
            // SAFETY: of a size that is not 0; freed once; what is read afterwards is read by the kernel.
            let at = unsafe {
                let block = MEMORY.alloc(layout);
                block.write_bytes(0xa5, layout.size());
                MEMORY.dealloc(block, layout);
                block as usize
            };
            let read = std::os::unix::fs::FileExt::read_exact_at(&memory, &mut found, (at + LISTS) as u64);
            // Another thread may have it by now.
            read.ok().filter(|()| found.iter().all(|b| *b == 0))
        });
        assert_eq!(left, Some(()));
    }
}
