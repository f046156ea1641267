//! A sealed run as it is read: names and attributes come from its manifest, holes and the version of each chunk
//! from its pins. So what someone put back to an earlier state, took away or added is an error, or not
//! seen, at the read itself.

mod calls;
mod file;
mod replaced;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runvault_format::descriptor::RunDescriptor;
use runvault_format::ids::{Digest, DirId, RunId};
use runvault_format::manifest::{self, Header, Kind, Record};
use runvault_format::name;
use runvault_format::pins::Pinned;
use runvault_format::run_index::{Row, Shown};
use runvault_format::size::Geometry;
use runvault_store::backend::{self, Dir, Time};

pub(crate) use self::calls::SealedListing;
pub(crate) use self::file::SealedFile;
use crate::api::{Attr, Ino};
use crate::file::RunContext;
use crate::outcome::part_opened;
use crate::run::Run;
use crate::seal::{Origin, Pins, Reader, Seal};
use crate::{Damage, Error, Posix, Result, Vault, sys};

/// Set in the numbers of all nodes of sealed runs: no file system counts so far.
const SEALED: Ino = 1 << 62;
/// Bits of the number of an entry in its run.
const ENTRY_BITS: u32 = 32;
/// Runs that can be told apart.
const RUNS: u32 = (1 << 30) - 1;
/// Open directories of sealed runs that are kept, so that file descriptors stay bounded: by the tree, and the entry in it.
/// All go when there are [`dirs_max`].
static DIRS: Mutex<BTreeMap<(u64, u32), Arc<dyn Dir>>> = Mutex::new(BTreeMap::new());

fn dirs_max() -> usize {
    sys::kept_open(512, 8)
}

fn dirs() -> MutexGuard<'static, BTreeMap<(u64, u32), Arc<dyn Dir>>> {
    DIRS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a number is that of a node of a sealed run.
pub(crate) fn is_sealed(ino: Ino) -> bool {
    ino & SEALED != 0
}

/// Which sealed runs there are, by the number that their nodes begin with.
#[derive(Default)]
pub(crate) struct SealedRuns(Mutex<Numbers>);

#[derive(Default)]
struct Numbers {
    /// `None`: closed to this identity, and its number is nobody else's.
    runs: HashMap<u32, Option<Arc<Run>>>,
    /// One that replaces another has the number of that one.
    of: HashMap<RunId, u32>,
}

impl Numbers {
    /// By its id, or that of the first run that it replaces, so that it is the same in nearly every mount.
    fn of(&mut self, run: &Run) -> u32 {
        if let Some(number) = self.of.get(&run.id) {
            return *number;
        }
        let replaced = run.replaced();
        let known = replaced.iter().find_map(|old| self.of.get(old)).copied();
        let number = known.unwrap_or_else(|| {
            let [a, b, c, d, ..] = replaced.last().unwrap_or(&run.id).0;
            let mut number = u32::from_le_bytes([a, b, c, d]) & RUNS;
            while self.runs.contains_key(&number) {
                number = (number + 1) & RUNS;
            }
            number
        });
        self.of.insert(run.id, number);
        number
    }

    /// Whether the number may lead to the run: not back to one that was replaced.
    fn may_lead_to(&self, number: u32, run: &Run) -> bool {
        let now = self.runs.get(&number).and_then(Option::as_ref);
        !run.is_erased() && now.is_none_or(|now| now.id == run.id || run.replaced().contains(&now.id))
    }
}

impl SealedRuns {
    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing leads to the run any more; its first node.
    pub(crate) fn forget(&self, run: &Arc<Run>) -> Option<Ino> {
        let mut numbers = self.lock();
        let number = *numbers.of.get(&run.id)?;
        let known = numbers.runs.get_mut(&number)?;
        known.take_if(|known| Arc::ptr_eq(known, run)).map(|_| top(number))
    }

    /// The first node of a run. Those of the run that it replaces lead to it from now on.
    pub(crate) fn top_of(&self, run: &Arc<Run>) -> Ino {
        let mut numbers = self.lock();
        let number = numbers.of(run);
        let may_lead = numbers.may_lead_to(number, run);
        let before = if may_lead { numbers.runs.insert(number, Some(run.clone())).flatten() } else { None };
        drop(numbers);
        if let Some(before) = before.filter(|before| before.id != run.id) {
            before.seal().into_iter().for_each(RunSeal::supersede);
        }
        top(number)
    }

    /// The run of a node, and the number of its entry.
    fn of(&self, ino: Ino) -> Result<(Arc<Run>, u32)> {
        let number = (ino & !SEALED) >> ENTRY_BITS;
        let run =
            u32::try_from(number).ok().and_then(|number| self.lock().runs.get(&number).cloned().flatten());
        Ok((run.ok_or(Posix::Stale)?, ino as u32))
    }
}

