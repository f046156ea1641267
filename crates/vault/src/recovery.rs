//! Recovery of a run whose session ended without a clean unmount (docs/format.md, "Recovery").
//!
//! It may be interrupted at any point and begun again: until the journal is reset, what it writes
//! says no more than the log says, and every file keeps a header copy that was durable before.

mod log;
mod replay;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use runvault_format::header::Kind;
use runvault_format::ids::{FileId, SessionId};
use runvault_format::redo_record::{Record, SECTOR, session_claimed};
use runvault_store::backend::{Access, Dir, File};
use runvault_store::journal_files::{DIRECTORY, JournalFiles};

use crate::file::{Found, RunContext, Unreadable};
use crate::outcome::part_opened;
use crate::{Damage, Error, Result};

/// A writer elsewhere may be in the middle of its first record.
const UNDER_WAY: Duration = Duration::from_millis(200);

/// What a recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Records in the log of the session.
    pub records: u64,
    /// Chunks that were brought in place (again).
    pub replayed: u64,
    /// Files that they belong to.
    pub files: u64,
    /// Records that had nothing to say any more: in place, or of a file that is gone.
    pub skipped: u64,
    /// Files whose header could not be read: left as they are.
    pub left: u64,
}

/// Makes the run whole after `session`, the one that the state folder remembers, has ended without
/// a clean unmount; also where it left no journal. Nothing of the run may be open.
///
/// # Errors
/// [`crate::Damage::Run`] for a journal of another session, which a person decides about; the
/// store's: the journal then stays, and recovery can be tried again.
pub fn recover(run: &RunContext, run_dir: &Arc<dyn Dir>, session: &SessionId) -> Result<Recovered> {
    // After kill -9 the page cache holds what nobody has synced.
    run.tree.sync_fs().map_err(|e| failed(run, "sync", e))?;
    let opened = JournalFiles::open_existing(run_dir).map_err(|e| journal(run, e))?;
    let Some(mut files) = opened else { return Ok(Recovered::default()) };
    let (older, records) = log::read(run, &files, session)?;
    let recovered = replay_all(run, session, &records)?;
    files.reset(older).map_err(|e| failed(run, "reset the journal of", e))?;
    run_dir
        .open_dir(DIRECTORY)
        .and_then(|dir| dir.sync())
        .map_err(|e| failed(run, "sync the journal of", e))?;
    Ok(recovered)
}

/// What a run's journal holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Records that a mount replays.
    pub records: u64,
    /// Those that it does not, since one before them does not authenticate; where that can be told.
    pub behind: u64,
}

/// Counts the records in a run's journal. `session`: the one that this machine's state folder
/// names; where it does not hold the run, whichever the journal claims.
///
/// # Errors
/// [`Damage::Run`] for a journal of another session, of two sessions, or of one that no record proves;
/// the store's.
pub fn count(run: &RunContext, run_dir: &Arc<dyn Dir>, session: Option<SessionId>) -> Result<Counted> {
    match count_now(run, run_dir, session) {
        Err(Error::Damaged { .. }) | Ok(Counted { behind: 1.., .. }) => {
            std::thread::sleep(UNDER_WAY);
            count_now(run, run_dir, session)
        }
        counted => counted,
    }
}

fn count_now(run: &RunContext, run_dir: &Arc<dyn Dir>, session: Option<SessionId>) -> Result<Counted> {
    let opened = JournalFiles::read_existing(run_dir).map_err(|e| journal(run, e))?;
    let Some(files) = opened else { return Ok(Counted::default()) };
    let claimed = session_of(&files).map_err(|e| failed(run, "read the journal of", e))?;
    let Some(claimed) = claimed else { return Ok(Counted::default()) };
    let known = session.unwrap_or(claimed);
    let (_, records) = log::read(run, &files, &known)?;
    if records.is_empty() && session.is_none() {
        let what = "no record of its journal authenticates: a stranger made it, or its writer's power went \
                    with the first one";
        return Err(Error::damaged(format!("runs/{}/journal", run.id), Damage::Run(what.to_owned())));
    }
    let last_of = |records: &[Record]| records.last().map(|record| record.number);
    let last = last_of(&records);
    let mut behind = log::behind(run, &files, &known, last)?;
    if behind > 0 && last_of(&log::read(run, &files, &known)?.1) != last {
        // A mount that is up has written on since.
        behind = 0;
    }
    Ok(Counted { records: records.len() as u64, behind })
}

