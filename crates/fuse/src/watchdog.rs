//! Answers in the place of a store that does not.
//!
//! A call into a store that hangs cannot be taken back, but its application can be answered. Each
//! session thread therefore parks the reply of the request that it works on in a slot of its own; a
//! watching thread takes the reply of a call that has lasted too long, and answers EIO with it. What
//! the call gives in the end, if it ever ends, is dropped by its thread.
//!
//! * Time is counted in ticks of the watching thread, so that the usual request reads no clock: it
//!   costs two uncontended locks and two additions.
//! * One thread never enters the store. When all others hang it reads on, so that what waits in the
//!   kernel is answered too.
//! * A probe in a thread of its own asks the store something small as soon as a call has taken half of
//!   its time. One call given up while the probe has no answer either, or four in any case, open the
//!   breaker: from then on requests are refused at once. (At once, since requests wait for each other
//!   in the kernel: behind a directory's lock each would begin its time only when the one before was
//!   answered.) Calls under way in a store that answers no probe are given up with the first. When a
//!   probe is answered, the breaker closes, unless calls that were given up hold every thread: then it
//!   waits for one of them.
//! * A *patient* call (fsync and what may wait for one) lasts as long as there is data to write, which
//!   is no sign of a dead store: while probes are answered it has ten times the time.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::lost::catch;

/// Calls given up before the breaker opens although probes are answered.
const BREAKER: usize = 4;

/// How much longer a patient call may last while probes are answered.
const PATIENCE: u64 = 10;

/// Ticks in `stuck_after`, unless they would be longer than a second.
const TICKS: u32 = 16;

/// How a store answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The longest that a call has lasted: to about a second, and a tenth of it for a sync, which has ten times the
    /// time.
    pub waited: Duration,
    /// Calls that were given up and have not come back.
    pub given_up: usize,
    /// Whether all requests are refused until it answers.
    pub refusing: bool,
}

/// A reply that can be turned into a refusal.
pub(crate) trait Refuse: Send + 'static {
    /// Answers with `errno`.
    fn refuse(self, errno: i32);
}

/// See the module. `P` is a parked reply.
pub(crate) struct Watchdog<P> {
    id: usize,
    slots: Box<[Slot<P>]>,
    /// Slots given to threads.
    taken: AtomicUsize,
    /// Calls in the store, and how many there may be.
    inside: AtomicUsize,
    room: usize,
    /// Threads that wait for room, and what they wait on.
    waiting: AtomicUsize,
    gate: Mutex<()>,
    left: Condvar,
    /// Calls given up that have not come back, and how many of them the breaker has forgiven.
    stuck: AtomicUsize,
    forgiven: AtomicUsize,
    open: AtomicBool,
    /// The breaker stays open.
    shut: AtomicBool,
    ticks: AtomicU64,
    /// Ticks that a call has lasted at most since somebody asked.
    longest: AtomicU64,
    /// Ticks of the last probe, and of the last answer to one.
    asked: AtomicU64,
    answered: AtomicU64,
    probe_wanted: AtomicBool,
    probe_under_way: AtomicBool,
    tick: Duration,
    limit: u64,
    stopped: Mutex<bool>,
    stop: Condvar,
}

/// A thread's place; locked by its owner, except when the watching thread looks.
pub(crate) struct Slot<P>(Mutex<Desk<P>>);

struct Desk<P> {
    reply: Option<P>,
    /// Tick at which the call began.
    since: u64,
    patient: bool,
}

/// How long a call may last.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Short,
    Long,
}

/// How the breaker was moved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Breaker {
    Opened,
    Closed,
}

/// What became of a call.
pub(crate) enum Outcome<P, T> {
    /// The reply is still ours to give.
    Ended(P, T),
    /// The application has had its EIO; what the call gave must be undone.
    Late(T),
    /// Refused at once, without a call.
    Refused,
    /// The call panicked, and was answered.
    Failed,
}

