//! The ways in which instruments, copy services and shares write a file, as calls to where it lies.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::place::{How, Opened, Place};
use crate::random::Stream;
use crate::{Error, Result};

/// How a run is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// (a) Create, write from start to end in pieces of 64 KiB to 1 MiB, close; what grows is appended to.
    Sequential,
    /// (b) Set the size, fill it out of order within windows of 8 MiB, then set the times, as over SMB.
    Preallocate,
    /// (c) Write under another name, then rename over.
    RenameOver,
    /// (d) Append piece by piece, the file opened anew for each.
    Append,
    /// (e) Truncate and write anew: what grows always, everything else a second time.
    Rewrite,
    /// (f) The link drops in the middle: open again for reading and writing, check the end, go on.
    Resume,
    /// (g) Base caller and control software write into the folder at the same time.
    TwoWriters,
    /// (h) As (e), while readers follow what grows and check that they see old or new bytes.
    Tailed,
}

/// All modes, with their names on a command line.
pub const MODES: [(Mode, &str); 8] = [
    (Mode::Sequential, "sequential"),
    (Mode::Preallocate, "preallocate"),
    (Mode::RenameOver, "rename-over"),
    (Mode::Append, "append"),
    (Mode::Rewrite, "rewrite"),
    (Mode::Resume, "resume"),
    (Mode::TwoWriters, "two-writers"),
    (Mode::Tailed, "tailed"),
];

/// How one file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Create,
    CreateTwice,
    Preallocate,
    RenameOver,
    AppendPieces,
    AppendNew,
    Rewrite,
    Resume,
    ContinueAtEnd,
}

impl Mode {
    /// The mode of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        MODES.iter().find(|(_, known)| *known == name).map(|(mode, _)| *mode)
    }

    /// Of a file that is sent whole, for the n-th time.
    pub(super) fn whole(self, turn: u32) -> Manner {
        match self {
            Self::Sequential | Self::TwoWriters | Self::Tailed => Manner::Create,
            Self::Preallocate => Manner::Preallocate,
            Self::RenameOver => Manner::RenameOver,
            // Appending to what was sent before would double it.
            Self::Append if turn == 1 => Manner::AppendPieces,
            Self::Append => Manner::Create,
            Self::Rewrite => Manner::CreateTwice,
            Self::Resume => Manner::Resume,
        }
    }

    /// Of a file that begins with what it held before.
    pub(super) fn growing(self) -> Manner {
        match self {
            Self::Sequential | Self::Append | Self::TwoWriters => Manner::AppendNew,
            Self::Preallocate => Manner::Preallocate,
            Self::RenameOver => Manner::RenameOver,
            Self::Rewrite | Self::Tailed => Manner::Rewrite,
            Self::Resume => Manner::ContinueAtEnd,
        }
    }

    /// Of a file whose content is replaced; whoever is read meanwhile has to rename over.
    pub(super) fn replaced(self) -> Manner {
        match self {
            Self::RenameOver | Self::Tailed => Manner::RenameOver,
            Self::Preallocate => Manner::Preallocate,
            _ => Manner::Rewrite,
        }
    }
}

const WINDOW: usize = 8 << 20;
const LEAST_PIECE: usize = 64 << 10;
const MOST_PIECE: usize = 1 << 20;

/// What writes one file.
pub struct Hand<'a> {
    /// Decides sizes of pieces and their order.
    pub seed: u64,
    /// Where it is.
    pub place: &'a dyn Place,
    /// The file.
    pub path: &'a Path,
}

