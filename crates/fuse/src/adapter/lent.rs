//! What fuser lends of a request: names and bytes in the buffer that its thread reads requests into.

/// Wipes what a request brought, once it was answered. A thread keeps its buffer for as long as the mount is there,
/// and the next request overwrites no more than its own length: what it last wrote would outlive the seal of its run.
pub(super) fn wipe(lent: &[u8]) {
    // SAFETY: Rust promises nothing for a write under a shared reference, so this rests on fuser 0.18.0, the one version
    // that Cargo.toml allows. The bytes lie in the buffer of this thread alone, which fuser owns, lent to read(2) as
    // mutable before and lends it again next; it looks at a request no more once its handler returns, and nothing of
    // ours outlives the call. The function is a foreign one, so that the compiler assumes nothing of what it leaves.
    unsafe { libc::explicit_bzero(lent.as_ptr().cast_mut().cast(), lent.len()) };
}
