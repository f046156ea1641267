//! A redo record: one chunk as it will be stored, so that a torn rewrite can be made good.
//!
//! ```text
//! magic "rvredo/1" 8 | length u32 | number u64 | session id 16 | file id 32 | epoch u32 | chunk u64
//! | size after u64 | path n u16 | blob n u32 | tag 16 | path | blob | zeros to a multiple of 512
//! ```

use runvault_crypto::digest::ct_eq;

use crate::ids::{FileId, SessionId};
use crate::keys::JournalKey;
use crate::reader::Reader;
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"rvredo/1";
/// Bytes before the tag, and before the path.
const FIELDS: usize = 94;
const HEAD: usize = FIELDS + 16;
/// Records start at multiples of this.
pub const SECTOR: usize = 512;
/// Longest encrypted path.
pub const PATH_MAX: usize = u16::MAX as usize;
/// Longest stored chunk.
pub const BLOB_MAX: usize = (1 << 20) + 28;

/// One chunk of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Counts the session's records, from 1.
    pub number: u64,
    /// The session that wrote it.
    pub session: SessionId,
    /// The file it belongs to.
    pub file_id: FileId,
    /// The file's truncations to nothing when it was written.
    pub epoch: u32,
    /// Number of the chunk.
    pub chunk: u64,
    /// The file's plaintext size afterwards; `None` for a whole chunk.
    pub size_after: Option<u64>,
    /// Where the file stood below tree/: encrypted names with slashes between.
    pub path: Vec<u8>,
    /// The chunk as stored.
    pub blob: Vec<u8>,
}

impl Record {
    /// Bytes of [`Record::encode`] for a path and a blob of these lengths.
    pub fn encoded_len(path: usize, blob: usize) -> usize {
        HEAD.saturating_add(path).saturating_add(blob).div_ceil(SECTOR).saturating_mul(SECTOR)
    }

    /// The record's bytes, a multiple of 512.
    ///
    /// # Errors
    /// [`Error::TooLong`] for a path or blob over its bound.
    pub fn encode(&self, key: &JournalKey) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.borrowed().encode_into(key, &mut out)?;
        Ok(out)
    }

    fn borrowed(&self) -> RecordRef<'_> {
        RecordRef {
            number: self.number,
            session: self.session,
            file_id: self.file_id,
            epoch: self.epoch,
            chunk: self.chunk,
            size_after: self.size_after,
            path: &self.path,
            blob: &self.blob,
        }
    }

    /// The record at the start of `bytes`, and how many of them are its own.
    ///
    /// # Errors
    /// [`Error::Magic`] where there is none, [`Error::Truncated`], [`Error::TooLong`],
    /// [`Error::NotCanonical`], [`Error::NotAuthentic`] (also for one of another session),
    /// [`Error::Reserved`].
    pub fn decode(bytes: &[u8], key: &JournalKey) -> Result<(Self, usize)> {
        let mut r = Reader::new(bytes);
        if r.array::<8>()? != *MAGIC {
            return Err(Error::Magic);
        }
        let len = r.u32()? as usize;
        let number = r.u64()?;
        let session = SessionId(r.array()?);
        let file_id = FileId(r.array()?);
        let (epoch, chunk, size_after) = (r.u32()?, r.u64()?, r.u64()?);
        let (path_len, blob_len) = (usize::from(r.u16()?), r.u32()? as usize);
        if blob_len > BLOB_MAX {
            return Err(Error::TooLong);
        }
        if len != Self::encoded_len(path_len, blob_len) {
            return Err(Error::NotCanonical("length"));
        }
        let tag = r.array::<16>()?;
        let (fields, _) = bytes.split_at_checked(FIELDS).ok_or(Error::Truncated)?;
        let body = r.take(len - HEAD)?;
        if !ct_eq(&tag, &key.tag(&[fields, body])) {
            return Err(Error::NotAuthentic);
        }
        let mut r = Reader::new(body);
        let (path, blob) = (r.take(path_len)?.to_vec(), r.take(blob_len)?.to_vec());
        r.zeros_to_end()?;
        let size_after = (size_after != u64::MAX).then_some(size_after);
        Ok((Self { number, session, file_id, epoch, chunk, size_after, path, blob }, len))
    }
}

/// A [`Record`] whose path and chunk are someone else's.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct RecordRef<'a> {
    pub number: u64,
    pub session: SessionId,
    pub file_id: FileId,
    pub epoch: u32,
    pub chunk: u64,
    pub size_after: Option<u64>,
    pub path: &'a [u8],
    pub blob: &'a [u8],
}

