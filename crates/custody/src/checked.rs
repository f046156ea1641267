//! What a `verify` or `scrub` has found as it was sealed, kept while it is at work: one that was cut short goes on.
//!
//! `<state dir>/<vault id>/checked/<name>`, 0600: a line of JSON, and a line with its SHA-256. Written by temporary and
//! rename every few seconds, removed when all was looked at. It holds numbers of objects and times, no names.
//!
//! Whoever can write it can hide damage until the next time that everything is read: so it counts only where the
//! folder and the file are this user's and nobody else's, and for a week at most. What was found *not* to be as it was
//! sealed is not kept but read again: whether it still is so, the store knows better.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use runvault_crypto::digest::sha256;
use runvault_format::ids::{Digest, RunId, VaultId};
use runvault_store::backend::Stat;
use runvault_vault::seal::Checked;
use serde::{Deserialize, Serialize};

use crate::layout;
use crate::state_folder::Folder;
use crate::{Error, Result, clock};

const FOLDER: &str = "checked";
/// Those of some ten thousand runs.
const LEN_MAX: usize = 64 << 20;
/// How often it is written.
const EVERY: Duration = Duration::from_secs(2);
/// Seconds for which it is believed that what was read is still so.
pub const BELIEVED: u64 = 7 * 24 * 3600;
/// What was checked within so many seconds has one time, that of the first.
const TOGETHER: u64 = 3600;
/// Where more stretches than that lie apart, no further one is kept.
const STRETCHES: usize = 10_000;

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    vault: VaultId,
    /// When it was written, in seconds since 1970.
    until: u64,
    runs: BTreeMap<RunId, OfRun>,
}

/// What was checked of a run, or of its seal's objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfRun {
    /// Text hash of the seal's note.
    seal: Digest,
    /// Where the run lay.
    place: Digest,
    /// Objects in all; 0 before that is known.
    of: usize,
    /// In order, apart from each other.
    checked: Vec<Stretch>,
}

/// Objects of these numbers, `to` excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stretch {
    from: usize,
    to: usize,
    /// When the first of them was checked, in seconds since 1970.
    since: u64,
    bytes: u64,
}

/// What an earlier command has checked and this one does not read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Objects of the seals: files, records, links.
    pub objects: usize,
    /// Of so many in the runs that were begun.
    pub of: usize,
    /// Bytes that were read then.
    pub bytes: u64,
    /// When the first of them was read, in seconds since 1970.
    pub since: u64,
    /// And the last, at the latest.
    pub until: u64,
}

/// One command's record.
pub struct Record {
    name: String,
    folder: Option<Folder>,
    kept: Mutex<Kept>,
}

struct Kept {
    said: Said,
    resumed: Option<Resumed>,
    written: Instant,
    /// Why nothing is kept, or nothing of before counts.
    trouble: Option<String>,
}

impl Record {
    /// That of `name`, which says what is checked; what cannot be believed counts as nothing, and so does what is kept of
    /// a run that lies at another `place` now. `fresh`: nothing that was kept counts.
    pub fn open(
        state_dir: &Path,
        vault: VaultId,
        name: &str,
        fresh: bool,
        place: &dyn Fn(&RunId) -> Digest,
    ) -> Record {
        let (folder, mut trouble) = match private_folder(state_dir, &vault) {
            Ok(folder) => (Some(folder), None),
            Err(error) => (None, Some(format!("how far this comes is not kept: {error}"))),
        };
        let now = clock::seconds();
        let mut said = Said { vault, until: now, runs: BTreeMap::new() };
        if let Some(folder) = folder.as_ref().filter(|_| !fresh) {
            match read(folder, name, vault, now) {
                Ok(found) => said = found.unwrap_or(said),
                Err(error) => trouble = Some(format!("what was checked before does not count: {error}")),
            }
        }
        said.runs.retain(|run, kept| kept.place == place(run));
        let kept = Kept { resumed: resumed(&said), said, written: Instant::now(), trouble };
        Record { name: name.to_owned(), folder, kept: Mutex::new(kept) }
    }

    /// What of earlier counts, as far as the store is still the same.
    pub fn resumed(&self) -> Option<Resumed> {
        self.kept().resumed
    }

    /// Why nothing of earlier counts, or nothing is kept, where something is in the way.
    pub fn trouble(&self) -> Option<String> {
        self.kept().trouble.clone()
    }

