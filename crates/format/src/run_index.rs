//! What a machine keeps of sealed runs from one mount to the next, in its state folder: no key of any.
//!
//! ```text
//! magic "rvindex1" 8 | nonce 12 | ciphertext | tag 16
//! ```
//! Sealed under Expand(Extract("", seed of the identity), label); associated data: label ‖ vault id ‖ identity id.
//! The plaintext is a row after the other, in the order of run ids:
//!
//! ```text
//! run id 16 | flags u8 | maker 16 | seq u64 | run note 32 | sealer 16 | n u64 | seal 32
//! where it opens (flag 1): chunk log2 u8 | opened u8 + text | name u16 + bytes | top 128 | attributes u32 + bytes
//! where that adds to another run (flag 2): run id 16 | how u8 | seal 32
//! ```

use std::collections::BTreeMap;

use runvault_crypto::aead::Engine;
use runvault_crypto::kdf::{hkdf_expand, hkdf_extract};
use runvault_crypto::secrets::Secret;
use zeroize::Zeroizing;

use crate::descriptor::{After, How};
use crate::ids::{Digest, IdentityId, RunId, VaultId};
use crate::manifest::{self, Record};
use crate::reader::Reader;
use crate::size::Geometry;
use crate::{Error, Result, labels};

const MAGIC: &[u8; 8] = b"rvindex1";
const AROUND: usize = 8 + 12 + 16;
const OPENS: u8 = 1;
const ADDS: u8 = 2;

/// A sealed run whose signatures held, and what they said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Who signed run.json.
    pub maker: IdentityId,
    /// Its number in the maker's chain; 0: it has none.
    pub seq: u64,
    /// Text hash of run.json.
    pub run_note: Digest,
    /// Who signed the seal.
    pub sealer: IdentityId,
    /// Its number among the sealer's seals.
    pub n: u64,
    /// Text hash of its note.
    pub seal: Digest,
    /// What is shown of it; `None`: it does not open for this identity.
    pub shown: Option<Shown>,
}

/// What is shown of a sealed run before anything in it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Of the run's files.
    pub geometry: Geometry,
    /// When it was made, as run.json has it.
    pub opened: String,
    /// Its plaintext name.
    pub name: Vec<u8>,
    /// The manifest's record of its top directory.
    pub top: Record,
    /// Attributes of that directory, as in the manifest.
    pub xattrs: Vec<u8>,
    /// What it adds to.
    pub after: Option<After>,
}

/// Rows by their runs.
pub type Rows = BTreeMap<RunId, Row>;

/// Whose index it is, and what seals it.
#[derive(Clone, Debug)]
pub struct IndexKey {
    key: Secret<32>,
    aad: Vec<u8>,
    identity: IdentityId,
}

impl IndexKey {
    /// Of an identity, by its seed.
    pub fn derive(seed: &Secret<32>, identity: IdentityId, vault: &VaultId) -> Self {
        let key = hkdf_expand(&hkdf_extract(b"", seed), &[labels::INDEX]);
        Self { key, aad: [labels::INDEX, &vault.0, &identity.0].concat(), identity }
    }

    /// Whose.
    pub fn identity(&self) -> IdentityId {
        self.identity
    }

    /// The file.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::Crypto`].
    pub fn seal(&self, rows: &Rows) -> Result<Vec<u8>> {
        let plain = encode(rows)?;
        let mut sealed = vec![0; plain.len()];
        let (nonce, tag) = Engine::Portable.key(&self.key).seal(&self.aad, &plain, &mut sealed)?;
        Ok([&MAGIC[..], &nonce, &sealed, &tag].concat())
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`Error::Magic`], [`Error::Truncated`], [`Error::NotAuthentic`], and those of [`decode`].
    pub fn open(&self, bytes: &[u8]) -> Result<Rows> {
        let mut r = Reader::new(bytes);
        if r.array::<8>()? != *MAGIC {
            return Err(Error::Magic);
        }
        let nonce = r.array::<12>()?;
        let sealed = r.take(bytes.len().checked_sub(AROUND).ok_or(Error::Truncated)?)?;
        let tag = r.array::<16>()?;
        let mut plain = Zeroizing::new(vec![0; sealed.len()]);
        Engine::Portable.key(&self.key).open(&nonce, &self.aad, sealed, &tag, &mut plain)?;
        decode(&plain)
    }
}

