//! What the engine asks of the state folder of a machine that writes.

use std::sync::Arc;

use runvault_format::ids::{Digest, IdentityId, RunId, SessionId};
use runvault_format::keys::RunKey;
use runvault_store::backend::Dir;

use crate::Result;

/// A run that this gateway holds open: what its state folder keeps.
pub struct Resume {
    /// The run's key.
    pub key: RunKey,
    /// The session whose journal may be in the store.
    pub session: SessionId,
}

/// The gateway's place in its own chain, for the next run.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainPlace {
    /// Sequence number of the run to be made, from 1.
    pub seq: u64,
    /// SHA-256 of the previous run.json; `None` for the first.
    pub prev: Option<[u8; 32]>,
    /// How many seals the gateway has made.
    pub seals: u64,
    /// Text hash of the newest; `None` before the first.
    pub seals_hash: Option<Digest>,
}

/// The gateway's place in its chain of seals, for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealPlace {
    /// Counts its seals from 1.
    pub n: u64,
    /// Text hash of the seal before; `None` for the first.
    pub prev: Option<Digest>,
}

/// The state folder of a writing mount.
pub trait Gateway: Send + Sync {
    /// The signer of this machine's runs.
    fn id(&self) -> IdentityId;
    /// Hash of host identity, boot id, process: what the lease shows.
    fn holder(&self) -> String;
    /// Makes the next run durable in the state folder (`pending` and the resume entry) before the
    /// store sees it. `text` builds run.json's JSON for the place; returns the signed note.
    fn begin_run(
        &self,
        run: &RunId,
        resume: &Resume,
        text: &mut dyn FnMut(ChainPlace) -> Result<String>,
    ) -> Result<Vec<u8>>;
    /// The pending run is durable in the store: pending becomes head.
    fn commit_run(&self, run: &RunId) -> Result<()>;
    /// Signs `retired/<run>` for a run that is removed; the engine stores it. Returns the note.
    fn retire_run(&self, run: &RunId, run_note: &[u8], time: &str) -> Result<Vec<u8>>;
    /// The resume entry of a run; `None` if this machine does not hold it.
    fn resume(&self, run: &RunId) -> Result<Option<Resume>>;
    /// Writes a resume entry, synced: a fresh session of a held run, or a run taken over.
    fn hold(&self, run: &RunId, resume: &Resume) -> Result<()>;
    /// Signs the note of a seal that is being made, and keeps it until it is committed. `text` builds it for the
    /// place in the chain.
    fn begin_seal(&self, run: &RunId, text: &mut dyn FnMut(SealPlace) -> Result<String>) -> Result<Vec<u8>>;
    /// The seal is in the store, and was read back: the run's key is erased here for good. Its `name` is known again
    /// when it is asked for ([`Gateway::sealed_as`]).
    fn commit_seal(&self, run: &RunId, name: &[u8]) -> Result<()>;
    /// The newest run of that name that was sealed here, and its seal's text hash.
    fn sealed_as(&self, name: &[u8]) -> Result<Option<(RunId, Digest)>>;
    /// Erases the key of a run that is gone, or that another gateway sealed.
    fn release(&self, run: &RunId) -> Result<()>;
    /// All runs with a resume entry.
    fn held(&self) -> Result<Vec<RunId>>;
    /// The state folder's directory of ledgers; `None` where none are kept.
    fn ledgers(&self) -> Option<Arc<dyn Dir>> {
        None
    }
}
