//! One workload on the real engine, and what a crash after each of its changes leaves.

use std::fmt;
use std::sync::Arc;

use runvault_store::backend::Dir;
use runvault_store::doubles::crash::{Disk, Draw, Stripes};
use runvault_store::doubles::recording::Recording;
use runvault_vault::api::Allocate;
use runvault_vault::{Error, Result};

use super::engine::{FILES, Session, new_store};
use super::expect::Expect;
use super::workload::Step;

/// A broken promise.
#[derive(Debug)]
pub struct Failure {
    step: usize,
    during: Option<Step>,
    change: usize,
    what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} ({:?}), change {}: {}", self.step, self.during, self.change, self.what)
    }
}

/// Which of the disks that a crash may leave are looked at.
#[derive(Clone, Copy)]
pub enum Look {
    /// So many at random after each change.
    Draw(u32),
    /// Every second sector or page of what was not synced, all four ways.
    Stripes,
}

/// Runs the steps and looks at crash states after each change; gives how many those were.
///
/// # Errors
/// The first promise that is broken.
pub fn run(steps: &[Step], log2: u8, seed: u64, look: Look) -> std::result::Result<u64, Failure> {
    run_in(World::new(new_store(), Recording::over, log2, seed, look), steps)
}

/// The same over a store behind a link that can break: no sync of all of it reaches a file. No step may be a crash: what
/// a killed process wrote is on its way still, and nobody can wait for it.
///
/// # Errors
/// The first promise that is broken.
pub fn run_remote(steps: &[Step], log2: u8, seed: u64, look: Look) -> std::result::Result<u64, Failure> {
    run_in(World::new(new_store(), Recording::over_remote, log2, seed, look), steps)
}

fn run_in(mut world: World, steps: &[Step]) -> std::result::Result<u64, Failure> {
    let located = |world: &World, step: usize, what: String| Failure {
        step,
        during: steps.get(step).cloned(),
        change: world.changes,
        what,
    };
    for (i, step) in steps.iter().enumerate() {
        world.step(step).map_err(|what| located(&world, i, what))?;
    }
    Ok(world.seen)
}

struct World {
    store: Arc<dyn Dir>,
    recording: Arc<Recording>,
    disk: Disk,
    session: Option<Session>,
    /// The session whose journal counts, as the state folder says.
    current: u64,
    /// The newest session id; none is used twice.
    newest: u64,
    log2: u8,
    look: Look,
    expects: Vec<Expect>,
    written: u8,
    draws: u64,
    seen: u64,
    changes: usize,
}

type Record = fn(Arc<dyn Dir>) -> std::io::Result<(Arc<dyn Dir>, Arc<Recording>)>;
type Outcome = std::result::Result<(), String>;

fn failed(what: &str) -> impl Fn(Error) -> String + '_ {
    move |error| format!("{what}: {error}")
}

impl World {
    fn new(base: Arc<dyn Dir>, record: Record, log2: u8, seed: u64, look: Look) -> Self {
        let disk = Disk::of(&*base).expect("a memory store");
        let (store, recording) = record(base).expect("a store");
        let session = Session::start(&store, log2, None, 1).expect("nothing to recover");
        Self {
            store,
            recording,
            disk,
            session: Some(session),
            current: 1,
            newest: 1,
            log2,
            look,
            expects: vec![Expect::default(); FILES.len()],
            written: 0,
            draws: seed.wrapping_mul(1_000_003),
            seen: 0,
            changes: 0,
        }
    }

