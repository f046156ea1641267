//! `verify` and `scrub` that were killed go on, and say what they go on from.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

use crate::common::{Scratch, text};
use serde_json::Value;

const FILES: usize = 32;
const SIZE: usize = 1 << 20;
const COMMANDS: [&[&str]; 2] =
    [&["scrub", "store", "--json"], &["verify", "store", "run", "--json", "--identity", "owner.key"]];

struct Sealed {
    scratch: Scratch,
    run: PathBuf,
    /// What each command reads first.
    first: [Stored; 2],
}

/// A file of the store as it should be.
struct Stored {
    path: PathBuf,
    good: Vec<u8>,
    modified: SystemTime,
}

impl Stored {
    fn of(path: PathBuf) -> Stored {
        let good = fs::read(&path).expect("its bytes");
        let modified = fs::metadata(&path).and_then(|meta| meta.modified()).expect("its time");
        Stored { path, good, modified }
    }

    fn mend(&self) {
        self.put(&self.good);
    }

    fn damage(&self) {
        let mut bad = self.good.clone();
        *bad.last_mut().unwrap() ^= 1;
        self.put(&bad);
    }

    fn put(&self, bytes: &[u8]) {
        fs::write(&self.path, bytes).expect("written");
        let file = File::options().write(true).open(&self.path).expect("it");
        file.set_modified(self.modified).expect("its time");
    }
}

/// A vault with a run that is not sealed.
fn open() -> Scratch {
    let scratch = Scratch::new();
    scratch.vault();
    scratch.folder("run");
    for n in 0..FILES {
        // The first by its name is known by its length.
        fs::write(scratch.path(&format!("run/{n:02}")), vec![n as u8; SIZE + usize::from(n == 0)])
            .expect("a file");
    }
    scratch.run(&["cp", "-r", "run", "store:/", "--identity", "owner.key"]).done();
    scratch
}

impl Sealed {
    fn new() -> Sealed {
        let scratch = open();
        scratch.run(&["seal", "store", "run"]).done();
        let runs = fs::read_dir(scratch.path("store/runs")).expect("runs");
        let run = runs.map(|run| run.unwrap().path()).find(|run| run.join("seal").exists()).expect("sealed");
        let files = || fs::read_dir(run.join("tree")).expect("files").map(|file| file.unwrap().path());
        let by_scrub = files().filter(|path| !path.ends_with("_dir")).min().expect("a file");
        let by_verify = files().max_by_key(|path| fs::metadata(path).unwrap().len()).expect("a file");
        Sealed { scratch, run, first: [by_scrub, by_verify].map(Stored::of) }
    }

    fn records(&self) -> PathBuf {
        let vault =
            fs::read_dir(self.scratch.path("state")).expect("state").flatten().next().expect("a vault");
        vault.path().join("checked")
    }

    /// Starts both commands, slowly, and kills them once both have kept enough.
    fn kill_both(&self, enough: impl Fn(&[(u64, u64)]) -> bool) {
        let start = |command: &&[&str]| {
            let mut slow = self.scratch.command(&[command, &["--limit", "6"][..]].concat());
            Killed(slow.stdout(std::process::Stdio::null()).spawn().expect("started"))
        };
        let started: Vec<_> = COMMANDS.iter().map(start).collect();
        let end = Instant::now() + Duration::from_secs(60);
        let kept = || {
            named(&self.records()).iter().filter(|name| enough(&checked(&self.records().join(name)))).count()
        };
        while kept() < COMMANDS.len() {
            assert!(Instant::now() < end, "nothing is kept: {:?}", named(&self.records()));
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(started);
    }

    /// Exit code, lines, and the summary.
    fn look(&self, command: &[&str], more: &[&str]) -> (i32, String, Value) {
        let ran = self.scratch.run(&[command, more].concat());
        let last: Value = serde_json::from_str(ran.out().lines().last().expect("a summary")).expect("JSON");
        (ran.code, ran.all(), last["summary"].clone())
    }
}

/// The stretches of objects that a record has: from, to.
fn checked(record: &Path) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(record).unwrap_or_default();
    let said: Value = serde_json::from_str(text.lines().next().unwrap_or_default()).unwrap_or_default();
    let runs = said["runs"].as_object().into_iter().flat_map(|runs| runs.values());
    let stretches = runs.filter_map(|run| run["checked"].as_array()).flatten();
    stretches.filter_map(|stretch| Some((stretch["from"].as_u64()?, stretch["to"].as_u64()?))).collect()
}

