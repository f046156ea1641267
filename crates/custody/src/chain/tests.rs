//! A chain of three lines, and everything that can be done to its files.

use std::sync::Arc;

use runvault_store::backend::{Dir, SetTime, Time};
use runvault_store::doubles::memory::MemoryDir;

use super::Chain;

use crate::execute::{Act, execute};
use crate::gateway::StateFolder;
use crate::identity::Identity;
use crate::state_folder::Folder;
use crate::testing::{copy, custody, enrolled, get, killed_at, put, vault};
use crate::{Error, public_file};
use runvault_format::operation::Operation;

fn three_lines() -> (Arc<dyn Dir>, Identity, Chain) {
    let (root, owner, mut chain) = vault();
    for _ in 0..3 {
        enrolled(&root, &mut chain, &owner);
    }
    (root, owner, chain)
}

#[test]
fn lines_follow_each_other() {
    let (root, _, chain) = three_lines();
    let loaded = Chain::load(&root).unwrap();
    assert_eq!(loaded.head(), chain.head());
    assert_eq!((loaded.head().n, loaded.gateways().len(), loaded.state_ref().n), (3, 3, 3));
    assert_eq!(loaded.line_hash(0).unwrap().0, chain.vault_id().0);
    assert_eq!(loaded.line_hash(3), Some(chain.head().hash));
    assert_eq!(loaded.line_hash(4), None);
    assert_eq!(loaded.line_hash(u64::MAX), None);
}

/// Any byte of any file of custody/: refused, by the object or the line that it is in.
#[test]
fn a_changed_byte_is_refused_by_name() {
    let (root, _, _) = three_lines();
    for (file, expected) in [
        ("genesis", "genesis"),
        ("state-0", "state-0"),
        ("state-1", "line 1|state-1"),
        ("state-3", "line 3|state-3"),
        ("audit.log", "line "),
    ] {
        let good = get(&custody(&root), file);
        let step = (good.len() / 150).max(1);
        for at in (0..good.len()).step_by(step).chain([good.len() - 1]) {
            let store = copy(&root);
            let mut bad = good.clone();
            bad[at] ^= 0x04;
            put(&custody(&store), file, &bad);
            let Err(refused) = Chain::load(&store) else {
                // The envelopes of state 0 are no part of its hash: they do not open instead.
                assert_eq!(file, "state-0", "byte {at}");
                continue;
            };
            let text = refused.to_string();
            let named = expected.split('|').any(|e| text.contains(e)) || text.contains("custody/genesis");
            assert!(named, "{file} byte {at}: {text}");
        }
    }
}

