//! A run from its first byte to its seal, as an instrument's machine goes through it, and what people do then.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use runvault_sequencer::{Family, Replay, RunSpec, Size};
use runvault_tests::Site;
use runvault_tests::tools::{output, printed, run, runvault};

/// A whole generated run in a gateway's mount; its name.
fn sequenced(at: &Path) -> String {
    let spec = RunSpec::preset(Family::NovaSeqX, Size::Tiny);
    let done = Replay::new(spec).run(at, &mut |_| {}).expect("a run");
    done.folder.file_name().expect("a name").to_string_lossy().into_owned()
}

/// `runvault seal`, which is given no key.
fn seal(site: &Site, name: &str) -> Output {
    let mut command = Command::new(runvault());
    output(command.args(["seal", "--json", "--state"]).arg(&site.state).arg(&site.store).arg(name))
}

fn said(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", printed(output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut stack) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() { stack.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

#[test]
fn a_run_is_sealed_under_a_live_mount_and_opens_for_the_owner_alone() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().mount();
    let name = sequenced(&mount.at);
    let tailing = fs::File::open(mount.path(&name).join("RunInfo.xml")).expect("an open file");
    let refused = seal(&site, &name);
    assert_eq!(refused.status.code(), Some(5), "{}", printed(&refused));
    assert!(printed(&refused).contains("is open"), "{}", printed(&refused));
    drop(tailing);
    let facts = said(&seal(&site, &name));
    assert_eq!((&facts["n"], &facts["complete"]), (&1.into(), &true.into()), "{facts}");
    assert_eq!(facts["family"], "novaseq-x");
    // Nothing of it is left where it was written, also not in the kernel's memory.
    let until = Instant::now() + Duration::from_secs(20);
    while fs::read(mount.path(&name).join("RunInfo.xml")).is_ok() {
        assert!(Instant::now() < until, "the gateway still reads it");
        std::thread::sleep(Duration::from_millis(50));
    }
    let again = seal(&site, &name);
    assert!(printed(&again).contains("this machine holds no run"), "{}", printed(&again));
    fs::create_dir(mount.path("next")).expect("the next run");
    mount.unmount();

    let verified = run(site.command(&["verify"]).arg(&site.store).arg(&name));
    assert!(printed(&verified).contains("is as gateway"), "{}", printed(&verified));
    let scrubbed =
        run(Command::new(runvault()).arg("scrub").arg(&site.store).arg("--state").arg(&site.state));
    assert!(
        printed(&scrubbed).contains("1 sealed run as signed; 1 run not sealed"),
        "{}",
        printed(&scrubbed)
    );
    // sha256sum(1) in a mount of the run agrees with what was signed.
    let sums = run(site.command(&["manifest", "--sha256sums"]).arg(&site.store).arg(&name));
    let list = site.dir().join("sums");
    fs::write(&list, &sums.stdout).expect("a file");
    let reader = site.mount_read_only();
    let checked =
        output(Command::new("sha256sum").arg("--quiet").arg("-c").arg(&list).current_dir(reader.path(&name)));
    assert!(checked.status.success(), "{}", printed(&checked));
    assert_eq!(
        String::from_utf8_lossy(&sums.stdout).lines().count() as u64,
        facts["files"].as_u64().unwrap()
    );
    let refused = fs::write(reader.path(&name).join("new"), b"x").expect_err("a sealed run");
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    reader.unmount();
}

#[test]
fn what_an_incomplete_run_lacks_is_said_in_its_seal() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().mount();
    let name = sequenced(&mount.at);
    mount.unmount();
    let lacking = "Data/Intensities/BaseCalls/L001/C3.1/L001_2.cbcl";
    let mount = site.ingest().mount();
    fs::remove_file(mount.path(&name).join(lacking)).expect("removed");
    mount.unmount();
    // Without a mount it is sealed as well.
    let facts = said(&seal(&site, &name));
    assert_eq!(facts["complete"], false, "{facts}");
    assert_eq!(facts["named"], serde_json::json!(["L001 C3.1 surface 2"]));
    let verified = run(site.command(&["verify", "--json"]).arg(&site.store).arg(&name));
    let summary: serde_json::Value = serde_json::from_slice(&verified.stdout).expect("JSON");
    assert_eq!((&summary["about"]["missing"], &summary["summary"]["findings"]), (&1.into(), &0.into()));
}

#[test]
fn who_changes_a_sealed_run_in_the_store_is_found_out_by_name() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().mount();
    let name = sequenced(&mount.at);
    mount.unmount();
    let facts = said(&seal(&site, &name));
    let dir = site.store.join("runs").join(facts["run"].as_str().expect("an id"));
    let files = files_below(&dir.join("tree"));
    let file = files.iter().max_by_key(|file| fs::metadata(file).expect("stat").len()).expect("a file");
    let open = fs::OpenOptions::new().read(true).write(true).open(file).expect("a stored file");
    let before = open.metadata().and_then(|meta| meta.modified()).expect("its time");
    let mut byte = [0];
    open.read_exact_at(&mut byte, 2000).expect("read");
    open.write_all_at(&[byte[0] ^ 1], 2000).expect("written");
    let stored = file.strip_prefix(&dir).expect("below").display().to_string();
    let scrubbed =
        output(Command::new(runvault()).arg("scrub").arg(&site.store).arg("--state").arg(&site.state));
    assert_eq!(scrubbed.status.code(), Some(4), "{}", printed(&scrubbed));
    assert!(
        printed(&scrubbed).contains(&format!("{stored}: changed: stored bytes")),
        "{}",
        printed(&scrubbed)
    );
    let verified = output(site.command(&["verify"]).arg(&site.store).arg(&name));
    assert_eq!(verified.status.code(), Some(4), "{}", printed(&verified));
    assert!(printed(&verified).contains("damaged: chunk 0 does not authenticate"), "{}", printed(&verified));
    open.write_all_at(&byte, 2000).expect("put back");
    let late = printed(&output(site.command(&["verify"]).arg(&site.store).arg(&name)));
    assert!(late.contains("changed: time"), "{late}");
    open.set_modified(before).expect("its time too");
    run(site.command(&["verify"]).arg(&site.store).arg(&name));
}

/// Between write and seal the store is someone else's.
#[test]
fn a_run_that_was_changed_before_its_seal_is_not_signed() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().mount();
    let name = sequenced(&mount.at);
    mount.unmount();
    let runs: Vec<_> = fs::read_dir(site.store.join("runs")).expect("runs").flatten().collect();
    let file = files_below(&runs[0].path().join("tree"));
    let file = file.iter().max_by_key(|file| fs::metadata(file).expect("stat").len()).expect("a file");
    let mut bytes = fs::read(file).expect("stored");
    bytes[1500] ^= 1;
    fs::write(file, bytes).expect("changed");
    let refused = seal(&site, &name);
    assert_eq!(refused.status.code(), Some(4), "{}", printed(&refused));
    for says in ["was not sealed: 1 object", "does not authenticate", "MetricsOut.bin"] {
        assert!(printed(&refused).contains(says), "{says}: {}", printed(&refused));
    }
    assert!(!runs[0].path().join("seal").exists());
    let mount = site.ingest().mount();
    fs::write(mount.path(&name).join("more"), b"it is still open").expect("written");
    mount.unmount();
}
