//! Chunks on their way into the journal and from there into place: sealed once, side by side.

use std::ops::Range;

use runvault_crypto::random::Nonces;

use crate::Result;
use crate::buffers::{Buffer, Pool};

/// Ciphertext only. As large as what an overlay holds: few are kept.
static STORED: Pool = Pool::keeping(2);

/// Chunks of one file, in the order of their numbers.
pub(crate) struct Redos {
    /// The first `used` bytes are chunks as they will be stored.
    stored: Buffer,
    used: usize,
    nonces: Nonces,
    list: Vec<Redo>,
}

struct Redo {
    chunk: u64,
    size_after: Option<u64>,
    at: Range<usize>,
}

impl Redos {
    /// For about so many chunks, of so many stored bytes together.
    pub(crate) fn of(chunks: usize, bytes: usize) -> Self {
        Self { stored: STORED.take(bytes), used: 0, nonces: Nonces::new(chunks), list: Vec::new() }
    }

    /// Adds a chunk of `len` stored bytes, which `seal` writes. `size_after`: the file's size where it is the partial
    /// last one.
    pub(crate) fn add(
        &mut self,
        chunk: u64,
        size_after: Option<u64>,
        len: usize,
        seal: impl FnOnce(&mut Nonces, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let at = self.used..self.used + len;
        if self.stored.len() < at.end {
            self.stored.resize(at.end, 0);
        }
        seal(&mut self.nonces, self.stored.get_mut(at.clone()).unwrap_or_default())?;
        self.used = at.end;
        self.list.push(Redo { chunk, size_after, at });
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Their numbers.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = u64> {
        self.list.iter().map(|redo| redo.chunk)
    }

    /// The sizes after those that are partial.
    pub(crate) fn sizes_after(&self) -> impl Iterator<Item = u64> {
        self.list.iter().filter_map(|redo| redo.size_after)
    }

    /// Number, size after, stored bytes of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, Option<u64>, &[u8])> {
        self.list.iter().map(|redo| (redo.chunk, redo.size_after, self.bytes(&redo.at)))
    }

    /// Runs of chunks that stand beside each other in the file too: the first one's number, and all their bytes.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.list.chunk_by(|one, next| one.chunk + 1 == next.chunk).filter_map(|run| {
            let (first, last) = (run.first()?, run.last()?);
            Some((first.chunk, self.bytes(&(first.at.start..last.at.end))))
        })
    }

    fn bytes(&self, at: &Range<usize>) -> &[u8] {
        self.stored.get(at.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_go_out_together() {
        let mut redos = Redos::of(4, 2);
        for (chunk, size_after) in [(3, None), (4, None), (6, None), (7, Some(99))] {
            let fill = |_: &mut Nonces, out: &mut [u8]| {
                out.fill(chunk as u8);
                Ok(())
            };
            redos.add(chunk, size_after, 2, fill).unwrap();
        }
        assert_eq!(redos.runs().collect::<Vec<_>>(), [(3, &[3, 3, 4, 4][..]), (6, &[6, 6, 7, 7])]);
        assert_eq!(redos.iter().last(), Some((7, Some(99), &[7, 7][..])));
        assert_eq!((redos.len(), redos.sizes_after().collect::<Vec<_>>()), (4, vec![99]));
    }
}