thread_local! {
    /// Of which watchdog this thread has which slot.
    static PLACE: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

static NEXT_ID: AtomicUsize = AtomicUsize::new(1);

impl<P: Refuse> Watchdog<P> {
    /// For `threads` session threads, of which all but one may be in the store at the same time.
    pub(crate) fn new(threads: usize, stuck_after: Duration) -> Arc<Self> {
        let tick = (stuck_after / TICKS).clamp(Duration::from_millis(1), Duration::from_secs(1));
        let limit = stuck_after.as_nanos().div_ceil(tick.as_nanos());
        let slot = || Slot(Mutex::new(Desk { reply: None, since: 0, patient: false }));
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            slots: (0..threads).map(|_| slot()).collect(),
            taken: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            room: threads.saturating_sub(1).max(1),
            waiting: AtomicUsize::new(0),
            gate: Mutex::new(()),
            left: Condvar::new(),
            stuck: AtomicUsize::new(0),
            forgiven: AtomicUsize::new(0),
            open: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            ticks: AtomicU64::new(1),
            longest: AtomicU64::new(0),
            asked: AtomicU64::new(1),
            answered: AtomicU64::new(1),
            probe_wanted: AtomicBool::new(false),
            probe_under_way: AtomicBool::new(false),
            tick,
            limit: u64::try_from(limit).unwrap_or(u64::MAX),
            stopped: Mutex::new(false),
            stop: Condvar::new(),
        })
    }

    /// Starts the watching thread and the probing one; `probe` says whether the store answered.
    ///
    /// # Errors
    /// A thread could not be made.
    pub(crate) fn start(self: &Arc<Self>, probe: impl Fn() -> bool + Send + 'static) -> std::io::Result<()> {
        let (ask, asked) = channel();
        let prober = Arc::clone(self);
        thread::Builder::new().name("store-probe".into()).spawn(move || prober.probing(&asked, &probe))?;
        let watcher = Arc::clone(self);
        thread::Builder::new().name("watchdog".into()).spawn(move || watcher.watching(&ask))?;
        Ok(())
    }

    /// Ends both threads; a probe that hangs is left behind.
    pub(crate) fn stop(&self) {
        *lock(&self.stopped) = true;
        self.stop.notify_all();
    }

    /// Makes `call` with `reply` parked. A panic in it is a bug, and costs the application an EIO, but
    /// not the mount a thread.
    pub(crate) fn call<T>(
        &self,
        reply: P,
        patience: Patience,
        call: impl FnOnce(&Slot<P>) -> T,
    ) -> Outcome<P, T> {
        let Some(slot) = self.slot() else {
            reply.refuse(libc::EIO);
            log::error!("a request came on a thread that is not the session's");
            return Outcome::Failed;
        };
        if !self.enter() {
            reply.refuse(libc::EIO);
            return Outcome::Refused;
        }
        *lock(&slot.0) = Desk {
            reply: Some(reply),
            since: self.ticks.load(Ordering::Relaxed),
            patient: patience == Patience::Long,
        };
        let result = catch(|| call(slot));
        let reply = lock(&slot.0).reply.take();
        if reply.is_none() {
            self.came_back();
        }
        self.leave();
        match (reply, result) {
            (Some(reply), Ok(result)) => Outcome::Ended(reply, result),
            (None, Ok(result)) => Outcome::Late(result),
            (reply, Err(_)) => {
                if let Some(reply) = reply {
                    reply.refuse(libc::EIO);
                }
                log::error!("a request failed by a bug; its application got EIO");
                Outcome::Failed
            }
        }
    }

    /// Refuses all requests from now on; returns when none is under way.
    pub(crate) fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
        self.open_breaker();
        while self.under_way() > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// How the store has answered since this was asked last.
    pub(crate) fn health(&self) -> Health {
        let longest = u32::try_from(self.longest.swap(0, Ordering::Relaxed)).unwrap_or(u32::MAX);
        Health {
            waited: self.tick.saturating_mul(longest),
            given_up: self.stuck.load(Ordering::SeqCst),
            refusing: self.open.load(Ordering::SeqCst),
        }
    }

    /// Has the probing thread run soon.
    pub(crate) fn want_probe(&self) {
        self.probe_wanted.store(true, Ordering::Relaxed);
    }

    /// Calls that are in the store and have not been given up.
    pub(crate) fn under_way(&self) -> usize {
        self.inside.load(Ordering::SeqCst).saturating_sub(self.stuck.load(Ordering::SeqCst))
    }

    /// This thread's slot, taken at its first request.
    fn slot(&self) -> Option<&Slot<P>> {
        let (id, index) = PLACE.get();
        if id == self.id {
            return self.slots.get(index);
        }
        let index = self.taken.fetch_add(1, Ordering::Relaxed);
        PLACE.set((self.id, index));
        self.slots.get(index)
    }

    /// False: the breaker is open.
    fn enter(&self) -> bool {
        if self.open.load(Ordering::Relaxed) || !(self.take_room() || self.wait_for_room()) {
            return false;
        }
        // Only now is this call one that `shut` waits for.
        let shut = self.shut.load(Ordering::SeqCst);
        if shut {
            self.leave();
        }
        !shut
    }

    fn take_room(&self) -> bool {
        if self.inside.fetch_add(1, Ordering::SeqCst) < self.room {
            return true;
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
        false
    }

    fn wait_for_room(&self) -> bool {
        let mut gate = lock(&self.gate);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let entered = loop {
            if self.open.load(Ordering::SeqCst) {
                break false;
            }
            if self.take_room() {
                break true;
            }
            gate = self.left.wait(gate).unwrap_or_else(PoisonError::into_inner);
        };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        entered
    }

    fn leave(&self) {
        self.inside.fetch_sub(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            let _gate = lock(&self.gate);
            self.left.notify_one();
        }
    }

    /// A call that was given up ended after all.
    fn came_back(&self) {
        let left = self.stuck.fetch_sub(1, Ordering::SeqCst).saturating_sub(1);
        self.forgiven.fetch_min(left, Ordering::SeqCst);
    }

    fn watching(&self, ask: &Sender<()>) {
        let mut opened_at = 0;
        let mut stopped = lock(&self.stopped);
        while !*stopped {
            stopped = self.stop.wait_timeout(stopped, self.tick).unwrap_or_else(PoisonError::into_inner).0;
            let now = self.ticks.fetch_add(1, Ordering::Relaxed) + 1;
            // Refused last: an answer lets the next request in that waited for it in the kernel.
            let mut given_up = self.give_up(now);
            let moved = self.move_breaker(now, &mut opened_at);
            if moved == Some(Breaker::Opened) {
                given_up.append(&mut self.give_up(now));
            }
            let refused = given_up.len();
            given_up.into_iter().for_each(|reply| reply.refuse(libc::EIO));
            self.ask_probe(now, ask);
            // Nobody waits for the log.
            if refused > 0 {
                log::warn!("the store does not answer: EIO for {refused} requests");
            }
            match moved {
                Some(Breaker::Opened) => log::warn!("refusing all requests until the store answers"),
                Some(Breaker::Closed) => log::warn!("the store answers again"),
                None => {}
            }
        }
    }

    /// The replies of the calls that have had their time.
    fn give_up(&self, now: u64) -> Vec<P> {
        let mut given_up = Vec::new();
        for slot in &self.slots {
            let mut desk = lock(&slot.0);
            if desk.reply.is_none() {
                continue;
            }
            let age = now.saturating_sub(desk.since);
            if age.saturating_mul(2) >= self.limit {
                self.want_probe();
            }
            // As much of its time as a call of the usual patience would have used up.
            let waited = if desk.patient { age / PATIENCE } else { age };
            self.longest.fetch_max(waited, Ordering::Relaxed);
            if age >= self.limit_of(desk.patient, now) {
                self.stuck.fetch_add(1, Ordering::SeqCst);
                given_up.extend(desk.reply.take());
            }
        }
        given_up
    }

    /// Probes begin when a call has reached half of its time, so that an answer newer than that means
    /// a store that lives. In one that is known to be dead no call waits any longer.
    fn limit_of(&self, patient: bool, now: u64) -> u64 {
        let answered = now.saturating_sub(self.answered.load(Ordering::SeqCst));
        if self.open.load(Ordering::SeqCst) && self.probe_is_unanswered(now) {
            0
        } else if patient && answered.saturating_mul(2) < self.limit {
            self.limit.saturating_mul(PATIENCE)
        } else {
            self.limit
        }
    }

    /// Whether the breaker was moved.
    fn move_breaker(&self, now: u64, opened_at: &mut u64) -> Option<Breaker> {
        let stuck = self.stuck.load(Ordering::SeqCst);
        // Whoever comes now would wait for one of them.
        let full = stuck >= self.room;
        if self.open.load(Ordering::SeqCst) {
            self.want_probe();
            let answers = self.answered.load(Ordering::SeqCst) > *opened_at || stuck == 0;
            if full || !answers || self.shut.load(Ordering::SeqCst) {
                return None;
            }
            self.forgiven.store(stuck, Ordering::SeqCst);
            self.open.store(false, Ordering::SeqCst);
            return Some(Breaker::Closed);
        }
        let new = stuck.saturating_sub(self.forgiven.load(Ordering::SeqCst));
        let dead = full || new >= BREAKER.min(self.room) || (new > 0 && self.probe_is_unanswered(now));
        dead.then(|| {
            *opened_at = now;
            self.open_breaker();
            Breaker::Opened
        })
    }

    fn open_breaker(&self) {
        self.open.store(true, Ordering::SeqCst);
        let _gate = lock(&self.gate);
        self.left.notify_all();
    }

    /// Whether a probe has had no answer for half of a call's time.
    fn probe_is_unanswered(&self, now: u64) -> bool {
        let asked = now.saturating_sub(self.asked.load(Ordering::SeqCst));
        self.probe_under_way.load(Ordering::SeqCst) && asked >= self.limit / 2
    }

    fn ask_probe(&self, now: u64, ask: &Sender<()>) {
        if self.probe_wanted.load(Ordering::Relaxed) && !self.probe_under_way.swap(true, Ordering::SeqCst) {
            self.probe_wanted.store(false, Ordering::Relaxed);
            self.asked.store(now, Ordering::SeqCst);
            let _ = ask.send(());
        }
    }

    fn probing(&self, asked: &Receiver<()>, probe: &dyn Fn() -> bool) {
        while asked.recv().is_ok() {
            if catch_unwind(AssertUnwindSafe(probe)).unwrap_or(false) {
                // Later than the tick at which it was asked: an answer counts when it comes.
                self.answered.store(self.ticks.load(Ordering::Relaxed), Ordering::SeqCst);
            }
            self.probe_under_way.store(false, Ordering::SeqCst);
        }
    }
}

impl<P> Slot<P> {
    /// Works on the parked reply; `None` when it has been given up.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut P) -> T) -> Option<T> {
        lock(&self.0).reply.as_mut().map(work)
    }
}

/// A panic elsewhere does not make these few numbers wrong.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
