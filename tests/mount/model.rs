//! Random operations on a mount and on a plain directory beside it: same outcome, same tree.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use runvault_tests::snapshot::{assert_same, snapshot};
use runvault_tests::tools::{again_as, root_for};
use runvault_tests::{Mount, Site};

#[derive(Clone, Debug)]
enum Op {
    Write { file: usize, at: u64, len: usize, byte: u8, sync: bool },
    Append { file: usize, len: usize, byte: u8 },
    Rewrite { file: usize, len: usize, byte: u8 },
    Truncate { file: usize, len: u64 },
    Punch { file: usize, at: u64, len: u64 },
    Allocate { file: usize, at: u64, len: u64 },
    Read { file: usize, at: u64, len: usize },
    Rename { from: usize, to: usize },
    Exchange { from: usize, to: usize },
    Link { from: usize, to: usize },
    Symlink { target: String, at: usize },
    Unlink { at: usize },
    Mkdir { at: usize },
    Rmdir { at: usize },
    Chmod { at: usize, mode: u32 },
    Times { at: usize, seconds: u64, nanos: u32 },
    Remount,
}

/// A small world of names, so that operations meet.
const NAMES: [&str; 9] = ["a", "b", "d1", "d1/a", "d1/b", "d2", "d2/a", "d1/d3", "d1/d3/a"];

fn sizes() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..64, 8180u64..8210, 16370u64..16400, 0u64..70_000, Just(1 << 20)]
}

fn op() -> impl Strategy<Value = Op> {
    let name = || 0..NAMES.len();
    let len = || prop_oneof![1usize..300, 8000usize..8400, 1usize..40_000];
    prop_oneof![
        6 => (name(), sizes(), len(), any::<u8>(), any::<bool>())
            .prop_map(|(file, at, len, byte, sync)| Op::Write { file, at, len, byte, sync }),
        4 => (name(), len(), any::<u8>()).prop_map(|(file, len, byte)| Op::Append { file, len, byte }),
        2 => (name(), len(), any::<u8>()).prop_map(|(file, len, byte)| Op::Rewrite { file, len, byte }),
        3 => (name(), sizes()).prop_map(|(file, len)| Op::Truncate { file, len }),
        1 => (name(), sizes(), 1u64..40_000).prop_map(|(file, at, len)| Op::Punch { file, at, len }),
        1 => (name(), sizes(), 1u64..40_000).prop_map(|(file, at, len)| Op::Allocate { file, at, len }),
        3 => (name(), sizes(), len()).prop_map(|(file, at, len)| Op::Read { file, at, len }),
        4 => (name(), name()).prop_map(|(from, to)| Op::Rename { from, to }),
        1 => (name(), name()).prop_map(|(from, to)| Op::Exchange { from, to }),
        2 => (name(), name()).prop_map(|(from, to)| Op::Link { from, to }),
        1 => ("[a-z/.]{1,20}", name()).prop_map(|(target, at)| Op::Symlink { target, at }),
        2 => name().prop_map(|at| Op::Unlink { at }),
        4 => name().prop_map(|at| Op::Mkdir { at }),
        1 => name().prop_map(|at| Op::Rmdir { at }),
        1 => (name(), prop_oneof![Just(0o600u32), Just(0o755), Just(0o640), Just(0o1777), Just(0o2755), Just(0o4755)])
            .prop_map(|(at, mode)| Op::Chmod { at, mode }),
        1 => (name(), 1_000_000_000u64..2_000_000_000, 0u32..1_000_000_000)
            .prop_map(|(at, seconds, nanos)| Op::Times { at, seconds, nanos }),
        1 => Just(Op::Remount),
    ]
}

/// What an operation gave: bytes read, or an errno.
type Outcome = Result<Vec<u8>, i32>;

