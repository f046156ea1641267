//! One run: verified before anything of it is used, opened when something of it is asked for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use runvault_crypto::aead::Engine;
use runvault_crypto::digest::ct_eq;
use runvault_crypto::random;
use runvault_format::descriptor::{RunDescriptor, RunKind};
use runvault_format::ids::{RunId, SessionId};
use runvault_format::keys::{RunKey, RunKeys};
use runvault_format::name;
use runvault_format::size::Geometry;
use runvault_store::backend::Dir;
use runvault_store::read_whole::read_whole;

use crate::api::Ino;
use crate::authority::{Authority, Gateway, Resume};
use crate::file::{Locate, RunContext};
use crate::lease::{self, Holding};
use crate::nodes::number;
use crate::outcome::{outcome, part_opened};
use crate::runs;
use crate::{Damage, Error, Posix, Result, Vault, recovery};

/// A run whose descriptor and key were verified.
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) kind: RunKind,
    /// When it was made, by its gateway's clock.
    pub(crate) opened: String,
    /// Counts the runs that this mount has met: its place in listings.
    pub(crate) serial: u32,
    /// This gateway has its resume entry.
    pub(crate) held: bool,
    geometry: Geometry,
    key: RunKey,
    /// Plaintext name: components from the mount's root.
    name: Mutex<Vec<u8>>,
    body: Mutex<Option<Arc<Body>>>,
    gone: AtomicBool,
}

/// What a run needs to be used: its directories and keys and, for its writer, lease and journal.
pub(crate) struct Body {
    /// `runs/<id>`.
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) tree: Arc<dyn Dir>,
    /// Node of `tree/`.
    pub(crate) top: Ino,
    pub(crate) context: Arc<RunContext>,
    holding: Option<Holding>,
    /// Who writes it, where this machine would but may not.
    holder: Option<String>,
    /// Why its store refused what a writer begins with: EROFS, ENOSPC or EDQUOT.
    refused: Option<i32>,
    /// When the lease was asked for in vain, where asking again may help.
    asked: Option<Instant>,
    /// Why this machine, which holds the run, only reads it.
    blocked: Option<String>,
    /// What files are opened with once the run may not be written any more.
    reading: OnceLock<Arc<RunContext>>,
    /// The trouble that the log has.
    told: Mutex<Option<String>>,
    run: RunId,
}

