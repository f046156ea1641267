//! Programs that read, in one mount, what others write in another one: each byte that they see was written there, of the
//! file that they have open.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::random::Random;

const WRITERS: u64 = 3;
const READERS: u64 = 4;
const FILES: usize = 3;
/// Contents: a file has one, of which it shows more or less.
const CONTENTS: u64 = 255;
const CHUNK: u64 = 8192;
/// A reader's mount sees what others did a second later; the rest is a busy machine's.
const LATER: Duration = Duration::from_secs(10);

/// Writers in `written`, readers in each of `read`, which show the same directory, for that time. Afterwards readers
/// find what the writers left.
///
/// # Panics
/// If a reader sees what nobody wrote, or gets errors for more than a look in a hundred: EIO says that a writer was held up
/// for long between two calls of one change.
pub fn readers_of_what_is_written(written: &Path, read: &[PathBuf], time: Duration) {
    let (end, looks, errors) = (Instant::now() + time, AtomicU64::new(0), AtomicU64::new(0));
    let left = std::thread::scope(|scope| {
        for dir in read {
            for me in 0..READERS {
                let counts = (&looks, &errors);
                scope.spawn(move || read_until(end, dir, &mut Random::of(100 + me), counts));
            }
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|me| {
                let files = BTreeMap::new();
                let mut writer = Writer { dir: written, me, random: Random::of(me), made: 0, files };
                scope.spawn(move || {
                    while Instant::now() < end {
                        writer.step();
                    }
                    writer.files
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer")).collect::<BTreeMap<_, _>>()
    });
    let (looks, errors) = (looks.into_inner(), errors.into_inner());
    assert!(looks > 200 && errors * 100 <= looks, "{looks} looks, {errors} errors");
    let until = Instant::now() + LATER;
    for dir in read {
        for (name, content) in &left {
            while !fs::read(dir.join(name)).is_ok_and(|found| found == content.bytes(0, content.len)) {
                assert!(Instant::now() < until, "{} stays another one for readers", name.display());
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let names = fs::read_dir(dir).expect("a listing").count();
        assert_eq!(names, left.len(), "{}", dir.display());
    }
}

/// The first `len` bytes of content `n`. No byte is zero, and each tells the content by its place.
#[derive(Clone, Copy)]
struct Content {
    n: u64,
    len: u64,
}

impl Content {
    fn bytes(self, from: u64, to: u64) -> Vec<u8> {
        (from..to).map(|at| ((self.n + at + at / 251) % CONTENTS) as u8 + 1).collect()
    }

    /// Which one has `byte` at that place.
    fn of(byte: u8, at: u64) -> Option<u64> {
        Some((u64::from(byte.checked_sub(1)?) + 2 * CONTENTS - (at + at / 251) % CONTENTS) % CONTENTS)
    }
}

struct Writer<'a> {
    dir: &'a Path,
    me: u64,
    random: Random,
    made: u64,
    files: BTreeMap<PathBuf, Content>,
}

impl Writer<'_> {
    fn step(&mut self) {
        let name = PathBuf::from(format!("{}-{}", self.me, self.random.below(FILES as u64)));
        let told = name.display().to_string();
        self.change(&name).unwrap_or_else(|e| panic!("{told}: {e}"));
        if self.random.below(4) == 0 {
            std::thread::sleep(Duration::from_millis(self.random.below(30)));
        }
    }

    fn len(&mut self) -> u64 {
        match self.random.below(4) {
            0 => 1 + self.random.below(300),
            1 => CHUNK - 100 + self.random.below(200),
            2 => 1 + self.random.below(150_000),
            _ => 1 + self.random.below(30_000),
        }
    }

    fn change(&mut self, name: &Path) -> io::Result<()> {
        let path = self.dir.join(name);
        let Some(mut content) = self.files.get(name).copied() else {
            return self.make(name);
        };
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        match self.random.below(12) {
            0..5 => {
                let more = self.len();
                file.write_all_at(&content.bytes(content.len, content.len + more), content.len)?;
                content.len += more;
            }
            5 | 6 => {
                content.len = self.random.below(content.len + 1);
                file.set_len(content.len)?;
            }
            // As InterOp is rewritten.
            7 => {
                let from = self.random.below(content.len + 1);
                let to = content.len.min(from + self.len());
                file.write_all_at(&content.bytes(from, to), from)?;
            }
            8 | 9 => {
                // It goes with what waits.
                let more = self.len();
                file.write_all_at(&content.bytes(content.len, content.len + more), content.len)?;
                fs::remove_file(&path)?;
                self.files.remove(name);
                return Ok(());
            }
            _ => return self.make(name),
        }
        if self.random.below(3) == 0 {
            file.sync_data()?;
        }
        self.files.insert(name.to_owned(), content);
        Ok(())
    }

    /// A new file there, whatever stands at its name.
    fn make(&mut self, name: &Path) -> io::Result<()> {
        self.made += 1;
        let content = Content { n: (self.me * 85 + self.made) % CONTENTS, len: self.len() };
        let (path, bytes) = (self.dir.join(name), content.bytes(0, content.len));
        if self.files.contains_key(name) {
            let new = path.with_extension("new");
            fs::write(&new, bytes)?;
            fs::rename(new, &path)?;
        } else {
            fs::write(&path, bytes)?;
        }
        self.files.insert(name.to_owned(), content);
        Ok(())
    }
}

fn read_until(end: Instant, dir: &Path, random: &mut Random, (looks, errors): (&AtomicU64, &AtomicU64)) {
    while Instant::now() < end {
        let name = format!("{}-{}", random.below(WRITERS), random.below(FILES as u64));
        match look_into(&dir.join(&name), random) {
            Ok(()) => drop(looks.fetch_add(1, Ordering::Relaxed)),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(e) if e.raw_os_error() == Some(libc::EIO) => drop(errors.fetch_add(1, Ordering::Relaxed)),
            Err(e) => panic!("{name}: {e}"),
        }
    }
}

/// Reads of one open file.
fn look_into(path: &Path, random: &mut Random) -> io::Result<()> {
    let file = File::open(path)?;
    let mut known = None;
    let mut bytes = vec![0; 200_000];
    for _ in 0..random.below(12) {
        let size = file.metadata()?.len();
        let at = match random.below(3) {
            0 => 0,
            1 => size.saturating_sub(random.below(9000)),
            _ => random.below(size + 1),
        };
        let most = [5000, bytes.len() as u64][random.below(2) as usize];
        let want = 1 + random.below(most) as usize;
        let got = file.read_at(&mut bytes[..want], at)?;
        for (place, byte) in (at..).zip(&bytes[..got]) {
            let found = Content::of(*byte, place);
            let known = *known.get_or_insert(found);
            let told = || format!("{} at {place} ({got} bytes from {at}, size {size})", path.display());
            assert!(found.is_some(), "a zero that nobody wrote: {}", told());
            assert_eq!(found, known, "of another content: {}", told());
        }
        if random.below(3) == 0 {
            std::thread::sleep(Duration::from_millis(random.below(40)));
        }
    }
    Ok(())
}
