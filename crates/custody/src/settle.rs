//! What a gateway's start looks up in the store: is the pending run there, are there newer ones.

use std::collections::HashMap;
use std::sync::Arc;

use runvault_crypto::signature::VerifyingKey;
use runvault_format::descriptor::RunDescriptor;
use runvault_format::ids::{IdentityId, RunId};
use runvault_format::note::{Note, text_hash};
use runvault_format::retired::Retired;
use runvault_format::run_index::{Row, Rows};
use runvault_format::seal_note::SealNote;
use runvault_store::backend::Dir;
use runvault_store::replace::replace;

use crate::gateway::{Head, Pending, SealHead};
use crate::layout::{self, OBJECT_MAX, PUBLIC_MODE, RETIRED, RUNS};
use crate::{Error, Result};

const RUN_JSON: &str = "run.json";
/// A signed descriptor of a few hundred bytes; signature lines may come to it.
const RUN_JSON_MAX: usize = 64 << 10;

/// Whether the run that was being made is in the store with the very descriptor that was signed.
pub(crate) fn is_in_store(root: &Arc<dyn Dir>, pending: &Pending) -> Result<bool> {
    let runs = layout::open_dir(root, RUNS, RUNS)?;
    Ok(read_descriptor(&runs, &pending.head.run)?.is_some_and(|found| found == pending.note))
}

/// The runs of the store, by their names.
pub(crate) fn runs(root: &Arc<dyn Dir>) -> Result<Vec<RunId>> {
    let names = layout::names(&layout::open_dir(root, RUNS, RUNS)?, RUNS)?;
    Ok(names.iter().filter_map(|name| std::str::from_utf8(name).ok()?.parse().ok()).collect())
}

/// Whether the store has a run of that id, in whatever state: what is damaged is somebody else's to name.
pub(crate) fn has_run(root: &Arc<dyn Dir>, run: &RunId) -> Result<bool> {
    let runs = layout::open_dir(root, RUNS, RUNS)?;
    layout::exists(&runs, &run.to_string(), &format!("{RUNS}/{run}"))
}

/// A gateway's note that a run is gone, where its signature holds; `key` gives the gateway's.
pub(crate) fn retired_note(
    root: &Arc<dyn Dir>,
    run: &RunId,
    key: impl FnOnce(&IdentityId) -> Option<VerifyingKey>,
) -> Result<Option<Retired>> {
    if !layout::exists(root, RETIRED, RETIRED)? {
        return Ok(None);
    }
    let retired = layout::open_dir(root, RETIRED, RETIRED)?;
    let object = format!("{RETIRED}/{run}");
    // What is no note says nothing.
    let note = layout::read_if_there(&retired, &run.to_string(), &object, OBJECT_MAX).unwrap_or_default();
    Ok(note.and_then(|note| {
        let parsed = Note::parse(&note).ok()?;
        let said = Retired::parse_text(parsed.text).ok().filter(|said| said.run == *run)?;
        parsed.verify(&said.gateway, &key(&said.gateway)?).ok()?;
        Some(said)
    }))
}

/// A run's run.json, whatever it is; `None`: it has none.
pub(crate) fn run_note(root: &Arc<dyn Dir>, run: &RunId) -> Result<Option<Vec<u8>>> {
    let dir = layout::open_dir(root, RUNS, RUNS)?;
    // What is no file is `check`'s to name.
    Ok(read_descriptor(&dir, run).unwrap_or_default())
}

/// The note of a run's seal, whatever it is; `None`: it has none.
pub(crate) fn seal_note(root: &Arc<dyn Dir>, run: &RunId) -> Result<Option<Vec<u8>>> {
    let runs = layout::open_dir(root, RUNS, RUNS)?;
    let object = format!("{RUNS}/{run}/seal/seal.note");
    let open = |dir: &Arc<dyn Dir>, name: &str| match dir.open_dir(name.as_bytes()) {
        Ok(dir) => Ok(Some(dir)),
        // What is no directory holds no note of ours.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => Ok(None),
        Err(e) => Err(Error::io("open", object.clone(), e)),
    };
    let Some(dir) = open(&runs, &run.to_string())? else { return Ok(None) };
    let Some(seal) = open(&dir, "seal")? else { return Ok(None) };
    layout::read_if_there(&seal, "seal.note", &object, RUN_JSON_MAX)
}

