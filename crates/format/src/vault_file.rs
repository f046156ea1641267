//! vault.json: says that a directory is a store, and of which vault. Nothing in it is trusted.

use serde::{Deserialize, Serialize};

use crate::ids::VaultId;
use crate::json;
use crate::{Error, Result};

const MAGIC: &str = "runvault";
/// The draft that this program writes and reads.
pub const VERSION: u64 = 3;
/// The file is never longer.
pub const LEN_MAX: usize = 4096;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    magic: String,
    version: u64,
    vault: VaultId,
}

/// What must be known of a file of any version.
#[derive(Deserialize)]
struct Known {
    magic: String,
    version: u64,
}

/// The file's bytes: one line.
///
/// # Errors
/// None that can happen; those of the JSON library.
pub fn to_bytes(vault: &VaultId) -> Result<Vec<u8>> {
    let fields = Fields { magic: MAGIC.into(), version: VERSION, vault: *vault };
    Ok(format!("{}\n", json::to_line(&fields)?).into_bytes())
}

/// The vault that the file names.
///
/// # Errors
/// [`Error::TooLong`], [`Error::Magic`], [`Error::Version`], [`Error::Json`], [`Error::NotCanonical`].
pub fn parse(bytes: &[u8]) -> Result<VaultId> {
    if bytes.len() > LEN_MAX {
        return Err(Error::TooLong);
    }
    let text = json::utf8(bytes)?;
    let known: Known = json::parse_loose(text)?;
    if known.magic != MAGIC {
        return Err(Error::Magic);
    }
    if known.version != VERSION {
        return Err(Error::Version(known.version));
    }
    let line = text.strip_suffix('\n').ok_or(Error::Truncated)?;
    Ok(json::parse_line::<Fields>(line)?.vault)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refusals_by_name() {
        let hex = "07".repeat(32);
        let good = format!("{{\"magic\":\"runvault\",\"version\":3,\"vault\":\"{hex}\"}}\n");
        assert_eq!(to_bytes(&VaultId([7; 32])).unwrap(), good.as_bytes());
        assert_eq!(parse(good.as_bytes()), Ok(VaultId([7; 32])));
        let with = |from: &str, to: &str| parse(good.replace(from, to).as_bytes()).unwrap_err();
        assert_eq!(with("\"runvault\"", "\"other\""), Error::Magic);
        assert_eq!(with("3,", "4,\"more\":true,"), Error::Version(4));
        assert_eq!(with("3,", "2,"), Error::Version(2));
        assert_eq!(with("3,", " 3,"), Error::NotCanonical("JSON"));
        assert_eq!(with("}\n", "}"), Error::Truncated);
        assert!(matches!(with("3,", "3,\"more\":true,"), Error::Json(_)));
        assert_eq!(parse(&[b' '; LEN_MAX + 1]), Err(Error::TooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in any::<Vec<u8>>()) {
            prop_assert!(parse(&bytes).is_err());
        }
    }
}
