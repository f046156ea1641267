//! Sealed runs through the second reader: what runvault seals it accepts, and what was changed since it names.

use std::fs;
use std::process::{Command, Output};

use runvault_tests::Site;
use runvault_tests::making::full_tree;
use runvault_tests::tools::{output, printed, run, runvault};

use crate::{extract, python, random};

fn verified(site: &Site) -> Output {
    let mut reader = python("reader.py");
    output(reader.arg("--identity").arg(&site.identity).arg(&site.store).arg("verify"))
}

#[test]
fn a_sealed_run_is_verified_by_the_page_alone() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().mount();
    fs::create_dir(mount.path("run")).expect("a run");
    full_tree(&mount.path("run/tree"), &mut random(40));
    mount.unmount();
    let mut seal = Command::new(runvault());
    let sealed = run(seal.args(["seal", "--json", "--state"]).arg(&site.state).arg(&site.store).arg("run"));
    let facts: serde_json::Value = serde_json::from_slice(&sealed.stdout).expect("JSON");
    let done = verified(&site);
    let says = format!("run: {} files compared with the seal", facts["files"]);
    assert!(done.status.success() && printed(&done).contains(&says), "{}", printed(&done));
    extract(&site);

    // A byte of the largest stored file, then a file that was not sealed.
    let dir = site.store.join("runs").join(facts["run"].as_str().expect("an id"));
    let digests = fs::read_to_string(dir.join("seal/digests")).expect("digests");
    let files = digests.lines().filter_map(|line| line.split_once("  ")).map(|(_, path)| dir.join(path));
    let file = files
        .filter(|file| file.starts_with(dir.join("tree")))
        .max_by_key(|file| fs::metadata(file).map_or(0, |meta| meta.len()))
        .expect("a file");
    let good = fs::read(&file).expect("stored");
    let mut bad = good.clone();
    bad[1100] ^= 1;
    fs::write(&file, bad).expect("changed");
    let done = verified(&site);
    assert_eq!(done.status.code(), Some(1), "{}", printed(&done));
    assert!(printed(&done).contains("digests (changed)"), "{}", printed(&done));
    fs::write(&file, good).expect("put back");
    let added = dir.join("tree").join("a".repeat(39));
    fs::write(&added, b"x").expect("added");
    let done = verified(&site);
    assert!(printed(&done).contains("digests (added)") && !done.status.success(), "{}", printed(&done));
    fs::remove_file(&added).expect("taken away");
    let envelope = fs::read(dir.join("seal/vault-1")).expect("an envelope");
    for (name, bytes, says) in [
        ("more", &b"x"[..], "more: digests (added)"),
        ("keys/more", b"x", "keys/more: digests (added)"),
        ("keys/vault-7", &envelope, "keys/vault-7: digests (added)"),
        ("keys/reader-77777777777777777777777777777777", &envelope, "7: digests (added)"),
        ("keys/vault-1", &envelope[..1177], "not-authentic"),
        ("keys/vault-1", &[&envelope[..1177], b"x"].concat(), "not-authentic"),
    ] {
        let kept = fs::read(dir.join(name)).ok();
        fs::write(dir.join(name), bytes).expect("written");
        let done = verified(&site);
        assert!(!done.status.success() && printed(&done).contains(says), "{says}: {}", printed(&done));
        match kept {
            Some(kept) => fs::write(dir.join(name), kept).expect("put back"),
            None => fs::remove_file(dir.join(name)).expect("taken away"),
        }
    }
    assert!(verified(&site).status.success());
}

#[test]
fn a_run_under_another_key_is_proved_by_its_first_gateway() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().mount();
    fs::create_dir(mount.path("run")).expect("a run");
    full_tree(&mount.path("run/tree"), &mut random(41));
    mount.unmount();
    let mut seal = Command::new(runvault());
    run(seal.args(["seal", "--json", "--state"]).arg(&site.state).arg(&site.store).arg("run"));
    // Twice: what is kept is the first one's.
    for _ in 0..2 {
        run(site.command(&["custody", "rekey"]).arg(&site.store).arg("run"));
        run(site.command(&["rekey", "--grace", "0s"]).arg(&site.store).arg("run"));
    }
    let done = verified(&site);
    assert!(done.status.success() && printed(&done).contains("files compared"), "{}", printed(&done));
    extract(&site);
    let only = fs::read_dir(site.store.join("runs")).expect("runs").next().expect("one").expect("an entry");
    let kept = only.path().join("seal/origin.note");
    let good = fs::read(&kept).expect("what the gateway signed");
    for (bad, says) in [
        (None, "nothing is kept of the run that was sealed first"),
        (Some(String::from_utf8_lossy(&good).replacen("\"bytes\":", "\"bytes\":1", 1)), "signature"),
    ] {
        match bad {
            Some(bad) => fs::write(&kept, bad).expect("changed"),
            None => fs::remove_file(&kept).expect("taken away"),
        }
        let done = verified(&site);
        assert!(!done.status.success() && printed(&done).contains(says), "{}", printed(&done));
    }
    fs::write(&kept, &good).expect("put back");
    assert!(verified(&site).status.success());
}
