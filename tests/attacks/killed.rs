//! Row "crash in a rotation": killed again and again, it goes on, and at no point is there a run that no key opens, nor a
//! reader who notices.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use runvault_crypto::envelope::KemPrivate;
use runvault_format::custody_state::State;
use runvault_format::envelope_file;
use runvault_format::ids::VaultId;
use runvault_format::info::{Purpose, Recipient, Scope, info};
use runvault_tests::Random;
use runvault_tests::site::{detach, open_bare};
use runvault_tests::tools::runvault;

use crate::shares::key_of;
use crate::vault::Vault;

const RUNS: usize = 200;
const KILLS: usize = 50;
/// Of them, near the moment in which the line is made.
const EARLY: usize = 10;
const CONTENT: &[u8] = b"what a reader reads\n";

/// Unmounted when it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(vault: &Vault, at: &str, options: &str) -> Self {
        fs::create_dir(vault.path(at)).expect("a mount point");
        let mounted = Self(vault.path(at));
        vault.done(&format!("mount store {at} {options}"));
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        detach(&self.0);
        open_bare(&self.0);
    }
}

/// Two hundred runs of one file.
fn with_runs(vault: &Vault) {
    let mount = Mounted::new(vault, "written", "--ingest --seal hand --log log");
    for n in 0..RUNS {
        let run = mount.0.join(format!("run-{n}"));
        fs::create_dir(&run).expect("a run");
        fs::write(run.join("file"), CONTENT).expect("a file");
    }
    vault.done("unmount written");
}

/// Past the kernel's pages, so that it comes through the mount.
fn read_direct(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let mut bytes = vec![0; 8192];
    let at = bytes.as_ptr().align_offset(4096);
    let n = file.read_at(&mut bytes[at..at + 4096], 0)?;
    Ok(bytes[at..at + n].to_vec())
}

/// The envelopes of the vault's keys, opened once each: at any moment one of every run's is there.
struct Keys {
    vault: VaultId,
    runs: Vec<PathBuf>,
    old: KemPrivate,
    seen: HashSet<(usize, u32)>,
}

impl Keys {
    fn opens(&self, run: &Path, key: &KemPrivate, e: u32) -> bool {
        let id = run.file_name().and_then(|name| name.to_str()).expect("an id").parse().expect("an id");
        let text = info(Purpose::RunKey, &self.vault, &Scope::Run(id), &Recipient::Epoch(e));
        fs::read(run.join(format!("keys/vault-{e}")))
            .is_ok_and(|bytes| envelope_file::open(key, &text, &bytes).is_ok())
    }

    /// How many runs have the new envelope. `new` is not known before the line stands.
    fn check(&mut self, new: Option<&KemPrivate>) -> usize {
        let there = |run: &Path, e| run.join(format!("keys/vault-{e}")).exists();
        let mut done = 0;
        for n in 0..self.runs.len() {
            let run = self.runs[n].clone();
            // In this order: the new one is there before the old one goes.
            let (old, renewed) = (there(&run, 2), there(&run, 3));
            assert!(old || renewed, "{} has no envelope", run.display());
            done += usize::from(renewed);
            if old && self.seen.insert((n, 2)) {
                assert!(self.opens(&run, &self.old, 2), "{}", run.display());
            }
            if let Some(new) = new.filter(|_| renewed)
                && self.seen.insert((n, 3))
            {
                assert!(self.opens(&run, new, 3), "{}", run.display());
                assert!(!self.opens(&run, &self.old, 3), "who left opens what came after");
            }
        }
        done
    }
}

/// Starts it, and kills it once `when` says so, or lets it end.
fn killed(vault: &Vault, resume: bool, when: impl Fn() -> bool) -> bool {
    let line = "custody execute store req.req --approval alice.req.ok --approval bob.req.ok --state state";
    let mut execute = Command::new(runvault());
    execute.args(line.split(' ')).args(resume.then_some("--resume"));
    execute.current_dir(vault.path("")).stdin(Stdio::null()).stdout(Stdio::null());
    execute.stderr(File::create(vault.path("said")).expect("a file"));
    let mut child = execute.spawn().expect("it starts");
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            let said = fs::read_to_string(vault.path("said")).unwrap_or_default();
            // Killed after its last act: the caller finds that nothing is left.
            let ended = resume && said.contains("its executor's key was erased");
            assert!(status.success() || ended, "{status}: {said}");
            return false;
        }
        if when() {
            child.kill().expect("kill -9");
            child.wait().expect("a child");
            return true;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The state that a claim brings.
fn state_in(claim: &Path) -> State {
    let claim = fs::read(claim).expect("the claim");
    let state = claim.splitn(2, |byte| *byte == b'\n').nth(1).expect("two parts");
    State::parse(state).expect("a state")
}

#[test]
fn a_rotation_that_is_killed_fifty_times_goes_on_and_no_reader_notices() {
    let vault = Vault::new();
    with_runs(&vault);
    vault.propose("remove-custodian carol", "req");
    ["alice", "bob"].iter().for_each(|one| vault.approve(one, "req"));
    let runs = fs::read_dir(vault.path("store/runs")).expect("runs").flatten().map(|run| run.path());
    let runs: Vec<PathBuf> = runs.filter(|run| run.join("run.json").exists()).collect();
    let all = runs.len();
    assert_eq!(all, RUNS + 2);
    let old = key_of(&vault, &vault.state(), ["alice", "carol"]);
    let mut keys = Keys { vault: vault.id(), runs: runs.clone(), old, seen: HashSet::new() };
    let (line, executed) = (vault.lines() + 1, AtomicBool::new(false));
    let line = vault.path(format!("store/custody/line-{line}"));
    let new_ones = || runs.iter().filter(|run| run.join("keys/vault-3").exists()).count();
    let (read, mut kills, mut amid) =
        (Mounted::new(&vault, "mnt", "--open --identity lab.key --log log"), 0, 0);
    let reads = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !executed.load(Ordering::Relaxed) {
                let file = read.0.join(format!("run-{}/file", reads % RUNS));
                assert_eq!(read_direct(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())), CONTENT);
                reads += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            reads
        });
        let end = OnDrop(&executed);
        let mut random = Random::of(18);
        let mut new = None;
        while kills < KILLS {
            let begin = Instant::now();
            let wait = Duration::from_millis(random.below(60));
            // The last ones are left: a process that is killed at its very end has nothing to go on with.
            let until = kills.saturating_sub(EARLY) * (all - 20) / (KILLS - EARLY) + random.below(4) as usize;
            let now = || new_ones() > until || (kills < EARLY && begin.elapsed() >= wait);
            if !killed(&vault, line.exists(), now) {
                break;
            }
            kills += 1;
            if new.is_none() && line.exists() {
                new = Some(key_of(&vault, &state_in(&line), ["alice", "bob"]));
            }
            amid += usize::from((1..all).contains(&keys.check(new.as_ref())));
        }
        assert!(!killed(&vault, line.exists(), || false));
        assert_eq!(keys.check(new.as_ref()), all);
        drop(end);
        reader.join().expect("no error")
    });
    assert!(amid > KILLS / 2, "{kills} kills, {amid} of them amid the runs");
    assert!(reads > 20, "{reads} reads");
    assert!(runs.iter().all(|run| !run.join("keys/vault-2").exists()), "the older ones went");
    vault.done("check store --identity lab.key");
    vault.done("unmount mnt");
}

/// Lets the reader end also when the test fails.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
