//! What an earlier `verify` or `scrub` of the same seal has read and found as it was sealed: it is not read again.

/// What is kept of it, by whoever keeps it. Objects go by their number in the seal: lines of the digests, or entries
/// of the manifest.
pub trait Checked: Sync {
    /// So many there are.
    fn of(&self, objects: usize);
    /// Whether this one was read before, and found as it was sealed.
    fn has(&self, number: usize) -> bool;
    /// It was read now, so many bytes, and found as it was sealed.
    fn note(&self, number: usize, bytes: u64);
}

/// Nothing is kept, and all is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anew;

impl Checked for Anew {
    fn of(&self, _objects: usize) {}
    fn has(&self, _number: usize) -> bool {
        false
    }
    fn note(&self, _number: usize, _bytes: u64) {}
}
