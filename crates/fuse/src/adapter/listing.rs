//! A directory's entries, put straight into the parked reply until that is full or given up.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use fuser::{Generation, INodeNo};
use runvault_vault::api::{DirEntry, Handle, Ino};
use runvault_vault::{Result, Vault};

use crate::attributes::{bare, file_attr, file_type, kept};
use crate::parked::Parked;
use crate::watchdog::Slot;

/// For readdir.
pub(super) fn names(vault: &Vault, slot: &Slot<Parked>, handle: Handle, offset: u64) -> Result<()> {
    vault.readdir(handle, offset, false, &mut |entry| {
        let name = OsStr::from_bytes(&entry.name);
        slot.with(|parked| match parked {
            Parked::Directory(reply) => {
                !reply.add(INodeNo(entry.ino), entry.next, file_type(entry.kind), name)
            }
            _ => false,
        })
        .unwrap_or(false)
    })
}

/// For readdirplus; gives the nodes to which the listing took references, for the case that nobody will
/// give them back.
pub(super) fn entries(vault: &Vault, slot: &Slot<Parked>, handle: Handle, offset: u64) -> Result<Vec<Ino>> {
    let mut taken = Vec::new();
    let listed = vault.readdir(handle, offset, true, &mut |entry| {
        let added = add(slot, entry);
        let dots = matches!(entry.name.as_slice(), b"." | b"..");
        if added && !dots && entry.attr.is_some() {
            taken.push(entry.ino);
        }
        added
    });
    if listed.is_err() {
        give_back(vault, &taken);
    }
    listed.map(|()| taken)
}

/// References that the kernel will not give back.
pub(super) fn give_back(vault: &Vault, taken: &[Ino]) {
    taken.iter().for_each(|ino| vault.forget(*ino, 1));
}

/// False: there is no room for it.
fn add(slot: &Slot<Parked>, entry: &DirEntry) -> bool {
    let name = OsStr::from_bytes(&entry.name);
    let generation = Generation(entry.attr.map_or(0, |attr| attr.generation));
    let (attr, ttl) = match &entry.attr {
        Some(attr) => (file_attr(attr), kept(attr)),
        // Damaged: listed all the same, so that no copy leaves it out unseen. The kernel may keep nothing
        // of it, so whoever looks it up gets the error.
        None => (bare(entry.ino, entry.kind), Duration::ZERO),
    };
    slot.with(|parked| match parked {
        Parked::DirectoryPlus(reply) => !reply.add(attr.ino, entry.next, name, &ttl, &attr, generation),
        _ => false,
    })
    .unwrap_or(false)
}
