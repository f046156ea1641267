//! Sets of chunk numbers, kept as disjoint extents: a sparse file of terabytes costs a few words.

use std::collections::BTreeMap;
use std::ops::Range;

use runvault_format::state_slot::Extent;

/// A set of chunk numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extents(BTreeMap<u64, u64>); // start -> end, disjoint and not adjacent

impl Extents {
    pub(crate) fn from_slot(list: &[Extent]) -> Self {
        let mut set = Self::default();
        for e in list {
            set.insert(e.first..e.first.saturating_add(e.count));
        }
        set
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains(&self, chunk: u64) -> bool {
        self.covering(chunk).is_some()
    }

    /// The extent that holds `chunk`.
    pub(crate) fn covering(&self, chunk: u64) -> Option<Range<u64>> {
        let (&start, &end) = self.0.range(..=chunk).next_back()?;
        (chunk < end).then_some(start..end)
    }

    /// The first extent that ends after `chunk`.
    pub(crate) fn next_from(&self, chunk: u64) -> Option<Range<u64>> {
        self.covering(chunk).or_else(|| self.0.range(chunk..).next().map(|(&s, &e)| s..e))
    }

    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let mut new = range;
        // Everything that touches the new range melts into it.
        while let Some((&start, &end)) = self.0.range(..=new.end).next_back() {
            if end < new.start {
                break;
            }
            new.start = new.start.min(start);
            new.end = new.end.max(end);
            self.0.remove(&start);
        }
        self.0.insert(new.start, new.end);
    }

    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&start, &end)) = self.0.range(..range.end).next_back() {
            if end <= range.start {
                break;
            }
            self.0.remove(&start);
            if range.end < end {
                self.0.insert(range.end, end);
            }
            if start < range.start {
                self.0.insert(start, range.start);
            }
        }
    }

    /// Forgets everything from `chunk` on.
    pub(crate) fn truncate(&mut self, chunk: u64) {
        self.remove(chunk..u64::MAX);
    }

    pub(crate) fn subtract(&mut self, other: &Extents) {
        for (&start, &end) in &other.0 {
            self.remove(start..end);
        }
    }

    /// How many extents.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn intersects(&self, other: &Extents) -> bool {
        other.iter().any(|e| self.next_from(e.start).is_some_and(|own| own.start < e.end))
    }

    /// Whether all of `range` is in the set.
    pub(crate) fn covers(&self, range: &Range<u64>) -> bool {
        self.covering(range.start).is_some_and(|own| range.end <= own.end)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(&s, &e)| s..e)
    }

    /// At most `limit` extents that cover the set: the smallest gaps are listed along.
    ///
    /// A listed chunk that authenticates is data all the same, so listing too much costs tamper
    /// evidence in an open run, never bytes.
    pub(crate) fn to_slot(&self, limit: usize) -> Vec<Extent> {
        let mut list: Vec<(u64, u64)> = self.0.iter().map(|(&s, &e)| (s, e)).collect();
        if list.len() > limit {
            let starts = list.iter().skip(1);
            let mut gaps: Vec<u64> = list.iter().zip(starts).map(|(a, b)| b.0 - a.1).collect();
            let excess = list.len() - limit;
            gaps.sort_unstable();
            let widest_merged = gaps.get(excess - 1).copied().unwrap_or(u64::MAX);
            let mut left = excess;
            let mut merged: Vec<(u64, u64)> = Vec::with_capacity(limit);
            for extent in list {
                match merged.last_mut() {
                    Some(last) if left > 0 && extent.0 - last.1 <= widest_merged => {
                        last.1 = extent.1;
                        left -= 1;
                    }
                    _ => merged.push(extent),
                }
            }
            list = merged;
        }
        list.into_iter().map(|(s, e)| Extent { first: s, count: e - s }).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64, u64),
        Remove(u64, u64),
        Truncate(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0u64..60, 0u64..12).prop_map(|(a, n)| Op::Insert(a, a + n)),
            (0u64..60, 0u64..12).prop_map(|(a, n)| Op::Remove(a, a + n)),
            (0u64..60).prop_map(Op::Truncate),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(ops in prop::collection::vec(op(), 0..60), limit in 1usize..6) {
            let mut set = Extents::default();
            let mut model = BTreeSet::new();
            for op in ops {
                match op {
                    Op::Insert(a, b) => { set.insert(a..b); model.extend(a..b); }
                    Op::Remove(a, b) => { set.remove(a..b); model.retain(|x| !(a..b).contains(x)); }
                    Op::Truncate(a) => { set.truncate(a); model.retain(|x| *x < a); }
                }
                for chunk in 0..80 {
                    prop_assert_eq!(set.contains(chunk), model.contains(&chunk));
                }
                let ends: Vec<_> = set.iter().collect();
                prop_assert!(ends.windows(2).all(|w| w[0].end < w[1].start));
                let listed = set.to_slot(limit);
                prop_assert!(listed.len() <= limit);
                let covered = Extents::from_slot(&listed);
                prop_assert!(model.iter().all(|x| covered.contains(*x)));
            }
        }
    }
}
