//! A seal as it is found: whose it is, and what it says.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use runvault_crypto::digest::{Stream, sha256};
use runvault_format::descriptor::RunDescriptor;
use runvault_format::digests::{self, Line};
use runvault_format::header::Kind;
use runvault_format::ids::{Digest, IdentityId, RunId};
use runvault_format::manifest::{self, Header, Manifest};
use runvault_format::note::{Note, text_hash};
use runvault_format::pins::{self, Pinned};
use runvault_format::run_index::Row;
use runvault_format::seal_note::SealNote;
use runvault_format::size::Geometry;
use runvault_store::backend::{Access, Dir};
use runvault_store::read_whole::read_whole;

use super::origin::{self, Origin};
use super::sealed_file::Reader;
use super::{DIGESTS, MANIFEST, NOTE, PINS, SEAL};
use crate::authority::{Authority, GatewayKey, StateRef};
use crate::file::RunContext;
use crate::outcome::{exists, part_opened};
use crate::{Damage, Error, Result, pace, runs};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;
pub(super) const NOTE_MAX: usize = 1 << 20;
/// A line of less than 512 bytes for each of some millions of objects.
const DIGESTS_MAX: usize = 2 << 30;
/// The largest manifest that is read whole.
const MANIFEST_MAX: u64 = 4 << 30;

/// A seal whose signature holds.
pub struct Seal {
    /// What it says.
    pub note: SealNote,
    /// Text hash of the note, which the gateway's next seal names.
    pub hash: Digest,
    /// What it stands for, where its run replaces another.
    pub origin: Option<Box<Origin>>,
    pub(super) dir: Arc<dyn Dir>,
    pub(super) run: RunId,
    /// The state that its run.json names.
    pub(super) made: StateRef,
    geometry: Geometry,
}

/// Whether a run has a seal; whether it holds is another question.
///
/// # Errors
/// The store's.
pub fn has_seal(root: &Arc<dyn Dir>, run: &RunId) -> Result<bool> {
    let dir = runs::run_dir(root, run)?;
    exists(&*dir, SEAL).map_err(|e| Error::store("stat", format!("runs/{run}/seal"), e))
}

/// The seal of a run, which must be the one that this machine has seen, if it has; it is remembered. `None`: it has
/// none, and none was seen.
///
/// # Errors
/// [`Damage::Run`] for another seal than was seen, or none; as of [`Seal::load`].
pub fn find(root: &Arc<dyn Dir>, run: &RunId, authority: &dyn Authority) -> Result<Option<Seal>> {
    check_place(root, run, authority)?;
    let seen = authority.seal_seen(run);
    let refuse = |what: &str| Err(Error::damaged(format!("runs/{run}/seal"), Damage::Run(what.to_owned())));
    if !has_seal(root, run)? {
        return match seen {
            Some(_) => refuse("its seal was removed: this machine has seen it sealed"),
            None => Ok(None),
        };
    }
    let seal = Seal::load(root, run, authority)?;
    if seen.is_some_and(|seen| seen != seal.hash) {
        return refuse("another seal than this machine has seen");
    }
    authority.note_seal(run, &seal.hash);
    Ok(Some(seal))
}

/// That no run took the place of this one which this machine has seen, and which is gone: then somebody put this one back,
/// whose key is out.
///
/// # Errors
/// [`Damage::Run`]; the store's.
pub(crate) fn check_place(root: &Arc<dyn Dir>, run: &RunId, authority: &dyn Authority) -> Result<()> {
    let later = authority.replaced_by(run);
    let Some(seen) = later.iter().find(|new| authority.seal_seen(new).is_some()) else { return Ok(()) };
    // Its name alone can be planted.
    if later.iter().any(|new| Seal::load(root, new, authority).is_ok()) {
        return Ok(());
    }
    let what = format!(
        "its re-keying was undone: run {seen} took its place, which this machine has seen, and which is gone"
    );
    Err(Error::damaged(format!("runs/{run}/seal"), Damage::Run(what)))
}

