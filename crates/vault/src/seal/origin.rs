//! What a run that replaces another keeps of the first: its run.json and the note of its seal, as their gateways signed
//! them. They prove the content still, since the manifest is the same to the byte.

use std::sync::Arc;

use runvault_format::descriptor::RunDescriptor;
use runvault_format::ids::{Digest, RunId};
use runvault_format::note::{Note, text_hash};
use runvault_format::seal_note::SealNote;
use runvault_store::backend::Dir;
use runvault_store::read_whole::read_whole;

use super::read::{NOTE_MAX, Signed, verify_note};
use crate::authority::Authority;
use crate::outcome::part_opened;
use crate::{Damage, Error, Result, runs};

/// In `seal/`: run.json of the first run.
pub const RUN: &str = "origin.run";
/// In `seal/`: its seal's note.
pub const NOTE: &str = "origin.note";
/// A chain of so many re-keyings is none that anybody made.
const GENERATIONS_MAX: usize = 1000;

/// The run that stood there first: what the run that replaces it stands for.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Its run.json.
    pub run: RunDescriptor,
    /// Text hash of that.
    pub run_note: Digest,
    /// The note of its seal.
    pub note: SealNote,
    /// Text hash of that.
    pub seal: Digest,
    /// All that were replaced, the newest first; the last one is the first.
    pub replaced: Vec<RunId>,
}

/// Its bytes, as they are kept.
pub(crate) struct Kept {
    pub(crate) run: Vec<u8>,
    pub(crate) note: Vec<u8>,
}

impl Kept {
    /// Those of a run whose seal is in `dir`: what it keeps of another, or its own.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn of(run: &Arc<dyn Dir>, seal: &dyn Dir, object: &str, replaces: bool) -> Result<Self> {
        if replaces {
            return Self::read(seal, object);
        }
        let read = |dir: &dyn Dir, name: &str| {
            read_whole(dir, name.as_bytes(), NOTE_MAX)
                .map_err(|e| part_opened("read", format!("{object}/{name}"), e))
        };
        Ok(Self { run: read(&**run, "run.json")?, note: read(seal, super::NOTE)? })
    }

    fn read(seal: &dyn Dir, object: &str) -> Result<Self> {
        let read = |name: &str| {
            let object = format!("{object}/{name}");
            read_whole(seal, name.as_bytes(), NOTE_MAX).map_err(|e| match e.raw_os_error() {
                Some(libc::ENOENT) => Error::damaged(object, Damage::Run("it is missing".to_owned())),
                _ => part_opened("read", object, e),
            })
        };
        Ok(Self { run: read(RUN)?, note: read(NOTE)? })
    }
}

/// The runs that a run replaces, the newest first, and the hash of the first one's seal, as the audit log has it.
pub(crate) fn generations(new: &RunId, authority: &dyn Authority) -> Result<(Vec<RunId>, Digest)> {
    let (mut replaced, mut seal, mut at) = (Vec::new(), None, *new);
    while let Some(said) = authority.replacement(&at).filter(|_| replaced.len() < GENERATIONS_MAX) {
        replaced.push(said.run);
        (seal, at) = (Some(said.seal), said.run);
    }
    let what = || Damage::Run("it replaces another run, and no line of the audit log names it".to_owned());
    let seal = seal.ok_or_else(|| Error::damaged(format!("runs/{new}/run.json"), what()))?;
    Ok((replaced, seal))
}

/// What `seal`, the seal of the run `new` with that note, keeps of the first run: signed by the gateways of that one,
/// and of the same content.
pub(super) fn load(
    new: &RunId,
    seal: &dyn Dir,
    note: &SealNote,
    authority: &dyn Authority,
) -> Result<Origin> {
    let object = format!("runs/{new}/seal");
    let kept = Kept::read(seal, &object)?;
    let (replaced, expected) = generations(new, authority)?;
    let origin = verify(&kept, &object, replaced, authority)?;
    let refuse = |what: &str| Error::damaged(format!("{object}/{NOTE}"), Damage::Run(what.to_owned()));
    if origin.seal != expected {
        return Err(refuse("it is not the seal that the audit log says was replaced"));
    }
    let content = |note: &SealNote| (note.manifest_sha256, note.files, note.bytes);
    if content(&origin.note) != content(note) {
        return Err(refuse("the run has another content than was sealed first"));
    }
    Ok(origin)
}

/// Both notes, each signed by whom it must be; `replaced` ends with the run that they are of.
pub(crate) fn verify(
    kept: &Kept,
    object: &str,
    replaced: Vec<RunId>,
    authority: &dyn Authority,
) -> Result<Origin> {
    let first = *replaced.last().ok_or(runvault_format::Error::NotCanonical("replaced"))?;
    let run = runs::verify_descriptor(&first, &format!("{object}/{RUN}"), &kept.run, authority)?.into_inner();
    let run_note = text_hash(Note::parse(&kept.run)?.text);
    let signed = Signed { run: &first, run_note, maker: run.signer, replaces: run.replaces() };
    let (note, seal) = verify_note(&kept.note, &format!("{object}/{NOTE}"), &signed, authority)?;
    Ok(Origin { run, run_note, note, seal, replaced })
}
