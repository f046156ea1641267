//! A vault that is open: the calls that a mount, or a program without one, makes.

mod status;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use runvault_crypto::registers;
use runvault_format::ids::RunId;
use runvault_store::backend::{Dir, Space, Stat};

pub use self::status::{RunStatus, Status};
use crate::api::Ino;
use crate::authority::{Authority, Gateway};
use crate::buffers;
use crate::directory::OpenDirs;
use crate::durable::Unsynced;
use crate::files::Files;
use crate::follow::Followed;
use crate::handles::Handles;
use crate::lease::Holding;
use crate::locks::NameLocks;
use crate::nodes::Nodes;
use crate::opening::{Kept, Opening};
use crate::run::{Body, Run};
use crate::run_table::RunTable;
use crate::scans::Scans;
use crate::seal::{UnderWay, has_seal};
use crate::sealed::{RunSeal, SealedRuns};
use crate::stamp::{Stamp, Stamps};
use crate::{Error, Posix, Result, runs, sys};

/// How often `runs/` is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How often directories are looked into although their times say that nothing changed: some stores do not keep them, or
/// tell them late.
const LOOK_ANYWAY: Duration = Duration::from_secs(10);
/// How often what could not be opened is tried again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// How a vault is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Depth at which a directory is a run: 1 for `<run>/`, 2 for `<instrument>/<run>/`.
    pub run_depth: u32,
    /// Owner, group and the mode bits that are kept, for everything that is shown (readers' mounts;
    /// the store's own are not trusted there). `None`: the store's.
    pub owner: Option<(u32, u32, u32)>,
    /// How long changed bytes of durable chunks and a partial tail may wait in memory.
    pub delay: Duration,
    /// Bytes of each of a run's two journal files.
    pub journal_bytes: u64,
    /// Shows what a seal proves and nothing else: runs that are open are left out until they are sealed, and so is what
    /// lies outside runs.
    pub sealed_only: bool,
    /// Answers before all runs are opened, and keeps what is found out about sealed ones for later mounts
    /// ([`Authority::known_runs`]).
    pub in_background: bool,
    /// Renews leases by a thread of its own ([`Vault::renew_leases`]).
    pub keeps_leases: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            run_depth: 1,
            owner: None,
            delay: Duration::from_secs(1),
            journal_bytes: 8 << 20,
            sealed_only: false,
            in_background: false,
            keeps_leases: false,
        }
    }
}

/// Runs that are kept open although nobody uses them: each has a few descriptors, and there may be twice as many for a
/// moment.
fn bodies_max() -> usize {
    sys::kept_open(128, 32)
}
/// Sealed runs that are kept open so.
fn seals_max() -> usize {
    sys::kept_open(256, 32)
}
/// How often leases are looked after.
const LEASES: Duration = Duration::from_millis(250);
/// How long one tick closes runs: each may take a sync of the store.
const CLOSING: Duration = Duration::from_millis(200);
/// Figures that only grow.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) files_written: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) bytes_read: AtomicU64,
}

/// When `runs/` was looked at last.
struct Looked {
    at: Instant,
    at_all: Instant,
    at_anyway: Instant,
    stamp: Stamps,
}

/// An open vault: POSIX calls on plaintext names, ciphertext in the store.
///
/// Read-write exactly when a [`Gateway`] is given. All calls may come from many threads.
///
/// The calls are in files of their own: `lookup`, `listing`, `create`, `remove`, `rename`,
/// `attributes`, `xattr`, `handles`.
pub struct Vault {
    pub(crate) root: Arc<dyn Dir>,
    pub(crate) runs_dir: Arc<dyn Dir>,
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) gateway: Option<Arc<dyn Gateway>>,
    pub(crate) options: Options,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) dirs: OpenDirs,
    pub(crate) files: Files,
    pub(crate) handles: Handles,
    pub(crate) locks: NameLocks,
    pub(crate) unsynced: Unsynced,
    pub(crate) counters: Counters,
    pub(crate) runs: RwLock<Arc<RunTable>>,
    /// Held while the table of runs is replaced.
    pub(crate) scanning: Mutex<Scans>,
    pub(crate) opening: Opening,
    /// Held while what is known of sealed runs is kept.
    pub(crate) kept: Mutex<Kept>,
    /// Bodies when they were last counted, and those opened since. Those of runs that are made here wait for the next
    /// tick's count: closing some would be paid by whoever makes a run.
    bodies_open: AtomicUsize,
    /// Held while the loose run is made.
    pub(crate) making: Mutex<()>,
    /// Held while something goes from one directory to another.
    pub(crate) moves: Mutex<()>,
    pub(crate) serials: AtomicU32,
    pub(crate) sealed: SealedRuns,
    looked: Mutex<Looked>,
    /// Those that are held, whoever waits for what.
    leases: Mutex<Vec<Weak<Holding>>>,
    foreign: Mutex<HashMap<Ino, HashSet<u64>>>,
    synced: Mutex<Option<Instant>>,
    /// Nodes of runs whose keys were erased here, which nobody has been told of.
    sealed_away: Mutex<Vec<Ino>>,
    /// First nodes of sealed runs that were closed to this identity, and how many they have, of which nobody has been told.
    closed_away: Mutex<Vec<(Ino, u32)>>,
    pub(crate) revoked_told: AtomicBool,
    pub(crate) sealing: UnderWay,
    closed: AtomicBool,
}

