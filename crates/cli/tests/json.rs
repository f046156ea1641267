//! `--json`: every command that has it prints JSON and nothing else, an object a line.

use std::collections::BTreeSet;

use crate::common::Scratch;
use serde_json::Value;

/// What a command printed.
fn objects(scratch: &Scratch, command: &str) -> Vec<Value> {
    let ran = scratch.run(&command.split(' ').collect::<Vec<_>>());
    let printed = ran.done().out();
    let parsed = printed.lines().map(|line| {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{command}: {e}: {line}"));
        assert!(object.is_object(), "{command}: {line}");
        object
    });
    parsed.collect()
}

#[test]
fn every_command_that_has_it_prints_an_object_a_line() {
    let scratch = Scratch::new();
    scratch.vault_with_a_lock();
    scratch.secret("new.txt", "other seven words nobody guesses zither quagmire");
    scratch.folder("run/InterOp");
    scratch.secret("run/RunInfo.xml", "<RunInfo/>\n");
    let mut seen = BTreeSet::new();
    for (command, field) in [
        ("init other --no-lock --identity other.key --json", "words"),
        ("key export store --json --out copy.key", "key_file"),
        ("fingerprint store --json", "words"),
        ("passwd store --json --passphrase-file pass --new-passphrase-file new.txt", "id"),
        ("status store --json", "vault"),
        ("cp -r run store:/ --json --identity owner.key", "copied"),
        ("ls store --json --identity owner.key", "path"),
        ("check store --json --identity owner.key", "summary"),
        ("custody rotate store --json --identity owner.key", "epoch"),
        ("gateway list store --json", "gateway"),
        ("takeover store run --json --identity owner.key", "taken"),
        ("doctor store --json", "verdict"),
        ("runs store --json --identity owner.key", "waits_for"),
        ("seal store run --json", "n"),
        ("verify store run --json --identity owner.key", "summary"),
        ("scrub store --json", "summary"),
        ("manifest store run --json --identity owner.key", "path"),
        ("keygen --out bob.key --no-lock --json", "public_key_file"),
        ("key show bob.key --json", "lock"),
        ("key check bob.key --json", "opens"),
        ("key relock bob.key --lock none --json", "lock"),
        ("custody add-custodian store bob=bob.key.pub --json --identity owner.key", "line"),
        ("custody list store --json", "due"),
        ("custody propose store rotate --out req --json", "words"),
        ("custody show req --json", "afterwards"),
        ("custody approve req --identity bob.key --out bob.ok --yes --json", "released_share"),
        ("custody execute store req --approval bob.ok --json", "head"),
        ("custody confirm store --identity bob.key --json", "epoch"),
        ("audit show store --json", "lines"),
        ("audit verify store --json", "head"),
        ("custody rekey store run --json --identity owner.key", "line"),
        ("rekey store run --json --identity owner.key --grace 0s", "replaced"),
        ("exposure store --key bob --json", "runs"),
        ("retire store run --json --identity owner.key", "seal"),
    ] {
        let printed = objects(&scratch, command);
        assert!(printed.last().is_some_and(|last| last.get(field).is_some()), "{command}: {printed:?}");
        seen.insert(command.split(' ').next().unwrap_or_default());
    }
    // These need FUSE; their own tests are with the mounts.
    seen.extend(["demo", "unmount"]);
    for command in [
        "init",
        "key export",
        "fingerprint",
        "mount",
        "unmount",
        "status",
        "ls",
        "cat",
        "cp",
        "check",
        "passwd",
        "keygen",
        "custody rotate",
        "custody list",
        "custody propose",
        "custody grant",
        "audit show",
        "exposure",
        "gateway admit",
        "gateway dismiss",
        "gateway enroll",
        "gateway list",
        "gateway revoke",
        "doctor",
        "runs",
        "seal",
        "verify",
        "scrub",
        "manifest",
        "takeover",
        "retire",
        "rekey",
        "demo",
        "completions",
        "man",
    ] {
        let help = scratch.run(&[&command.split(' ').collect::<Vec<_>>()[..], &["--help"]].concat());
        let has = help.done().out().contains("--json");
        let first = command.split(' ').next().unwrap_or_default();
        assert_eq!(has, seen.contains(first), "{command}");
    }
}

#[test]
fn a_copy_tells_what_it_did_and_what_not() {
    let scratch = Scratch::new();
    scratch.vault();
    scratch.folder("run/sub");
    scratch.secret("run/a", "12345");
    scratch.secret("run/sub/b", "678");
    std::os::unix::fs::symlink("a", scratch.path("run/link")).expect("a link");
    let copy = "cp -r run store:/ --json --identity owner.key";
    let told = &objects(&scratch, copy)[0];
    assert_eq!((&told["copied"], &told["bytes"], &told["not_copied"]), (&3.into(), &8.into(), &0.into()));
    assert_eq!(told["lost"], serde_json::json!({}));
    scratch.secret("run/new", "9");
    let again = scratch.run(&copy.split(' ').collect::<Vec<_>>());
    again.refused(1, "exists").refused(1, "3 objects not copied");
    let told: Value = serde_json::from_str(&again.out()).expect("JSON");
    assert_eq!((&told["copied"], &told["bytes"], &told["not_copied"]), (&1.into(), &1.into(), &3.into()));
}
