//! The ledger of an open run, in its gateway's state folder: what was written, so that the seal can compare.
//!
//! ```text
//! file:  magic "rvledg/1" 8 | frames
//! frame: bytes of notes u32 | HMAC-SHA-256(ledger key, offset of the frame u64 ‖ notes)[..16] | notes
//! note:  kind u8 and
//!   1 begin    a session begins
//!   2 end      it has ended, everything before is durable in the store
//!   3 name     directory id 32 | what u8 | object 16 | length u16 | stored name
//!   4 content  file id [..16] | how u8 | sum 16 | size u64 | nonce of a partial last chunk 12
//!   5 changing group 16: what is known of it may stop being true
//!   6 settled  group 16: what is known of it is true again
//!   7 durable  offset u64: everything noted before it is durable in the store
//!   8 owner    group 16 | given u8 | mode u16 | uid u32 | gid u32
//!   9 attribute group 16 | name 16 | what u8 | value 16
//!  10 reopened directory id 32 | object 16 | length u16 | stored name
//! ```
//! A group is a directory (its names) or a file (its content), by the first 16 bytes of its id. Names are stored
//! names: encrypted; of an attribute's name and value there are keyed hashes.

use runvault_crypto::digest::{ct_eq, sha256};

use crate::ids::{DirId, FileId};
use crate::keys::LedgerKey;
use crate::pins::{HOLE, NONCE};
use crate::reader::Reader;
use crate::{Error, Result};

/// Its first bytes.
pub const MAGIC: &[u8; 8] = b"rvledg/1";
/// Bytes of a frame before its notes.
pub const FRAME: usize = 4 + 16;
/// Bytes of notes in one frame, at most.
pub const NOTES_MAX: usize = 1 << 20;

/// First bytes of the id of a directory, or of a file.
pub type Group = [u8; 16];

/// Every group.
pub const ALL: Group = [0xff; 16];

/// The group of an id.
pub fn group(id: &FileId) -> Group {
    let [group @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = id.0;
    group
}

/// What a name of a directory leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Nothing: it was removed.
    Nothing,
    /// Nobody can say.
    Unknown,
    /// An object of that kind, as in a manifest. Of a file or directory the group of its id, of a link
    /// [`link_object`], of a device its number; zeros: not known.
    Object(u8, Group),
}

/// What a content note says beside its figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Nobody can say what the file holds.
    Unknown,
    /// The sum is that of all whole chunks.
    Whole,
    /// The sum is to be added to those before.
    Further,
}

/// What was written to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// How the sum counts.
    pub how: How,
    /// Of [`term`] of each whole chunk that is no hole, modulo 2^128.
    pub sum: u128,
    /// Plaintext bytes.
    pub size: u64,
    /// Nonce of the partial last chunk, [`HOLE`] where it is one; `None`: as it was.
    pub last: Option<[u8; NONCE]>,
}

/// Mode (07777) and owner of a file or directory; `None`: not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Owner {
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// What an extended attribute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// It was removed.
    Nothing,
    /// Nobody can say.
    Unknown,
    /// [`attribute`] of its name and value.
    Is(Group),
}

/// A note. An owner note that says nothing makes everything of it unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Note {
    Begin,
    End,
    Name {
        dir: DirId,
        stored: Vec<u8>,
        what: Named,
    },
    Content {
        file: Group,
        content: Content,
    },
    Changing(Group),
    Settled(Group),
    Durable(u64),
    Owner {
        of: Group,
        owner: Owner,
    },
    Attribute {
        of: Group,
        name: Group,
        value: Value,
    },
    /// An empty file that was opened, under the id that it got then: nobody wrote that it is empty.
    Reopened {
        dir: DirId,
        stored: Vec<u8>,
        object: Group,
    },
}

/// Stands for the target of a link, by its stored text.
pub fn link_object(text: &[u8]) -> Group {
    group(&FileId(sha256(&[text])))
}

/// What a whole chunk adds to its file's sum: SHA-256(key ‖ number u64 ‖ nonce)[..16], little endian. Whoever has not
/// the key finds no other chunks with the same sum.
pub fn term(key: &LedgerKey, chunk: u64, nonce: &[u8; NONCE]) -> u128 {
    let hash = sha256(&[key.sums.expose(), &chunk.to_le_bytes(), nonce]);
    u128::from_le_bytes(group(&FileId(hash)))
}

/// Stands for an attribute's name, and with a value for both: SHA-256(key ‖ length of the name u16 ‖ name ‖ value)[..16].
pub fn attribute(key: &LedgerKey, name: &[u8], value: &[u8]) -> Group {
    let length = (name.len() as u16).to_le_bytes();
    group(&FileId(sha256(&[key.sums.expose(), &length, name, value])))
}

