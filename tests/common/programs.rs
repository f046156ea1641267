//! Programs beside each other, each with its own files in directories that all of them use: each finds what it left.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::random::Random;

const PROGRAMS: u64 = 6;
const FILES: usize = 3;
const DIRS: [&str; 2] = ["d1", "d2"];
const CHUNK: u64 = 8192;

/// Programs in `dir`, for that time. What they left must be there later too: [`Left::verify`].
///
/// # Panics
/// If one does not find what it left.
pub fn beside_each_other(dir: &Path, time: Duration) -> Left {
    for name in DIRS {
        fs::create_dir(dir.join(name)).expect("a directory");
    }
    let end = Instant::now() + time;
    let files = std::thread::scope(|scope| {
        scope.spawn(|| look_around(dir, end));
        scope.spawn(|| forget_names(end));
        let programs: Vec<_> = (1..=PROGRAMS)
            .map(|me| {
                scope.spawn(move || {
                    let mut program =
                        Program { dir, me, random: Random::of(me), made: 0, files: BTreeMap::new() };
                    while Instant::now() < end {
                        program.step();
                    }
                    program.files
                })
            })
            .collect();
        programs.into_iter().flat_map(|program| program.join().expect("a program")).collect()
    });
    Left(files)
}

/// Names and contents of what programs left.
pub struct Left(BTreeMap<PathBuf, Vec<u8>>);

impl Left {
    /// # Panics
    /// If `dir` holds anything else.
    pub fn verify(&self, dir: &Path) {
        let listed: usize =
            DIRS.iter().map(|name| fs::read_dir(dir.join(name)).expect("a directory").count()).sum();
        assert_eq!(listed, self.0.len());
        for (name, content) in &self.0 {
            let found = fs::read(dir.join(name)).unwrap_or_else(|e| panic!("{}: {e}", name.display()));
            assert!(found == *content, "{} is another one in the end", name.display());
        }
    }
}

