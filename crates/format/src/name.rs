//! Names, link targets and extended attributes as they stand in the store (docs/format.md, "Names").
//!
//! AES-SIV, so that a name is found again, with the directory's id, so that equal names in two
//! directories look different; base32 in lower case, so that shares that ignore case keep them.

pub use crate::stored_name::{RECORD, Shape, Stored, link_is_long, shape, side_link_of, side_name_of};

use crate::ids::{DirId, FileId, RunId};
use crate::keys::NameKey;
use crate::stored_name::{base32, is_base32, is_hash, sealed_of, stored};
use crate::{Error, Result, labels};

/// Longest name that Linux allows.
pub const NAME_MAX: usize = 255;
/// Longest link target or run name: PATH_MAX without its zero byte.
pub const PATH_MAX: usize = 4095;
/// Longer names are long: their text is a hash. Up to here the text has at most 250 characters.
pub const SHORT_NAME_MAX: usize = 140;
/// Longer targets are long. Up to here the text has at most 1,023 characters: XFS takes no more.
pub const SHORT_LINK_MAX: usize = 623;
/// Longest name of an extended attribute, with its "user." or "trusted.".
pub const XATTR_NAME_MAX: usize = 130;
/// Before the text of an encrypted attribute name.
pub const XATTR_PREFIX: &[u8] = b"user.rv.";

/// The stored form of `name` in directory `dir`.
///
/// # Errors
/// [`Error::Name`], [`Error::TooLong`].
pub fn encrypt_name(key: &NameKey, dir: &DirId, name: &[u8]) -> Result<Stored> {
    check_name(name)?;
    stored(key.seal(&[labels::SIV_NAME, &dir.0], name)?, SHORT_NAME_MAX)
}

/// The name that `stored` (and, of a long one, its side file) stands for in directory `dir`.
///
/// # Errors
/// [`Error::ForeignName`], [`Error::SideFile`], [`Error::NotAuthentic`], [`Error::Name`],
/// [`Error::NotCanonical`].
pub fn decrypt_name(key: &NameKey, dir: &DirId, stored: &[u8], side: Option<&[u8]>) -> Result<Vec<u8>> {
    if !matches!(shape(stored), Shape::Short | Shape::Long) {
        return Err(Error::ForeignName);
    }
    let sealed = sealed_of(stored, side, SHORT_NAME_MAX, NAME_MAX)?;
    let name = key.open(&[labels::SIV_NAME, &dir.0], sealed)?;
    check_name(&name)?;
    Ok(name)
}

/// The stored form of a link's target.
///
/// # Errors
/// [`Error::Name`], [`Error::TooLong`].
pub fn encrypt_link(key: &NameKey, target: &[u8]) -> Result<Stored> {
    check_target(target)?;
    stored(key.seal(&[labels::SIV_LINK], target)?, SHORT_LINK_MAX)
}

/// The target that a link's text (and, of a long one, its side file) stands for.
///
/// # Errors
/// As of [`decrypt_name`].
pub fn decrypt_link(key: &NameKey, text: &[u8], side: Option<&[u8]>) -> Result<Vec<u8>> {
    if !is_hash(text) && !is_base32(text) {
        return Err(Error::ForeignName);
    }
    let sealed = sealed_of(text, side, SHORT_LINK_MAX, PATH_MAX)?;
    let target = key.open(&[labels::SIV_LINK], sealed)?;
    check_target(&target)?;
    Ok(target)
}

/// The stored form of an attribute's name on the file or directory `file`.
///
/// # Errors
/// [`Error::TooLong`] over 130 bytes, [`Error::Name`].
pub fn encrypt_xattr_name(key: &NameKey, file: &FileId, name: &[u8]) -> Result<Vec<u8>> {
    check_xattr_name(name)?;
    let sealed = key.seal(&[labels::SIV_XATTR, &file.0], name)?;
    Ok([XATTR_PREFIX, base32().encode(&sealed).as_bytes()].concat())
}

/// The attribute name that `stored` stands for.
///
/// # Errors
/// [`Error::ForeignName`], [`Error::NotAuthentic`], [`Error::Name`], [`Error::TooLong`].
pub fn decrypt_xattr_name(key: &NameKey, file: &FileId, stored: &[u8]) -> Result<Vec<u8>> {
    let text = stored.strip_prefix(XATTR_PREFIX).ok_or(Error::ForeignName)?;
    let sealed = base32().decode(text).map_err(|_| Error::ForeignName)?;
    let name = key.open(&[labels::SIV_XATTR, &file.0], sealed)?;
    check_xattr_name(&name)?;
    Ok(name)
}

