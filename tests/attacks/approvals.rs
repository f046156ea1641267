//! A quorum's yes: what is no approval, or one of something else, executes nothing.

use std::time::Duration;

use runvault_crypto::secrets::Secret;
use runvault_format::approval_file::ApprovalFile;
use runvault_format::envelope_file;
use runvault_format::ids::IdentityId;
use runvault_format::info::{Purpose, Recipient, Scope, info};
use runvault_format::request::Approval;

use crate::shares::share_of;
use crate::vault::Vault;

/// A vault, and a rotation that alice and bob approved.
fn approved() -> Vault {
    let vault = Vault::new();
    vault.propose("rotate", "req");
    ["alice", "bob"].iter().for_each(|one| vault.approve(one, "req"));
    vault
}

fn execute(approvals: &[&str]) -> String {
    let given: String = approvals.iter().map(|one| format!(" --approval {one}")).collect();
    format!("custody execute store req.req{given}")
}

const BOTH: [&str; 2] = ["alice.req.ok", "bob.req.ok"];

fn approval(vault: &Vault, name: &str) -> ApprovalFile {
    ApprovalFile::parse(&vault.read(name)).expect("an approval")
}

/// The approval that `who` gives with `y` as the share, right or not.
fn with_share(vault: &Vault, who: &str, y: &Secret<32>) -> String {
    let (file, identity) = (vault.request("req"), vault.identity(who));
    let hash = file.hash().expect("a hash");
    let to = Recipient::Identity(file.request.executor.public().id());
    let text = info(Purpose::Approval, &vault.id(), &Scope::Request(hash), &to);
    let env = envelope_file::seal(&file.request.executor.kem, &text, y.expose()).expect("sealed");
    let approval = Approval::sign(identity.id(), &identity.keys.sign, &hash, Some(&env));
    ApprovalFile { request: hash, approval, env: Some(env) }.to_text().expect("a text")
}

/// Row "m-1 shares, duplicate custodian twice".
#[test]
fn one_approval_of_two_or_one_twice_is_too_few() {
    let vault = approved();
    vault.refused(&execute(&BOTH[..1]), 1, "1 of 2 approvals: too few");
    vault.refused(&execute(&["alice.req.ok", "alice.req.ok"]), 2, "is there twice");
    // The same custodian's second answer, with a share that is sealed anew.
    vault.write("again.ok", with_share(&vault, "alice", &share_of(&vault, &vault.state(), "alice")));
    vault.refused(&execute(&["alice.req.ok", "again.ok"]), 2, "is there twice");
    vault.refused(&execute(&["alice.req.ok", "again.ok", "bob.req.ok"]), 2, "is there twice");
    vault.done(&execute(&BOTH));
}

/// Row "one custodian's key file, opened": a yes in another's name, or nobody's.
#[test]
fn nobody_says_yes_for_another() {
    let vault = approved();
    let good = approval(&vault, "bob.req.ok");
    // Alice's signature under bob's name; a stranger's.
    let as_bob = Approval { custodian: good.approval.custodian, ..approval(&vault, "alice.req.ok").approval };
    let file = ApprovalFile { approval: as_bob, ..approval(&vault, "alice.req.ok") };
    vault.write("forged.ok", file.to_text().expect("a text"));
    vault.refused(&execute(&["alice.req.ok", "forged.ok"]), 4, "is not signed by that custodian's key");
    vault.write("mallory.ok", with_share(&vault, "mallory", &Secret::random().expect("random")));
    vault.refused(&execute(&["alice.req.ok", "mallory.ok"]), 4, "is by nobody who is a custodian");
    vault.refused("custody approve req.req --identity mallory.key --out x.ok --yes", 3, "wrong key");
    // A share that came in another's approval: the signature names the envelope.
    let file = ApprovalFile { env: approval(&vault, "alice.req.ok").env, ..good };
    let text = file.to_text().map_err(|refused| refused.name());
    assert_eq!(text, Err("share"));
}

