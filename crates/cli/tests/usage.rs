//! What ends with exit 2 (and 1) before any key is opened; each says which.

use crate::common::{self, Scratch, text};
use std::os::unix::fs::PermissionsExt;

#[test]
fn unknown_commands_flags_and_mount_options() {
    let scratch = Scratch::new();
    scratch.run(&[]).refused(2, "Usage");
    scratch.run(&["frobnicate"]).refused(2, "frobnicate");
    scratch.run(&["ls", "--frobnicate", "x"]).refused(2, "--frobnicate");
    for words in [&["nonsense"][..], &["retier", "run"], &["nonsense", "rotate"]] {
        let propose = scratch.run(&[&["custody", "propose", "store"], words].concat());
        propose.refused(2, &format!("unknown act '{}'; acts: rotate, add-custodian, ", words[0]));
    }
    scratch.run(&["custody", "propose", "store", "rotate", "more"]).refused(2, "unexpected argument 'more'");
    let (store, at) = (scratch.folder("store"), scratch.folder("mnt"));
    let mount = |options: &str| scratch.run(&["mount", "-o", options, text(&store), text(&at)]);
    scratch.run(&["init", "--label", "", "new"]).refused(2, "a label has 1 to 128 bytes");
    assert!(!scratch.path("new").exists());
    mount("rw,frobnicate").refused(2, "-o frobnicate: unknown mount option");
    mount("suid").refused(2, "nosuid,nodev");
    mount("run-depth=none").refused(2, "run-depth=none");
    mount("uid=7").refused(2, "read-only");
    mount("log=").refused(2, "log=: not a usable value");
    scratch.run(&["mount", "--log", "", text(&store), text(&at)]).refused(2, "--log");
}

#[test]
fn mount_points_that_cannot_be_used() {
    let scratch = Scratch::new();
    let store = scratch.folder("store");
    let (inside, full, file) =
        (scratch.folder("store/inside"), scratch.folder("full"), scratch.secret("file", ""));
    scratch.folder("full/x");
    let mount = |at: &str| scratch.run(&["mount", text(&store), at]);
    mount("none").refused(2, "mount point none: missing").refused(2, "mkdir -p none");
    let within = mount("store/none/below");
    within.refused(2, "inside the store");
    assert!(!within.all().contains("mkdir"), "{}", within.all());
    mount(text(&file)).refused(2, "not a directory");
    mount(text(&full)).refused(2, "not empty");
    mount(text(&inside)).refused(2, "inside the store");
    mount(text(&store)).refused(2, "the store itself");
    mount(".").refused(2, "is inside it and would be hidden");
    mount("/proc").refused(2, "mounted already");
    let at = scratch.folder("mnt");
    let mut state_inside = scratch.command(&["mount", text(&store), text(&at)]);
    state_inside.args(["-o", &format!("state={}/state", text(&store))]);
    common::Outcome::of(state_inside).refused(2, "is inside the store");
    scratch.run(&["unmount", text(&full)]).refused(2, "no vault is mounted there");
}

/// What was typed comes back in messages, and must not move the cursor or colour the line.
#[test]
fn control_characters_are_made_visible() {
    let scratch = Scratch::new();
    scratch.vault();
    let evil = "x\u{1b}[2J\ry";
    let seen = "x\\x1b[2J\\x0dy";
    for args in [
        &["ls", "store", "--identity", evil][..],
        &["ls", "store", evil, "--identity", "owner.key"],
        &["mount", "store", evil, "-o", evil],
        &["mount", "store", "mnt", "-o", evil],
        &["takeover", "store", evil, "--identity", "owner.key"],
        &[evil],
        &["mount", "--run-depth", evil, "a", "b"],
    ] {
        let outcome = scratch.run(args);
        let control = |c: char| c.is_control() && c != '\n';
        assert!(!outcome.stderr.contains(control), "{args:?}: {:?}", outcome.stderr);
    }
    scratch.run(&["ls", "store", "--identity", evil]).refused(2, seen);
}

/// A parser's error quotes the store.
#[test]
fn control_characters_of_a_store_are_made_visible() {
    let scratch = Scratch::new();
    let store = scratch.vault();
    scratch.folder("run");
    let copied = scratch.run(&["cp", "-r", "run", "store:/", "--identity", "owner.key"]);
    assert_eq!(copied.code, 0, "{}", copied.all());
    let run = std::fs::read_dir(store.join("runs")).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(run.join("run.json")).unwrap();
    std::fs::write(run.join("run.json"), text.replace("\"opened\"", "\"\\u001b[2J\"")).unwrap();
    for (command, code) in [("check", 4), ("ls", 4), ("status", 0)] {
        let outcome = scratch.run(&[command, "store", "--identity", "owner.key"]);
        let said = outcome.all();
        assert_eq!(outcome.code, code, "{said}");
        assert!(said.contains("\\u{1b}[2J") && !said.contains('\x1b'), "{command}: {said:?}");
    }
}