impl Note {
    /// Appends it to the notes of a frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Note::Begin => out.push(1),
            Note::End => out.push(2),
            Note::Name { dir, stored, what } => {
                let (kind, object) = match what {
                    Named::Nothing => (0, Group::default()),
                    Named::Unknown => (0xff, Group::default()),
                    Named::Object(kind, object) => (*kind, *object),
                };
                out.push(3);
                out.extend_from_slice(&dir.0);
                out.push(kind);
                out.extend_from_slice(&object);
                // No stored name is longer than 255 bytes.
                out.extend_from_slice(&(stored.len() as u16).to_le_bytes());
                out.extend_from_slice(stored);
            }
            Note::Reopened { dir, stored, object } => {
                out.push(10);
                out.extend_from_slice(&dir.0);
                out.extend_from_slice(object);
                out.extend_from_slice(&(stored.len() as u16).to_le_bytes());
                out.extend_from_slice(stored);
            }
            Note::Content { file, content } => {
                let how = match content.how {
                    How::Unknown => 0,
                    How::Whole => 1,
                    How::Further => 2,
                } | if content.last.is_some() { 0x80 } else { 0 };
                out.push(4);
                out.extend_from_slice(file);
                out.push(how);
                out.extend_from_slice(&content.sum.to_le_bytes());
                out.extend_from_slice(&content.size.to_le_bytes());
                out.extend_from_slice(&content.last.unwrap_or(HOLE));
            }
            Note::Changing(group) => {
                out.push(5);
                out.extend_from_slice(group);
            }
            Note::Settled(group) => {
                out.push(6);
                out.extend_from_slice(group);
            }
            Note::Durable(offset) => {
                out.push(7);
                out.extend_from_slice(&offset.to_le_bytes());
            }
            Note::Owner { of, owner: Owner { mode, uid, gid } } => {
                let given =
                    u8::from(mode.is_some()) | u8::from(uid.is_some()) << 1 | u8::from(gid.is_some()) << 2;
                out.push(8);
                out.extend_from_slice(of);
                out.push(given);
                out.extend_from_slice(&mode.unwrap_or_default().to_le_bytes());
                out.extend_from_slice(&uid.unwrap_or_default().to_le_bytes());
                out.extend_from_slice(&gid.unwrap_or_default().to_le_bytes());
            }
            Note::Attribute { of, name, value } => {
                let (what, value) = match value {
                    Value::Nothing => (0, Group::default()),
                    Value::Unknown => (0xff, Group::default()),
                    Value::Is(value) => (1, *value),
                };
                out.push(9);
                out.extend_from_slice(of);
                out.extend_from_slice(name);
                out.push(what);
                out.extend_from_slice(&value);
            }
        }
    }

    /// The notes of a frame.
    fn parse_all(mut notes: &[u8]) -> Result<Vec<Note>> {
        let mut found = Vec::new();
        while !notes.is_empty() {
            let mut r = Reader::new(notes);
            found.push(Self::parse(&mut r)?);
            notes = r.rest();
        }
        Ok(found)
    }

    fn parse(r: &mut Reader<'_>) -> Result<Note> {
        Ok(match r.u8()? {
            1 => Note::Begin,
            2 => Note::End,
            3 => {
                let dir = FileId(r.array()?);
                let what = match (r.u8()?, r.array()?) {
                    (0, _) => Named::Nothing,
                    (0xff, _) => Named::Unknown,
                    (kind, object) => Named::Object(kind, object),
                };
                let n = r.u16()?;
                Note::Name { dir, stored: r.take(usize::from(n))?.to_vec(), what }
            }
            10 => {
                let (dir, object, n) = (FileId(r.array()?), r.array()?, r.u16()?);
                Note::Reopened { dir, stored: r.take(usize::from(n))?.to_vec(), object }
            }
            4 => {
                let (file, flags) = (r.array()?, r.u8()?);
                let how = match flags & 0x7f {
                    0 => How::Unknown,
                    1 => How::Whole,
                    2 => How::Further,
                    other => return Err(Error::Kind(other)),
                };
                let (sum, size) = (u128::from_le_bytes(r.array()?), r.u64()?);
                let last = Some(r.array()?).filter(|_| flags & 0x80 != 0);
                Note::Content { file, content: Content { how, sum, size, last } }
            }
            5 => Note::Changing(r.array()?),
            6 => Note::Settled(r.array()?),
            7 => Note::Durable(r.u64()?),
            8 => {
                let (of, given) = (r.array()?, r.u8()?);
                let (mode, uid, gid) = (r.u16()?, r.u32()?, r.u32()?);
                let owner = Owner {
                    mode: Some(mode).filter(|_| given & 1 != 0),
                    uid: Some(uid).filter(|_| given & 2 != 0),
                    gid: Some(gid).filter(|_| given & 4 != 0),
                };
                Note::Owner { of, owner }
            }
            9 => {
                let (of, name) = (r.array()?, r.array()?);
                let value = match (r.u8()?, r.array()?) {
                    (0, _) => Value::Nothing,
                    (1, value) => Value::Is(value),
                    (0xff, _) => Value::Unknown,
                    (other, _) => return Err(Error::Kind(other)),
                };
                Note::Attribute { of, name, value }
            }
            other => return Err(Error::Kind(other)),
        })
    }
}