    /// What was checked of a run, with that seal, at that place: of another one nothing was.
    pub fn of_run(&self, run: RunId, seal: Digest, place: Digest) -> impl Checked + use<'_> {
        let mut kept = self.kept();
        let same = kept.said.runs.get(&run).is_some_and(|known| (known.seal, known.place) == (seal, place));
        if !same {
            kept.said.runs.insert(run, OfRun { seal, place, of: 0, checked: Vec::new() });
        }
        drop(kept);
        CheckedRun { record: self, run }
    }

    /// All was looked at: the next time begins anew.
    pub fn finish(self) {
        let Some(folder) = &self.folder else { return };
        if let Err(error) = folder.remove(&self.name) {
            log::info!("{error}");
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, kept: &mut Kept) {
        let Some(folder) = &self.folder else { return };
        kept.said.until = clock::seconds();
        kept.written = Instant::now();
        let written = text(&kept.said).and_then(|text| folder.write(&self.name, &text));
        match (written, &kept.trouble) {
            (Err(error), None) => kept.trouble = Some(format!("how far this comes is not kept: {error}")),
            (Err(_), Some(_)) => {}
            // What was in the way once may be so again, and is told then.
            (Ok(()), _) => kept.trouble = None,
        }
    }
}

struct CheckedRun<'a> {
    record: &'a Record,
    run: RunId,
}

impl Checked for CheckedRun<'_> {
    fn of(&self, objects: usize) {
        if let Some(run) = self.record.kept().said.runs.get_mut(&self.run) {
            run.of = objects;
        }
    }

    fn has(&self, number: usize) -> bool {
        self.record.kept().said.runs.get(&self.run).is_some_and(|run| run.has(number))
    }

    fn note(&self, number: usize, bytes: u64) {
        let mut kept = self.record.kept();
        if let Some(run) = kept.said.runs.get_mut(&self.run) {
            run.note(number, bytes, clock::seconds());
        }
        if kept.written.elapsed() >= EVERY {
            self.record.write(&mut kept);
        }
    }
}

impl OfRun {
    fn has(&self, number: usize) -> bool {
        let at = self.checked.partition_point(|stretch| stretch.from <= number);
        at.checked_sub(1).and_then(|at| self.checked.get(at)).is_some_and(|stretch| number < stretch.to)
    }

    fn note(&mut self, number: usize, bytes: u64, now: u64) {
        if self.has(number) {
            return;
        }
        let mut new = Stretch { from: number, to: number.saturating_add(1), since: now, bytes };
        let at = self.checked.partition_point(|stretch| stretch.from <= number);
        if let Some(next) = self.checked.get(at).copied()
            && next.joins(new.to, now)
        {
            new = Stretch {
                to: next.to,
                since: next.since.min(now),
                bytes: bytes.saturating_add(next.bytes),
                ..new
            };
            self.checked.remove(at);
        }
        let before = at.checked_sub(1).and_then(|before| self.checked.get_mut(before));
        if let Some(before) =
            before.filter(|before| before.to == number && now.abs_diff(before.since) < TOGETHER)
        {
            before.to = new.to;
            before.since = before.since.min(new.since);
            before.bytes = before.bytes.saturating_add(new.bytes);
        } else if self.checked.len() < STRETCHES {
            self.checked.insert(at, new);
        }
    }

    /// Whether the stretches follow each other.
    fn is_in_order(&self) -> bool {
        let ends = self.checked.iter().map(|stretch| stretch.to);
        let begins = self.checked.iter().skip(1).map(|stretch| stretch.from);
        self.checked.iter().all(|stretch| stretch.from < stretch.to)
            && begins.zip(ends).all(|(next, end)| end <= next)
    }
}

impl Stretch {
    fn joins(&self, from: usize, now: u64) -> bool {
        self.from == from && now.abs_diff(self.since) < TOGETHER
    }

    /// A time that is still to come is none.
    fn is_believed(&self, now: u64) -> bool {
        self.since <= now && now - self.since < BELIEVED
    }
}

fn resumed(said: &Said) -> Option<Resumed> {
    let stretches = || said.runs.values().flat_map(|run| &run.checked);
    let since = stretches().map(|stretch| stretch.since).min()?;
    Some(Resumed {
        objects: stretches().map(|stretch| stretch.to - stretch.from).sum(),
        of: said.runs.values().map(|run| run.of).sum(),
        bytes: stretches().map(|stretch| stretch.bytes).fold(0, u64::saturating_add),
        since,
        until: said.until,
    })
}

