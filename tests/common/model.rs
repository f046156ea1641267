//! Random operations on a mount and on a plain directory beside it: same outcome, same tree.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, XattrFlags};
use rustix::fs::{mknodat, removexattr, renameat_with, setxattr};

use crate::making::attributes_of;
use crate::snapshot::{assert_same, snapshot};
use crate::{Mount, Site};

#[derive(Clone, Debug)]
enum Op {
    Write { file: usize, at: u64, len: usize, byte: u8, sync: bool },
    Exclusive { file: usize, len: usize, byte: u8 },
    Append { file: usize, len: usize, byte: u8 },
    Rewrite { file: usize, len: usize, byte: u8 },
    Truncate { file: usize, len: u64 },
    Punch { file: usize, at: u64, len: u64 },
    Allocate { file: usize, at: u64, len: u64, keep_size: bool },
    Zero { file: usize, at: u64, len: u64, keep_size: bool },
    Read { file: usize, at: u64, len: usize },
    Rename { from: usize, to: usize },
    Exchange { from: usize, to: usize },
    NoReplace { from: usize, to: usize },
    Link { from: usize, to: usize },
    Symlink { target: String, at: usize },
    Unlink { at: usize },
    Mknod { at: usize, fifo: bool },
    Mkdir { at: usize },
    Rmdir { at: usize },
    Chmod { at: usize, mode: u32 },
    Chown { at: usize, user: Option<u32>, group: Option<u32> },
    SetAttribute { at: usize, name: &'static str, len: usize, byte: u8 },
    RemoveAttribute { at: usize, name: &'static str },
    Times { at: usize, seconds: u64, nanos: u32 },
    Remount,
}

/// A small world of names, so that operations meet.
const NAMES: [&str; 9] = ["a", "b", "d1", "d1/a", "d1/b", "d2", "d2/a", "d1/d3", "d1/d3/a"];

fn sizes() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..64, 8180u64..8210, 16370u64..16400, 0u64..70_000, Just(1 << 20)]
}

/// Of symlinks: none leads out of this world, where a mount's top begins, which is no plain directory.
const TARGETS: [&str; 8] = ["a", "b", "d1", "d2/a", "d1/d3", "./d1//b", ".", "d1/nowhere"];
/// Of attributes.
const ATTRIBUTES: [&str; 3] =
    ["user.a", "user.b", "user.a longer name than most programs give to an attribute"];

/// Lengths of attributes' values, in bytes: all attributes of a file lie in one block of ext4, so that with what
/// encryption adds fewer fit into the store than into the plain directory. Three of these fit into both.
const VALUES: usize = 1200;

