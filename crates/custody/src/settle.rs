//! What a gateway's start looks up in the store: is the pending run there, are there newer ones.

use std::collections::HashMap;
use std::sync::Arc;

use runvault_crypto::signature::VerifyingKey;
use runvault_format::descriptor::RunDescriptor;
use runvault_format::envelope_file::EnvelopeName;
use runvault_format::ids::{IdentityId, RunId};
use runvault_format::note::{Note, text_hash};
use runvault_format::run_index::{Row, Rows};
use runvault_format::seal_note::SealNote;
use runvault_store::backend::Dir;
use runvault_store::replace::replace;
use runvault_vault::seal::origin;

use crate::gateway::{Head, Pending, SealHead};
use crate::layout::{self, DIR_MODE, PUBLIC_MODE, RETIRED, RUNS};
use crate::{Error, Result};

const RUN_JSON: &str = "run.json";
/// A signed descriptor of a few hundred bytes; signature lines may come to it.
const RUN_JSON_MAX: usize = 64 << 10;

/// Whether the run that was being made is in the store with the very descriptor that was signed.
pub(crate) fn is_in_store(root: &Arc<dyn Dir>, pending: &Pending) -> Result<bool> {
    let runs = layout::open_dir(root, RUNS, RUNS)?;
    Ok(read_descriptor(&runs, &pending.head.run.to_string())?.is_some_and(|found| found == pending.note))
}

/// The runs of the store, by their names.
pub(crate) fn runs(root: &Arc<dyn Dir>) -> Result<Vec<RunId>> {
    layout::parsed(&layout::open_dir(root, RUNS, RUNS)?, RUNS)
}

/// The names in a run's `keys/`; `None`: the run is gone, or has none, which is `check`'s to name.
pub(crate) fn envelopes(runs: &Arc<dyn Dir>, run: &RunId) -> Result<Option<Vec<EnvelopeName>>> {
    let object = format!("{RUNS}/{run}/keys");
    let opened = runs.open_dir(run.to_string().as_bytes()).and_then(|run| run.open_dir(b"keys"));
    let keys = match opened {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => {
            return Ok(None);
        }
        keys => keys.map_err(|e| Error::io("open", object.as_str(), e))?,
    };
    layout::parsed(&keys, &object).map(Some)
}

/// Whether the store has a run of that id: something signed about it, in whatever state. What is damaged is somebody
/// else's to name; what is empty is nothing.
pub(crate) fn has_run(root: &Arc<dyn Dir>, run: &RunId) -> Result<bool> {
    let runs = layout::open_dir(root, RUNS, RUNS)?;
    match read_descriptor(&runs, &run.to_string()) {
        Ok(note) => Ok(note.is_some_and(|note| !note.is_empty())),
        // What cannot be read is there.
        Err(_) => layout::exists(&runs, &run.to_string(), &format!("{RUNS}/{run}")),
    }
}

/// A run's run.json, whatever it is; `None`: it has none.
pub(crate) fn run_note(root: &Arc<dyn Dir>, run: &RunId) -> Result<Option<Vec<u8>>> {
    note_at(root, &run.to_string())
}

/// [`run_note`] of what has another name in `runs/`, since it is on its way.
pub(crate) fn note_at(root: &Arc<dyn Dir>, place: &str) -> Result<Option<Vec<u8>>> {
    let dir = layout::open_dir(root, RUNS, RUNS)?;
    // What is no file is `check`'s to name.
    Ok(read_descriptor(&dir, place).unwrap_or_default())
}

/// What is signed of a run, whatever it is.
pub(crate) struct OfRun {
    pub(crate) run: RunId,
    pub(crate) run_note: Option<Vec<u8>>,
    pub(crate) seal_note: Option<Vec<u8>>,
    /// The run that keeps this of one that it has replaced.
    pub(crate) kept_by: Option<RunId>,
}

