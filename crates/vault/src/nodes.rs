//! The nodes that the kernel knows: which names lead to a number, and in which run it lies.
//!
//! A node lives while the kernel holds lookups of it, or while something in here needs it (an open
//! handle, a child). Its number is the backing inode's. Nothing in here waits for the store.

mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runvault_format::ids::DirId;
use runvault_format::keys::NameKey;
use runvault_format::name;
use runvault_store::backend::Kind;

use self::table::{Extra, Node, Table};
use crate::api::{Ino, ROOT};
use crate::run::Run;

/// Deeper paths are taken for a cycle; Linux's own limit by PATH_MAX is 2,048 a path.
const DEPTH_LIMIT: usize = 1 << 20;

/// Where the number 1, which is the mount's root, goes when a backing inode bears it.
const BACKING_ONE: Ino = u64::MAX - 1;

/// The node number of a backing inode.
pub(crate) fn number(backing: u64) -> Ino {
    if backing == ROOT { BACKING_ONE } else { backing }
}

/// One name of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) parent: Ino,
    /// Plaintext.
    pub(crate) text: Box<[u8]>,
}

impl Name {
    pub(crate) fn new(parent: Ino, text: &[u8]) -> Self {
        Self { parent, text: text.into() }
    }
}

/// A copy of what a node says.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) run: Arc<Run>,
    pub(crate) name: Option<Name>,
    pub(crate) dir_id: Option<DirId>,
    pub(crate) generation: u32,
    pub(crate) kind: Kind,
    pub(crate) top: bool,
}

/// What attributes are looked for by, without a copy of the name.
#[derive(Default)]
pub(crate) struct Sight {
    pub(crate) generation: u32,
    pub(crate) kind: Option<Kind>,
    /// The run whose top directory it is, unless it was removed.
    pub(crate) top_of: Option<Arc<Run>>,
}

/// How a name was come by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// It was there; `nlink` names lead to the inode.
    There { nlink: u32 },
    /// It was made just now: an inode of that number is a new one.
    Made,
    /// A further name, made by link(2).
    Linked,
}

/// All nodes of a vault.
#[derive(Default)]
pub(crate) struct Nodes(Mutex<Table>);

impl Nodes {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> u64 {
        self.table().nodes.len() as u64
    }

    pub(crate) fn known(&self, ino: Ino) -> Option<Known> {
        let table = self.table();
        let node = table.nodes.get(ino)?;
        Some(Known {
            run: node.run.clone(),
            name: node.name.clone(),
            dir_id: node.dir_id(),
            generation: node.generation,
            kind: node.kind,
            top: node.top,
        })
    }

    pub(crate) fn sight(&self, ino: Ino) -> Sight {
        let table = self.table();
        table.nodes.get(ino).map_or_else(Sight::default, |node| Sight {
            generation: node.generation,
            kind: Some(node.kind),
            top_of: (node.top && node.name.is_some()).then(|| node.run.clone()),
        })
    }

    /// Whether it is a directory of a loose run, and not its top.
    pub(crate) fn is_loose_folder(&self, ino: Ino) -> bool {
        let table = self.table();
        table.nodes.get(ino).is_some_and(|node| node.kind == Kind::Dir && !node.top && node.run.is_loose())
    }

    /// Every name that is known to lead to the node.
    pub(crate) fn names(&self, ino: Ino) -> Vec<Name> {
        let table = self.table();
        table.nodes.get(ino).map_or_else(Vec::new, |n| n.name.iter().chain(n.links()).cloned().collect())
    }

    /// Notes that `name` leads to the node, with one more lookup of the kernel; gives its generation.
    pub(crate) fn register(&self, ino: Ino, kind: Kind, run: &Arc<Run>, name: Name, found: Found) -> u32 {
        let mut table = self.table();
        match table.nodes.get(ino) {
            None => {
                table.pin(name.parent);
                table.nodes.insert(Node { name: Some(name), lookups: 1, ..Node::new(ino, kind, run) });
                return 0;
            }
            Some(node) => {
                let replaced = found == Found::Made || node.kind != kind || node.name.is_none();
                if replaced || !Arc::ptr_eq(&node.run, run) {
                    table.start_anew(ino, kind, run);
                }
            }
        }
        table.add_name(ino, name, found);
        let Some(node) = table.nodes.get_mut(ino) else { return 0 };
        node.lookups = node.lookups.saturating_add(1);
        node.generation
    }

    /// [`Nodes::register`] for the top directory of a run.
    pub(crate) fn register_top(&self, ino: Ino, run: &Arc<Run>, name: Name) -> u32 {
        let generation = self.register(ino, Kind::Dir, run, name, Found::There { nlink: 1 });
        if let Some(node) = self.table().nodes.get_mut(ino) {
            node.top = true;
            node.set_dir_id(DirId::ROOT);
        }
        generation
    }

    /// Takes `n` lookups back.
    pub(crate) fn forget(&self, ino: Ino, n: u64) {
        let mut table = self.table();
        if let Some(node) = table.nodes.get_mut(ino) {
            node.lookups = node.lookups.saturating_sub(u32::try_from(n).unwrap_or(u32::MAX));
        }
        table.drop_if_unused(ino);
    }

    /// [`crate::Vault::idle_nodes`].
    pub(crate) fn idle(&self, hand: &mut usize, places: usize) -> Vec<Ino> {
        let table = self.table();
        let end = hand.saturating_add(places).min(table.nodes.places());
        let nodes = table.nodes.within(*hand..end);
        let idle = nodes.filter(|node| node.lookups > 0 && node.pins == 0).map(|node| node.ino).collect();
        *hand = if end < table.nodes.places() { end } else { 0 };
        idle
    }