    fn step(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Kill | Step::Power => {
                self.end_session(usize::MAX)?;
                return self.restart(*step == Step::Power);
            }
            Step::Within { step, power } => {
                self.begin(step);
                self.perform(step).map_err(failed("the operation failed"))?;
                let upto = self.draw().below(self.recording.len() as u64 + 1) as usize;
                self.end_session(upto)?;
                return self.restart(*power);
            }
            _ => {}
        }
        self.begin(step);
        let outcome = self.perform(step);
        // Before its promise counts: a crash while the operation still runs.
        self.look_at_changes(usize::MAX)?;
        outcome.map_err(failed("the operation failed"))?;
        if let Step::Fsync { file } = step {
            self.expects[*file].synced();
            self.look_now()?;
        }
        self.compare_live()
    }

    /// From now on a crash may leave what the step changes.
    fn begin(&mut self, step: &Step) {
        if let Some((file, bytes)) = self.content_after(step) {
            self.expects[file].changing(bytes);
        }
    }

    /// The content that a step gives a file, if it changes it.
    fn content_after(&mut self, step: &Step) -> Option<(usize, Vec<u8>)> {
        let (file, mut bytes) = match step {
            Step::Write { file, .. }
            | Step::Truncate { file, .. }
            | Step::Punch { file, .. }
            | Step::Reserve { file, .. }
            | Step::Zero { file, .. } => (*file, self.expects[*file].now().to_vec()),
            _ => return None,
        };
        match *step {
            Step::Write { offset, len, .. } => {
                self.written = self.written.wrapping_add(1);
                bytes.resize(bytes.len().max(offset + len), 0);
                bytes[offset..offset + len].copy_from_slice(&pattern(self.written, len));
            }
            Step::Truncate { len, .. } => bytes.resize(len, 0),
            Step::Punch { offset, len, .. } => {
                let end = (offset + len).min(bytes.len());
                if offset < end {
                    bytes[offset..end].fill(0);
                }
            }
            Step::Reserve { offset, len, .. } => bytes.resize(bytes.len().max(offset + len), 0),
            Step::Zero { offset, len, .. } => {
                bytes.resize(bytes.len().max(offset + len), 0);
                bytes[offset..offset + len].fill(0);
            }
            _ => {}
        }
        Some((file, bytes))
    }

    fn perform(&mut self, step: &Step) -> Result<()> {
        let written = self.written;
        let session = self.session.as_mut().expect("a session runs");
        let allocate = |session: &mut Session, file, offset, len, mode| {
            session.file(file)?.allocate(offset as u64, len as u64, mode)
        };
        match *step {
            Step::Write { file, offset, len } => {
                session.file(file)?.write(offset as u64, &pattern(written, len))
            }
            Step::Fsync { file } => session.file(file)?.fsync(),
            Step::Truncate { file, len } => session.file(file)?.truncate(len as u64),
            Step::Punch { file, offset, len } => allocate(session, file, offset, len, Allocate::PunchHole),
            Step::Zero { file, offset, len } => {
                allocate(session, file, offset, len, Allocate::ZeroRange { keep_size: false })
            }
            Step::Reserve { file, offset, len } => allocate(session, file, offset, len, Allocate::Plain),
            Step::Flush { file } => session.file(file)?.flush(),
            Step::Reopen { file } => session.close(file),
            Step::Checkpoint => session.run().checkpoint(),
            Step::Tick => session.run().tick(),
            Step::Kill | Step::Power | Step::Within { .. } => Ok(()),
        }
    }

    /// The process is gone after so many of the changes that it was making.
    fn end_session(&mut self, upto: usize) -> Outcome {
        self.session = None;
        self.look_at_changes(upto)
    }

    /// A second session, over what the kernel still has or over what the disk kept.
    fn restart(&mut self, power: bool) -> Outcome {
        let left = if power { self.cut()? } else { self.disk.live() };
        if power {
            self.disk = Disk::of(&*left).map_err(|e| e.to_string())?;
        }
        (self.store, self.recording) = Recording::over(left).map_err(|e| e.to_string())?;
        let next = self.fresh();
        let started = Session::start(&self.store, self.log2, Some(self.current), next);
        // Recovery itself is cut at every change.
        self.look_at_changes(usize::MAX)?;
        self.session = Some(started.map_err(failed("recovery failed"))?);
        self.current = next;
        self.look_now()?;
        for i in 0..FILES.len() {
            self.go_on_with(i, power).map_err(|what| format!("file {i} after the restart: {what}"))?;
        }
        self.look_at_changes(usize::MAX)
    }

    /// What the application finds in a file and what it does with it, when its own memory is gone.
    fn go_on_with(&mut self, i: usize, power: bool) -> Outcome {
        let session = self.session.as_mut().expect("a session runs");
        let expect = &mut self.expects[i];
        let owed = match session.read(i, expect.owed()) {
            Ok(bytes) => bytes,
            // Nothing is owed of a file that does not open: O_TRUNC.
            Err(_) if expect.owed() == 0 => {
                *expect = Expect::default();
                return session.replace(i).map_err(failed("replacing it"));
            }
            Err(error) => return Err(error.to_string()),
        };
        if let Some(broken) = expect.broken_by(&owed) {
            return Err(broken);
        }
        match session.read(i, usize::MAX) {
            Ok(all) => {
                expect.found(all);
                Ok(())
            }
            // What comes from a disk in any order may lack chunks, or tell of no hole: it is cut off.
            Err(_) if power => {
                let cut = session.file(i).and_then(|file| file.truncate(owed.len() as u64));
                expect.found(owed);
                cut.map_err(failed("cutting it"))
            }
            Err(error) => Err(format!("taken for damage: {error}")),
        }
    }

    /// Advances the disk by what was recorded and looks at crash states after each change.
    fn look_at_changes(&mut self, upto: usize) -> Outcome {
        for change in self.recording.take().into_iter().take(upto) {
            self.disk.advance(&change).map_err(|e| format!("replaying {change:?}: {e}"))?;
            self.changes += 1;
            self.look_now()?;
        }
        Ok(())
    }

    fn look_now(&mut self) -> Outcome {
        match self.look {
            Look::Draw(disks) => self.draw_disks(disks),
            Look::Stripes => self.stripe_disks(),
        }
    }

    fn stripe_disks(&mut self) -> Outcome {
        for (pages, first) in [(false, false), (false, true), (true, false), (true, true)] {
            let left = self.disk.cut(&mut Stripes::new(pages, first)).map_err(|e| e.to_string())?;
            self.look_at(&left)?;
            self.seen += 1;
        }
        Ok(())
    }

    fn draw_disks(&mut self, disks: u32) -> Outcome {
        for i in 0..disks {
            let left = self.cut()?;
            // In every second one the power fails again inside recovery.
            let left = if i % 2 == 1 { self.cut_recovery(left)? } else { left };
            self.look_at(&left)?;
            self.seen += 1;
        }
        Ok(())
    }

    /// Recovers, and gives what a power cut somewhere in it leaves.
    fn cut_recovery(&mut self, left: Arc<dyn Dir>) -> std::result::Result<Arc<dyn Dir>, String> {
        let mut disk = Disk::of(&*left).map_err(|e| e.to_string())?;
        let (store, recording) = Recording::over(left).map_err(|e| e.to_string())?;
        self.look_at(&store)?;
        let changes = recording.take();
        let upto = self.draw().below(changes.len() as u64 + 1) as usize;
        for change in &changes[..upto] {
            disk.advance(change).map_err(|e| e.to_string())?;
        }
        disk.cut(&mut self.draw()).map_err(|e| e.to_string())
    }

    /// Recovers a store and compares everything that is owed.
    fn look_at(&mut self, left: &Arc<dyn Dir>) -> Outcome {
        let now = self.fresh();
        let mut session =
            Session::start(left, self.log2, Some(self.current), now).map_err(failed("recovery failed"))?;
        for (i, expect) in self.expects.iter().enumerate().filter(|(_, e)| e.owed() > 0) {
            let bytes = session.read(i, expect.owed()).map_err(|e| format!("file {i}: {e}"))?;
            if let Some(broken) = expect.broken_by(&bytes) {
                return Err(format!("file {i}: {broken}"));
            }
        }
        Ok(())
    }

    /// Without any crash the application reads what it wrote.
    fn compare_live(&mut self) -> Outcome {
        let session = self.session.as_mut().expect("a session runs");
        for (i, expect) in self.expects.iter().enumerate() {
            let bytes = session.read(i, usize::MAX).map_err(|e| format!("file {i}, live: {e}"))?;
            if bytes != expect.now() {
                return Err(format!("file {i}, live: not what was written"));
            }
        }
        Ok(())
    }

    /// One of the disks that a power cut may leave now.
    fn cut(&mut self) -> std::result::Result<Arc<dyn Dir>, String> {
        let mut draw = self.draw();
        self.disk.cut(&mut draw).map_err(|e| e.to_string())
    }

    fn fresh(&mut self) -> u64 {
        self.newest += 1;
        self.newest
    }

    fn draw(&mut self) -> Draw {
        self.draws = self.draws.wrapping_add(1);
        Draw::new(self.draws)
    }
}

/// Bytes that tell writes and positions apart; never zero.
fn pattern(write: u8, len: usize) -> Vec<u8> {
    (0..len).map(|q| ((usize::from(write) * 17 + q) % 250) as u8 + 1).collect()
}
