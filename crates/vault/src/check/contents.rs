//! A file: its header, every chunk that is stored, its attributes.

use runvault_format::header::Kind as Object;
use runvault_format::keys::place;
use runvault_store::backend::{Access, Entry, Stat};

use super::tree::{Level, Walk, attributes};
use super::{CheckEvent, Checker};
use crate::file::FileObject;
use crate::outcome::part_opened;
use crate::{Damage, Error, Result};

/// Plaintext bytes read at once.
const PIECE: usize = 1 << 20;

impl Checker<'_> {
    pub(super) fn file(
        &mut self,
        walk: &mut Walk,
        level: &Level,
        entry: &Entry,
        stat: &Stat,
        text: &[u8],
        (object, path): (&str, &[u8]),
    ) -> Result<()> {
        let place = place(&level.id, Object::File, text);
        let stored = level
            .dir
            .open_file(&entry.name, Access::Read)
            .map_err(|e| part_opened("open", object.to_owned(), e))?;
        let now = stored.stat().map_err(|e| Error::store("stat", object.to_owned(), e))?;
        let file = FileObject::open(&walk.context, stat.ino, stored, &now, Some(place))?;
        let mut bytes = 0;
        self.summary.files += 1;
        self.summary.unproven.empty_files += u64::from(now.size == 0);
        if stat.nlink < 2 || walk.read.insert(stat.ino) {
            if file.has_lost_copy() {
                self.damage(object.to_owned(), Some(path), Error::damaged(object, Damage::HeaderCopy));
            }
            bytes = self.chunks(walk, &file, object, path)?;
            if let Some(id) = file.file_id() {
                attributes(&walk.context, &**file.stored(), &id, object)?;
            }
        }
        (self.report)(CheckEvent::File { path: path.to_vec(), bytes });
        Ok(())
    }

    /// Reads all of a file's data; gives the bytes that were read.
    fn chunks(&mut self, walk: &Walk, file: &FileObject, object: &str, path: &[u8]) -> Result<u64> {
        let size = file.size();
        let before = self.summary.bytes;
        let chunk = walk.context.geometry.chunk();
        let mut buf = vec![0u8; PIECE];
        let mut at = 0u64;
        while at < size {
            // What was never written needs no reading.
            match file.seek(at, true) {
                Ok(data) => at = data,
                Err(_) => break,
            }
            match file.read(at, &mut buf) {
                Ok(0) => break,
                Ok(n) => {
                    self.summary.bytes += n as u64;
                    at += n as u64;
                }
                Err(Error::Damaged { damage: Damage::Chunk(_), .. }) if self.looks_again() => {}
                Err(error @ Error::Damaged { damage: Damage::Chunk(i), .. }) => {
                    self.damage(object.to_owned(), Some(path), error);
                    at = i.saturating_add(1).saturating_mul(chunk).max(at + 1);
                }
                Err(other) => return Err(other),
            }
        }
        Ok(self.summary.bytes - before)
    }
}
