//! Reading a directory from any cookie on. Each listing has an opening of its own: a network file system's
//! handle often cannot be rewound (sshfs then says that the directory is empty), nor does another one
//! give the same order.

use std::io::Result;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, RawDir, SeekFrom};
use rustix::io::retry_on_intr;

use super::attributes::kind;
use super::shut;
use crate::backend::{Entry, Opening, Stream};

/// Most directories are small; larger ones are read in larger and larger pieces.
const FIRST: usize = 4 << 10;
const LARGEST: usize = 16 << 10;
/// Of an entry beside its name (linux_dirent64, with its padding about).
const RAW: usize = 24;

/// Visits the entries after `cookie`.
pub(super) fn visit(
    dir: BorrowedFd<'_>,
    stream: &mut Stream,
    mut cookie: u64,
    visit: &mut dyn FnMut(Entry) -> bool,
) -> Result<()> {
    let opening = match &mut stream.0 {
        Some(opening) if cookie != 0 => opening,
        from_start => from_start.insert(Opening { fd: open(dir)?, at: 0, buffer: Vec::with_capacity(FIRST) }),
    };
    let mut gave = false;
    loop {
        let (batch, filled) = batch(opening, cookie)?;
        let Some(last) = batch.last() else {
            // Who lists asks once more behind the last entry: only then all were seen, and no rest has to
            // come in the order of this opening. Whoever keeps the directory open needs it no more.
            if !gave {
                stream.0 = None;
            }
            return Ok(());
        };
        cookie = last.next;
        for entry in batch {
            if matches!(&entry.name[..], b"." | b"..") {
                continue;
            }
            gave = true;
            if !visit(entry) {
                return Ok(());
            }
        }
        if filled && opening.buffer.capacity() < LARGEST {
            opening.buffer.reserve(2 * opening.buffer.capacity());
        }
    }
}

fn open(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    shut::within(&[dir], || retry_on_intr(|| rustix::fs::openat(dir, c".", flags, Mode::empty())))
}

/// One getdents64 from `cookie`; empty at the end.
/// With whether they took most of the buffer, so that there may be more.
fn batch(opening: &mut Opening, cookie: u64) -> Result<(Vec<Entry>, bool)> {
    if opening.at != cookie {
        rustix::fs::seek(&opening.fd, SeekFrom::Start(cookie))?;
        opening.at = cookie;
    }
    let mut raw = RawDir::new(&opening.fd, opening.buffer.spare_capacity_mut());
    let (mut entries, mut bytes) = (Vec::new(), 0);
    while let Some(entry) = raw.next() {
        let entry = entry?;
        opening.at = entry.next_entry_cookie();
        bytes += RAW + entry.file_name().count_bytes();
        entries.push(Entry {
            name: entry.file_name().to_bytes().to_vec(),
            ino: entry.ino(),
            kind: kind(entry.file_type()),
            next: opening.at,
        });
        if raw.is_buffer_empty() {
            break;
        }
    }
    Ok((entries, bytes > opening.buffer.capacity() / 2))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_was_listed_to_its_end_is_not_kept_open() {
        let place = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..300).map(|n| format!("{n:03}")).collect();
        for name in &names {
            std::fs::write(place.path().join(name), "").unwrap();
        }
        let dir = std::fs::File::open(place.path()).unwrap();
        let mut stream = Stream::default();
        let mut list = |cookie, most: usize| {
            let mut found = Vec::new();
            visit(dir.as_fd(), &mut stream, cookie, &mut |entry| {
                found.push(entry);
                found.len() < most
            })
            .unwrap();
            (found, stream.0.is_some())
        };
        let (first, open) = list(0, 100);
        assert!(open);
        let middle = first.last().unwrap().next;
        let (rest, open) = list(middle, usize::MAX);
        assert!(open, "whoever was given them may not have room for all");
        let mut found: Vec<_> = first.iter().chain(&rest).map(|e| e.name.clone()).collect();
        found.sort();
        assert!(found.iter().map(Vec::as_slice).eq(names.iter().map(String::as_bytes)));
        assert_eq!(list(rest.last().unwrap().next, usize::MAX), (Vec::new(), false));
        // Back to where it was, and to the start.
        assert_eq!(list(middle, usize::MAX), (rest, true));
        assert_eq!(list(0, 100), (first, true));
    }
}
