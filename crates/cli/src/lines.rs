//! Lines that a thread of their own writes, so that whoever has one to say never waits for the place where it goes: a log
//! on a file system that hangs, a pipe that nobody reads.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

/// Bytes that wait at most; a line more than that is lost.
const ROOM: usize = 1 << 20;
/// How long whoever ends waits for what has not been written yet.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where lines are left for the thread.
#[derive(Clone)]
pub struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Entry>,
    /// What the entries that wait take.
    size: usize,
    /// Lines that found no room, since the last one that did.
    lost: u64,
    /// One was taken out and is not written yet.
    writing: bool,
    /// Somebody waited for it in vain: nobody else does, until it is written.
    stuck: bool,
}

struct Entry {
    /// Lines that were lost just before it.
    lost: u64,
    line: Vec<u8>,
}

impl Entry {
    fn size(&self) -> usize {
        self.line.len().saturating_add(size_of::<Entry>())
    }
}

impl State {
    fn is_behind(&self) -> bool {
        self.writing || self.lost > 0 || !self.waiting.is_empty()
    }
}

impl Lines {
    /// Starts the thread, which `write`s one line after the other for as long as the process lives; `lost` is the line
    /// that says how many are missing in its place.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        name: &str,
        write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
        lost: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> io::Result<Lines> {
        let lines = Lines(Arc::default());
        let shared = Arc::clone(&lines.0);
        // Never joined: it may hang where it writes.
        Builder::new().name(name.into()).spawn(move || shared.write_all(write, lost))?;
        Ok(lines)
    }

    /// Leaves a line, with its end.
    pub fn put(&self, line: Vec<u8>) {
        let mut state = self.0.lock();
        let mut entry = Entry { lost: 0, line };
        // Once it was full, until half is written: what is missing is told once, not before each line.
        let room = if state.lost > 0 { ROOM / 2 } else { ROOM };
        if state.size.saturating_add(entry.size()) > room {
            state.lost += 1;
        } else {
            entry.lost = std::mem::take(&mut state.lost);
            state.size += entry.size();
            state.waiting.push_back(entry);
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits a moment until all is written that was left.
    pub fn flush(&self) {
        let state = self.0.lock();
        if !state.stuck {
            let waited = self.0.changed.wait_timeout_while(state, FAREWELL, |state| state.is_behind());
            let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            state.stuck = waited.timed_out();
        }
    }
}

impl Shared {
    fn write_all(&self, mut write: impl FnMut(&[u8]) -> io::Result<()>, lost: impl Fn(u64) -> Vec<u8>) {
        let mut missing: u64 = 0;
        loop {
            let entry = self.next();
            missing = missing.saturating_add(entry.lost);
            if missing > 0 && write(&lost(missing)).is_ok() {
                missing = 0;
            }
            // Nobody can be told now that telling failed: the next line that is written says it.
            if !entry.line.is_empty() && write(&entry.line).is_err() {
                missing += 1;
            }
            let mut state = self.lock();
            (state.writing, state.stuck) = (false, false);
            drop(state);
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Entry {
        let nothing = |state: &mut State| state.waiting.is_empty() && state.lost == 0;
        let mut state = self.changed.wait_while(self.lock(), nothing).unwrap_or_else(PoisonError::into_inner);
        let next = state.waiting.pop_front();
        let entry = next.unwrap_or_else(|| Entry { lost: std::mem::take(&mut state.lost), line: Vec::new() });
        state.size = state.size.saturating_sub(entry.size());
        state.writing = true;
        entry
    }

    /// A panic elsewhere does not make these few numbers wrong.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    use super::*;

    /// A place that takes a line only when it is let, and what came there.
    struct Place {
        lines: Lines,
        begun: Receiver<()>,
        let_in: Sender<io::Result<()>>,
        written: Arc<Mutex<Vec<String>>>,
    }

    impl Place {
        fn new() -> Self {
            let (begin, begun) = channel();
            let (let_in, admitted) = channel();
            let written = Arc::new(Mutex::new(Vec::new()));
            let shared = Arc::clone(&written);
            let write = move |line: &[u8]| {
                begin.send(()).unwrap();
                admitted.recv().map_err(io::Error::other)??;
                shared.lock().unwrap().push(String::from_utf8(line.to_vec()).unwrap());
                Ok(())
            };
            let lost = |n: u64| format!("{n} lost").into_bytes();
            Self { lines: Lines::start("place", write, lost).unwrap(), begun, let_in, written }
        }

        fn written(&self) -> Vec<String> {
            self.written.lock().unwrap().clone()
        }

        fn settle(&self) {
            while self.lines.0.lock().is_behind() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }

        fn let_in(&self, n: usize) {
            for _ in 0..n {
                self.let_in.send(Ok(())).unwrap();
            }
        }
    }

    #[test]
    fn nobody_waits_for_a_place_that_takes_nothing_and_what_does_not_fit_is_counted() {
        let place = Place::new();
        let line = |n: usize| format!("{n:0100}");
        let begun = Instant::now();
        // The thread has the first one in hand, so that the rest fills the room alone.
        place.lines.put(line(0).into());
        place.begun.recv().unwrap();
        let fit = ROOM / (100 + size_of::<Entry>());
        for n in 1..=2 * fit {
            place.lines.put(line(n).into());
        }
        assert!(place.lines.0.lock().size <= ROOM, "what waits is bounded");
        assert!(begun.elapsed() < Duration::from_secs(20), "somebody waited");

        // Until half of it is written, the gap grows; then it is told, once and in its place.
        place.let_in(fit / 4);
        for _ in 0..fit / 4 {
            place.begun.recv().unwrap();
        }
        place.lines.put("in the gap".into());
        place.let_in(fit / 2);
        for _ in 0..fit / 2 {
            place.begun.recv().unwrap();
        }
        place.lines.put("after it".into());
        place.let_in(fit);
        place.settle();
        let mut expected: Vec<_> = (0..=fit).map(line).collect();
        expected.extend([format!("{} lost", fit + 1), "after it".to_owned()]);
        assert_eq!(place.written(), expected);
    }

    #[test]
    fn a_gap_at_the_end_is_told_without_another_line() {
        let place = Place::new();
        place.lines.put(vec![b'x'; ROOM + 1]);
        place.let_in(1);
        place.settle();
        assert_eq!(place.written(), ["1 lost"]);
    }

    #[test]
    fn a_line_that_fails_is_told_with_the_next_that_does_not() {
        let place = Place::new();
        for line in ["a", "b", "c"] {
            place.lines.put(line.into());
        }
        place.let_in.send(Ok(())).unwrap();
        for _ in 0..2 {
            // b, and before c that b is missing.
            place.let_in.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        }
        place.let_in(1);
        place.settle();
        assert_eq!(place.written(), ["a", "c"]);
        place.lines.put("d".into());
        place.let_in(2);
        place.settle();
        assert_eq!(place.written(), ["a", "c", "1 lost", "d"]);
    }

    #[test]
    fn who_ends_waits_for_what_is_left_and_only_for_a_moment() {
        let place = Place::new();
        place.lines.put("last".into());
        let begun = Instant::now();
        place.lines.flush();
        assert!((FAREWELL..10 * FAREWELL).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        let again = Instant::now();
        place.lines.flush();
        assert!(again.elapsed() < FAREWELL, "it was known to be stuck");
        place.let_in(1);
        place.settle();
        let let_in = place.let_in.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            let_in.send(Ok(())).unwrap();
        });
        place.lines.put("the very last".into());
        place.lines.flush();
        assert_eq!(place.written(), ["last", "the very last"]);
    }
}