/// The rows in the clear.
///
/// # Errors
/// [`Error::TooLong`].
pub fn encode(rows: &Rows) -> Result<Zeroizing<Vec<u8>>> {
    // As long as it gets, so that nothing of it stays behind where it grew.
    let mut plain = Zeroizing::new(Vec::with_capacity(rows.values().map(longest).sum()));
    rows.iter().try_for_each(|(run, row)| encode_row(run, row, &mut plain))?;
    Ok(plain)
}

/// Parses them.
///
/// # Errors
/// [`Error::Truncated`], [`Error::Reserved`], [`Error::NotCanonical`] and those of its parts.
pub fn decode(bytes: &[u8]) -> Result<Rows> {
    let (mut r, mut rows) = (Reader::new(bytes), Rows::new());
    while !r.is_empty() {
        let (run, row) = decode_row(&mut r)?;
        if rows.last_key_value().is_some_and(|(before, _)| *before >= run) {
            return Err(Error::NotCanonical("order of runs"));
        }
        rows.insert(run, row);
    }
    Ok(rows)
}

/// At most as many bytes as it takes.
fn longest(row: &Row) -> usize {
    let shown =
        |s: &Shown| 1 + 1 + s.opened.len() + 2 + s.name.len() + manifest::LEN + 4 + s.xattrs.len() + 49;
    129 + row.shown.as_ref().map_or(0, shown)
}

fn encode_row(run: &RunId, row: &Row, out: &mut Vec<u8>) -> Result<()> {
    let adds = row.shown.as_ref().is_some_and(|shown| shown.after.is_some());
    let flags = if row.shown.is_some() { OPENS } else { 0 } | if adds { ADDS } else { 0 };
    let (seq, n) = (row.seq.to_le_bytes(), row.n.to_le_bytes());
    let parts: [&[u8]; 8] =
        [&run.0, &[flags], &row.maker.0, &seq, &row.run_note.0, &row.sealer.0, &n, &row.seal.0];
    parts.iter().for_each(|part| out.extend_from_slice(part));
    let Some(shown) = &row.shown else { return Ok(()) };
    let long = |_| Error::TooLong;
    out.push(shown.geometry.log2());
    out.push(u8::try_from(shown.opened.len()).map_err(long)?);
    out.extend_from_slice(shown.opened.as_bytes());
    out.extend_from_slice(&u16::try_from(shown.name.len()).map_err(long)?.to_le_bytes());
    out.extend_from_slice(&shown.name);
    out.extend_from_slice(&shown.top.encode());
    out.extend_from_slice(&u32::try_from(shown.xattrs.len()).map_err(long)?.to_le_bytes());
    out.extend_from_slice(&shown.xattrs);
    if let Some(after) = &shown.after {
        out.extend_from_slice(&after.run.0);
        out.push(match after.how {
            How::Continues => 1,
            How::Replaces => 2,
        });
        out.extend_from_slice(&after.seal.0);
    }
    Ok(())
}

fn decode_row(r: &mut Reader<'_>) -> Result<(RunId, Row)> {
    let (run, flags) = (RunId(r.array()?), r.u8()?);
    if !matches!(flags, 0 | OPENS | 3) {
        return Err(Error::Reserved);
    }
    let row = Row {
        maker: IdentityId(r.array()?),
        seq: r.u64()?,
        run_note: Digest(r.array()?),
        sealer: IdentityId(r.array()?),
        n: r.u64()?,
        seal: Digest(r.array()?),
        shown: if flags & OPENS == 0 { None } else { Some(decode_shown(r, flags & ADDS != 0)?) },
    };
    Ok((run, row))
}