impl Seal {
    /// Reads `seal/seal.note`: the gateway that made the run must have signed it, or one that was admitted to it, for
    /// this run.json.
    ///
    /// # Errors
    /// [`Damage::Run`] with what is wrong; the store's.
    pub fn load(root: &Arc<dyn Dir>, run: &RunId, authority: &dyn Authority) -> Result<Self> {
        let verified = runs::read_descriptor(root, run, authority)?;
        let object = || format!("runs/{run}/seal/{NOTE}");
        let dir = runs::run_dir(root, run)?.open_dir(SEAL);
        let dir = dir.map_err(|e| part_opened("open", format!("runs/{run}/seal"), e))?;
        let bytes = read_whole(&*dir, NOTE.as_bytes(), NOTE_MAX);
        let bytes = bytes.map_err(|e| part_opened("read", object(), e))?;
        let (run_note, maker) = (verified.text_hash()?, verified.descriptor.signer);
        let replaces = verified.descriptor.replaces();
        let signed = Signed { run, run_note, maker, replaces };
        let (note, hash) = verify_note(&bytes, &object(), &signed, authority)?;
        let origin = match replaces {
            true => Some(Box::new(origin::load(run, &*dir, &note, authority)?)),
            false => None,
        };
        let (made, geometry) = (verified.descriptor.state, verified.descriptor.geometry);
        Ok(Self { note, hash, origin, dir, run: *run, made, geometry })
    }

    /// What is signed of the run: its descriptor, and this.
    pub(crate) fn row(&self, run: &RunDescriptor) -> Row {
        Row {
            maker: run.signer,
            seq: run.seq.unwrap_or_default(),
            run_note: self.note.run_note,
            sealer: self.note.gateway,
            n: self.note.n,
            seal: self.hash,
            shown: None,
        }
    }

    /// More than any stored file of the run has: all that was sealed, and the largest manifest.
    pub(super) fn longest(&self) -> u64 {
        self.geometry.stored_len_with_header(self.note.bytes.saturating_add(MANIFEST_MAX))
    }

    /// The signed hash of everything that is stored.
    ///
    /// # Errors
    /// [`Damage::Run`] where it is not what the note names; the store's.
    pub fn digests(&self) -> Result<Vec<Line>> {
        let object = || format!("runs/{}/seal/{DIGESTS}", self.run);
        let other = || Error::damaged(object(), Damage::Run("not what the seal names".to_owned()));
        let opened = |e| part_opened("read", object(), e);
        // Nothing of its size is kept before it is known to be the one that was signed.
        let stored = self.dir.stat(DIGESTS.as_bytes()).map_err(opened)?;
        if stored.size > DIGESTS_MAX as u64
            || hash(&*self.dir, DIGESTS.as_bytes()).map_err(opened)? != self.note.digests_sha256
        {
            return Err(other());
        }
        let bytes = read_whole(&*self.dir, DIGESTS.as_bytes(), DIGESTS_MAX).map_err(opened)?;
        if Digest(sha256(&[&bytes])) != self.note.digests_sha256 {
            return Err(other());
        }
        digests::parse(&bytes).map_err(|e| Error::damaged(object(), Damage::Run(e.to_string())))
    }

    /// The whole manifest, which must have the hash that is signed.
    ///
    /// # Errors
    /// Damage; the store's.
    pub(crate) fn manifest(&self, context: &Arc<RunContext>) -> Result<Manifest> {
        let reader = Reader::open(context, &*self.dir, MANIFEST, Kind::Manifest, &self.note.manifest_id)?;
        if reader.size > MANIFEST_MAX {
            return Err(reader.damaged(runvault_format::Error::TooLong));
        }
        let mut bytes = vec![0; reader.size as usize];
        reader.read(0, &mut bytes)?;
        if Digest(sha256(&[&bytes])) != self.note.manifest_sha256 {
            return Err(reader.damaged(runvault_format::Error::Manifest("not what the seal names")));
        }
        Manifest::parse(&bytes).map_err(|e| reader.damaged(e))
    }

    /// The manifest, to be read by range.
    ///
    /// # Errors
    /// Damage; the store's.
    pub(crate) fn open_manifest(&self, context: &Arc<RunContext>) -> Result<(Reader, Header)> {
        let reader = Reader::open(context, &*self.dir, MANIFEST, Kind::Manifest, &self.note.manifest_id)?;
        let mut head = [0; manifest::LEN];
        reader.read(0, &mut head)?;
        let header = Header::decode(&head).map_err(|e| reader.damaged(e))?;
        if header.manifest_len() != reader.size {
            return Err(reader.damaged(runvault_format::Error::Truncated));
        }
        Ok((reader, header))
    }

    /// What is pinned.
    ///
    /// # Errors
    /// Damage; the store's.
    pub(crate) fn pins(&self, context: &Arc<RunContext>, entries: usize) -> Result<Pins> {
        let reader = Reader::open(context, &*self.dir, PINS, Kind::Pins, &self.note.pins_id)?;
        let mut head = [0; pins::HEADER];
        reader.read(0, &mut head)?;
        let header = pins::Header::decode(&head).map_err(|e| reader.damaged(e))?;
        if header.entries as usize != entries || header.pins_len() != reader.size {
            return Err(reader.damaged(runvault_format::Error::Truncated));
        }
        Ok(Pins { reader, header })
    }
}