/// `checked/`, which must be this user's alone, in a folder that nobody else changes. What is too old in it goes.
fn private_folder(state_dir: &Path, vault: &VaultId) -> Result<Folder> {
    let of_vault = Folder::open(state_dir, vault)?;
    require_own(&of_vault, "", 0o022)?;
    let folder = of_vault.subfolder(FOLDER)?;
    require_own(&folder, "", 0o077)?;
    let now = clock::seconds();
    for name in layout::names(folder.dir(), &folder.shown(""))? {
        let old =
            |stat: Stat| u64::try_from(stat.mtime.sec).is_ok_and(|at| now.saturating_sub(at) > BELIEVED);
        if folder.dir().stat(&name).is_ok_and(old) {
            folder.remove(&String::from_utf8_lossy(&name))?;
        }
    }
    Ok(folder)
}

/// What is of another user, or open to others by these bits of its mode, is not believed.
fn require_own(folder: &Folder, name: &str, others: u32) -> Result<()> {
    let stat = if name.is_empty() { folder.dir().stat_self() } else { folder.dir().stat(name.as_bytes()) };
    let stat = stat.map_err(|e| Error::io("stat", folder.shown(name), e))?;
    let why = if stat.uid != rustix::process::geteuid().as_raw() {
        format!("it is user {}'s", stat.uid)
    } else if stat.mode & others != 0 {
        format!("mode {:04o}: others have access to it", stat.mode)
    } else {
        return Ok(());
    };
    Err(Error::Damaged { object: folder.shown(name), why })
}

/// The record, without what is older than is believed; `None` where there is none.
fn read(folder: &Folder, name: &str, vault: VaultId, now: u64) -> Result<Option<Said>> {
    let object = folder.shown(name);
    let Some(bytes) = layout::read_if_there(folder.dir(), name, &object, LEN_MAX)? else { return Ok(None) };
    require_own(folder, name, 0o077)?;
    let damaged = |why: &str| Error::Damaged { object: object.clone(), why: why.to_owned() };
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("not a text"))?;
    let (line, hash) = text.split_once('\n').ok_or_else(|| damaged("cut short"))?;
    if hash.trim_end_matches('\n') != Digest(sha256(&[line.as_bytes()])).to_string() {
        return Err(damaged("not what was written"));
    }
    let mut said: Said = serde_json::from_str(line).map_err(|e| damaged(&e.to_string()))?;
    if said.vault != vault || !said.runs.values().all(OfRun::is_in_order) {
        return Err(damaged("not a record of this vault"));
    }
    for run in said.runs.values_mut() {
        run.checked.retain(|stretch| stretch.is_believed(now));
    }
    Ok(Some(said))
}

