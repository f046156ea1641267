//! A run whose writer is gone goes to this machine, when a person has confirmed it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use runvault_crypto::aead::Engine;
use runvault_crypto::digest::ct_eq;
use runvault_crypto::random;
use runvault_format::ids::{IdentityId, RunId, SessionId};
use runvault_format::keys::RunKeys;
use runvault_format::lease::Lease;
use runvault_store::backend::Dir;
use runvault_store::journal_files::JournalFiles;

use crate::authority::{Authority, Gateway, Resume};
use crate::lease::Sign;
pub use crate::lease::{RENEW, SILENCE};
use crate::outcome::{opened, outcome};
use crate::{Damage, Error, Result, lease, ledger, recovery, runs, seal};

/// How often a lease is looked at that is watched.
const PAUSE: Duration = Duration::from_secs(1);

/// Who holds a run's lease, as a person is shown it; `None` where nobody does.
///
/// # Errors
/// The store's.
pub fn holder(root: &Arc<dyn Dir>, run: &RunId) -> Result<Option<String>> {
    Ok(lease_of(root, run)?.as_ref().map(lease::describe))
}

/// Who holds a run's lease and what it runs, where it is a process of this machine that is alive, and
/// not this one: a takeover is for holders that are gone.
///
/// # Errors
/// The store's.
pub fn writer_here(root: &Arc<dyn Dir>, gateway: &dyn Gateway, run: &RunId) -> Result<Option<String>> {
    Ok(lease_of(root, run)?.and_then(|found| lease::alive_here(&found, &gateway.id())))
}

/// Whether the next mount with this state folder goes on with the run by itself: it is open, nobody who may be alive holds
/// it, and the folder has its entry, of the session whose journal is there.
///
/// # Errors
/// The store's, for the lease.
pub fn goes_on(root: &Arc<dyn Dir>, gateway: &dyn Gateway, run: &RunId) -> Result<bool> {
    if seal::has_seal(root, run)? {
        return Ok(false);
    }
    let dir = runs::run_dir(root, run)?;
    let free = lease::is_free(&*dir, &gateway.id());
    if !free.map_err(|e| outcome("read", format!("runs/{run}/lease"), e))? {
        return Ok(false);
    }
    let Ok(Some(resume)) = gateway.resume(run) else { return Ok(false) };
    Ok(journal_session(&dir, run).is_ok_and(|found| found.is_none_or(|found| found == resume.session)))
}

/// What this gateway noted of the run no longer says what it is like: another machine may have written it meanwhile.
///
/// # Errors
/// The state folder's.
pub fn forget_notes(gateway: &dyn Gateway, run: &RunId) -> Result<()> {
    let unkept = gateway.ledgers().map_or(Ok(()), |dir| ledger::remove(&*dir, run));
    unkept.map_err(|e| outcome("remove the ledger of", format!("runs/{run}"), e))
}

/// The lease of a run whose writer has gone, or could not renew it for longer than it may write without.
pub struct Silent(Sign);

impl Silent {
    /// Whether nobody has come since.
    fn check(&self, dir: &dyn Dir, run: &RunId) -> Result<()> {
        let Some((_, found)) = sign(dir, run)?.filter(|now| Some(now) != self.0.as_ref()) else {
            return Ok(());
        };
        let holder =
            found.as_ref().map_or_else(|| "someone whose lease cannot be read".to_owned(), lease::describe);
        Err(Error::Held { run: run.to_string(), holder })
    }
}

/// Watches the lease of a run, where that is another machine's, for as long as its `silence` must be: [`SILENCE`] proves
/// that nobody writes. Tells `left` each second how long it will be. `None`: somebody renewed it, so that its writer lives.
///
/// # Errors
/// The store's, for the lease.
pub fn watch(
    root: &Arc<dyn Dir>,
    gateway: &IdentityId,
    run: &RunId,
    silence: Duration,
    left: &mut dyn FnMut(Duration),
) -> Result<Option<Silent>> {
    let dir = runs::run_dir(root, run)?;
    let sign = || sign(&*dir, run);
    let ours = lease::of_this_process(gateway);
    let (began, first) = (Instant::now(), sign()?);
    loop {
        let now = sign()?;
        let is_free = match &now {
            None => true,
            Some((_, found)) => found.as_ref().is_some_and(|found| lease::may_be_taken(found, &ours)),
        };
        let waits = silence.saturating_sub(began.elapsed());
        if is_free || (now == first && waits.is_zero()) {
            return Ok(Some(Silent(now)));
        }
        if now != first {
            return Ok(None);
        }
        left(waits);
        std::thread::sleep(PAUSE.min(waits));
    }
}

fn sign(dir: &dyn Dir, run: &RunId) -> Result<Sign> {
    lease::sign(dir).map_err(|e| outcome("read", format!("runs/{run}/lease"), e))
}

fn lease_of(root: &Arc<dyn Dir>, run: &RunId) -> Result<Option<Lease>> {
    let dir = runs::run_dir(root, run)?;
    lease::read(&*dir).map_err(|e| outcome("read", format!("runs/{run}/lease"), e))
}

