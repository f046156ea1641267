//! Four writers and four readers of the same files.
//!
//! Linux does not say that a read through the page cache sees a write whole: on ext4 and tmpfs too a page is copied
//! out while it is copied into. So blocks are read whole in the two ways that promise it: under a lock of the block's
//! range, as programs do that share files; and with O_DIRECT, where one request of a reader meets one of a writer in
//! the engine. Blocks are half a chunk, so that neighbours in it are rewritten at once.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 64;

#[derive(Clone, Copy)]
enum Way {
    Locked,
    Direct,
}

/// Writers and readers of two files in `dir`, for that time in all.
///
/// # Panics
/// If a reader sees a block that is neither old nor new, or too few, or too few that are new.
pub fn four_writers_and_four_readers(dir: &Path, time: Duration) {
    for way in [Way::Locked, Way::Direct] {
        let (looks, new) = share(dir, way, time.div_f64(2.0));
        assert!(looks > 100 * BLOCKS, "only {looks} looks");
        assert!(new > BLOCKS, "only {new} of {looks} looks saw what had been written meanwhile");
    }
}

/// How often readers looked, and at another version than the one before. Every file has one writer and one reader in step, so that both halves of a chunk change.
fn share(dir: &Path, way: Way, time: Duration) -> (u64, u64) {
    for file in 0..2 {
        let all: Vec<u8> = (0..BLOCKS).flat_map(|n| block(file, n, 0)).collect();
        fs::write(dir.join(file.to_string()), all).expect("a file");
    }
    let end = Instant::now() + time;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4u64)
            .map(|worker| {
                let (file, part) = (worker % 2, worker / 2);
                let path = dir.join(file.to_string());
                scope.spawn({
                    let path = path.clone();
                    move || write_until(end, &path, way, file, part)
                });
                scope.spawn(move || read_until(end, &path, way, file))
            })
            .collect();
        let seen = readers.into_iter().map(|reader| reader.join().expect("a reader"));
        seen.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    })
}

/// Rewrites every second block of a file; the other writer has those between.
fn write_until(end: Instant, path: &Path, way: Way, file: u64, part: u64) {
    let handle = open(path, way);
    let mut version = 1;
    while Instant::now() < end {
        let n = version * 34 % BLOCKS + part;
        let bytes = block(file, n, version);
        let _lock = Lock::new(&handle, way, libc::F_WRLCK, n);
        handle.write_all_at(&bytes, n * BLOCK as u64).expect("write");
        if version % 50 == 0 {
            handle.sync_data().expect("sync");
        }
        version += 1;
    }
}

fn read_until(end: Instant, path: &Path, way: Way, file: u64) -> (u64, u64) {
    let handle = open(path, way);
    let mut bytes = vec![0u8; BLOCK];
    let (mut looks, mut new, mut last) = (0, 0, [0; BLOCKS as usize]);
    while Instant::now() < end {
        let n = looks * 13 % BLOCKS;
        {
            let _lock = Lock::new(&handle, way, libc::F_RDLCK, n);
            handle.read_exact_at(&mut bytes, n * BLOCK as u64).expect("read");
        }
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        assert_eq!((word(0), word(8)), (file, n));
        assert!(bytes == block(file, n, word(16)), "block {n} of file {file} is neither old nor new");
        new += u64::from(std::mem::replace(&mut last[n as usize], word(16)) != word(16));
        looks += 1;
    }
    (looks, new)
}

/// A block names file, place and version; the rest follows from these.
fn block(file: u64, n: u64, version: u64) -> Vec<u8> {
    let seed = file.wrapping_mul(31).wrapping_add(n).wrapping_mul(1_000_003).wrapping_add(version);
    let mut bytes = Vec::with_capacity(BLOCK);
    for word in [file, n, version] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend((24..BLOCK).map(|i| (seed.wrapping_mul(i as u64 | 1) >> 7) as u8));
    bytes
}

fn open(path: &Path, way: Way) -> File {
    let flags = match way {
        Way::Locked => 0,
        Way::Direct => libc::O_DIRECT,
    };
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).expect("open")
}

/// An OFD lock of one block, given back when dropped.
struct Lock<'a>(Option<(&'a File, u64)>);

impl<'a> Lock<'a> {
    fn new(file: &'a File, way: Way, kind: i32, n: u64) -> Self {
        match way {
            Way::Locked => {
                set_lock(file, kind, n);
                Self(Some((file, n)))
            }
            Way::Direct => Self(None),
        }
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        if let Some((file, n)) = self.0 {
            set_lock(file, libc::F_UNLCK, n);
        }
    }
}

fn set_lock(file: &File, kind: i32, n: u64) {
    // SAFETY: flock is a struct of numbers, for which zero is valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    (lock.l_start, lock.l_len) = ((n * BLOCK as u64) as i64, BLOCK as i64);
    // SAFETY: the descriptor is open, the lock outlives the call.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLKW, &lock) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}