/// The stored value of attribute `name`.
///
/// # Errors
/// The library's.
pub fn encrypt_xattr_value(key: &NameKey, file: &FileId, name: &[u8], value: &[u8]) -> Result<Vec<u8>> {
    Ok(key.seal(&[labels::SIV_XATTR, &file.0, name], value)?)
}

/// The value of attribute `name`.
///
/// # Errors
/// [`Error::NotAuthentic`].
pub fn decrypt_xattr_value(key: &NameKey, file: &FileId, name: &[u8], stored: &[u8]) -> Result<Vec<u8>> {
    Ok(key.open(&[labels::SIV_XATTR, &file.0, name], stored.to_vec())?)
}

/// The content of a run's file `name`. A run's name is a path of names, at most 4,095 bytes.
///
/// # Errors
/// [`Error::Name`], [`Error::TooLong`].
pub fn encrypt_run_name(key: &NameKey, run: &RunId, name: &[u8]) -> Result<Vec<u8>> {
    check_run_name(name)?;
    Ok(key.seal(&[labels::SIV_RUN, &run.0], name)?)
}

/// The name in a run's file `name`.
///
/// # Errors
/// [`Error::NotAuthentic`], [`Error::Name`], [`Error::TooLong`].
pub fn decrypt_run_name(key: &NameKey, run: &RunId, stored: &[u8]) -> Result<Vec<u8>> {
    let name = key.open(&[labels::SIV_RUN, &run.0], stored.to_vec())?;
    check_run_name(&name)?;
    Ok(name)
}

fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_MAX {
        return Err(Error::TooLong);
    }
    let special = matches!(name, b"" | b"." | b"..");
    if special || name.iter().any(|c| matches!(c, b'/' | 0)) { Err(Error::Name) } else { Ok(()) }
}

fn check_run_name(name: &[u8]) -> Result<()> {
    if name.len() > PATH_MAX {
        return Err(Error::TooLong);
    }
    name.split(|c| *c == b'/').try_for_each(check_name)
}

fn check_target(target: &[u8]) -> Result<()> {
    if target.len() > PATH_MAX {
        return Err(Error::TooLong);
    }
    if target.is_empty() || target.contains(&0) { Err(Error::Name) } else { Ok(()) }
}