/// How long a store that took no lease, and a holder that was there, are believed.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Body {
    /// Whether this process may write now.
    ///
    /// # Errors
    /// [`Error::Held`], [`Posix::ReadOnly`]; the store's, when the lease could not be renewed in time.
    pub(crate) fn check_writer(&self) -> Result<()> {
        match (&self.holding, &self.holder) {
            (Some(holding), _) => holding.check(),
            (None, Some(holder)) => Err(Error::Held { run: self.run.to_string(), holder: holder.clone() }),
            (None, None) => Err(self.why_read_only()),
        }
    }

    fn why_read_only(&self) -> Error {
        match self.refused.filter(|errno| *errno != libc::EROFS) {
            Some(errno) => {
                let full = std::io::Error::from_raw_os_error(errno);
                outcome("write", format!("runs/{}/lease", self.run), full)
            }
            None => Posix::ReadOnly.into(),
        }
    }

    /// Its store took no lease a while ago, or another held it; neither need be so any more.
    pub(crate) fn may_be_writable_now(&self) -> bool {
        self.asked.is_some_and(|at| at.elapsed() >= ASK_AGAIN)
    }

    pub(crate) fn holder(&self) -> Option<&str> {
        self.holder.as_deref().or_else(|| self.holding.as_ref()?.lost_to())
    }

    /// Whether nobody else changes the run.
    pub(crate) fn is_ours(&self) -> bool {
        self.holding.as_ref().is_some_and(|holding| holding.lost_to().is_none())
    }

    /// Whether another machine has taken the run over from this process.
    pub(crate) fn is_lost(&self) -> bool {
        self.holding.is_some() && !self.is_ours()
    }

    /// What a file is opened with: a writer may cut it or write its header, which only the lease allows.
    pub(crate) fn context_to_open(&self, run: &Run) -> &Arc<RunContext> {
        if self.check_lease().is_ok() {
            &self.context
        } else {
            self.reading.get_or_init(|| run.reader(&self.tree))
        }
    }

    /// Logs trouble once, however often it is met.
    pub(crate) fn tell(&self, outcome: &Result<()>) {
        let words = outcome.as_ref().err().map(ToString::to_string);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(words) = words.as_ref().filter(|_| *told != words) {
            log::warn!("run {}: {words}", self.run);
        }
        *told = words;
    }

    pub(crate) fn blocked(&self) -> Option<&str> {
        self.blocked.as_deref()
    }

    pub(crate) fn renew_lease(&self) -> Result<()> {
        self.holding.as_ref().map_or(Ok(()), Holding::renew_if_due)
    }

    /// Whether the run has any entry, whoever made it.
    pub(crate) fn tree_holds_something(&self) -> Result<bool> {
        let mut something = false;
        let object = || format!("runs/{}/tree", self.run);
        self.tree
            .entries(0, &mut |_| {
                something = true;
                false
            })
            .map_err(|e| outcome("list", object(), e))?;
        Ok(something)
    }

    /// Whether what waits here may still go into the store; always for a run that is only read.
    ///
    /// # Errors
    /// [`Error::Held`]; the store's, when the lease could not be renewed in time.
    pub(crate) fn check_lease(&self) -> Result<()> {
        self.holding.as_ref().map_or(Ok(()), Holding::check)
    }

    /// Everything durable, the journal gone, the lease given up.
    pub(crate) fn close(&self) -> Result<()> {
        self.check_lease()?;
        self.context.close()?;
        let Some(holding) = &self.holding else { return Ok(()) };
        holding.give_up().map_err(|e| outcome("give up", format!("runs/{}/lease", self.run), e))
    }
}

