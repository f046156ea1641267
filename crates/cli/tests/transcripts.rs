//! Recorded conversations: a changed word shows in review. `RUNVAULT_RECORD=1 cargo test` writes them
//! anew.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::{STRONG, Scratch, recorded};

#[test]
fn a_first_day() {
    let scratch = Scratch::new();
    scratch.secret("pass.txt", STRONG);
    scratch.secret("new.txt", "other seven words nobody guesses zither quagmire");
    scratch.folder("run/InterOp");
    scratch.secret("run/RunInfo.xml", "<RunInfo/>");
    scratch.secret("run/InterOp/EventMetricsOut.bin", "0123456789");
    play(
        &scratch,
        "first_day",
        &[
            "init store --passphrase-file pass.txt",
            "init store --passphrase-file pass.txt",
            "key export store --out owner.key",
            "key export store --out owner.key",
            "passwd store --passphrase-file pass.txt --new-passphrase-file new.txt",
            "status store",
        ],
    );
}

#[test]
fn work_without_a_mount() {
    let scratch = Scratch::new();
    scratch.vault();
    scratch.folder("run/InterOp");
    scratch.secret("run/RunInfo.xml", "<RunInfo/>\n");
    scratch.secret("run/InterOp/EventMetricsOut.bin", "0123456789");
    play(
        &scratch,
        "without_a_mount",
        &[
            "cp -r run store:/ --identity owner.key",
            "cp run/RunInfo.xml store:/run/ --identity owner.key",
            "cp --force run/RunInfo.xml store:/run/ --identity owner.key",
            "ls store --identity owner.key",
            "ls -R store --identity owner.key",
            "cat store run/RunInfo.xml --identity owner.key",
            "cat store run/none --identity owner.key",
            "cp -r store:/run out --identity owner.key",
            "check store --identity owner.key",
            "check store --json --identity owner.key",
            "custody rotate store --identity owner.key",
            "status store --identity owner.key",
            "takeover store run --identity owner.key",
            "takeover store none --identity owner.key",
        ],
    );
}

#[test]
fn refusals() {
    let scratch = Scratch::new();
    scratch.vault();
    scratch.folder("mnt");
    scratch.folder("full/holiday");
    scratch.folder("empty");
    play(
        &scratch,
        "refusals",
        &[
            "ls none",
            "ls full",
            "ls empty",
            "ls store",
            "key export store --out copy.key",
            "init full --no-lock --identity new.key",
            "init store --no-lock --identity new.key",
            "init new --no-lock --identity owner.key",
            "mount none mnt",
            "mount store none",
            "mount store full",
            "mount store store",
            "mount -o frobnicate store mnt",
            "cp -r full store:/",
            "cp owner.key full",
            "unmount mnt",
        ],
    );
}

/// Runs each line and compares what is printed with the record of that name.
fn play(scratch: &Scratch, name: &str, lines: &[&str]) {
    let mut text = String::new();
    for line in lines {
        let outcome = scratch.run(&line.split(' ').collect::<Vec<_>>());
        text += &format!("$ runvault {line}\n{}{}", outcome.out(), outcome.stderr);
        if outcome.code != 0 {
            text += &format!("[exit {}]\n", outcome.code);
        }
        text.push('\n');
    }
    recorded::compare(&record("tests/transcripts", name), &text, &scratch.path(""));
}

/// A script of docs/ceremonies goes through, and shows on the screen what the record beside it has.
fn ceremony(name: &str) {
    let scratch = Scratch::new();
    let (folder, screen) = (scratch.folder("vault"), scratch.path("screen"));
    let shown = std::fs::File::create(&screen).expect("a file");
    let mut script = Command::new(record("../../docs/ceremonies", name).with_extension("sh"));
    script.arg(&folder).env_clear().env("PATH", typed(&scratch)).stdin(Stdio::null());
    let ended = script.stdout(shown.try_clone().expect("a handle")).stderr(shown).status();
    let shown = std::fs::read_to_string(screen).expect("UTF-8");
    assert!(ended.expect("it starts").success(), "{name}:\n{shown}");
    recorded::compare(&record("../../docs/ceremonies/transcripts", name), &shown, &folder);
}

/// A PATH with the program, which shows how it was called and how it ended where that is no success.
fn typed(scratch: &Scratch) -> String {
    let wrapper = format!(
        r#"#!/usr/bin/env bash
line='$ runvault'
for arg; do
    case $arg in *[!A-Za-z0-9_./:=,-]*) arg="'$arg'" ;; esac
    line+=" $arg"
done
printf '\n%s\n' "$line" >&2
{} "$@" || {{ code=$?; echo "[exit $code]" >&2; exit "$code"; }}
"#,
        env!("CARGO_BIN_EXE_runvault")
    );
    let bin = scratch.folder("bin");
    let program = scratch.secret("bin/runvault", wrapper);
    std::fs::set_permissions(program, PermissionsExt::from_mode(0o700)).expect("its mode");
    format!("{}:/usr/bin:/bin", bin.display())
}

#[test]
fn ceremony_first_day() {
    ceremony("first-day");
}

#[test]
fn ceremony_a_custodian_leaves() {
    ceremony("custodian-leaves");
}

#[test]
fn ceremony_a_laptop_is_stolen() {
    ceremony("laptop-stolen");
}

#[test]
fn ceremony_a_key_was_exposed() {
    ceremony("key-exposed");
}

#[test]
fn ceremony_everything_burnt() {
    ceremony("everything-burnt");
}

#[test]
fn ceremony_a_yearly_rotation() {
    ceremony("yearly-rotation");
}

fn record(folder: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(format!("{name}.txt"))
}
