//! Re-keying: a sealed run is copied, decrypted and encrypted, into a run under another key, which takes its place.
//!
//! The run that is to be lies in `runs/.new-<id>` until it is sealed: nobody sees it. Order: directories and links; each
//! file under a name of its own in `partial/`, then renamed, so that what has its name is whole; whoever finds all there
//! reads everything back that it has not read back by then, and seals; the seal's rename and the directory's are the
//! commit; what is sealed is read back, and nothing may be missing; then the run that was replaced goes. A kill at any
//! point is gone on from, and any number of processes may work at once.

mod copy;
mod early;
mod finish;
mod tree;

use std::sync::Arc;
use std::time::Duration;

use runvault_crypto::aead::Engine;
use runvault_crypto::digest::ct_eq;
use runvault_format::envelope_file::EnvelopeName;
use runvault_format::ids::RunId;
use runvault_format::keys::{RunKey, RunKeys};
use runvault_store::backend::Dir;

use self::early::{Early, ReadBack};
pub use self::finish::{WORKER_SEED, remove_gone};
use self::tree::Tree;
use super::read::Seal;
use super::verify;
use crate::authority::{Authority, Worker};
use crate::file::RunContext;
use crate::lease::{self, Holding};
use crate::outcome::{exists, part_opened};
use crate::run_life::DIR_MODE;
use crate::runs::{self, VerifiedRun};
use crate::sealed::SealedTree;
use crate::{Damage, Error, Result};

/// Files on their way, in the directory of the run that is to be.
pub(crate) const PARTIAL: &[u8] = b"partial";
/// Times that files are copied again which are not read back as they were written.
const ROUNDS: usize = 3;
/// A lease that is this old, by the store's clock, is nobody's.
const LEASE_ENDS: Duration = Duration::from_secs(180);

/// What is to be done.
pub struct Job<'a> {
    /// The store.
    pub root: &'a Arc<dyn Dir>,
    /// Opens both runs as the worker.
    pub authority: &'a dyn Authority,
    /// Signs the new one.
    pub worker: &'a dyn Worker,
    /// The run that is replaced.
    pub old: RunId,
    /// The run that takes its place.
    pub new: RunId,
    /// How long both are there, so that mounts find the new one before the old one goes.
    pub grace: Duration,
    /// Told that this begins.
    pub waits: &'a (dyn Fn() + Sync),
}

/// A part of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

impl Shard {
    /// Everything.
    pub const ALL: Shard = Shard { number: 1, of: 1 };
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The new run has taken the old one's place, now or before.
    Replaced(Replaced),
    /// Files are missing that others copy.
    Waiting(Waiting),
}

/// A run that stands for another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Files, each counted once.
    pub files: u64,
    /// Their plaintext bytes.
    pub bytes: u64,
    /// Those of them that this process has copied.
    pub copied: u64,
}

/// What is left to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Files that are not there yet.
    pub missing: u64,
    /// Of so many.
    pub files: u64,
    /// Plaintext bytes that this process has copied.
    pub copied: u64,
    /// Who makes the seal, where all are there.
    pub sealing: Option<String>,
}

/// Told plaintext bytes, done and in all.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Does what is left of a shard, and where everything is there, the seal and what comes after it.
///
/// # Errors
/// [`Damage`] of the old run, whose reads are pinned; [`Error::NotBegun`], [`Error::NoRoom`]; a new run that the audit log
/// does not name; the store's.
pub fn rekey(job: &Job<'_>, shard: Shard, progress: Progress<'_>) -> Result<Outcome> {
    if job.is_committed()? {
        return job.end(0, None, progress).map(Outcome::Replaced);
    }
    let outcome = Copying::begin(job).and_then(|copying| copying.work(shard, progress));
    match outcome {
        // Someone else was first, and took away what this process was about to use.
        Err(_) if job.is_committed()? => job.end(0, None, progress).map(Outcome::Replaced),
        outcome => outcome,
    }
}

