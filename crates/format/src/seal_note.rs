//! The text of `seal/seal.note`: what a gateway signs when a run is finished.

use serde::{Deserialize, Serialize};

pub use crate::descriptor::StateRef;
use crate::ids::{Digest, FileId, IdentityId, RunId};
use crate::json;
use crate::{Error, Result};

/// The note's kind: its first line is `runvault/1 seal`.
pub const KIND: &str = "seal";

/// What the note says. It names every byte of the run: the manifest all that the key opens, the digests all that is
/// stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealNote {
    /// The run.
    pub run: RunId,
    /// Text hash of its run.json.
    pub run_note: Digest,
    /// The signer of both.
    pub gateway: IdentityId,
    /// Counts the gateway's seals from 1.
    #[serde(with = "json::int")]
    pub n: u64,
    /// Text hash of the gateway's seal before; null for the first.
    pub prev: Option<Digest>,
    /// The custody state that the gateway knew.
    pub state: StateRef,
    /// How many files the run has, each counted once.
    #[serde(with = "json::int")]
    pub files: u64,
    /// Plaintext bytes of them.
    #[serde(with = "json::int")]
    pub bytes: u64,
    /// SHA-256 of the manifest's plaintext, which stays when the run is re-keyed.
    pub manifest_sha256: Digest,
    /// File id of `seal/manifest`.
    pub manifest_id: FileId,
    /// File id of `seal/pins`.
    pub pins_id: FileId,
    /// SHA-256 of `seal/digests`.
    pub digests_sha256: Digest,
    /// When, RFC 3339 in UTC.
    #[serde(with = "json::time")]
    pub sealed: String,
}

impl SealNote {
    /// The note's text.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::NotCanonical`] for what [`SealNote::parse_text`] refuses.
    pub fn to_text(&self) -> Result<String> {
        self.check()?;
        json::to_text(KIND, self)
    }

    /// Parses a note's text.
    ///
    /// # Errors
    /// Those of a text of two lines; [`Error::NotCanonical`] for a number without the seal before it.
    pub fn parse_text(text: &str) -> Result<Self> {
        let note: Self = json::parse_text(KIND, text)?;
        note.check()?;
        Ok(note)
    }

    fn check(&self) -> Result<()> {
        let chained = self.n > 0 && (self.n == 1) == self.prev.is_none();
        if chained { Ok(()) } else { Err(Error::NotCanonical("n and prev")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn note()(
            ids in any::<([u8; 16], [u8; 32], [u8; 16], [u8; 32], [u8; 32])>(), n in 1u64..=json::INTEGER_MAX,
            prev in any::<[u8; 32]>(), state in 0u64..=json::INTEGER_MAX, hashes in any::<([u8; 32], [u8; 32], [u8; 32])>(),
            counts in (0u64..=json::INTEGER_MAX, 0u64..=json::INTEGER_MAX), at in 0u64..253_402_300_800,
        ) -> SealNote {
            SealNote {
                run: RunId(ids.0), run_note: Digest(ids.1), gateway: IdentityId(ids.2), n,
                prev: (n > 1).then_some(Digest(prev)), state: StateRef { n: state, hash: Digest(hashes.0) },
                files: counts.0, bytes: counts.1, manifest_sha256: Digest(hashes.1), manifest_id: FileId(ids.3),
                pins_id: FileId(ids.4), digests_sha256: Digest(hashes.2), sealed: crate::time::text(at),
            }
        }
    }

    proptest! {
        #[test]
        fn what_parses_encodes_back(note in note()) {
            prop_assert_eq!(SealNote::parse_text(&note.to_text().unwrap()), Ok(note.clone()));
            for (n, prev) in [(0, None), (1, Some(note.run_note)), (2, None)] {
                let broken = SealNote { n, prev, ..note.clone() };
                prop_assert_eq!(broken.to_text(), Err(Error::NotCanonical("n and prev")));
            }
        }

        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            prop_assert!(SealNote::parse_text(&text).is_err());
        }
    }
}