impl Vault {
    /// Opens the store's runs, recovers those that this gateway holds (journals), makes or adopts
    /// nothing else. `root` is the store's root directory.
    ///
    /// # Errors
    /// The store's, for `runs/`. A single run's trouble is in [`Vault::status`].
    pub fn open(
        root: Arc<dyn Dir>,
        authority: Arc<dyn Authority>,
        gateway: Option<Arc<dyn Gateway>>,
        options: Options,
    ) -> Result<Arc<Vault>> {
        let runs_dir = runs::runs_of_vault(&root)?;
        let (now, followed) = (Instant::now(), Followed::from(authority.standing()));
        let vault = Arc::new(Vault {
            root,
            runs_dir,
            authority,
            gateway,
            options,
            nodes: Arc::default(),
            dirs: OpenDirs::default(),
            files: Files::default(),
            handles: Handles::default(),
            locks: NameLocks::default(),
            unsynced: Unsynced::default(),
            counters: Counters::default(),
            runs: RwLock::default(),
            scanning: Mutex::new(Scans::new(followed)),
            opening: Opening::default(),
            kept: Mutex::default(),
            bodies_open: AtomicUsize::new(0),
            making: Mutex::default(),
            moves: Mutex::default(),
            serials: AtomicU32::new(0),
            sealed: SealedRuns::default(),
            looked: Mutex::new(Looked { at: now, at_all: now, at_anyway: now, stamp: Stamps::default() }),
            leases: Mutex::default(),
            foreign: Mutex::default(),
            synced: Mutex::default(),
            sealed_away: Mutex::default(),
            closed_away: Mutex::default(),
            revoked_told: AtomicBool::new(false),
            sealing: UnderWay::default(),
            closed: AtomicBool::new(false),
        });
        if options.keeps_leases && vault.gateway.is_some() {
            Self::keep_leases(&vault)?;
        }
        let rest = vault.begin_opening()?;
        if options.in_background {
            let opener = vault.clone();
            let thread = std::thread::Builder::new().name("open-runs".into());
            thread.spawn(move || opener.open_rest(&rest)).map_err(|e| Error::store("open", "runs", e))?;
        } else {
            vault.open_rest(&rest);
        }
        Ok(vault)
    }

    /// What an earlier session left unfinished, and a run that none of its envelopes opens, comes in order
    /// before anything is served.
    pub(crate) fn recover_held(&self) {
        let lacks = |run: &Run| run.lacks_envelope(&self.root, &*self.authority);
        for run in self.table().runs().filter(|run| run.held && (self.has_journal(run) || lacks(run))) {
            if let Err(error) = self.body(run) {
                log::error!("run {} could not be recovered: {error}", run.id);
            }
        }
    }