fn top(number: u32) -> Ino {
    SEALED | (Ino::from(number) << ENTRY_BITS)
}

/// The manifest and the pins of a run.
pub(crate) struct SealedTree {
    top: Ino,
    /// Tells trees apart: a run that replaces another has the same top.
    serial: u64,
    context: Arc<RunContext>,
    manifest: Reader,
    header: Header,
    pins: Pins,
    /// Another run stands for this one.
    superseded: AtomicBool,
}

/// What the manifest says of the run's name and top directory; the seal must be its gateway's.
pub(crate) fn shown(seal: &Seal, run: &RunDescriptor, context: &Arc<RunContext>) -> Result<Shown> {
    let (reader, header) = seal.open_manifest(context)?;
    let mut name = vec![0; header.name.into()];
    reader.read(header.heap_offset(), &mut name)?;
    let mut bytes = [0; manifest::LEN];
    reader.read(Header::record_offset(0), &mut bytes)?;
    let top = Record::decode(&bytes).map_err(|e| reader.damaged(e))?;
    let skip = u64::from(top.name) + u64::from(top.target);
    let at = header.heap_offset().saturating_add(top.heap).saturating_add(skip);
    if at.saturating_add(top.xattrs.into()) > reader.size {
        return Err(reader.damaged(runvault_format::Error::Truncated));
    }
    let mut xattrs = vec![0; top.xattrs as usize];
    reader.read(at, &mut xattrs)?;
    Ok(Shown {
        geometry: run.geometry,
        opened: run.opened.clone(),
        name,
        top,
        xattrs,
        after: run.after.clone(),
    })
}

