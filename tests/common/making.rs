//! Trees to be read back: every size, name, target and kind of object that the format treats differently.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use runvault_sequencer::{Read, RunSpec};
use rustix::fs::{CWD, FallocateFlags, FileType, Mode, XattrFlags, fallocate, mknodat, setxattr};

use crate::Random;

/// Plaintext bytes of a chunk, by default.
pub const CHUNK: usize = 8192;

const SIZES: [usize; 12] = [
    0,
    1,
    2,
    CHUNK - 1,
    CHUNK,
    CHUNK + 1,
    2 * CHUNK - 1,
    2 * CHUNK,
    2 * CHUNK + 1,
    5 * CHUNK + 4095,
    17 * CHUNK,
    200_001,
];

/// Files of edge sizes, directories, symlinks: what every way into a vault keeps.
///
/// # Panics
/// If one of them cannot be made.
pub fn plain_tree(at: &Path, random: &mut Random) {
    fs::create_dir_all(at).expect("a directory");
    for size in SIZES {
        file(&at.join(format!("of {size} bytes")), random.bytes(size), random);
    }
    for length in [1, 2, 139, 140, 141, 200, 254, 255] {
        file(&at.join(named(length, random)), random.bytes(100), random);
    }
    file(&at.join(OsStr::from_bytes(b"not utf-8 \xff\xfe \n \x7f")), b"a name of bytes".to_vec(), random);
    sparse(&at.join("sparse"), random);
    let mut deep = at.join("deep");
    for level in 0..40 {
        fs::create_dir(&deep).expect("a directory");
        if level % 7 == 0 {
            file(&deep.join("file"), random.bytes(level * 100), random);
        }
        deep = deep.join(if level % 10 == 3 {
            named(200, random)
        } else {
            PathBuf::from(format!("level {level}"))
        });
    }
    fs::create_dir(at.join("empty")).expect("a directory");
    fs::set_permissions(at.join("empty"), Permissions::from_mode(0o750)).expect("a mode");
    for length in [1, 100, 622, 623, 624, 625, 4000, 4094] {
        let target = named_bytes(length, b"abc/.", random);
        symlink(OsStr::from_bytes(&target), at.join(format!("link of {length} bytes"))).expect("a symlink");
    }
    symlink("/etc/passwd", at.join("link out of it")).expect("a symlink");
    symlink("../..", at.join(named(255, random))).expect("a symlink");
}

/// The run with five cycles, an index among them: markers, and files that are missing, show with no more.
pub fn of_few_cycles(spec: RunSpec) -> RunSpec {
    let reads = vec![Read { cycles: 3, indexed: false }, Read { cycles: 2, indexed: true }];
    RunSpec { reads, ..spec }
}

/// What else a mount keeps: several names of a file, attributes, special files, and a past.
///
/// # Panics
/// If one of them cannot be made.
pub fn full_tree(at: &Path, random: &mut Random) {
    plain_tree(at, random);
    let linked = at.join("deep/has three names");
    file(&linked, random.bytes(30_000), random);
    fs::hard_link(&linked, at.join("second name")).expect("a link");
    fs::hard_link(&linked, at.join("empty/third name")).expect("a link");
    fs::write(at.join("was linked"), b"one name again").expect("a file");
    fs::hard_link(at.join("was linked"), at.join("for a moment")).expect("a link");
    fs::remove_file(at.join("for a moment")).expect("unlink");

    let kind = |kind, name: &str| {
        mknodat(CWD, at.join(name), kind, Mode::from(0o640), 0).expect("a special file");
    };
    kind(FileType::Fifo, "fifo");
    kind(FileType::Socket, "socket");
    for (name, value) in attributes() {
        for path in [at.join("of 8192 bytes"), at.join("of 0 bytes"), at.join("empty"), at.to_owned()] {
            setxattr(&path, name.as_str(), &value, XattrFlags::empty()).expect("an attribute");
        }
    }
    changed(at, random);
}