fn check_xattr_name(name: &[u8]) -> Result<()> {
    if name.len() > XATTR_NAME_MAX {
        return Err(Error::TooLong);
    }
    if name.is_empty() || name.contains(&0) { Err(Error::Name) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use runvault_crypto::secrets::Secret;
    use runvault_crypto::siv::SivKey;

    use super::*;

    fn key() -> NameKey {
        SivKey::new(Secret::copy_from(&[7; 64]))
    }

    const DIR: DirId = FileId([3; 32]);

    #[test]
    fn lengths_at_the_edges() {
        for (len, text) in [(1, 28), (140, 250), (141, 33), (255, 33)] {
            let stored = encrypt_name(&key(), &DIR, &vec![b'x'; len]).unwrap();
            assert_eq!(stored.text.len(), text);
            assert_eq!(stored.side.is_some(), len > 140);
        }
        for (len, text) in [(1, 28), (623, 1023), (624, 33), (4095, 33)] {
            let stored = encrypt_link(&key(), &vec![b'x'; len]).unwrap();
            assert_eq!(stored.text.len(), text);
            assert_eq!(link_is_long(&stored.text), len > 623);
        }
    }

    #[test]
    fn the_side_file_of_a_link_is_of_its_name_and_its_text() {
        let [a, b] = [b'a', b'b'].map(|c| encrypt_name(&key(), &DIR, &[c]).unwrap().text);
        let [x, y] = [b'x', b'y'].map(|c| encrypt_link(&key(), &[c; 700]).unwrap().text);
        let sides = [(&a, &x), (&a, &y), (&b, &x), (&b, &y)].map(|(name, text)| side_link_of(name, text));
        assert!(sides.iter().all(|side| shape(side) == Shape::SideLink));
        assert_eq!(sides.iter().collect::<std::collections::HashSet<_>>().len(), 4);
    }

    #[test]
    fn refusals_by_name() {
        let key = key();
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            assert_eq!(encrypt_name(&key, &DIR, bad), Err(Error::Name));
            // As signed by a key holder with a broken program.
            let sealed = key.seal(&[labels::SIV_NAME, &DIR.0], bad).unwrap();
            let text = base32().encode(&sealed);
            let foreign = shape(text.as_bytes()) == Shape::Foreign;
            let expected = if foreign { Error::ForeignName } else { Error::Name };
            assert_eq!(decrypt_name(&key, &DIR, text.as_bytes(), None), Err(expected));
        }
        assert_eq!(encrypt_name(&key, &DIR, &[b'x'; 256]), Err(Error::TooLong));
        assert_eq!(decrypt_name(&key, &DIR, b"lost+found", None), Err(Error::ForeignName));
        assert_eq!(decrypt_name(&key, &DIR, RECORD, None), Err(Error::ForeignName));

        let short = encrypt_name(&key, &DIR, b"name").unwrap();
        assert_eq!(decrypt_name(&key, &DirId::ROOT, &short.text, None), Err(Error::NotAuthentic));
        let mut bits = short.text.clone();
        // 20 bytes fill 32 characters; 17 leave 4 unused bits in the last.
        bits.truncate(28);
        bits[27] = b'b';
        assert_eq!(decrypt_name(&key, &DIR, &bits, None), Err(Error::ForeignName));

        let long = encrypt_name(&key, &DIR, &[b'x'; 200]).unwrap();
        let side = long.side.unwrap();
        assert_eq!(decrypt_name(&key, &DIR, &long.text, None), Err(Error::SideFile));
        assert_eq!(decrypt_name(&key, &DIR, &long.text, Some(&side[1..])), Err(Error::SideFile));
        let sealed = key.seal(&[labels::SIV_LINK], &[b'x'; 624]).unwrap();
        let text = base32().encode(&sealed);
        assert_eq!(decrypt_link(&key, text.as_bytes(), None), Err(Error::NotCanonical("short name")));
        assert_eq!(encrypt_link(&key, b""), Err(Error::Name));
        assert_eq!(encrypt_link(&key, &[b'x'; 4096]), Err(Error::TooLong));

        assert_eq!(encrypt_xattr_name(&key, &DIR, &[b'x'; 131]), Err(Error::TooLong));
        assert_eq!(decrypt_xattr_name(&key, &DIR, b"user.other"), Err(Error::ForeignName));
        assert_eq!(encrypt_run_name(&key, &RunId([1; 16]), b"a//b"), Err(Error::Name));
        assert_eq!(encrypt_run_name(&key, &RunId([1; 16]), b"../b"), Err(Error::Name));
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>().prop_map(|b| if b == 0 || b == b'/' { b'_' } else { b }), 1..=255)
            .prop_filter("a name", |n| n != b"." && n != b"..")
    }

    proptest! {
        #[test]
        fn names_come_back(name in name(), id in any::<[u8; 32]>()) {
            let dir = FileId(id);
            let stored = encrypt_name(&key(), &dir, &name).unwrap();
            prop_assert!(matches!(shape(&stored.text), Shape::Short | Shape::Long));
            prop_assert_eq!(decrypt_name(&key(), &dir, &stored.text, stored.side.as_deref()), Ok(name.clone()));
            let link = encrypt_link(&key(), &name.repeat(7)).unwrap();
            prop_assert_eq!(decrypt_link(&key(), &link.text, link.side.as_deref()), Ok(name.repeat(7)));
            let run = encrypt_run_name(&key(), &RunId([5; 16]), &name).unwrap();
            prop_assert_eq!(decrypt_run_name(&key(), &RunId([5; 16]), &run), Ok(name.clone()));
            if name.len() <= XATTR_NAME_MAX {
                let text = encrypt_xattr_name(&key(), &dir, &name).unwrap();
                prop_assert!(text.len() <= NAME_MAX);
                prop_assert_eq!(decrypt_xattr_name(&key(), &dir, &text), Ok(name.clone()));
                let value = encrypt_xattr_value(&key(), &dir, &name, &name).unwrap();
                prop_assert_eq!(decrypt_xattr_value(&key(), &dir, &name, &value), Ok(name));
            }
        }

        #[test]
        fn any_text_is_answered(text in prop::collection::vec(any::<u8>(), 0..300), side in any::<Option<Vec<u8>>>()) {
            prop_assert!(decrypt_name(&key(), &DIR, &text, side.as_deref()).is_err());
            prop_assert!(decrypt_link(&key(), &text, side.as_deref()).is_err());
            prop_assert!(decrypt_xattr_name(&key(), &DIR, &text).is_err());
            prop_assert!(decrypt_run_name(&key(), &RunId([5; 16]), &text).is_err());
        }
    }
}