    /// Every node of a run.
    pub(crate) fn of_run(&self, run: &Arc<Run>) -> Vec<Ino> {
        let table = self.table();
        let nodes = table.nodes.within(0..table.nodes.places());
        nodes.filter(|node| Arc::ptr_eq(&node.run, run)).map(|node| node.ino).collect()
    }

    /// Nothing leads to these nodes any more; they go when the kernel lets go of them.
    pub(crate) fn forget_names(&self, nodes: &[Ino]) {
        let mut table = self.table();
        for ino in nodes {
            table.remove_all_names(*ino);
            table.drop_if_unused(*ino);
        }
    }

    /// Keeps the node until [`Nodes::unpin`].
    pub(crate) fn pin(&self, ino: Ino) {
        if let Some(node) = self.table().nodes.get_mut(ino) {
            node.pins += 1;
        }
    }

    pub(crate) fn unpin(&self, ino: Ino) {
        self.table().unpin(ino);
    }

    /// The directory was opened, and its record read.
    pub(crate) fn set_dir_id(&self, ino: Ino, id: DirId) {
        if let Some(node) = self.table().nodes.get_mut(ino) {
            node.set_dir_id(id);
        }
    }

    /// The directory may have lost its record: it is read again.
    pub(crate) fn forget_dir_id(&self, ino: Ino) {
        if let Some(node) = self.table().nodes.get_mut(ino)
            && matches!(node.extra.as_deref(), Some(Extra::Directory(_)))
        {
            node.extra = None;
        }
    }

    /// Which of the objects that had the number one after the other has it now; `None` where none is known.
    pub(crate) fn generation(&self, ino: Ino) -> Option<u32> {
        self.table().nodes.get(ino).map(|node| node.generation)
    }

    /// The name no longer leads to the node. `last`: none does, whatever is known here. `was`: its
    /// [`Nodes::generation`] before the store removed the name; since then its number may have become another's.
    pub(crate) fn remove_name(&self, ino: Ino, was: Option<u32>, name: &Name, last: bool) {
        let mut table = self.table();
        if table.nodes.get(ino).map(|node| node.generation) != was {
            return;
        }
        table.remove_name(ino, name);
        if last {
            table.remove_all_names(ino);
        }
        table.drop_if_unused(ino);
    }

    /// The node has `to` in place of `from`.
    pub(crate) fn moved(&self, ino: Ino, from: &Name, to: &Name) {
        let mut table = self.table();
        if table.nodes.get(ino).is_none() {
            return;
        }
        table.pin(to.parent);
        let Some(node) = table.nodes.get_mut(ino) else { return };
        let links = match node.extra.as_deref_mut() {
            Some(Extra::Links(links)) => links.as_mut_slice(),
            _ => &mut [],
        };
        match node.name.iter_mut().chain(links).find(|n| *n == from) {
            Some(place) => {
                *place = to.clone();
                table.unpin(from.parent);
            }
            // Reached by a name that was not known here: only the new one is certain.
            None => table.add_pinned_name(ino, to.clone()),
        }
    }

    /// Whether `ino` is `ancestor`, or lies below it.
    pub(crate) fn is_within(&self, ino: Ino, ancestor: Ino) -> bool {
        let table = self.table();
        let mut at = ino;
        for _ in 0..DEPTH_LIMIT {
            if at == ancestor {
                return true;
            }
            match table.nodes.get(at).and_then(|n| n.name.as_ref()) {
                Some(name) => at = name.parent,
                None => return false,
            }
        }
        true
    }

    /// The directories above the node, nearest first, up to its run's top (or the mount's root).
    pub(crate) fn ancestors(&self, ino: Ino) -> Vec<Ino> {
        let table = self.table();
        let mut found = Vec::new();
        let mut at = ino;
        while let Some(node) = table.nodes.get(at)
            && !node.top
            && let Some(name) = &node.name
            && found.len() < DEPTH_LIMIT
        {
            at = name.parent;
            found.push(at);
        }
        found
    }

    /// Plaintext components from the mount's root, of a node of at most `limit` of them.
    pub(crate) fn plain_path(&self, ino: Ino, limit: usize) -> Option<Vec<Box<[u8]>>> {
        let table = self.table();
        let mut parts = Vec::new();
        let mut at = ino;
        while at != ROOT {
            let name = table.nodes.get(at)?.name.as_ref()?;
            parts.push(name.text.clone());
            at = name.parent;
            if parts.len() > limit {
                return None;
            }
        }
        parts.reverse();
        Some(parts)
    }

    /// The node's path below its run's `tree/`, as stored; `None` when it has no name any more.
    pub(crate) fn stored_path(&self, ino: Ino, key: &NameKey) -> Option<Vec<u8>> {
        let table = self.table();
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut at = ino;
        while parts.len() < DEPTH_LIMIT {
            let node = table.nodes.get(at)?;
            if node.top {
                break;
            }
            let name = node.name.as_ref()?;
            let dir = match table.nodes.get(name.parent) {
                _ if name.parent == ROOT => DirId::ROOT,
                Some(Node { top: true, .. }) => DirId::ROOT,
                node => node?.dir_id()?,
            };
            parts.push(name::encrypt_name(key, &dir, &name.text).ok()?.text);
            if name.parent == ROOT {
                break;
            }
            at = name.parent;
        }
        parts.reverse();
        Some(parts.join(&b'/'))
    }
}