/// Makes `gateway` the run's writer: its key goes into the state folder, the lease to this process,
/// and the journal that the last writer left counts as ours, so that the next mount replays it.
///
/// # Errors
/// [`Error::Held`] by a process of this machine that is alive, or by anybody who has come since the lease was `silent`;
/// [`Error::WrongKey`] where nothing that is held opens the run; [`Damage::Run`]; the store's.
pub fn takeover(
    root: &Arc<dyn Dir>,
    authority: &dyn Authority,
    gateway: &dyn Gateway,
    run: &RunId,
    silent: &Silent,
) -> Result<()> {
    if let Some(holder) = writer_here(root, gateway, run)? {
        return Err(Error::Held { run: run.to_string(), holder });
    }
    let verified = runs::read_descriptor(root, run, authority)?;
    if seal::has_seal(root, run)? {
        // One that does not count is in the way, and says so.
        seal::find(root, run, authority)?;
        return Err(Error::Sealed { run: run.to_string() });
    }
    // An entry that does not open is what this makes good.
    let before = gateway.resume(run).ok().flatten();
    let key = match &before {
        Some(resume) => resume.key.clone(),
        None => runs::envelopes(root, run, authority)?
            .open(run, authority)?
            .ok_or_else(|| Error::WrongKey(format!("no key that is held here opens run {run}")))?,
    };
    let keys = RunKeys::derive(&key, run, Engine::fastest());
    if !ct_eq(&keys.commitment(), &verified.descriptor.commitment.0) {
        let what = Damage::Run("the key is not the one run.json names".into());
        return Err(Error::damaged(format!("runs/{run}"), what));
    }
    let dir = runs::run_dir(root, run)?;
    let session = match journal_session(&dir, run)? {
        Some(session) => session,
        None => fresh_session()?,
    };
    silent.check(&*dir, run)?;
    // Others may have written since it was kept.
    forget_notes(gateway, run)?;
    gateway.hold(run, &Resume { key, session })?;
    let (ours, still) = (lease::of_this_process(&gateway.id()), || silent.check(&*dir, run).is_ok());
    let Err(error) = lease::write_while(&*dir, &ours, still) else { return Ok(()) };
    if matches!(lease::read(&*dir), Ok(Some(now)) if now == ours) {
        // A call that failed may have been made all the same.
        return Ok(());
    }
    // Nothing was taken over; an entry would say that it was.
    let undone = match before {
        Some(before) => gateway.hold(run, &before),
        None => gateway.release(run),
    };
    silent.check(&*dir, run)?;
    undone?;
    Err(outcome("write", format!("runs/{run}/lease"), error))
}

/// The session whose records a run's journal holds; each record proves itself when it is replayed.
fn journal_session(dir: &Arc<dyn Dir>, run: &RunId) -> Result<Option<SessionId>> {
    let fail = |e| opened("read", format!("runs/{run}/journal"), e);
    let Some(files) = JournalFiles::read_existing(dir).map_err(fail)? else { return Ok(None) };
    recovery::session_of(&files).map_err(fail)
}

fn fresh_session() -> Result<SessionId> {
    let mut session = [0u8; 16];
    random::fill(&mut session)?;
    Ok(SessionId(session))
}

#[cfg(test)]
mod tests {
    use runvault_format::ids::Digest;
    use runvault_store::doubles::memory::MemoryDir;

    use super::*;

    const GATEWAY: IdentityId = IdentityId([1; 16]);
    const RUN: RunId = RunId([2; 16]);

    /// What stood there, and the times that it was told to wait.
    fn watched(
        found: Option<&Lease>,
        silence: Duration,
        mut meanwhile: impl FnMut(&dyn Dir),
    ) -> (Option<Silent>, usize) {
        let root: Arc<dyn Dir> = MemoryDir::root();
        let dir = root.create_dir(b"runs", 0o755).and_then(|()| root.open_dir(b"runs")).unwrap();
        let name = RUN.to_string();
        let dir =
            dir.create_dir(name.as_bytes(), 0o755).and_then(|()| dir.open_dir(name.as_bytes())).unwrap();
        found.map(|found| lease::write(&*dir, found)).transpose().unwrap();
        let mut waits = 0;
        let silent = watch(&root, &GATEWAY, &RUN, silence, &mut |_| {
            waits += 1;
            meanwhile(&*dir);
        });
        (silent.unwrap(), waits)
    }

    fn elsewhere() -> Lease {
        Lease { host: Digest([9; 32]), ..lease::of_this_process(&IdentityId([3; 16])) }
    }

    #[test]
    fn a_lease_of_another_machine_is_silent_when_nobody_renewed_it() {
        let (silent, waits) = watched(Some(&elsewhere()), Duration::from_millis(1500), |_| ());
        assert!(silent.is_some_and(|silent| silent.0.is_some()) && waits >= 2);
    }

    #[test]
    fn who_renews_it_is_alive_whatever_it_says() {
        let renewed = Lease { seq: 2, ..elsewhere() };
        let rewritten = elsewhere();
        for now in [renewed, rewritten] {
            let (silent, waits) =
                watched(Some(&elsewhere()), SILENCE, |dir| lease::write(dir, &now).unwrap());
            assert!(silent.is_none() && waits == 1);
        }
        let garbage = |dir: &dyn Dir| {
            let file = dir.open_file(b"lease", runvault_store::backend::Access::ReadWrite).unwrap();
            file.write_at(b"?", 0).unwrap();
        };
        assert!(watched(Some(&elsewhere()), SILENCE, garbage).0.is_none());
    }

    #[test]
    fn what_nobody_holds_or_someone_who_has_ended_is_not_waited_for() {
        let ended = Lease { pid: 1 << 30, ..lease::of_this_process(&IdentityId([3; 16])) };
        for found in [None, Some(&ended)] {
            let (silent, waits) = watched(found, SILENCE, |_| ());
            assert!(silent.is_some() && waits == 0);
        }
        // It ended its mount while it was watched.
        let (silent, waits) = watched(Some(&elsewhere()), SILENCE, |dir| dir.unlink(b"lease").unwrap());
        assert!(silent.is_some() && waits == 1);
    }
}
