//! Someone who may write to the store puts back what was there once: the seal names it, and signs nothing.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use runvault_tests::Site;
use runvault_tests::tools::{output, printed, run, runvault};

fn seal(site: &Site) -> Output {
    let mut command = Command::new(runvault());
    output(command.args(["seal", "--json", "--state"]).arg(&site.state).arg(&site.store).arg("run"))
}

/// The stored file of so many plaintext bytes, less than a chunk; a close does not wait for what is local.
fn stored(site: &Site, bytes: u64) -> PathBuf {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match stored_now(site, bytes) {
            Some(path) => return path,
            None => assert!(Instant::now() < until, "no file of {bytes} bytes is stored"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn stored_now(site: &Site, bytes: u64) -> Option<PathBuf> {
    let runs = fs::read_dir(site.store.join("runs")).expect("runs").flatten().next().expect("the run");
    let files = fs::read_dir(runs.path().join("tree")).expect("a tree").flatten();
    let mut files = files.filter(|file| file.metadata().is_ok_and(|meta| meta.len() == 1024 + 28 + bytes));
    files.next().map(|file| file.path())
}

fn objects(output: &Output) -> Vec<(String, String)> {
    let lines = String::from_utf8_lossy(&output.stdout);
    let objects = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    objects.map(|object| (text(&object["path"]), text(&object["what"]))).collect()
}

#[test]
fn an_older_file_put_back_and_one_taken_away_are_named_and_nothing_is_signed() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().args(["--seal", "hand"]).mount();
    let folder = mount.path("run");
    fs::create_dir(&folder).expect("a run");
    fs::write(folder.join("Metrics.bin"), [1; 5000]).expect("a file");
    fs::write(folder.join("Sample.cbcl"), [2; 6000]).expect("a file");
    fs::write(folder.join("Kept.cbcl"), [3; 7000]).expect("a file");
    let older = fs::read(stored(&site, 5000)).expect("stored");
    let file = fs::File::options().write(true).open(folder.join("Metrics.bin")).expect("a file");
    file.write_all_at(&[4; 100], 0).expect("written over");
    file.sync_all().expect("synced");
    drop(file);
    let (metrics, sample) = (stored(&site, 5000), stored(&site, 6000));
    let (newer, lost) = (fs::read(&metrics).expect("stored"), fs::read(&sample).expect("stored"));
    assert!(newer != older);
    // What no chunk's tag can tell.
    fs::write(&metrics, &older).expect("put back");
    fs::remove_file(&sample).expect("removed");

    let refused = seal(&site);
    assert_eq!(refused.status.code(), Some(4), "{}", printed(&refused));
    let what = "not what was written: an earlier state of it, or of a part of it".to_owned();
    let named = [("Sample.cbcl".to_owned(), "missing".to_owned()), ("Metrics.bin".to_owned(), what)];
    let mut found = objects(&refused);
    found.sort();
    assert_eq!(found, [named[1].clone(), named[0].clone()]);
    let until = Instant::now() + Duration::from_secs(20);
    let mut runs = Command::new(runvault());
    runs.args(["runs", "--state"]).arg(&site.state).arg(&site.store);
    while !printed(&run(&mut runs))
        .contains("2 objects of it do not authenticate, or are not what was written")
    {
        assert!(Instant::now() < until, "{}", printed(&run(&mut runs)));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(mount.log().contains("not sealed: tree/"), "{}", mount.log());
    assert!(!mount.log().contains("Metrics"), "{}", mount.log());

    // Put back as it was, and through the mount: what a person removes there is to be gone.
    fs::write(&metrics, &newer).expect("put back");
    fs::write(&sample, &lost).expect("put back");
    fs::remove_file(folder.join("Sample.cbcl")).expect("removed");
    mount.unmount();
    let sealed = seal(&site);
    assert!(sealed.status.success(), "{}", printed(&sealed));
    let said: serde_json::Value = serde_json::from_slice(&sealed.stdout).expect("JSON");
    assert_eq!((&said["files"], &said["ledger"]), (&2.into(), &2.into()), "{said}");
    let vault = fs::read_dir(&site.state).expect("state").flatten().next().expect("a vault").path();
    assert_eq!(fs::read_dir(vault.join("ledger")).expect("ledgers").count(), 0, "it is gone with the seal");
}

/// `cp -a` and `rsync -A` set the mode by an ACL.
#[test]
fn an_empty_file_that_was_given_an_acl_is_signed() {
    let site = Site::new();
    site.enroll();
    let from = site.state.with_file_name("from");
    fs::create_dir(&from).expect("a folder");
    fs::write(from.join("Empty.txt"), b"").expect("a file");
    fs::write(from.join("RunInfo.xml"), b"x").expect("a file");
    let mount = site.ingest().args(["--seal", "hand"]).mount();
    let folder = mount.path("run");
    run(Command::new("cp").arg("-aT").arg(&from).arg(&folder));
    run(Command::new("setfacl").args(["-m", "g:1234:r"]).arg(folder.join("Empty.txt")));
    let sealed = seal(&site);
    assert!(sealed.status.success(), "{}", printed(&sealed));
    mount.unmount();
}

/// A gateway that was killed has noted less, and nothing wrong.
#[test]
fn a_killed_gateway_goes_on_and_seals_what_was_written() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().args(["--seal", "hand"]).mount();
    let folder = mount.path("run");
    fs::create_dir(&folder).expect("a run");
    for n in 0..50 {
        fs::write(folder.join(format!("{n}.bcl")), vec![n; 3000 + usize::from(n)]).expect("a file");
    }
    std::thread::sleep(Duration::from_secs(6));
    for n in 0..10 {
        fs::remove_file(folder.join(format!("{n}.bcl"))).expect("removed");
        fs::rename(folder.join(format!("{}.bcl", 20 + n)), folder.join(format!("{n}.cbcl")))
            .expect("renamed");
        fs::write(folder.join(format!("{}.bcl", 40 + n)), [n; 100]).expect("written over");
    }
    mount.kill();
    let mount = site.ingest().args(["--seal", "hand"]).mount();
    assert_eq!(fs::read_dir(&folder).expect("the run").count(), 40);
    mount.unmount();
    let sealed = seal(&site);
    assert!(sealed.status.success(), "{}", printed(&sealed));
}

/// Whoever may write to the store can have a session end badly: that makes nothing of what he puts back honest.
#[test]
fn a_short_file_put_back_is_named_although_its_session_could_not_end() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().args(["--seal", "hand"]).mount();
    let folder = mount.path("run");
    fs::create_dir(&folder).expect("a run");
    let file = fs::File::create(folder.join("Metrics.bin")).expect("a file");
    file.write_all_at(&[1; 5000], 0).and_then(|()| file.sync_all()).expect("written");
    drop(file);
    let older = fs::read(stored(&site, 5000)).expect("stored");
    let file = fs::File::options().write(true).open(folder.join("Metrics.bin")).expect("a file");
    file.write_all_at(&[2; 5000], 0).and_then(|()| file.sync_all()).expect("written over");
    drop(file);
    let metrics = stored(&site, 5000);
    let newer = fs::read(&metrics).expect("stored");
    let journal = metrics.ancestors().nth(2).expect("the run").join("journal");
    fs::create_dir_all(&journal).expect("a journal");
    fs::write(journal.join("foreign"), b"not ours").expect("a file");
    mount.signal(rustix::process::Signal::TERM);
    assert!(!mount.wait().success(), "its journal cannot be removed");
    fs::remove_file(journal.join("foreign")).expect("removed");

    fs::write(&metrics, &older).expect("put back");
    let refused = seal(&site);
    assert_eq!(refused.status.code(), Some(4), "{}", printed(&refused));
    let what = "not what was written: an earlier state of it, or of a part of it".to_owned();
    assert_eq!(objects(&refused), [("Metrics.bin".to_owned(), what)]);
    fs::write(&metrics, &newer).expect("put back");
    let sealed = seal(&site);
    assert!(sealed.status.success(), "{}", printed(&sealed));
}
