//! A store whose calls fail or hang when a test says so.

use std::collections::HashMap;
use std::io::Result;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::errno;
use super::observe::{Call, Change, Observer, Op, observe};
use crate::backend::Dir;

/// What is done to a call that a rule meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not made and gives this errno.
    Fail(i32),
    /// It is made, and gives this errno all the same.
    FailAfter(i32),
    /// It is not made and succeeds, as on a network file system that tells later: the next flush or sync of the file
    /// gives this errno, once.
    Lose(i32),
    /// It waits until [`Faults::release`], then is made.
    Hang,
}

/// Which calls are met, and how.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `None`: every function.
    pub op: Option<Op>,
    /// `None`: every name.
    pub name: Option<Vec<u8>>,
    /// So many calls that fit are let pass first.
    pub after: u64,
    /// So many are then met; `u64::MAX`: all.
    pub times: u64,
    /// What is done to them.
    pub fault: Fault,
}

impl Rule {
    /// The next call of `op`, once.
    pub fn next(op: Op, fault: Fault) -> Self {
        Self { op: Some(op), name: None, after: 0, times: 1, fault }
    }

    /// Every call of `op` from now on.
    pub fn every(op: Op, fault: Fault) -> Self {
        Self { times: u64::MAX, ..Self::next(op, fault) }
    }

    fn fits(&self, call: &Call<'_>) -> bool {
        self.op.is_none_or(|op| op == call.op) && self.name.as_ref().is_none_or(|n| n == call.name)
    }
}

/// The rules of one faulty store.
#[derive(Default)]
pub struct Faults {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    /// Bytes that may still be written; `None`: any number.
    room: Option<u64>,
    /// What is still to be told of a file, by its inode number.
    late: HashMap<u64, i32>,
    hanging: usize,
    releases: u64,
}

impl Faults {
    /// The same store, with faults when rules are added.
    ///
    /// # Errors
    /// When the directory has no stat.
    pub fn over(store: Arc<dyn Dir>) -> Result<(Arc<dyn Dir>, Arc<Self>)> {
        let faults = Arc::new(Self::default());
        Ok((observe(store, faults.clone())?, faults))
    }

    /// Adds a rule; the first that fits a call counts.
    pub fn add(&self, rule: Rule) {
        self.lock().rules.push(rule);
    }

    /// No more faults; calls that hang go on.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.rules.clear();
        state.room = None;
        drop(state);
        self.release();
    }

    /// After so many more bytes every write is ENOSPC; `None` ends it.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.lock().room = bytes;
    }

    /// Lets all calls that hang now go on.
    pub fn release(&self) {
        self.lock().releases += 1;
        self.released.notify_all();
    }

    /// Whether a rule has met fewer calls than it is to meet.
    pub fn is_due(&self) -> bool {
        self.lock().rules.iter().any(|rule| rule.times > 0)
    }

    /// How many calls hang now.
    pub fn hanging(&self) -> usize {
        self.lock().hanging
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hang(&self) {
        let mut state = self.lock();
        let seen = state.releases;
        state.hanging += 1;
        while state.releases == seen {
            state = self.released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.hanging -= 1;
    }
}

impl State {
    fn fault(&mut self, call: &Call<'_>) -> Option<Fault> {
        let rule = self.rules.iter_mut().find(|rule| rule.times > 0 && rule.fits(call))?;
        if rule.after > 0 {
            rule.after -= 1;
            return None;
        }
        if rule.times != u64::MAX {
            rule.times -= 1;
        }
        Some(rule.fault)
    }

    fn late(&mut self, call: &Call<'_>) -> Result<()> {
        let tells = matches!(call.op, Op::Flush | Op::SyncData | Op::SyncAll);
        let late = if tells { self.late.remove(&call.ino) } else { None };
        late.map_or(Ok(()), |number| Err(errno(number)))
    }

    fn take_room(&mut self, call: &Call<'_>) -> Result<()> {
        let (Some(room), Some(change)) = (&mut self.room, &call.change) else { return Ok(()) };
        let wanted = match change {
            Change::Write { bytes, .. } => bytes.len() as u64,
            Change::Allocate { len, .. } => *len,
            _ => 0,
        };
        *room = room.checked_sub(wanted).ok_or_else(|| errno(libc::ENOSPC))?;
        Ok(())
    }
}

impl Observer for Faults {
    fn around(&self, call: Call<'_>, run: &mut dyn FnMut() -> Result<u64>) -> Result<()> {
        let fault = self.lock().fault(&call);
        match fault {
            Some(Fault::Fail(number)) => return Err(errno(number)),
            Some(Fault::Lose(number)) => {
                self.lock().late.insert(call.ino, number);
                return Ok(());
            }
            Some(Fault::Hang) => self.hang(),
            _ => {}
        }
        self.lock().late(&call)?;
        self.lock().take_room(&call)?;
        run()?;
        match fault {
            Some(Fault::FailAfter(number)) => Err(errno(number)),
            _ => Ok(()),
        }
    }
}
