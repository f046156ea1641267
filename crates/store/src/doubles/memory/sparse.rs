//! File data with holes, in pages that copies share.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes a page, and the grain of holes.
pub(crate) const PAGE: u64 = 4096;
type Page = [u8; PAGE as usize];

/// A page that is absent reads as zeros.
#[derive(Clone, Default)]
pub(crate) struct Sparse {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Sparse {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let n = (buf.len() as u64).min(self.len.saturating_sub(offset)) as usize;
        let mut done = 0;
        while done < n {
            let at = offset + done as u64;
            let (page, within) = (at / PAGE, (at % PAGE) as usize);
            let piece = (PAGE as usize - within).min(n - done);
            let target = &mut buf[done..done + piece];
            match self.pages.get(&page) {
                Some(page) => target.copy_from_slice(&page[within..within + piece]),
                None => target.fill(0),
            }
            done += piece;
        }
        n
    }

    /// Writes, and grows to reach the end of it.
    pub(crate) fn write(&mut self, bytes: &[u8], offset: u64) {
        self.put(bytes, offset);
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    fn put(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let within = (at % PAGE) as usize;
            let piece = (PAGE as usize - within).min(bytes.len() - done);
            let page = self.pages.entry(at / PAGE).or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(page)[within..within + piece].copy_from_slice(&bytes[done..done + piece]);
            done += piece;
        }
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE));
            self.zero(len, len.next_multiple_of(PAGE));
        }
        self.len = len;
    }

    pub(crate) fn punch(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let (first, last) = (offset.div_ceil(PAGE), end / PAGE);
        if first >= last {
            self.zero(offset, end);
            return;
        }
        let whole: Vec<u64> = self.pages.range(first..last).map(|(i, _)| *i).collect();
        for page in whole {
            self.pages.remove(&page);
        }
        self.zero(offset, first * PAGE);
        self.zero(last * PAGE, end);
    }

    /// Zeroes a range that lies in pages which are there; no page is made.
    fn zero(&mut self, from: u64, to: u64) {
        let mut at = from;
        while at < to {
            let within = (at % PAGE) as usize;
            let piece = (PAGE - at % PAGE).min(to - at) as usize;
            if let Some(page) = self.pages.get_mut(&(at / PAGE)) {
                Arc::make_mut(page)[within..within + piece].fill(0);
            }
            at += piece as u64;
        }
    }

    /// The next data (or hole) at or after `offset`, which lies within the file; `None` past the
    /// last data.
    pub(crate) fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        if data {
            let (page, _) = self.pages.range(offset / PAGE..).next()?;
            let at = offset.max(page * PAGE);
            return (at < self.len).then_some(at);
        }
        let mut page = offset / PAGE;
        while self.pages.contains_key(&page) {
            page += 1;
        }
        Some(offset.max(page * PAGE).min(self.len))
    }
}
