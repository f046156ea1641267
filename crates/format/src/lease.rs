//! A run's lease: who writes it now. Advisory, unsigned, free to be lost.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::ids::Digest;
use crate::json;

const KIND: &str = "lease";
/// A lease is never longer.
pub const LEN_MAX: usize = 4096;

/// Tells a second writer who is there, and that host whether the writer still lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The gateway's id in hex.
    #[serde(with = "json::label")]
    pub holder: String,
    /// SHA-256 of the host's identity.
    pub host: Digest,
    /// The host's boot id.
    #[serde(with = "json::label")]
    pub boot: String,
    /// The writing process.
    pub pid: u32,
    /// When that process started, in the kernel's clock ticks since boot.
    #[serde(with = "json::int")]
    pub start: u64,
    /// Counts renewals.
    #[serde(with = "json::int")]
    pub seq: u64,
}

impl Lease {
    /// The file's bytes.
    ///
    /// # Errors
    /// [`crate::Error::Json`] for an empty text or an integer over 2^53.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        json::to_text(KIND, self).map(String::into_bytes)
    }

    /// Parses the file.
    ///
    /// # Errors
    /// Those of a text of two lines: docs/format.md, "JSON".
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > LEN_MAX {
            return Err(crate::Error::TooLong);
        }
        json::parse_text(KIND, json::utf8(bytes)?)
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
            holder in "[0-9a-f]{32}", host in any::<[u8; 32]>(), boot in "[0-9a-f-]{36}", pid in any::<u32>(),
            start in 0u64..=json::INTEGER_MAX, seq in 0u64..=json::INTEGER_MAX,
        ) {
            let lease = Lease { holder, host: Digest(host), boot, pid, start, seq };
            let bytes = lease.to_bytes().unwrap();
            prop_assert!(bytes.len() < LEN_MAX);
            prop_assert_eq!(Lease::parse(&bytes), Ok(lease));
        }

        #[test]
        fn any_bytes_are_answered(bytes in any::<Vec<u8>>()) {
            prop_assert!(Lease::parse(&bytes).is_err());
        }
    }

    #[test]
    fn refusals_by_name() {
        assert_eq!(Lease::parse(&[b' '; LEN_MAX + 1]), Err(Error::TooLong));
        assert_eq!(Lease::parse(b"runvault/1 run\n{}\n"), Err(Error::NoteKind("run".into())));
        let empty = "runvault/1 lease\n{}\n";
        assert!(matches!(Lease::parse(empty.as_bytes()), Err(Error::Json(_))));
    }
}
