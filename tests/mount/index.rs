//! What a machine keeps of sealed runs from mount to mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use runvault_tests::tools::{run, runvault};
use runvault_tests::{Mount, Site};

const NAMES: [&str; 2] = ["240101_A00123_0001_ASECRET", "240102_A00123_0002_BSECRET"];

/// A gateway's sealed runs.
fn sealed(site: &Site) {
    site.enroll();
    let mount = site.ingest().mount();
    for name in NAMES {
        fs::create_dir(mount.path(name)).expect("a run");
        fs::write(mount.path(name).join("RunInfo.xml"), name).expect("a file");
        let mut seal = Command::new(runvault());
        run(seal.args(["seal", "--state"]).arg(&site.state).arg(&site.store).arg(name));
    }
    mount.unmount();
    // It knows them when it comes again.
    site.ingest().mount().unmount();
}

/// Names, and what is in them.
fn shown(at: &Path) -> Vec<(String, String)> {
    let names = fs::read_dir(at).expect("a mount").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort();
    let content = |name: &String| fs::read_to_string(at.join(name).join("RunInfo.xml")).expect("a file");
    names.iter().map(|name| (name.clone(), content(name))).collect()
}

fn all_of_it() -> Vec<(String, String)> {
    NAMES.map(|name| (name.to_owned(), name.to_owned())).into()
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// The one index of a state folder.
fn index(state: &Path) -> PathBuf {
    let files = files_below(state);
    let mut found = files.iter().filter(|path| path.parent().is_some_and(|dir| dir.ends_with("index")));
    let one = found.next().expect("an index").clone();
    assert_eq!(found.next(), None);
    one
}

#[test]
fn it_is_kept_under_each_identity_and_tells_no_name() {
    let site = Site::new();
    sealed(&site);
    let owner = site.dir().join("owner");
    for _ in 0..2 {
        let mount = site.builder().state(&owner).arg("--read-only").mount();
        assert_eq!(shown(&mount.at), all_of_it());
        assert_eq!(site.status(&mount.at)["runs_to_open"], 0);
        mount.unmount();
    }
    let states = [&owner, &site.state];
    assert_ne!(index(&owner).file_name(), index(&site.state).file_name());
    for file in states.into_iter().flat_map(|state| files_below(state)) {
        let bytes = fs::read(&file).unwrap_or_default();
        let tells = |name: &str| memchr::memmem::find(&bytes, name.as_bytes()).is_some();
        assert!(!tells("SECRET") && !tells("RunInfo"), "{}", file.display());
    }
}

#[test]
fn one_that_was_changed_is_told_not_used_and_made_anew() {
    let site = Site::new();
    sealed(&site);
    let mount = || site.builder().state(&site.dir().join("owner")).arg("--read-only").mount();
    mount().unmount();
    let index = index(&site.dir().join("owner"));
    let changed = {
        let mut bytes = fs::read(&index).expect("an index");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    fs::write(&index, &changed).expect("written");
    let again = mount();
    assert_eq!(shown(&again.at), all_of_it());
    again.logged("does not authenticate: it is not used", 1);
    let until = Instant::now() + Duration::from_secs(20);
    while fs::read(&index).is_ok_and(|bytes| bytes == changed) {
        assert!(Instant::now() < until, "it is not made anew");
        std::thread::sleep(Duration::from_millis(20));
    }
    again.unmount();
}

/// Waits until so many runs are shown.
fn shows(mount: &Mount, runs: usize) {
    let until = Instant::now() + Duration::from_secs(60);
    while fs::read_dir(&mount.at).expect("a mount").count() != runs {
        assert!(Instant::now() < until, "not {runs} runs\n{}", mount.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn seals(site: &Site) -> Vec<PathBuf> {
    let runs = fs::read_dir(site.store.join("runs")).expect("runs").flatten();
    runs.map(|run| run.path().join("seal")).filter(|seal| seal.exists()).collect()
}

#[test]
fn known_runs_without_their_seals_are_told_and_left_out_before_anyone_looks_into_them() {
    let site = Site::new();
    sealed(&site);
    let mount = || site.builder().state(&site.dir().join("owner")).arg("--read-only").mount();
    mount().unmount();
    let seals = seals(&site);
    fs::remove_dir_all(&seals[0]).expect("a seal");
    let known = mount();
    known.logged("its seal was removed: this machine has seen it sealed", 1);
    shows(&known, 1);
    let told = |known: &Mount| {
        let said = site.status(&known.at);
        let runs = said["runs"].as_array().expect("runs").clone();
        runs.iter().filter(|run| run["trouble"].is_string()).count()
    };
    assert_eq!(told(&known), 1);
    // Also of one that goes while the mount stays, and what was read of it stays what it was.
    let name = &shown(&known.at)[0].0;
    fs::read(known.path(name).join("RunInfo.xml")).expect("a file");
    fs::remove_dir_all(&seals[1]).expect("a seal");
    known.logged("its seal was removed: this machine has seen it sealed", 2);
    shows(&known, 0);
    assert_eq!(told(&known), 2);
    known.unmount();
}

#[test]
fn a_run_that_was_granted_is_shown_no_more_once_that_was_revoked() {
    let site = Site::new();
    sealed(&site);
    let key = site.dir().join("dave.key");
    let custody = |args: &[&str]| {
        let mut command = Command::new(runvault());
        command.args(["custody", args[0]]).arg(&site.store).args(&args[1..]);
        run(command.arg("--identity").arg(&site.identity));
    };
    run(Command::new(runvault()).args(["keygen", "--no-lock", "--out"]).arg(&key));
    custody(&["add-reader", &format!("dave={}.pub", key.display())]);
    for name in NAMES {
        custody(&["grant", name, "dave"]);
    }
    let mount = || {
        let reads = site.builder().identity(&key).state(&site.dir().join("reader"));
        reads.arg("--read-only").mount()
    };
    let known = mount();
    assert_eq!(shown(&known.at), all_of_it());
    known.unmount();
    custody(&["revoke", NAMES[0], "dave"]);
    let again = mount();
    fs::read(again.path(NAMES[0]).join("RunInfo.xml")).expect_err("it is closed to this reader");
    shows(&again, 1);
    // It is told apart from damage.
    assert!(!again.log().contains("left out"), "{}", again.log());
    again.unmount();
    let next = mount();
    shows(&next, 1);
    next.unmount();
}
