//! The text of `custody/confirmed-<custodian>`: a custodian's word that its share opens.

use serde::{Deserialize, Serialize};

use crate::ids::{IdentityId, VaultId};
use crate::request::Head;
use crate::{Result, json};

/// The note's kind: its first line is `runvault/1 confirm`.
pub const KIND: &str = "confirm";

/// What the note says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// The vault.
    pub vault: VaultId,
    /// Whose share.
    pub custodian: IdentityId,
    /// Number of the epoch that it is a share of.
    pub epoch: u32,
    /// The state that it was made for.
    #[serde(with = "json::int")]
    pub made: u64,
    /// The newest audit line that was seen.
    pub head: Head,
    /// When, RFC 3339 in UTC.
    #[serde(with = "json::time")]
    pub time: String,
}

impl Confirmation {
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
    /// Those of a text of two lines.
    pub fn parse_text(text: &str) -> Result<Self> {
        json::parse_text(KIND, text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Digest;

    proptest! {
        #[test]
        fn what_parses_encodes_back(
            ids in any::<([u8; 32], [u8; 16], [u8; 32])>(), epoch in any::<u32>(),
            n in 0u64..=json::INTEGER_MAX, at in 0u64..253_402_300_800,
        ) {
            let confirmation = Confirmation {
                vault: VaultId(ids.0), custodian: IdentityId(ids.1), epoch, made: n,
                head: Head { n, hash: Digest(ids.2) }, time: crate::time::text(at),
            };
            prop_assert_eq!(Confirmation::parse_text(&confirmation.to_text().unwrap()), Ok(confirmation));
        }

        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            prop_assert!(Confirmation::parse_text(&text).is_err());
        }
    }
}
