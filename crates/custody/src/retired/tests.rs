use runvault_vault::authority::Gateway;

use super::*;
use crate::authority::Acting;
use crate::chains;
use crate::ends::{LastKnown, Which};
use crate::enroll::revoke;
use crate::gateway::StateFolder;
use crate::testing::{copy, enrolled, get, make_run, put, run_dir, seal, take_away, vault};

/// What the gateway itself says.
fn by_its_gateway(root: &Arc<dyn Dir>, gateway: &StateFolder, run: &RunId) {
    let note = get(&run_dir(root, run), "run.json");
    let said = gateway.retire_run(run, &note, "2026-11-24T06:00:00Z").unwrap();
    put(&root.open_dir(b"retired").unwrap(), &run.to_string(), &said);
}

fn gaps(root: &Arc<dyn Dir>, chain: &Chain) -> Vec<String> {
    chains::gaps(root, chain).unwrap().into_iter().map(|gap| gap.what).collect()
}

#[test]
fn the_owner_says_that_a_sealed_run_is_gone() {
    let (root, owner, mut chain) = vault();
    let gateway = enrolled(&root, &mut chain, &owner);
    let runs: Vec<RunId> = (0..3).map(|_| make_run(&root, &chain, &gateway).0).collect();
    runs.iter().for_each(|run| seal(&root, &gateway, run));
    let authority = Acting::opened(chain.clone(), &owner).unwrap();
    let said = retire(&root, &chain, &owner, &authority, &runs[1], "moved to tape").unwrap();
    assert_eq!((said.seq, said.seal.as_ref().unwrap().n, said.reason.as_str()), (2, 2, "moved to tape"));
    assert!(matches!(read(&root, &chain, &runs[1]).unwrap(), Some(Gone::Owner(read)) if read == said));
    assert_eq!(gaps(&root, &chain), [""; 0], "it is still there");
    take_away(&root, &runs[1]);
    assert_eq!(gaps(&root, &chain), [""; 0], "neither the run nor its seal is missed");
    // Nobody else can say it.
    let stranger = Identity::generate("stranger").unwrap();
    let refused = retire(&root, &chain, &stranger, &authority, &runs[0], "").unwrap_err();
    assert!(matches!(refused, Error::WrongKey { .. }), "{refused}");
    let forged = Removed { run: runs[0], custodian: stranger.id(), ..said.clone() };
    let in_the_owners_name = Removed { run: runs[0], ..said };
    for forged in [forged, in_the_owners_name] {
        let note = sign(&forged.to_text().unwrap(), &forged.custodian, &stranger.keys.sign);
        put(&root.open_dir(b"retired").unwrap(), &runs[0].to_string(), &note);
        assert!(read(&root, &chain, &runs[0]).unwrap().is_none());
    }
}

#[test]
fn a_gateways_word_on_a_run_counts_up_to_its_end() {
    let (root, owner, mut chain) = vault();
    let gateway = enrolled(&root, &mut chain, &owner);
    let runs: Vec<RunId> = (0..2).map(|_| make_run(&root, &chain, &gateway).0).collect();
    runs.iter().for_each(|run| by_its_gateway(&root, &gateway, run));
    for run in &runs {
        assert!(matches!(read(&root, &chain, run).unwrap(), Some(Gone::Maker(_))));
    }
    let last = LastKnown { run: Some(Which::Number(1)), seal: None };
    let (chain, _) = revoke(&root, &chain, &owner, &gateway.id(), &last, "").unwrap();
    let counts = |run| read(&root, &chain, run).unwrap().is_some();
    assert_eq!((counts(&runs[0]), counts(&runs[1])), (true, false));
}

/// A seal that its gateway's key takes away leaves its number.
#[test]
fn a_gateways_word_on_a_sealed_run_leaves_a_gap() {
    let (root, owner, mut chain) = vault();
    let gateway = enrolled(&root, &mut chain, &owner);
    let runs: Vec<RunId> = (0..2).map(|_| make_run(&root, &chain, &gateway).0).collect();
    runs.iter().for_each(|run| seal(&root, &gateway, run));
    let root = copy(&root);
    by_its_gateway(&root, &gateway, &runs[0]);
    take_away(&root, &runs[0]);
    assert_eq!(gaps(&root, &chain), ["seal number 1 is missing"]);
}