/// Calls `visit` for each run, and for each that one of them has replaced and that is gone. What is no seal counts as
/// none.
pub(crate) fn each_signed(
    root: &Arc<dyn Dir>,
    runs: &[RunId],
    visit: &mut dyn FnMut(OfRun) -> Result<()>,
) -> Result<()> {
    for run in runs {
        let (run_note, seal_note) = (run_note(root, run)?, seal_note(root, run).unwrap_or_default());
        let kept = if says_it_replaces(&run_note) { kept_in(root, run) } else { None };
        visit(OfRun { run: *run, run_note, seal_note, kept_by: None })?;
        match kept {
            Some(kept) if !runs.contains(&kept.run) => visit(kept)?,
            _ => {}
        }
    }
    Ok(())
}

fn says_it_replaces(run_note: &Option<Vec<u8>>) -> bool {
    Signed::parse(run_note, RunDescriptor::parse_text).is_some_and(|run| run.said.replaces())
}

/// What a run keeps of the first of those that it has replaced.
fn kept_in(root: &Arc<dyn Dir>, run: &RunId) -> Option<OfRun> {
    let read = |name| in_seal(root, run, name).ok().flatten();
    let run_note = read(origin::RUN);
    let first = Signed::parse(&run_note, RunDescriptor::parse_text)?.said.run;
    Some(OfRun { run: first, run_note, seal_note: read(origin::NOTE), kept_by: Some(*run) })
}

/// The note of a run's seal, whatever it is; `None`: it has none.
pub(crate) fn seal_note(root: &Arc<dyn Dir>, run: &RunId) -> Result<Option<Vec<u8>>> {
    in_seal(root, run, "seal.note")
}

fn in_seal(root: &Arc<dyn Dir>, run: &RunId, name: &str) -> Result<Option<Vec<u8>>> {
    let runs = layout::open_dir(root, RUNS, RUNS)?;
    let object = format!("{RUNS}/{run}/seal/{name}");
    let open = |dir: &Arc<dyn Dir>, name: &str| match dir.open_dir(name.as_bytes()) {
        Ok(dir) => Ok(Some(dir)),
        // What is no directory holds no note of ours.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => Ok(None),
        Err(e) => Err(Error::io("open", object.clone(), e)),
    };
    let Some(dir) = open(&runs, &run.to_string())? else { return Ok(None) };
    let Some(seal) = open(&dir, "seal")? else { return Ok(None) };
    layout::read_if_there(&seal, name, &object, RUN_JSON_MAX)
}

/// Puts a signed note on a run that is gone, or never came to be, into `retired/`; durable.
pub(crate) fn put_retired(root: &Arc<dyn Dir>, run: &RunId, note: &[u8]) -> Result<()> {
    let fail = |e| Error::io("write", format!("{RETIRED}/{run}"), e);
    if !layout::exists(root, RETIRED, RETIRED)? {
        root.create_dir(RETIRED.as_bytes(), DIR_MODE).map_err(fail)?;
        root.sync().map_err(fail)?;
    }
    let retired = layout::open_dir(root, RETIRED, RETIRED)?;
    replace(&*retired, run.to_string().as_bytes(), note, PUBLIC_MODE).map_err(fail)
}

/// What a gateway made last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) run: Option<Head>,
    pub(crate) seal: Option<SealHead>,
}

impl Newest {
    /// With what an earlier mount has verified of a run.
    fn with_row(self, run: &RunId, row: &Row, gateway: &IdentityId) -> Self {
        let newer_run = (row.maker == *gateway && self.run.map_or(0, |run| run.seq) < row.seq)
            .then_some(Head { seq: row.seq, hash: row.run_note, run: *run });
        let newer_seal = (row.sealer == *gateway && self.seal.map_or(0, |seal| seal.n) < row.n)
            .then_some(SealHead { n: row.n, hash: row.seal, run: *run });
        Self { run: newer_run.or(self.run), seal: newer_seal.or(self.seal) }
    }

