//! Identifiers: raw bytes here, lower-case hex wherever people or JSON see them.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                parse_hex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

id!(
    /// A run: 16 random bytes.
    RunId, 16
);
id!(
    /// SHA-256 of the genesis text: what machines pin.
    VaultId, 32
);
id!(
    /// A custodian, reader or gateway: SHA-256 of its public keys, cut to 16 bytes.
    IdentityId, 16
);
id!(
    /// A file or directory of a run: 32 random bytes.
    FileId, 32
);
id!(
    /// One mount's writing session of a run: 16 random bytes.
    SessionId, 16
);
id!(
    /// A SHA-256 digest.
    Digest, 32
);
id!(
    /// A salt.
    Salt, 16
);

/// A directory's id is the file id in its record.
pub type DirId = FileId;

impl FileId {
    /// The id of a run's root directory.
    pub const ROOT: FileId = FileId([0; 32]);
}

impl SessionId {
    /// What a header's slot keeps of it.
    pub fn prefix(&self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        [a, b, c, d, e, f, g, h]
    }
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return Err(Error::NotCanonical("hex"));
    }
    HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).map_err(|_| Error::NotCanonical("hex"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_hex_of_the_right_length() {
        let id = RunId([0xab; 16]);
        assert_eq!(id.to_string().parse::<RunId>(), Ok(id));
        for bad in ["", "ab", &"AB".repeat(16), &"ab".repeat(17), &"zz".repeat(16)] {
            assert_eq!(bad.parse::<RunId>(), Err(Error::NotCanonical("hex")), "{bad}");
        }
    }
}