/// Puts a signed note on a run that is gone, or never came to be, into `retired/`; durable.
pub(crate) fn put_retired(root: &Arc<dyn Dir>, run: &RunId, note: &[u8]) -> Result<()> {
    let object = format!("{RETIRED}/{run}");
    let retired = layout::open_dir(root, RETIRED, RETIRED)?;
    replace(&*retired, run.to_string().as_bytes(), note, PUBLIC_MODE)
        .map_err(|e| Error::io("write", object, e))
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

    /// With what a run's directory shows of this gateway, where that is newer, of a run up to number `most`, and its
    /// signature holds. Notes that do not verify are somebody else's to name: `check` and `scrub` do.
    fn with(
        self,
        run: &RunId,
        gateway: &IdentityId,
        key: &VerifyingKey,
        bounds: &Bounds<'_>,
        notes: &Notes<'_>,
    ) -> Self {
        let head = |note: &Signed<'_, RunDescriptor>| {
            let seq = note.said.seq.filter(|seq| *seq <= bounds.last_run)?;
            (note.said.signer == *gateway && note.said.run == *run).then_some(())?;
            let text = note.note.verify(gateway, key).ok()?;
            Some(Head { seq, hash: text_hash(&text), run: *run })
        };
        let newer_run = |known: Option<Head>| {
            let note = notes.run.as_ref()?;
            note.said.seq.filter(|seq| known.is_none_or(|known| *seq > known.seq))?;
            head(note)
        };
        let newer_seal = |known: Option<SealHead>| {
            let note = notes.seal.as_ref().filter(|note| known.is_none_or(|known| note.said.n > known.n))?;
            (note.said.gateway == *gateway && note.said.run == *run).then_some(())?;
            let counts = |run: &Signed<'_, RunDescriptor>| match run.said.signer == *gateway {
                true => head(run).is_some(),
                false => (bounds.took_over)(&run.note, &run.said),
            };
            let of = notes.run.as_ref().filter(|run| counts(run))?;
            (note.said.run_note == text_hash(of.note.text)).then_some(())?;
            let text = note.note.verify(gateway, key).ok()?;
            Some(SealHead { n: note.said.n, hash: text_hash(&text), run: *run })
        };
        Self { run: newer_run(self.run).or(self.run), seal: newer_seal(self.seal).or(self.seal) }
    }
}

/// What counts as a gateway's.
pub(crate) struct Bounds<'a> {
    /// Number of the last of its runs that may.
    pub(crate) last_run: u64,
    /// Whether a run of another gateway is genuine, and this one may have sealed it.
    pub(crate) took_over: &'a dyn Fn(&Note<'_>, &RunDescriptor) -> bool,
}

impl Bounds<'_> {
    /// Everything that it signed.
    pub(crate) const ALL: Bounds<'static> = Bounds { last_run: u64::MAX, took_over: &|_, _| true };
}

/// A note, and what it says before its signature was verified.
struct Signed<'a, T> {
    note: Note<'a>,
    said: T,
}

impl<'a, T> Signed<'a, T> {
    fn parse(bytes: &'a Option<Vec<u8>>, parse: fn(&str) -> runvault_format::Result<T>) -> Option<Self> {
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

/// What the store has as the newest of these gateways, within `bounds`, each of which is looked for above what is
/// `known` of it.
pub(crate) fn newest(
    root: &Arc<dyn Dir>,
    keys: &HashMap<IdentityId, VerifyingKey>,
    known: Newest,
    bounds: &Bounds<'_>,
) -> Result<HashMap<IdentityId, Newest>> {
    newest_among(root, &runs(root)?, keys, known, bounds)
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
    let mut found = newest_among(root, &others, &HashMap::from([(gateway, key)]), known, &Bounds::ALL)?;
    Ok(found.remove(&gateway).unwrap_or(known))
}

fn newest_among(
    root: &Arc<dyn Dir>,
    runs: &[RunId],
    keys: &HashMap<IdentityId, VerifyingKey>,
    known: Newest,
    bounds: &Bounds<'_>,
) -> Result<HashMap<IdentityId, Newest>> {
    let mut newest: HashMap<IdentityId, Newest> = keys.keys().map(|id| (*id, known)).collect();
    for run in runs {
        let (descriptor, seal) = (run_note(root, run)?, seal_note(root, run).unwrap_or_default());
        let notes = Notes {
            run: Signed::parse(&descriptor, RunDescriptor::parse_text),
            seal: Signed::parse(&seal, SealNote::parse_text),
        };
        for (gateway, key) in keys {
            let of = newest.entry(*gateway).or_default();
            *of = of.with(run, gateway, key, bounds, &notes);
        }
    }
    Ok(newest)
}

/// [`newest`] of one.
pub(crate) fn newest_of(
    root: &Arc<dyn Dir>,
    gateway: IdentityId,
    key: VerifyingKey,
    known: Newest,
    bounds: &Bounds<'_>,
) -> Result<Newest> {
    Ok(newest(root, &HashMap::from([(gateway, key)]), known, bounds)?.remove(&gateway).unwrap_or(known))
}

fn read_descriptor(runs: &Arc<dyn Dir>, run: &RunId) -> Result<Option<Vec<u8>>> {
    let dir = match runs.open_dir(run.to_string().as_bytes()) {
        Ok(dir) => dir,
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(e) => return Err(Error::io("open", format!("{RUNS}/{run}"), e)),
    };
    layout::read_if_there(&dir, RUN_JSON, &format!("{RUNS}/{run}/{RUN_JSON}"), RUN_JSON_MAX)
}
