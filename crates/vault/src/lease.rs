//! `runs/<id>/lease`: tells a second writer who is there. Advisory: what counts is that a writer
//! which could not renew stops by its own clock, and that whoever takes a run over has watched its lease for longer.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use runvault_format::ids::{IdentityId, RunId};
use runvault_format::lease::{LEN_MAX, Lease};
use runvault_store::backend::{Access, Dir, Rename, Time};
use runvault_store::guarded::Guard;
use runvault_store::read_whole::read_whole;
use runvault_store::replace::{TEMPORARY, temporary_name};

use crate::outcome::{exists, part_opened};
use crate::sys::{self, Process};
use crate::{Error, Posix, Result};

pub(crate) const NAME: &[u8] = b"lease";
/// How often it is looked whether it is time to.
const LOOK: Duration = Duration::from_millis(250);
/// How often a lease is written anew.
pub const RENEW: Duration = Duration::from_secs(20);
/// A writer that could not renew for so long writes no more.
const FENCE: Duration = Duration::from_secs(60);
/// A lease that stays as it is for so long has no writer: its own fence is 60 s, and what began before may take a while.
pub const SILENCE: Duration = Duration::from_secs(75);
/// Who writes looks whose lease stands there where it has not for so long: the clock of a virtual machine stands still
/// while that is paused, and then says nothing of the time that went by.
const GLANCE: Duration = Duration::from_secs(1);
/// What was accepted is written by itself within this.
const LATER: Duration = Duration::from_secs(120);

/// How long one that was taken away by mistake may be gone.
const PUT_BACK: Duration = Duration::from_millis(100);

/// Times that one which someone else is writing at the same moment is written again.
const TRIES: usize = 5;

/// A lease that this process holds.
pub(crate) struct Holding {
    run: RunId,
    dir: Arc<dyn Dir>,
    lease: Mutex<Lease>,
    /// A lease was there: the session before this one ended uncleanly.
    pub(crate) found_one: bool,
    /// Milliseconds since boot at the last renewal.
    renewed: AtomicU64,
    /// And when this lease was last seen to stand there,
    seen: AtomicU64,
    /// and when it was last asked whether it may be written.
    asked: AtomicU64,
    /// Who took it over, as a renewal has found: this process never writes the run again.
    lost_to: OnceLock<String>,
    /// It is not written any more.
    given_up: AtomicBool,
    /// And neither is the run.
    removed: AtomicBool,
}

/// Right before each change of the run in the store: between that and the request's own look the process may have been
/// stopped, or the machine paused.
impl Guard for Holding {
    fn check(&self) -> io::Result<()> {
        Holding::check(self).map_err(|error| {
            // Others than these would say something of what is about to be changed.
            let of_the_store = |errno: &i32| matches!(*errno, libc::EROFS | libc::ENOSPC | libc::EDQUOT);
            let errno = match error {
                Error::Store { source, .. } => {
                    source.raw_os_error().filter(of_the_store).unwrap_or(libc::EIO)
                }
                _ => libc::EROFS,
            };
            io::Error::from_raw_os_error(errno)
        })
    }
}

