//! A run that another host holds: named, and taken over only by a person's word.

use crate::common::{Scratch, held_elsewhere, text};

#[test]
fn without_a_terminal_it_fails_and_names_what_yes_accepts() {
    let scratch = Scratch::new();
    held_elsewhere(&scratch);
    let status = scratch.run(&["status", "store"]);
    assert!(status.done().out().contains("process 4711"), "{}", status.all());
    let write = ["cp", "--identity", "owner.key", "owner.key", "store:/run/new"];
    scratch
        .run(&write)
        .refused(5, "process 4711")
        .refused(5, &format!("runvault takeover {}", text(&scratch.path("store"))));
    let takeover = ["takeover", "--identity", "owner.key", "store", "run"];
    scratch
        .run(&takeover)
        .refused(1, "no terminal")
        .refused(1, "--yes accepts: that the machine which holds");
    scratch.run(&write).refused(5, "process 4711");
    scratch.run(&[&takeover[..], &["--yes"]].concat()).done();
    // The command has ended since: nobody is to be asked about it.
    let status = scratch.run(&["status", "store"]);
    assert!(status.done().out().contains("of this machine, which has ended"), "{}", status.all());
    let again = scratch.run(&takeover);
    assert!(again.done().out().contains("this machine's already"), "{}", again.all());
    scratch.run(&write).done();
    let again = scratch.run(&takeover);
    assert!(again.done().out().contains("this machine's already"), "{}", again.all());
    scratch.run(&["cat", "--identity", "owner.key", "store", "run/RunInfo.xml"]).done();
}

#[test]
fn a_run_that_is_not_there() {
    let scratch = Scratch::new();
    scratch.vault();
    let takeover = |run| scratch.run(&["takeover", "--yes", "--identity", "owner.key", "store", run]);
    takeover("none").refused(1, "there is no run none").refused(1, "runvault runs store");
    takeover("00112233445566778899aabbccddeeff").refused(1, "");
}

#[test]
fn a_run_whose_entry_in_the_state_folder_is_lost_is_taken_over_though_nobody_holds_it() {
    let scratch = Scratch::new();
    scratch.vault();
    scratch.folder("run");
    scratch.secret("run/RunInfo.xml", "<RunInfo/>");
    scratch.run(&["cp", "-r", "--identity", "owner.key", "run", "store:/"]).done();
    std::fs::remove_dir_all(scratch.path("state")).unwrap();
    let write = ["cp", "--identity", "owner.key", "owner.key", "store:/run/new"];
    scratch
        .run(&write)
        .refused(1, "is read-only here: gateway")
        .refused(1, "its key is not in this machine's state folder")
        .refused(1, &format!("runvault takeover {}", text(&scratch.path("store"))));
    scratch.run(&["takeover", "--yes", "--identity", "owner.key", "store", "run"]).done();
    scratch.run(&write).done();
}

#[test]
fn a_run_that_no_envelope_opens_is_named_by_its_id() {
    let scratch = Scratch::new();
    held_elsewhere(&scratch);
    std::fs::remove_dir_all(scratch.path("state")).unwrap();
    let run = std::fs::read_dir(scratch.path("store/runs")).unwrap().next().unwrap().unwrap();
    let id = run.file_name().into_string().unwrap();
    std::fs::remove_file(run.path().join("keys/vault-1")).unwrap();
    let takeover = |run| scratch.run(&["takeover", "--yes", "--identity", "owner.key", "store", run]);
    takeover("run")
        .refused(4, "no run that opens is named run")
        .refused(4, &format!("run {id} is left out"))
        .refused(4, "no envelope to a key of this vault is there")
        .refused(4, "runvault takeover store ID");
    takeover(&id).refused(4, "no envelope to a key of this vault is there");
}