impl Job<'_> {
    fn is_committed(&self) -> Result<bool> {
        let runs = runs::runs_dir(self.root)?;
        exists(&*runs, self.new.to_string().as_bytes())
            .map_err(|e| Error::store("stat", format!("runs/{}", self.new), e))
    }
}

/// A run that is being copied.
struct Copying<'a> {
    job: &'a Job<'a>,
    /// What lies under `runs/.new-<id>`.
    dir: Arc<dyn Dir>,
    verified: VerifiedRun,
    key: RunKey,
    context: Arc<RunContext>,
    from: Arc<SealedTree>,
    seal: Seal,
    tree: Tree,
}

impl<'a> Copying<'a> {
    fn begin(job: &'a Job<'a>) -> Result<Self> {
        let name = runs::coming_place(&job.new);
        let object = format!("runs/{name}");
        let dir =
            runs::runs_dir(job.root)?.open_dir(name.as_bytes()).map_err(|e| match e.raw_os_error() {
                Some(libc::ENOENT) => Error::NotBegun { run: job.old.to_string() },
                _ => part_opened("open", object.clone(), e),
            })?;
        let verified = runs::read_descriptor_in(&dir, &job.new, &object, job.authority)?;
        let seal = Seal::load(job.root, &job.old, job.authority)?;
        let replaces =
            |after: &runvault_format::descriptor::After| (after.run, after.seal) == (job.old, seal.hash);
        if !verified.descriptor.after.as_ref().is_some_and(replaces) {
            let what = "it does not replace that run, or another seal of it".to_owned();
            return Err(Error::damaged(format!("{object}/run.json"), Damage::Run(what)));
        }
        let closed = |place: &str| {
            let what = "missing, or not to be opened by the worker".to_owned();
            Error::damaged(
                format!("runs/{place}/keys/{}", EnvelopeName::Worker(job.worker.id())),
                Damage::Run(what),
            )
        };
        let old = verify::open(job.root, &job.old, job.authority).map_err(|e| match e {
            Error::WrongKey(_) => closed(&job.old.to_string()),
            e => e,
        })?;
        if old.geometry != verified.descriptor.geometry {
            let what = "it has another chunk size than the run that it replaces".to_owned();
            return Err(Error::damaged(format!("{object}/run.json"), Damage::Run(what)));
        }
        let keys = dir.open_dir(b"keys").map_err(|e| part_opened("open", format!("{object}/keys"), e))?;
        let mut envelopes = runs::envelopes_in(&*keys, &job.new, job.authority)?;
        let key = match envelopes.open(&job.new, job.authority) {
            Ok(Some(key)) => key,
            Ok(None) | Err(Error::Damaged { .. }) => return Err(closed(&name)),
            Err(error) => return Err(error),
        };
        let derived = RunKeys::derive(&key, &job.new, Engine::fastest());
        if !ct_eq(&derived.commitment(), &verified.descriptor.commitment.0) {
            let what = "the key is not the one run.json names".to_owned();
            return Err(Error::damaged(object, Damage::Run(what)));
        }
        for name in [&b"tree"[..], PARTIAL] {
            make_dir(&*dir, name).map_err(|e| Error::store("make", format!("{object}/{}", text(name)), e))?;
        }
        let open = |name: &[u8]| {
            dir.open_dir(name).map_err(|e| part_opened("open", format!("{object}/{}", text(name)), e))
        };
        let context = RunContext::reader(job.new, derived, old.geometry, open(b"tree")?);
        let manifest = seal.manifest(&old)?;
        let from = Arc::new(SealedTree::open(&seal, old, 0)?);
        let tree = Tree::new(context.clone(), manifest, open(PARTIAL)?);
        Ok(Self { job, dir, verified, key, context, from, seal, tree })
    }

