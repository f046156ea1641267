//! A run that is used: its directories and keys and, for its writer, lease and journal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use runvault_crypto::random;
use runvault_format::descriptor::RunKind;
use runvault_format::ids::{DirId, IdentityId, RunId, SessionId};
use runvault_store::backend::{Access, Dir, Stat, Time};
use runvault_store::guarded::{Guard, guarded};
use runvault_store::journal_files::DIRECTORY;

use super::Run;
use crate::api::Ino;
use crate::authority::{Gateway, Resume};
use crate::file::{Locate, RunContext};
use crate::held::Changed;
use crate::lease::{self, Holding, RENEW};
use crate::ledger::{self, Ledger};
use crate::nodes::number;
use crate::outcome::{exists, holds_something, outcome, part_opened};
use crate::own_names::OwnNames;
use crate::seal::SEAL;
use crate::{Error, Posix, Result, Vault, recovery, runs};

/// What a run needs to be used: its directories and keys and, for its writer, lease and journal.
pub(crate) struct Body {
    /// `runs/<id>`.
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) tree: Arc<dyn Dir>,
    /// Node of `tree/`.
    pub(crate) top: Ino,
    pub(crate) context: Arc<RunContext>,
    holding: Option<Arc<Holding>>,
    /// Who writes it, where this machine would but may not.
    holder: Option<String>,
    /// Why its store refused what a writer begins with: EROFS, ENOSPC or EDQUOT.
    refused: Option<i32>,
    /// When the lease was asked for in vain, where asking again may help.
    asked: Option<Instant>,
    /// Why this machine, which holds the run, only reads it.
    blocked: Option<String>,
    /// This machine writes, but does not hold the run: the gateway that made it.
    not_held: Option<IdentityId>,
    /// It has a seal.
    sealed: bool,
    /// What files are opened with while the run may not be written.
    reading: OnceLock<Arc<RunContext>>,
    /// The log has that the store turned read-only.
    read_only_told: AtomicBool,
    /// The trouble that the log has.
    told: Mutex<Option<String>>,
    changed: Changed,
    own_names: OwnNames,
    /// [`Body::lease_stamp`], and when it was asked for.
    lease_seen: Mutex<Option<(Instant, Option<Time>)>>,
    run: RunId,
}

/// How long a store that took no lease, and a holder that was there, are believed.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// What was changed so many seconds before its writer renewed the lease has all its bytes in the store: they wait for one,
/// and the lease is renewed every twenty.
const LATELY: i64 = 60;

impl Body {
    /// Of a run that is only read.
    fn reader(
        run: &Run,
        dir: &Arc<dyn Dir>,
        tree: &Arc<dyn Dir>,
        top: Ino,
        context: Arc<RunContext>,
    ) -> Self {
        Self {
            dir: dir.clone(),
            tree: tree.clone(),
            top,
            context,
            holding: None,
            holder: None,
            refused: None,
            asked: None,
            blocked: None,
            not_held: None,
            sealed: false,
            reading: OnceLock::new(),
            read_only_told: AtomicBool::new(false),
            told: Mutex::default(),
            changed: run.changed().clone(),
            own_names: OwnNames::default(),
            lease_seen: Mutex::default(),
            run: run.id,
        }
    }

    /// Whether this process may write now; who asks is about to.
    ///
    /// # Errors
    /// As of [`Body::check_held`].
    pub(crate) fn check_writer(&self) -> Result<()> {
        self.check_held().inspect(|()| self.changed.again())
    }

    /// Whether this process may write now.
    ///
    /// # Errors
    /// [`Error::Held`], [`Error::NotHeld`], [`Posix::ReadOnly`]; the store's, when the lease could not be renewed
    /// in time.
    pub(crate) fn check_held(&self) -> Result<()> {
        match (&self.holding, &self.holder) {
            (Some(holding), _) => holding.check(),
            (None, Some(holder)) => Err(Error::Held { run: self.run.to_string(), holder: holder.clone() }),
            (None, None) => Err(self.why_read_only()),
        }
    }

    /// Whether a name may go now; `last`: the only one of its file. A writer's may, and where only room was
    /// missing for the lease those that nobody else holds and recovery does not need: nothing else makes room.
    ///
    /// # Errors
    /// As of [`Body::check_writer`].
    pub(crate) fn check_remover(&self, gateway: Option<&dyn Gateway>, last: bool) -> Result<()> {
        let Err(error) = self.check_writer() else { return Ok(()) };
        let (Some(libc::ENOSPC | libc::EDQUOT), Some(gateway)) = (self.refused, gateway) else {
            return Err(error);
        };
        let fail = |e| outcome("read", format!("runs/{}/lease", self.run), e);
        let unneeded = last || !has_journal(&*self.dir).map_err(fail)?;
        let may_go = unneeded && lease::is_free(&*self.dir, &gateway.id()).map_err(fail)?;
        if may_go { Ok(()) } else { Err(error) }
    }

