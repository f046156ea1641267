//! The one way that JSON comes in and goes out: bounded, strict, in one form.
//!
//! Unknown and repeated fields are refused by the types (`deny_unknown_fields` and serde's derive);
//! what parses is written again and must give the same bytes, so no two texts mean one thing.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Longest text that is looked at.
pub const TEXT_MAX: usize = 1 << 20;
/// Integers beyond are not the same in every JSON reader.
pub const INTEGER_MAX: u64 = 1 << 53;
const FAMILY: &str = "runvault/";
const VERSION: &str = "1";

/// One line of JSON, without a line end.
pub(crate) fn to_line<T: Serialize>(value: &T) -> Result<String> {
    let line = serde_json::to_string(value).map_err(refused)?;
    if line.len() > TEXT_MAX { Err(Error::TooLong) } else { Ok(line) }
}

/// Parses one line of JSON in its one form.
pub(crate) fn parse_line<T: Serialize + DeserializeOwned>(line: &str) -> Result<T> {
    let value = parse_loose(line)?;
    if to_line(&value)? == line { Ok(value) } else { Err(Error::NotCanonical("JSON")) }
}

/// Parses a line whose form is not checked; for what must be known before the rest can be.
pub(crate) fn parse_loose<T: DeserializeOwned>(line: &str) -> Result<T> {
    if line.len() > TEXT_MAX {
        return Err(Error::TooLong);
    }
    serde_json::from_str(line).map_err(refused)
}

/// Two lines: `runvault/1 <kind>` and the JSON.
pub(crate) fn to_text<T: Serialize>(kind: &str, value: &T) -> Result<String> {
    Ok(format!("{FAMILY}{VERSION} {kind}\n{}\n", to_line(value)?))
}

/// Parses what [`to_text`] wrote, and demands the kind.
pub(crate) fn parse_text<T: Serialize + DeserializeOwned>(kind: &str, text: &str) -> Result<T> {
    parse_line(line_of(kind, text)?)
}

/// The second line of a text of two, after its first said version and kind.
pub(crate) fn line_of<'a>(kind: &str, text: &'a str) -> Result<&'a str> {
    if text.len() > TEXT_MAX {
        return Err(Error::TooLong);
    }
    let (first, rest) = text.split_once('\n').ok_or(Error::Truncated)?;
    check_kind(kind, first)?;
    let (line, after) = rest.split_once('\n').ok_or(Error::Truncated)?;
    if after.is_empty() { Ok(line) } else { Err(Error::Trailing) }
}

/// The same for bytes.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str> {
    if bytes.len() > TEXT_MAX {
        return Err(Error::TooLong);
    }
    std::str::from_utf8(bytes).map_err(|_| Error::NotCanonical("UTF-8"))
}

fn check_kind(kind: &str, first: &str) -> Result<()> {
    let (version, found) = first.strip_prefix(FAMILY).and_then(|f| f.split_once(' ')).ok_or(Error::Magic)?;
    if version != VERSION {
        return Err(version.parse().map_or(Error::Magic, Error::Version));
    }
    if found == kind { Ok(()) } else { Err(Error::NoteKind(shown(found))) }
}

fn refused(error: serde_json::Error) -> Error {
    Error::Json(shown(&error.to_string()))
}

/// Hostile text for a message: short, and without control characters.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(120).flat_map(char::escape_debug).collect()
}

