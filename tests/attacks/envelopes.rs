//! Envelopes: each opens in one place, for one purpose, to one recipient.

use std::fs;

use runvault_format::envelope_file;
use runvault_format::info::{Purpose, Recipient, Scope, info};

use crate::memory::{run_key, vault_key};
use crate::vault::{CONTENT, FILE, OPEN, SEALED, Vault};

const READ: &str = "--identity guest.key";

fn cat(run: &str) -> String {
    format!("cat store {run}/{FILE} {READ}")
}

/// What is said of an envelope that another key, or another text of what it is for, was sealed with.
const FOREIGN: &str = "the envelope does not open: does not authenticate";

/// What the right key, sealed to the right reader, is bound to.
enum Bound {
    Right,
    OtherVault,
    OtherRun,
    OtherPurpose,
}

/// The key of the sealed run to guest, bound to something else: as if both vaults, or runs, had one key.
fn resealed(vault: &Vault, bound: Bound) -> Vec<u8> {
    let guest = vault.identity("guest");
    let run = |name| Scope::Run(vault.run_id(name).parse().expect("an id"));
    let (own, to) = (vault.id(), Recipient::Identity(guest.id()));
    let other = vault.state_at("other/custody/state-0").vault;
    let bound = match bound {
        Bound::Right => info(Purpose::RunKey, &own, &run(SEALED), &to),
        Bound::OtherVault => info(Purpose::RunKey, &other, &run(SEALED), &to),
        Bound::OtherRun => info(Purpose::RunKey, &own, &run(OPEN), &to),
        Bound::OtherPurpose => info(Purpose::Worker, &own, &run(SEALED), &to),
    };
    let key = run_key(vault, &vault_key(vault, &vault.state()), 2);
    envelope_file::seal(&guest.public().kem, &bound, key.expose()).expect("sealed")
}

/// The keys/ of both runs, and the name of guest's envelope.
fn places(vault: &Vault) -> (String, String, String) {
    let guest = vault.identity("guest").id();
    let keys = |run| format!("{}/keys", vault.run_at(run));
    (keys(SEALED), keys(OPEN), format!("reader-{guest}"))
}

/// Row "stanza swapped between vaults, runs, slots": into another run, under another recipient's name, from another
/// vault, of another purpose, damaged.
#[test]
fn a_readers_envelope_opens_in_its_run_alone() {
    let vault = Vault::new();
    let (sealed, open, own) = places(&vault);
    assert_eq!(vault.done(&cat(SEALED)), CONTENT);
    let place = format!("{sealed}/{own}");
    let genuine = vault.read(&place);
    let lab = format!("reader-{}", vault.identity("lab").id());
    let state = vault.state();
    let share = state.current().expect("an epoch").shares[0].env.clone().expect("an envelope");
    let previous = state.current().expect("an epoch").previous.clone().expect("an envelope");
    let mut flipped = genuine.clone();
    *flipped.last_mut().expect("a tag") ^= 1;
    let mut suite = genuine.clone();
    suite[8] = 9;
    let mut magic = genuine.clone();
    magic[0] ^= 1;
    let others = [
        ("another reader's", vault.read(&format!("{sealed}/{lab}")), FOREIGN),
        ("another run's", vault.read(&format!("{open}/{lab}")), FOREIGN),
        ("the vault's", vault.read(&format!("{sealed}/vault-2")), FOREIGN),
        ("another vault's", resealed(&vault, Bound::OtherVault), FOREIGN),
        ("of another run, to the same reader", resealed(&vault, Bound::OtherRun), FOREIGN),
        ("of another purpose", resealed(&vault, Bound::OtherPurpose), FOREIGN),
        ("a share", share, FOREIGN),
        ("an older vault key", previous, FOREIGN),
        ("a changed one", flipped, FOREIGN),
        ("another suite's", suite, "cipher suite 9 is not known"),
        ("no envelope", magic, "the magic is wrong"),
        ("half of it", genuine[..genuine.len() / 2].to_vec(), "cut short"),
        ("more than it", [&genuine[..], b"x"].concat(), FOREIGN),
        ("none", Vec::new(), "cut short"),
        ("a giant", vec![0; envelope_file::LEN_MAX * 100], "longer than is allowed"),
    ];
    for (what, bytes, says) in others {
        vault.write(&place, bytes);
        let said = vault.refused(&cat(SEALED), 4, says);
        assert!(said.contains(&format!("/keys/{own}")) && !said.contains("GATTACA"), "{what}: {said}");
    }
    vault.write(&place, resealed(&vault, Bound::Right));
    assert_eq!(vault.done(&cat(SEALED)), CONTENT, "the control: sealed anew it opens");
    // One that another gave the same name, in a run that is not granted.
    vault.write(&place, &genuine);
    vault.write(&format!("{open}/{own}"), &genuine);
    let said = vault.run(&cat(OPEN));
    assert!(said.code != 0 && !said.text.contains("GATTACA"), "{}", said.text);
    assert_eq!(vault.done(&cat(SEALED)), CONTENT);
}

