//! The sealed state of a header copy, 420 bytes:
//!
//! ```text
//! seq u64 | size u64 | jskip u64 | jsession 8 | writes u64 | epoch u32 | flags u16 | holes n u16
//! | place 16 | previous place 16 | 21 x (first chunk u64, chunks u64) | zeros 4
//! ```

use crate::keys::Place;
use crate::reader::Reader;
use crate::{Error, Result};

/// Bytes of a state.
pub const LEN: usize = 420;
/// Extents that a state can list.
pub const HOLES_MAX: usize = 21;
/// Flag: the file has several links and carries no place.
pub const SEVERAL_LINKS: u16 = 1;

/// Chunks that may hold no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Number of the first chunk.
    pub first: u64,
    /// How many, at least one.
    pub count: u64,
}

/// The last word on what was durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// Counts states of the file; the newer one counts.
    pub seq: u64,
    /// A lower bound of the durable plaintext size.
    pub size: u64,
    /// Journal records of the file up to this number are in place and durable...
    pub jskip: u64,
    /// ...if their session's id begins with this.
    pub jsession: [u8; 8],
    /// Chunk writes under this epoch.
    pub writes: u64,
    /// Truncations to nothing.
    pub epoch: u32,
    /// [`SEVERAL_LINKS`] or 0.
    pub flags: u16,
    /// Where the file stands.
    pub place: Place,
    /// Where it stood before the last rename.
    pub previous: Place,
    /// At most 21, in order, not touching.
    pub holes: Vec<Extent>,
}

impl SlotState {
    /// 420 bytes.
    ///
    /// # Errors
    /// [`Error::Holes`].
    pub fn encode(&self) -> Result<[u8; LEN]> {
        check_holes(&self.holes)?;
        let mut out = Vec::with_capacity(LEN);
        for word in [self.seq, self.size, self.jskip] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.jsession);
        out.extend_from_slice(&self.writes.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.extend_from_slice(&(self.holes.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.place.0);
        out.extend_from_slice(&self.previous.0);
        for hole in &self.holes {
            out.extend_from_slice(&hole.first.to_le_bytes());
            out.extend_from_slice(&hole.count.to_le_bytes());
        }
        out.resize(LEN, 0);
        out.try_into().map_err(|_| Error::Holes)
    }

    /// Parses 420 authenticated bytes.
    ///
    /// # Errors
    /// [`Error::Holes`], [`Error::Reserved`].
    pub fn decode(bytes: &[u8; LEN]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let (seq, size, jskip) = (r.u64()?, r.u64()?, r.u64()?);
        let jsession = r.array()?;
        let writes = r.u64()?;
        let epoch = r.u32()?;
        let flags = r.u16()?;
        if flags & !SEVERAL_LINKS != 0 {
            return Err(Error::Reserved);
        }
        let n = usize::from(r.u16()?);
        if n > HOLES_MAX {
            return Err(Error::Holes);
        }
        let (place, previous) = (Place(r.array()?), Place(r.array()?));
        let mut holes = Vec::with_capacity(n);
        for _ in 0..n {
            holes.push(Extent { first: r.u64()?, count: r.u64()? });
        }
        r.zeros_to_end()?;
        check_holes(&holes)?;
        Ok(Self { seq, size, jskip, jsession, writes, epoch, flags, place, previous, holes })
    }
}

fn check_holes(holes: &[Extent]) -> Result<()> {
    let mut end = None;
    for hole in holes {
        let apart = end.is_none_or(|end| hole.first > end);
        let next = hole.first.checked_add(hole.count);
        match next {
            Some(next) if apart && hole.count > 0 => end = Some(next),
            _ => return Err(Error::Holes),
        }
    }
    if holes.len() <= HOLES_MAX { Ok(()) } else { Err(Error::Holes) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        /// Up to 21 extents with gaps between them.
        fn holes()(steps in prop::collection::vec((1u64..1 << 40, 1u64..1 << 40), 0..=HOLES_MAX)) -> Vec<Extent> {
            let mut end = 0;
            steps.into_iter().map(|(gap, count)| {
                let first = end + gap;
                end = first + count;
                Extent { first, count }
            }).collect()
        }
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_back(
            words in any::<[u64; 4]>(), jsession in any::<[u8; 8]>(), epoch in any::<u32>(), several in any::<bool>(),
            places in any::<([u8; 16], [u8; 16])>(), holes in holes(),
        ) {
            let [seq, size, jskip, writes] = words;
            let state = SlotState {
                seq, size, jskip, jsession, writes, epoch, flags: if several { SEVERAL_LINKS } else { 0 },
                place: Place(places.0), previous: Place(places.1), holes,
            };
            let bytes = state.encode().unwrap();
            let back = SlotState::decode(&bytes).unwrap();
            prop_assert_eq!(back.encode().unwrap(), bytes);
            prop_assert_eq!(back, state);
        }

        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), LEN), n in 0u8..30, plain in any::<bool>()) {
            let mut bytes: [u8; LEN] = bytes.try_into().unwrap();
            if plain {
                (bytes[44], bytes[45], bytes[46], bytes[47]) = (0, 0, n, 0);
            }
            if let Ok(state) = SlotState::decode(&bytes) {
                prop_assert_eq!(state.encode().unwrap(), bytes);
            }
        }
    }

    #[test]
    fn more_holes_than_fit() {
        let holes = (0..22).map(|i| Extent { first: 2 * i, count: 1 }).collect();
        let none = SlotState::decode(&[0; LEN]).unwrap();
        assert_eq!(SlotState { holes, ..none }.encode(), Err(Error::Holes));
    }
}
