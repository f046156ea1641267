//! A store that lacks something: named, with the way out, also where it opens all the same.

use crate::common::Scratch;
use runvault_custody::key_files;
use runvault_format::note::{Note, sign};

#[test]
fn a_vault_without_one_of_its_parts() {
    for (part, says, way_out) in [
        ("vault.json", "vault.json: missing", "any other copy of this store"),
        ("custody", "custody/ is not in the store", "put it back from a backup"),
        ("runs", "runs: missing", "put runs/ back from a backup"),
    ] {
        let scratch = Scratch::new();
        scratch.vault();
        scratch.folder("mnt");
        std::fs::rename(scratch.path("store").join(part), scratch.path("aside")).unwrap();
        let key = ["--identity", "owner.key"];
        for command in [
            &["ls", "store"][..],
            &["check", "store"],
            &["mount", "store", "mnt"],
            &["cp", "-r", "store:/", "out"],
        ] {
            let refused = scratch.run(&[command, &key].concat());
            refused.refused(4, says).refused(4, way_out);
            assert!(!refused.stderr.contains("runvault init"), "{}", refused.stderr);
            assert!(refused.stderr.contains("the store "), "{}", refused.stderr);
        }
    }
}

#[test]
fn a_vault_file_that_is_damaged() {
    let scratch = Scratch::new();
    scratch.vault();
    scratch.folder("mnt");
    let file = scratch.path("store/vault.json");
    let whole = std::fs::read(&file).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let id = whole.windows(7).position(|w| w == b"vault\":").unwrap() + 10;
    let other_digit = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        bytes
    };
    for (damaged, why) in [
        (flipped(0), "not the JSON"),
        (other_digit(id), "names vault"),
        (other_digit(id + 40), "names vault"),
        (whole[..whole.len() / 2].to_vec(), "not the JSON"),
        (Vec::new(), "not the JSON"),
        (vec![0xff; 9000], ""),
    ] {
        std::fs::write(&file, damaged).unwrap();
        for command in [
            &["ls", "store"][..],
            &["check", "store"],
            &["mount", "store", "mnt"],
            &["cp", "-r", "store:/", "out"],
        ] {
            let refused = scratch.run(&[command, &["--identity", "owner.key"]].concat());
            refused.refused(4, "vault.json: ").refused(4, why).refused(4, "any other copy of this store");
        }
    }
    std::fs::write(&file, whole).unwrap();
    scratch.run(&["check", "--identity", "owner.key", "store"]).done();
}

#[test]
fn what_is_no_vault_is_named_with_its_path() {
    let scratch = Scratch::new();
    scratch.folder("full/holiday");
    scratch.secret("file", "x");
    for command in
        [&["cp", "file", "full:/x"][..], &["ls", "full"], &["key", "export", "full", "--out", "new"]]
    {
        scratch.run(command).refused(1, "the store full: not a vault: no vault.json, but holiday");
    }
}

#[test]
fn a_copy_of_the_key_file_that_is_damaged_or_missing() {
    for (copy, damage) in [("owner-0", "changed"), ("owner-1", "missing")] {
        let scratch = Scratch::new();
        scratch.vault_with_a_lock();
        let pass = ["--passphrase-file", "pass"];
        let run = |command: &[&str]| scratch.run(&[command, &pass].concat());
        assert!(!run(&["ls", "store"]).done().stderr.contains("warning"));
        let path = scratch.path("store/custody/locks").join(copy);
        if damage == "changed" {
            std::fs::write(&path, "runvault/1 key\n{")
        } else {
            std::fs::remove_file(&path)
        }
        .unwrap();
        let listed = run(&["ls", "store"]);
        let named = format!("custody/locks/{copy}: ");
        assert!(listed.done().stderr.contains(&named), "{}", listed.stderr);
        assert!(listed.stderr.contains("runvault passwd store"), "{}", listed.stderr);
        let checked = run(&["check", "store"]);
        checked.refused(4, "1 object damaged").refused(4, "runvault passwd store");
        assert!(checked.out().contains(&named), "{}", checked.out());
        run(&["passwd", "store", "--new-passphrase-file", "pass"]).done();
        run(&["check", "store"]).done();
    }
}

#[test]
fn a_first_state_that_is_missing() {
    let scratch = Scratch::new();
    scratch.vault();
    scratch.secret("file", "x");
    scratch.run(&["cp", "--identity", "owner.key", "file", "store:/"]).done();
    std::fs::remove_file(scratch.path("store/custody/state-0")).unwrap();
    let checked = scratch.run(&["check", "--identity", "owner.key", "store"]);
    assert!(
        checked.refused(4, "1 object damaged").out().contains("custody/state-0: missing"),
        "{}",
        checked.out()
    );
}

/// A newer program's run is said to be one, and is no damage; a changed run.json is, whatever it claims.
#[test]
fn a_run_of_a_suite_that_is_not_known() {
    for (signed, code, says) in [(true, 1, "a newer runvault made this"), (false, 4, "from a backup")] {
        let scratch = Scratch::new();
        scratch.vault();
        scratch.folder("run");
        scratch.secret("run/file", "x");
        let run = |command: &[&str]| scratch.run(&[command, &["--identity", "owner.key"]].concat());
        run(&["cp", "-r", "run", "store:/"]).done();
        run(&["cp", "-r", "run", "store:/other"]).done();
        let only =
            |path: &str| std::fs::read_dir(scratch.path(path)).unwrap().next().unwrap().unwrap().path();
        let run_json = only("store/runs").join("run.json");
        let changed = std::fs::read_to_string(&run_json).unwrap().replace("\"suite\":1", "\"suite\":2");
        let gateway = key_files::read(&only("state").join("identity"), false).unwrap();
        let gateway = key_files::unlock(&gateway, &mut key_files::NoPrompt).unwrap();
        let text = Note::parse(changed.as_bytes()).unwrap().text;
        let newer =
            if signed { sign(text, &gateway.id(), &gateway.keys.sign) } else { changed.clone().into() };
        std::fs::write(&run_json, newer).unwrap();
        for command in [&["ls", "store"][..], &["check", "store"], &["cp", "-r", "store:/", "out"]] {
            let refused = run(command);
            refused.refused(code, says);
            assert!(refused.all().contains("cipher suite 2 is not known"), "{}", refused.all());
        }
        let json = run(&["check", "--json", "store"]);
        let summary = json.out().lines().last().unwrap().to_owned();
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        assert_eq!(summary["summary"]["newer_runs"], u64::from(signed), "{summary}");
        assert_eq!(summary["summary"]["runs"], 1, "{summary}");
    }
}
