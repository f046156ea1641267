//! Row "the disk, the share, a backup, all traffic to it": who has the store alone.

use runvault_tests::snapshot::snapshot;

use crate::vault::{CONTENT, FILE, LINK, OPEN, SEALED, Vault};

/// The names and bytes of every file, its links and attributes included.
fn everything(vault: &Vault, folder: &str) -> Vec<u8> {
    let objects = snapshot(&vault.path(folder), false);
    objects.into_iter().flat_map(|(name, object)| [name, object.content].concat()).collect()
}

fn holds(bytes: &[u8], what: &str) -> bool {
    memchr::memmem::find(bytes, what.as_bytes()).is_some()
}

#[test]
fn a_thief_of_the_store_finds_no_plaintext_and_no_key() {
    let vault = Vault::new();
    let stolen = everything(&vault, "store");
    for what in [SEALED, OPEN, FILE, LINK, &CONTENT[..20], "another.txt"] {
        assert!(!holds(&stolen, what), "{what}");
    }
    // The control: what is said to be there is there.
    for label in ["alice", "carol", "machine", "guest"] {
        assert!(holds(&stolen, label), "{label}");
    }
    for who in ["alice", "bob", "carol", "lab", "guest"] {
        let key = String::from_utf8(vault.read(&format!("{who}.key"))).expect("a key file");
        let sealed =
            key.split("\"sealed\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a seed");
        assert!(!holds(&stolen, sealed), "{who}");
    }
    // A key of his own opens nothing.
    let verify = format!("verify store {}", vault.run_id(SEALED));
    for line in ["ls store", "check store", &verify, &format!("cat store {SEALED}/{FILE}")] {
        let said = vault.run(&format!("{line} --identity mallory.key --state elsewhere"));
        assert!(said.code == 3 && !said.text.contains("GATTACA"), "{line}: {} {}", said.code, said.text);
    }
    vault.refused("custody confirm store --identity mallory.key --state elsewhere", 3, "wrong key");
}

/// Row "secret in argv, env, logs": nothing that a command prints, or keeps on this machine, is a secret.
#[test]
fn no_secret_is_printed_or_kept() {
    let vault = Vault::new();
    vault.propose("rotate", "req");
    let shown = [
        vault.done("custody show req.req"),
        vault.done("custody show req.req --json"),
        vault.done("audit show store"),
        vault.done("audit show store --json"),
        vault.done("custody list store --json"),
        vault.done("key show alice.key"),
    ]
    .concat();
    for name in ["alice.key", "bob.key", "req.req.executor"] {
        let key = String::from_utf8(vault.read(name)).expect("a key file");
        let sealed =
            key.split("\"sealed\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a seed");
        assert!(!shown.contains(sealed) && !holds(&everything(&vault, "state"), sealed), "{name}");
    }
    for what in [FILE, LINK, &CONTENT[..20]] {
        assert!(!shown.contains(what) && !holds(&everything(&vault, "state"), what), "{what}");
    }
}