/// Who holds a run's lease: `None` where nobody does, or the file says nothing that makes sense.
pub(crate) fn read(run_dir: &dyn Dir) -> io::Result<Option<Lease>> {
    match read_whole(run_dir, NAME, LEN_MAX) {
        Ok(bytes) => Ok(Lease::parse(&bytes).ok()),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e)
            if matches!(e.raw_os_error(), Some(libc::EFBIG | libc::ELOOP | libc::EINVAL | libc::EISDIR)) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// When the store's clock says that it was written.
pub(crate) fn stamp(run_dir: &dyn Dir) -> io::Result<Time> {
    run_dir.stat(NAME).map(|stat| stat.mtime)
}

/// Whether somebody may be writing the run at this moment.
pub(crate) fn may_be_written(run_dir: &dyn Dir) -> bool {
    matches!(read(run_dir), Ok(Some(found)) if !process(&found).has_ended(&Process::this()))
}

/// What stands there, to be compared with what stood there: that it cannot be read does not mean that nobody renews it.
pub(crate) type Sign = Option<(Time, Option<Lease>)>;

/// A run's lease, with its time by the store's clock; `None` where there is none.
pub(crate) fn sign(run_dir: &dyn Dir) -> io::Result<Sign> {
    match stamp(run_dir) {
        Ok(time) => Ok(Some((time, read(run_dir)?))),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// How a holder is named to people.
pub(crate) fn describe(lease: &Lease) -> String {
    let host = lease.host.to_string();
    let place = if process(lease).has_ended(&Process::this()) {
        "of this machine, which has ended".to_owned()
    } else {
        format!("of host {}", short(&host))
    };
    format!("gateway {} (process {} {place})", lease.holder, lease.pid)
}

fn short(text: &str) -> &str {
    text.get(..8).unwrap_or(text)
}

/// The lease file that `gateway` writes from this process.
pub(crate) fn of_this_process(gateway: &IdentityId) -> Lease {
    let here = Process::this();
    Lease {
        holder: gateway.to_string(),
        host: here.host,
        boot: here.boot,
        pid: here.pid,
        start: here.start,
        seq: 1,
    }
}

fn process(lease: &Lease) -> Process {
    Process { host: lease.host, boot: lease.boot.clone(), pid: lease.pid, start: lease.start }
}

/// Whether the holder has certainly gone, or is this process, whose state folder's lock is the guard.
///
/// A process of this gateway that is ending has let go of that lock, which this process holds now: the
/// kernel closes files after the last thread's last call. One that is not ending has another folder of
/// the same identity, a copy, and proves nothing by it.
pub(crate) fn may_be_taken(found: &Lease, ours: &Lease) -> bool {
    let (theirs, here) = (process(found), process(ours));
    let of_this_gateway = found.holder == ours.holder && (theirs == here || theirs.is_ending(&here));
    of_this_gateway || theirs.has_ended(&here)
}

/// The holder, and the command that it runs, where it is another process of this machine and alive.
pub(crate) fn alive_here(found: &Lease, gateway: &IdentityId) -> Option<String> {
    let ours = of_this_process(gateway);
    if found.host != ours.host || may_be_taken(found, &ours) {
        return None;
    }
    let command = process(found).command().map_or_else(String::new, |text| format!(": {text}"));
    Some(format!("{}{command}", describe(found)))
}

/// Writes a lease; a renewal is free to be lost, so nothing is synced. Whole by a rename; on a full store over the one
/// that is there, since a holder who cannot renew may not even delete.
pub(crate) fn write(dir: &dyn Dir, lease: &Lease) -> io::Result<()> {
    write_while(dir, lease, || true)
}

/// [`write()`], for as long as it is `still` to be written: it may hang for as long as a takeover takes, before any of
/// its calls.
pub(crate) fn write_while(dir: &dyn Dir, lease: &Lease, still: impl Fn() -> bool) -> io::Result<()> {
    let bytes = lease.to_bytes().map_err(io::Error::other)?;
    let mut made = write_once(dir, &bytes, &still);
    for _ in 0..TRIES {
        match &made {
            // Someone else took it at that moment, and began by clearing away what was half written.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EEXIST)) && still() => {
                made = write_once(dir, &bytes, &still);
            }
            _ => break,
        }
    }
    match made {
        Err(full) if matches!(full.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => {
            let there = dir.open_file(NAME, Access::ReadWrite).map_err(|_| full)?;
            require(&still)?;
            there.write_at(&bytes, 0)?;
            there.set_len(bytes.len() as u64)
        }
        made => made,
    }
}

fn require(still: &impl Fn() -> bool) -> io::Result<()> {
    if still() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EROFS)) }
}

fn write_once(dir: &dyn Dir, bytes: &[u8], still: &impl Fn() -> bool) -> io::Result<()> {
    let temporary = [TEMPORARY, NAME].concat();
    match dir.unlink(&temporary) {
        Err(e) if e.raw_os_error() != Some(libc::ENOENT) => return Err(e),
        _ => {}
    }
    let made = dir
        .create_file(&temporary, 0o644)
        .and_then(|file| file.write_at(bytes, 0))
        .and_then(|()| require(still))
        .and_then(|()| dir.rename(&temporary, dir, NAME, Rename::Over));
    if made.is_err() {
        // The first error is the one to tell.
        let _ = dir.unlink(&temporary);
    }
    made
}