fn op() -> impl Strategy<Value = Op> {
    let name = || 0..NAMES.len();
    let target = || prop_oneof![prop::sample::select(&TARGETS[..]).prop_map(str::to_owned), "[a-z.]{3,20}"];
    let owner = || prop_oneof![Just(None), Just(Some(0u32)), Just(Some(1)), Just(Some(65_534))];
    let attribute = || prop::sample::select(&ATTRIBUTES[..]);
    let len = || prop_oneof![1usize..300, 8000usize..8400, 1usize..40_000];
    prop_oneof![
        6 => (name(), sizes(), len(), any::<u8>(), any::<bool>())
            .prop_map(|(file, at, len, byte, sync)| Op::Write { file, at, len, byte, sync }),
        4 => (name(), len(), any::<u8>()).prop_map(|(file, len, byte)| Op::Append { file, len, byte }),
        2 => (name(), len(), any::<u8>()).prop_map(|(file, len, byte)| Op::Exclusive { file, len, byte }),
        2 => (name(), len(), any::<u8>()).prop_map(|(file, len, byte)| Op::Rewrite { file, len, byte }),
        3 => (name(), sizes()).prop_map(|(file, len)| Op::Truncate { file, len }),
        1 => (name(), sizes(), 1u64..40_000).prop_map(|(file, at, len)| Op::Punch { file, at, len }),
        2 => (name(), sizes(), 1u64..40_000, any::<bool>())
            .prop_map(|(file, at, len, keep_size)| Op::Allocate { file, at, len, keep_size }),
        1 => (name(), sizes(), 1u64..40_000, any::<bool>())
            .prop_map(|(file, at, len, keep_size)| Op::Zero { file, at, len, keep_size }),
        3 => (name(), sizes(), len()).prop_map(|(file, at, len)| Op::Read { file, at, len }),
        4 => (name(), name()).prop_map(|(from, to)| Op::Rename { from, to }),
        1 => (name(), name()).prop_map(|(from, to)| Op::Exchange { from, to }),
        1 => (name(), name()).prop_map(|(from, to)| Op::NoReplace { from, to }),
        2 => (name(), name()).prop_map(|(from, to)| Op::Link { from, to }),
        1 => (target(), name()).prop_map(|(target, at)| Op::Symlink { target, at }),
        2 => name().prop_map(|at| Op::Unlink { at }),
        1 => (name(), any::<bool>()).prop_map(|(at, fifo)| Op::Mknod { at, fifo }),
        4 => name().prop_map(|at| Op::Mkdir { at }),
        1 => name().prop_map(|at| Op::Rmdir { at }),
        1 => (name(), prop_oneof![Just(0o600u32), Just(0o755), Just(0o640), Just(0o1777), Just(0o2755), Just(0o4755)])
            .prop_map(|(at, mode)| Op::Chmod { at, mode }),
        // Of a change of nothing, which takes set-id bits away, the kernel tells a FUSE mount nothing.
        1 => (name(), owner(), owner())
            .prop_filter("a change", |(_, user, group)| user.is_some() || group.is_some())
            .prop_map(|(at, user, group)| Op::Chown { at, user, group }),
        2 => (name(), attribute(), 0..VALUES, any::<u8>())
            .prop_map(|(at, name, len, byte)| Op::SetAttribute { at, name, len, byte }),
        1 => (name(), attribute()).prop_map(|(at, name)| Op::RemoveAttribute { at, name }),
        2 => (name(), 1_000_000_000..PAST, 0u32..1_000_000_000)
            .prop_map(|(at, seconds, nanos)| Op::Times { at, seconds, nanos }),
        1 => Just(Op::Remount),
    ]
}

/// What an operation gave: bytes read, or an errno.
type Outcome = Result<Vec<u8>, i32>;

