//! The table behind it: what is noted of each node, and when one goes.

use std::sync::Arc;

use runvault_format::ids::DirId;
use runvault_store::backend::Kind;

use super::{Found, Name};
use crate::api::Ino;
use crate::node_map::{NodeMap, Numbered};
use crate::run::Run;

/// What only some nodes have, kept out of the many.
pub(super) enum Extra {
    /// Further names of a file with several links.
    Links(Vec<Name>),
    /// The id of a directory that was opened.
    Directory(DirId),
}

pub(super) struct Node {
    pub(super) ino: Ino,
    pub(super) run: Arc<Run>,
    /// The first name; `None` once the last one is gone.
    pub(super) name: Option<Name>,
    pub(super) extra: Option<Box<Extra>>,
    /// The kernel's, which it gives back all at once.
    pub(super) lookups: u32,
    /// Names below it, open handles, live files.
    pub(super) pins: u32,
    pub(super) generation: u32,
    pub(super) kind: Kind,
    /// The top directory of a run.
    pub(super) top: bool,
}

// The kernel caches millions: what a node grows by, the mount grows by a million times.
const _: () = assert!(size_of::<Node>() <= 64);

impl Node {
    pub(super) fn new(ino: Ino, kind: Kind, run: &Arc<Run>) -> Self {
        Self {
            ino,
            run: run.clone(),
            name: None,
            extra: None,
            lookups: 0,
            pins: 0,
            generation: 0,
            kind,
            top: false,
        }
    }

    pub(super) fn dir_id(&self) -> Option<DirId> {
        if let Some(Extra::Directory(id)) = self.extra.as_deref() { Some(*id) } else { None }
    }

    pub(super) fn set_dir_id(&mut self, id: DirId) {
        self.extra = Some(Box::new(Extra::Directory(id)));
    }

    pub(super) fn links(&self) -> &[Name] {
        if let Some(Extra::Links(links)) = self.extra.as_deref() { links } else { &[] }
    }

    pub(super) fn links_mut(&mut self) -> Option<&mut Vec<Name>> {
        if let Some(Extra::Links(links)) = self.extra.as_deref_mut() { Some(links) } else { None }
    }
}

impl Numbered for Node {
    fn ino(&self) -> Ino {
        self.ino
    }
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) nodes: NodeMap<Node>,
    /// The last generation given to a number that was used again.
    pub(super) generations: u32,
}

impl Table {
    pub(super) fn pin(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(ino) {
            node.pins += 1;
        }
    }

    pub(super) fn unpin(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(ino) {
            node.pins = node.pins.saturating_sub(1);
        }
        self.drop_if_unused(ino);
    }

    pub(super) fn drop_if_unused(&mut self, ino: Ino) {
        let mut at = ino;
        // A chain of parents, never a recursion: paths are as deep as anyone likes.
        while self.nodes.get(at).is_some_and(|n| n.lookups == 0 && n.pins == 0) {
            let Some(node) = self.nodes.remove(at) else { return };
            for name in node.links() {
                if node.name.as_ref().is_none_or(|first| first.parent != name.parent) {
                    self.unpin(name.parent);
                } else if let Some(parent) = self.nodes.get_mut(name.parent) {
                    parent.pins = parent.pins.saturating_sub(1);
                }
            }
            let Some(name) = node.name else { return };
            at = name.parent;
            if let Some(parent) = self.nodes.get_mut(at) {
                parent.pins = parent.pins.saturating_sub(1);
            }
        }
    }

    /// The number is another object's now; those who know the old one see another generation.
    pub(super) fn start_anew(&mut self, ino: Ino, kind: Kind, run: &Arc<Run>) {
        self.remove_all_names(ino);
        self.generations += 1;
        let generation = self.generations;
        if let Some(node) = self.nodes.get_mut(ino) {
            node.run = run.clone();
            node.kind = kind;
            node.extra = None;
            node.generation = generation;
            node.top = false;
        }
    }

    pub(super) fn add_name(&mut self, ino: Ino, name: Name, found: Found) {
        let Some(node) = self.nodes.get(ino) else { return };
        if node.name.iter().chain(node.links()).any(|n| *n == name) {
            return;
        }
        let several = match found {
            Found::There { nlink } => nlink > 1 && node.kind != Kind::Dir,
            Found::Linked => true,
            Found::Made => false,
        };
        if !several {
            // Renamed by someone else: an inode with one link has the name just seen.
            self.remove_all_names(ino);
        }
        self.pin(name.parent);
        self.add_pinned_name(ino, name);
    }

    pub(super) fn add_pinned_name(&mut self, ino: Ino, name: Name) {
        let Some(node) = self.nodes.get_mut(ino) else { return };
        match (&node.name, node.extra.as_deref_mut()) {
            (None, _) => node.name = Some(name),
            (Some(_), Some(Extra::Links(links))) => links.push(name),
            (Some(_), None) => node.extra = Some(Box::new(Extra::Links(vec![name]))),
            (Some(_), Some(Extra::Directory(_))) => {
                let before = node.name.replace(name);
                if let Some(before) = before {
                    self.unpin(before.parent);
                }
            }
        }
    }

    pub(super) fn remove_name(&mut self, ino: Ino, name: &Name) {
        let Some(node) = self.nodes.get_mut(ino) else { return };
        if node.name.as_ref() == Some(name) {
            node.name = node.links_mut().and_then(Vec::pop);
        } else if let Some(links) = node.links_mut()
            && let Some(at) = links.iter().position(|n| n == name)
        {
            links.swap_remove(at);
        } else {
            return;
        }
        if node.links_mut().is_some_and(|links| links.is_empty()) {
            node.extra = None;
        }
        self.unpin(name.parent);
    }

    pub(super) fn remove_all_names(&mut self, ino: Ino) {
        while let Some(name) = self.nodes.get(ino).and_then(|n| n.name.clone()) {
            self.remove_name(ino, &name);
        }
    }
}
