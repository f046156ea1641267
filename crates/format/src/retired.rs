//! The text of `retired/<run id>`: a gateway's word that it removed a run itself.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::ids::{Digest, IdentityId, RunId, VaultId};
use crate::json;

/// The note's kind: its first line is `runvault/1 retired`.
pub const KIND: &str = "retired";

/// What the note says. With `seq` and `prev` the gateway's chain stays whole without the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retired {
    /// The vault.
    pub vault: VaultId,
    /// The run that was removed.
    pub run: RunId,
    /// Its signer.
    pub gateway: IdentityId,
    /// The run's place in the gateway's chain.
    #[serde(with = "json::int")]
    pub seq: u64,
    /// Text hash of the run's run.json.
    pub run_note: Digest,
    /// Its `prev`.
    pub prev: Option<Digest>,
    /// When, RFC 3339 in UTC.
    #[serde(with = "json::time")]
    pub time: String,
}

impl Retired {
    /// The note's text.
    ///
    /// # Errors
    /// [`crate::Error::Json`] for an integer over 2^53 or another form of time.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Error;

    proptest! {
        #[test]
        fn what_parses_encodes_back(
            ids in any::<([u8; 32], [u8; 16], [u8; 16], [u8; 32])>(), seq in 0u64..=json::INTEGER_MAX,
            prev in any::<Option<[u8; 32]>>(), at in 0u64..253_402_300_800,
        ) {
            let retired = Retired {
                vault: VaultId(ids.0), run: RunId(ids.1), gateway: IdentityId(ids.2), seq,
                run_note: Digest(ids.3), prev: prev.map(Digest), time: crate::time::text(at),
            };
            prop_assert_eq!(Retired::parse_text(&retired.to_text().unwrap()), Ok(retired));
        }

        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            prop_assert!(Retired::parse_text(&text).is_err());
        }
    }

    #[test]
    fn refusals_by_name() {
        assert_eq!(Retired::parse_text("runvault/1 run\n{}\n"), Err(Error::NoteKind("run".into())));
        assert!(matches!(Retired::parse_text("runvault/1 retired\n{}\n"), Err(Error::Json(_))));
    }
}