fn apply(root: &Path, op: &Op) -> Outcome {
    let path = |i: usize| -> PathBuf { root.join(NAMES[i]) };
    let done = |r: io::Result<()>| r.map(|()| Vec::new());
    // Nobody waits for the other end of a fifo.
    let options = || {
        let mut options = OpenOptions::new();
        options.mode(0o644).custom_flags(libc::O_NONBLOCK);
        options
    };
    let open = |i: usize| options().write(true).create(true).truncate(false).open(path(i));
    let write = |options: &mut OpenOptions, i: usize, bytes: &[u8]| {
        options.open(path(i)).and_then(|mut f| f.write_all(bytes))
    };
    let rename = |from: usize, to: usize, flags| {
        renameat_with(CWD, path(from), CWD, path(to), flags).map_err(io::Error::from)
    };
    let result = match op {
        Op::Write { file, at, len, byte, sync } => done(open(*file).and_then(|f| {
            f.write_all_at(&pattern(*byte, *len), *at)?;
            if *sync { f.sync_all() } else { Ok(()) }
        })),
        Op::Exclusive { file, len, byte } => {
            done(write(options().write(true).create_new(true), *file, &pattern(*byte, *len)))
        }
        Op::Append { file, len, byte } => {
            done(write(options().append(true).create(true), *file, &pattern(*byte, *len)))
        }
        Op::Rewrite { file, len, byte } => {
            done(write(options().write(true).create(true).truncate(true), *file, &pattern(*byte, *len)))
        }
        Op::Truncate { file, len } => {
            done(options().write(true).open(path(*file)).and_then(|f| f.set_len(*len)))
        }
        Op::Punch { file, at, len } => {
            done(allocate(&path(*file), libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, *at, *len))
        }
        Op::Allocate { file, at, len, keep_size } => {
            let mode = if *keep_size { libc::FALLOC_FL_KEEP_SIZE } else { 0 };
            done(allocate(&path(*file), mode, *at, *len))
        }
        Op::Zero { file, at, len, keep_size } => {
            let keep = if *keep_size { libc::FALLOC_FL_KEEP_SIZE } else { 0 };
            done(allocate(&path(*file), libc::FALLOC_FL_ZERO_RANGE | keep, *at, *len))
        }
        Op::Read { file, at, len } => options().read(true).open(path(*file)).and_then(|mut f| {
            f.seek(SeekFrom::Start(*at))?;
            let mut bytes = Vec::new();
            f.take(*len as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        }),
        Op::Rename { from, to } => done(fs::rename(path(*from), path(*to))),
        Op::Exchange { from, to } => done(rename(*from, *to, RenameFlags::EXCHANGE)),
        Op::NoReplace { from, to } => done(rename(*from, *to, RenameFlags::NOREPLACE)),
        Op::Link { from, to } => done(fs::hard_link(path(*from), path(*to))),
        Op::Symlink { target, at } => done(symlink(target, path(*at))),
        Op::Unlink { at } => done(fs::remove_file(path(*at))),
        Op::Mknod { at, fifo } => {
            let kind = if *fifo { FileType::Fifo } else { FileType::Socket };
            done(mknodat(CWD, path(*at), kind, Mode::from(0o640), 0).map_err(Into::into))
        }
        Op::Mkdir { at } => done(fs::create_dir(path(*at))),
        Op::Rmdir { at } => done(fs::remove_dir(path(*at))),
        Op::Chmod { at, mode } => {
            // Whoever compares must be able to enter a directory.
            let mode = if path(*at).is_dir() { mode | 0o700 } else { *mode };
            done(fs::set_permissions(path(*at), fs::Permissions::from_mode(mode)))
        }
        Op::Chown { at, user, group } => done(chown(path(*at), *user, *group)),
        Op::SetAttribute { at, name, len, byte } => {
            let value = pattern(*byte, *len);
            done(setxattr(path(*at), *name, &value, XattrFlags::empty()).map_err(Into::into))
        }
        Op::RemoveAttribute { at, name } => done(removexattr(path(*at), *name).map_err(Into::into)),
        Op::Times { at, seconds, nanos } => {
            let time = SystemTime::UNIX_EPOCH + Duration::new(*seconds, *nanos);
            done(
                options()
                    .read(true)
                    .open(path(*at))
                    .and_then(|f| f.set_times(fs::FileTimes::new().set_modified(time))),
            )
        }
        Op::Remount => Ok(Vec::new()),
    };
    result.map_err(|e| e.raw_os_error().unwrap_or(-1))
}

fn allocate(path: &Path, mode: i32, at: u64, len: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    // SAFETY: the descriptor is open for as long as `file` lives; no memory is passed.
    let done = unsafe { libc::fallocate(fd, mode, at as i64, len as i64) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // Whether that counts as a change, where no byte is another one, is each file system's own affair.
    file.set_modified(SystemTime::now())
}

/// What FALLOC_FL_ZERO_RANGE does to a file.
fn zero_by_hand(path: &Path, at: u64, len: u64, keep_size: bool) -> Outcome {
    let zero = || {
        let file = OpenOptions::new().write(true).open(path)?;
        let size = file.metadata()?.len();
        let end = if keep_size { size.min(at + len) } else { at + len };
        file.write_all_at(&vec![0; end.saturating_sub(at) as usize], at)?;
        file.set_modified(SystemTime::now())
    };
    zero().map(|()| Vec::new()).map_err(|e: io::Error| e.raw_os_error().unwrap_or(-1))
}

/// Prime period, so that shifted blocks do not look alike.
fn pattern(byte: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| byte.wrapping_add((i % 251) as u8)).collect()
}

/// What a snapshot leaves out: owner, group, attributes, and a time that an operation has set.
type Marks = (u32, u32, Vec<(String, Vec<u8>)>, Option<(i64, i64)>);

/// Times that operations set lie before this, in 2017; what is written now has a later one.
const PAST: u64 = 1_500_000_000;

fn marks(root: &Path) -> BTreeMap<PathBuf, Marks> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let meta = path.symlink_metadata().expect("metadata");
            let attributes = if meta.is_symlink() { Vec::new() } else { attributes_of(&path) };
            let set = (meta.mtime() < PAST as i64).then(|| (meta.mtime(), meta.mtime_nsec()));
            if meta.is_dir() {
                dirs.push(path.clone());
            }
            let name = path.strip_prefix(root).expect("below the root").to_owned();
            found.insert(name, (meta.uid(), meta.gid(), attributes, set));
        }
    }
    found
}