/// Takes that lease away, and no other: one that was written meanwhile stays.
pub(crate) fn take_away(dir: &dyn Dir, found: &Lease) -> io::Result<()> {
    let aside = temporary_name()?;
    match dir.rename(NAME, dir, &aside, Rename::Over) {
        // Someone else did.
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
        moved => moved?,
    }
    let moved = read_whole(dir, &aside, LEN_MAX).ok().and_then(|bytes| Lease::parse(&bytes).ok());
    // Where it cannot be put back its holder writes it anew.
    if moved.as_ref() == Some(found) || dir.rename(&aside, dir, NAME, Rename::NoReplace).is_err() {
        dir.unlink(&aside)?;
    }
    Ok(())
}

/// Whether nobody holds a run, or only someone from whom `gateway` may take it.
pub(crate) fn is_free(dir: &dyn Dir, gateway: &IdentityId) -> io::Result<bool> {
    Ok(read(dir)?.is_none_or(|found| may_be_taken(&found, &of_this_process(gateway))))
}

impl Holding {
    /// Takes the lease of a run, from nobody or from a process of this machine that has ended.
    ///
    /// # Errors
    /// [`Error::Held`], and the store's.
    pub(crate) fn take(run: RunId, dir: Arc<dyn Dir>, gateway: &IdentityId) -> Result<Self> {
        let fail = |operation| move |e| part_opened(operation, format!("runs/{run}/lease"), e);
        // Each of these calls may take as long as a takeover: only before them nobody else had it for certain.
        let [renewed, seen, asked] = [now(); 3].map(AtomicU64::new);
        let ours = of_this_process(gateway);
        let found = read(&*dir).map_err(fail("read"))?;
        if let Some(found) = found.as_ref().filter(|found| !may_be_taken(found, &ours)) {
            return Err(Error::Held { run: run.to_string(), holder: describe(found) });
        }
        // One that says nothing was being written over.
        let found_one = exists(&*dir, NAME).map_err(fail("stat"))?;
        let written = write_while(&*dir, &ours, || read(&*dir).is_ok_and(|now| now == found));
        if written.is_err()
            && let Ok(Some(other)) = read(&*dir)
            && !may_be_taken(&other, &ours)
        {
            return Err(Error::Held { run: run.to_string(), holder: describe(&other) });
        }
        written.map_err(fail("write"))?;
        // From now on a power cut of the store takes it away no more: where it is gone, somebody did.
        let synced =
            dir.open_file(NAME, Access::Read).and_then(|file| file.sync_all()).and_then(|()| dir.sync());
        if let Err(error) = synced {
            log::warn!("run {run}: its lease may be lost with the store's power: {error}");
        }
        let (lease, lost_to) = (Mutex::new(ours), OnceLock::new());
        let [given_up, removed] = [const { AtomicBool::new(false) }; 2];
        Ok(Self { run, dir, lease, found_one, renewed, seen, asked, lost_to, given_up, removed })
    }

