//! A map from numbers to nodes, for millions of them: nodes side by side in one growing array, and
//! an index of four bytes each. Growing moves no node, and costs no memory that stands empty.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use hashbrown::HashTable;
use slab::Slab;

use crate::api::Ino;

/// What has a number of its own.
pub(crate) trait Numbered {
    fn ino(&self) -> Ino;
}

/// Nodes by number.
pub(crate) struct NodeMap<T> {
    nodes: Slab<T>,
    index: HashTable<u32>,
    hasher: RandomState,
}

impl<T> Default for NodeMap<T> {
    fn default() -> Self {
        Self { nodes: Slab::new(), index: HashTable::new(), hasher: RandomState::new() }
    }
}

impl<T: Numbered> NodeMap<T> {
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Places that hold a node or may hold one.
    pub(crate) fn places(&self) -> usize {
        self.nodes.capacity()
    }

    /// The nodes at some places; a new node takes one that is free, the last that became so first.
    pub(crate) fn within(&self, places: Range<usize>) -> impl Iterator<Item = &T> {
        places.filter_map(|at| self.nodes.get(at))
    }

    fn at(&self, ino: Ino) -> Option<usize> {
        let same = |at: &u32| self.nodes.get(*at as usize).is_some_and(|node| node.ino() == ino);
        self.index.find(self.hasher.hash_one(ino), same).map(|at| *at as usize)
    }

    pub(crate) fn get(&self, ino: Ino) -> Option<&T> {
        self.nodes.get(self.at(ino)?)
    }

    pub(crate) fn get_mut(&mut self, ino: Ino) -> Option<&mut T> {
        let at = self.at(ino)?;
        self.nodes.get_mut(at)
    }

    /// Puts a node in whose number is not there yet. Beyond 2^32 of them it is not kept: it is stale
    /// to whoever asks for it.
    pub(crate) fn insert(&mut self, node: T) {
        let Ok(at) = u32::try_from(self.nodes.vacant_key()) else { return };
        let hash = self.hasher.hash_one(node.ino());
        self.nodes.insert(node);
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        let rehash = |at: &u32| nodes.get(*at as usize).map_or(0, |node| hasher.hash_one(node.ino()));
        self.index.insert_unique(hash, at, rehash);
    }

    pub(crate) fn remove(&mut self, ino: Ino) -> Option<T> {
        let nodes = &self.nodes;
        let same = |at: &u32| nodes.get(*at as usize).is_some_and(|node| node.ino() == ino);
        let (at, _) = self.index.find_entry(self.hasher.hash_one(ino), same).ok()?.remove();
        self.nodes.try_remove(at as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    impl Numbered for (Ino, u8) {
        fn ino(&self) -> Ino {
            self.0
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map(acts in prop::collection::vec((any::<bool>(), 0u64..40, any::<u8>()), 0..400)) {
            let (mut map, mut model) = (NodeMap::default(), HashMap::new());
            for (put, ino, value) in acts {
                if !put {
                    prop_assert_eq!(map.remove(ino).map(|(_, value)| value), model.remove(&ino));
                } else if let Some(node) = map.get_mut(ino) {
                    node.1 = value;
                    model.insert(ino, value);
                } else {
                    map.insert((ino, value));
                    prop_assert_eq!(model.insert(ino, value), None);
                }
                prop_assert_eq!(map.len(), model.len());
                prop_assert!((0..40).all(|ino| map.get(ino).map(|node| &node.1) == model.get(&ino)));
            }
        }
    }
}
