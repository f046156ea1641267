//! keygen, key show, key check, key relock: a key file's lock, and that nothing else of it changes.

use crate::common::{STRONG, Scratch};
use serde_json::Value;

fn show(scratch: &Scratch, file: &str) -> Value {
    let shown = scratch.run(&["key", "show", "--json", file]);
    serde_json::from_str(&shown.done().out()).expect("JSON")
}

#[test]
fn a_key_keeps_its_id_from_lock_to_lock() {
    let scratch = Scratch::new();
    scratch.secret("pass", STRONG);
    scratch.secret("other", "another seven words that nobody guesses xylophone");
    scratch.run(&["keygen", "--out", "a.key", "--lock", "passphrase", "--passphrase-file", "pass"]).done();
    let made = show(&scratch, "a.key");
    assert_eq!((&made["lock"]["kind"], &made["lock"]["m_kib"]), (&"argon2id".into(), &262_144.into()));
    assert_eq!((&made["vault"], &made["kept"]), (&Value::Null, &Value::Null));
    let text = scratch.run(&["key", "show", "a.key"]).done().out();
    assert!(text.contains("a passphrase (Argon2id: 256 MiB, 3 passes, 4 lanes)"), "{text}");

    let check = |pass: &str| scratch.run(&["key", "check", "a.key", "--passphrase-file", pass]);
    scratch.run(&["key", "check", "a.key"]).refused(2, "no terminal");

    // A wrong old one changes nothing; the right one every byte of the lock and no other.
    let before = std::fs::read(scratch.path("a.key")).expect("the file");
    let relock = ["key", "relock", "a.key", "--lock", "passphrase", "--new-passphrase-file", "other"];
    scratch.run(&[&relock[..], &["--passphrase-file", "other"]].concat()).refused(3, "does not open");
    assert_eq!(std::fs::read(scratch.path("a.key")).expect("the file"), before);
    scratch.run(&[&relock[..], &["--passphrase-file", "pass"]].concat()).done();
    let wrong = check("pass");
    wrong.refused(3, "does not open").refused(3, "try again");
    assert!(!wrong.stderr.contains("--identity"), "key check has none: {}", wrong.stderr);
    assert!(check("other").done().out().contains(made["id"].as_str().expect("an id")));
    let bare = ["key", "relock", "a.key", "--lock", "none", "--passphrase-file", "other", "--json"];
    let bare: Value = serde_json::from_str(&scratch.run(&bare).done().out()).expect("JSON");
    assert_eq!((&bare["id"], &bare["lock"]["kind"]), (&made["id"], &"none".into()));
    scratch.run(&["key", "check", "a.key"]).done();
    scratch
        .run(&["keygen", "--out", "b.key", "--lock", "none", "--no-lock"])
        .refused(2, "cannot be used with");
    scratch.run(&["key", "check", "a.key.pub", "--allow-readable-secret"]).refused(2, "not a key file");
    let public = show(&scratch, "a.key.pub");
    assert_eq!((&public["id"], &public["label"]), (&made["id"], &made["label"]));
    assert!(scratch.run(&["key", "show", "a.key.pub"]).done().out().contains("it opens nothing"));
}

#[test]
fn what_a_custodian_keeps_is_shown_and_stays_under_another_lock() {
    let scratch = Scratch::new();
    scratch.secret("pass", STRONG);
    scratch.run(&["keygen", "--out", "a.key", "--no-lock"]).done();
    scratch.run(&["init", "store", "--custodian", "a=a.key.pub", "--quorum", "1"]).done();
    scratch.run(&["custody", "confirm", "store", "--identity", "a.key"]).done();
    scratch.run(&["custody", "propose", "store", "rotate", "--out", "req"]).done();
    scratch.run(&["custody", "approve", "req", "--identity", "a.key", "--out", "a.ok", "--yes"]).done();
    let kept = show(&scratch, "a.key")["kept"].clone();
    assert_eq!(kept["share_epoch"], 1, "{kept}");
    assert!(kept["approved"]["expires"].as_str().is_some_and(|at| at.ends_with('Z')), "{kept}");
    scratch.run(&["key", "relock", "a.key", "--lock", "passphrase", "--new-passphrase-file", "pass"]).done();
    let after = show(&scratch, "a.key");
    assert_eq!((&after["kept"], &after["lock"]["kind"]), (&kept, &"argon2id".into()));
    let text = scratch.run(&["key", "show", "a.key"]).done().out();
    assert!(text.contains("of epoch 1") && text.contains("it can be executed until"), "{text}");
    // The note still refuses a second request, by the key under its new lock.
    scratch.run(&["custody", "propose", "store", "rotate", "--out", "req2"]).done();
    let second = ["custody", "approve", "req2", "--identity", "a.key", "--out", "b.ok", "--yes"];
    scratch
        .run(&[&second[..], &["--passphrase-file", "pass"]].concat())
        .refused(1, "approved another request");
}
