//! What a sealed run consists of: every name, attribute and content hash, in a form that is read by range.
//!
//! ```text
//! header 128 | a record of 128 for each entry | heap
//! ```
//!
//! Entries come breadth first: the top directory is entry 0, the children of a directory follow each other,
//! sorted by their names' bytes. So an entry is found by its number, and a name by bisecting its directory.
//! The heap holds what has no fixed length, in the same order and without gaps.

use crate::name::NAME_MAX;
use crate::reader::Reader;
use crate::{Error, Result};

pub use crate::manifest_record::{Kind, Record};

/// Bytes of the header and of each record: 64 of them fill a chunk of 8 KiB.
pub const LEN: usize = 128;
const MAGIC: &[u8; 8] = b"rvmani/1";
/// Longest value of an attribute that Linux knows.
const VALUE_MAX: usize = 65_536;
/// Longest link target.
const TARGET_MAX: usize = 4_095;
/// Longest text on the run.
const ABOUT_MAX: u32 = 1 << 20;

/// The first 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Random: the manifest's hash, which is public, confirms no guess of its content.
    pub salt: [u8; 32],
    /// How many records follow.
    pub entries: u32,
    /// Bytes of the heap.
    pub heap: u64,
    /// Bytes of the run's name, with which the heap begins.
    pub name: u16,
    /// Bytes of the text on the run, which follows it.
    pub about: u32,
}

impl Header {
    /// 128 bytes.
    pub fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[..8].copy_from_slice(MAGIC);
        out[8..40].copy_from_slice(&self.salt);
        out[40..44].copy_from_slice(&self.entries.to_le_bytes());
        out[44..52].copy_from_slice(&self.heap.to_le_bytes());
        out[52..54].copy_from_slice(&self.name.to_le_bytes());
        out[54..58].copy_from_slice(&self.about.to_le_bytes());
        out
    }

    /// Parses them.
    ///
    /// # Errors
    /// [`Error::Magic`], [`Error::Reserved`], [`Error::Manifest`].
    pub fn decode(bytes: &[u8; LEN]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.array::<8>()? != *MAGIC {
            return Err(Error::Magic);
        }
        let header =
            Self { salt: r.array()?, entries: r.u32()?, heap: r.u64()?, name: r.u16()?, about: r.u32()? };
        r.zeros_to_end()?;
        let begins = u64::from(header.name).saturating_add(header.about.into());
        demand(header.entries > 0, "no top directory")?;
        demand(header.about <= ABOUT_MAX && begins <= header.heap, "heap")?;
        Ok(header)
    }

    /// Bytes of the whole manifest.
    pub fn manifest_len(&self) -> u64 {
        self.heap_offset().saturating_add(self.heap)
    }

    /// Where the heap begins.
    pub fn heap_offset(&self) -> u64 {
        Self::record_offset(self.entries)
    }

    /// Where record `i` begins.
    pub fn record_offset(i: u32) -> u64 {
        (u64::from(i) + 1) * LEN as u64
    }
}

/// One entry, with what the heap holds of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The part of fixed length; its lengths and its place in the heap are set when it is encoded.
    pub record: Record,
    /// Its name in its directory; empty for the top.
    pub name: Vec<u8>,
    /// A symlink's target.
    pub target: Vec<u8>,
    /// Attributes and ACLs, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The whole of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// As in [`Header`].
    pub salt: [u8; 32],
    /// The run's name: components from the mount's root.
    pub name: Vec<u8>,
    /// What is known of the run: docs/format.md, "Manifest".
    pub about: String,
    /// Breadth first.
    pub entries: Vec<Entry>,
}