/// What a directory of `runs/` turned out to be.
pub(crate) enum Loaded {
    Opens(Arc<Run>),
    /// Genuine, but nothing that this identity holds opens it.
    Closed,
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
                None => return Ok(Loaded::Closed),
            },
        };
        let descriptor = &verified.descriptor;
        let object = || format!("runs/{id}");
        let keys = RunKeys::derive(&key, &id, Engine::fastest());
        if !ct_eq(&keys.commitment(), &descriptor.commitment.0) {
            return Err(Error::damaged(
                object(),
                Damage::Run("the key is not the one run.json names".into()),
            ));
        }
        let dir = runs::run_dir(store, &id)?;
        let name = read_name(&*dir, &id, &keys)?;
        Ok(Loaded::Opens(Self::new(id, descriptor, serial, held, key, name)))
    }

    pub(crate) fn new(
        id: RunId,
        descriptor: &RunDescriptor,
        serial: u32,
        held: bool,
        key: RunKey,
        name: Vec<u8>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            kind: descriptor.kind,
            opened: descriptor.opened.clone(),
            serial,
            held,
            geometry: descriptor.geometry,
            key,
            name: Mutex::new(name),
            body: Mutex::default(),
            gone: AtomicBool::new(false),
        })
    }

    /// What reads its files, and writes none.
    fn reader(&self, tree: &Arc<dyn Dir>) -> Arc<RunContext> {
        RunContext::reader(self.id, self.keys(), self.geometry, tree.clone())
    }

    pub(crate) fn keys(&self) -> RunKeys {
        RunKeys::derive(&self.key, &self.id, Engine::fastest())
    }

    pub(crate) fn name(&self) -> Vec<u8> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_name(&self, name: &[u8]) {
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = name.to_vec();
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
        let Ok(mut body) = self.body.try_lock() else { return false };
        let Some(unused) = body.as_ref().filter(|body| Arc::strong_count(body) == 1) else { return false };
        match unused.close() {
            Ok(()) => body.take().is_some(),
            Err(error) => {
                log::warn!("run {} stays open: {error}", self.id);
                false
            }
        }
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

/// The gateway's entry of a run. One that is lost counts as none: an envelope still opens the run for
/// reading, and `takeover` makes a new entry.
fn held_by(gateway: &dyn Gateway, run: &RunId) -> Option<Resume> {
    gateway.resume(run).unwrap_or_else(|error| {
        log::warn!("run {run}: not held here, since its entry in the state folder does not open: {error}");
        None
    })
}

pub(crate) fn read_name(dir: &dyn Dir, id: &RunId, keys: &RunKeys) -> Result<Vec<u8>> {
    let object = || format!("runs/{id}/name");
    let stored =
        read_whole(dir, b"name", name::PATH_MAX + 64).map_err(|e| part_opened("read", object(), e))?;
    name::decrypt_run_name(keys.name_key(), id, &stored).map_err(|_| Error::damaged(object(), Damage::Name))
}

/// The errno of a store that can be read and takes nothing new.
fn takes_nothing(error: &Error) -> Option<i32> {
    let Error::Store { source, .. } = error else { return None };
    source.raw_os_error().filter(|errno| matches!(*errno, libc::EROFS | libc::ENOSPC | libc::EDQUOT))
}

impl Vault {
    /// A run's body; the first call recovers what an earlier session left, and takes the lease.
    ///
    /// # Errors
    /// The store's; damage.
    pub(crate) fn body(&self, run: &Arc<Run>) -> Result<Arc<Body>> {
        if let Some(body) = run.opened_body() {
            return Ok(body);
        }
        self.room_for_a_body();
        let mut body = run.body.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(body) = &*body {
            return Ok(body.clone());
        }
        if run.gone.load(Ordering::SeqCst) {
            return Err(Posix::Stale.into());
        }
        let made = Arc::new(self.open_body(run)?);
        *body = Some(made.clone());
        Ok(made)
    }

    fn open_body(&self, run: &Arc<Run>) -> Result<Body> {
        let object = || format!("runs/{}/tree", run.id);
        let dir = runs::run_dir(&self.root, &run.id)?;
        let tree = dir.open_dir(b"tree").map_err(|e| part_opened("open", object(), e))?;
        let top = number(tree.stat_self().map_err(|e| Error::store("stat", object(), e))?.ino);
        let only_read = |context| Body {
            dir: dir.clone(),
            tree: tree.clone(),
            top,
            context,
            holding: None,
            holder: None,
            refused: None,
            asked: None,
            blocked: None,
            reading: OnceLock::new(),
            told: Mutex::default(),
            run: run.id,
        };
        let reader = || run.reader(&tree);
        let Some(gateway) = self.gateway.as_deref().filter(|_| run.held) else {
            return Ok(only_read(reader()));
        };
        let asked = Some(Instant::now());
        match self.begin_writing(gateway, run, &dir, &tree, top) {
            Ok((context, holding)) => Ok(Body { holding: Some(holding), ..only_read(context) }),
            Err(Error::Held { holder, .. }) => {
                Ok(Body { holder: Some(holder), asked, ..only_read(reader()) })
            }
            // Nothing can be written there, and reading needs no lease.
            Err(error) if let Some(errno) = takes_nothing(&error) => {
                Ok(Body { refused: Some(errno), asked, ..only_read(reader()) })
            }
            // A journal that is not ours, or something in the place of lease or journal: what is in the
            // tree proves itself all the same.
            Err(error @ Error::Damaged { .. }) => {
                log::error!("run {} is read-only until a person has looked at it: {error}", run.id);
                Ok(Body { blocked: Some(error.to_string()), ..only_read(reader()) })
            }
            Err(other) => Err(other),
        }
    }

    /// Takes the lease and begins a new session, after what the last one left, if it ended uncleanly, was put
    /// in order.
    fn begin_writing(
        &self,
        gateway: &dyn Gateway,
        run: &Arc<Run>,
        dir: &Arc<dyn Dir>,
        tree: &Arc<dyn Dir>,
        top: Ino,
    ) -> Result<(Arc<RunContext>, Holding)> {
        let holding = Holding::take(run.id, dir.clone(), &gateway.id())?;
        let uncleanly = holding.found_one || dir.stat(b"journal").is_ok();
        if uncleanly && let Some(resume) = gateway.resume(&run.id)? {
            let recovered = recovery::recover(&run.reader(tree), dir, &resume.session)?;
            log::info!("run {}: recovered, {} records brought in place", run.id, recovered.replayed);
        }
        let mut session = [0u8; 16];
        random::fill(&mut session)?;
        let session = SessionId(session);
        gateway.hold(&run.id, &Resume { key: run.key.clone(), session })?;
        let context = self.new_context(run, dir, tree, top, session);
        if uncleanly {
            context.assume_crash();
        }
        Ok((context, holding))
    }

    /// The context of a writer of `run` in `session`.
    pub(crate) fn new_context(
        &self,
        run: &Arc<Run>,
        dir: &Arc<dyn Dir>,
        tree: &Arc<dyn Dir>,
        top: Ino,
        session: SessionId,
    ) -> Arc<RunContext> {
        RunContext::writer(
            run.id,
            run.keys(),
            run.geometry,
            dir.clone(),
            tree.clone(),
            session,
            self.options.journal_bytes,
            self.options.delay,
            self.locate(run, top),
        )
    }

    /// Needs no store and holds no lock for long: it is called while a file is locked.
    fn locate(&self, run: &Arc<Run>, top: Ino) -> Locate {
        let (nodes, keys) = (self.nodes.clone(), run.keys());
        Box::new(move |ino| if ino == top { None } else { nodes.stored_path(ino, keys.name_key()) })
    }

    /// A body made by this process just now, whose run nobody else knows.
    pub(crate) fn give_body(&self, run: &Arc<Run>, dir: Arc<dyn Dir>, session: SessionId) -> Result<()> {
        let gateway = self.gateway.as_deref().ok_or(Posix::ReadOnly)?;
        let object = || format!("runs/{}/tree", run.id);
        let tree = dir.open_dir(b"tree").map_err(|e| part_opened("open", object(), e))?;
        let top = number(tree.stat_self().map_err(|e| Error::store("stat", object(), e))?.ino);
        let holding = Holding::take(run.id, dir.clone(), &gateway.id())?;
        let context = self.new_context(run, &dir, &tree, top, session);
        let body = Body {
            dir,
            tree,
            top,
            context,
            holding: Some(holding),
            holder: None,
            refused: None,
            asked: None,
            blocked: None,
            reading: OnceLock::new(),
            told: Mutex::default(),
            run: run.id,
        };
        *run.body.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(body));
        Ok(())
    }

    /// Whether a run's journal directory is there: its last session may have ended uncleanly.
    pub(crate) fn has_journal(&self, run: &Run) -> bool {
        runs::run_dir(&self.root, &run.id).is_ok_and(|dir| dir.stat(b"journal").is_ok())
    }

    /// Why a stale lease matters to a person: who holds it.
    pub(crate) fn holder_of(&self, run: &Run) -> Option<String> {
        if let Some(body) = run.opened_body() {
            return body.holder().map(ToOwned::to_owned);
        }
        let dir = runs::run_dir(&self.root, &run.id).ok()?;
        let found = lease::read(&*dir).ok()??;
        let ours = self.gateway.as_ref().is_some_and(|g| found.holder == g.id().to_string());
        (!ours).then(|| lease::describe(&found))
    }
}
