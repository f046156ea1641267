//! `doctor`: what would spoil a run is named, with its way out, and nothing is left in the store.

use std::os::unix::fs::PermissionsExt;

use crate::common::{Outcome, Scratch};
use serde_json::Value;

/// What it says about a thing.
fn about(said: &Outcome, about: &str) -> Value {
    let found = said
        .out()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .find(|v: &Value| v["about"] == about);
    found.unwrap_or_else(|| panic!("{about}: {}", said.out()))
}

/// The vault's id, which a fingerprint ends with.
fn fingerprint(scratch: &Scratch) -> String {
    scratch.vault();
    scratch.run(&["fingerprint", "store"]).out().lines().last().expect("an id").to_owned()
}

fn names(scratch: &Scratch) -> Vec<std::ffi::OsString> {
    let listed = std::fs::read_dir(scratch.path("store")).expect("a directory");
    listed.map(|entry| entry.expect("an entry").file_name()).collect()
}

fn set_mode(scratch: &Scratch, path: &str, mode: u32) {
    std::fs::set_permissions(scratch.path(path), std::fs::Permissions::from_mode(mode)).expect("a mode");
}

#[test]
fn what_is_in_the_way_of_a_run_is_named() {
    let scratch = Scratch::new();
    let fingerprint = fingerprint(&scratch);
    let before = names(&scratch);
    let said = scratch.run(&["doctor", "store"]);
    said.done();
    for line in ["vault ", "free", "/s, and ", "not enrolled", "gateway enroll"] {
        assert!(said.out().contains(line), "{line}: {}", said.out());
    }
    assert!(said.out().contains(&fingerprint), "{}", said.out());
    assert_eq!(names(&scratch), before);

    let needy = scratch.run(&["doctor", "store", "--json", "--need", "1000000000"]);
    needy.refused(1, "1 thing in the way");
    assert_eq!(about(&needy, "space")["verdict"], "bad");
    assert!(about(&needy, "space")["way_out"].is_string());

    set_mode(&scratch, "store", 0o777);
    assert_eq!(about(&scratch.run(&["doctor", "store", "--json"]), "store's mode")["verdict"], "warning");
    set_mode(&scratch, "store", 0o700);

    scratch.run(&["gateway", "enroll", "store", "--out", "req", "--fingerprint", &fingerprint]).done();
    let asked = scratch.run(&["doctor", "store"]);
    asked.refused(1, "in the way");
    assert!(asked.out().contains("is not enrolled") && !asked.out().contains("\\x0a"), "{}", asked.out());
    scratch
        .run(&["gateway", "enroll", "store", "--identity", "owner.key", "--fingerprint", &fingerprint])
        .done();
    let enrolled = scratch.run(&["doctor", "store", "--json"]);
    assert_eq!(about(&enrolled, "gateway")["verdict"], "good");
    assert_eq!(about(&enrolled, "state folder")["verdict"], "good");
    set_mode(&scratch, &format!("state/{fingerprint}"), 0o755);
    let open = scratch.run(&["doctor", "store", "--json"]);
    open.refused(1, "in the way");
    assert_eq!(about(&open, "state folder")["verdict"], "bad");
}

#[test]
fn a_machine_of_another_vault_and_no_vault_at_all_are_told() {
    let scratch = Scratch::new();
    let fingerprint = fingerprint(&scratch);
    scratch
        .run(&["gateway", "enroll", "store", "--identity", "owner.key", "--fingerprint", &fingerprint])
        .done();
    scratch.run(&["init", "other", "--identity", "other.key", "--no-lock"]).done();
    let said = scratch.run(&["doctor", "other", "--json"]);
    said.refused(1, "in the way");
    assert!(
        about(&said, "gateway")["what"].as_str().is_some_and(|what| what.contains(&fingerprint)),
        "{}",
        said.out()
    );
    scratch.folder("empty");
    scratch.run(&["doctor", "empty"]).refused(1, "not a vault");
}
