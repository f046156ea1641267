//! What `verify` and `scrub` tell of a sealed run that is not as it was sealed.

use std::fmt;

/// How something differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It does not authenticate.
    Damaged(String),
    /// It was sealed, and is not there.
    Missing,
    /// It is there, and was not sealed.
    Added,
    /// So it is, and by its form a writer that was killed, or a network's file system, left it.
    LeftOver,
    /// It is another one than was sealed: what differs.
    Changed(String),
    /// Another object of the run lies in its place.
    Swapped,
    /// It is genuine, of an earlier time.
    Older,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Damaged(what) => write!(f, "damaged: {what}"),
            Change::Missing => f.write_str("missing"),
            Change::Added => f.write_str("added: it was not sealed"),
            Change::LeftOver => f.write_str(
                "left over: begun by a program that was killed, or deleted while it was open; nothing refers to it",
            ),
            Change::Changed(what) => write!(f, "changed: {what}"),
            Change::Swapped => f.write_str("swapped: another object of the run lies in its place"),
            Change::Older => f.write_str("older: an earlier version of it was put back"),
        }
    }
}

impl Change {
    pub(super) fn another_kind() -> Self {
        Self::Changed("another kind of object".to_owned())
    }

    /// Whether the run is not as it was sealed.
    pub fn counts(&self) -> bool {
        *self != Change::LeftOver
    }

    /// One word, for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Change::Damaged(_) => "damaged",
            Change::Missing => "missing",
            Change::Added => "added",
            Change::LeftOver => "left-over",
            Change::Changed(_) => "changed",
            Change::Swapped => "swapped",
            Change::Older => "older",
        }
    }
}

/// One object that is not as it was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its place in the run's directory.
    pub object: String,
    /// Its plaintext path below the run, where it is known.
    pub path: Option<Vec<u8>>,
    /// What it is.
    pub change: Change,
}