    /// Whether this process may still write.
    ///
    /// # Errors
    /// [`Error::Held`] when another took it over; the store's, when it could not be renewed in time.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_lost()?;
        // Asked before each call that changes the store: the clock once.
        let now = now();
        self.asked.store(now, Ordering::Relaxed);
        if until(now, &self.renewed) >= FENCE {
            return self.renew();
        }
        if until(now, &self.seen) >= GLANCE { self.look(GLANCE) } else { Ok(()) }
    }

    /// Looks whether another took it over meanwhile, where the last look was that long ago.
    ///
    /// # Errors
    /// [`Error::Held`]; the store's.
    pub(crate) fn look(&self, age: Duration) -> Result<()> {
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_lost()?;
        let started = now();
        if since(&self.seen) >= age && self.is_still_ours(&lease).map_err(self.failed("read"))? {
            self.seen.store(started, Ordering::Relaxed);
        }
        self.check_lost()
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |e| Error::store(operation, format!("runs/{}/lease", self.run), e)
    }

    /// Whether nobody else has it, or had it: what cannot be read is ours, after the store's power cut it may be so. One
    /// that is not, is lost from now on.
    fn is_still_ours(&self, ours: &Lease) -> io::Result<bool> {
        let lost_to = match read(&*self.dir)? {
            Some(found) if is_ours(&found, ours) => return Ok(true),
            Some(found) => describe(&found),
            None if is_missing(&*self.dir) => {
                "someone who took it over meanwhile and has gone again".to_owned()
            }
            None => return Ok(true),
        };
        self.lost_to.get_or_init(|| lost_to);
        Ok(false)
    }

    /// # Errors
    /// [`Error::Held`]; [`Posix::ReadOnly`] once it was given up, [`Posix::NotFound`] once the run was removed.
    pub(crate) fn check_lost(&self) -> Result<()> {
        match self.lost_to() {
            Some(holder) => Err(Error::Held { run: self.run.to_string(), holder: holder.to_owned() }),
            None if self.removed.load(Ordering::Relaxed) => Err(Posix::NotFound.into()),
            None if self.given_up.load(Ordering::Relaxed) => Err(Posix::ReadOnly.into()),
            None => Ok(()),
        }
    }

    /// Who took it over, where that was found.
    pub(crate) fn lost_to(&self) -> Option<&str> {
        self.lost_to.get().map(String::as_str)
    }

    /// Renews where it is time to, and looks whose it is where something may be about to be written.
    ///
    /// # Errors
    /// As [`Holding::check`].
    pub(crate) fn renew_if_due(&self) -> Result<()> {
        self.check_lost()?;
        if self.age() >= RENEW {
            return self.renew();
        }
        let seen = since(&self.seen);
        if seen >= GLANCE && since(&self.asked) < seen + LATER { self.look(GLANCE) } else { Ok(()) }
    }

    /// Since the last renewal.
    pub(crate) fn age(&self) -> Duration {
        since(&self.renewed)
    }

    /// Lets `act` take as long as it likes, whatever it does: the lease is renewed beside it. What is found out at that
    /// [`Holding::check`] says.
    pub(crate) fn kept<T>(&self, act: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            let (done, ended) = mpsc::channel::<()>();
            let keep = move || {
                while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                    // The next look tries again, and who writes asks first.
                    let _ = self.renew_if_due();
                }
            };
            // Where the machine gives no more threads it is renewed by what asks.
            let _ = std::thread::Builder::new().name("lease".into()).spawn_scoped(scope, keep);
            let acted = act();
            drop(done);
            acted
        })
    }

    fn renew(&self) -> Result<()> {
        let mut lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_lost()?;
        if self.age() < RENEW {
            return Ok(());
        }
        let started = now();
        self.is_still_ours(&lease).map_err(self.failed("read"))?;
        self.check_lost()?;
        lease.seq += 1;
        let still = || self.is_still_ours(&lease).unwrap_or(false);
        let written = write_while(&*self.dir, &lease, still);
        self.check_lost()?;
        written.map_err(self.failed("renew"))?;
        self.renewed.store(started, Ordering::Relaxed);
        self.seen.store(started, Ordering::Relaxed);
        Ok(())
    }

    /// Removes it, unless someone else's stands there by now. Nothing of the run is written after that.
    ///
    /// # Errors
    /// The store's; it is held as before then.
    pub(crate) fn give_up(&self) -> io::Result<()> {
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        self.given_up.store(true, Ordering::Relaxed);
        let found = read(&*self.dir).map(|found| found.filter(|found| is_ours(found, &lease)));
        let gone = found.and_then(|found| found.map_or(Ok(()), |found| take_away(&*self.dir, &found)));
        gone.inspect_err(|_| self.given_up.store(false, Ordering::Relaxed))
    }

    /// The run itself goes, with its lease: that is renewed no more.
    pub(crate) fn end(&self) {
        let _renewing = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        self.removed.store(true, Ordering::Relaxed);
    }

    /// Whose it is by now says more than what was refused, or found, for that.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match self.look(Duration::ZERO) {
            Err(held @ Error::Held { .. }) => held,
            _ => error,
        }
    }
}

fn is_ours(found: &Lease, ours: &Lease) -> bool {
    found.holder == ours.holder
        && found.host == ours.host
        && found.boot == ours.boot
        && found.pid == ours.pid
        && found.start == ours.start
}

/// Who takes one away for an old one puts it back where it was none.
fn is_missing(run_dir: &dyn Dir) -> bool {
    let is_missing = || matches!(exists(run_dir, NAME), Ok(false));
    is_missing() && {
        std::thread::sleep(PUT_BACK);
        is_missing()
    }
}

fn since(then: &AtomicU64) -> Duration {
    until(now(), then)
}

fn until(now: u64, then: &AtomicU64) -> Duration {
    Duration::from_millis(now.saturating_sub(then.load(Ordering::Relaxed)))
}