/// Row "replayed approvals": each is for one request, on one head of one vault, until its time is over.
#[test]
fn an_approval_is_for_one_request() {
    let vault = approved();
    vault.propose("rotate", "second");
    vault.approve("carol", "second");
    vault.refused(&execute(&["alice.req.ok", "carol.second.ok"]), 4, "is for another request");
    // Its hash exchanged, so that it says that it is for this one.
    let hash = vault.request("req").hash().expect("a hash");
    let file = ApprovalFile { request: hash, ..approval(&vault, "carol.second.ok") };
    vault.write("moved.ok", file.to_text().expect("a text"));
    vault.refused(&execute(&["alice.req.ok", "moved.ok"]), 4, "is not signed by that custodian's key");
    // Of the same people's other vault.
    vault.done("custody propose other rotate --out other.req");
    vault.done("custody approve other.req --identity carol.key --out other.ok --yes");
    vault.refused(&execute(&["alice.req.ok", "other.ok"]), 4, "is for another request");
    vault.refused("custody execute store other.req --approval other.ok", 1, "the store is vault");
}

/// Row "replayed approvals": what was executed, or overtaken, is over.
#[test]
fn a_used_and_an_overtaken_request_are_over() {
    let vault = approved();
    vault.copy("req.req.executor", "kept");
    vault.propose("rotate", "second");
    ["carol", "bob"].iter().for_each(|one| vault.approve(one, "second"));
    let late = "custody execute store second.req --approval carol.second.ok --approval bob.second.ok";
    vault.copy("second.req.executor", "kept-too");
    vault.done(&execute(&BOTH));
    vault.refused(&execute(&BOTH), 1, "the request was executed: it is line");
    vault.copy("kept", "req.req.executor");
    vault.refused(&execute(&BOTH), 1, "the request was executed: it is line");
    vault.refused(late, 1, "it was overtaken");
    assert!(!vault.path("second.req.executor").exists(), "a key of no more use is erased");
    vault.copy("kept-too", "second.req.executor");
    vault.refused(&format!("{late} --resume"), 1, "was not executed yet");
}

/// Row "replayed approvals": by the executor's clock.
#[test]
fn an_expired_request_is_over() {
    let vault = Vault::new();
    vault.done("custody propose store rotate --out req.req --expires-in 2s");
    ["alice", "bob"].iter().for_each(|one| vault.approve(one, "req"));
    std::thread::sleep(Duration::from_secs(3));
    vault.refused(&execute(&BOTH), 1, "could be executed until");
    vault.refused(
        "custody approve req.req --identity carol.key --out carol.ok --yes",
        1,
        "could be executed until",
    );
}

/// Row "share from old generation": it is named by its custodian, and so is one that is wrong.
#[test]
fn an_older_share_and_a_wrong_one_are_named() {
    let vault = approved();
    let older = share_of(&vault, &vault.state_at("old/state-0"), "bob");
    let other = share_of(&vault, &vault.state(), "carol");
    for y in [&older, &other, &Secret::random().expect("random")] {
        vault.write("wrong.ok", with_share(&vault, "bob", y));
        vault.refused(&execute(&["alice.req.ok", "wrong.ok"]), 4, "the share of \"bob\"");
    }
    // Too short to be one.
    let (file, bob) = (vault.request("req"), vault.identity("bob"));
    let hash = file.hash().expect("a hash");
    let to = Recipient::Identity(file.request.executor.public().id());
    let text = info(Purpose::Approval, &vault.id(), &Scope::Request(hash), &to);
    let env = envelope_file::seal(&file.request.executor.kem, &text, &[7; 31]).expect("sealed");
    let approval = Approval::sign(bob.id(), &bob.keys.sign, &hash, Some(&env));
    let short = ApprovalFile { request: hash, approval, env: Some(env) };
    vault.write("wrong.ok", short.to_text().expect("a text"));
    vault.refused(&execute(&["alice.req.ok", "wrong.ok"]), 4, "the share of \"bob\"");
}

