//! Readers that follow a run while it is written, as viewers of InterOp do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::growth::Growth;
use super::place::Place;
use crate::synthetic::text;
use crate::{Error, Result};

/// How often a look that saw zeros in a file which grows is taken again.
///
/// Linux takes a file's length first and its pages then, with no lock over both: beside a truncation the pages come
/// back empty for a part of the old length, on tmpfs and ext4 as through FUSE. Zeros that stay are no such ones.
const AGAIN: usize = 20;

/// A reader in a thread of its own. Of a file that grows, whatever it sees must begin the file, though
/// perhaps not all of it; a file that is replaced must be wholly the old or the new one.
pub struct Tail {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Looks>>,
}

/// What a reader saw: nothing that was never written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Looks {
    /// How often it looked.
    pub times: u64,
    /// The longest that one look took.
    pub longest: Duration,
}

impl Tail {
    pub(super) fn start(place: &Arc<dyn Place>, folder: &Path, growth: &Growth) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let reader = Reader { place: Arc::clone(place), folder: folder.to_owned(), growth: growth.clone() };
        let until = Arc::clone(&stop);
        Self { stop, thread: std::thread::spawn(move || reader.follow(&until)) }
    }

    /// Ends it.
    ///
    /// # Errors
    /// [`Error::Garbage`] if it saw what was never written, [`Error::Io`] if reading failed.
    pub fn stop(self) -> Result<Looks> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

struct Reader {
    place: Arc<dyn Place>,
    folder: PathBuf,
    growth: Growth,
}

impl Reader {
    /// Looks at everything once more after the end.
    fn follow(&self, stop: &AtomicBool) -> Result<Looks> {
        let mut looks = Looks::default();
        loop {
            let last = stop.load(Ordering::Acquire);
            for path in self.growth.paths() {
                self.look_at_growing(&path, &mut looks)?;
            }
            self.look(text::RUN_STATE, &mut looks, |seen| self.first_wrong_of_state(seen))?;
            if last {
                return Ok(looks);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn look_at_growing(&self, path: &str, looks: &mut Looks) -> Result<()> {
        let mut again = AGAIN;
        loop {
            let mut emptied = false;
            let look = self.look(path, looks, |seen| {
                let wrong = self.growth.first_wrong(path, seen);
                emptied = wrong.is_some_and(|at| seen.get(at) == Some(&0));
                wrong
            });
            if !emptied || again == 0 {
                return look;
            }
            again -= 1;
        }
    }

    fn look(
        &self,
        path: &str,
        looks: &mut Looks,
        first_wrong: impl FnOnce(&[u8]) -> Option<usize>,
    ) -> Result<()> {
        let path = self.folder.join(path);
        let begun = Instant::now();
        let seen = match self.place.read(&path) {
            Ok(seen) => seen,
            // Announced, but not yet created.
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(failed) => return Err(Error::io(&path)(failed)),
        };
        looks.times += 1;
        looks.longest = looks.longest.max(begun.elapsed());
        first_wrong(&seen).map_or(Ok(()), |offset| Err(Error::Garbage { path, offset }))
    }

    fn first_wrong_of_state(&self, seen: &[u8]) -> Option<usize> {
        let cycle = std::str::from_utf8(seen).ok().and_then(text::cycle_of_state);
        let Some(cycle) = cycle else { return Some(0) };
        let known = text::run_state(self.growth.spec(), cycle).into_bytes();
        let differs = seen.iter().zip(&known).position(|(seen, known)| seen != known);
        differs.or((seen.len() != known.len()).then_some(known.len().min(seen.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Family;
    use crate::layout::File;
    use crate::replay::place::Directory;
    use crate::spec::{RunSpec, Size};

    #[test]
    fn garbage_is_seen() {
        let spec = RunSpec::preset(Family::MiSeq, Size::Tiny);
        for (content, wrong_at) in
            [(&[2u8, 10][..], None), (&[2, 10, 0, 0, 0, 0], Some(2)), (&[0, 0], Some(0))]
        {
            let dir = tempfile::tempdir().unwrap();
            let growth = Growth::new(spec.clone());
            let file = File::Metric { metric: "Tile".into(), cycle: None };
            growth.up_to("InterOp/TileMetricsOut.bin", &file, 1);
            std::fs::create_dir(dir.path().join("InterOp")).unwrap();
            std::fs::write(dir.path().join("InterOp/TileMetricsOut.bin"), content).unwrap();
            let place: Arc<dyn Place> = Arc::new(Directory);
            let seen = Tail::start(&place, dir.path(), &growth).stop();
            match (seen, wrong_at) {
                (Ok(looks), None) => assert!(looks.times > 0),
                (Err(Error::Garbage { offset, .. }), Some(at)) => assert_eq!(offset, at),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_mixture_of_two_states_is_seen() {
        let spec = RunSpec::preset(Family::MiSeq, Size::Tiny);
        let (old, new) = (text::run_state(&spec, 3), text::run_state(&spec, 4));
        let reader = Reader { place: Arc::new(Directory), folder: PathBuf::new(), growth: Growth::new(spec) };
        assert_eq!(reader.first_wrong_of_state(new.as_bytes()), None);
        let mixed = [&new.as_bytes()[..800], &old.as_bytes()[800..]].concat();
        assert!(reader.first_wrong_of_state(&mixed).is_some_and(|at| at >= 800));
        assert!(reader.first_wrong_of_state(&new.as_bytes()[..800]).is_some());
    }
}
