//! The text of `retired/<run id>` where the vault's owner says it: a run is no longer expected in this store.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::ids::{Digest, IdentityId, RunId, VaultId};
use crate::json;

/// The note's kind: its first line is `runvault/1 removed`.
pub const KIND: &str = "removed";

/// The seal of a run that goes. With `n` and `prev` the chain of its gateway stays whole without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemovedSeal {
    /// Its signer.
    pub gateway: IdentityId,
    /// Its number.
    #[serde(with = "json::int")]
    pub n: u64,
    /// Text hash of its note.
    pub hash: Digest,
    /// Its `prev`.
    pub prev: Option<Digest>,
}

/// A run that goes, as an operation names it: with `seq` and `prev` the chain of its gateway stays whole without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoneRun {
    /// The run.
    pub run: RunId,
    /// Signer of its run.json.
    pub gateway: IdentityId,
    /// The run's place in that gateway's chain.
    #[serde(with = "json::int")]
    pub seq: u64,
    /// Text hash of the run's run.json.
    pub run_note: Digest,
    /// Its `prev`.
    pub prev: Option<Digest>,
    /// Where it was sealed.
    pub seal: Option<RemovedSeal>,
}

/// What the note says. With `seq` and `prev` the gateway's chain stays whole without the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    /// The vault.
    pub vault: VaultId,
    /// The run.
    pub run: RunId,
    /// Signer of its run.json.
    pub gateway: IdentityId,
    /// The run's place in that gateway's chain.
    #[serde(with = "json::int")]
    pub seq: u64,
    /// Text hash of the run's run.json.
    pub run_note: Digest,
    /// Its `prev`.
    pub prev: Option<Digest>,
    /// Where it was sealed.
    pub seal: Option<RemovedSeal>,
    /// The custodian who signs.
    pub custodian: IdentityId,
    /// Why, for people.
    #[serde(with = "json::reason")]
    pub reason: String,
    /// When, RFC 3339 in UTC.
    #[serde(with = "json::time")]
    pub time: String,
}

impl Removed {
    /// The run, as an operation names it.
    pub fn gone(&self) -> GoneRun {
        GoneRun {
            run: self.run,
            gateway: self.gateway,
            seq: self.seq,
            run_note: self.run_note,
            prev: self.prev,
            seal: self.seal.clone(),
        }
    }

    /// The note's text.
    ///
    /// # Errors
    /// [`crate::Error::Json`] for an integer over 2^53, another form of time, a reason that is too long.
    pub fn to_text(&self) -> Result<String> {
        json::to_text(KIND, self)
    }

    /// Parses a note's text.
    ///
    /// # Errors
    /// Those of a text of two lines: docs/format.md, "JSON".
    pub fn parse_text(text: &str) -> Result<Self> {
        json::parse_text(KIND, text)
    }
}