impl Hand<'_> {
    /// Brings the file to this content; says how many bytes were written for it.
    pub fn write(&self, bytes: &[u8], manner: Manner) -> Result<u64> {
        match self.attempt(bytes, manner) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                let parent = self.path.parent().unwrap_or(self.path);
                self.place.make_dirs(parent).map_err(Error::io(parent))?;
                self.attempt(bytes, manner)
            }
            other => other,
        }
        .map_err(Error::io(self.path))
    }

    fn attempt(&self, bytes: &[u8], manner: Manner) -> io::Result<u64> {
        let all = bytes.len() as u64;
        match manner {
            Manner::Create | Manner::Rewrite => self.create(self.path, bytes).map(|()| all),
            Manner::CreateTwice => {
                self.create(self.path, bytes)?;
                self.create(self.path, bytes).map(|()| 2 * all)
            }
            Manner::Preallocate => self.preallocate(bytes).map(|()| all),
            Manner::RenameOver => self.rename_over(bytes).map(|()| all),
            Manner::AppendPieces => self.append_pieces(bytes).map(|()| all),
            Manner::AppendNew => self.append_new(bytes),
            Manner::Resume => self.resume(bytes).map(|()| all),
            Manner::ContinueAtEnd => self.continue_at_end(bytes),
        }
    }

    fn create(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = self.place.open(path, How::Anew)?;
        self.write_pieces(&*file, bytes, 0)?;
        file.close()
    }

    fn write_pieces(&self, file: &dyn Opened, bytes: &[u8], mut offset: u64) -> io::Result<()> {
        self.pieces(bytes).try_for_each(|piece| {
            file.write_at(piece, offset)?;
            offset += piece.len() as u64;
            Ok(())
        })
    }

    fn preallocate(&self, bytes: &[u8]) -> io::Result<()> {
        let file = self.place.open(self.path, How::Keep)?;
        file.set_size(bytes.len() as u64)?;
        let mut order = Stream::new(self.seed, &[9]);
        let mut offset = 0;
        for window in bytes.chunks(WINDOW) {
            let mut pieces = Vec::new();
            for piece in window.chunks(LEAST_PIECE * 4) {
                pieces.push((order.next_u64(), offset, piece));
                offset += piece.len() as u64;
            }
            pieces.sort_unstable_by_key(|(order, ..)| *order);
            pieces.into_iter().try_for_each(|(_, at, piece)| file.write_at(piece, at))?;
        }
        // A copy keeps the source's time, which it sets last.
        file.set_modified(SystemTime::now() - Duration::from_secs(90))?;
        file.close()
    }

    fn rename_over(&self, bytes: &[u8]) -> io::Result<()> {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".ucs-tmp");
        let temporary: PathBuf = self.path.with_file_name(name);
        self.create(&temporary, bytes)?;
        self.place.rename_over(&temporary, self.path)
    }

    fn append_pieces(&self, bytes: &[u8]) -> io::Result<()> {
        self.place.open(self.path, How::Anew)?.close()?;
        let mut end = 0;
        self.pieces(bytes).try_for_each(|piece| {
            let file = self.place.open(self.path, How::Append)?;
            file.write_at(piece, end)?;
            end += piece.len() as u64;
            file.close()
        })
    }

    fn append_new(&self, bytes: &[u8]) -> io::Result<u64> {
        let file = self.place.open(self.path, How::Append)?;
        let end = file.size()?;
        let new = beyond(bytes, end)?;
        if !new.is_empty() {
            file.write_at(new, end)?;
        }
        file.close()?;
        Ok(new.len() as u64)
    }

    fn resume(&self, bytes: &[u8]) -> io::Result<()> {
        let (before, _) = bytes.split_at(bytes.len() * 2 / 3);
        let file = self.place.open(self.path, How::Anew)?;
        self.write_pieces(&*file, before, 0)?;
        file.drop_link()?;
        self.continue_at_end(bytes).map(|_| ())
    }

    /// Checks up to a piece before the end, as a resumed copy does, and goes on from there.
    fn continue_at_end(&self, bytes: &[u8]) -> io::Result<u64> {
        let file = self.place.open(self.path, How::Keep)?;
        let from = file.size()?.saturating_sub(LEAST_PIECE as u64);
        let last = file.read_from(from)?;
        let rest = beyond(bytes, from)?;
        if !rest.starts_with(&last) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "what was sent before has changed"));
        }
        self.write_pieces(&*file, rest, from)?;
        file.close()?;
        Ok(rest.len() as u64)
    }

    fn pieces<'b>(&self, mut bytes: &'b [u8]) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        let mut sizes = Stream::new(self.seed, &[10]);
        std::iter::from_fn(move || {
            let size = LEAST_PIECE + (sizes.next_u64() as usize) % (MOST_PIECE - LEAST_PIECE);
            let (piece, rest) = bytes.split_at(size.min(bytes.len()));
            bytes = rest;
            (!piece.is_empty()).then_some(piece)
        })
    }
}

fn beyond(bytes: &[u8], offset: u64) -> io::Result<&[u8]> {
    let longer = || io::Error::new(io::ErrorKind::InvalidData, "holds more than was sent");
    usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).ok_or_else(longer)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::replay::place::Directory;

    const MANNERS: [Manner; 9] = [
        Manner::Create,
        Manner::CreateTwice,
        Manner::Preallocate,
        Manner::RenameOver,
        Manner::AppendPieces,
        Manner::AppendNew,
        Manner::Rewrite,
        Manner::Resume,
        Manner::ContinueAtEnd,
    ];

    #[test]
    fn every_manner_leaves_the_content_and_nothing_else() {
        let bytes = Stream::new(3, &[]).bytes(10 << 20);
        for size in [0, 1, 65_536, bytes.len()] {
            for manner in MANNERS {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("a/b/file");
                let written =
                    Hand { seed: 1, place: &Directory, path: &path }.write(&bytes[..size], manner).unwrap();
                assert!(written >= size as u64);
                assert!(fs::read(&path).unwrap() == bytes[..size], "{manner:?} {size}");
                assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
            }
        }
    }

    #[test]
    fn what_grows_reaches_its_new_content() {
        let bytes = Stream::new(3, &[]).bytes(300_000);
        for manner in [
            Manner::AppendNew,
            Manner::Rewrite,
            Manner::ContinueAtEnd,
            Manner::Preallocate,
            Manner::RenameOver,
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            let hand = Hand { seed: 1, place: &Directory, path: &path };
            for size in [10, 100_000, 100_000, 300_000] {
                hand.write(&bytes[..size], manner).unwrap();
                assert!(fs::read(&path).unwrap() == bytes[..size], "{manner:?} {size}");
            }
        }
    }

    #[test]
    fn a_resumed_file_that_changed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"other").unwrap();
        let resumed =
            Hand { seed: 1, place: &Directory, path: &path }.write(b"bytes and more", Manner::ContinueAtEnd);
        assert!(matches!(resumed, Err(Error::Io { .. })));
    }
}