fn apply(root: &Path, op: &Op) -> Outcome {
    let path = |i: usize| -> PathBuf { root.join(NAMES[i]) };
    let done = |r: io::Result<()>| r.map(|()| Vec::new());
    let open =
        |i: usize| OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path(i));
    let result = match op {
        Op::Write { file, at, len, byte, sync } => done(open(*file).and_then(|f| {
            f.write_all_at(&pattern(*byte, *len), *at)?;
            if *sync { f.sync_all() } else { Ok(()) }
        })),
        Op::Append { file, len, byte } => done(
            OpenOptions::new()
                .append(true)
                .create(true)
                .open(path(*file))
                .and_then(|mut f| f.write_all(&pattern(*byte, *len))),
        ),
        Op::Rewrite { file, len, byte } => done(fs::write(path(*file), pattern(*byte, *len))),
        Op::Truncate { file, len } => {
            done(OpenOptions::new().write(true).open(path(*file)).and_then(|f| f.set_len(*len)))
        }
        Op::Punch { file, at, len } => {
            done(allocate(&path(*file), libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, *at, *len))
        }
        Op::Allocate { file, at, len } => done(allocate(&path(*file), 0, *at, *len)),
        Op::Read { file, at, len } => File::open(path(*file)).and_then(|mut f| {
            f.seek(SeekFrom::Start(*at))?;
            let mut bytes = Vec::new();
            f.take(*len as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        }),
        Op::Rename { from, to } => done(fs::rename(path(*from), path(*to))),
        Op::Exchange { from, to } => done(
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                path(*from),
                rustix::fs::CWD,
                path(*to),
                rustix::fs::RenameFlags::EXCHANGE,
            )
            .map_err(Into::into),
        ),
        Op::Link { from, to } => done(fs::hard_link(path(*from), path(*to))),
        Op::Symlink { target, at } => done(symlink(target, path(*at))),
        Op::Unlink { at } => done(fs::remove_file(path(*at))),
        Op::Mkdir { at } => done(fs::create_dir(path(*at))),
        Op::Rmdir { at } => done(fs::remove_dir(path(*at))),
        Op::Chmod { at, mode } => {
            // Whoever compares must be able to enter a directory.
            let mode = if path(*at).is_dir() { mode | 0o700 } else { *mode };
            done(fs::set_permissions(path(*at), fs::Permissions::from_mode(mode)))
        }
        Op::Times { at, seconds, nanos } => {
            let time = SystemTime::UNIX_EPOCH + Duration::new(*seconds, *nanos);
            done(File::open(path(*at)).and_then(|f| f.set_times(fs::FileTimes::new().set_modified(time))))
        }
        Op::Remount => Ok(Vec::new()),
    };
    result.map_err(|e| e.raw_os_error().unwrap_or(-1))
}

fn allocate(path: &Path, mode: i32, at: u64, len: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    // SAFETY: the descriptor is open for as long as `file` lives; no memory is passed.
    let done = unsafe { libc::fallocate(fd, mode, at as i64, len as i64) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Prime period, so that shifted blocks do not look alike.
fn pattern(byte: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| byte.wrapping_add((i % 251) as u8)).collect()
}

/// Symlinks may lead out of the small world, or back into it; both trees must then agree as well,
/// so operations through links are compared by their outcome alone.
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
        let (expected, got) = (apply(&plain, op), apply(&ours(&mount), op));
        assert!(expected == got, "step {n}, {op:?}: {} but {}", brief(&expected), brief(&got));
        assert_same(
            &snapshot(&plain, false),
            &snapshot(&ours(&mount), false),
            &format!("after step {n}, {op:?}"),
        );
    }
    mount.unmount();
    let again = site.mount();
    assert_same(&snapshot(&plain, false), &snapshot(&ours(&again), false), "after a remount");
    again.unmount();
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Ok(bytes) => format!("{} bytes {:02x?}", bytes.len(), &bytes[..bytes.len().min(16)]),
        Err(errno) => io::Error::from_raw_os_error(*errno).to_string(),
    }
}

#[test]
fn behaves_like_a_plain_directory() {
    let site = Site::new();
    let cases = std::env::var("RUNVAULT_MODEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
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
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| compare(&site, &ops, round.get())));
            ran.map_err(|panic| {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                TestCaseError::fail(text)
            })
        })
        .unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn behaves_like_a_plain_directory_for_an_ordinary_user() {
    // Where this is no root, the first test was an ordinary user's; root's is then left out.
    if !root_for("the model as root") {
        return;
    }
    again_as(65534, 65534, "model::behaves_like_a_plain_directory");
}
