//! Where a gateway stands in its chains of runs and of seals: the files `head`, `pending`, `seals` and `pending-seal`.

use runvault_crypto::signature::VerifyingKey;
use runvault_format::descriptor::RunDescriptor;
use runvault_format::ids::{Digest, IdentityId, RunId};
use runvault_format::note::{self, Note};
use runvault_format::run_index::Rows;
use runvault_format::seal_note::SealNote;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::state_folder::Folder;
use crate::{Error, Result};

const HEAD: &str = "head";
pub(super) const PENDING: &str = "pending";
const SEALS: &str = "seals";
pub(super) const PENDING_SEAL: &str = "pending-seal";

/// Where the gateway stands in its chain of runs.
#[derive(Debug)]
pub(super) struct Place {
    folder: Folder,
    pub(super) head: Option<Head>,
    pub(super) pending: Option<Pending>,
    pub(super) seals: Option<SealHead>,
    /// The store was not looked through for newer ones; with what is known of its runs.
    pub(super) uncounted: Option<Rows>,
}

/// The file `seals`: the newest seal of this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SealHead {
    pub(crate) n: u64,
    /// SHA-256 of its note's text.
    pub(crate) hash: Digest,
    pub(crate) run: RunId,
}

/// The file `head`: the newest run of this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    pub(crate) seq: u64,
    /// SHA-256 of its run.json's text, whatever signature lines that gains.
    pub(crate) hash: Digest,
    pub(crate) run: RunId,
}

/// A run that is being made: its run.json, and what becomes the head.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) note: Vec<u8>,
    pub(crate) head: Head,
    pub(crate) prev: Option<Digest>,
}

/// The file `pending-seal`: the note of a seal that is being made, which this gateway signed.
pub(super) struct PendingSeal {
    pub(super) note: Vec<u8>,
    pub(super) seal: SealNote,
    /// Text hash of the note.
    pub(super) hash: Digest,
}

impl Place {
    pub(super) fn open(folder: &Folder, identity: &Identity) -> Result<Self> {
        Ok(Self {
            folder: folder.again(),
            head: read_json(folder, HEAD)?,
            pending: read_pending(folder, identity)?,
            seals: read_json(folder, SEALS)?,
            uncounted: None,
        })
    }

    pub(super) fn pending_becomes_head(&mut self, pending: &Pending) -> Result<()> {
        self.write_head(pending.head)?;
        self.folder.remove(PENDING)?;
        self.pending = None;
        Ok(())
    }

    pub(super) fn write_head(&mut self, head: Head) -> Result<()> {
        self.write_json(HEAD, &head)?;
        self.head = Some(head);
        Ok(())
    }

    pub(super) fn write_seals(&mut self, seals: SealHead) -> Result<()> {
        self.write_json(SEALS, &seals)?;
        self.seals = Some(seals);
        Ok(())
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_vec(value).map_err(|e| damaged(&self.folder, name, e))?;
        text.push(b'\n');
        self.folder.write(name, &text)
    }

    pub(super) fn pending_seal(&self, identity: &Identity) -> Result<Option<PendingSeal>> {
        let note = self.folder.read(PENDING_SEAL)?;
        note.map(|note| self.parse_seal(note, identity)).transpose()
    }

    pub(super) fn parse_seal(&self, note: Vec<u8>, identity: &Identity) -> Result<PendingSeal> {
        let bad = |e| damaged(&self.folder, PENDING_SEAL, e);
        let parsed = Note::parse(&note).map_err(bad)?;
        let text = parsed.verify(&identity.id(), &identity.keys.sign.public()).map_err(bad)?;
        let (seal, hash) = (SealNote::parse_text(&text).map_err(bad)?, note::text_hash(&text));
        Ok(PendingSeal { note, seal, hash })
    }
}

fn read_json<T: DeserializeOwned>(folder: &Folder, name: &str) -> Result<Option<T>> {
    let Some(bytes) = folder.read(name)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| damaged(folder, name, e))
}

fn read_pending(folder: &Folder, identity: &Identity) -> Result<Option<Pending>> {
    let Some(bytes) = folder.read(PENDING)? else { return Ok(None) };
    parse_own(bytes, identity).map(Some).map_err(|e| damaged(folder, PENDING, e))
}

/// A run.json of this gateway's, whose signature holds.
pub(super) fn parse_own(note: Vec<u8>, identity: &Identity) -> runvault_format::Result<Pending> {
    parse_signed(note, &identity.id(), &identity.keys.sign.public())
}

/// A run.json of that gateway's, whose signature holds.
pub(crate) fn parse_signed(
    note: Vec<u8>,
    gateway: &IdentityId,
    key: &VerifyingKey,
) -> runvault_format::Result<Pending> {
    let parsed = Note::parse(&note)?;
    let text = parsed.verify(gateway, key)?;
    let run = RunDescriptor::parse_text(&text)?;
    // A replacing run has no number: a worker signs it, not a gateway.
    let seq = run.seq.ok_or(runvault_format::Error::NotCanonical("seq"))?;
    let head = Head { seq, hash: note::text_hash(&text), run: run.run };
    let prev = run.prev;
    Ok(Pending { note, head, prev })
}

pub(super) fn damaged(folder: &Folder, name: &str, why: impl ToString) -> Error {
    Error::Damaged { object: folder.shown(name), why: why.to_string() }
}