/// What a seal must be of.
pub(super) struct Signed<'a> {
    pub(super) run: &'a RunId,
    /// Text hash of its run.json.
    pub(super) run_note: Digest,
    /// The signer of that.
    pub(super) maker: IdentityId,
    /// It replaces another run: the log is asked who made it, which it is for no other.
    pub(super) replaces: bool,
}

/// A seal's note, and its text's hash: the gateway that made the run must have signed it, or one that was admitted to
/// it; of a run that replaces another the worker that made it.
pub(super) fn verify_note(
    bytes: &[u8],
    object: &str,
    of: &Signed<'_>,
    authority: &dyn Authority,
) -> Result<(SealNote, Digest)> {
    let refuse = |what: &str| Error::damaged(object, Damage::Run(what.to_owned()));
    let not_theirs = |what: String| Error::damaged(object, Damage::Signer(what));
    let named = |e: runvault_format::Error| refuse(&e.to_string());
    let parsed = Note::parse(bytes).map_err(named)?;
    // Whose it says it is, to find the key that it is verified with.
    let signer = SealNote::parse_text(parsed.text).map_err(named)?.gateway;
    let made = signer == of.maker;
    let said = if of.replaces && made { authority.replacement(of.run) } else { None };
    let worker = said.filter(|said| said.worker == signer);
    let admission = authority.admission(&signer, Some(of.run)).filter(|_| !made);
    if !made && admission.is_none() {
        return Err(not_theirs(format!("gateway {signer}, which signed it, did not make the run")));
    }
    let key = match &worker {
        Some(worker) => GatewayKey { sign: worker.sign, until: None },
        None => {
            authority.gateway_key(&signer).ok_or_else(|| not_theirs("its signer is no gateway".into()))?
        }
    };
    let text = parsed.verify(&signer, &key.sign).map_err(named)?;
    let note = SealNote::parse_text(&text).map_err(named)?;
    if note.run != *of.run {
        return Err(refuse("it is that of another run"));
    }
    if note.run_note != of.run_note {
        return Err(refuse("it is for another run.json"));
    }
    if worker.is_some() && note.n != 1 {
        return Err(refuse("a worker's seals have no chain"));
    }
    let last = key.until.map(|until| until.seal);
    if let Some(why) = last.and_then(|last| last.refuses("seal", Some(note.n), || text_hash(&text))) {
        return Err(not_theirs(format!("{why} (gateway {signer})")));
    }
    if admission.is_some_and(|admission| !admission.counts_seal(note.n, text_hash(&text))) {
        return Err(not_theirs(format!(
            "gateway {signer}, which signed it, was dismissed from the run before"
        )));
    }
    Ok((note, text_hash(&text)))
}

/// Pins, read by range.
pub(crate) struct Pins {
    reader: Reader,
    header: pins::Header,
}

impl Pins {
    /// What is pinned of an entry of the manifest.
    pub(crate) fn of(&self, i: u32) -> Result<Pinned> {
        let mut bytes = [0; pins::LEN];
        self.reader.read(self.header.entry_offset(i), &mut bytes)?;
        Pinned::decode(&bytes).map_err(|e| self.reader.damaged(e))
    }

    /// Nonces of a file, of these of its chunks.
    pub(crate) fn nonces(&self, pinned: &Pinned, chunks: Range<u64>) -> Result<Vec<[u8; pins::NONCE]>> {
        let (first, end) =
            (pinned.first.saturating_add(chunks.start), pinned.first.saturating_add(chunks.end));
        if chunks.end > pinned.chunks || end > self.header.nonces || first > end {
            return Err(self.reader.damaged(runvault_format::Error::Truncated));
        }
        let mut bytes = vec![0; (end - first) as usize * pins::NONCE];
        self.reader.read(pins::Header::nonce_offset(first), &mut bytes)?;
        Ok(bytes.as_chunks().0.to_vec())
    }
}

/// SHA-256 of a stored file, past what the kernel has of it.
pub(crate) fn hash(dir: &dyn Dir, name: &[u8]) -> io::Result<Digest> {
    let file = dir.open_file(name, Access::Read)?;
    file.will_not_need();
    let (mut hash, mut at, mut buf) = (Stream::default(), 0, vec![0; PIECE]);
    loop {
        let n = file.read_at(&mut buf, at)?;
        pace::keep(n as u64);
        hash.update(buf.get(..n).unwrap_or_default());
        at += n as u64;
        if n < buf.len() {
            return Ok(Digest(hash.finish()));
        }
    }
}
