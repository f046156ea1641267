//! A slot lists at most 21 holes. Small ones beyond that are written as zeros; where all are
//! large, the smallest gaps between them are listed along.

use super::FileObject;
use super::batch::Batch;
use super::state::State;
use runvault_format::state_slot::HOLES_MAX;
use std::ops::Range;

use crate::Result;

/// Plaintext bytes of the largest hole that is filled to shorten the list. What is listed along
/// instead is data all the same where it authenticates, but damage to it reads as zeros.
const FILLED_AT_MOST: u64 = 4 << 20;

impl FileObject {
    /// Has the list of holes fit into a slot.
    pub(super) fn bound_holes(&self, state: &mut State) -> Result<()> {
        if state.listed_holes().len() <= HOLES_MAX {
            return Ok(());
        }
        for hole in self.dispensable_holes(state) {
            self.fill(state, hole)?;
        }
        if state.filled.intersects(&state.acknowledged) {
            // They leave the list one sync after their data.
            self.sync_file(state)?;
        }
        Ok(())
    }

    /// The smallest holes, as many as are too many; never one whose data may still be wanted.
    fn dispensable_holes(&self, state: &State) -> Vec<Range<u64>> {
        let (bare, chunk) = (state.bare_holes(), self.run.geometry.chunk());
        let excess = bare.len().saturating_sub(HOLES_MAX);
        if excess == 0 {
            return Vec::new();
        }
        let may_be_filled = |hole: &Range<u64>| {
            let was_never_data = state.acknowledged.covers(hole) || hole.start * chunk >= state.durable;
            was_never_data && (hole.end - hole.start).saturating_mul(chunk) <= FILLED_AT_MOST
        };
        let mut dispensable: Vec<_> = bare.iter().filter(may_be_filled).collect();
        dispensable.sort_by_key(|hole| hole.end - hole.start);
        dispensable.truncate(excess);
        dispensable
    }

    fn fill(&self, state: &mut State, hole: Range<u64>) -> Result<()> {
        let zeros = vec![0u8; self.run.geometry.chunk() as usize];
        let mut batch = Batch::of(usize::try_from(hole.end - hole.start).unwrap_or(1));
        for i in hole {
            self.examine(state, i)?;
            if state.is_bare_hole(i) {
                let len = self.run.geometry.chunk_len(i, state.size);
                self.batch_chunk(state, &mut batch, i, zeros.get(..len).unwrap_or(&zeros))?;
            }
        }
        self.flush_batch(state, &mut batch)
    }
}
