//! Reading a directory from any cookie on, over the one descriptor that it is open by.

use std::io::Result;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{RawDir, SeekFrom};

use super::attributes::kind;
use crate::backend::Entry;

/// Most callers stop after what fits one reply; those who go on get larger and larger pieces.
const FIRST: usize = 4 << 10;
const LARGEST: usize = 64 << 10;

/// Where the descriptor's offset stands; its readers take turns.
#[derive(Default)]
pub(super) struct Listing(Mutex<Option<u64>>);

impl Listing {
    /// Visits the entries after `cookie`; no lock is held while `visit` runs.
    pub(super) fn visit(
        &self,
        fd: impl AsFd,
        mut cookie: u64,
        visit: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()> {
        let mut buffer: Vec<u8> = Vec::new();
        let mut size = FIRST;
        loop {
            buffer.reserve(size);
            let batch = self.batch(&fd, cookie, buffer.spare_capacity_mut())?;
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

    /// One getdents64 from `cookie`; empty at the end.
    fn batch(&self, fd: impl AsFd, cookie: u64, buffer: &mut [MaybeUninit<u8>]) -> Result<Vec<Entry>> {
        let mut stands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // From the start: always a seek, which drops what the file system had gathered.
        if cookie == 0 || *stands != Some(cookie) {
            rustix::fs::seek(&fd, SeekFrom::Start(cookie))?;
        }
        *stands = None;
        let mut raw = RawDir::new(&fd, buffer);
        let mut entries = Vec::new();
        while let Some(entry) = raw.next() {
            let entry = entry?;
            entries.push(Entry {
                name: entry.file_name().to_bytes().to_vec(),
                ino: entry.ino(),
                kind: kind(entry.file_type()),
                next: entry.next_entry_cookie(),
            });
            if raw.is_buffer_empty() {
                break;
            }
        }
        *stands = entries.last().map(|e| e.next);
        Ok(entries)
    }
}
