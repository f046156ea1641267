//! The runs that this gateway writes: what decides when each of them is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use runvault_crypto::registers;
use runvault_format::descriptor::RunKind;
use runvault_format::ids::{DirId, RunId};
use runvault_format::name::{self, Shape};
use runvault_store::backend::Kind;

use crate::{Error, Posix, Result, Vault};

/// When something of a run was changed last, in this process.
#[derive(Clone)]
pub(crate) struct Changed {
    since: Instant,
    /// Milliseconds after that.
    last: Arc<AtomicU64>,
}

impl Changed {
    /// A run that was met just now counts as changed: how long it was quiet before, nobody has seen.
    pub(crate) fn now() -> Self {
        Self { since: Instant::now(), last: Arc::default() }
    }

    pub(crate) fn again(&self) {
        self.last.store(self.since.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn ago(&self) -> Duration {
        self.since.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

/// A run that this gateway made, holds and has not sealed. Without its name: who keeps one of these, for as long as another
/// run is being sealed perhaps, would keep that beyond the run's own seal.
#[derive(Clone, Debug)]
pub struct HeldRun {
    /// Its id.
    pub run: RunId,
    /// It adds to a sealed run.
    pub continues: bool,
    /// For how long nothing of it was changed, as far as this process knows.
    pub quiet: Duration,
    /// When it was made, as run.json has it.
    pub opened: String,
    /// How long ago its lease was renewed, where this process holds it.
    pub lease_age: Option<Duration>,
}

impl Vault {
    /// The runs that this gateway could seal.
    pub fn held_runs(&self) -> Vec<HeldRun> {
        let Some(gateway) = self.gateway.as_deref() else { return Vec::new() };
        let ours = gateway.id();
        let table = self.table();
        let held = table.runs().filter(|run| {
            run.held && run.kind == RunKind::Run && !run.is_sealed() && self.may_seal(run, &ours)
        });
        held.map(|run| HeldRun {
            run: run.id,
            continues: run.after.is_some(),
            quiet: run.changed().ago(),
            opened: run.opened.clone(),
            lease_age: run.opened_body().and_then(|body| body.lease_age()),
        })
        .collect()
    }

    /// The plaintext name of a run that is held here, as long as it is not sealed.
    pub fn held_name(&self, run: &RunId) -> Option<Vec<u8>> {
        let table = self.table();
        table.runs().find(|found| found.id == *run && found.held && !found.is_sealed()).map(|run| run.name())
    }

    /// By how many seconds the store's clock is ahead of this machine's: by the lease that was renewed last. `None`
    /// where nothing was written lately.
    pub fn store_clock_ahead(&self) -> Option<i64> {
        let bodies = self.bodies();
        // Another's says when that was renewed.
        let ours = bodies.iter().filter(|(_, body)| body.is_ours());
        let ages = ours.filter_map(|(_, body)| Some((body.lease_age()?, body)));
        let (age, body) = ages.min_by_key(|(age, _)| *age)?;
        let stamped = body.lease_stamp().ok()?.sec;
        let renewed = SystemTime::now().checked_sub(age)?.duration_since(UNIX_EPOCH).ok()?;
        stamped.checked_sub(i64::try_from(renewed.as_secs()).ok()?)
    }

    /// Plaintext names of the files in a run's top directory.
    ///
    /// # Errors
    /// [`Posix::NotFound`]; damage of the run; the store's. A name that does not authenticate is passed over.
    pub fn top_files(&self, run: &RunId) -> Result<Vec<Vec<u8>>> {
        let run = self.table().runs().find(|found| found.id == *run).cloned().ok_or(Posix::NotFound)?;
        let body = self.body(&run)?;
        let object = || format!("runs/{}/tree", run.id);
        let mut stored = Vec::new();
        let listed = body.tree.entries(0, &mut |entry| {
            if matches!(name::shape(&entry.name), Shape::Short | Shape::Long) {
                stored.push(entry.name);
            }
            true
        });
        listed.map_err(|e| Error::store("list", object(), e))?;
        let mut found = Vec::new();
        for stored in stored {
            let side = match name::shape(&stored) {
                Shape::Long => Self::read_side(&*body.tree, &name::side_name_of(&stored)).unwrap_or_default(),
                _ => None,
            };
            let key = body.context.keys.name_key();
            let text = name::decrypt_name(key, &DirId::ROOT, &stored, side.as_deref());
            if let (Ok(text), Ok(stat)) = (text, body.tree.stat(&stored))
                && stat.kind == Kind::File
            {
                found.push(text);
            }
        }
        registers::wipe();
        Ok(found)
    }
}