#[test]
fn a_changed_line_is_refused_by_its_number() {
    let (root, _, _) = three_lines();
    let log = String::from_utf8(get(&custody(&root), "audit.log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let with = |lines: &[&str]| {
        let store = copy(&root);
        let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
        put(&custody(&store), "audit.log", text.as_bytes());
        Chain::load(&store)
    };
    assert!(with(&lines).is_ok());
    for (changed, line) in [
        (vec![lines[1], lines[2]], 1),
        (vec![lines[0], lines[2]], 2),
        (vec![lines[0], lines[0]], 2),
        (vec![lines[0], lines[1], ""], 3),
        (vec![""], 1),
    ] {
        let refused = with(&changed).unwrap_err();
        assert!(matches!(refused, Error::ChainBroken { line: found, .. } if found == line), "{refused}");
    }
    let store = copy(&root);
    put(&custody(&store), "audit.log", &log.as_bytes()[..log.len() - 1]);
    let refused = Chain::load(&store).unwrap_err();
    assert!(matches!(&refused, Error::ChainBroken { line: 3, why } if why == "cut short"), "{refused}");
}

/// A line that is right in every signature, in another vault's log.
#[test]
fn lines_and_states_of_another_vault_are_refused() {
    let (root, _, _) = three_lines();
    let (other, _, _) = three_lines();
    for file in ["audit.log", "state-2", "state-0"] {
        let store = copy(&root);
        put(&custody(&store), file, &get(&custody(&other), file));
        assert!(Chain::load(&store).is_err(), "{file}");
    }
    let store = copy(&root);
    put(&custody(&store), "genesis", &get(&custody(&other), "genesis"));
    let refused = Chain::load(&store).unwrap_err();
    assert!(matches!(&refused, Error::Damaged { object, .. } if object == "vault.json"), "{refused}");
}

#[test]
fn nobody_but_a_custodian_executes() {
    let (root, _, chain) = three_lines();
    let stranger = Identity::generate("stranger").unwrap();
    let gateway = Identity::generate("gateway").unwrap();
    let act = |chain: &Chain| {
        Ok(Some(Act {
            op: Operation::EnrolGateway { gateway: chain.machine(&public_file::of(&gateway, None)) },
            reason: "",
            share: None,
        }))
    };
    let before = get(&custody(&root), "audit.log");
    let refused = execute(&root, &chain, &stranger, act).unwrap_err();
    assert!(matches!(refused, Error::WrongKey { .. }), "{refused}");
    assert_eq!(get(&custody(&root), "audit.log"), before, "nothing was written");
    assert!(custody(&root).stat(b"state-4").is_err() && custody(&root).stat(b"line-4").is_err());
}

#[test]
fn a_chain_that_grew_meanwhile_is_followed() {
    let (root, owner, mut chain) = vault();
    let stale = chain.clone();
    enrolled(&root, &mut chain, &owner);
    let gateway = StateFolder::on(Folder::on(MemoryDir::root()), chain.vault_id()).unwrap();
    gateway.enroll(&root, &mut stale.clone(), &owner).unwrap();
    let after = Chain::load(&root).unwrap();
    assert_eq!((after.head().n, after.line_hash(1)), (2, Some(chain.head().hash)));
}

/// Killed at each of its calls, an enrolment has happened or not; the next one works either way.
#[test]
fn an_execute_killed_anywhere_leaves_a_good_chain() {
    let (start, owner, chain) = vault();
    let mut kills = 0;
    for n in 0.. {
        let root = copy(&start);
        let folder = MemoryDir::root();
        let gateway = StateFolder::on(Folder::on(folder), chain.vault_id()).unwrap();
        let killed = killed_at(&root, n, |root| gateway.enroll(root, &mut chain.clone(), &owner));
        let mut after = Chain::load(&root).unwrap();
        assert!(after.head().n <= 1);
        gateway.enroll(&root, &mut after, &owner).unwrap();
        assert_eq!(after.head().n, 1, "call {n}");
        gateway.require_enrolled(&after).unwrap();
        enrolled(&root, &mut after, &owner);
        if killed.is_none() {
            break;
        }
        kills += 1;
    }
    assert!(kills > 10, "{kills} kill points");
}

/// What a claim is for: an executor that wakes late puts its older log in the place of a newer one.
#[test]
fn lines_that_the_log_lost_again_are_read_from_their_claims() {
    let (root, owner, mut chain) = vault();
    enrolled(&root, &mut chain, &owner);
    let late = get(&custody(&root), "audit.log");
    enrolled(&root, &mut chain, &owner);
    enrolled(&root, &mut chain, &owner);
    put(&custody(&root), "audit.log", &late);
    assert_eq!(Chain::load(&root).unwrap().head(), chain.head());
    assert!(chain.continued(&root).unwrap().is_none());
    enrolled(&root, &mut chain, &owner);
    assert_eq!(get(&custody(&root), "audit.log"), chain.log());
    assert_eq!(Chain::load(&root).unwrap().head().n, 4);
}

#[test]
fn claims_and_temporaries_go_after_a_day() {
    let (root, owner, mut chain) = vault();
    enrolled(&root, &mut chain, &owner);
    enrolled(&root, &mut chain, &owner);
    let custody = custody(&root);
    put(&custody, ".tmp-young", b"");
    put(&custody, ".tmp-old", b"");
    let now = custody.stat(b"line-2").unwrap().mtime;
    for old in ["line-1", ".tmp-old"] {
        let then = SetTime::At(Time { sec: now.sec - 25 * 3600, nsec: 0 });
        custody.set_times(old.as_bytes(), SetTime::Omit, then).unwrap();
    }
    enrolled(&root, &mut chain, &owner);
    let names = crate::layout::names(&custody, "custody").unwrap();
    let there = |name: &str| names.iter().any(|there| there == name.as_bytes());
    assert!(!there("line-1") && !there(".tmp-old"));
    assert!(there("line-2") && there("line-3") && there(".tmp-young"));
    assert_eq!(Chain::load(&root).unwrap().head().n, 3);
}

#[test]
fn a_damaged_claim_is_refused_by_name() {
    let (root, owner, mut chain) = vault();
    enrolled(&root, &mut chain, &owner);
    let (log, good) = (get(&custody(&root), "audit.log"), get(&custody(&root), "line-1"));
    put(&custody(&root), "audit.log", b"");
    for at in (0..good.len()).step_by(good.len() / 150).chain([good.len() - 1]) {
        let mut bad = good.clone();
        bad[at] ^= 0x04;
        put(&custody(&root), "line-1", &bad);
        let refused = Chain::load(&root).unwrap_err();
        let named = matches!(&refused, Error::Damaged { object, .. } if object == "custody/line-1");
        assert!(named || matches!(refused, Error::ChainBroken { line: 1, .. }), "byte {at}: {refused}");
    }
    for cut in [0, 1, good.len() / 2, good.len() - 1] {
        put(&custody(&root), "line-1", &good[..cut]);
        assert!(Chain::load(&root).is_err(), "cut at {cut}");
    }
    // Nothing is asked of it once the log has the line.
    put(&custody(&root), "audit.log", &log);
    assert_eq!(Chain::load(&root).unwrap().head().n, 1);
}

#[test]
fn planted_objects_are_refused_by_name() {
    let (root, _, _) = three_lines();
    for file in ["genesis", "audit.log", "state-0", "state-2", "line-4"] {
        let store = copy(&root);
        let _ = custody(&store).unlink(file.as_bytes());
        custody(&store).create_symlink(file.as_bytes(), b"/etc/passwd").unwrap();
        let refused = Chain::load(&store).unwrap_err();
        assert!(matches!(&refused, Error::Damaged { why, .. } if why == "not a regular file"), "{refused}");
        custody(&store).unlink(file.as_bytes()).unwrap();
        if !["state-0", "line-4"].contains(&file) {
            let refused = Chain::load(&store).unwrap_err();
            assert!(matches!(&refused, Error::Damaged { why, .. } if why == "missing"), "{refused}");
        }
    }
}