macro_rules! base64_field {
    ($(#[$doc:meta])* $name:ident: $type:ty, $encode:expr, $decode:expr) => {
        $(#[$doc])*
        pub(crate) mod $name {
            #[allow(unused_imports)]
            use runvault_crypto::{envelope::KemPublic, signature::VerifyingKey};
            use serde::de::Error as _;
            use serde::{Deserialize, Deserializer, Serializer};

            pub(crate) fn serialize<S: Serializer>(value: &$type, to: S) -> Result<S::Ok, S::Error> {
                let encode: fn(&$type) -> Vec<u8> = $encode;
                to.serialize_str(&data_encoding::BASE64.encode(&encode(value)))
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                let text = String::deserialize(from)?;
                let bytes = data_encoding::BASE64.decode(text.as_bytes()).map_err(|_| D::Error::custom("not base64"))?;
                let decode: fn(Vec<u8>) -> Option<$type> = $decode;
                decode(bytes).ok_or_else(|| D::Error::custom(concat!("not a ", stringify!($name), " value")))
            }
        }
    };
}

base64_field!(
    /// An X-Wing public key.
    kem: KemPublic, |k| k.as_bytes().to_vec(), |b| KemPublic::from_bytes(&b).ok()
);
base64_field!(
    /// An Ed25519 public key.
    sign: VerifyingKey, |k| k.to_bytes().to_vec(), |b| VerifyingKey::from_bytes(&b.try_into().ok()?).ok()
);
base64_field!(
    /// An Ed25519 signature.
    signature: [u8; 64], |s| s.to_vec(), |b| b.try_into().ok()
);
base64_field!(
    /// Any bytes.
    bytes: Vec<u8>, Clone::clone, Some
);
base64_field!(
    /// An uncompressed point of P-256.
    point: Vec<u8>, Clone::clone, |b| (b.len() == runvault_crypto::to_hardware::POINT && b[0] == 4).then_some(b)
);
base64_field!(
    /// What an RSA key of 2,048 to 4,096 bits encrypted.
    rsa_block: Vec<u8>, Clone::clone, |b| runvault_crypto::to_hardware::MODULUS.contains(&b.len()).then_some(b)
);
base64_field!(
    /// One part of a sealed object of a TPM.
    tpm_part: Vec<u8>, Clone::clone, |b| (1..=512).contains(&b.len()).then_some(b)
);
base64_field!(
    /// The id of a token's key: at most 64 bytes.
    key_id: Vec<u8>, Clone::clone, |b| (b.len() <= 64).then_some(b)
);
base64_field!(
    /// 32 bytes.
    half: Vec<u8>, Clone::clone, |b| (b.len() == 32).then_some(b)
);

/// Any bytes, or null.
pub(crate) mod maybe_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Field(#[serde(with = "super::bytes")] Vec<u8>);

    pub(crate) fn serialize<S: Serializer>(value: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        value.clone().map(Field).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Field>::deserialize(from)?.map(|field| field.0))
    }
}

macro_rules! checked_field {
    ($(#[$doc:meta])* $name:ident: $type:ty, $message:literal, $check:expr) => {
        $(#[$doc])*
        pub(crate) mod $name {
            use serde::{Deserialize, Deserializer, Serialize, Serializer};

            fn fits(value: &$type) -> bool {
                let check: fn(&$type) -> bool = $check;
                check(value)
            }

            pub(crate) fn serialize<S: Serializer>(value: &$type, to: S) -> Result<S::Ok, S::Error> {
                if fits(value) { value.serialize(to) } else { Err(serde::ser::Error::custom($message)) }
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                let value = <$type>::deserialize(from)?;
                if fits(&value) { Ok(value) } else { Err(serde::de::Error::custom($message)) }
            }
        }
    };
}

checked_field!(
    /// At most 2^53.
    int: u64, "an integer over 2^53", |n| *n <= super::INTEGER_MAX
);
checked_field!(
    /// The same, or null.
    maybe_int: Option<u64>, "an integer over 2^53", |n| n.is_none_or(|n| n <= super::INTEGER_MAX)
);
/// 1 to 128 bytes without control characters.
pub fn is_label(text: &str) -> bool {
    (1..=128).contains(&text.len()) && !text.chars().any(char::is_control)
}

checked_field!(
    /// What [`is_label`] takes.
    label: String, "a label that is empty, too long or has control characters", |s| {
        super::is_label(s)
    }
);
checked_field!(
    /// 0 to 1,024 bytes without control characters.
    reason: String, "a text that is too long or has control characters", |s| {
        s.len() <= 1024 && !s.chars().any(char::is_control)
    }
);
checked_field!(
    /// 0 to 128 bytes without control characters.
    short: String, "a name that is too long or has control characters", |s| {
        s.len() <= 128 && !s.chars().any(char::is_control)
    }
);
checked_field!(
    /// What [`crate::hardware::is_pcrs`] takes.
    pcrs: Vec<u8>, "no list of PCRs", |pcrs| crate::hardware::is_pcrs(pcrs)
);
checked_field!(
    /// `2026-01-31T23:59:59Z`.
    time: String, "a time that is not RFC 3339 in UTC and whole seconds", |s| crate::time::is_time(s)
);
checked_field!(
    /// The same, or null.
    maybe_time: Option<String>, "a time that is not RFC 3339 in UTC and whole seconds", |s| {
        s.as_deref().is_none_or(crate::time::is_time)
    }
);