fn decode_shown(r: &mut Reader<'_>, adds: bool) -> Result<Shown> {
    let geometry = Geometry::new(r.u8()?)?;
    let len = usize::from(r.u8()?);
    let opened = std::str::from_utf8(r.take(len)?).map_err(|_| Error::NotCanonical("opened"))?.to_owned();
    let len = usize::from(r.u16()?);
    let name = r.take(len)?.to_vec();
    let top = Record::decode(&r.array()?)?;
    let len = usize::try_from(r.u32()?).map_err(|_| Error::TooLong)?;
    let xattrs = r.take(len)?.to_vec();
    let after = adds.then(|| decode_after(r)).transpose()?;
    Ok(Shown { geometry, opened, name, top, xattrs, after })
}

fn decode_after(r: &mut Reader<'_>) -> Result<After> {
    let run = RunId(r.array()?);
    let how = match r.u8()? {
        1 => How::Continues,
        2 => How::Replaces,
        other => return Err(Error::Kind(other)),
    };
    Ok(After { run, how, seal: Digest(r.array()?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Kind;

    fn top() -> Record {
        Record {
            kind: Kind::Dir,
            mode: 0o755,
            uid: 1000,
            gid: 100,
            nlink: 3,
            object: 0,
            parent: 0,
            first: 1,
            children: 2,
            rdev: 0,
            size: 0,
            mtime: 1_700_000_000,
            mtime_ns: 5,
            name: 0,
            target: 0,
            xattrs: 0,
            heap: 0,
            sha256: [0; 32],
        }
    }

    fn rows() -> Rows {
        let row = |n: u8, shown: Option<Shown>| Row {
            maker: IdentityId([n; 16]),
            seq: n.into(),
            run_note: Digest([n; 32]),
            sealer: IdentityId([n + 1; 16]),
            n: 9,
            seal: Digest([n + 2; 32]),
            shown,
        };
        let shown = |after| Shown {
            geometry: Geometry::default(),
            opened: "2026-11-24T06:00:00Z".into(),
            name: b"241124_A00123".to_vec(),
            top: top(),
            xattrs: b"x".to_vec(),
            after,
        };
        let after = After { run: RunId([8; 16]), how: How::Continues, seal: Digest([7; 32]) };
        Rows::from([
            (RunId([1; 16]), row(1, None)),
            (RunId([2; 16]), row(2, Some(shown(None)))),
            (RunId([3; 16]), row(3, Some(shown(Some(after))))),
        ])
    }

    fn key(n: u8) -> IndexKey {
        IndexKey::derive(&Secret::copy_from(&[n; 32]), IdentityId([n; 16]), &VaultId([5; 32]))
    }

    #[test]
    fn what_is_sealed_opens_for_its_identity_in_its_vault_alone() {
        let bytes = key(1).seal(&rows()).unwrap();
        assert_eq!(key(1).open(&bytes).unwrap(), rows());
        assert_eq!(key(1).open(&key(1).seal(&Rows::new()).unwrap()).unwrap(), Rows::new());
        assert!(!bytes.windows(6).any(|part| part == b"241124"));
        let other = IndexKey::derive(&Secret::copy_from(&[1; 32]), IdentityId([1; 16]), &VaultId([6; 32]));
        for key in [key(2), other] {
            assert_eq!(key.open(&bytes).err(), Some(Error::NotAuthentic));
        }
        for at in (0..bytes.len()).step_by(7) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(key(1).open(&changed).is_err(), "{at}");
            assert!(key(1).open(&bytes[..at]).is_err(), "{at}");
        }
        assert_eq!(key(1).open(&[0; 40]).err(), Some(Error::Magic));
        assert_eq!(key(1).open(&[&bytes[..], b"x"].concat()).err(), Some(Error::NotAuthentic));
    }

    #[test]
    fn refusals_of_what_authenticates() {
        let plain = encode(&rows()).unwrap();
        assert_eq!(decode(&plain).unwrap(), rows());
        let first = 129;
        let twice = [&plain[..first], &plain[..first]].concat();
        assert_eq!(decode(&twice).err(), Some(Error::NotCanonical("order of runs")));
        let mut flag = plain.to_vec();
        flag[16] = 2;
        assert_eq!(decode(&flag).err(), Some(Error::Reserved));
        for cut in [1, first - 1, plain.len() - 1] {
            assert_eq!(decode(&plain[..cut]).err(), Some(Error::Truncated), "{cut}");
        }
    }
}