    /// With what a run's directory shows of this gateway, where that is newer and its signature holds. Notes that do not
    /// verify are somebody else's to name: `check` and `scrub` do.
    fn with(self, run: &RunId, gateway: &IdentityId, key: &VerifyingKey, notes: &Notes<'_>) -> Self {
        let newer_run = |known: Option<Head>| {
            let note = notes.run.as_ref()?;
            let seq = note.said.seq.filter(|seq| known.is_none_or(|known| *seq > known.seq))?;
            (note.said.signer == *gateway && note.said.run == *run).then_some(())?;
            let text = note.note.verify(gateway, key).ok()?;
            Some(Head { seq, hash: text_hash(&text), run: *run })
        };
        let newer_seal = |known: Option<SealHead>| {
            let note = notes.seal.as_ref().filter(|note| known.is_none_or(|known| note.said.n > known.n))?;
            (note.said.gateway == *gateway && note.said.run == *run).then_some(())?;
            let of = notes.run.as_ref()?;
            (note.said.run_note == text_hash(of.note.text)).then_some(())?;
            let text = note.note.verify(gateway, key).ok()?;
            Some(SealHead { n: note.said.n, hash: text_hash(&text), run: *run })
        };
        Self { run: newer_run(self.run).or(self.run), seal: newer_seal(self.seal).or(self.seal) }
    }
}

/// A note, and what it says before its signature was verified.
pub(crate) struct Signed<'a, T> {
    pub(crate) note: Note<'a>,
    pub(crate) said: T,
}

impl<'a, T> Signed<'a, T> {
    /// `None` where there is none, or it is no note of that kind.
    pub(crate) fn parse(
        bytes: &'a Option<Vec<u8>>,
        parse: fn(&str) -> runvault_format::Result<T>,
    ) -> Option<Self> {
        let note = Note::parse(bytes.as_deref()?).ok()?;
        let said = parse(note.text).ok()?;
        Some(Self { note, said })
    }
}

/// What is signed in a run's directory.
struct Notes<'a> {
    run: Option<Signed<'a, RunDescriptor>>,
    seal: Option<Signed<'a, SealNote>>,
}

/// What the store has as the newest of these gateways, each of which is looked for above what is `known` of it.
pub(crate) fn newest(
    root: &Arc<dyn Dir>,
    keys: &HashMap<IdentityId, VerifyingKey>,
    known: Newest,
) -> Result<HashMap<IdentityId, Newest>> {
    newest_among(root, &runs(root)?, keys, known)
}

/// [`newest`] of one, without a look at the runs of which `rows` are known.
pub(crate) fn newest_besides(
    root: &Arc<dyn Dir>,
    (gateway, key): (IdentityId, VerifyingKey),
    known: Newest,
    rows: &Rows,
) -> Result<Newest> {
    let (there, mut others) = (runs(root)?, Vec::new());
    let mut known = known;
    for run in there {
        match rows.get(&run) {
            Some(row) => known = known.with_row(&run, row, &gateway),
            None => others.push(run),
        }
    }
    let mut found = newest_among(root, &others, &HashMap::from([(gateway, key)]), known)?;
    Ok(found.remove(&gateway).unwrap_or(known))
}

fn newest_among(
    root: &Arc<dyn Dir>,
    runs: &[RunId],
    keys: &HashMap<IdentityId, VerifyingKey>,
    known: Newest,
) -> Result<HashMap<IdentityId, Newest>> {
    let mut newest: HashMap<IdentityId, Newest> = keys.keys().map(|id| (*id, known)).collect();
    each_signed(root, runs, &mut |found| {
        let notes = Notes {
            run: Signed::parse(&found.run_note, RunDescriptor::parse_text),
            seal: Signed::parse(&found.seal_note, SealNote::parse_text),
        };
        for (gateway, key) in keys {
            let of = newest.entry(*gateway).or_default();
            *of = of.with(&found.run, gateway, key, &notes);
        }
        Ok(())
    })?;
    Ok(newest)
}

fn read_descriptor(runs: &Arc<dyn Dir>, place: &str) -> Result<Option<Vec<u8>>> {
    let dir = match runs.open_dir(place.as_bytes()) {
        Ok(dir) => dir,
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(e) => return Err(Error::io("open", format!("{RUNS}/{place}"), e)),
    };
    layout::read_if_there(&dir, RUN_JSON, &format!("{RUNS}/{place}/{RUN_JSON}"), RUN_JSON_MAX)
}