fn assert_same_trees(plain: &Path, ours: &Path, when: &str) {
    assert_same(&snapshot(plain, false), &snapshot(ours, false), when);
    let (plain, ours) = (marks(plain), marks(ours));
    let differ: Vec<_> = plain.iter().filter(|(name, marks)| ours.get(*name) != Some(*marks)).collect();
    assert!(
        differ.is_empty(),
        "{when}: {differ:02x?} but {:02x?}",
        differ.first().map(|(name, _)| &ours[*name])
    );
}

/// Each operation has the same outcome in both trees, and leaves the same tree.
fn compare(site: &Site, ops: &[Op], round: usize) {
    let mut mount = site.mount();
    let plain = site.dir().join(format!("plain-{round}"));
    fs::create_dir(&plain).expect("a plain directory");
    let ours = |mount: &Mount| mount.path(format!("run-{round}"));
    fs::create_dir(ours(&mount)).expect("a run");
    for (n, op) in ops.iter().enumerate() {
        if matches!(op, Op::Remount) {
            mount.unmount();
            mount = site.mount();
        }
        let (mut expected, got) = (apply(&plain, op), apply(&ours(&mount), op));
        if let (Op::Zero { file, at, len, keep_size }, Err(libc::EOPNOTSUPP)) = (op, &expected) {
            // tmpfs has no such call.
            expected = zero_by_hand(&plain.join(NAMES[*file]), *at, *len, *keep_size);
        }
        if let (Op::Rename { .. }, Err(libc::EEXIST), Err(libc::ENOTEMPTY)) = (op, &expected, &got) {
            // POSIX takes either over a directory that has names; XFS says the first.
            expected = got.clone();
        }
        assert!(expected == got, "step {n}, {op:?}: {} but {}", brief(&expected), brief(&got));
        assert_same_trees(&plain, &ours(&mount), &format!("after step {n}, {op:?}"));
    }
    mount.unmount();
    let again = site.mount();
    assert_same_trees(&plain, &ours(&again), "after a remount");
    again.unmount();
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Ok(bytes) => format!("{} bytes {:02x?}", bytes.len(), &bytes[..bytes.len().min(16)]),
        Err(errno) => io::Error::from_raw_os_error(*errno).to_string(),
    }
}

/// Panics with the shortest operations after which a mount of `site` and a plain directory beside it differ.
///
/// # Panics
/// If there are such.
pub fn behaves_like_a_plain_directory(site: &Site, cases: u32) {
    let mut runner = TestRunner::new(Config {
        cases,
        max_shrink_iters: 300,
        failure_persistence: None,
        ..Config::default()
    });
    let round = std::cell::Cell::new(0);
    runner
        .run(&prop::collection::vec(op(), 10..60), |ops| {
            round.set(round.get() + 1);
            let ran =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| compare(site, &ops, round.get())));
            ran.map_err(|panic| {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                TestCaseError::fail(text)
            })
        })
        .unwrap_or_else(|e| panic!("{e}"));
}