/// The session that a journal's records claim to be of; each record proves it when it is read.
pub(crate) fn session_of(files: &JournalFiles) -> std::io::Result<Option<SessionId>> {
    for i in 0..2 {
        let mut sector = [0u8; SECTOR];
        files.read_at(i, &mut sector, 0)?;
        if let Some(session) = session_claimed(&sector) {
            return Ok(Some(session));
        }
    }
    Ok(None)
}

fn replay_all(run: &RunContext, session: &SessionId, records: &[Record]) -> Result<Recovered> {
    let mut done = Recovered { records: records.len() as u64, ..Recovered::default() };
    let mut targets = Targets::default();
    let mut work: HashMap<FileId, Vec<&Record>> = HashMap::new();
    let mut reached = HashSet::new();
    for record in records {
        if targets.find(run, record)? {
            reached.insert(record.file_id);
        }
    }
    // All records of a file, whichever of their paths leads to it: an older record, whose path a second
    // rename has brought back, must not undo a newer one under the path in between.
    for record in records.iter().filter(|r| reached.contains(&r.file_id)) {
        work.entry(record.file_id).or_default().push(record);
    }
    for (id, records) in work {
        let Some(path) = targets.files.get(&id) else { continue };
        let Some(file) = open_found(run, path)? else { continue };
        match replay::file(run, &*file, session, &records)? {
            Some(0) => {}
            Some(replayed) => {
                done.files += 1;
                done.replayed += replayed;
            }
            None => done.left += 1,
        }
    }
    done.skipped = done.records - done.replayed;
    Ok(done)
}

/// The files that records name, each path looked up once. There may be more of them than can be open at once.
#[derive(Default)]
struct Targets {
    paths: HashMap<Vec<u8>, Option<FileId>>,
    /// A path that leads to each.
    files: HashMap<FileId, Vec<u8>>,
}

impl Targets {
    /// Whether the record's path leads to the record's file.
    fn find(&mut self, run: &RunContext, record: &Record) -> Result<bool> {
        if !self.paths.contains_key(&record.path) {
            let id = match open_found(run, &record.path)? {
                Some(file) => Some(identify(run, &*file, &record.file_id)?),
                None => None,
            };
            if let Some(id) = id {
                self.files.entry(id).or_insert_with(|| record.path.clone());
            }
            self.paths.insert(record.path.clone(), id);
        }
        Ok(self.paths.get(&record.path) == Some(&Some(record.file_id)))
    }
}

/// A file whose header cannot be read is taken for the one that is looked for, and left alone.
fn identify(run: &RunContext, file: &dyn File, wanted: &FileId) -> Result<FileId> {
    match Found::read(run, file, Kind::File) {
        Ok(found) => Ok(found.clear.file_id),
        Err(Unreadable::Damage(_)) => Ok(*wanted),
        Err(Unreadable::Store(e)) => Err(failed(run, "read a file of", e)),
    }
}

fn open_found(run: &RunContext, path: &[u8]) -> Result<Option<Arc<dyn File>>> {
    open(&run.tree, path).map_err(|e| failed(run, "open a file of", e))
}

/// The regular file at a path of encrypted names below `tree/`, component by component.
pub(crate) fn open(tree: &Arc<dyn Dir>, path: &[u8]) -> std::io::Result<Option<Arc<dyn File>>> {
    let mut dir = tree.clone();
    let mut components = path.split(|b| *b == b'/').peekable();
    while let Some(name) = components.next() {
        if matches!(name, b"" | b"." | b"..") || name.contains(&0) {
            return Ok(None);
        }
        if components.peek().is_none() {
            return there(dir.open_file(name, Access::ReadWrite));
        }
        match there(dir.open_dir(name))? {
            Some(next) => dir = next,
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// `None` where the name is gone, or leads to something that is no file of ours.
fn there<T>(outcome: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(e) if is_not_there(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

fn is_not_there(error: &std::io::Error) -> bool {
    use libc::{EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ENXIO};
    matches!(error.raw_os_error(), Some(ENOENT | ENOTDIR | ELOOP | EISDIR | EINVAL | ENXIO | ENAMETOOLONG))
}

fn journal(run: &RunContext, error: std::io::Error) -> Error {
    part_opened("open", format!("runs/{}/journal", run.id), error)
}

fn failed(run: &RunContext, operation: &'static str, source: std::io::Error) -> Error {
    Error::store(operation, format!("runs/{}", run.id), source)
}

#[cfg(test)]
mod tests;
