//! A vault of three custodians is read by two of them, without runvault.

use std::fs;
use std::path::Path;

use runvault_tests::Site;
use runvault_tests::making::plain_tree;
use runvault_tests::snapshot::{assert_same, snapshot};
use runvault_tests::tools::{output, printed, run, runvault};

use crate::{python, random};

/// `runvault` in a folder of its own; arguments hold no spaces.
fn call(at: &Path, line: &str) -> String {
    let mut command = std::process::Command::new(runvault());
    printed(&run(command
        .args(line.split(' '))
        .current_dir(at)
        .env("HOME", at)
        .env("XDG_STATE_HOME", at.join("state"))))
}

fn agree(at: &Path, what: &str) {
    call(at, &format!("custody propose store {what} --out req --state state"));
    for one in ["bob", "carol"] {
        call(at, &format!("custody approve req --identity {one}.key --out {one}.ok --yes"));
    }
    call(at, "custody execute store req --approval bob.ok --approval carol.ok --state state");
    for used in ["req", "bob.ok", "carol.ok"] {
        fs::remove_file(at.join(used)).expect("what was used");
    }
}

#[test]
fn two_custodians_of_three_read_a_vault_that_changed_hands() {
    let site = Site::uninitialised(&std::env::temp_dir());
    let at = site.dir();
    for one in ["alice", "bob", "carol", "dave", "reader"] {
        call(at, &format!("keygen --out {one}.key --no-lock"));
    }
    call(
        at,
        "init store --custodian alice=alice.key.pub --custodian bob=bob.key.pub --custodian carol=carol.key.pub --quorum 2",
    );
    let vault = call(at, "fingerprint store").lines().last().expect("a vault id").to_owned();
    call(at, &format!("gateway enroll store --fingerprint {vault} --out gateway.req --state state"));
    agree(at, "enroll-gateway gateway.req");
    agree(at, "add-reader reader=reader.key.pub --standing");
    let tree = at.join("a-run");
    plain_tree(&tree, &mut random(91));
    call(at, "cp -r a-run store:/ --identity reader.key --state state");
    agree(at, "add-custodian dave=dave.key.pub");
    for one in ["bob", "dave"] {
        call(at, &format!("custody confirm store --identity {one}.key --state state"));
    }
    agree(at, "remove-custodian alice");
    // custody/ is lost, and made anew from two key files; then it lies elsewhere.
    for one in ["bob", "dave"] {
        call(at, &format!("custody confirm store --identity {one}.key --state state"));
    }
    fs::remove_dir_all(at.join("store/custody")).expect("custody/ is lost");
    call(at, "custody recover store --identity dave.key --identity bob.key --state state");
    fs::rename(at.join("store/custody"), at.join("apart")).expect("custody/ moves");

    let read = |keys: &[&str], out: &str| {
        let mut reader = python("reader.py");
        for key in keys {
            reader.arg("--identity").arg(at.join(format!("{key}.key")));
        }
        reader.arg("--custody").arg(at.join("apart"));
        output(reader.args(["--fingerprint", &vault]).arg(at.join("store")).arg("extract").arg(at.join(out)))
    };
    for (keys, out) in [(&["bob", "dave"][..], "one"), (&["carol", "bob"], "two"), (&["reader"], "three")] {
        let read = read(keys, out);
        assert!(read.status.success(), "{keys:?}: {}", printed(&read));
        assert_same(&snapshot(&tree, true), &snapshot(&at.join(out).join("a-run"), true), out);
    }
    for keys in [&["dave"][..], &["alice", "bob"], &["dave", "dave"]] {
        let refused = read(keys, "none");
        assert!(!refused.status.success(), "{keys:?}");
    }
}