fn text(said: &Said) -> Result<Vec<u8>> {
    let line = serde_json::to_string(said)
        .map_err(|e| Error::Damaged { object: FOLDER.to_owned(), why: e.to_string() })?;
    Ok(format!("{line}\n{}\n", Digest(sha256(&[line.as_bytes()]))).into_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    const VAULT: VaultId = VaultId([1; 32]);
    const RUN: RunId = RunId([2; 16]);
    const SEAL: Digest = Digest([3; 32]);
    const PLACE: Digest = Digest([4; 32]);

    fn file(state: &Path) -> PathBuf {
        state.join(VAULT.to_string()).join(FOLDER).join("scrub")
    }

    fn open(state: &Path) -> Record {
        Record::open(state, VAULT, "scrub", false, &|_| PLACE)
    }

    /// Checks those objects, and is killed after the record was written.
    fn cut_short(state: &Path, objects: &[usize]) {
        let record = open(state);
        let run = record.of_run(RUN, SEAL, PLACE);
        run.of(100);
        objects.iter().for_each(|number| run.note(*number, 10));
        record.write(&mut record.kept());
    }

    const NOTHING: [usize; 0] = [];

    fn found(record: &Record, seal: Digest, place: Digest) -> Vec<usize> {
        let run = record.of_run(RUN, seal, place);
        (0..100).filter(|number| run.has(*number)).collect()
    }

    #[test]
    fn what_was_checked_counts_for_the_same_seal_at_the_same_place() {
        let state = tempfile::tempdir().unwrap();
        cut_short(state.path(), &[0, 1, 5, 4, 3, 9]);
        let record = open(state.path());
        assert_eq!(record.trouble(), None);
        let resumed = record.resumed().unwrap();
        assert_eq!((resumed.objects, resumed.of, resumed.bytes), (6, 100, 60));
        assert!(resumed.since <= resumed.until && resumed.until <= clock::seconds());
        assert_eq!(found(&record, SEAL, PLACE), [0, 1, 3, 4, 5, 9]);
        assert!(fs::read_to_string(file(state.path())).unwrap().len() < 1000);
        for (seal, place) in [(Digest([9; 32]), PLACE), (SEAL, Digest([9; 32]))] {
            assert_eq!(found(&open(state.path()), seal, place), NOTHING);
        }
        let by = |name, fresh, place| Record::open(state.path(), VAULT, name, fresh, &|_| place);
        for record in
            [by("scrub", true, PLACE), by("verify", false, PLACE), by("scrub", false, Digest([9; 32]))]
        {
            assert_eq!((record.resumed(), found(&record, SEAL, PLACE)), (None, vec![]));
        }
        record.finish();
        assert!(!file(state.path()).exists() && open(state.path()).resumed().is_none());
    }

    #[test]
    fn a_record_that_others_may_have_written_does_not_count() {
        let state = tempfile::tempdir().unwrap();
        cut_short(state.path(), &[0, 1]);
        let path = file(state.path());
        let good = fs::read(&path).unwrap();
        for bad in [&b""[..], b"{}\n", &good[..good.len() / 2], b"\xff\xfe\n", &[b'x'; 5000]] {
            fs::write(&path, bad).unwrap();
            let record = open(state.path());
            assert!(record.resumed().is_none() && record.trouble().unwrap().contains("does not count"));
        }
        for at in (0..good.len() - 1).step_by(5) {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            fs::write(&path, flipped).unwrap();
            assert!(open(state.path()).resumed().is_none(), "{at}");
        }
        fs::write(&path, &good).unwrap();
        let chmod = |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        assert!(open(state.path()).resumed().is_some());
        let folder = path.parent().unwrap();
        for (path, bad, mode) in
            [(&*path, 0o660, 0o600), (folder, 0o770, 0o700), (folder.parent().unwrap(), 0o777, 0o700)]
        {
            chmod(path, bad);
            let record = open(state.path());
            assert!(record.resumed().is_none() && record.trouble().unwrap().contains("others have access"));
            chmod(path, mode);
        }
        fs::rename(&path, state.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(state.path().join("elsewhere"), &path).unwrap();
        assert!(open(state.path()).resumed().is_none());
    }

    #[test]
    fn it_is_believed_for_a_week() {
        let (now, stretch) = (1_800_000_000, |since| Stretch { from: 0, to: 1, since, bytes: 0 });
        assert!(stretch(now).is_believed(now) && stretch(now - BELIEVED + 1).is_believed(now));
        assert!(!stretch(now - BELIEVED).is_believed(now) && !stretch(now + 1).is_believed(now));
        let mut run = OfRun { seal: SEAL, place: PLACE, of: 9, checked: Vec::new() };
        for (number, at) in [(0, now), (1, now + 10), (2, now + TOGETHER), (3, now + TOGETHER + 9)] {
            run.note(number, 1, at);
        }
        let stretches: Vec<_> = run.checked.iter().map(|s| (s.from, s.to, s.since)).collect();
        assert_eq!(stretches, [(0, 2, now), (2, 4, now + TOGETHER)], "each keeps its own time");
    }

    #[test]
    fn where_nothing_can_be_written_nothing_is_kept() {
        let record = open(Path::new("/proc/none"));
        let run = record.of_run(RUN, SEAL, PLACE);
        run.note(3, 1);
        assert!(run.has(3) && !run.has(4) && record.trouble().unwrap().contains("is not kept"));
        drop(run);
        record.finish();
    }

    proptest::proptest! {
        #[test]
        fn in_whatever_order_they_come(numbers in proptest::collection::vec((0usize..60, 0u64..9000), 0..80)) {
            let mut run = OfRun { seal: SEAL, place: PLACE, of: 60, checked: Vec::new() };
            for (number, at) in &numbers {
                run.note(*number, 1, *at);
                assert!(run.is_in_order(), "{run:?}");
            }
            for number in 0..60 {
                assert_eq!(run.has(number), numbers.iter().any(|(noted, _)| *noted == number));
                // None of them is younger than it was told.
                let told = numbers.iter().find(|(noted, _)| *noted == number).map(|(_, at)| *at);
                let kept = run.checked.iter().find(|s| s.from <= number && number < s.to).map(|s| s.since);
                assert!(kept <= told, "{kept:?} {told:?}");
            }
        }
    }
}
