//! What a custodian's key file keeps beside the key: the share that was seen to open, and what was approved.
//!
//! A signed note of kind `kept` behind the two lines of the key file, signed by the key in it.

use serde::{Deserialize, Serialize};

use crate::custody_state::Share;
use crate::ids::{Digest, VaultId};
use crate::request::Head;
use crate::{Result, json};

/// The note's kind: its first line is `runvault/1 kept`.
pub const KIND: &str = "kept";

/// What the note says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The vault.
    pub vault: VaultId,
    /// The newest audit line that its holder saw.
    pub head: Head,
    /// The share that opened then; null before the first drill.
    pub share: Option<KeptShare>,
    /// The newest request that was approved; null for none.
    pub approved: Option<Approved>,
}

/// A share, with what is needed to open it without the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptShare {
    /// Number of the epoch.
    pub epoch: u32,
    /// The state that it was made for.
    #[serde(with = "json::int")]
    pub made: u64,
    /// As the state has it.
    pub share: Share,
}

/// A request that this custodian approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approved {
    /// Its hash.
    pub request: Digest,
    /// The line that it follows.
    pub head: Head,
    /// When it can no longer be executed, RFC 3339 in UTC.
    #[serde(with = "json::time")]
    pub expires: String,
}

impl Kept {
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
    use crate::ids::IdentityId;

    proptest! {
        #[test]
        fn what_parses_encodes_back(
            ids in any::<([u8; 32], [u8; 32], [u8; 16], [u8; 32])>(), n in 0u64..=json::INTEGER_MAX,
            share in any::<Option<(u32, u8, Option<Vec<u8>>)>>(), at in prop::option::of(0u64..253_402_300_800),
        ) {
            let head = Head { n, hash: Digest(ids.1) };
            let share = share.map(|(epoch, x, env)| KeptShare {
                epoch, made: n, share: Share { to: IdentityId(ids.2), x, env, sha256: Digest(ids.3) },
            });
            let approved = at.map(|at| Approved { request: Digest(ids.3), head, expires: crate::time::text(at) });
            let kept = Kept { vault: VaultId(ids.0), head, share, approved };
            prop_assert_eq!(Kept::parse_text(&kept.to_text().unwrap()), Ok(kept));
        }

        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            prop_assert!(Kept::parse_text(&text).is_err());
        }
    }
}