impl SealedTree {
    /// Opens what the seal names.
    ///
    /// # Errors
    /// Damage of the seal; the store's.
    pub(crate) fn open(seal: &Seal, context: Arc<RunContext>, top: Ino) -> Result<Self> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let (manifest, header) = seal.open_manifest(&context)?;
        let pins = seal.pins(&context, header.entries as usize)?;
        let (serial, superseded) = (SERIAL.fetch_add(1, Ordering::Relaxed), AtomicBool::new(false));
        Ok(Self { top, serial, context, manifest, header, pins, superseded })
    }

    fn ino(&self, i: u32) -> Ino {
        self.top | Ino::from(i)
    }

    /// What the manifest says of an entry.
    pub(crate) fn record(&self, i: u32) -> Result<Record> {
        if i >= self.header.entries {
            return Err(Posix::Stale.into());
        }
        let mut bytes = [0; manifest::LEN];
        self.manifest.read(Header::record_offset(i), &mut bytes)?;
        Record::decode(&bytes).map_err(|e| self.manifest.damaged(e))
    }

    /// A part of an entry's heap.
    fn heap(&self, record: &Record, skip: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let at = self.header.heap_offset().saturating_add(record.heap).saturating_add(skip);
        self.manifest.read(at, &mut bytes)?;
        Ok(bytes)
    }

    /// The text on the run, which follows its name.
    fn about(&self) -> Result<String> {
        let mut bytes = vec![0; self.header.about as usize];
        self.manifest.read(self.header.heap_offset().saturating_add(self.header.name.into()), &mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.manifest.damaged(runvault_format::Error::Manifest("about")))
    }

    fn name(&self, record: &Record) -> Result<Vec<u8>> {
        self.heap(record, 0, record.name.into())
    }

    fn target(&self, record: &Record) -> Result<Vec<u8>> {
        self.heap(record, record.name.into(), record.target.into())
    }

    /// Of the object, whatever its name.
    fn xattrs(&self, record: &Record) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let first = self.record(record.object)?;
        let skip = u64::from(first.name) + u64::from(first.target);
        let bytes = self.heap(&first, skip, first.xattrs as usize)?;
        manifest::decode_xattrs(&bytes).map_err(|e| self.manifest.damaged(e))
    }

    /// The entry of that name in a directory.
    fn child(&self, i: u32, text: &[u8]) -> Result<u32> {
        let record = self.record(i)?;
        if record.kind != Kind::Dir {
            return Err(Posix::NotDirectory.into());
        }
        let (mut from, mut to) = (record.first, record.first.saturating_add(record.children));
        while from < to {
            let middle = from + (to - from) / 2;
            match self.name(&self.record(middle)?)?.as_slice().cmp(text) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        Err(Posix::NotFound.into())
    }

    /// The stored directory of an entry.
    fn dir(&self, i: u32) -> Result<Arc<dyn Dir>> {
        if i == 0 {
            return Ok(self.context.tree.clone());
        }
        if let Some(dir) = dirs().get(&(self.serial, i)) {
            return Ok(dir.clone());
        }
        let mut dir = self.context.tree.clone();
        for (at, record) in &self.way(i)? {
            let stored = self.stored_name(record)?;
            dir = dir.open_dir(&stored).map_err(|e| self.not_there(*at, e))?;
            let mut dirs = dirs();
            let full = (dirs.len() >= dirs_max()).then(|| std::mem::take(&mut *dirs));
            dirs.insert((self.serial, *at), dir.clone());
            drop(dirs);
            // Closing them may take a store a while.
            drop(full);
        }
        Ok(dir)
    }

    /// The entries from below the top down to one; a path may be deeper than a stack.
    fn way(&self, i: u32) -> Result<Vec<(u32, Record)>> {
        let (mut way, mut at) = (Vec::new(), i);
        while at != 0 {
            let record = self.record(at)?;
            if record.parent >= at {
                return Err(self.manifest.damaged(runvault_format::Error::Manifest("parent")));
            }
            let parent = record.parent;
            way.push((at, record));
            at = parent;
        }
        way.reverse();
        Ok(way)
    }

    /// Names from the run's top to an entry.
    fn path(&self, i: u32) -> Result<Vec<Vec<u8>>> {
        self.way(i)?.iter().map(|(_, record)| self.name(record)).collect()
    }

    /// The name of an entry in the store.
    fn stored_name(&self, record: &Record) -> Result<Vec<u8>> {
        let parent = self.dir_id(record.parent)?;
        let stored = name::encrypt_name(self.context.keys.name_key(), &parent, &self.name(record)?);
        Ok(stored.map_err(|e| self.manifest.damaged(e))?.text)
    }

    fn dir_id(&self, i: u32) -> Result<DirId> {
        if i == 0 { Ok(DirId::ROOT) } else { Ok(self.pins.of(i)?.id) }
    }

    fn pinned(&self, record: &Record) -> Result<Pinned> {
        self.pins.of(record.object)
    }

    /// How messages name an entry: never by its plaintext name.
    fn object(&self, i: u32) -> String {
        let stored = self.record(i).and_then(|record| self.stored_name(&record));
        let shown = stored.map_or_else(|_| String::new(), |s| String::from_utf8_lossy(&s).into_owned());
        format!("runs/{}/tree/.../{shown}", self.context.id)
    }

    /// What was sealed is not there, or something else is.
    fn not_there(&self, i: u32, error: std::io::Error) -> Error {
        match error.raw_os_error() {
            Some(libc::ENOENT) => {
                Error::damaged(self.object(i), Damage::Run("it was sealed, and is missing".to_owned()))
            }
            _ => part_opened("open", self.object(i), error),
        }
    }

    fn attr(&self, vault: &Vault, i: u32) -> Result<Attr> {
        let record = self.record(i)?;
        Ok(attr_of(vault, &record, self.ino(record.object), self.context.geometry))
    }
}

impl Drop for SealedTree {
    fn drop(&mut self) {
        let mut dirs = dirs();
        let mut ours = dirs.split_off(&(self.serial, 0));
        dirs.append(&mut ours.split_off(&(self.serial + 1, 0)));
        drop(dirs);
    }
}

fn attr_of(vault: &Vault, record: &Record, ino: Ino, geometry: Geometry) -> Attr {
    let (uid, gid, mask) = vault.options.owner.unwrap_or((record.uid, record.gid, 0o7777));
    let time = Time { sec: record.mtime, nsec: record.mtime_ns };
    let block = geometry.chunk();
    Attr {
        ino,
        generation: 0,
        kind: kind_of(record.kind),
        mode: u32::from(record.mode) & mask & 0o7777,
        nlink: record.nlink,
        uid,
        gid,
        rdev: record.rdev,
        size: if record.kind == Kind::Dir { block } else { record.size },
        blocks: record.size.div_ceil(512),
        blksize: block as u32,
        atime: time,
        mtime: time,
        ctime: time,
        ours: true,
        open: false,
    }
}

/// Someone changed a sealed run: an event for whoever watches the log.
fn tell(error: &Error) {
    if matches!(error, Error::Damaged { .. }) {
        log::error!("a sealed run is not as it was sealed: {error}");
    }
}

