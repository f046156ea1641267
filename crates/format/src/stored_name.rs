//! What stands in the store for a name or a link's target: its text, and of a long one its side file.

use data_encoding::{Encoding, Specification};
use runvault_crypto::digest::sha256;

use crate::{Error, Result};

/// A directory's record in it; no encrypted name has an underscore.
pub const RECORD: &[u8] = b"_dir";

const SIV_OVERHEAD: usize = 16;
const HASH_LEN: usize = 20;
/// Characters of a one-byte and of a 140-byte name, and of a hash behind its "0".
const SHORT_TEXT: std::ops::RangeInclusive<usize> = 28..=250;
const HASH_TEXT: usize = 32;
const SIDE_NAME: &[u8] = b".name";
const SIDE_LINK: &[u8] = b".link";

/// What goes into the store for a name or target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The file name, or the link's target.
    pub text: Vec<u8>,
    /// Of a long one: the SIV output, which goes into the side file.
    pub side: Option<Vec<u8>>,
}

/// What a stored name looks like, by its characters alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An encrypted name, whole.
    Short,
    /// The hash of one; the rest is in its side file.
    Long,
    /// The side file of a long name.
    SideName,
    /// The side file of a long link target.
    SideLink,
    /// The record of the directory that it is in.
    Record,
    /// Nothing that this program writes.
    Foreign,
}

/// Sorts a stored name.
pub fn shape(stored: &[u8]) -> Shape {
    if stored == RECORD {
        return Shape::Record;
    }
    if let Some(owner) = stored.strip_suffix(SIDE_NAME) {
        return if is_hash(owner) { Shape::SideName } else { Shape::Foreign };
    }
    if let Some(owner) = stored.strip_suffix(SIDE_LINK) {
        return if is_hash(owner) { Shape::SideLink } else { Shape::Foreign };
    }
    match () {
        () if is_hash(stored) => Shape::Long,
        () if is_short(stored) => Shape::Short,
        () => Shape::Foreign,
    }
}

pub(crate) fn is_base32(text: &[u8]) -> bool {
    // To the end in any case: without a way out of the loop the compiler takes many at a time.
    text.iter().fold(true, |all, c| all & matches!(c, b'a'..=b'z' | b'2'..=b'7'))
}

fn is_short(text: &[u8]) -> bool {
    SHORT_TEXT.contains(&text.len()) && matches!(text.len() % 8, 0 | 2 | 4 | 5 | 7) && is_base32(text)
}

pub(crate) fn is_hash(text: &[u8]) -> bool {
    text.strip_prefix(b"0").is_some_and(|hash| hash.len() == HASH_TEXT && is_base32(hash))
}

/// The side file that holds a long name.
pub fn side_name_of(stored: &[u8]) -> Vec<u8> {
    [stored, SIDE_NAME].concat()
}

/// The side file that holds the long target of the link `stored`, whose text is `text`: an old and a new
/// link of one name have two, so that one can take the other's place at any moment.
pub fn side_link_of(stored: &[u8], text: &[u8]) -> Vec<u8> {
    [&hash_text(&[stored, b"/", text])[..], SIDE_LINK].concat()
}

/// Whether a stored link target has a side file.
pub fn link_is_long(text: &[u8]) -> bool {
    text.first() == Some(&b'0')
}

pub(crate) fn base32() -> &'static Encoding {
    static BASE32: std::sync::OnceLock<Encoding> = std::sync::OnceLock::new();
    BASE32.get_or_init(|| {
        let mut spec = Specification::new();
        spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
        // Thirty-two distinct ASCII symbols are always an encoding.
        spec.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
    })
}

pub(crate) fn stored(sealed: Vec<u8>, short_max: usize) -> Result<Stored> {
    if sealed.len() <= short_max + SIV_OVERHEAD {
        return Ok(Stored { text: base32().encode(&sealed).into_bytes(), side: None });
    }
    Ok(Stored { text: hash_text(&[&sealed]), side: Some(sealed) })
}

fn hash_text(parts: &[&[u8]]) -> Vec<u8> {
    let hash = sha256(parts);
    let text = base32().encode(hash.get(..HASH_LEN).unwrap_or_default());
    [b"0", text.as_bytes()].concat()
}

/// The SIV output behind a text; each plaintext has one stored form only.
pub(crate) fn sealed_of(text: &[u8], side: Option<&[u8]>, short_max: usize, max: usize) -> Result<Vec<u8>> {
    if !is_hash(text) {
        let sealed = base32().decode(text).map_err(|_| Error::ForeignName)?;
        let fits = sealed.len() <= short_max + SIV_OVERHEAD;
        return if fits { Ok(sealed) } else { Err(Error::NotCanonical("short name")) };
    }
    let side = side.ok_or(Error::SideFile)?;
    if !(short_max + SIV_OVERHEAD + 1..=max + SIV_OVERHEAD).contains(&side.len())
        || hash_text(&[side]) != text
    {
        return Err(Error::SideFile);
    }
    Ok(side.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let hash = "a".repeat(32);
        let short = "b".repeat(28);
        for (text, expected) in [
            ("_dir".to_owned(), Shape::Record),
            (short.clone(), Shape::Short),
            ("b".repeat(250), Shape::Short),
            (format!("0{hash}"), Shape::Long),
            (format!("0{hash}.name"), Shape::SideName),
            (format!("0{hash}.link"), Shape::SideLink),
            (format!("{short}.link"), Shape::Foreign),
            (format!("{short}.name"), Shape::Foreign),
            ("b".repeat(251), Shape::Foreign),
            ("b".repeat(27), Shape::Foreign),
            ("b".repeat(30), Shape::Foreign),
            ("B".repeat(28), Shape::Foreign),
            (".nfs000000000001".to_owned(), Shape::Foreign),
            ("lost+found".to_owned(), Shape::Foreign),
            (String::new(), Shape::Foreign),
        ] {
            assert_eq!(shape(text.as_bytes()), expected, "{text}");
        }
    }
}