/// The same between epochs: an envelope for an old vault key in the place of the newest one's is found out by whoever
/// opens it, which is the next act of the custodians.
#[test]
fn an_envelope_of_another_epoch_or_run_is_named_when_the_key_is_used() {
    let vault = Vault::new();
    let (sealed, open, _) = places(&vault);
    let id = vault.run_id(SEALED);
    let genuine = vault.read(&format!("{sealed}/vault-2"));
    let older = vault.read(&format!("store/runs/{id}/seal/vault-1"));
    for bytes in [older, vault.read(&format!("{open}/vault-2"))] {
        vault.write(&format!("{sealed}/vault-2"), bytes);
        vault.propose("rotate", "req");
        ["alice", "bob"].iter().for_each(|one| vault.approve(one, "req"));
        vault.copy("store", "kept");
        let execute = "custody execute store req.req --approval alice.req.ok --approval bob.req.ok";
        let said = vault.run(execute);
        assert!(
            said.code == 4 && said.text.contains(&id) && said.text.contains("left as it was"),
            "{}",
            said.text
        );
        assert!(!vault.path(format!("{sealed}/vault-3")).exists(), "nothing is made of it");
        // The reader's own one opens all the same.
        assert_eq!(vault.done(&cat(SEALED)), CONTENT);
        fs::remove_dir_all(vault.path("store")).expect("removed");
        vault.copy("kept", "store");
        fs::remove_dir_all(vault.path("kept")).expect("removed");
        fs::remove_dir_all(vault.path("state")).expect("a machine that has not seen it");
    }
    vault.write(&format!("{sealed}/vault-2"), genuine);
    vault.propose("rotate", "req");
    ["alice", "bob"].iter().for_each(|one| vault.approve(one, "req"));
    vault.done("custody execute store req.req --approval alice.req.ok --approval bob.req.ok");
}

/// A tape from before five rotations: the whole directory of a run comes back, with envelopes to keys that nobody has a
/// share of any more.
#[test]
fn a_run_that_is_put_back_from_before_five_rotations_opens_for_todays_custodians() {
    let vault = Vault::new();
    let (id, at) = (vault.run_id(SEALED), vault.run_at(SEALED));
    vault.copy(&at, "tape");
    let rotate = || {
        vault.propose("rotate", "req");
        ["alice", "bob"].iter().for_each(|one| vault.approve(one, "req"));
        vault
            .done("custody execute store req.req --approval alice.req.ok --approval bob.req.ok --unconfirmed")
    };
    (0..5).for_each(|_| drop(rotate()));
    let newest = |at: &str| vault.path(format!("{at}/keys/vault-7")).exists();
    assert!(newest(&at) && !newest("tape"));
    fs::remove_dir_all(vault.path(&at)).expect("lost");
    vault.copy("tape", &at);
    vault.agree(&format!("grant {id} lab"));
    assert_eq!(vault.done(&format!("cat store {SEALED}/{FILE} --identity lab.key")), CONTENT);
    rotate();
    assert!(
        vault.path(format!("{at}/keys/vault-8")).exists(),
        "from the next rotation on it is as any other"
    );
    assert_eq!(vault.done(&cat(SEALED)), CONTENT);
}

/// Row "stanza dropped": a run that no key opens is counted and named, and one whose vault envelope is gone is missed by
/// the custodians.
#[test]
fn an_envelope_that_is_taken_away_closes_the_run_and_is_named() {
    let vault = Vault::new();
    let (sealed, _, own) = places(&vault);
    fs::remove_file(vault.path(format!("{sealed}/{own}"))).expect("removed");
    let said = vault.run(&cat(SEALED));
    assert!(said.code != 0, "{}", said.text);
    vault.refused(&cat(SEALED), said.code, SEALED);
    assert_eq!(vault.done(&format!("cat store {SEALED}/{FILE} --identity lab.key")), CONTENT);
    vault.agree(&format!("grant {} guest", vault.run_id(SEALED)));
    assert_eq!(vault.done(&cat(SEALED)), CONTENT, "the way back");
}

/// Shares of the first state, which no line of the log names by a hash of its envelopes.
#[test]
fn shares_of_the_first_state_that_are_swapped_are_named() {
    let vault = Vault::new();
    let name = "other/custody/state-0";
    let mut state = vault.state_at(name);
    let shares = &mut state.epochs[0].shares;
    let env = shares[0].env.take();
    shares[0].env = std::mem::replace(&mut shares[2].env, env);
    vault.write(name, state.to_text().expect("a text"));
    // Carol, who has done no drill in either vault.
    let said = vault.run("custody confirm other --identity carol.key");
    assert!(said.code == 4 && said.text.contains("custody/state-0: the share of \"carol\""), "{}", said.text);
    vault.done("custody propose other rotate --out req.req");
    let said = vault.run("custody approve req.req --identity carol.key --out x.ok --yes");
    assert!(said.code == 4 && said.text.contains("is a wrong or an older one"), "{}", said.text);
    assert!(!vault.path("x.ok").exists());
}
