//! What a machine keeps of sealed runs from mount to mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use runvault_tests::Site;
use runvault_tests::tools::{run, runvault};

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

#[test]
fn a_known_run_without_its_seal_is_refused_at_the_read_and_then_left_out() {
    let site = Site::new();
    sealed(&site);
    let mount = || site.builder().state(&site.dir().join("owner")).arg("--read-only").mount();
    mount().unmount();
    for run in fs::read_dir(site.store.join("runs")).expect("runs").flatten() {
        fs::remove_dir_all(run.path().join("seal")).expect("a seal");
    }
    let known = mount();
    assert_eq!(fs::read_dir(&known.at).expect("a mount").count(), 2);
    let refused = fs::read(known.path(NAMES[0]).join("RunInfo.xml")).expect_err("a read");
    assert_eq!(refused.raw_os_error(), Some(libc::EIO));
    known.logged("its seal was removed: this machine has seen it sealed", 1);
    known.unmount();
    let next = mount();
    assert_eq!(fs::read_dir(&next.at).expect("a mount").count(), 1, "one of them was not looked into yet");
    next.unmount();
}
