//! Writes a run folder as an instrument does: its files in its order, in one of its ways of writing.

mod growth;
mod manner;
pub mod place;
mod tail;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use growth::Growth;
use manner::{Hand, Manner};
pub use manner::{MODES, Mode};
use place::{Directory, Place};
pub use tail::Tail;

use crate::copy_log::CopyLog;
use crate::layout::File;
use crate::schedule::{self, Batch, Send, Writer};
use crate::spec::RunSpec;
use crate::synthetic::{self, text};
use crate::{Error, Result};

/// A run to be written.
pub struct Replay {
    spec: RunSpec,
    batches: Vec<Batch>,
    mode: Mode,
    speed: Option<f64>,
    hands: usize,
    readers: usize,
    originals: Option<PathBuf>,
    place: Arc<dyn Place>,
    patience: Duration,
    stop: Arc<AtomicBool>,
}

/// How long a copy service waits before it sends a file again.
const AGAIN: Duration = Duration::from_millis(200);

/// One file has been written; the numbers are of the whole run up to now.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Path within the run folder.
    pub path: String,
    /// The last cycle that is complete.
    pub cycle: u32,
    /// Cycles of the run.
    pub cycles: u32,
    /// Files written, counted anew each time they are sent.
    pub files: u64,
    /// Files that will have been written in the end.
    pub files_in_all: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Time spent in calls to the file system, without the making of the data; of several hands the sum.
    pub writing: Duration,
}

/// A run that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The run folder.
    pub folder: PathBuf,
    /// Files written, counted anew each time they were sent.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Time spent in calls to the file system, as in [`Event::writing`].
    pub writing: Duration,
    /// The longest that one file took.
    pub longest_write: Duration,
    /// How often readers looked, and found old or new bytes ([`Mode::Tailed`]).
    pub looks: u64,
    /// The longest that one look took.
    pub longest_look: Duration,
}

impl Replay {
    /// What an instrument of the run's family would write, sequentially and without waiting.
    #[must_use]
    pub fn new(spec: RunSpec) -> Self {
        let batches = schedule::of_family(&spec);
        Self {
            spec,
            batches,
            mode: Mode::Sequential,
            speed: None,
            hands: 1,
            readers: 1,
            originals: None,
            place: Arc::new(Directory),
            patience: Duration::ZERO,
            stop: Arc::default(),
        }
    }

    /// What a real instrument sent, by its log.
    #[must_use]
    pub fn after_log(spec: RunSpec, log: &CopyLog) -> Self {
        let batches = schedule::of_log(&spec, log);
        Self { batches, ..Self::new(spec) }
    }

    /// How files are written.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Waits between batches as the instrument does, this many times faster. Without it nothing waits.
    #[must_use]
    pub fn speed(mut self, factor: f64) -> Self {
        self.speed = (factor > 0.0).then_some(factor);
        self
    }

    /// Files of a batch that are written at the same time, as by an instrument's copy service.
    #[must_use]
    pub fn hands(mut self, hands: usize) -> Self {
        self.hands = hands.clamp(1, 64);
        self
    }

