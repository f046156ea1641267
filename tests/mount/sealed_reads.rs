//! What a program that reads a sealed run is told once the store has another one, before anybody verifies.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use runvault_tests::making::CHUNK;
use runvault_tests::tools::{output, printed, run, runvault, tool};
use runvault_tests::{Mount, Site};
use rustix::fs::{FallocateFlags, fallocate};

/// Where a stored file's chunks begin.
const HEADERS: u64 = 1024;
/// How long each is there: with a nonce and a tag.
const STORED: u64 = 12 + CHUNK as u64 + 16;
/// Of each file: all but the last are full.
const CHUNKS: usize = 7;

/// Some of some files.
type Chunks<'a> = BTreeMap<&'a str, Vec<usize>>;

/// Files of lengths that tell them apart in the store, too.
fn files() -> BTreeMap<String, Vec<u8>> {
    let names = [1, 2].into_iter().flat_map(|lane| (0..4).map(move |n| format!("Data/L00{lane}/C{n}.cbcl")));
    names.enumerate().map(|(n, name)| (name, vec![n as u8 + 65; 50_000 + 100 * n])).collect()
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg("--").arg(from).arg(to));
}

fn put_back(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    copy(from, to);
}

/// Where a file of that many bytes lies below `dir`.
fn stored(dir: &Path, len: usize) -> PathBuf {
    let long = HEADERS + len as u64 + 28 * CHUNKS as u64;
    let mut stack = vec![dir.to_owned()];
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            let meta = entry.metadata().expect("stat");
            if meta.is_file() && meta.len() == long {
                return entry.path();
            }
            stack.extend(meta.is_dir().then(|| entry.path()));
        }
    }
    panic!("no file of {long} bytes");
}

/// A run of which one lane was written over before it was sealed.
struct Rewritten {
    site: Site,
    truth: BTreeMap<String, Vec<u8>>,
    /// All runs, as they were before and as they were sealed.
    older: PathBuf,
    good: PathBuf,
    runs: PathBuf,
    id: String,
}

impl Rewritten {
    fn new() -> Self {
        let site = Site::new();
        site.enroll();
        let (older, good) = (site.dir().join("older"), site.dir().join("good"));
        let runs = site.store.join("runs");
        let mut truth = files();
        let mount = site.ingest().mount();
        for (name, bytes) in &truth {
            let file = mount.path("run").join(name);
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            fs::write(file, bytes).expect("written");
        }
        mount.unmount();
        copy(&runs, &older);
        let mount = site.ingest().mount();
        for (name, bytes) in truth.iter_mut().filter(|(name, _)| name.contains("L001")) {
            let file = File::options().write(true).open(mount.path("run").join(name)).expect("a file");
            file.write_all_at(b"later", CHUNK as u64 + 10).expect("written over");
            bytes[CHUNK + 10..][..5].copy_from_slice(b"later");
        }
        mount.unmount();
        run(Command::new(runvault()).args(["seal", "--state"]).arg(&site.state).arg(&site.store).arg("run"));
        copy(&runs, &good);
        let id = fs::read_dir(&runs).expect("runs").flatten().next().expect("a run").file_name();
        Self { site, truth, older, good, runs, id: id.into_string().expect("an id") }
    }

    fn mount(&self) -> Mount {
        self.site.builder().arg("--read-only").mount()
    }

    /// The run's directory, and the one of before.
    fn now_and_older(&self) -> [PathBuf; 2] {
        [self.runs.join(&self.id), self.older.join(&self.id)]
    }

    /// Stored forms of the file of the first lane that is looked at.
    fn one(&self) -> [PathBuf; 2] {
        self.now_and_older().map(|dir| stored(&dir.join("tree"), self.truth["Data/L001/C3.cbcl"].len()))
    }

    /// What is not refused reads as it was sealed.
    fn is_refused(&self, mount: &Mount) -> bool {
        let name = "Data/L001/C3.cbcl";
        let read = fs::read(mount.path("run").join(name));
        read.map(|bytes| assert!(bytes == self.truth[name], "it reads as something else")).is_err()
    }

