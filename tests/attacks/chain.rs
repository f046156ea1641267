//! The chain of custody: who writes to the store can forge no genesis, no state, no custodian, no machine, and put no
//! older one back unseen.

use std::fs;

use runvault_crypto::digest::sha256;
use runvault_crypto::random;
use runvault_custody::clock;
use runvault_custody::identity::Identity;
use runvault_format::audit_entry::{Executed, Line, Outcome};
use runvault_format::custody_state::{Custodian, Machine, ReaderEntry, State};
use runvault_format::ids::{Digest, Salt};
use runvault_format::operation::Operation;
use runvault_format::request::{Approval, Executor, Head, Request};

use crate::vault::{FILE, SEALED, Vault};

const LOG: &str = "store/custody/audit.log";
const VERIFY: &str = "audit verify store";
/// A machine that has never seen this vault.
const NEW: &str = "audit verify store --state elsewhere";

fn line_of(vault: &Vault, n: usize) -> Vec<u8> {
    vault.read(LOG).split(|byte| *byte == b'\n').nth(n - 1).expect("a line").to_vec()
}

/// The next line, as a thief would make it who has everything but the custodians' keys.
struct Forged {
    request: Request,
    after: State,
    executor: Identity,
}

impl Forged {
    fn new(vault: &Vault, op: Operation, after: State) -> Self {
        let (before, n) = (vault.state(), vault.lines());
        let executor = Identity::generate("executor").expect("a key");
        let mut nonce = Salt([0; 16]);
        random::fill(&mut nonce.0).expect("random");
        let request = Request {
            vault: before.vault,
            head: Head { n: n as u64, hash: Digest(sha256(&[&line_of(vault, n)])) },
            before: before.hash().expect("a hash"),
            releases_share: op.releases_share(),
            reason: String::new(),
            executor: Executor { kem: executor.public().kem, sign: executor.public().sign },
            created: clock::now(),
            expires: "2099-01-01T00:00:00Z".to_owned(),
            nonce,
            state: Some(after.outline()),
            op,
        };
        Self { request, after, executor }
    }

    fn approved_by(&self, who: &Identity) -> Approval {
        let hash = self.request.hash().expect("a hash");
        let env = self.request.releases_share.then_some(&b"a share"[..]);
        Approval::sign(who.id(), &who.keys.sign, &hash, env)
    }

    /// Line and state in their places, or as the claim of the next line.
    fn put(&self, vault: &Vault, approvals: Vec<Approval>, as_claim: bool) {
        let n = self.request.head.n + 1;
        let executed = Executed {
            n,
            prev: self.request.head.hash,
            time: clock::now(),
            request: self.request.clone(),
            result: Outcome { state: Some(self.after.hash().expect("a hash")), runs: Vec::new() },
            heads: Vec::new(),
            approvals,
        };
        let line = executed.sign(&self.executor.keys.sign).expect("signed").to_line().expect("a line");
        let state = self.after.to_text().expect("a text");
        if as_claim {
            return vault.write(&format!("store/custody/line-{n}"), format!("{line}\n{state}"));
        }
        vault.write(&format!("store/custody/state-{n}"), state);
        vault.write(LOG, [&vault.read(LOG)[..], line.as_bytes(), b"\n"].concat());
    }
}

/// The refusal of line and state, in the log or as a claim, on each machine.
#[track_caller]
fn refused(forged: &Forged, vault: &Vault, approvals: impl Fn() -> Vec<Approval>, says: &str) {
    let genuine = vault.read(LOG);
    let n = forged.request.head.n + 1;
    for as_claim in [false, true] {
        forged.put(vault, approvals(), as_claim);
        vault.refused(VERIFY, 4, says);
        vault.refused(NEW, 4, says);
        vault.refused(&format!("cat store {SEALED}/{FILE} --identity lab.key"), 4, says);
        vault.write(LOG, &genuine);
        let _ = fs::remove_file(vault.path(format!("store/custody/state-{n}")));
        let _ = fs::remove_file(vault.path(format!("store/custody/line-{n}")));
    }
    vault.done(VERIFY);
}

