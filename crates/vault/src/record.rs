//! A directory's record: the file `_dir` in it, an ordinary header of kind 2 whose file id is the
//! directory's id, so that directories are bound to their names as files are.

use runvault_crypto::random;
use runvault_format::header::{Clear, Kind, seal_copy};
use runvault_format::ids::{DirId, FileId};
use runvault_format::keys::Place;
use runvault_format::name::RECORD;
use runvault_format::size::{COPY, HEADER};
use runvault_format::state_slot::SlotState;
use runvault_store::backend::{Access, Dir, File};

use crate::file::{Found, RunContext};
use crate::outcome::part_opened;
use crate::{Damage, Error, Result};

/// Anyone who reads the store may read it: it is sealed.
pub(crate) const MODE: u32 = 0o644;

/// Makes the record of a new directory, durable when it returns (its name in `dir` is not).
///
/// # Errors
/// The store's; EEXIST where there is one.
pub fn create(run: &RunContext, dir: &dyn Dir, place: Place) -> Result<DirId> {
    let mut id = [0u8; 32];
    random::fill(&mut id)?;
    put_back(run, dir, FileId(id), place)?;
    Ok(FileId(id))
}

/// [`create`] with the id that the directory had: after an rmdir or a rename over it has failed.
///
/// # Errors
/// As [`create`].
pub fn put_back(run: &RunContext, dir: &dyn Dir, id: DirId, place: Place) -> Result<()> {
    let bytes = bytes(run, id, place)?;
    let file = dir.create_file(RECORD, MODE).map_err(|e| failed(run, "create", e))?;
    let written = file.write_at(&bytes, 0).and_then(|()| file.sync_data());
    if let Err(error) = written {
        // Half a record would shut the directory; without one it is empty and gets a new id.
        let _ = dir.unlink(RECORD);
        return Err(failed(run, "write", error));
    }
    Ok(())
}

/// The record of a directory at that place.
///
/// # Errors
/// None: a record lists no holes.
pub(crate) fn bytes(run: &RunContext, id: DirId, place: Place) -> Result<[u8; HEADER as usize]> {
    let clear = Clear { geometry: run.geometry, kind: Kind::Directory, file_id: id, run_id: run.id };
    let slot = SlotState {
        seq: 1,
        size: 0,
        jskip: 0,
        jsession: [0; 8],
        writes: 0,
        epoch: 0,
        flags: 0,
        place,
        previous: Place::default(),
        holes: Vec::new(),
    };
    let mut bytes = [0u8; HEADER as usize];
    let (first, _) = bytes.split_at_mut(COPY as usize);
    first.copy_from_slice(&seal_copy(0, &clear, &run.keys.slot_key(&clear), &slot)?);
    Ok(bytes)
}

/// The directory's id; `None` if it has no record. `expected` is the place of the name it was
/// reached by.
///
/// # Errors
/// [`Damage::Header`], [`Damage::HeaderCopy`], [`Damage::Foreign`], [`Damage::Place`], [`Damage::Kind`]; the store's.
pub fn read(run: &RunContext, dir: &dyn Dir, expected: Option<Place>) -> Result<Option<DirId>> {
    Ok(look(run, dir, expected)?.map(|(id, _)| id))
}

/// [`read`], and whether one of the record's two copies is damaged.
///
/// # Errors
/// As [`read`].
pub fn look(run: &RunContext, dir: &dyn Dir, expected: Option<Place>) -> Result<Option<(DirId, bool)>> {
    let file = match dir.open_file(RECORD, Access::Read) {
        Ok(file) => file,
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(e) => return Err(part_opened("open", object(run), e)),
    };
    let found = find(run, &*file)?;
    let slot = newest(run, &found)?;
    match expected {
        Some(place) if slot.place != place && slot.previous != place => {
            let damage = if found.lost { Damage::HeaderCopy } else { Damage::Place };
            Err(Error::damaged(object(run), damage))
        }
        _ => Ok(Some((found.clear.file_id, found.lost))),
    }
}

