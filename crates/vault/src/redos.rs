//! Chunks on their way into the journal and from there into place: sealed once, side by side.

use std::ops::Range;

use runvault_crypto::aead::AeadKey;
use runvault_crypto::random::Nonces;
use runvault_format::chunk;

use crate::buffers::{Buffer, Pool};
use crate::{Result, helpers};

/// Chunks that one core seals at a time.
const PART: usize = 16;

/// Ciphertext only. A part each, of all that an overlay holds.
static STORED: Pool = Pool::keeping(64);

/// A chunk as it will be.
pub(crate) struct Change<'a> {
    pub(crate) chunk: u64,
    /// The file's size, where it is the partial last one.
    pub(crate) size_after: Option<u64>,
    pub(crate) plain: &'a [u8],
}

/// Chunks of one file, in the order of their numbers.
#[derive(Default)]
pub(crate) struct Redos {
    parts: Vec<Part>,
}

/// Some of them, one behind the other.
pub(crate) struct Part {
    stored: Buffer,
    list: Vec<Redo>,
}

struct Redo {
    chunk: u64,
    size_after: Option<u64>,
    at: Range<usize>,
}

impl Redos {
    pub(crate) fn seal(key: &AeadKey, changes: &[Change<'_>]) -> Result<Self> {
        let parts: Vec<_> = changes.chunks(PART).collect();
        let mut redos = Self::default();
        let seal = |part: usize| Part::seal(key, parts.get(part).copied().unwrap_or_default());
        helpers::in_order(parts.len(), &seal, |part| {
            redos.parts.push(part?);
            Ok(())
        })?;
        Ok(redos)
    }

    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.list.len()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// None is empty; all but the last have as many chunks as the first.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Their numbers.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = u64> {
        self.list().map(|redo| redo.chunk)
    }

    /// The sizes after those that are partial.
    pub(crate) fn sizes_after(&self) -> impl Iterator<Item = u64> {
        self.list().filter_map(|redo| redo.size_after)
    }

    /// Runs of chunks that stand beside each other in the file too, at the most of a part: the first one's number, and
    /// all their bytes.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.parts.iter().flat_map(Part::runs)
    }

    fn list(&self) -> impl Iterator<Item = &Redo> {
        self.parts.iter().flat_map(|part| &part.list)
    }
}

impl Part {
    fn seal(key: &AeadKey, changes: &[Change<'_>]) -> Result<Self> {
        let mut stored = STORED.take(changes.iter().map(|change| change.plain.len() + chunk::OVERHEAD).sum());
        let (mut nonces, mut list, mut used) = (Nonces::new(changes.len()), Vec::new(), 0);
        for &Change { chunk, size_after, plain } in changes {
            let at = used..used + plain.len() + chunk::OVERHEAD;
            chunk::seal(key, &mut nonces, chunk, plain, stored.get_mut(at.clone()).unwrap_or_default())?;
            used = at.end;
            list.push(Redo { chunk, size_after, at });
        }
        Ok(Self { stored, list })
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Number, size after, stored bytes of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, Option<u64>, &[u8])> {
        self.list.iter().map(|redo| (redo.chunk, redo.size_after, self.bytes(&redo.at)))
    }

    fn runs(&self) -> impl Iterator<Item = (u64, &[u8])> {
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
    use runvault_crypto::aead::Engine;
    use runvault_crypto::secrets::Secret;

    use super::*;

    #[test]
    fn neighbours_go_out_together() {
        let key = Engine::Portable.key(&Secret::copy_from(&[1; 32]));
        let changes = [(3, None), (4, None), (6, None), (7, Some(99))].map(|(chunk, size_after)| Change {
            chunk,
            size_after,
            plain: &[7; 9],
        });
        let redos = Redos::seal(&key, &changes).unwrap();
        let runs: Vec<_> = redos.runs().map(|(first, stored)| (first, stored.len())).collect();
        let stored = 9 + chunk::OVERHEAD;
        assert_eq!(runs, [(3, 2 * stored), (6, 2 * stored)]);
        assert_eq!((redos.len(), redos.sizes_after().collect::<Vec<_>>()), (4, vec![99]));
    }

    #[test]
    fn what_many_cores_sealed_stands_in_its_order() {
        let key = Engine::Portable.key(&Secret::copy_from(&[1; 32]));
        let plain: Vec<[u8; 5]> = (0..5 * PART as u8 + 1).map(|i| [i; 5]).collect();
        let changes: Vec<_> =
            (0..).zip(&plain).map(|(i, plain)| Change { chunk: 2 * i, size_after: None, plain }).collect();
        let redos = Redos::seal(&key, &changes).unwrap();
        let found = redos.parts().iter().flat_map(Part::iter).map(|(chunk, _, stored)| {
            let mut plain = [0; 5];
            chunk::open(&key, chunk, stored, &mut plain).unwrap();
            (chunk, plain)
        });
        assert!(found.eq((0..).step_by(2).zip(plain.iter().copied())));
        assert!(redos.chunks().eq((0..).step_by(2).take(redos.len())));
    }
}