/// Row "forged custodian, gateway": a line that too few custodians, or others, have agreed to.
#[test]
fn a_line_wants_the_quorum_of_the_state_before() {
    let vault = Vault::new();
    let (before, mallory) = (vault.state(), vault.identity("mallory"));
    let gateway = Machine::new("mallory's", &mallory.public());
    let reader = ReaderEntry {
        id: mallory.id(),
        label: "mallory".into(),
        sign: mallory.public().sign,
        kem: mallory.public().kem,
        standing: true,
        expires: None,
    };
    for op in [Operation::EnrolGateway { gateway }, Operation::AddReader { reader }] {
        let after = op.apply(&before).expect("a state");
        let forged = Forged::new(&vault, op, after);
        let by = |who: &str| forged.approved_by(&vault.identity(who));
        refused(&forged, &vault, Vec::new, "quorum");
        refused(&forged, &vault, || vec![by("alice")], "quorum");
        refused(&forged, &vault, || vec![by("alice"), by("alice")], "approved twice by one custodian");
        refused(&forged, &vault, || vec![by("alice"), by("mallory")], "approved by someone else");
        let as_bob = || Approval { custodian: vault.identity("bob").id(), ..by("alice") };
        refused(&forged, &vault, || vec![by("alice"), as_bob()], "the signature is not valid");
    }
    // Mallory in the place of carol, by a state that only she agreed to; and approvals of the line before.
    let op = Operation::AddCustodian { custodian: Custodian::new("dave", &mallory.public()) };
    let mut after = before.clone();
    after.n += 1;
    let place = after.custodians.iter().position(|known| known.label == "carol").expect("carol");
    after.custodians[place] = Custodian::new("carol", &mallory.public());
    after.epochs.last_mut().expect("an epoch").shares[place].to = mallory.id();
    let forged = Forged::new(&vault, op, after);
    let replayed = || {
        let line = Line::parse(&line_of(&vault, vault.lines())).expect("a line");
        line.executed.approvals
    };
    refused(&forged, &vault, replayed, "the signature is not valid");
}

/// Row "forged state": what the quorum agreed to is the only thing that counts.
#[test]
fn a_state_is_the_one_that_its_line_names() {
    let vault = Vault::new();
    let name = format!("store/custody/state-{}", vault.lines());
    let (good, mallory) = (vault.state(), vault.identity("mallory"));
    let mut with_custodian = good.clone();
    with_custodian.custodians[2] = Custodian::new("carol", &mallory.public());
    with_custodian.epochs.last_mut().expect("an epoch").shares[2].to = mallory.id();
    let mut with_gateway = good.clone();
    with_gateway.gateways[0].sign = mallory.public().sign;
    let mut lower = good.clone();
    lower.quorum = 1;
    let mut swapped = good.clone();
    let shares = &mut swapped.epochs.last_mut().expect("an epoch").shares;
    let env = shares[0].env.take();
    shares[0].env = std::mem::replace(&mut shares[1].env, env);
    let mut endless = good.clone();
    endless.readers.retain(|reader| reader.label != "guest");
    for forged in [with_custodian, with_gateway, lower, swapped, endless] {
        vault.write(&name, forged.to_text().expect("a text"));
        vault.refused(VERIFY, 4, "hash of the state");
        vault.refused(NEW, 4, "hash of the state");
        vault.refused("custody confirm store --identity alice.key", 4, "hash of the state");
    }
    vault.write(&name, good.to_text().expect("a text"));
    vault.done(VERIFY);
    // An older state under the newest one's name.
    vault.copy(&format!("store/custody/state-{}", vault.lines() - 1), &name);
    vault.refused(NEW, 4, "number of the state");
    fs::remove_file(vault.path(&name)).expect("removed");
    vault.refused(NEW, 4, "missing");
}

