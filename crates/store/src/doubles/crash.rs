//! The stores that a power cut may leave, made from what a [`super::recording`] noted.
//!
//! What a disk is taken to do, as docs/format.md assumes it:
//!
//! * Before the sync that covers it, any *subset* of the changes of a file's data may have arrived, in
//!   order: each whole, torn at sectors or at pages, as its length alone, or not at all. A sector of
//!   512 bytes is old or new. A length that grew may have stopped at a page's border.
//! * Names of a directory arrive in order; each directory stopped somewhere, a rename between two
//!   arrived in both or in neither.
//! * fdatasync covers data and length, fsync attributes too; neither covers the file's name. fsync of a
//!   directory covers its names and, of what moved between it and others, what came before there.
//!   syncfs covers all.

mod apply;
mod fate;

use std::io::Result;
use std::sync::Arc;

use self::apply::{Names, Step};
pub use self::fate::{Chooser, Draw, Every, Stripes};
use super::errno;
use super::memory::MemoryDir;
use super::memory::tree::Tree;
use super::observe::Change;
use crate::backend::Dir;

/// A disk and the cache in front of it.
#[derive(Clone)]
pub struct Disk {
    /// All that was done.
    live: Tree,
    /// What no power cut takes away.
    durable: Tree,
    pending: Vec<Pending>,
}

#[derive(Clone)]
enum Pending {
    Data(Arc<Change<'static>>),
    Attribute { ino: u64, change: Arc<Change<'static>> },
    Names(Names),
}

impl Disk {
    /// A disk on which everything in a memory store is durable.
    ///
    /// # Errors
    /// EINVAL for another kind of store.
    pub fn of(store: &dyn Dir) -> Result<Self> {
        let memory = store.as_any().downcast_ref::<MemoryDir>().ok_or_else(|| errno(libc::EINVAL))?;
        let tree = memory.tree();
        Ok(Self { live: tree.clone(), durable: tree, pending: Vec::new() })
    }

    /// What a process sees now, also one that was started after a kill -9 of the one before.
    pub fn live(&self) -> Arc<dyn Dir> {
        MemoryDir::of(self.live.clone())
    }

    /// How many changes no sync has covered.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// One more of the noted changes was made.
    ///
    /// # Errors
    /// When it does not fit what came before.
    pub fn advance(&mut self, change: &Change<'static>) -> Result<()> {
        match change {
            Change::SyncFile { ino, data_only } => self.settle(|pending| match pending {
                Pending::Data(change) => apply::data_ino(change) == Some(*ino),
                Pending::Attribute { ino: of, .. } => of == ino && !data_only,
                Pending::Names(_) => false,
            }),
            Change::SyncDir { ino } => {
                let covered = self.covered_names(*ino);
                let mut i = 0;
                self.settle(|pending| {
                    i += 1;
                    match pending {
                        Pending::Data(_) => false,
                        Pending::Attribute { ino: of, .. } => of == ino,
                        Pending::Names(_) => covered.contains(&(i - 1)),
                    }
                })
            }
            Change::SyncFs => self.settle(|_| true),
            change => self.add(change),
        }
    }

    fn add(&mut self, change: &Change<'static>) -> Result<()> {
        if let Change::Create { ino, made, dir, .. } = change {
            let node = apply::made(made, self.live.node(*dir)?);
            self.durable.add_as(*ino, node.clone());
            self.live.add_as(*ino, node);
        }
        let pending = if apply::data_ino(change).is_some() {
            Pending::Data(Arc::new(change.clone()))
        } else if let Some(ino) = apply::attribute_ino(change, &self.live)? {
            Pending::Attribute { ino, change: Arc::new(change.clone()) }
        } else {
            Pending::Names(Names::of(change, &self.live)?)
        };
        pending.arrive(&mut self.live)?;
        self.pending.push(pending);
        Ok(())
    }

    /// Moves what is covered to the durable tree, in order.
    fn settle(&mut self, mut covered: impl FnMut(&Pending) -> bool) -> Result<()> {
        let mut left = Vec::with_capacity(self.pending.len());
        for pending in std::mem::take(&mut self.pending) {
            if covered(&pending) {
                pending.arrive(&mut self.durable)?;
            } else {
                left.push(pending);
            }
        }
        self.pending = left;
        Ok(())
    }

    /// Indices of the changes of names that are durable once directory `ino` is.
    fn covered_names(&self, ino: u64) -> Vec<usize> {
        let mut covered = Vec::new();
        let mut dirs = vec![ino];
        for (i, pending) in self.pending.iter().enumerate().rev() {
            if let Pending::Names(names) = pending
                && names.dirs().any(|dir| dirs.contains(&dir))
            {
                dirs.extend(names.dirs());
                covered.push(i);
            }
        }
        covered
    }

    /// One of the stores that a power cut may leave now.
    ///
    /// # Errors
    /// When the notes do not fit together.
    pub fn cut(&self, chooser: &mut dyn Chooser) -> Result<Arc<dyn Dir>> {
        let mut tree = self.durable.clone();
        let mut stops = Stops::default();
        for pending in &self.pending {
            match pending {
                Pending::Data(change) => apply::data(&mut tree, change, chooser)?,
                Pending::Attribute { .. } => {
                    if fate::arrives(chooser) {
                        pending.arrive(&mut tree)?;
                    }
                }
                Pending::Names(names) => {
                    if stops.lets_pass(names, chooser) {
                        names.apply(&mut tree)?;
                    }
                }
            }
        }
        Ok(MemoryDir::of(tree))
    }
}

impl Pending {
    /// Happens in full.
    fn arrive(&self, tree: &mut Tree) -> Result<()> {
        match self {
            Self::Data(change) => apply::data(tree, change, &mut fate::Full),
            Self::Attribute { ino, change } => apply::attribute(tree, *ino, change),
            Self::Names(names) => names.apply(tree),
        }
    }
}

/// Directories of which no further change arrives.
#[derive(Default)]
struct Stops(Vec<u64>);

impl Stops {
    fn lets_pass(&mut self, names: &Names, chooser: &mut dyn Chooser) -> bool {
        let stopped = names.dirs().any(|dir| self.0.contains(&dir));
        if !stopped && fate::arrives(chooser) {
            return true;
        }
        self.0.extend(names.dirs());
        false
    }
}

impl Names {
    fn dirs(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().map(|step| match step {
            Step::Enter { dir, .. } | Step::Leave { dir, .. } => *dir,
        })
    }
}
