//! A store that hides the newest lines of the audit log from a machine that writes.

use std::fs;

use runvault_tests::tools::faketime;
use serde_json::Value;

use crate::shares::{key_of, opens};
use crate::vault::{CONTENT, SEALED, Vault};

/// Row "the store, and shows the machine that writes an older custody/": its runs go on opening by the key that was
/// replaced. Whoever sees the newest lines is told so, without a key, and by what that ends.
#[test]
fn a_run_that_was_sealed_under_a_hidden_state_is_named_and_put_right() {
    let vault = Vault::new();
    let Some(clock) = faketime() else { return };
    let old = key_of(&vault, &vault.state(), ["alice", "carol"]);
    vault.copy("store/custody", "older");
    vault.propose("rotate", "req");
    ["alice", "bob"].iter().for_each(|one| vault.approve(one, "req"));
    // On a machine of theirs: the one that writes has not seen it.
    let execute =
        "custody execute store req.req --approval alice.req.ok --approval bob.req.ok --state theirs";
    vault.done(execute);
    let list = || vault.done("custody list store --state theirs");
    assert!(!list().contains("not sealed to") && !list().contains("older custody/"), "{}", list());
    fs::rename(vault.path("store/custody"), vault.path("newer")).expect("hidden");
    vault.copy("older", "store/custody");
    fs::create_dir(vault.path("later")).expect("a folder");
    vault.write("later/file", CONTENT);
    vault.done_later(&clock, "cp -r later store:/ --identity lab.key");
    vault.done_later(&clock, "seal store later");
    fs::remove_dir_all(vault.path("store/custody")).expect("removed");
    fs::rename(vault.path("newer"), vault.path("store/custody")).expect("shown");

    let (id, line) = (vault.run_id("later"), vault.lines());
    assert!(opens(&vault, &old, "later", &format!("store/runs/{id}/keys/vault-2"), 2));
    let says = format!("under state {}, although state {line} was in force since ", line - 1);
    for command in ["scrub store --state theirs", "verify store later --identity lab.key --state theirs"] {
        let said = vault.done(command);
        for signed in ["made", "sealed"] {
            let told =
                |text: &&str| text.starts_with(&format!("run {id}: {signed} on ")) && text.contains(&says);
            let told = said.lines().find(told).unwrap_or_else(|| panic!("{command}: {said}"));
            assert!(
                told.contains("gateway \"machine\"") && told.ends_with("whoever has vault key 2"),
                "{told}"
            );
        }
        assert!(!said.contains(&format!("run {}: ", vault.run_id(SEALED))), "{said}");
    }
    let listed: Value =
        serde_json::from_str(&vault.done("custody list store --state theirs --json")).expect("JSON");
    let due = listed["due"].to_string();
    assert!(due.contains(&format!("not sealed to vault key 3 yet: 1 run ({id})")), "{due}");
    assert!(due.contains(&format!("runvault custody propose store rekey {id} --out REQ")), "{due}");
    assert_eq!(listed["unfinished"]["older_key"][0], *id);
    assert_eq!(listed["behind"][0]["state"], line - 1);
    let scrubbed = vault.done("scrub store --state theirs --json");
    let summary: Value = serde_json::from_str(scrubbed.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&summary["summary"]["behind"], &summary["summary"]["findings"]), (&2.into(), &0.into()));

    // What the lines name: the newest key, and then another key of the run.
    for one in ["alice", "bob"] {
        vault.done(&format!("custody confirm store --identity {one}.key"));
    }
    vault.agree("rotate");
    assert!(!list().contains("not sealed to"), "{}", list());
    vault.agree(&format!("rekey {id}"));
    vault.done("rekey store --identity req.req.worker --grace 0s");
    // The new run has the time of the old one, which is ahead of this line's.
    vault.agree("add-reader mallory=mallory.key.pub");
    assert!(!list().contains("older custody/"), "{}", list());
    assert!(!vault.done("scrub store --state theirs").contains("although state"));
}
