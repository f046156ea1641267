//! One run: verified before anything of it is used, opened when something of it is asked for.

mod body;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runvault_crypto::aead::Engine;
use runvault_crypto::digest::ct_eq;
use runvault_format::continuations::Part;
use runvault_format::descriptor::{After, RunDescriptor, RunKind};
use runvault_format::ids::{Digest, IdentityId, RunId};
use runvault_format::keys::{RunKey, RunKeys};
use runvault_format::name;
use runvault_format::run_index::{Row, Shown};
use runvault_format::size::Geometry;
use runvault_store::backend::{Dir, Time};
use runvault_store::read_whole::read_whole;

pub(crate) use self::body::Body;
use crate::api::Ino;
use crate::authority::{Authority, Gateway, Resume};
use crate::file::RunContext;
use crate::held::Changed;
use crate::lease::Holding;
use crate::outcome::part_opened;
use crate::runs::VerifiedRun;
use crate::seal::{Origin, Seal};
use crate::sealed::RunSeal;
use crate::stamp::{Stamp, Stamps};
use crate::{Damage, Error, Posix, Result};
use crate::{runs, seal, sealed};

/// Directories whose clashes the log tells of.
const CLASHES_TOLD: usize = 64;

/// A run whose descriptor and key were verified.
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) kind: RunKind,
    /// When it was made, by its gateway's clock.
    pub(crate) opened: String,
    /// Counts the runs that this mount has met: its place in listings.
    serial: AtomicU32,
    /// The gateway that made it.
    maker: IdentityId,
    /// Its number in the chain of its maker.
    pub(crate) seq: Option<u64>,
    /// Text hash of its run.json.
    pub(crate) note: Digest,
    /// What it adds to, or replaces.
    pub(crate) after: Option<After>,
    /// The first of the runs that it replaces, and stands for.
    origin: Option<Arc<Origin>>,
    /// This gateway has its resume entry.
    pub(crate) held: bool,
    /// Nobody writes it any more.
    seal: Option<RunSeal>,
    geometry: Geometry,
    /// `None` once it was erased here: nodes may hold the run for as long as the kernel knows them. Also until something
    /// is asked of a sealed run that an earlier mount knew.
    key: Mutex<Option<RunKey>>,
    erased: AtomicBool,
    name: Mutex<RunName>,
    body: Mutex<Option<Arc<Body>>>,
    gone: AtomicBool,
    /// Directories of what it adds to of which was said that it has names of theirs.
    clashes_told: Mutex<HashSet<Ino>>,
    changed: Changed,
    /// What its directory's times were when it was looked at.
    stamps: Mutex<Stamps>,
}

/// A run's name, and the file that it was read from; `None` where this process wrote it.
pub(crate) struct RunName {
    /// Plaintext: components from the mount's root.
    text: Vec<u8>,
    file: Option<NameFile>,
}

/// Number and ctime of a `name`, which each rename replaces.
#[derive(Clone, Copy, PartialEq, Eq)]
struct NameFile(u64, Time);

/// What a directory of `runs/` turned out to be.
pub(crate) enum Loaded {
    Opens(Arc<Run>),
    /// Genuine, but nothing that this identity holds opens it; with what is signed of it where it is sealed.
    Closed(Option<Arc<Row>>),
}

impl Run {
    /// Verifies `runs/<id>` and opens its key: the resume entry's, else an envelope.
    ///
    /// # Errors
    /// What is wrong with it, as [`Damage::Run`] and others; the store's.
    pub(crate) fn load(
        store: &Arc<dyn Dir>,
        id: RunId,
        authority: &dyn Authority,
        gateway: Option<&dyn Gateway>,
        serial: u32,
    ) -> Result<Loaded> {
        let verified = runs::read_descriptor(store, &id, authority)?;
        let resume = gateway.and_then(|g| held_by(g, &id));
        let held = resume.is_some();
        let key = match resume {
            Some(resume) => resume.key,
            None => match runs::envelopes(store, &id, authority)?.open(&id, authority)? {
                Some(key) => key,
                None => {
                    return Ok(Loaded::Closed(gateway.and_then(|_| closed_row(store, &verified, authority))));
                }
            },
        };
        let (descriptor, note) = (&verified.descriptor, verified.text_hash()?);
        let object = || format!("runs/{id}");
        let keys = RunKeys::derive(&key, &id, Engine::fastest());
        if !ct_eq(&keys.commitment(), &descriptor.commitment.0) {
            return Err(Error::damaged(
                object(),
                Damage::Run("the key is not the one run.json names".into()),
            ));
        }
        let dir = runs::run_dir(store, &id)?;
        let Some(seal) = seal::find(store, &id, authority)? else {
            let name = RunName::read(&*dir, &id, &keys)?;
            return Ok(Loaded::Opens(Self::new((id, descriptor, note), serial, held, None, key, name)));
        };
        let tree = dir.open_dir(b"tree").map_err(|e| part_opened("open", format!("runs/{id}/tree"), e))?;
        let context = RunContext::reader(id, keys, descriptor.geometry, tree);
        let shown = sealed::shown(&seal, descriptor, &context)?;
        let name = RunName::new(&shown.name);
        let seal = RunSeal::new(descriptor, seal, shown);
        Ok(Loaded::Opens(Self::new((id, descriptor, note), serial, held, Some(seal), key, name)))
    }

