//! Reading a directory from any cookie on. Each listing has an opening of its own: a network file system's
//! handle often cannot be rewound (sshfs then says that the directory is empty), nor does another one
//! give the same order.

use std::io::Result;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, RawDir, SeekFrom};
use rustix::io::retry_on_intr;

use super::attributes::kind;
use super::shut;
use crate::backend::{Entry, Opening, Stream};

/// Most callers stop after what fits one reply; those who go on get larger and larger pieces.
const FIRST: usize = 4 << 10;
const LARGEST: usize = 64 << 10;

/// Visits the entries after `cookie`.
pub(super) fn visit(
    dir: BorrowedFd<'_>,
    stream: &mut Stream,
    mut cookie: u64,
    visit: &mut dyn FnMut(Entry) -> bool,
) -> Result<()> {
    let opening = match &mut stream.0 {
        Some(opening) if cookie != 0 => opening,
        from_start => from_start.insert(Opening { fd: open(dir)?, at: 0 }),
    };
    let mut buffer: Vec<u8> = Vec::new();
    let mut size = FIRST;
    loop {
        buffer.reserve(size);
        let batch = batch(opening, cookie, buffer.spare_capacity_mut())?;
        let Some(last) = batch.last() else { return Ok(()) };
        cookie = last.next;
        for entry in batch {
            if !matches!(&entry.name[..], b"." | b"..") && !visit(entry) {
                return Ok(());
            }
        }
        size = (size * 2).min(LARGEST);
    }
}

fn open(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    shut::within(&[dir], || retry_on_intr(|| rustix::fs::openat(dir, c".", flags, Mode::empty())))
}

/// One getdents64 from `cookie`; empty at the end.
fn batch(opening: &mut Opening, cookie: u64, buffer: &mut [MaybeUninit<u8>]) -> Result<Vec<Entry>> {
    if opening.at != cookie {
        rustix::fs::seek(&opening.fd, SeekFrom::Start(cookie))?;
        opening.at = cookie;
    }
    let mut raw = RawDir::new(&opening.fd, buffer);
    let mut entries = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry?;
        opening.at = entry.next_entry_cookie();
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
    Ok(entries)
}