fn kind_of(kind: Kind) -> backend::Kind {
    match kind {
        Kind::File => backend::Kind::File,
        Kind::Dir => backend::Kind::Dir,
        Kind::Symlink => backend::Kind::Symlink,
        Kind::Fifo => backend::Kind::Fifo,
        Kind::Socket => backend::Kind::Socket,
        Kind::CharDevice => backend::Kind::CharDevice,
        Kind::BlockDevice => backend::Kind::BlockDevice,
    }
}

/// The seal of a run, and what is shown before anything in the run is asked for.
pub(crate) struct RunSeal {
    signed: Row,
    shown: Shown,
    opened: Mutex<Opened>,
    /// Of its tree; 1 until something in it was asked for.
    entries: AtomicU32,
    /// It was not found as it was known, or no key opens it any more.
    refused: AtomicBool,
    origin: Option<Arc<Origin>>,
}

#[derive(Default)]
struct Opened {
    /// `None`: an earlier mount has verified it, this one has not.
    seal: Option<Seal>,
    tree: Option<Arc<SealedTree>>,
}

impl RunSeal {
    /// Of a seal that was verified.
    pub(crate) fn new(run: &RunDescriptor, seal: Seal, shown: Shown) -> Self {
        let (signed, origin) = (seal.row(run), seal.origin.clone().map(Arc::from));
        Self { origin, ..Self::of(signed, shown, Opened { seal: Some(seal), tree: None }) }
    }

    fn of(signed: Row, shown: Shown, opened: Opened) -> Self {
        let (opened, entries) = (Mutex::new(opened), AtomicU32::new(1));
        Self { signed, shown, opened, entries, refused: AtomicBool::new(false), origin: None }
    }

    /// How many nodes it may have been asked for.
    pub(crate) fn entries(&self) -> u32 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Of one that an earlier mount has verified.
    pub(crate) fn known(row: &Row, shown: &Shown) -> Self {
        let signed = Row { shown: None, ..row.clone() };
        Self::of(signed, shown.clone(), Opened::default())
    }

    /// What it stands for, where its run replaces another.
    pub(crate) fn origin(&self) -> Option<Arc<Origin>> {
        self.origin.clone()
    }

    /// Of its note's text.
    pub(crate) fn hash(&self) -> Digest {
        self.signed.seal
    }

    pub(crate) fn shown(&self) -> &Shown {
        &self.shown
    }

    /// For later mounts; `None` once it was refused, and where more than a row says is signed.
    pub(crate) fn row(&self) -> Option<Row> {
        let row = || Row { shown: Some(self.shown.clone()), ..self.signed.clone() };
        (!self.is_refused() && self.origin.is_none()).then(row)
    }

    /// Nothing of it is believed any more.
    pub(crate) fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether all that is known of both is the same.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        (&self.signed, &self.shown) == (&other.signed, &other.shown)
    }

    /// Of one that was verified and is used for nothing else.
    pub(crate) fn take(&self) -> Option<Seal> {
        self.opened().seal.take()
    }

    /// Whether it keeps something open.
    pub(crate) fn is_opened(&self) -> bool {
        self.opened.try_lock().map_or(true, |opened| opened.seal.is_some())
    }

    /// Lets go of what it keeps open, if nobody uses that: whoever asks next has the run verified anew.
    pub(crate) fn close_if_unused(&self) {
        let Ok(mut opened) = self.opened.try_lock() else { return };
        if opened.tree.as_ref().is_none_or(|tree| Arc::strong_count(tree) == 1) {
            *opened = Opened::default();
        }
    }

    /// Another run stands for it: its files are read from there, at once or when they are not there any more.
    fn supersede(&self) {
        if let Ok(opened) = self.opened.try_lock()
            && let Some(tree) = &opened.tree
        {
            tree.superseded.store(true, Ordering::Relaxed);
        }
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opened when something of the run is asked for; `verify` is called for one that an earlier mount has verified,
    /// and `context` after it.
    pub(crate) fn tree(
        &self,
        verify: impl FnOnce() -> Result<Seal>,
        context: impl FnOnce() -> Result<Arc<RunContext>>,
        top: Ino,
    ) -> Result<Arc<SealedTree>> {
        let mut opened = self.opened();
        if let Some(tree) = &opened.tree {
            return Ok(tree.clone());
        }
        let seal = match opened.seal.take() {
            Some(seal) => seal,
            None => verify().inspect_err(|error| {
                if matches!(error, Error::Damaged { .. } | Error::WrongKey(_)) {
                    self.refuse();
                }
            })?,
        };
        let seal = opened.seal.insert(seal);
        let tree = Arc::new(SealedTree::open(seal, context()?, top)?);
        self.entries.store(tree.header.entries, Ordering::Relaxed);
        opened.tree = Some(tree.clone());
        Ok(tree)
    }
}