/// Row "a request on its way": another one has other words, and needs other approvals.
#[test]
fn a_request_that_is_exchanged_has_other_words() {
    let vault = approved();
    vault.propose("rotate", "second");
    let (genuine, second) = (vault.request("req"), vault.request("second"));
    let words = genuine.words().expect("words");
    assert_ne!(second.words().expect("words"), words);
    // The same with another executor's key, to whom shares would be sealed; with that key in its place, too.
    let mut exchanged = genuine.clone();
    exchanged.request.executor = second.request.executor;
    assert_ne!(exchanged.words().expect("words"), words);
    vault.write("req.req", exchanged.to_bytes().expect("a file"));
    vault.refused(&execute(&BOTH), 3, "the executor key is not the one");
    vault.copy("req.req.executor", "kept");
    vault.copy("second.req.executor", "req.req.executor");
    vault.refused(&execute(&BOTH), 4, "is for another request");
    vault.copy("kept", "req.req.executor");
    // Another reason, and others than there are: the state beside it is named by its hash.
    let mut exchanged = genuine.clone();
    exchanged.request.reason = "because".into();
    assert_ne!(exchanged.words().expect("words"), words);
    vault.write("req.req", exchanged.to_bytes().expect("a file"));
    vault.refused(&execute(&BOTH), 4, "is for another request");
    vault.write("req.req", genuine.to_bytes().expect("a file"));
    vault.change("req.req", "\"label\":\"carol\"", "\"label\":\"carlo\"");
    vault.refused(&execute(&BOTH), 4, "it is for another state than the one beside it");
    vault.write("req.req", genuine.to_bytes().expect("a file"));
    vault.done(&execute(&BOTH));
}

/// Row "what is released": nothing leaves where signatures suffice, and a share is for one machine.
#[test]
fn a_share_goes_to_one_executor_and_only_where_it_is_needed() {
    let vault = approved();
    vault.propose("remove-reader guest", "quiet");
    vault.approve("alice", "quiet");
    assert_eq!(approval(&vault, "alice.quiet.ok").env, None);
    let own = share_of(&vault, &vault.state(), "alice");
    let text = vault.read("alice.quiet.ok");
    assert!(!text.windows(32).any(|bytes| bytes == own.expose()));
    // One that brings a share where none was asked for is refused, too.
    let (file, alice) = (vault.request("quiet"), vault.identity("alice"));
    let hash = file.hash().expect("a hash");
    let env = b"a share that nobody asked for".to_vec();
    let given = Approval::sign(alice.id(), &alice.keys.sign, &hash, Some(&env));
    vault.write(
        "loud.ok",
        ApprovalFile { request: hash, approval: given, env: Some(env) }.to_text().expect("a text"),
    );
    vault.approve("bob", "quiet");
    let line = "custody execute store quiet.req --approval bob.quiet.ok --approval loud.ok";
    vault.refused(line, 4, "does not bring the share that the request asks for, or one that it does not");
    // Opened by nobody else: not another custodian, nor the key of another request.
    let (file, released) = (vault.request("req"), approval(&vault, "alice.req.ok").env.expect("a share"));
    let scope = Scope::Request(file.hash().expect("a hash"));
    let to = |id: IdentityId| info(Purpose::Approval, &vault.id(), &scope, &Recipient::Identity(id));
    for who in ["bob.key", "mallory.key", "quiet.req.executor"] {
        let key = vault.key(who);
        for id in [key.id(), file.request.executor.public().id()] {
            let opened = envelope_file::open(&key.keys.kem, &to(id), &released);
            assert!(opened.is_err(), "{who}");
        }
    }
    let executor = vault.key("req.req.executor");
    let opened = envelope_file::open(&executor.keys.kem, &to(executor.id()), &released).expect("it opens");
    assert_eq!(opened[..], own.expose()[..]);
}