impl RecordRef<'_> {
    /// Appends what [`Record::encode`] gives; nothing is appended on an error.
    ///
    /// # Errors
    /// As of [`Record::encode`].
    pub fn encode_into(&self, key: &JournalKey, out: &mut Vec<u8>) -> Result<()> {
        if self.path.len() > PATH_MAX || self.blob.len() > BLOB_MAX || self.size_after == Some(u64::MAX) {
            return Err(Error::TooLong);
        }
        let len = Record::encoded_len(self.path.len(), self.blob.len());
        let mut fields = Vec::with_capacity(FIELDS);
        fields.extend_from_slice(MAGIC);
        fields.extend_from_slice(&(len as u32).to_le_bytes());
        fields.extend_from_slice(&self.number.to_le_bytes());
        fields.extend_from_slice(&self.session.0);
        fields.extend_from_slice(&self.file_id.0);
        fields.extend_from_slice(&self.epoch.to_le_bytes());
        fields.extend_from_slice(&self.chunk.to_le_bytes());
        fields.extend_from_slice(&self.size_after.unwrap_or(u64::MAX).to_le_bytes());
        fields.extend_from_slice(&(self.path.len() as u16).to_le_bytes());
        fields.extend_from_slice(&(self.blob.len() as u32).to_le_bytes());
        let padding = [0; SECTOR];
        let padding = padding.get(..len - HEAD - self.path.len() - self.blob.len()).unwrap_or_default();
        let tag = key.tag(&[&fields, self.path, self.blob, padding]);
        for part in [&fields, tag.as_slice(), self.path, self.blob, padding] {
            out.extend_from_slice(part);
        }
        Ok(())
    }
}

/// The session that the record at the start of `bytes` says it is of, unverified; `None` where
/// there is no record.
pub fn session_claimed(bytes: &[u8]) -> Option<SessionId> {
    let mut r = Reader::new(bytes);
    let magic = r.array::<8>().ok()?;
    r.take(12).ok()?;
    let session = r.array().ok()?;
    (magic == *MAGIC).then_some(SessionId(session))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use runvault_crypto::aead::Engine;
    use runvault_crypto::secrets::Secret;

    use super::*;
    use crate::ids::RunId;
    use crate::keys::{RunKey, RunKeys};

    fn key(session: &SessionId) -> JournalKey {
        let run = RunKey(Secret::copy_from(&[1; 32]));
        RunKeys::derive(&run, &RunId([2; 16]), Engine::Portable).journal_key(session)
    }

    fn record(path: usize, blob: usize) -> Record {
        Record {
            number: 7,
            session: SessionId([3; 16]),
            file_id: FileId([4; 32]),
            epoch: 2,
            chunk: 9,
            size_after: None,
            path: vec![b'a'; path],
            blob: vec![5; blob],
        }
    }

    #[test]
    fn the_session_shows_without_its_key() {
        let session = SessionId([3; 16]);
        let bytes = record(3, 5).encode(&key(&session)).unwrap();
        assert_eq!(session_claimed(&bytes), Some(session));
        assert_eq!(session_claimed(&bytes[..30]), None);
        assert_eq!(session_claimed(&[0; 512]), None);
    }

    #[test]
    fn refusals_by_name() {
        let session = SessionId([3; 16]);
        let key = key(&session);
        let bytes = record(40, 300).encode(&key).unwrap();
        assert_eq!(bytes.len(), 512);
        let with = |at: usize, byte: u8| {
            let mut changed = bytes.clone();
            changed[at] ^= byte;
            Record::decode(&changed, &key).map(|_| ())
        };
        assert_eq!(with(0, 1), Err(Error::Magic));
        assert_eq!(with(9, 2), Err(Error::NotCanonical("length")));
        assert_eq!(with(93, 1), Err(Error::TooLong));
        for at in [12, 20, 36, 68, 72, 80, 94, 110, 200, 511] {
            assert_eq!(with(at, 1), Err(Error::NotAuthentic), "byte {at}");
        }
        assert_eq!(Record::decode(&bytes[..511], &key), Err(Error::Truncated));
        assert_eq!(Record::decode(&[0; 512], &key), Err(Error::Magic));
        let other = super::tests::key(&SessionId([9; 16]));
        assert_eq!(Record::decode(&bytes, &other), Err(Error::NotAuthentic));
        assert_eq!(record(PATH_MAX + 1, 1).encode(&key), Err(Error::TooLong));
        assert_eq!(record(1, BLOB_MAX + 1).encode(&key), Err(Error::TooLong));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_decodes_encodes_back(
            number in any::<u64>(), ids in any::<([u8; 16], [u8; 32])>(), epoch in any::<u32>(),
            chunk in any::<u64>(), size in prop::option::of(0..u64::MAX),
            path in prop::collection::vec(any::<u8>(), 0..2000),
            blob in prop::collection::vec(any::<u8>(), 0..10_000), after in any::<Vec<u8>>(),
        ) {
            let session = SessionId(ids.0);
            let key = key(&session);
            let record = Record { number, session, file_id: FileId(ids.1), epoch, chunk, size_after: size, path, blob };
            let bytes = record.encode(&key).unwrap();
            prop_assert_eq!(bytes.len() % SECTOR, 0);
            let (back, used) = Record::decode(&[&bytes[..], &after].concat(), &key).unwrap();
            prop_assert_eq!(used, bytes.len());
            prop_assert_eq!(back.encode(&key).unwrap(), bytes);
            prop_assert_eq!(back, record);
        }

        #[test]
        fn any_bytes_are_answered(mut bytes in prop::collection::vec(any::<u8>(), 0..1024), magic in any::<bool>()) {
            if magic && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(MAGIC);
            }
            prop_assert!(Record::decode(&bytes, &key(&SessionId([0; 16]))).is_err());
        }
    }
}
