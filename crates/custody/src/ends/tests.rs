use runvault_store::doubles::memory::MemoryDir;
use runvault_vault::authority::{Gateway, Until};

use super::*;
use crate::enroll::revoke;
use crate::gateway::StateFolder;
use crate::identity::Identity;
use crate::state_folder::Folder;
use crate::testing::{copy, get, make_run, put, run_dir, seal, take_away, vault};

struct Site {
    root: Arc<dyn Dir>,
    owner: Identity,
    chain: Chain,
    folder: Arc<dyn Dir>,
    gateway: StateFolder,
}

fn site() -> Site {
    let (root, owner, mut chain) = vault();
    let folder = MemoryDir::root();
    let gateway = on(&folder, &chain);
    gateway.enroll(&root, &mut chain, &owner).unwrap();
    gateway.settle(&root).unwrap();
    Site { root, owner, chain, folder, gateway }
}

fn on(folder: &Arc<dyn Dir>, chain: &Chain) -> StateFolder {
    StateFolder::on(Folder::on(folder.clone()), chain.vault_id()).unwrap()
}

impl Site {
    /// Who copied the state folder; with another seal for its newest.
    fn thief(&self, seals: Option<u64>) -> StateFolder {
        let folder = copy(&self.folder);
        if let Some(n) = seals {
            let head = serde_json::json!({ "n": n, "hash": Digest([7; 32]), "run": RunId([7; 16]) });
            put(&folder, "seals", format!("{head}\n").as_bytes());
        }
        on(&folder, &self.chain)
    }

    fn run(&self, gateway: &StateFolder) -> RunId {
        make_run(&self.root, &self.chain, gateway).0
    }

    fn end(&self, run: Option<Which>, seal: Option<Which>) -> Result<(Until, CutOff)> {
        let (root, id) = (copy(&self.root), self.gateway.id());
        let (chain, cut_off) = revoke(&root, &self.chain, &self.owner, &id, &LastKnown { run, seal }, "")?;
        Ok((chain.gateway_key(&id).unwrap().until.unwrap(), cut_off))
    }

    fn note(&self, run: &RunId, name: &str) -> Digest {
        let dir = run_dir(&self.root, run);
        let note = match name {
            "run.json" => get(&dir, name),
            name => get(&dir.open_dir(b"seal").unwrap(), name),
        };
        text_hash(Note::parse(&note).unwrap().text)
    }
}

#[test]
fn a_person_says_which_run_is_the_last() {
    let site = site();
    let runs: Vec<_> = (0..3).map(|_| site.run(&site.gateway)).collect();
    [&runs[0], &runs[2]].into_iter().for_each(|run| seal(&site.root, &site.gateway, run));
    let gone = CutOff { runs: vec![runs[2]], seals: vec![runs[2]] };
    for last in [Which::Number(2), Which::Run(runs[1])] {
        let (until, cut_off) = site.end(Some(last), None).unwrap();
        assert_eq!((until.run.n, until.seal.n), (2, 1), "the seal of a run that does not count is none");
        assert_eq!(cut_off, gone);
    }
    let (until, cut_off) = site.end(Some(Which::Number(9)), None).unwrap();
    assert_eq!((until.run.n, until.seal.n, cut_off), (3, 2, CutOff::default()), "the newest below it");
    let refused = site.end(Some(Which::Run(RunId([9; 16]))), None).unwrap_err();
    assert!(matches!(refused, Error::NotThere { what: "run", .. }), "{refused}");
    let (until, _) = site.end(Some(Which::Number(0)), None).unwrap();
    assert_eq!((until.run.n, until.seal.n), (0, 0));
}

#[test]
fn of_two_runs_of_one_number_a_person_names_the_genuine_one() {
    let site = site();
    site.run(&site.gateway);
    let thief = site.thief(None);
    let (genuine, forged) = (site.run(&site.gateway), site.run(&thief));
    for last in [None, Some(Which::Number(2)), Some(Which::Number(7))] {
        let refused = site.end(last, None).unwrap_err();
        assert!(matches!(refused, Error::OneNumber { what: "run", n: 2, .. }), "{refused}");
        let said = refused.to_string();
        assert!(said.contains(&genuine.to_string()) && said.contains(&forged.to_string()), "{said}");
    }
    let (until, cut_off) = site.end(Some(Which::Run(genuine)), None).unwrap();
    assert_eq!((until.run.n, until.run.hash), (2, Some(site.note(&genuine, "run.json"))));
    assert_eq!(cut_off, CutOff { runs: vec![forged], seals: Vec::new() });
    let (until, _) = site.end(Some(Which::Number(1)), None).unwrap();
    assert_eq!(until.run.n, 1);
}

/// On a genuine run that was not sealed, a seal of a high number: all below it would count.
#[test]
fn a_planted_seal_does_not_raise_the_end_of_seals() {
    let site = site();
    let runs: Vec<_> = (0..3).map(|_| site.run(&site.gateway)).collect();
    seal(&site.root, &site.gateway, &runs[0]);
    let thief = site.thief(Some(49));
    seal(&site.root, &thief, &runs[1]);
    let last = Some(Which::Number(3));
    let refused = site.end(last, None).unwrap_err();
    assert!(matches!(refused, Error::LooseSeal { n: 50, run, last: 1 } if run == runs[1]), "{refused}");
    for genuine in [Which::Number(1), Which::Run(runs[0])] {
        let (until, cut_off) = site.end(last, Some(genuine)).unwrap();
        assert_eq!((until.seal.n, until.seal.hash), (1, Some(site.note(&runs[0], "seal.note"))));
        assert_eq!(cut_off, CutOff { runs: Vec::new(), seals: vec![runs[1]] });
    }
    let refused = site.end(last, Some(Which::Number(2))).unwrap_err();
    assert!(matches!(refused, Error::NotThere { what: "seal", .. }), "{refused}");
}

#[test]
fn of_two_seals_that_follow_the_same_one_a_person_names_the_genuine_one() {
    let site = site();
    let runs: Vec<_> = (0..3).map(|_| site.run(&site.gateway)).collect();
    seal(&site.root, &site.gateway, &runs[0]);
    let thief = site.thief(None);
    seal(&site.root, &site.gateway, &runs[1]);
    seal(&site.root, &thief, &runs[2]);
    for which in [None, Some(Which::Number(2))] {
        let refused = site.end(None, which).unwrap_err();
        assert!(matches!(refused, Error::OneNumber { what: "seal", n: 2, .. }), "{refused}");
    }
    let (until, cut_off) = site.end(None, Some(Which::Run(runs[1]))).unwrap();
    assert_eq!(until.seal.hash, Some(site.note(&runs[1], "seal.note")));
    assert_eq!(cut_off, CutOff { runs: Vec::new(), seals: vec![runs[2]] });
}

/// A run names the newest seal before it: that is as genuine as the run.
#[test]
fn a_seal_whose_run_is_elsewhere_still_counts() {
    let site = site();
    let first = site.run(&site.gateway);
    seal(&site.root, &site.gateway, &first);
    let hash = site.note(&first, "seal.note");
    let second = site.run(&site.gateway);
    take_away(&site.root, &first);
    for which in [None, Some(Which::Number(1))] {
        let (until, _) = site.end(None, which).unwrap();
        assert_eq!((until.seal.n, until.seal.hash), (1, Some(hash)));
    }
    seal(&site.root, &site.gateway, &second);
    assert_eq!(site.end(None, None).unwrap().0.seal.n, 2);
}
