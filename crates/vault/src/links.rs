//! Targets of symlinks. A long one lies in a side file, which belongs to the link's name *and* its text: an
//! old and a new link of one name have two, and whichever a crash leaves is whole.

use std::io;

use runvault_format::name;
use runvault_store::backend::{Dir, Kind, Stat};

use crate::Vault;

/// Bytes that AES-SIV adds to a target.
const SIV: u64 = 16;
/// Characters of a long link's text. No base32 of whole bytes has so many.
const LONG_TEXT: u64 = 33;
/// How often a link is read whose side file is not there: another link may just have taken its place.
const TRIES: usize = 3;

/// A link's text, and the content of its side file where it has one that can be read.
pub(crate) fn read(dir: &dyn Dir, stored: &[u8]) -> io::Result<(Vec<u8>, Option<Vec<u8>>)> {
    let mut text = dir.read_link(stored)?;
    for _ in 0..TRIES {
        if !name::link_is_long(&text) {
            return Ok((text, None));
        }
        if let Some(sealed) = Vault::read_side(dir, &name::side_link_of(stored, &text))? {
            return Ok((text, Some(sealed)));
        }
        text = dir.read_link(stored)?;
    }
    Ok((text, None))
}

/// The length of a link's target, from that of its text or of its side file.
pub(crate) fn target_len(dir: &dyn Dir, stored: &[u8], stat: &Stat) -> u64 {
    if stat.size != LONG_TEXT {
        return (stat.size.saturating_mul(5) / 8).saturating_sub(SIV);
    }
    let side = || dir.stat(&name::side_link_of(stored, &dir.read_link(stored).ok()?)).ok();
    std::iter::repeat_with(side).take(TRIES).flatten().next().map_or(0, |side| side.size.saturating_sub(SIV))
}

/// The text of what stands there, where that is a link with a long target.
pub(crate) fn long_text(dir: &dyn Dir, stored: &[u8], stat: &Stat) -> io::Result<Option<Vec<u8>>> {
    if stat.kind != Kind::Symlink || stat.size != LONG_TEXT {
        return Ok(None);
    }
    Ok(Some(dir.read_link(stored)?).filter(|text| name::link_is_long(text)))
}

/// The side file of the link `stored` in `to`, before the link is there: the one that the link `from`,
/// of the same text, has. A link whose side file is lost is as good elsewhere.
pub(crate) fn copy_side(
    (dir, from): (&dyn Dir, &[u8]),
    (to, stored): (&dyn Dir, &[u8]),
    text: &[u8],
) -> io::Result<()> {
    match Vault::read_side(dir, &name::side_link_of(from, text))? {
        Some(sealed) => Vault::put_side(to, &name::side_link_of(stored, text), &sealed),
        None => Ok(()),
    }
}

/// Removes the side file of the link `stored` of that text, unless such a link stands there. What stays behind
/// costs room only.
pub(crate) fn drop_side(dir: &dyn Dir, stored: &[u8], text: &[u8]) {
    let needed = match dir.read_link(stored) {
        Ok(found) => found == text,
        Err(e) => !matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)),
    };
    if !needed {
        let _ = dir.unlink(&name::side_link_of(stored, text));
    }
}
