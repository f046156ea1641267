//! What keys give to whoever has them: less than a quorum nothing, old shares what was made before.

use runvault_crypto::envelope::KemPrivate;
use runvault_crypto::secrets::Secret;
use runvault_crypto::sharing::{self, Share};
use runvault_format::custody_state::State;
use runvault_format::envelope_file;
use runvault_format::info::{Purpose, Recipient, Scope, info};
use runvault_format::share;

use crate::vault::{CONTENT, FILE, OPEN, SEALED, Vault};

/// The share of `who` that a state holds, opened.
pub fn share_of(vault: &Vault, state: &State, who: &str) -> Secret<32> {
    let identity = vault.identity(who);
    let epoch = state.current().expect("an epoch");
    let own = epoch.shares.iter().find(|share| share.to == identity.id()).expect("a share");
    share::open_share(&identity.keys.kem, &state.vault, epoch, own).expect("it opens")
}

/// The same, and where the polynomials are taken.
pub fn point(vault: &Vault, state: &State, who: &str) -> Share {
    let id = vault.identity(who).id();
    let epoch = state.current().expect("an epoch");
    let x = epoch.shares.iter().find(|share| share.to == id).expect("a share").x;
    Share { x, y: share_of(vault, state, who) }
}

/// The vault key that two custodians' shares give.
pub fn key_of(vault: &Vault, state: &State, who: [&str; 2]) -> KemPrivate {
    let points = who.map(|one| point(vault, state, one));
    KemPrivate::from_seed(&sharing::combine(2, &points).expect("a key")).expect("a key")
}

/// Whether that key of epoch `e` opens a run by the envelope in this file.
pub fn opens(vault: &Vault, key: &KemPrivate, run: &str, envelope: &str, e: u32) -> bool {
    let scope = Scope::Run(vault.run_id(run).parse().expect("an id"));
    let text = info(Purpose::RunKey, &vault.id(), &scope, &Recipient::Epoch(e));
    envelope_file::open(key, &text, &vault.read(envelope)).is_ok()
}

/// Row "one custodian's key file, opened, where two or more have to agree": nothing, and no veto over the others.
#[test]
fn one_custodian_has_nothing_and_blocks_nobody() {
    let vault = Vault::new();
    for line in [
        "ls store --identity carol.key".to_owned(),
        format!("cat store {SEALED}/{FILE} --identity carol.key"),
        "custody rotate store --identity carol.key".to_owned(),
    ] {
        let said = vault.run(&line);
        assert_eq!(said.code, 1, "{}", said.text);
        vault.refused(&line, 1, "quorum");
    }
    let state = vault.state();
    let own = point(&vault, &state, "carol");
    assert!(sharing::combine(2, std::slice::from_ref(&own)).is_err());
    let alone = KemPrivate::from_seed(&own.y).expect("a key");
    assert!(*alone.public() != state.current().expect("an epoch").kem, "a share is not the key");
    // A second share that is made up gives another key.
    let made_up = Share { x: own.x + 1, y: Secret::random().expect("random") };
    let wrong = sharing::combine(2, &[own, made_up]).expect("some key");
    assert!(
        *KemPrivate::from_seed(&wrong).expect("a key").public() != state.current().expect("an epoch").kem
    );
    // Alice and bob go on without carol.
    vault.agree("remove-custodian carol");
    vault.refused("custody confirm store --identity carol.key", 3, "wrong key");
}

/// Row "`REQ.executor` and the approvals of a request that releases shares": the vault key, as the one who executes; and
/// approvals of several requests that nobody executed add up to it.
#[test]
fn who_has_an_executors_key_and_enough_approvals_has_the_vault_key() {
    let vault = Vault::new();
    for (name, who) in [("one", "alice"), ("two", "bob")] {
        vault.propose("rotate", name);
        vault.approve(who, name);
    }
    let state = vault.state();
    let released = |name: &str, who: &str| {
        let (file, executor) = (vault.request(name), vault.key(&format!("{name}.req.executor")));
        let approval =
            runvault_format::approval_file::ApprovalFile::parse(&vault.read(&format!("{who}.{name}.ok")));
        let env = approval.expect("an approval").env.expect("a share");
        let scope = Scope::Request(file.hash().expect("a hash"));
        let text = info(Purpose::Approval, &vault.id(), &scope, &Recipient::Identity(executor.id()));
        let y = envelope_file::open(&executor.keys.kem, &text, &env).expect("it opens");
        Share { x: point(&vault, &state, who).x, y: envelope_file::secret_of(&y).expect("32 bytes") }
    };
    let key = sharing::combine(2, &[released("one", "alice"), released("two", "bob")]).expect("a key");
    let key = KemPrivate::from_seed(&key).expect("a key");
    assert!(*key.public() == state.current().expect("an epoch").kem);
    let envelope = format!("{}/keys/vault-2", vault.run_at(SEALED));
    assert!(opens(&vault, &key, SEALED, &envelope, 2));
    // What the page tells to do then.
    vault.agree("rotate");
    let envelope = format!("{}/keys/vault-3", vault.run_at(SEALED));
    assert!(!opens(&vault, &key, SEALED, &envelope, 3));
}