    /// Readers that follow it in [`Mode::Tailed`].
    #[must_use]
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers.clamp(1, 64);
        self
    }

    /// How long the instrument takes, from its first file to its last.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.batches.last().map_or(Duration::ZERO, |batch| batch.at)
    }

    /// A real run folder: its files are sent where they exist, synthetic ones in their place otherwise.
    #[must_use]
    pub fn originals(mut self, folder: &Path) -> Self {
        self.originals = Some(folder.to_owned());
        self
    }

    /// Written there instead of to a directory of this machine.
    #[must_use]
    pub fn place(mut self, place: Arc<dyn Place>) -> Self {
        self.place = place;
        self
    }

    /// A file that could not be written is sent again, from its start, for so long: as copy services do. Without it
    /// the first failure ends the run.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Ends before the next file once this is set.
    #[must_use]
    pub fn stopped_by(mut self, stop: Arc<AtomicBool>) -> Self {
        self.stop = stop;
        self
    }

    /// Writes the folder `dir/<name of the run>`.
    ///
    /// # Errors
    /// [`Error::Spec`] before anything is written; [`Error::Io`] at the first call that fails;
    /// [`Error::Garbage`] if a reader saw what was never written ([`Mode::Tailed`]); [`Error::Stopped`].
    pub fn run(&self, dir: &Path, progress: &mut dyn FnMut(Event)) -> Result<Summary> {
        self.spec.validate()?;
        let folder = dir.join(&self.spec.name);
        self.persistently(|| self.place.make_dirs(&folder).map_err(Error::io(&folder)))?;
        let growth = Growth::new(self.spec.clone());
        let readers = if self.mode == Mode::Tailed { self.readers } else { 0 };
        let tails: Vec<_> = (0..readers).map(|_| Tail::start(&self.place, &folder, &growth)).collect();
        let mut written = self.write_all(&folder, &growth, progress);
        for looked in tails.into_iter().map(Tail::stop) {
            let looked = looked?;
            if let Ok(sum) = &mut written {
                sum.looks += looked.times;
                sum.longest_look = sum.longest_look.max(looked.longest);
            }
        }
        written
    }

    fn write_all(&self, folder: &Path, growth: &Growth, progress: &mut dyn FnMut(Event)) -> Result<Summary> {
        let files_in_all = self.batches.iter().map(|batch| batch.sends.len() as u64).sum();
        let begun = Instant::now();
        let mut sum = Summary {
            folder: folder.to_owned(),
            files: 0,
            bytes: 0,
            writing: Duration::ZERO,
            longest_write: Duration::ZERO,
            looks: 0,
            longest_look: Duration::ZERO,
        };
        for batch in &self.batches {
            self.wait(begun, batch.at);
            self.write_batch(folder, growth, batch, &mut |path, written| {
                sum.files += 1;
                sum.bytes += written.bytes;
                sum.writing += written.took;
                sum.longest_write = sum.longest_write.max(written.took);
                progress(Event {
                    path,
                    cycle: batch.cycle,
                    cycles: self.spec.cycles(),
                    files: sum.files,
                    files_in_all,
                    bytes: sum.bytes,
                    writing: sum.writing,
                });
            })?;
        }
        Ok(sum)
    }

    fn wait(&self, begun: Instant, at: Duration) {
        let Some(speed) = self.speed else { return };
        let due = Duration::try_from_secs_f64(at.as_secs_f64() / speed).unwrap_or(Duration::MAX);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }

    /// Writes one batch, by as many hands as are wanted; the first failure ends it.
    fn write_batch(
        &self,
        folder: &Path,
        growth: &Growth,
        batch: &Batch,
        done: &mut dyn FnMut(String, Written),
    ) -> Result<()> {
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            for sends in self.shares(batch) {
                let sender = sender.clone();
                scope.spawn(move || {
                    for send in sends {
                        let written = self.write(folder, growth, send, batch.cycle);
                        let failed = written.is_err();
                        // Nobody listens any more once another hand has failed.
                        if sender.send(written.map(|written| (send.path.clone(), written))).is_err() || failed
                        {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for written in receiver {
                let (path, written) = written?;
                done(path, written);
            }
            Ok(())
        })
    }

    fn shares<'a>(&self, batch: &'a Batch) -> Vec<Vec<&'a Send>> {
        if self.mode == Mode::TwoWriters {
            let of = |writer| batch.sends.iter().filter(|send| send.writer == writer).collect();
            return vec![of(Writer::BaseCaller), of(Writer::Control)];
        }
        let mut shares = vec![Vec::new(); self.hands];
        for (send, hand) in batch.sends.iter().zip((0..self.hands).cycle()) {
            if let Some(share) = shares.get_mut(hand) {
                share.push(send);
            }
        }
        shares
    }

    fn write(&self, folder: &Path, growth: &Growth, send: &Send, cycle: u32) -> Result<Written> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let path = folder.join(&send.path);
        let (bytes, manner) = self.bytes(growth, send, cycle)?;
        let hand = Hand { seed: self.spec.seed ^ u64::from(send.turn.0), place: &*self.place, path: &path };
        let begun = Instant::now();
        let written = self.persistently(|| hand.write(&bytes, manner))?;
        Ok(Written { bytes: written, took: begun.elapsed() })
    }

    fn persistently<T>(&self, send: impl Fn() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        loop {
            match send() {
                Err(Error::Io { .. }) if begun.elapsed() < self.patience => std::thread::sleep(AGAIN),
                done => return done,
            }
        }
    }

    fn bytes(&self, growth: &Growth, send: &Send, cycle: u32) -> Result<(Vec<u8>, Manner)> {
        if let Some(original) = self.original(send)? {
            return Ok((original, self.mode.whole(send.turn.0)));
        }
        if synthetic::grows(&send.file) {
            return Ok((growth.up_to(&send.path, &send.file, cycle), self.mode.growing()));
        }
        let bytes = synthetic::content_after(&self.spec, &send.file, cycle)?;
        let replaced = send.file == File::Text(text::RUN_STATE.into());
        Ok((bytes, if replaced { self.mode.replaced() } else { self.mode.whole(send.turn.0) }))
    }

    /// A real file, of which each sending has a longer part if it was sent often.
    fn original(&self, send: &Send) -> Result<Option<Vec<u8>>> {
        let Some(originals) = &self.originals else { return Ok(None) };
        let path = originals.join(&send.path);
        if !path.is_file() {
            return Ok(None);
        }
        let mut bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        if synthetic::grows(&send.file) {
            let (turn, turns) = send.turn;
            let part = bytes.len() as u128 * u128::from(turn) / u128::from(turns.max(1));
            bytes.truncate(usize::try_from(part).unwrap_or(usize::MAX));
        }
        Ok(Some(bytes))
    }
}

/// Writes one file of any kind, as the mode writes what is sent whole; says how many bytes were written for it.
///
/// # Errors
/// [`Error::Io`] at the first call that fails.
pub fn send(place: &dyn Place, path: &Path, bytes: &[u8], mode: Mode) -> Result<u64> {
    Hand { seed: bytes.len() as u64, place, path }.write(bytes, mode.whole(1))
}

struct Written {
    bytes: u64,
    took: Duration,
}
