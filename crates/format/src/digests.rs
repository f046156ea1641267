//! `seal/digests`: the hash of every stored byte of a sealed run, for whoever has no key.
//!
//! `sha256sum -c` reads it in the run's directory; it passes over the lines that begin with `#`, which name what
//! is there besides files.
//!
//! ```text
//! <sha256>  tree/<stored name>          a file; also run.json, name, seal/manifest, seal/pins, seal/vault-<e>
//! # dir tree/<stored name>
//! # link <sha256 of the stored target> tree/<stored name>
//! # fifo | socket | char | block tree/<stored name>
//! ```

use data_encoding::HEXLOWER;

use crate::ids::Digest;
use crate::{Error, Result};

/// What a line names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file, by the hash of its stored bytes.
    File(Digest),
    /// A directory.
    Dir,
    /// A symlink, by the hash of its stored target.
    Link(Digest),
    /// A fifo.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    Char,
    /// A block device.
    Block,
}

/// One line: what lies at a path of the run's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The path, components separated by slashes.
    pub path: String,
    /// What lies there.
    pub kind: Kind,
}

impl Line {
    /// The line with its newline.
    pub fn encode(&self) -> String {
        let hex = |digest: &Digest| HEXLOWER.encode(&digest.0);
        let path = &self.path;
        match &self.kind {
            Kind::File(digest) => format!("{}  {path}\n", hex(digest)),
            Kind::Dir => format!("# dir {path}\n"),
            Kind::Link(digest) => format!("# link {} {path}\n", hex(digest)),
            Kind::Fifo => format!("# fifo {path}\n"),
            Kind::Socket => format!("# socket {path}\n"),
            Kind::Char => format!("# char {path}\n"),
            Kind::Block => format!("# block {path}\n"),
        }
    }

    /// Parses a line without its newline.
    ///
    /// # Errors
    /// [`Error::Digests`].
    pub fn parse(line: &str) -> Result<Self> {
        let bad = Error::Digests("line");
        let digest = |hex: &str| hex.parse::<Digest>().map_err(|_| Error::Digests("hash"));
        let (kind, path) = match line.strip_prefix("# ") {
            None => {
                let (hex, path) = line.split_once("  ").ok_or(bad)?;
                (Kind::File(digest(hex)?), path)
            }
            Some(rest) => match rest.split_once(' ').ok_or(bad)? {
                ("dir", path) => (Kind::Dir, path),
                ("fifo", path) => (Kind::Fifo, path),
                ("socket", path) => (Kind::Socket, path),
                ("char", path) => (Kind::Char, path),
                ("block", path) => (Kind::Block, path),
                ("link", rest) => {
                    let (hex, path) = rest.split_once(' ').ok_or(Error::Digests("line"))?;
                    (Kind::Link(digest(hex)?), path)
                }
                _ => return Err(Error::Digests("line")),
            },
        };
        if !is_path(path) {
            return Err(Error::Digests("path"));
        }
        Ok(Self { path: path.to_owned(), kind })
    }
}

/// Of stored names: lower-case letters, digits, `_`, `-` and dots, so that no tool needs to escape one.
fn is_path(path: &str) -> bool {
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.');
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.bytes().all(plain);
    path.split('/').all(is_name)
}

/// Parses the whole: its lines are sorted by their paths, none twice.
///
/// # Errors
/// [`Error::Digests`], [`Error::NotCanonical`], [`Error::Truncated`].
pub fn parse(bytes: &[u8]) -> Result<Vec<Line>> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::NotCanonical("UTF-8"))?;
    let whole = text.strip_suffix('\n').ok_or(Error::Truncated)?;
    let lines: Vec<Line> = whole.split('\n').map(Line::parse).collect::<Result<_>>()?;
    let sorted = lines.is_sorted_by(|a, b| a.path < b.path);
    if sorted { Ok(lines) } else { Err(Error::Digests("order")) }
}

/// The whole, of lines in any order.
pub fn encode(mut lines: Vec<Line>) -> Vec<u8> {
    lines.sort_by(|a, b| a.path.cmp(&b.path));
    lines.iter().map(Line::encode).collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refusals_by_name() {
        let line = |path: &str| Line { path: path.into(), kind: Kind::Dir };
        assert_eq!(parse(b""), Err(Error::Truncated));
        assert_eq!(parse(b"# dir tree/a"), Err(Error::Truncated));
        assert_eq!(parse(b"# dir tree/b\n# dir tree/a\n"), Err(Error::Digests("order")));
        assert_eq!(parse(b"# dir tree/a\n# dir tree/a\n"), Err(Error::Digests("order")));
        for path in ["", "/a", "a/", "a//b", "a/../b", ".", "A", "a b", "a\\n"] {
            assert_eq!(parse(line(path).encode().as_bytes()), Err(Error::Digests("path")), "{path}");
        }
        for (bad, what) in [
            ("tree/a\n", "line"),
            ("# door tree/a\n", "line"),
            ("# link tree/a\n", "line"),
            ("00  tree/a\n", "hash"),
            ("# link 00 tree/a\n", "hash"),
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(Error::Digests(what)), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_encodes_back(
            paths in prop::collection::btree_set("(tree|seal)/[a-z2-7]{1,30}(/_dir|\\.name)?", 1..40), hash in any::<[u8; 32]>(), kinds in any::<u64>(),
        ) {
            let kind = |n: usize| match (kinds >> (n % 60)) & 7 {
                0 => Kind::Dir, 1 => Kind::Link(Digest(hash)), 2 => Kind::Fifo, 3 => Kind::Socket, 4 => Kind::Char,
                5 => Kind::Block, _ => Kind::File(Digest(hash)),
            };
            let lines: Vec<Line> = paths.into_iter().enumerate().map(|(n, path)| Line { path, kind: kind(n) }).collect();
            let mut mixed = lines.clone();
            mixed.reverse();
            prop_assert_eq!(parse(&encode(mixed)), Ok(lines));
        }

        #[test]
        fn any_text_is_answered(text in "(# (dir|link|fifo)|[0-9a-f]{64} )? ?[a-z0-9/. ]{0,80}\n?") {
            if let Ok(lines) = parse(text.as_bytes()) {
                prop_assert_eq!(encode(lines), text.into_bytes());
            }
        }
    }
}