/// A frame that lies at `offset`, with these notes.
pub fn frame(key: &LedgerKey, offset: u64, notes: &[u8]) -> Vec<u8> {
    let tag = key.tag(&[&offset.to_le_bytes(), notes]);
    [&(notes.len() as u32).to_le_bytes()[..], &tag, notes].concat()
}

/// Bytes of notes that a frame with this beginning has.
///
/// # Errors
/// [`Error::TooLong`].
pub fn notes_len(head: &[u8; FRAME]) -> Result<usize> {
    let n = Reader::new(head).u32()? as usize;
    if n > NOTES_MAX { Err(Error::TooLong) } else { Ok(n) }
}

/// The notes of a frame at `offset`.
///
/// # Errors
/// [`Error::NotAuthentic`], [`Error::Truncated`], [`Error::Kind`].
pub fn open(key: &LedgerKey, offset: u64, head: &[u8; FRAME], notes: &[u8]) -> Result<Vec<Note>> {
    let [_, _, _, _, tag @ ..] = head;
    if !ct_eq(tag, &key.tag(&[&offset.to_le_bytes(), notes])) {
        return Err(Error::NotAuthentic);
    }
    Note::parse_all(notes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use runvault_crypto::aead::Engine;
    use runvault_crypto::secrets::Secret;

    use super::*;
    use crate::ids::RunId;
    use crate::keys::{RunKey, RunKeys};

    fn key() -> LedgerKey {
        let key = RunKey(Secret::copy_from(&[7; 32]));
        RunKeys::derive(&key, &RunId([1; 16]), Engine::Portable).ledger_key()
    }

    fn notes() -> Vec<Note> {
        let dir = FileId([3; 32]);
        let content = |how, last| Content { how, sum: u128::MAX - 5, size: 8_193, last };
        vec![
            Note::Begin,
            Note::Name { dir, stored: b"abc".to_vec(), what: Named::Object(1, [9; 16]) },
            Note::Name { dir, stored: b"abd".to_vec(), what: Named::Nothing },
            Note::Name { dir, stored: b"".to_vec(), what: Named::Unknown },
            Note::Reopened { dir, stored: b"abf".to_vec(), object: [8; 16] },
            Note::Content { file: [4; 16], content: content(How::Whole, Some([1; 12])) },
            Note::Content { file: [4; 16], content: content(How::Further, None) },
            Note::Content { file: [4; 16], content: content(How::Unknown, Some(HOLE)) },
            Note::Changing([5; 16]),
            Note::Settled(ALL),
            Note::Durable(1 << 40),
            Note::Owner { of: [4; 16], owner: Owner { mode: Some(0o2775), uid: None, gid: Some(7) } },
            Note::Owner { of: [4; 16], owner: Owner { mode: None, uid: Some(6), gid: None } },
            Note::Attribute { of: [4; 16], name: [1; 16], value: Value::Is([2; 16]) },
            Note::Attribute { of: [4; 16], name: [1; 16], value: Value::Nothing },
            Note::Attribute { of: [4; 16], name: [1; 16], value: Value::Unknown },
            Note::End,
        ]
    }

    #[test]
    fn frames_open_at_their_place_only() {
        let mut bytes = Vec::new();
        notes().iter().for_each(|note| note.encode(&mut bytes));
        let frame = frame(&key(), 99, &bytes);
        let (head, rest) = frame.split_first_chunk::<FRAME>().unwrap();
        assert_eq!(notes_len(head), Ok(rest.len()));
        assert_eq!(open(&key(), 99, head, rest), Ok(notes()));
        assert_eq!(open(&key(), 98, head, rest), Err(Error::NotAuthentic));
        let mut changed = rest.to_vec();
        changed[3] ^= 1;
        assert_eq!(open(&key(), 99, head, &changed), Err(Error::NotAuthentic));
        assert_eq!(notes_len(&[0xff; FRAME]), Err(Error::TooLong));
    }

    #[test]
    fn a_term_is_of_its_chunk_and_nonce() {
        let of = |chunk, nonce: u8| term(&key(), chunk, &[nonce; 12]);
        assert_eq!(of(1, 2), of(1, 2));
        assert!(of(1, 2) != of(2, 2) && of(1, 2) != of(1, 3));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Note::parse_all(&bytes);
        }
    }
}