#[test]
fn what_is_no_key_file_is_a_usage_error() {
    let scratch = Scratch::new();
    scratch.vault();
    scratch.secret("notes", "not a key");
    scratch.run(&["ls", "store", "--identity", "notes"]).refused(2, "notes: not a key file");
}

#[test]
fn a_path_in_a_vault_without_its_slash() {
    let scratch = Scratch::new();
    scratch.vault();
    scratch.secret("file", "x");
    scratch.run(&["cp", "file", "store:"]).refused(2, "begins with a slash").refused(2, "store:/");
    scratch.run(&["cp", "store:/x", "store:y"]).refused(2, "store:/y");
}

#[test]
fn a_store_that_is_missing_or_no_vault() {
    let scratch = Scratch::new();
    let (at, full) = (scratch.folder("mnt"), scratch.folder("full"));
    scratch.secret("full/holiday.jpg", "x");
    scratch.secret("file", "x");
    for command in ["ls", "check", "passwd", "status"] {
        let none = scratch.run(&[command, "none"]);
        none.refused(1, "no such directory").refused(1, "the share");
        assert!(!none.all().contains("init"), "{}", none.all());
        scratch.run(&[command, "file"]).refused(1, "not a directory");
    }
    scratch.run(&["mount", "none", text(&at)]).refused(1, "no such directory");
    scratch.run(&["cp", "file", "none:/x"]).refused(1, "no such directory");
    scratch
        .run(&["cp", "file", "other"])
        .refused(2, "neither side is a vault: file has no :/, other has no :/");
    scratch.run(&["ls", text(&full)]).refused(1, "not a vault").refused(1, "runvault init DIR");
    scratch
        .run(&["status", "mnt"])
        .refused(1, "no vault is mounted there")
        .refused(1, "runvault status lists");
}

#[test]
fn passphrase_files_that_are_none() {
    let scratch = Scratch::new();
    scratch.secret("empty", "");
    scratch.secret("blank", "\nsecond line\n");
    scratch.secret("giant", vec![b'x'; (1 << 20) + 1]);
    scratch.folder("folder");
    let init = |file: &str| scratch.run(&["init", "--passphrase-file", file, "store"]);
    init("empty").refused(2, "the first line is empty");
    init("blank").refused(2, "the first line is empty");
    init("giant").refused(2, "over 1 MiB");
    init("folder").refused(2, "a directory");
    init("none").refused(2, "No such file");
    scratch.run(&["init", "--passphrase-fd", "77", "store"]).refused(2, "file descriptor 77");
    assert!(!scratch.path("store").exists(), "nothing is written before everything is known to be usable");
}

#[test]
fn secrets_that_others_may_read() {
    let scratch = Scratch::new();
    let file = scratch.secret("pass", common::STRONG);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let init = ["init", "--passphrase-file", "pass", "store"];
    scratch.run(&init).refused(2, "mode 0644").refused(2, "--allow-readable-secret");
    assert!(!scratch.path("store").exists());
    scratch.run(&[&init[..], &["--allow-readable-secret"]].concat()).done();
}

#[test]
fn a_passphrase_is_taken_from_no_argument_and_no_variable() {
    let scratch = Scratch::new();
    scratch.run(&["init", "--passphrase", "secret", "store"]).refused(2, "--passphrase");
    let mut command = scratch.command(&["init", "store"]);
    for name in ["PASSPHRASE", "RUNVAULT_PASSPHRASE", "RUNVAULT_PASSPHRASE_FILE", "PASSWORD"] {
        command.env(name, common::STRONG);
    }
    common::Outcome::of(command).refused(2, "no terminal").refused(2, "--passphrase-file");
    assert!(!scratch.path("store").exists());
}

#[test]
fn the_helper_of_mount_8_checks_and_mounts_nothing() {
    let scratch = Scratch::new();
    let helper = scratch.path("mount.runvault");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_runvault"), &helper).unwrap();
    let (store, at) = (scratch.folder("store"), scratch.folder("mnt"));
    let call = |args: &[&str]| {
        let mut command = std::process::Command::new(&helper);
        command.args([text(&store), text(&at)]).args(args);
        common::Outcome::of(command)
    };
    call(&["-o", "rw,frobnicate"]).refused(2, "frobnicate");
    if std::path::Path::new("/dev/fuse").exists() {
        call(&["-f", "-n", "-t", "runvault", "-o", "rw,_netdev,x-systemd.automount"]).done();
        call(&["-sf", "-o", "rw,frobnicate"]).done();
    }
}