    /// A sealed run that an earlier mount has opened: it is verified when something in it is asked for.
    pub(crate) fn known(id: RunId, row: &Row, shown: &Shown, serial: u32) -> Arc<Self> {
        Arc::new(Self {
            id,
            kind: RunKind::Run,
            opened: shown.opened.clone(),
            serial: AtomicU32::new(serial),
            maker: row.maker,
            note: row.run_note,
            seq: Some(row.seq).filter(|seq| *seq != 0),
            after: shown.after.clone(),
            origin: None,
            held: false,
            seal: Some(RunSeal::known(row, shown)),
            geometry: shown.geometry,
            key: Mutex::default(),
            erased: AtomicBool::new(false),
            name: Mutex::new(RunName::new(&shown.name)),
            body: Mutex::default(),
            gone: AtomicBool::new(false),
            clashes_told: Mutex::default(),
            changed: Changed::now(),
            stamps: Mutex::default(),
        })
    }

    /// The key and the seal of the same run, verified anew.
    ///
    /// # Errors
    /// [`Damage::Run`] where another run stands there than was known.
    pub(crate) fn verified_as(&self, found: &Self) -> Result<Seal> {
        let (ours, theirs) = (self.seal(), found.seal());
        let same = ours.zip(theirs).filter(|(ours, theirs)| self.kind == found.kind && ours.is_as(theirs));
        let seal = same.and_then(|(_, theirs)| theirs.take());
        let seal = seal.ok_or_else(|| {
            let what = "not as it was when this machine saw it last".to_owned();
            Error::damaged(format!("runs/{}", self.id), Damage::Run(what))
        })?;
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.key()?);
        Ok(seal)
    }

    pub(crate) fn new(
        (id, descriptor, note): (RunId, &RunDescriptor, Digest),
        serial: u32,
        held: bool,
        seal: Option<RunSeal>,
        key: RunKey,
        name: RunName,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            kind: descriptor.kind,
            opened: descriptor.opened.clone(),
            serial: AtomicU32::new(serial),
            maker: descriptor.signer,
            seq: descriptor.seq,
            note,
            after: descriptor.after.clone(),
            origin: seal.as_ref().and_then(RunSeal::origin),
            held,
            seal,
            geometry: descriptor.geometry,
            key: Mutex::new(Some(key)),
            erased: AtomicBool::new(false),
            name: Mutex::new(name),
            body: Mutex::default(),
            gone: AtomicBool::new(false),
            clashes_told: Mutex::default(),
            changed: Changed::now(),
            stamps: Mutex::default(),
        })
    }

    /// The gateway that made it; of a run that replaces others, the first of them.
    pub(crate) fn maker(&self) -> IdentityId {
        self.origin.as_ref().map_or(self.maker, |origin| origin.run.signer)
    }

    /// What runs that add to it, and what it adds to, are told by: a run that replaces others stands where the first of
    /// them stood.
    pub(crate) fn part(&self) -> Part<'_> {
        match &self.origin {
            None => Part {
                run: self.id,
                signer: self.maker,
                seq: self.seq,
                note: self.note,
                after: self.after.as_ref(),
                seal: self.seal().map(RunSeal::hash),
            },
            Some(origin) => Part {
                run: origin.run.run,
                signer: origin.run.signer,
                seq: origin.run.seq,
                note: origin.run_note,
                after: origin.run.after.as_ref(),
                seal: Some(origin.seal),
            },
        }
    }

    /// The runs whose place it takes.
    pub(crate) fn replaced(&self) -> &[RunId] {
        self.origin.as_ref().map_or(&[], |origin| &origin.replaced)
    }

    /// Counts the runs that this mount has met: its place in listings.
    pub(crate) fn serial(&self) -> u32 {
        self.serial.load(Ordering::Relaxed)
    }

    /// In listings it stands where that one stood.
    pub(crate) fn take_place_of(&self, other: &Self) {
        self.serial.store(other.serial(), Ordering::Relaxed);
    }

    /// Why a machine that would write it may not.
    pub(crate) fn not_held(&self) -> Error {
        Error::not_held(self.id, self.maker)
    }

    /// Why a machine that took it over may not end it.
    pub(crate) fn not_maker(&self) -> Error {
        Error::NotMaker { run: self.id.to_string(), maker: self.maker.to_string() }
    }

    /// When something of it was changed last.
    pub(crate) fn changed(&self) -> &Changed {
        &self.changed
    }

    /// The run's key, for another envelope.
    ///
    /// # Errors
    /// [`Posix::Stale`] once it was erased.
    pub(crate) fn key(&self) -> Result<RunKey> {
        let key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        key.clone().ok_or(Error::Posix(Posix::Stale))
    }

    /// Wipes the key, and forgets the name; whoever has a copy of it, or keys that follow from it, drops them.
    pub(crate) fn erase_key(&self) {
        self.erased.store(true, Ordering::SeqCst);
        self.key.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.set_name(b"");
    }

    /// Whether its key was erased here.
    pub(crate) fn is_erased(&self) -> bool {
        self.erased.load(Ordering::SeqCst)
    }

    /// Where it was sealed, or closed, since the kernel asked for it: by its path it finds what is there now.
    ///
    /// # Errors
    /// [`Posix::Stale`].
    pub(crate) fn check_there(&self) -> Result<()> {
        if self.is_erased() { Err(Posix::Stale.into()) } else { Ok(()) }
    }

    /// Whether it has a seal.
    pub(crate) fn is_sealed(&self) -> bool {
        self.seal.is_some()
    }

    /// Whether its seal, or its key, did not hold any more when it was asked for.
    pub(crate) fn is_refused(&self) -> bool {
        self.seal().is_some_and(RunSeal::is_refused)
    }

    pub(crate) fn seal(&self) -> Option<&RunSeal> {
        self.seal.as_ref()
    }

    /// Closes the body of a run that is written, if nobody uses it, and keeps its lease; nothing of it is opened again
    /// before [`Run::reopen`].
    ///
    /// # Errors
    /// As of [`Body::close_but_lease`].
    pub(crate) fn close_but_lease(&self) -> Result<Option<Arc<Holding>>> {
        self.gone.store(true, Ordering::SeqCst);
        let closed = self.close_if_unused(Body::close_but_lease).map(Option::flatten);
        if !matches!(closed, Ok(Some(_))) {
            self.reopen();
        }
        closed
    }

    /// Whether a clash in that directory is to be told: once each, of so many.
    pub(crate) fn first_clash(&self, dir: Ino) -> bool {
        let mut told = self.clashes_told.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < CLASHES_TOLD && told.insert(dir)
    }

    /// It is being sealed, or was removed.
    pub(crate) fn is_closed_for_good(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Its files may be asked for again.
    pub(crate) fn reopen(&self) {
        self.gone.store(false, Ordering::SeqCst);
    }

    /// What reads its files, and writes none.
    pub(crate) fn reader(&self, tree: &Arc<dyn Dir>) -> Result<Arc<RunContext>> {
        Ok(RunContext::reader(self.id, self.keys()?, self.geometry, tree.clone()))
    }

    pub(crate) fn keys(&self) -> Result<RunKeys> {
        Ok(RunKeys::derive(&self.key()?, &self.id, Engine::fastest()))
    }

    /// See [`runs::lacks_envelope`].
    pub(crate) fn lacks_envelope(&self, store: &Arc<dyn Dir>, authority: &dyn Authority) -> bool {
        self.key().is_ok_and(|key| runs::lacks_envelope(store, &self.id, &key, authority))
    }

    pub(crate) fn name(&self) -> Vec<u8> {
        self.known_name().text.clone()
    }

    pub(crate) fn set_name(&self, name: &[u8]) {
        *self.known_name() = RunName::new(name);
    }

    fn known_name(&self) -> MutexGuard<'_, RunName> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another machine may give it another name, or seal it.
    pub(crate) fn is_elsewhere(&self) -> bool {
        if self.is_sealed() {
            return false;
        }
        !self.held || self.body.try_lock().is_ok_and(|body| body.as_ref().is_some_and(|body| body.is_lost()))
    }

    /// Whether something in its directory, such as its name or a seal, may be other than at the last looks.
    pub(crate) fn differs(&self, stamp: Stamp) -> bool {
        self.stamps.lock().unwrap_or_else(PoisonError::into_inner).differs(stamp)
    }

    /// At the next look its directory is looked into.
    pub(crate) fn look_again(&self) {
        *self.stamps.lock().unwrap_or_else(PoisonError::into_inner) = Stamps::default();
    }

    /// Reads its name again if it was replaced; whether it is another one now.
    pub(crate) fn look_at_name(&self, store: &Arc<dyn Dir>) -> Result<bool> {
        let dir = runs::run_dir(store, &self.id)?;
        let seen = self.known_name().file;
        if seen.is_some() && seen == Some(NameFile::of(&*dir, &self.id)?) {
            return Ok(false);
        }
        let name = RunName::read(&*dir, &self.id, &self.keys()?)?;
        let before = std::mem::replace(&mut *self.known_name(), name);
        Ok(before.text != self.known_name().text)
    }

    /// Its body, where something of it was asked for.
    pub(crate) fn opened_body(&self) -> Option<Arc<Body>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It has a body, or is getting one.
    pub(crate) fn is_opened(&self) -> bool {
        self.body.try_lock().map_or(true, |body| body.is_some())
    }

    /// Closes the body if nobody uses it; it is opened again when asked for. Whoever asks meanwhile waits.
    pub(crate) fn close_body_if_unused(&self) -> bool {
        match self.close_if_unused(Body::close) {
            Ok(closed) => closed.is_some(),
            Err(error) => {
                log::warn!("run {} stays open: {error}", self.id);
                false
            }
        }
    }

    fn close_if_unused<T>(&self, close: impl FnOnce(&Body) -> Result<T>) -> Result<Option<T>> {
        let Ok(mut body) = self.body.try_lock() else { return Ok(None) };
        let Some(unused) = body.as_ref().filter(|body| Arc::strong_count(body) == 1) else { return Ok(None) };
        let closed = close(unused)?;
        *body = None;
        Ok(Some(closed))
    }

    /// It was removed: nothing of it is opened again.
    pub(crate) fn mark_gone(&self) {
        self.gone.store(true, Ordering::SeqCst);
        self.body.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(crate) fn is_loose(&self) -> bool {
        self.kind == RunKind::Loose
    }
}

/// What is signed of a run that does not open here. Where its seal does not hold there is none: nobody here reads it,
/// and it is looked at again.
fn closed_row(store: &Arc<dyn Dir>, run: &VerifiedRun, authority: &dyn Authority) -> Option<Arc<Row>> {
    let descriptor = &run.descriptor;
    // Who may be given an envelope looks for it again.
    if descriptor.kind != RunKind::Run || !authority.envelope_names().is_empty() {
        return None;
    }
    let seal = seal::find(store, &descriptor.run, authority).ok()??;
    Some(Arc::new(seal.row(descriptor)))
}

/// The gateway's entry of a run. One that is lost counts as none: an envelope still opens the run for
/// reading, and `takeover` makes a new entry.
fn held_by(gateway: &dyn Gateway, run: &RunId) -> Option<Resume> {
    gateway.resume(run).unwrap_or_else(|error| {
        log::warn!("run {run}: not held here, since its entry in the state folder does not open: {error}");
        None
    })
}

impl RunName {
    pub(crate) fn new(text: &[u8]) -> Self {
        Self { text: text.to_vec(), file: None }
    }

    /// The file first: one that replaces it meanwhile is seen at the next look.
    fn read(dir: &dyn Dir, id: &RunId, keys: &RunKeys) -> Result<Self> {
        let file = Some(NameFile::of(dir, id)?);
        Ok(Self { text: read_name(dir, id, keys)?, file })
    }
}

impl NameFile {
    fn of(dir: &dyn Dir, id: &RunId) -> Result<Self> {
        let found = dir.stat(b"name").map_err(|e| part_opened("stat", format!("runs/{id}/name"), e))?;
        Ok(Self(found.ino, found.ctime))
    }
}

pub(crate) fn read_name(dir: &dyn Dir, id: &RunId, keys: &RunKeys) -> Result<Vec<u8>> {
    let object = || format!("runs/{id}/name");
    let stored =
        read_whole(dir, b"name", name::PATH_MAX + 64).map_err(|e| part_opened("read", object(), e))?;
    name::decrypt_run_name(keys.name_key(), id, &stored).map_err(|_| Error::damaged(object(), Damage::Name))
}