/// Row "forged genesis", and "a store of their own, put in the place": the vault's id is the genesis.
#[test]
fn another_genesis_is_another_vault() {
    let vault = Vault::new();
    let id = vault.id();
    vault.copy("other/custody/genesis", "store/custody/genesis");
    vault.refused(VERIFY, 4, "vault.json: names vault");
    vault.refused(NEW, 4, "vault.json: names vault");
    vault.copy("other/vault.json", "store/vault.json");
    vault.refused(NEW, 4, "custody/audit.log: line 1: ");
    // The whole of it: a vault of the same people, but not the one that this machine writes to, nor the one of the keys.
    fs::remove_dir_all(vault.path("store")).expect("removed");
    vault.copy("other", "store");
    vault.done(NEW);
    vault.refused("custody confirm store --identity alice.key", 3, &id.to_string());
    fs::create_dir(vault.path("mnt")).expect("a folder");
    vault.refused("mount store mnt --ingest", 4, "but this machine writes for vault");
}

/// Row "header rolled back or forked": a machine that has seen more says so, and a head on paper does.
#[test]
fn an_older_a_cut_and_a_forked_trail_are_named() {
    let vault = Vault::new();
    let head = vault.done(VERIFY).lines().last().expect("a head").to_owned();
    vault.copy("store", "older");
    vault.agree("remove-reader guest");
    vault.done(VERIFY);
    let newer = vault.done(VERIFY).lines().last().expect("a head").to_owned();
    let put = |custody: &str| {
        fs::remove_dir_all(vault.path("store/custody")).expect("removed");
        vault.copy(custody, "store/custody");
    };
    vault.copy("store/custody", "newest");
    // An older custody/.
    put("older/custody");
    vault.refused(VERIFY, 4, "rolled back to line");
    vault.refused(&format!("{NEW} --since {newer}"), 4, "cut:");
    vault.done(&format!("{NEW} --since {head}"));
    // Its last line taken away, and its claim.
    put("newest");
    let (log, n) = (vault.read(LOG), vault.lines());
    let whole = log.len() - line_of(&vault, n).len() - 1;
    vault.write(LOG, &log[..whole]);
    let _ = fs::remove_file(vault.path(format!("store/custody/line-{n}")));
    vault.refused(VERIFY, 4, "audit log cut");
    // Another line in its place: the same people were shown two stores.
    put("older/custody");
    vault.done("custody propose store add-reader mallory=mallory.key.pub --out fork.req --state elsewhere");
    let refused = vault.run("custody approve fork.req --identity alice.key --out alice.fork.ok --yes");
    assert!(refused.code == 1 && refused.text.contains("approved another request"), "{}", refused.text);
    ["alice", "bob"].iter().for_each(|who| vault.approve(who, "fork"));
    let line =
        "custody execute store fork.req --approval alice.fork.ok --approval bob.fork.ok --state elsewhere";
    vault.done(line);
    vault.refused(VERIFY, 4, "forked at line");
    vault.refused(&format!("{NEW} --since {newer}"), 4, "forked:");
}

/// Row "chain cut, changed, reordered": each line follows from the one before.
#[test]
fn lines_that_are_changed_reordered_or_left_out_are_named_by_number() {
    let vault = Vault::new();
    let log = vault.read(LOG);
    let lines: Vec<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').collect();
    let n = lines.len();
    assert!(n >= 5, "{n}");
    let join = |order: &[usize]| order.iter().flat_map(|at| lines[*at]).copied().collect::<Vec<u8>>();
    let mut swapped: Vec<usize> = (0..n).collect();
    swapped.swap(1, 2);
    let twice: Vec<usize> = (0..=1).chain(1..n).collect();
    let gap: Vec<usize> = (0..n).filter(|at| *at != 1).collect();
    let headless: Vec<usize> = (1..n).collect();
    for (order, says) in
        [(swapped, "line 2: "), (twice, "line 3: "), (gap, "line 2: "), (headless, "line 1: ")]
    {
        vault.write(LOG, join(&order));
        vault.refused(NEW, 4, says);
    }
    vault.write(LOG, &log[..log.len() - 1]);
    vault.refused(NEW, 4, "cut short");
    let text = String::from_utf8(log.clone()).expect("a text");
    vault.write(LOG, text.replacen("\"reason\":\"\"", "\"reason\":\"else\"", 1));
    vault.refused(NEW, 4, "line 1: ");
    vault.write(LOG, &log);
    vault.done(NEW);
}