/// What is whole, and no temporary.
fn named(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    names
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect()
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn all() -> u64 {
    (FILES * SIZE + 1) as u64
}

#[test]
fn what_was_killed_goes_on() {
    let sealed = Sealed::new();
    let [by_scrub, by_verify] = &sealed.first;
    let damaged = Value::from(1 + u64::from(by_scrub.path != by_verify.path));
    sealed.first.iter().for_each(Stored::damage);
    sealed.kill_both(|checked| checked.iter().map(|(from, to)| to - from).sum::<u64>() > 10);
    for command in COMMANDS {
        let (code, said, summary) = sealed.look(command, &[]);
        assert_eq!((code, &summary["findings"]), (4, &damaged), "{said}");
        let (read, resumed) = (summary["read_bytes"].as_u64().unwrap(), &summary["resumed"]);
        let before = resumed["bytes"].as_u64().expect(&said);
        assert!(before >= SIZE as u64 && read < all() && read + before + 3 * SIZE as u64 >= all(), "{said}");
        assert!(resumed["objects"].as_u64() < resumed["of"].as_u64(), "{said}");
        assert!(resumed["since"].as_str() <= resumed["until"].as_str(), "{said}");
        assert!(said.contains("resumed: ") && said.contains("--fresh"), "{said}");
    }
    assert_eq!(named(&sealed.records()), [""; 0], "all was looked at");

    sealed.first.iter().for_each(Stored::mend);
    // Of the lines of a seal some are no files of the tree.
    sealed.kill_both(|checked| checked.first().is_some_and(|(from, to)| *from < 2 && *to > 8));
    let others = ["other", "fresh", "damaged"];
    for other in others {
        let copied = std::process::Command::new("cp")
            .args(["-a", text(&sealed.scratch.path("state")), text(&sealed.scratch.path(other))])
            .status();
        assert!(copied.expect("cp").success());
    }
    let records = |state: &str| {
        let records = sealed.records();
        let below = records.strip_prefix(sealed.scratch.path("state")).unwrap().to_owned();
        sealed.scratch.path(state).join(below)
    };
    for name in named(&records("damaged")) {
        fs::write(records("damaged").join(name), "nonsense").expect("written");
    }
    for (command, first) in COMMANDS.iter().zip(&sealed.first) {
        first.damage();
        // What is damaged after it was read is found by the next one.
        let (code, said, summary) = sealed.look(command, &[]);
        assert_eq!((code, &summary["findings"]), (0, &0.into()), "{said}");
        for (state, more) in [("state", &[][..]), ("fresh", &["--fresh"]), ("damaged", &[])] {
            let (code, said, summary) = sealed.look(command, &[more, &["--state", state][..]].concat());
            assert_eq!(
                (code, &summary["findings"], &summary["resumed"]),
                (4, &1.into(), &Value::Null),
                "{said}"
            );
            assert_eq!(said.contains("does not count"), state == "damaged", "{said}");
        }
        first.mend();
    }
    // Another copy of the run in its place.
    let (away, run) = (sealed.scratch.path("away"), text(&sealed.run));
    fs::rename(run, &away).expect("moved");
    assert!(std::process::Command::new("cp").args(["-a", text(&away), run]).status().expect("cp").success());
    for command in COMMANDS {
        let (code, said, summary) = sealed.look(command, &["--state", "other"]);
        assert_eq!((code, &summary["resumed"]), (0, &Value::Null), "{said}");
        assert!(summary["read_bytes"].as_u64() >= Some(all()), "{said}");
    }
}

#[test]
fn a_seal_that_was_killed_goes_on() {
    let scratch = open();
    // What was just written is read again: it may be written once more and bear the same time.
    std::thread::sleep(Duration::from_millis(2500));
    let mut slow = scratch.command(&["seal", "store", "run", "--limit", "3"]);
    let killed = Killed(slow.stdout(std::process::Stdio::null()).spawn().expect("started"));
    let runs = || fs::read_dir(scratch.path("store/runs")).expect("runs").flatten();
    let end = Instant::now() + Duration::from_secs(60);
    while !runs().any(|run| run.path().join("read-back").exists()) {
        assert!(Instant::now() < end, "nothing is kept");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(killed);
    let sealed = scratch.run(&["seal", "store", "run", "--json"]);
    let said: Value = serde_json::from_str(&sealed.done().out()).expect("JSON");
    assert_eq!(said["bytes"], all());
    let read = said["read_bytes"].as_u64().expect("bytes");
    assert!(read > 0 && read < all(), "{said}");
    assert!(!runs().any(|run| run.path().join("read-back").exists()));
    scratch.run(COMMANDS[1]).done();
    scratch.run(COMMANDS[0]).done();
}