/// Before a directory is renamed from the place `old` to `new`: its record bears both, durable
/// when it returns. If the rename then fails nothing needs to be undone. The caller holds the
/// run's records ([`RunContext::hold_records`]) until the rename has happened.
///
/// # Errors
/// Those of [`read`]; the rename must not happen then.
pub fn rename(run: &RunContext, dir: &dyn Dir, old: Place, new: Place) -> Result<()> {
    let file = dir.open_file(RECORD, Access::ReadWrite).map_err(|e| part_opened("open", object(run), e))?;
    let found = find(run, &*file)?;
    let slot = newest(run, &found)?;
    let next = SlotState { seq: found.newest_seq() + 1, place: new, previous: old, ..slot.clone() };
    // Every record is synced when it is written: the newest copy is the one that is safe.
    let j = found.copies.first().map_or(0, |(copy, _)| 1 - copy);
    let sector = seal_copy(j, &found.clear, &found.slot_key, &next)?;
    file.write_at(&sector, u64::from(j) * COPY)
        .and_then(|()| file.sync_data())
        .map_err(|e| failed(run, "write", e))
}

fn find(run: &RunContext, file: &dyn File) -> Result<Found> {
    Found::read_settled(run, file, Kind::Directory).map_err(|e| e.named(object(run)))
}

fn newest<'a>(run: &RunContext, found: &'a Found) -> Result<&'a SlotState> {
    let newest = found.copies.first().map(|(_, slot)| slot);
    newest.ok_or_else(|| Error::damaged(object(run), Damage::Header))
}

fn object(run: &RunContext) -> String {
    format!("runs/{}, a directory's record", run.id)
}

fn failed(run: &RunContext, operation: &'static str, source: std::io::Error) -> Error {
    Error::store(operation, object(run), source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::testing::Rig;

    fn damage(of: Result<Option<DirId>>) -> Damage {
        match of {
            Err(Error::Damaged { damage, .. }) => damage,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bound_to_its_places() {
        let rig = Rig::new(13);
        let (a, b, c) = (Place([1; 16]), Place([2; 16]), Place([3; 16]));
        assert!(read(&rig.run, &*rig.run.tree, None).unwrap().is_none());
        let id = create(&rig.run, &*rig.run.tree, a).unwrap();
        assert_eq!(read(&rig.run, &*rig.run.tree, Some(a)).unwrap(), Some(id));
        assert_eq!(damage(read(&rig.run, &*rig.run.tree, Some(b))), Damage::Place);
        rename(&rig.run, &*rig.run.tree, a, b).unwrap();
        for place in [a, b] {
            assert_eq!(read(&rig.run, &*rig.run.tree, Some(place)).unwrap(), Some(id));
        }
        rename(&rig.run, &*rig.run.tree, b, c).unwrap();
        assert_eq!(damage(read(&rig.run, &*rig.run.tree, Some(a))), Damage::Place);
        assert_eq!(read(&rig.run, &*rig.run.tree, Some(c)).unwrap(), Some(id));
    }

    #[test]
    fn a_damaged_copy_is_seen_and_its_place_may_be_missing() {
        let rig = Rig::new(13);
        let (a, b) = (Place([1; 16]), Place([2; 16]));
        let id = create(&rig.run, &*rig.run.tree, a).unwrap();
        let lost = |expected| look(&rig.run, &*rig.run.tree, Some(expected));
        assert_eq!(lost(a).unwrap(), Some((id, false)));
        rename(&rig.run, &*rig.run.tree, a, b).unwrap();
        let file = rig.run.tree.open_file(RECORD, Access::ReadWrite).unwrap();
        file.write_at(&[0x55; 7], COPY + 100).unwrap();
        assert_eq!(lost(a).unwrap(), Some((id, true)));
        assert_eq!(damage(read(&rig.run, &*rig.run.tree, Some(b))), Damage::HeaderCopy);
        rename(&rig.run, &*rig.run.tree, a, b).unwrap();
        assert_eq!(lost(b).unwrap(), Some((id, false)));
    }

    #[test]
    fn neither_a_file_nor_of_another_run() {
        let (rig, other) = (Rig::new(13), Rig::new(13));
        create(&rig.run, &*rig.run.tree, Place([1; 16])).unwrap();
        assert_eq!(damage(read(&other.run, &*rig.run.tree, None)), Damage::Foreign);
        let file = rig.file("f");
        file.write(0, b"x").unwrap();
        file.fsync().unwrap();
        rig.run.tree.unlink(RECORD).unwrap();
        rig.run.tree.rename(b"f", &*rig.run.tree, RECORD, runvault_store::backend::Rename::Over).unwrap();
        assert_eq!(damage(read(&rig.run, &*rig.run.tree, None)), Damage::Foreign);
    }
}