struct Program<'a> {
    dir: &'a Path,
    me: u64,
    random: Random,
    made: u64,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Program<'_> {
    fn new_name(&mut self) -> PathBuf {
        self.made += 1;
        // Some are of those that lie in a side file.
        let long = if self.random.below(10) == 0 { "n".repeat(200) } else { String::new() };
        let dir = DIRS[self.random.below(2) as usize];
        Path::new(dir).join(format!("{}-{}{long}", self.me, self.made))
    }

    fn content(&mut self) -> Vec<u8> {
        let len = match self.random.below(4) {
            0 => 1 + self.random.below(300),
            1 => CHUNK - 100 + self.random.below(200),
            2 => 1 + self.random.below(200_000),
            _ => 1 + self.random.below(30_000),
        };
        vec![self.random.below(256) as u8; len as usize]
    }

    fn place(&mut self, size: usize) -> usize {
        match self.random.below(3) {
            0 => self.random.below(size as u64 + 1) as usize,
            1 => size / CHUNK as usize * CHUNK as usize,
            _ => self.random.below(100_000) as usize,
        }
    }

    fn step(&mut self) {
        while self.files.len() < FILES {
            let name = self.new_name();
            drop(
                File::create_new(self.dir.join(&name))
                    .unwrap_or_else(|e| panic!("making {}: {e}", name.display())),
            );
            self.files.insert(name, Vec::new());
        }
        let nth = self.random.below(self.files.len() as u64) as usize;
        let name = self.files.keys().nth(nth).expect("a file").clone();
        let content = self.files.remove(&name).expect("its content");
        let what = self.random.below(17);
        let (name, content) = self.change(what, &name, content).unwrap_or_else(|e| {
            panic!("{} at step {what}: {e}", name.display());
        });
        if let Some(content) = content {
            self.verify(&name, &content, what);
            self.files.insert(name, content);
        }
    }

    /// Its name and content afterwards.
    fn change(
        &mut self,
        what: u64,
        name: &Path,
        mut content: Vec<u8>,
    ) -> std::io::Result<(PathBuf, Option<Vec<u8>>)> {
        let path = self.dir.join(name);
        match what {
            0..4 => {
                let more = self.content();
                OpenOptions::new().append(true).open(&path)?.write_all(&more)?;
                content.extend(more);
            }
            4..6 => {
                let (at, bytes) = (self.place(content.len()), self.content());
                let file = OpenOptions::new().read(true).write(true).open(&path)?;
                file.write_all_at(&bytes, at as u64)?;
                if self.random.below(5) == 0 {
                    file.sync_data()?;
                }
                content.resize(content.len().max(at + bytes.len()), 0);
                content[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            6 => {
                let size = self.place(content.len());
                OpenOptions::new().write(true).open(&path)?.set_len(size as u64)?;
                content.resize(size, 0);
            }
            7 | 8 => {
                let past =
                    SystemTime::UNIX_EPOCH + Duration::from_secs(1_400_000_000 + self.random.below(1000));
                File::open(&path)?.set_times(FileTimes::new().set_modified(past))?;
            }
            9 => fs::set_permissions(
                &path,
                Permissions::from_mode(0o600 + self.random.below(2) as u32 * 0o44),
            )?,
            10 | 11 => {
                let to = self.new_name();
                fs::rename(&path, self.dir.join(&to))?;
                return Ok((to, Some(content)));
            }
            12 => {
                let to = self.new_name();
                fs::hard_link(&path, self.dir.join(&to))?;
                fs::remove_file(&path)?;
                return Ok((to, Some(content)));
            }
            13 => {
                let (other, theirs) = self.files.pop_first().expect("another file");
                let flags = RenameFlags::EXCHANGE;
                renameat_with(CWD, &path, CWD, self.dir.join(&other), flags)?;
                self.verify(name, &theirs, what);
                self.files.insert(name.to_owned(), theirs);
                return Ok((other, Some(content)));
            }
            14 => {
                let (other, _) = self.files.pop_first().expect("another file");
                fs::rename(&path, self.dir.join(&other))?;
                return Ok((other, Some(content)));
            }
            15 => {
                content = self.content();
                fs::write(&path, &content)?;
            }
            _ => {
                fs::remove_file(&path)?;
                return Ok((name.to_owned(), None));
            }
        }
        Ok((name.to_owned(), Some(content)))
    }

    fn verify(&mut self, name: &Path, content: &[u8], what: u64) {
        let (path, told) = (self.dir.join(name), format!("{} after step {what}", name.display()));
        let size = fs::metadata(&path).unwrap_or_else(|e| panic!("{told}: {e}")).len();
        assert_eq!(size, content.len() as u64, "{told}");
        if self.random.below(3) == 0 {
            let mut entries = fs::read_dir(path.parent().expect("a directory")).expect("a listing");
            let entry =
                entries.find_map(|entry| entry.ok().filter(|e| Some(&*e.file_name()) == name.file_name()));
            let entry = entry.unwrap_or_else(|| panic!("{told} is not listed"));
            assert_eq!(entry.metadata().expect("metadata").len(), content.len() as u64, "{told}, as listed");
        }
        if self.random.below(3) == 0 {
            let found = fs::read(&path).unwrap_or_else(|e| panic!("{told}: {e}"));
            assert!(found == content, "{told}: another content");
        }
    }
}

/// Lists, and reads of everything a little, whoever removes it meanwhile.
fn look_around(dir: &Path, end: Instant) {
    let mut bytes = [0; 5000];
    while Instant::now() < end {
        for name in DIRS {
            for entry in fs::read_dir(dir.join(name)).expect("a listing").filter_map(Result::ok) {
                let _ = entry.metadata();
                let _ = File::open(entry.path()).and_then(|mut file| file.read(&mut bytes));
            }
        }
    }
}

/// Where the tests are root, the kernel forgets names and inodes that are not in use.
fn forget_names(end: Instant) {
    while Instant::now() < end {
        let _ = fs::write("/proc/sys/vm/drop_caches", "2");
        std::thread::sleep(Duration::from_millis(300));
    }
}