    fn await_refusal(&self, mount: &Mount, what: &str, says: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        let told = || mount.log().lines().any(|line| line.contains(says) && line.contains(&self.id));
        while !self.is_refused(mount) || !told() {
            assert!(Instant::now() < until, "{what}: {}", mount.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Which chunks of which files are EIO; all others must read as they were sealed, and all be listed.
    fn unreadable(&self, mount: &Mount) -> Chunks<'_> {
        let mut found = BTreeMap::new();
        for (name, truth) in &self.truth {
            let path = mount.path("run").join(name);
            assert_eq!(fs::metadata(&path).expect("stat").len(), truth.len() as u64, "{name}");
            let bad = truth.chunks(CHUNK).enumerate().filter_map(|(n, expected)| {
                let mut bytes = vec![0; expected.len()];
                let read = File::open(&path).and_then(|f| f.read_exact_at(&mut bytes, (n * CHUNK) as u64));
                match read {
                    Ok(()) => {
                        assert!(bytes == expected, "{name}: chunk {n} reads as something else");
                        None
                    }
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{name}: chunk {n}");
                        Some(n)
                    }
                }
            });
            let bad: Vec<_> = bad.collect();
            if !bad.is_empty() {
                found.insert(name.as_str(), bad);
            }
        }
        found
    }
}

/// Who maps the file and looks into that chunk is killed by SIGBUS, or cannot open it.
fn assert_unmappable(path: &Path, chunk: usize) {
    let program = "import mmap, sys\n\
                   try: f = open(sys.argv[1], 'rb')\n\
                   except OSError as e: sys.exit(e.errno)\n\
                   print(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[int(sys.argv[2])])";
    let mut python = Command::new(tool("python/bin/python"));
    let mapped = output(python.args(["-c", program]).arg(path).arg((chunk * CHUNK).to_string()));
    let refused = mapped.status.signal() == Some(libc::SIGBUS) || mapped.status.code() == Some(libc::EIO);
    assert!(refused, "{:?}: {}", mapped.status, printed(&mapped));
}

/// Each by a mount that comes after it, and by one that was up before.
#[test]
fn what_was_put_back_taken_away_or_punched_out_is_an_error_and_an_event() {
    let sealed = Rewritten::new();
    let [now, older] = sealed.now_and_older();
    let [file, older_file] = sealed.one();
    let (lane, older_lane) = (file.parent().expect("a lane"), older_file.parent().expect("a lane"));
    let lane_of: Vec<&str> =
        sealed.truth.keys().map(String::as_str).filter(|name| name.contains("L001")).collect();
    let chunk = |n: u64| HEADERS + n * STORED;
    let one = |chunks: &[usize]| BTreeMap::from([("Data/L001/C3.cbcl", chunks.to_vec())]);
    let all = |chunks: &[usize]| lane_of.iter().map(|name| (*name, chunks.to_vec())).collect();
    let whole: Vec<usize> = (0..CHUNKS).collect();
    let acts: [(&str, &dyn Fn(), Chunks<'_>); 7] = [
        (
            "a chunk put back",
            &|| {
                let mut bytes = vec![0; STORED as usize];
                File::open(&older_file).and_then(|f| f.read_exact_at(&mut bytes, chunk(1))).expect("read");
                let open = File::options().write(true).open(&file).expect("a file");
                open.write_all_at(&bytes, chunk(1)).expect("written");
            },
            one(&[1]),
        ),
        (
            "a file put back",
            &|| {
                fs::copy(&older_file, &file).expect("a copy");
            },
            one(&[1]),
        ),
        ("a directory put back", &|| put_back(older_lane, lane), all(&[1])),
        ("the whole tree put back", &|| put_back(&older.join("tree"), &now.join("tree")), all(&[1])),
        (
            "a chunk made a hole",
            &|| {
                let open = File::options().write(true).open(&file).expect("a file");
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&open, flags, chunk(2), STORED).expect("a hole");
            },
            one(&[2]),
        ),
        ("a file taken away", &|| fs::remove_file(&file).expect("removed"), one(&whole)),
        ("a directory taken away", &|| fs::remove_dir_all(lane).expect("removed"), all(&whole)),
    ];
    assert_eq!(sealed.unreadable(&sealed.mount()), BTreeMap::new(), "the control");
    for (what, act, expected) in acts {
        for is_up in [false, true] {
            let before = is_up.then(|| sealed.mount());
            act();
            let mount = before.unwrap_or_else(|| sealed.mount());
            assert_eq!(
                sealed.unreadable(&mount),
                expected,
                "{what}, mounted before: {is_up}\n{}",
                mount.log()
            );
            let (name, chunks) = expected.first_key_value().expect("a file");
            assert_unmappable(&mount.path("run").join(name), chunks[0]);
            let event = format!("error a sealed run is not as it was sealed: runs/{}/tree/", sealed.id);
            assert!(mount.log().contains(&event), "{what}: {}", mount.log());
            mount.unmount();
            put_back(&sealed.good.join(&sealed.id), &now);
        }
    }
}

/// A run that is as it was before its seal, one whose seal is gone, and one that is gone.
#[test]
fn a_run_that_is_not_sealed_any_more_or_gone_is_refused_and_an_event() {
    let sealed = Rewritten::new();
    let [now, older] = sealed.now_and_older();
    let unsealed = "its seal was removed: this machine has seen it sealed";
    let acts: [(&str, &dyn Fn(), &str); 3] = [
        ("as it was before", &|| put_back(&older, &now), unsealed),
        ("its seal taken away", &|| fs::remove_dir_all(now.join("seal")).expect("removed"), unsealed),
        (
            "all of it taken away",
            &|| fs::remove_dir_all(&now).expect("removed"),
            "is gone from the store, and it was sealed",
        ),
    ];
    for (what, act, says) in acts {
        let mount = sealed.mount();
        assert!(!sealed.is_refused(&mount), "{what}: the control");
        act();
        sealed.await_refusal(&mount, what, says);
        mount.unmount();
        // And who comes later.
        match sealed.site.builder().arg("--read-only").try_mount() {
            Ok(mount) => sealed.await_refusal(&mount, what, says),
            Err(refusal) => assert!(refusal.contains("gone; this machine has seen it"), "{what}: {refusal}"),
        }
        put_back(&sealed.good.join(&sealed.id), &now);
        let mount = sealed.mount();
        assert!(!sealed.is_refused(&mount), "{what}: put back");
        mount.unmount();
    }
}