fn now() -> u64 {
    u64::try_from(sys::since_boot().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use runvault_store::doubles::faulty::{Fault, Faults, Rule};
    use runvault_store::doubles::memory::MemoryDir;
    use runvault_store::doubles::observe::Op;

    use super::*;

    const GATEWAY: IdentityId = IdentityId([1; 16]);

    /// Lets `act` run until a call of it hangs, `meanwhile`, and `act` to its end; how many calls hung.
    fn stopped<T: Send>(
        faults: &Faults,
        act: impl FnOnce() -> T + Send,
        meanwhile: impl FnOnce(),
    ) -> (T, usize) {
        std::thread::scope(|scope| {
            let acting = scope.spawn(act);
            while faults.hanging() == 0 && !acting.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let stood_still = faults.hanging();
            meanwhile();
            faults.release();
            (acting.join().unwrap(), stood_still)
        })
    }

    fn age_by(holding: &Holding, age: Duration) {
        let then = now().saturating_sub(u64::try_from(age.as_millis()).unwrap());
        holding.renewed.store(then, Ordering::Relaxed);
    }

    #[test]
    fn a_writer_that_saw_another_holder_stops_for_good() {
        let dir = MemoryDir::root();
        let holding = Holding::take(RunId([2; 16]), dir.clone(), &GATEWAY).unwrap();
        let other = Lease { pid: 1, ..of_this_process(&IdentityId([3; 16])) };
        write(&*dir, &other).unwrap();
        holding.check().unwrap();
        age_by(&holding, RENEW);
        assert!(matches!(holding.renew_if_due(), Err(Error::Held { .. })));
        assert!(matches!(holding.check(), Err(Error::Held { .. })));
        dir.unlink(NAME).unwrap();
        assert!(matches!(holding.renew_if_due(), Err(Error::Held { .. })));
        assert!(read(&*dir).unwrap().is_none());
    }

    /// Another machine may have had it for days while the clock of this one stood still.
    #[test]
    fn a_writer_looks_before_it_writes_though_its_time_is_not_over() {
        let dir = MemoryDir::root();
        let holding = Holding::take(RunId([2; 16]), dir.clone(), &GATEWAY).unwrap();
        let late = || holding.seen.store(now().saturating_sub(GLANCE.as_millis() as u64), Ordering::Relaxed);
        late();
        holding.check().unwrap();
        assert!(since(&holding.seen) < GLANCE && holding.age() < RENEW);
        write(&*dir, &Lease { pid: 1, ..of_this_process(&IdentityId([3; 16])) }).unwrap();
        late();
        assert!(matches!(holding.check(), Err(Error::Held { .. })));
        assert!(matches!(holding.check(), Err(Error::Held { .. })));
    }

    /// Whatever it does meanwhile, it asks for nothing.
    #[test]
    fn who_takes_long_keeps_it() {
        let dir = MemoryDir::root();
        let holding = Holding::take(RunId([2; 16]), dir.clone(), &GATEWAY).unwrap();
        let seq = || read(&*dir).unwrap().unwrap().seq;
        let renewed = holding.kept(|| {
            age_by(&holding, RENEW);
            (0..100).any(|_| {
                std::thread::sleep(Duration::from_millis(100));
                seq() == 2
            })
        });
        assert!(renewed && holding.age() < RENEW);
        // Somebody else's is not written over, and who asks is told.
        write(&*dir, &Lease { pid: 1, ..of_this_process(&IdentityId([3; 16])) }).unwrap();
        holding.kept(|| {
            age_by(&holding, RENEW);
            assert!((0..100).any(|_| {
                std::thread::sleep(Duration::from_millis(100));
                holding.lost_to().is_some()
            }));
        });
        assert!(matches!(holding.check(), Err(Error::Held { .. })));
        assert_eq!(seq(), 1);
    }

    /// Whatever call it stood still in.
    #[test]
    fn one_that_was_stopped_takes_nothing_back_and_nothing_away() {
        let other = Lease { pid: 1, ..of_this_process(&IdentityId([3; 16])) };
        let renew: fn(&Holding) = |holding| {
            age_by(holding, RENEW);
            let _ = holding.renew_if_due();
        };
        let give_up: fn(&Holding) = |holding| holding.give_up().unwrap();
        for (op, act) in
            [(Op::CreateFile, renew), (Op::Write, renew), (Op::Rename, renew), (Op::Rename, give_up)]
        {
            let memory = MemoryDir::root();
            let (dir, faults) = Faults::over(memory.clone()).unwrap();
            let holding = Holding::take(RunId([2; 16]), dir, &GATEWAY).unwrap();
            faults.add(Rule::next(op, Fault::Hang));
            // Who takes a run over clears away what is half written.
            let ((), stood_still) = stopped(&faults, || act(&holding), || _ = write(&*memory, &other));
            assert_eq!(stood_still, 1, "{op:?}");
            assert_eq!(read(&*memory).unwrap(), Some(other.clone()), "{op:?}");
            assert!(holding.check().is_err(), "{op:?}");
        }
    }

    #[test]
    fn one_that_was_stopped_takes_none_that_another_has() {
        let other =
            Lease { host: runvault_format::ids::Digest([9; 32]), ..of_this_process(&IdentityId([3; 16])) };
        for op in [Op::Unlink, Op::CreateFile, Op::Write, Op::Rename] {
            let memory = MemoryDir::root();
            let (dir, faults) = Faults::over(memory.clone()).unwrap();
            faults.add(Rule::next(op, Fault::Hang));
            let take = || Holding::take(RunId([2; 16]), dir, &GATEWAY);
            let (taken, _) = stopped(&faults, take, || _ = write(&*memory, &other));
            assert!(matches!(taken, Err(Error::Held { .. })), "{op:?}");
            assert_eq!(read(&*memory).unwrap(), Some(other.clone()), "{op:?}");
        }
    }

    /// In the calls that come after it is there; nobody's clock says how long they took but one that began before them.
    #[test]
    fn one_that_was_stopped_when_it_was_taken_is_looked_at_before_it_is_used() {
        let other =
            Lease { host: runvault_format::ids::Digest([9; 32]), ..of_this_process(&IdentityId([3; 16])) };
        for op in [Op::SyncAll, Op::SyncDir] {
            let memory = MemoryDir::root();
            let (dir, faults) = Faults::over(memory.clone()).unwrap();
            faults.add(Rule::next(op, Fault::Hang));
            let take = || Holding::take(RunId([2; 16]), dir, &GATEWAY).unwrap();
            let (holding, _) = stopped(&faults, take, || {
                write(&*memory, &other).unwrap();
                std::thread::sleep(GLANCE);
            });
            assert!(matches!(holding.check(), Err(Error::Held { .. })), "{op:?}");
            assert_eq!(read(&*memory).unwrap(), Some(other.clone()), "{op:?}");
        }
    }

    #[test]
    fn a_lease_that_is_there_needs_no_room() {
        let (dir, faults) = Faults::over(MemoryDir::root()).unwrap();
        let ended = Lease { holder: "x".repeat(90), pid: 1 << 30, ..of_this_process(&GATEWAY) };
        write(&*dir, &ended).unwrap();
        faults.add(Rule::every(Op::CreateFile, Fault::Fail(libc::ENOSPC)));
        let holding = Holding::take(RunId([2; 16]), dir.clone(), &GATEWAY).unwrap();
        assert!(holding.found_one);
        age_by(&holding, FENCE);
        holding.check().unwrap();
        assert_eq!(read(&*dir).unwrap().unwrap().seq, 2);
        holding.give_up().unwrap();
        assert!(matches!(Holding::take(RunId([2; 16]), dir, &GATEWAY), Err(Error::Store { .. })));
    }

    #[test]
    fn an_old_one_is_taken_away_and_no_newer_one() {
        let dir = MemoryDir::root();
        let old = of_this_process(&GATEWAY);
        let newer = Lease { seq: 2, ..old.clone() };
        take_away(&*dir, &old).unwrap();
        for (there, left) in [(&old, None), (&newer, Some(2))] {
            write(&*dir, there).unwrap();
            take_away(&*dir, &old).unwrap();
            assert_eq!(read(&*dir).unwrap().map(|lease| lease.seq), left);
        }
        let mut names = 0;
        dir.entries(0, &mut |_| {
            names += 1;
            true
        })
        .unwrap();
        assert_eq!(names, 1, "nothing is left beside it");
    }

    #[test]
    fn one_that_someone_else_clears_away_is_written_again() {
        let (dir, faults) = Faults::over(MemoryDir::root()).unwrap();
        faults.add(Rule::next(Op::Rename, Fault::Fail(libc::ENOENT)));
        let holding = Holding::take(RunId([2; 16]), dir.clone(), &GATEWAY).unwrap();
        // A renewal that hung until another had taken the run over.
        let other = Lease { pid: 1, ..of_this_process(&IdentityId([3; 16])) };
        write(&*dir, &other).unwrap();
        faults.add(Rule::next(Op::Rename, Fault::Fail(libc::ENOENT)));
        let ours = of_this_process(&GATEWAY);
        assert!(write_while(&*dir, &ours, || holding.is_still_ours(&ours).unwrap()).is_err());
        assert_eq!(read(&*dir).unwrap(), Some(other));
        assert!(matches!(holding.check(), Err(Error::Held { .. })));
    }

    #[test]
    fn a_store_that_does_not_say_whether_one_is_there_has_none_taken() {
        for errno in [libc::EIO, libc::ESTALE] {
            let (dir, faults) = Faults::over(MemoryDir::root()).unwrap();
            let ended = Lease { pid: 1 << 30, ..of_this_process(&GATEWAY) };
            write(&*dir, &ended).unwrap();
            faults.add(Rule::next(Op::Stat, Fault::Fail(errno)));
            let taken = Holding::take(RunId([2; 16]), dir.clone(), &GATEWAY);
            assert!(matches!(taken, Err(Error::Store { .. })));
            assert!(Holding::take(RunId([2; 16]), dir, &GATEWAY).unwrap().found_one);
        }
    }

    #[test]
    fn a_lease_that_could_not_be_written_leaves_nothing_behind() {
        for (op, errno) in [
            (Op::Write, libc::EIO),
            (Op::Write, libc::ENOSPC),
            (Op::Rename, libc::EIO),
            (Op::Rename, libc::ENOSPC),
        ] {
            for there in [false, true] {
                let (dir, faults) = Faults::over(MemoryDir::root()).unwrap();
                let mut lease = of_this_process(&GATEWAY);
                if there {
                    write(&*dir, &lease).unwrap();
                }
                lease.seq += 1;
                faults.add(Rule::next(op, Fault::Fail(errno)));
                let written = write(&*dir, &lease);
                let (found, in_place) = (read(&*dir).unwrap(), there && errno == libc::ENOSPC);
                assert_eq!(written.is_ok(), in_place, "{op:?} {errno} {there}");
                assert_eq!(found.is_some_and(|found| found.seq == 2), in_place, "{op:?} {errno} {there}");
                let names = runvault_store::names::names(&*dir).unwrap();
                assert!(names.iter().all(|name| name == NAME), "{op:?} {errno} {there}: a file is left");
            }
        }
    }

    #[test]
    fn a_writer_whose_lease_went_while_it_was_away_stops_for_good() {
        let dir = MemoryDir::root();
        let holding = Holding::take(RunId([2; 16]), dir.clone(), &GATEWAY).unwrap();
        // A store's power cut may empty it: nobody was here.
        dir.open_file(NAME, runvault_store::backend::Access::ReadWrite).unwrap().set_len(0).unwrap();
        age_by(&holding, FENCE);
        holding.check().unwrap();
        // Another took it, and ended cleanly; this one's clock may have stood still meanwhile.
        dir.unlink(NAME).unwrap();
        holding.seen.store(now().saturating_sub(GLANCE.as_millis() as u64), Ordering::Relaxed);
        assert!(matches!(holding.check(), Err(Error::Held { .. })));
        age_by(&holding, RENEW);
        assert!(matches!(holding.renew_if_due(), Err(Error::Held { .. })));
        assert!(read(&*dir).unwrap().is_none());
    }

    #[test]
    fn a_process_of_this_machine_is_alive_until_it_ends() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let start = stat.split_ascii_whitespace().nth(21).unwrap().parse().unwrap();
        let own = Lease { pid: child.id(), start, ..of_this_process(&GATEWAY) };
        let other = Lease { holder: IdentityId([3; 16]).to_string(), ..own.clone() };
        for lease in [&own, &other] {
            // A new process has its command line a moment after it was spawned.
            let begin = std::time::Instant::now();
            while !alive_here(lease, &GATEWAY).unwrap().contains("sleep") {
                assert!(begin.elapsed() < Duration::from_secs(20), "it does not say what it runs");
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(
                alive_here(&Lease { host: runvault_format::ids::Digest([9; 32]), ..lease.clone() }, &GATEWAY)
                    .is_none()
            );
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(alive_here(&own, &GATEWAY).is_none() && alive_here(&other, &GATEWAY).is_none());
    }
}
