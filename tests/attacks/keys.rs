//! Locks of key files: absurd costs, wrong answers, old copies, hostile modules.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use runvault_crypto::passphrase::Params;
use runvault_custody::identity::Identity;
use runvault_custody::key_files::{self, NewLock};

use crate::vault::Vault;

/// A vault of one owner whose key file lies in the store, under the cheapest lock that is allowed.
struct Owned {
    vault: Vault,
    owner: Identity,
}

impl Owned {
    fn new() -> Self {
        let vault = Vault::new();
        fs::remove_dir_all(vault.path("store")).expect("removed");
        vault.done("init store --no-lock --identity owner.key");
        let owner = vault.key("owner.key");
        Self { vault, owner }
    }

    fn lock(&self, passphrase: &str) -> Vec<u8> {
        let new = NewLock::Passphrase { passphrase: passphrase.as_bytes(), params: Params::FLOOR };
        let file = key_files::lock(&self.owner, &new, self.owner.vault).expect("a lock");
        file.to_bytes().expect("bytes")
    }

    fn put(&self, lock: &[u8]) {
        for copy in ["owner-0", "owner-1"] {
            self.vault.write(&format!("store/custody/locks/{copy}"), lock);
        }
    }

    fn ls(&self, passphrase: &str) -> String {
        self.vault.write("passphrase", passphrase);
        "ls store --passphrase-file passphrase".to_owned()
    }
}

/// Row "the vault's passphrase lock lies in the store": an old lock that is put back opens with its old passphrase. And
/// row "wrong passphrase": one error, which names whose, and no byte.
#[test]
fn an_old_lock_that_is_put_back_opens_with_its_passphrase() {
    let owned = Owned::new();
    let (old, new) = (owned.lock("the first one of all"), owned.lock("another one since"));
    owned.put(&new);
    owned.vault.refused(
        &owned.ls("the first one of all"),
        3,
        "the passphrase does not open the key of \"owner\"",
    );
    owned.put(&old);
    owned.vault.done(&owned.ls("the first one of all"));
}

/// Row "huge Argon2 params": refused before anything is asked for or allocated.
#[test]
fn absurd_costs_are_refused_before_they_are_paid() {
    let owned = Owned::new();
    let good = String::from_utf8(owned.lock("any passphrase")).expect("a text");
    // What is no number of its kind makes no key file: what a person names is then a mistake (2).
    for (from, to, code) in [
        ("\"m_kib\":65536", "\"m_kib\":4294967295", 4),
        ("\"m_kib\":65536", "\"m_kib\":8", 4),
        ("\"m_kib\":65536", "\"m_kib\":65536000000", 2),
        ("\"t\":3", "\"t\":4294967295", 4),
        ("\"t\":3", "\"t\":0", 4),
        ("\"p\":4", "\"p\":4294967295", 4),
        ("\"p\":4", "\"p\":-1", 2),
    ] {
        assert!(good.contains(from), "{from}");
        let absurd = good.replace(from, to);
        owned.put(absurd.as_bytes());
        let (line, begin) = (owned.ls("any passphrase"), Instant::now());
        owned.vault.refused(&line, 4, "custody/locks/owner-1");
        owned.vault.write("absurd.key", &absurd);
        owned.vault.refused(
            "ls store --identity absurd.key --passphrase-file passphrase",
            code,
            "absurd.key",
        );
        // Four TiB, or 2^32 passes, take hours; nothing of a second is spent.
        assert!(begin.elapsed() < Duration::from_secs(20), "{to}");
    }
    // A lock that nobody knows, and one of hardware, which no store may make a token count tries by.
    owned.put(good.replace("\"kind\":\"argon2id\"", "\"kind\":\"rot13\"").as_bytes());
    owned.vault.refused(&owned.ls("any passphrase"), 4, "lock is not known to this program");
}

/// Row "malicious PKCS#11 module": only a whole path to a file that nobody else could have put there; no file names one.
#[test]
fn a_module_that_others_could_have_put_there_is_not_loaded() {
    let vault = Vault::new();
    let keygen = |module: &str| {
        let _ = fs::remove_file(vault.path("token.key"));
        format!("keygen --out token.key --lock pkcs11 --pkcs11-module {module} --token-key runvault")
    };
    let folder = vault.path("modules");
    fs::create_dir(&folder).expect("a folder");
    let module = folder.join("module.so");
    let at = module.display().to_string();
    vault.write("modules/module.so", "no code at all");
    vault.refused(&keygen("modules/module.so"), 2, "whole path");
    vault.refused(&keygen("module.so"), 2, "whole path");
    vault.refused(&keygen(&folder.display().to_string()), 2, "regular file");
    vault.refused(&keygen("/nowhere/module.so"), 2, "No such file");
    let open = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    open(&module, 0o666);
    vault.refused(&keygen(&at), 2, "others may write");
    open(&module, 0o644);
    open(&folder, 0o777);
    vault.refused(&keygen(&at), 2, "others may write");
    std::os::unix::fs::symlink(&module, vault.path("link.so")).expect("a link");
    vault.refused(&keygen(&vault.path("link.so").display().to_string()), 2, "others may write");
    open(&folder, 0o755);
    // Ours, but no library; a library, but no token's.
    vault.refused(&keygen(&at), 2, "not a PKCS#11 module");
    let libc = fs::read_to_string("/proc/self/maps").expect("maps");
    let libc =
        libc.lines().find_map(|line| line.split_ascii_whitespace().nth(5).filter(|p| p.contains("libc.so")));
    vault.refused(&keygen(libc.expect("a C library")), 2, "not a PKCS#11 module");
    assert!(!vault.path("token.key").exists());
    // A key file that names one of its own.
    let key = String::from_utf8(vault.read("bob.key")).expect("a text");
    let lock = format!(
        "\"lock\":{{\"kind\":\"pkcs11\",\"module\":{at:?},\"token\":\"t\",\"serial\":\"s\",\"key\":\"k\","
    );
    let hostile = key.replace("\"lock\":{\"kind\":\"none\"", lock.trim_end_matches(','));
    assert_ne!(hostile, key);
    vault.write("hostile.key", hostile);
    vault.refused("key check hostile.key", 2, "hostile.key");
}
