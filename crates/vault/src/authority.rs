//! What the engine asks of custody, which lives above it.
//!
//! The engine never decides who may do what: an [`Authority`] is a verified chain with the keys
//! that the acting identity could open, a [`Gateway`] is the writing machine's state folder.

mod ends;
mod gateway;

use runvault_crypto::signature::VerifyingKey;
pub use runvault_format::descriptor::StateRef;
use runvault_format::envelope_file::EnvelopeName;
use runvault_format::ids::{Digest, IdentityId, RunId, VaultId};
use runvault_format::keys::RunKey;
use runvault_format::replacement::Replacement;
use runvault_format::run_index::Rows;

pub use self::ends::{Admission, Last, Until};
pub use self::gateway::{ChainPlace, Gateway, Resume, SealPlace};
use crate::Result;

/// One file of a run's `keys/` directory, as found.
#[derive(Clone, Debug)]
pub struct EnvelopeFile {
    /// File name, such as `vault-3` or `reader-<id>`.
    pub name: String,
    /// Its bytes, at most 64 KiB.
    pub bytes: Vec<u8>,
}

/// A run's key, sealed, and what was known of the chain at that moment.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The newest verified state, which names the recipients.
    pub state: StateRef,
    /// Its epoch.
    pub epoch: u32,
    /// To the epoch's key, and to each standing reader.
    pub envelopes: Vec<EnvelopeFile>,
}

impl Sealed {
    /// Envelopes to the vault's key.
    pub(crate) fn of_the_vault(&self) -> impl Iterator<Item = &EnvelopeFile> {
        self.envelopes.iter().filter(|envelope| envelope.name.starts_with("vault-"))
    }
}

/// An enrolled gateway, as the newest state names it.
#[derive(Clone, Copy, Debug)]
pub struct GatewayKey {
    /// Verifies its runs.
    pub sign: VerifyingKey,
    /// Where its chains were ended.
    pub until: Option<Until>,
}

/// A run in the chain of its gateway, by its verified run.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MadeRun {
    /// Its signer.
    pub gateway: IdentityId,
    /// Counts that gateway's runs.
    pub seq: u64,
    /// Text hash of run.json.
    pub hash: Digest,
    /// The run.
    pub run: RunId,
}

/// How the acting identity stands by the newest chain that was read, and by this machine's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Number of the newest line of the audit log.
    pub line: u64,
    /// The newest epoch whose key it has; 0: none.
    pub epoch: u32,
    /// Why it reads nothing any more.
    pub lost: Option<Lost>,
}

/// What an identity that opened a vault has lost since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It was removed, or several have to agree now.
    Removed,
    /// Its time is over, since then, in RFC 3339.
    Expired(String),
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Removed => f.write_str("it was removed"),
            Self::Expired(at) => write!(f, "its time is over since {at}"),
        }
    }
}

/// The verified chain, as the acting identity sees it.
pub trait Authority: Send + Sync {
    /// Looks whether the chain went on: called before a run is made.
    fn refresh(&self) {}
    /// How the identity stands, as far as the chain was read.
    fn standing(&self) -> Standing {
        Standing { line: 0, epoch: 0, lost: None }
    }
    /// Whether the identity may open a run still, whatever envelope lies there.
    fn may_open(&self, _run: &RunId) -> bool {
        true
    }
    /// Whether an envelope of a run may come that is not there yet.
    fn may_be_given(&self, _run: &RunId) -> bool {
        true
    }
    /// The runs that lines behind that number grant to the identity: their envelopes come after the line.
    fn granted_behind(&self, _line: u64) -> Vec<RunId> {
        Vec::new()
    }
    /// SHA-256 of the genesis.
    fn vault_id(&self) -> VaultId;
    /// An enrolled gateway, ended or not; `None` for anyone else.
    fn gateway_key(&self, id: &IdentityId) -> Option<GatewayKey>;
    /// That a gateway may do, or might once, what only the maker of a run may: add to it once it is sealed, and seal it.
    /// `None` for the run: add to any.
    fn admission(&self, _gateway: &IdentityId, _run: Option<&RunId>) -> Option<Admission> {
        None
    }
    /// Whether it may now.
    fn is_admitted(&self, gateway: &IdentityId, run: Option<&RunId>) -> bool {
        self.admission(gateway, run).is_some_and(|admission| admission.until.is_none())
    }
    /// What a line of the audit log says of a run that replaces another: without one it counts for nothing.
    fn replacement(&self, _new: &RunId) -> Option<Replacement> {
        None
    }
    /// The runs that stand for that one under other keys, by the audit log: those that replace it, and those that replace
    /// these.
    fn replaced_by(&self, _run: &RunId) -> Vec<RunId> {
        Vec::new()
    }
    /// File names of the envelopes that this identity could open, the likeliest first.
    fn envelope_names(&self) -> Vec<String>;
    /// Opens the run's key with whatever this identity holds; `None` if no envelope is for it.
    /// A wrong or damaged envelope that *is* for it is an error.
    fn open_run(&self, run: &RunId, envelopes: &[EnvelopeFile]) -> Result<Option<RunKey>>;
    /// Those of a run's envelopes that are for nobody whom the chain names. `made`: the state that its run.json names.
    fn unknown_recipients(&self, _run: &RunId, _made: &StateRef, _of: &[EnvelopeName]) -> Vec<EnvelopeName> {
        Vec::new()
    }
    /// Whether every genuine run of the vault has an envelope that this identity could open: without any,
    /// a run is not closed to it but damaged.
    fn opens_every_run(&self) -> bool {
        false
    }
    /// The hash of a run's seal, where one was seen before: less, or another one, is refused.
    fn seal_seen(&self, _run: &RunId) -> Option<Digest> {
        None
    }
    /// A seal that holds.
    fn note_seal(&self, _run: &RunId, _hash: &Digest) {}
    /// A run that is there: once a gateway's newest is known, less is a store that was put back.
    fn note_run(&self, _made: &MadeRun) {}
    /// What an earlier mount of this machine found out about sealed runs; nothing of it is believed beyond what is
    /// listed.
    fn known_runs(&self) -> Rows {
        Rows::new()
    }
    /// Keeps it for later mounts, in the place of what was kept.
    fn keep_runs(&self, _rows: &Rows) {}
    /// Seals a run's key to whom the newest verified state names.
    fn seal_run(&self, run: &RunId, key: &RunKey) -> Result<Sealed>;
    /// The same for a run that replaces others, the first of them sealed when that state was the newest:
    /// nobody reads it who did not read those.
    fn seal_replacing(
        &self,
        run: &RunId,
        key: &RunKey,
        _replaced: &[RunId],
        _sealed_at: &StateRef,
    ) -> Result<Sealed> {
        self.seal_run(run, key)
    }
}

/// Who makes the runs of a re-keying.
pub trait Worker: Send + Sync {
    /// Whom the audit log names.
    fn id(&self) -> IdentityId;
    /// A signed note of that text.
    fn sign(&self, text: &str) -> Vec<u8>;
}
