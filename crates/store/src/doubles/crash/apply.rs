//! Noted changes, brought into a tree in full or as a power cut leaves them.

use std::io::Result;

use super::super::errno;
use super::super::memory::sparse::{PAGE, Sparse};
use super::super::memory::tree::{Body, Entries, Node, Tree};
use super::super::memory::{set_mode, set_owner, set_times};
use super::super::observe::{Change, Made};
use super::fate::{self, Chooser, Fate};
use crate::backend::Rename;

const SECTOR: usize = 512;

/// The file whose data a change is about.
pub(super) fn data_ino(change: &Change<'_>) -> Option<u64> {
    match change {
        Change::Write { ino, .. }
        | Change::SetLen { ino, .. }
        | Change::Allocate { ino, .. }
        | Change::Punch { ino, .. } => Some(*ino),
        _ => None,
    }
}

/// Brings a change of data into the tree, as far as `chooser` lets it.
pub(super) fn data(tree: &mut Tree, change: &Change<'_>, chooser: &mut dyn Chooser) -> Result<()> {
    let Some(ino) = data_ino(change) else { return Err(errno(libc::EINVAL)) };
    let data = tree.node_mut(ino)?.data_mut()?;
    if let Change::Write { offset, bytes, .. } = change {
        write(data, *offset, bytes, chooser);
        return Ok(());
    }
    if !fate::arrives(chooser) {
        return Ok(());
    }
    match change {
        Change::SetLen { len, .. } => data.set_len(*len),
        Change::Punch { offset, len, .. } => {
            data.punch(*offset, data.len().saturating_sub(*offset).min(*len))
        }
        Change::Allocate { offset, len, keep_size: false, .. } => data.set_len(data.len().max(offset + len)),
        _ => {}
    }
    Ok(())
}

fn write(data: &mut Sparse, offset: u64, bytes: &[u8], chooser: &mut dyn Chooser) {
    let piece = match fate::of_write(chooser) {
        Fate::Full => return data.write(bytes, offset),
        Fate::Lost => return,
        Fate::TornSectors => SECTOR,
        Fate::TornPages => PAGE as usize,
        Fate::LengthOnly => usize::MAX,
    };
    let end = offset + bytes.len() as u64;
    if piece != usize::MAX {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let n = (piece - (at % piece as u64) as usize).min(bytes.len() - done);
            if chooser.coin() {
                data.write(&bytes[done..done + n], at);
            }
            done += n;
        }
    }
    // The length may be the new one, or have stopped at a page's border.
    let reached = if chooser.coin() { end } else { end / PAGE * PAGE };
    if reached > data.len() {
        data.set_len(reached);
    }
}

/// The inode that a change of attributes is about; `None` for other changes.
pub(super) fn attribute_ino(change: &Change<'_>, live: &Tree) -> Result<Option<u64>> {
    Ok(match change {
        Change::Mode { ino, name, .. }
        | Change::Owner { ino, name, .. }
        | Change::Times { ino, name, .. } => Some(match name {
            Some(name) => live.lookup(*ino, name)?,
            None => *ino,
        }),
        Change::SetXattr { ino, .. } | Change::RemoveXattr { ino, .. } => Some(*ino),
        _ => None,
    })
}

pub(super) fn attribute(tree: &mut Tree, ino: u64, change: &Change<'_>) -> Result<()> {
    let node = tree.node_mut(ino)?;
    match change {
        Change::Mode { mode, .. } => set_mode(node, *mode),
        Change::Owner { uid, gid, .. } => set_owner(node, *uid, *gid),
        Change::Times { atime, mtime, .. } => set_times(node, *atime, *mtime)?,
        Change::SetXattr { key, value, .. } => drop(node.xattrs.insert(key.to_vec(), value.to_vec())),
        Change::RemoveXattr { key, .. } => drop(node.xattrs.remove(&**key)),
        _ => return Err(errno(libc::EINVAL)),
    }
    Ok(())
}

/// The inode behind a new name, as `parent` lets it be.
pub(super) fn made(made: &Made<'_>, parent: &Node) -> Node {
    let node = match made {
        Made::File { mode } => Node::new(Body::File(Sparse::default()), *mode),
        Made::Dir { mode } => Node::new(Body::Dir(Entries::default()), *mode & 0o1777),
        Made::Symlink { target } => Node::new(Body::Symlink(target.to_vec()), 0o777),
        Made::Node { kind, mode, rdev } => Node::new(Body::Node { kind: *kind, rdev: *rdev }, *mode),
    };
    node.made_in(parent)
}

/// A change of names, by the inodes that were behind them when it was made.
#[derive(Clone)]
pub(super) struct Names(pub(super) Vec<Step>);

#[derive(Clone)]
pub(super) enum Step {
    Enter { dir: u64, name: Vec<u8>, ino: u64 },
    Leave { dir: u64, name: Vec<u8> },
}

impl Names {
    pub(super) fn of(change: &Change<'_>, live: &Tree) -> Result<Self> {
        let enter = |dir: u64, name: &[u8], ino| Step::Enter { dir, name: name.to_vec(), ino };
        let leave = |dir: u64, name: &[u8]| Step::Leave { dir, name: name.to_vec() };
        let steps = match change {
            Change::Create { dir, name, ino, .. } => vec![enter(*dir, name, *ino)],
            Change::Link { dir, name, to, new } => vec![enter(*to, new, live.lookup(*dir, name)?)],
            Change::Remove { dir, name } => vec![leave(*dir, name)],
            Change::Rename { dir, name, to, new, how } => {
                let moved = live.lookup(*dir, name)?;
                let other = live.lookup(*to, new).ok();
                // Both names lead to one file: rename does nothing.
                if other == Some(moved) {
                    return Ok(Self(Vec::new()));
                }
                let mut steps = vec![leave(*dir, name)];
                steps.extend(other.map(|_| leave(*to, new)));
                steps.push(enter(*to, new, moved));
                if let (Some(other), Rename::Exchange) = (other, how) {
                    steps.push(enter(*dir, name, other));
                }
                steps
            }
            _ => return Err(errno(libc::EINVAL)),
        };
        Ok(Self(steps))
    }

    pub(super) fn apply(&self, tree: &mut Tree) -> Result<()> {
        for step in &self.0 {
            match step {
                Step::Enter { dir, name, ino } => tree.enter(*dir, name, *ino)?,
                Step::Leave { dir, name } => drop(tree.leave(*dir, name)?),
            }
        }
        Ok(())
    }
}