    fn work(&self, shard: Shard, progress: Progress<'_>) -> Result<Outcome> {
        let object = runs::coming_place(&self.job.new);
        let is_sealed = || {
            exists(&*self.dir, super::SEAL)
                .map_err(|e| Error::store("stat", format!("runs/{object}/seal"), e))
        };
        let (mut copied, mut read_back) = (0, None);
        if !is_sealed()? {
            self.tree.make_directories()?;
            let mut early = Early::begin(self, shard)?;
            match self.copy(shard, early.as_ref(), progress) {
                // Another one found all there, and took away what is half copied.
                Err(_) if self.missing()?.is_empty() => early = None,
                done => copied = done?,
            }
            let missing = self.missing()?;
            if !missing.is_empty() {
                let (missing, files) = (missing.len() as u64, self.tree.files().count() as u64);
                return Ok(Outcome::Waiting(Waiting { missing, files, copied, sealing: None }));
            }
            let sealed = self.hold().and_then(|holding| {
                let sealed = holding.kept(|| {
                    let early = early.map(Early::finish).transpose()?;
                    self.seal_all(&holding, early.as_ref(), progress)
                });
                sealed.inspect_err(|_| _ = holding.give_up())
            });
            match sealed {
                Ok(again) => {
                    copied += again;
                    // On a network others may have put something in the place of what was read back.
                    read_back = self.dir.is_local().then_some(&self.tree);
                }
                // Another one sealed it first, and took away what this process was about to use.
                Err(_) if is_sealed()? => {}
                Err(Error::Held { holder, .. }) if !self.job.is_committed()? => {
                    let (files, sealing) = (self.tree.files().count() as u64, Some(holder));
                    return Ok(Outcome::Waiting(Waiting { missing: 0, files, copied, sealing }));
                }
                Err(error) => return Err(error),
            }
        }
        self.commit()?;
        self.job.end(copied, read_back, progress).map(Outcome::Replaced)
    }

    /// One process at a time reads everything back. One of another machine that does not renew its lease has ended.
    fn hold(&self) -> Result<Holding> {
        let take = || {
            Holding::take(self.job.new, self.dir.clone(), &self.job.worker.id()).map_err(|e| match e {
                // By the name that its directory has until it is sealed.
                Error::Damaged { damage, .. } => Error::damaged(self.object("lease"), damage),
                e => e,
            })
        };
        match take() {
            Err(held @ Error::Held { .. }) => {
                let failed = |e| Error::store("look at the lease of", runs::coming_place(&self.job.new), e);
                let found = lease::read(&*self.dir).map_err(failed)?;
                let Some(found) = found else { return take() };
                if self.tree.age_of_lease(&*self.dir).map_err(failed)? < LEASE_ENDS {
                    return Err(held);
                }
                lease::take_away(&*self.dir, &found).map_err(failed)?;
                take()
            }
            taken => taken,
        }
    }

    /// Seals what is read back as it was sealed first; files that are not are copied once more.
    fn seal_all(&self, holding: &Holding, early: Option<&ReadBack>, progress: Progress<'_>) -> Result<u64> {
        let mut copied = 0;
        for _ in 0..ROUNDS {
            self.tree.shut_out()?;
            let Some(again) = self.seal(holding, early, progress)? else { return Ok(copied) };
            for file in &again {
                self.tree.remove(*file, holding)?;
            }
            copied += self.copy(Shard::ALL, None, progress)?;
        }
        let what = "files are read back otherwise than they were written, again and again".to_owned();
        Err(Error::damaged(format!("runs/{}", runs::coming_place(&self.job.new)), Damage::Run(what)))
    }

    /// Files that have not got their names yet, by their numbers.
    fn missing(&self) -> Result<Vec<u32>> {
        let mut missing = Vec::new();
        let mut open = None;
        for file in self.tree.files() {
            if !self.tree.has(&mut open, file)? {
                missing.push(file);
            }
        }
        Ok(missing)
    }
}

/// Makes a directory unless it is there.
fn make_dir(dir: &dyn Dir, name: &[u8]) -> std::io::Result<()> {
    match dir.create_dir(name, DIR_MODE) {
        Err(e) if e.raw_os_error() != Some(libc::EEXIST) => Err(e),
        _ => Ok(()),
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