/// Rows "enough shares of a vault key that was replaced" and "revoked custodian with old copy": every run that was made
/// before, nothing that is made from then on.
#[test]
fn old_shares_open_what_was_made_before_and_nothing_after() {
    let vault = Vault::new();
    let old = key_of(&vault, &vault.state_at("old/state-0"), ["alice", "carol"]);
    // The seal keeps the envelope of its time.
    let kept = format!("{}/seal/vault-1", vault.run_at(SEALED));
    assert!(opens(&vault, &old, SEALED, &kept, 1));
    assert!(!vault.path(format!("{}/keys/vault-1", vault.run_at(SEALED))).exists());
    vault.agree("remove-custodian carol");
    std::fs::create_dir(vault.path("later")).expect("a folder");
    vault.write("later/file", CONTENT);
    vault.done("cp -r later store:/ --identity lab.key");
    let newest = vault.state().current().expect("an epoch").e;
    assert_eq!(newest, 3);
    for run in [SEALED, OPEN, "later"] {
        let envelope = format!("{}/keys/vault-{newest}", vault.run_at(run));
        for e in 1..=newest {
            assert!(!opens(&vault, &old, run, &envelope, e), "{run}");
        }
        // And by the new key, where two who stay agree.
        let new = key_of(&vault, &vault.state(), ["alice", "bob"]);
        assert!(opens(&vault, &new, run, &envelope, newest), "{run}");
    }
    // The new state has nothing for who left.
    let carol = vault.identity("carol").id();
    assert!(vault.state().current().expect("an epoch").shares.iter().all(|share| share.to != carol));
}

/// Row "enough shares of a vault key that was shared anew": the key is the same, also for what is made later, until it is
/// rotated; and that is what is said.
#[test]
fn shares_of_before_a_custodian_came_open_until_the_next_rotation() {
    let vault = Vault::new();
    let old = key_of(&vault, &vault.state(), ["bob", "carol"]);
    let said = vault.agree("add-custodian mallory=mallory.key.pub");
    assert!(
        said.contains(
            "what is made from now on, until:\n  runvault custody propose store rotate --out REQ\n"
        ),
        "{said}"
    );
    let write = |name: &str| {
        std::fs::create_dir(vault.path(name)).expect("a folder");
        vault.write(&format!("{name}/file"), CONTENT);
        vault.done(&format!("cp -r {name} store:/ --identity lab.key"));
    };
    write("later");
    assert!(opens(&vault, &old, "later", &format!("{}/keys/vault-2", vault.run_at("later")), 2));
    for one in ["alice", "bob"] {
        vault.done(&format!("custody confirm store --identity {one}.key"));
    }
    vault.agree("rotate");
    write("last");
    assert!(!opens(&vault, &old, "last", &format!("{}/keys/vault-3", vault.run_at("last")), 3));
}

/// Row "a reader's key file, opened": its runs, and nothing of custody.
#[test]
fn a_readers_key_opens_its_runs_alone() {
    let vault = Vault::new();
    assert_eq!(vault.done(&format!("cat store {SEALED}/{FILE} --identity guest.key")), CONTENT);
    let listed = vault.done("ls store --identity guest.key");
    assert!(listed.contains(SEALED) && !listed.contains(OPEN), "{listed}");
    vault.refused(&format!("cat store {OPEN}/{FILE} --identity guest.key"), 1, "no such file");
    vault.refused("custody confirm store --identity guest.key", 3, "wrong key");
    vault.propose("rotate", "req");
    vault.refused("custody approve req.req --identity guest.key --out x.ok --yes", 3, "wrong key");
    // A run's envelope for another reader, under its own name.
    let (lab, guest) = (vault.identity("lab").id(), vault.identity("guest").id());
    let keys = format!("{}/keys", vault.run_at(OPEN));
    vault.copy(&format!("{keys}/reader-{lab}"), &format!("{keys}/reader-{guest}"));
    let said = vault.run(&format!("cat store {OPEN}/{FILE} --identity guest.key"));
    assert!(said.code != 0 && !said.text.contains("GATTACA"), "{}", said.text);
}

/// Row "a revoked reader": the runs are closed in this store, and open in the copy that it made before.
#[test]
fn a_revoked_reader_has_what_it_copied() {
    let vault = Vault::new();
    vault.copy("store", "copied");
    vault.agree(&format!("revoke {} guest", vault.run_id(SEALED)));
    let read = |store: &str, state: &str| {
        vault.run(&format!("cat {store} {SEALED}/{FILE} --identity guest.key --state {state}"))
    };
    let refused = read("store", "state");
    assert!(refused.code != 0 && !refused.text.contains("GATTACA"), "{}", refused.text);
    assert_eq!(read("copied", "elsewhere").text, CONTENT);
    vault.agree("remove-reader guest");
    let refused = read("store", "state");
    assert_eq!(refused.code, 3, "{}", refused.text);
    // The envelope put back: the run opens to its key, but not to a program that asks who is a reader.
    let guest = vault.identity("guest").id();
    let keys = format!("{}/keys", vault.run_at(SEALED));
    vault.copy(
        &format!("{}/reader-{guest}", keys.replacen("store", "copied", 1)),
        &format!("{keys}/reader-{guest}"),
    );
    assert_eq!(read("store", "state").code, 3);
}