impl Manifest {
    /// The bytes.
    ///
    /// # Errors
    /// [`Error::Manifest`] for what [`Manifest::parse`] refuses, [`Error::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut heap = [&self.name, self.about.as_bytes()].concat();
        let mut records = Vec::with_capacity(self.entries.len().saturating_mul(LEN));
        for entry in &self.entries {
            let xattrs = encode_xattrs(&entry.xattrs)?;
            let record = Record {
                name: short(entry.name.len())?,
                target: short(entry.target.len())?,
                xattrs: u32::try_from(xattrs.len()).map_err(|_| Error::TooLong)?,
                heap: heap.len() as u64,
                ..entry.record.clone()
            };
            records.extend_from_slice(&record.encode());
            heap.extend_from_slice(&entry.name);
            heap.extend_from_slice(&entry.target);
            heap.extend_from_slice(&xattrs);
        }
        let header = Header {
            salt: self.salt,
            entries: u32::try_from(self.entries.len()).map_err(|_| Error::TooLong)?,
            heap: heap.len() as u64,
            name: short(self.name.len())?,
            about: u32::try_from(self.about.len()).map_err(|_| Error::TooLong)?,
        };
        let bytes = [&header.encode()[..], &records, &heap].concat();
        // What nobody could read must not be signed.
        Self::parse(&bytes)?;
        Ok(bytes)
    }

    /// Parses the bytes and checks that they are one tree.
    ///
    /// # Errors
    /// Those of [`Header::decode`] and [`Record::decode`]; [`Error::Truncated`], [`Error::Trailing`],
    /// [`Error::Manifest`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let header = Header::decode(&r.array()?)?;
        let expected = header.manifest_len();
        match (bytes.len() as u64).cmp(&expected) {
            std::cmp::Ordering::Less => return Err(Error::Truncated),
            std::cmp::Ordering::Greater => return Err(Error::Trailing),
            std::cmp::Ordering::Equal => {}
        }
        let records: Vec<Record> =
            (0..header.entries).map(|_| Record::decode(&r.array()?)).collect::<Result<_>>()?;
        let mut heap = Reader::new(r.rest());
        let name = heap.take(header.name.into())?.to_vec();
        let about = std::str::from_utf8(heap.take(header.about as usize)?);
        let about = about.map_err(|_| Error::NotCanonical("UTF-8"))?.to_owned();
        let mut at = u64::from(header.name) + u64::from(header.about);
        let mut entries = Vec::with_capacity(records.len());
        for record in records {
            demand(record.heap == at, "heap")?;
            let (name, target) = (heap.take(record.name.into())?, heap.take(record.target.into())?);
            let xattrs = decode_xattrs(heap.take(record.xattrs as usize)?)?;
            at += record.heap_len();
            entries.push(Entry { name: name.to_vec(), target: target.to_vec(), xattrs, record });
        }
        demand(heap.rest().is_empty(), "heap")?;
        let manifest = Self { salt: header.salt, name, about, entries };
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<()> {
        let top = self.entries.first().ok_or(Error::Manifest("no top directory"))?;
        demand(top.record.kind == Kind::Dir && top.record.parent == 0 && top.name.is_empty(), "top")?;
        let mut next = 1usize;
        for (i, entry) in self.entries.iter().enumerate() {
            self.check_entry(i, entry)?;
            let children = entry.record.children as usize;
            let first = if children == 0 { 0 } else { next };
            demand(entry.record.first as usize == first, "children")?;
            let end = next.checked_add(children).ok_or(Error::Manifest("children"))?;
            let of = self.entries.get(next..end).ok_or(Error::Manifest("children"))?;
            demand(of.iter().all(|child| child.record.parent as usize == i), "parent")?;
            demand(of.is_sorted_by(|a, b| a.name < b.name), "names are not in order")?;
            demand(of.iter().all(|child| is_name(&child.name)), "name")?;
            next = end;
        }
        demand(next == self.entries.len(), "children")
    }

    fn check_entry(&self, i: usize, entry: &Entry) -> Result<()> {
        let r = &entry.record;
        demand(r.children == 0 || r.kind == Kind::Dir, "children")?;
        let link = r.kind == Kind::Symlink;
        demand(link != entry.target.is_empty() && entry.target.len() <= TARGET_MAX, "target")?;
        demand(!link || r.size == entry.target.len() as u64, "size")?;
        let object = r.object as usize;
        if object == i {
            return Ok(());
        }
        // Another name of an object that came before: it says the same of it.
        let same = self.entries.get(object).filter(|first| object < i && first.record.object == r.object);
        let same = same.ok_or(Error::Manifest("link"))?;
        let alike =
            Record { parent: r.parent, name: r.name, heap: r.heap, xattrs: r.xattrs, ..same.record.clone() };
        demand(alike == *r && r.kind != Kind::Dir && entry.xattrs.is_empty(), "link")?;
        demand(entry.target == same.target, "link")
    }
}

fn is_name(name: &[u8]) -> bool {
    let dots = name == b"." || name == b"..";
    (1..=NAME_MAX).contains(&name.len()) && !dots && !name.iter().any(|b| matches!(b, 0 | b'/'))
}

/// name length u16 | value length u32 | name | value, for each.
fn encode_xattrs(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for (name, value) in xattrs {
        out.extend_from_slice(&short(name.len())?.to_le_bytes());
        out.extend_from_slice(&u32::try_from(value.len()).map_err(|_| Error::TooLong)?.to_le_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(value);
    }
    Ok(out)
}

/// Parses the attributes of an entry.
///
/// # Errors
/// [`Error::Truncated`], [`Error::Manifest`].
pub fn decode_xattrs(mut bytes: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    while !bytes.is_empty() {
        let mut r = Reader::new(bytes);
        let (name, value) = (r.u16()?, r.u32()? as usize);
        let name = r.take(name.into())?.to_vec();
        demand(value <= VALUE_MAX && (1..=NAME_MAX).contains(&name.len()), "attribute")?;
        let value = r.take(value)?.to_vec();
        demand(xattrs.last().is_none_or(|(before, _)| *before < name), "attributes are not in order")?;
        xattrs.push((name, value));
        bytes = r.rest();
    }
    Ok(xattrs)
}

fn short(len: usize) -> Result<u16> {
    u16::try_from(len).map_err(|_| Error::TooLong)
}

pub(crate) fn demand(holds: bool, what: &'static str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Manifest(what)) }
}