    /// Renews leases, and looks whether they are still there. With [`Options::keeps_leases`] a thread does that, since every
    /// other call may wait for the store for as long as a takeover takes; else it is called every 250 ms.
    pub fn renew_leases(&self) {
        let mut all = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|lease| lease.strong_count() > 0);
        let held: Vec<_> = all.iter().filter_map(Weak::upgrade).collect();
        drop(all);
        for lease in held {
            // The next look tries again; who writes asks first, and a tick tells.
            let _ = lease.renew_if_due();
        }
    }

    /// Until the vault is gone: runs are recovered before it is open, and made durable after it was closed.
    fn keep_leases(vault: &Arc<Vault>) -> Result<()> {
        let vault = Arc::downgrade(vault);
        let keep = move || {
            while let Some(vault) = vault.upgrade() {
                vault.renew_leases();
                drop(vault);
                std::thread::sleep(LEASES);
            }
        };
        let spawned = std::thread::Builder::new().name("lease".into()).spawn(keep);
        spawned.map(drop).map_err(|e| Error::store("renew the leases of", "runs", e))
    }

    /// Takes an open run's lease, which is renewed from now on. What this machine knew of the run before counts for nothing:
    /// another may have had it meanwhile.
    ///
    /// # Errors
    /// [`Error::Held`], [`Error::Sealed`]; the store's.
    pub(crate) fn take_lease(
        &self,
        run: RunId,
        dir: &Arc<dyn Dir>,
        gateway: &dyn Gateway,
    ) -> Result<Arc<Holding>> {
        let taken = Arc::new(Holding::take(run, dir.clone(), &gateway.id())?);
        match has_seal(&self.root, &run) {
            Ok(false) => {}
            sealed => {
                let _ = taken.give_up();
                return Err(sealed.err().unwrap_or(Error::Sealed { run: run.to_string() }));
            }
        }
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&taken));
        Ok(taken)
    }

    /// Looks for runs that came since, lets waiting bytes out. Called by one thread every 250 ms while the vault is open.
    ///
    /// # Errors
    /// The first failure; all the rest was tried.
    pub fn tick(&self) -> Result<()> {
        self.check_open()?;
        let stamp = Stamp::of(&self.stat_runs()?);
        let mut first = Ok(());
        for (_, body) in self.bodies() {
            let ticked = body.check_renewed().and_then(|()| body.context.tick());
            body.tell(&ticked);
            first = first.and(ticked);
        }
        self.sweep_files();
        self.close_idle_bodies();
        registers::wipe();
        self.keep_runs(false);
        first.and(self.trim_unsynced()).and(self.look_for_runs(stamp))
    }

    /// Not while a run is being made: its store may hang, and leases are still to be renewed.
    fn look_for_runs(&self, stamp: Stamp) -> Result<()> {
        let Some(mut scans) = self.try_hold_scans() else { return Ok(()) };
        let Some((anyway, all)) = self.is_look_due() else { return Ok(()) };
        let all = self.follow_custody(&mut scans) || all;
        if !self.opening.is_whole() {
            return Ok(());
        }
        let differs = self.looked.lock().unwrap_or_else(PoisonError::into_inner).stamp.differs(stamp);
        let found_anew = self.look_at_others(&mut scans, anyway) | self.look_at_seals(&mut scans, anyway);
        let listed = match differs || anyway || all || found_anew || scans.is_renamed() {
            true => self.list_runs(&mut scans, all),
            false => Ok(()),
        };
        drop(scans);
        self.reopen_superseded();
        listed
    }

    /// Whether directories are looked into whatever their times, and whether what could not be opened is tried again;
    /// `None`: no look is due.
    fn is_look_due(&self) -> Option<(bool, bool)> {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.at.elapsed() < LOOK {
            return None;
        }
        looked.at = Instant::now();
        let all = looked.at_all.elapsed() >= LOOK_AGAIN;
        if all {
            looked.at_all = looked.at;
        }
        let anyway = all || looked.at_anyway.elapsed() >= LOOK_ANYWAY;
        if anyway {
            looked.at_anyway = looked.at;
        }
        Some((anyway, all))
    }

    /// Runs something of which was asked for.
    pub(crate) fn bodies(&self) -> Vec<(Arc<Run>, Arc<Body>)> {
        let table = self.table();
        table.runs().filter_map(|run| Some((run.clone(), run.opened_body()?))).collect()
    }

    /// Descriptors and leases stay bounded, however many runs are made or looked into.
    fn close_idle_bodies(&self) {
        self.close_excess_bodies();
        self.close_excess_seals();
        for (run, body) in self.bodies() {
            if body.may_be_writable_now() {
                drop(body);
                self.close_unused_body(&run);
            }
        }
    }

    /// Of the sealed runs that are open those that were met first.
    fn close_excess_seals(&self) {
        let table = self.table();
        let mut open: Vec<&Arc<Run>> =
            table.runs().filter(|run| run.seal().is_some_and(RunSeal::is_opened)).collect();
        open.sort_unstable_by_key(|run| run.serial());
        let excess = open.len().saturating_sub(seals_max());
        open.iter().take(excess).filter_map(|run| run.seal()).for_each(RunSeal::close_if_unused);
    }

    /// Not while a file is open: a writer's context beside it would have bytes that it lacks.
    pub(crate) fn close_unused_body(&self, run: &Arc<Run>) {
        self.dirs.drop_run(run);
        run.close_body_if_unused();
    }

    /// Before one more is opened: a burst of them does not wait for the next tick.
    pub(crate) fn room_for_a_body(&self) {
        if self.bodies_open.fetch_add(1, Ordering::Relaxed) >= 2 * bodies_max() {
            self.close_excess_bodies();
        }
    }

    /// Waits for no lock: its caller may hold some.
    fn close_excess_bodies(&self) {
        let Ok(table) = self.runs.try_read() else { return };
        let mut open: Vec<Arc<Run>> = table.runs().filter(|run| run.is_opened()).cloned().collect();
        drop(table);
        open.sort_unstable_by_key(|run| run.serial());
        let (begin, excess) = (Instant::now(), open.len().saturating_sub(bodies_max()));
        let closing = open.iter().take(excess).take_while(|_| begin.elapsed() < CLOSING);
        let closed = closing.filter(|run| run.close_body_if_unused()).count();
        self.bodies_open.store(open.len() - closed, Ordering::Relaxed);
    }

    /// Everything durable, journals removed, leases given up. Later calls fail with `Closed`.
    ///
    /// # Errors
    /// The first failure; that run's journal and lease then stay, for recovery.
    pub fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.opening.wake();
        self.keep_runs(true);
        let mut first = Ok(());
        if self.gateway.is_some() {
            for (file, body) in self.files.all() {
                // What its run cannot bring in order either keeps that run's journal and lease.
                if let Err(error) = body.check_lease().and_then(|()| file.flush()) {
                    first = first.and(Err(error));
                }
            }
        }
        for (run, body) in self.bodies() {
            if let Err(error) = body.close() {
                log::error!("run {} was not closed cleanly: {error}", run.id);
                first = first.and(Err(error));
            }
        }
        // What requests left in them is nobody's any more.
        buffers::empty_all();
        registers::wipe();
        if self.read_only() { first } else { self.check_store().and(first) }
    }

    /// Whether the vault was opened without a [`Gateway`].
    pub fn read_only(&self) -> bool {
        self.gateway.is_none()
    }

    /// The store's space.
    ///
    /// # Errors
    /// The store's.
    pub fn statfs(&self) -> Result<Space> {
        self.check_open()?;
        self.root.space().map_err(|e| Error::store("statfs", "the store", e))
    }

    /// Whether the store is on a disk of this machine, so that its errors come with the write.
    pub fn store_is_local(&self) -> bool {
        self.root.is_local()
    }

    /// Whether [`Vault::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Whether the store is still there: what is deleted takes writes and syncs as ever, by its descriptors.
    ///
    /// # Errors
    /// [`Error::Deleted`].
    pub(crate) fn check_store(&self) -> Result<()> {
        self.stat_runs().map(drop)
    }

    /// `runs/`, where the store says.
    fn stat_runs(&self) -> Result<Option<Stat>> {
        match self.runs_dir.stat_self() {
            Ok(stat) if stat.nlink > 0 => Ok(Some(stat)),
            Err(e) if !matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => Ok(None),
            _ => Err(Error::Deleted),
        }
    }

    /// An error as an application should be told it: in a deleted store every name is missing, and that is
    /// nothing about the name.
    #[must_use]
    pub fn explained(&self, error: Error) -> Error {
        let missing = match &error {
            Error::Posix(posix) => matches!(posix, Posix::NotFound | Posix::Stale),
            Error::Store { source, .. } => matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)),
            _ => false,
        };
        if missing { self.check_store().err().unwrap_or(error) } else { error }
    }

    /// Nodes of runs whose keys were erased here.
    pub(crate) fn sealed_away(&self) -> MutexGuard<'_, Vec<Ino>> {
        self.sealed_away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nodes of sealed runs that this identity may not read any more.
    pub(crate) fn closed_away(&self) -> MutexGuard<'_, Vec<(Ino, u32)>> {
        self.closed_away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn synced_now(&self) {
        *self.synced.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}