    fn why_read_only(&self) -> Error {
        if self.sealed {
            return Error::Sealed { run: self.run.to_string() };
        }
        if let Some(maker) = self.not_held {
            return Error::not_held(self.run, maker);
        }
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

    /// Of the directories that this process made in the run.
    pub(crate) fn own_names(&self) -> &OwnNames {
        &self.own_names
    }

    /// Whether another machine has taken the run over from this process.
    pub(crate) fn is_lost(&self) -> bool {
        self.holding.is_some() && !self.is_ours()
    }

    /// What a file is opened with: a writer may cut it or write its header, which only the lease allows, and a
    /// store that takes writes.
    ///
    /// # Errors
    /// [`Posix::Stale`] of a run whose key was erased here.
    pub(crate) fn context_to_open(&self, run: &Run, access: Access) -> Result<&Arc<RunContext>> {
        if access == Access::ReadWrite && self.check_lease().is_ok() {
            return Ok(&self.context);
        }
        if let Some(reading) = self.reading.get() {
            return Ok(reading);
        }
        let made = run.reader(&self.tree)?;
        Ok(self.reading.get_or_init(|| made))
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

    /// Logs once that the store has turned read-only under a writer.
    pub(crate) fn tell_read_only(&self, now: bool) {
        if self.read_only_told.load(Ordering::Relaxed) != now
            && !self.read_only_told.swap(now, Ordering::Relaxed)
        {
            log::warn!("run {}: its store has turned read-only: files can only be read", self.run);
        }
    }

    pub(crate) fn blocked(&self) -> Option<&str> {
        self.blocked.as_deref()
    }

    /// Since it was renewed; `None` where this process does not hold it.
    pub(crate) fn lease_age(&self) -> Option<Duration> {
        self.holding.as_ref().map(|holding| holding.age())
    }

    /// What the store's clock said when the lease was written last.
    pub(crate) fn lease_stamp(&self) -> std::io::Result<Time> {
        lease::stamp(&*self.dir)
    }

    /// Whether bytes of an object may be on their way from a writer elsewhere; by the store's clock alone.
    pub(crate) fn may_be_in_writing(&self, stat: &Stat) -> bool {
        self.context.read_only()
            && self.lease_seen().is_some_and(|stamp| stat.ctime.sec.saturating_add(LATELY) > stamp.sec)
    }

    fn lease_seen(&self) -> Option<Time> {
        let mut seen = self.lease_seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.take_if(|(at, _)| at.elapsed() >= ASK_AGAIN);
        seen.get_or_insert_with(|| (Instant::now(), self.lease_stamp().ok())).1
    }

    /// Whether the lease is still held, and renewed beside this: what keeps it from that is the error.
    pub(crate) fn check_renewed(&self) -> Result<()> {
        let Some(holding) = &self.holding else { return Ok(()) };
        holding.check_lost()?;
        if holding.age() >= 2 * RENEW { holding.renew_if_due() } else { Ok(()) }
    }

    /// The run goes, with its lease.
    pub(crate) fn end_lease(&self) {
        if let Some(holding) = &self.holding {
            holding.end();
        }
    }

    /// `dir`, where nothing is changed once another has the run.
    pub(crate) fn behind_lease(&self, dir: &Arc<dyn Dir>) -> Arc<dyn Dir> {
        match &self.holding {
            Some(holding) => guarded(dir.clone(), holding.clone()),
            None => dir.clone(),
        }
    }

    /// Whether nobody else has the run, however short a while ago that was looked at.
    ///
    /// # Errors
    /// [`Error::Held`]; the store's.
    pub(crate) fn check_still_ours(&self) -> Result<()> {
        self.holding.as_ref().map_or(Ok(()), |holding| holding.look(Duration::ZERO))
    }

    /// Whether the run has any entry, whoever made it.
    pub(crate) fn tree_holds_something(&self) -> Result<bool> {
        holds_something(&*self.tree).map_err(|e| outcome("list", format!("runs/{}/tree", self.run), e))
    }

    /// Whether what waits here may still go into the store; always for a run that is only read.
    ///
    /// # Errors
    /// [`Error::Held`]; the store's, when the lease could not be renewed in time.
    pub(crate) fn check_lease(&self) -> Result<()> {
        self.holding.as_ref().map_or(Ok(()), |holding| holding.check())
    }

    /// Everything durable, the journal gone, the lease given up.
    pub(crate) fn close(&self) -> Result<()> {
        let given_up = self.close_but_lease()?.map_or(Ok(()), |holding| holding.give_up());
        given_up.map_err(|e| outcome("give up", format!("runs/{}/lease", self.run), e))
    }

    /// Everything durable, the journal gone, the lease as it was; `None` of a run that is only read.
    pub(crate) fn close_but_lease(&self) -> Result<Option<Arc<Holding>>> {
        self.check_lease().inspect_err(|_| self.context.end_notes())?;
        self.write_out()?;
        Ok(self.holding.clone())
    }

    /// Everything durable, the journal gone.
    pub(crate) fn write_out(&self) -> Result<()> {
        self.context.close().map_err(|error| match &self.holding {
            Some(holding) => holding.explain(error),
            None => error,
        })
    }
}

/// Of a run whose store has no room for a lease: what makes room is removed only where nobody else has it.
struct Free {
    dir: Arc<dyn Dir>,
    gateway: IdentityId,
}

impl Guard for Free {
    fn check(&self) -> std::io::Result<()> {
        let may_go = !exists(&*self.dir, SEAL)? && lease::is_free(&*self.dir, &self.gateway)?;
        if may_go { Ok(()) } else { Err(std::io::Error::from_raw_os_error(libc::EROFS)) }
    }
}

fn has_journal(run_dir: &dyn Dir) -> std::io::Result<bool> {
    exists(run_dir, DIRECTORY)
}

/// The errno of a store that can be read and takes nothing new.
fn takes_nothing(error: &Error) -> Option<i32> {
    let Error::Store { source, .. } = error else { return None };
    source.raw_os_error().filter(|errno| matches!(*errno, libc::EROFS | libc::ENOSPC | libc::EDQUOT))
}

/// What is never sealed needs no ledger. One that cannot be opened is one less to compare with.
fn keep_ledger(gateway: &dyn Gateway, run: &Run, context: &RunContext, delay: Duration) -> Result<()> {
    let Some(dir) = gateway.ledgers().filter(|_| run.kind == RunKind::Run) else { return Ok(()) };
    match Ledger::open(&dir, run.id, run.keys()?.ledger_key(), delay) {
        Ok(ledger) => context.keep_ledger(ledger),
        Err(error) => {
            log::error!("run {}: its ledger is given up, so that its seal compares nothing: {error}", run.id);
            ledger::remove(&*dir, &run.id)
                .map_err(|e| Error::store("remove the ledger of", format!("runs/{}", run.id), e))?;
        }
    }
    Ok(())
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
        if run.is_sealed() {
            self.open_sealed_run(run)?;
        }
        let dir = runs::run_dir(&self.root, &run.id)?;
        let tree = dir.open_dir(b"tree").map_err(|e| part_opened("open", object(), e))?;
        let top = number(tree.stat_self().map_err(|e| Error::store("stat", object(), e))?.ino);
        let only_read = |context| Body::reader(run, &dir, &tree, top, context);
        let reader = || run.reader(&tree);
        let Some(gateway) = self.gateway.as_deref() else { return Ok(only_read(reader()?)) };
        if run.is_sealed() {
            return Ok(Body { sealed: true, ..only_read(reader()?) });
        }
        if !run.held {
            return Ok(Body { not_held: Some(run.maker), ..only_read(reader()?) });
        }
        let asked = Some(Instant::now());
        match self.begin_writing(gateway, run, &dir, &tree, top) {
            Ok(body) => Ok(body),
            Err(Error::Held { holder, .. }) => {
                Ok(Body { holder: Some(holder), asked, ..only_read(reader()?) })
            }
            // By another, since this machine looked.
            Err(Error::Sealed { .. }) => Ok(Body { sealed: true, ..only_read(reader()?) }),
            // Nothing can be written there, and reading needs no lease.
            Err(error) if let Some(errno) = takes_nothing(&error) => {
                let free = Arc::new(Free { dir: dir.clone(), gateway: gateway.id() });
                let [dir, tree] = [&dir, &tree].map(|dir| guarded(dir.clone(), free.clone()));
                let body = Body::reader(run, &dir, &tree, top, run.reader(&tree)?);
                Ok(Body { refused: Some(errno), asked, ..body })
            }
            // A journal that is not ours, or something in the place of lease or journal: what is in the
            // tree proves itself all the same.
            Err(error @ Error::Damaged { .. }) => {
                log::error!("run {} is read-only until a person has looked at it: {error}", run.id);
                Ok(Body { blocked: Some(error.to_string()), ..only_read(reader()?) })
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
    ) -> Result<Body> {
        let holding = self.take_lease(run.id, dir, gateway)?;
        let begun = self.begin_session(gateway, run, (dir, tree, top), &holding);
        if !holding.found_one && matches!(begun, Err(Error::Damaged { .. })) {
            // It is only read: who may write it waits for nobody.
            let _ = holding.give_up();
        }
        begun
    }

    fn begin_session(
        &self,
        gateway: &dyn Gateway,
        run: &Arc<Run>,
        (dir, tree, top): (&Arc<dyn Dir>, &Arc<dyn Dir>, Ino),
        holding: &Arc<Holding>,
    ) -> Result<Body> {
        let [dir, tree] = [dir, tree].map(|dir| guarded(dir.clone(), holding.clone()));
        let journal = has_journal(&*dir);
        let journal = journal.map_err(|e| Error::store("stat", format!("runs/{}/journal", run.id), e))?;
        let uncleanly = holding.found_one || journal;
        if uncleanly && run.maker() == gateway.id() {
            self.take_back_retired(&run.id);
        }
        if uncleanly && let Some(resume) = gateway.resume(&run.id)? {
            let reader = run.reader(&tree)?;
            let recovered = recovery::recover(&reader, &dir, &resume.session);
            let recovered = recovered.map_err(|error| holding.explain(error))?;
            log::info!("run {}: recovered, {} records brought in place", run.id, recovered.replayed);
        }
        let key = run.key()?;
        if run.lacks_envelope(&self.root, &*self.authority) {
            let restored = runs::restore_envelopes(&dir, &run.id, &key, &*self.authority);
            match restored {
                Ok(()) => log::warn!("run {}: no envelope opened to its key any more; made anew", run.id),
                Err(error) => log::error!("run {}: no envelope opens to its key: {error}", run.id),
            }
        }
        let mut session = [0u8; 16];
        random::fill(&mut session)?;
        let session = SessionId(session);
        gateway.hold(&run.id, &Resume { key, session })?;
        let context = self.new_context(run, &dir, &tree, top, session)?;
        if uncleanly {
            context.assume_crash();
        }
        keep_ledger(gateway, run, &context, self.options.delay)?;
        Ok(Body { holding: Some(holding.clone()), ..Body::reader(run, &dir, &tree, top, context) })
    }

    /// The context of a writer of `run` in `session`.
    pub(crate) fn new_context(
        &self,
        run: &Arc<Run>,
        dir: &Arc<dyn Dir>,
        tree: &Arc<dyn Dir>,
        top: Ino,
        session: SessionId,
    ) -> Result<Arc<RunContext>> {
        Ok(RunContext::writer(
            run.id,
            run.keys()?,
            run.geometry,
            dir.clone(),
            tree.clone(),
            session,
            self.options.journal_bytes,
            self.options.delay,
            self.locate(run, top)?,
        ))
    }

    /// Needs no store and holds no lock for long: it is called while a file is locked.
    fn locate(&self, run: &Arc<Run>, top: Ino) -> Result<Locate> {
        let (nodes, keys) = (self.nodes.clone(), run.keys()?);
        Ok(Box::new(move |ino| if ino == top { None } else { nodes.stored_path(ino, keys.name_key()) }))
    }

    /// A body made by this process just now, whose run nobody else knows.
    pub(crate) fn give_body(&self, run: &Arc<Run>, dir: Arc<dyn Dir>, session: SessionId) -> Result<()> {
        let gateway = self.gateway.as_deref().ok_or(Posix::ReadOnly)?;
        let object = || format!("runs/{}/tree", run.id);
        let tree = dir.open_dir(b"tree").map_err(|e| part_opened("open", object(), e))?;
        let top = number(tree.stat_self().map_err(|e| Error::store("stat", object(), e))?.ino);
        let holding = self.take_lease(run.id, &dir, gateway)?;
        let [dir, tree] = [dir, tree].map(|dir| guarded(dir, holding.clone()));
        let context = self.new_context(run, &dir, &tree, top, session)?;
        keep_ledger(gateway, run, &context, self.options.delay)?;
        if let Some(ledger) = context.ledger() {
            ledger.run_name(&run.name());
        }
        let body = Body { holding: Some(holding), ..Body::reader(run, &dir, &tree, top, context) };
        body.own_names.begin(DirId::ROOT);
        *run.body.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(body));
        Ok(())
    }

    /// Whether a run's journal directory is, or may be, there: its last session may have ended uncleanly.
    pub(crate) fn has_journal(&self, run: &Run) -> bool {
        runs::run_dir(&self.root, &run.id).is_ok_and(|dir| has_journal(&*dir).unwrap_or(true))
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