/// Attributes that `full_tree` sets.
pub fn attributes() -> Vec<(String, Vec<u8>)> {
    let long = format!("user.{}", "n".repeat(125));
    vec![
        ("user.comment".to_owned(), b"of a file".to_vec()),
        ("user.empty".to_owned(), Vec::new()),
        (long, b"\0\xff value".to_vec()),
    ]
}

/// Files that were cut, grown, overwritten, punched, renamed.
fn changed(at: &Path, random: &mut Random) {
    let past = at.join("past");
    fs::create_dir(&past).expect("a directory");
    let open = |path: &Path| OpenOptions::new().write(true).open(path).expect("a file");
    let made = |name: &str, size: usize, random: &mut Random| {
        let path = past.join(name);
        fs::write(&path, random.bytes(size)).expect("a file");
        path
    };
    for (i, (from, to)) in [(70_000, 30_000), (30_000, 0), (10, 90_000), (CHUNK * 3, CHUNK * 2), (0, 50_000)]
        .into_iter()
        .enumerate()
    {
        let path = made(&format!("resized {i}"), from, random);
        open(&path).set_len(to as u64).expect("a length");
    }
    let emptied = made("emptied and written again", 60_000, random);
    let emptied = File::create(emptied).expect("a file");
    emptied.write_all_at(&random.bytes(20_000), 5_000).expect("written");
    let punched = open(&made("punched", 20 * CHUNK, random));
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&punched, punch, 3 * CHUNK as u64 + 100, 9 * CHUNK as u64).expect("a hole");
    let patched = open(&made("patched", 9 * CHUNK + 77, random));
    for _ in 0..30 {
        let at = random.below(9 * CHUNK as u64);
        patched.write_all_at(&random.bytes(1 + (at % 3000) as usize), at).expect("written");
        if at.is_multiple_of(4) {
            patched.sync_all().expect("synced");
        }
    }
    let renamed = made("name before", 12_345, random);
    fs::rename(&renamed, at.join(named(180, random))).expect("renamed");
    fs::create_dir(past.join("folder before")).expect("a directory");
    fs::write(past.join("folder before/file"), b"moved with its folder").expect("a file");
    fs::rename(past.join("folder before"), at.join("folder behind")).expect("renamed");
    fs::remove_file(made("removed", 1000, random)).expect("removed");
}

fn file(path: &Path, content: Vec<u8>, random: &mut Random) {
    fs::write(path, content).expect("a file");
    let mode = [0o600, 0o644, 0o755, 0o444, 0o640][random.below(5) as usize];
    let since = Duration::new(946_684_800 + random.below(800_000_000), random.below(1_000_000_000) as u32);
    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + since);
    File::open(path).and_then(|f| f.set_times(times)).expect("times");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
}

/// Pieces of data with nothing between them, and nothing behind the last.
fn sparse(path: &Path, random: &mut Random) {
    let file = File::create(path).expect("a file");
    for at in [0, 40_000, 3 * CHUNK as u64 * 32, 2_000_001] {
        file.write_all_at(&random.some(9000), at).expect("written");
    }
    file.set_len(3_000_000).expect("a length");
}

fn named(length: usize, random: &mut Random) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&named_bytes(
        length,
        b"abcdefghijklmnopqrstuvwxyz0123456789-_ +",
        random,
    )))
}

fn named_bytes(length: usize, of: &[u8], random: &mut Random) -> Vec<u8> {
    (0..length).map(|_| of[random.below(of.len() as u64) as usize]).collect()
}

/// The attributes of a file.
///
/// # Panics
/// If they cannot be read.
pub fn attributes_of(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::listxattr(path, &mut names).expect("attributes");
    let mut found: Vec<_> = names[..length]
        .split(|b| *b == 0)
        .filter(|name| name.starts_with(b"user."))
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::getxattr(path, name, &mut value).expect("an attribute");
            value.truncate(length);
            (String::from_utf8(name.to_vec()).expect("text"), value)
        })
        .collect();
    found.sort();
    found
}
