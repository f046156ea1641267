//! What fuser lends of a request: names and bytes in the buffer that its thread reads requests into.

/// Wipes what a request brought, once it was answered. A thread keeps its buffer for as long as the mount is there,
/// and the next request overwrites no more than its own length: what it last wrote would outlive the seal of its run.
pub(super) fn wipe(lent: &[u8]) {
    // SAFETY: the bytes are part of fuser's buffer, which it owns, and which was and will be written by read(2). Nobody
    // else refers to it: it is this thread's, and nothing of ours outlives the call that it was lent to. fuser 0.18.0
    // (Cargo.toml names this version and no other) does not look at a request again when its handler returns. The
    // function is a foreign one, so that nothing is assumed of what it leaves.
    unsafe { libc::explicit_bzero(lent.as_ptr().cast_mut().cast(), lent.len()) };
}
