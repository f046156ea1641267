use runvault_format::descriptor::StateRef;
use runvault_format::envelope_file::EnvelopeName;
use runvault_format::ids::{Digest, IdentityId, RunId};
use runvault_format::kept::Kept;
use runvault_format::keys::RunKey;
use runvault_format::note::Note;
use runvault_vault::authority::Gateway;

use super::*;
use crate::chain::history::history;
use crate::confirm::confirm;
use crate::gateway::StateFolder;
use crate::key_files::{self, NewLock};
use crate::pins;
use crate::quorum::tests::Vault;
use crate::testing::{copy, custody, enrolled, get, killed_at, make_run, put, run_dir, seal_at};

/// A vault of three that has rotated, and what two of its custodians have after their drill.
struct Burnt {
    vault: Vault,
    runs: Vec<(RunId, RunKey)>,
    files: Vec<KeyFile>,
    before: Chain,
}

impl Burnt {
    fn new() -> Self {
        let vault = Vault::of(2, 3);
        let gateway = vault.gateway();
        let mut runs = vault.runs(&gateway, 2);
        vault.agree(Operation::Rotate { epoch: 2 });
        runs.extend(vault.runs(&gateway, 1));
        let before = vault.chain();
        let files = vault.people.iter().map(|one| drilled(&vault.root, one)).collect();
        Self { vault: Vault { root: without_custody(&vault.root), ..vault }, runs, files, before }
    }

    fn given(&self, who: &[usize]) -> Vec<Given> {
        who.iter().map(|who| given(&self.files[*who], &self.vault.people[*who])).collect()
    }

    fn among(&self, who: &[usize]) -> Result<Found> {
        Found::among(&self.vault.root, &self.given(who), None)
    }

    fn recover(&self, root: &Arc<dyn Dir>, who: &[usize]) -> Result<Recovered> {
        recover_at(root, &self.given(who))
    }
}

fn given(file: &KeyFile, custodian: &Identity) -> Given {
    // As the file comes back from the disk.
    let file = KeyFile::parse(&file.to_bytes().unwrap()).unwrap();
    Given { file, custodian: custodian.again().unwrap() }
}

fn drilled(root: &Arc<dyn Dir>, custodian: &Identity) -> KeyFile {
    let chain = Chain::load(root).unwrap();
    let file = key_files::lock(custodian, &NewLock::None, None).unwrap();
    confirm(root, &chain, custodian, &file, false).unwrap().file
}

fn recover_at(root: &Arc<dyn Dir>, given: &[Given]) -> Result<Recovered> {
    let found = Found::among(root, given, None)?;
    let agrees = |view: &Arc<dyn Dir>, chain: &Chain| {
        assert_eq!(Chain::load(view)?.head(), chain.head());
        Ok(())
    };
    recover(root, &Place::within(root), &found, given, "the server burnt", agrees, &mut |_, _| {})
}

fn without_custody(root: &Arc<dyn Dir>) -> Arc<dyn Dir> {
    let root = copy(root);
    root.rename(b"custody", &*root, b"lost", Rename::Over).unwrap();
    root
}

#[test]
fn any_two_of_three_make_it_anew_and_the_vault_goes_on() {
    let burnt = Burnt::new();
    for who in [[0, 1], [2, 0]] {
        let root = copy(&burnt.vault.root);
        let state = tempfile::tempdir().unwrap();
        let done = burnt.recover(&root, &who).unwrap();
        assert_eq!((done.runs.already, done.runs.failed.as_slice()), (3, &[][..]));
        let (chain, n) = (Chain::load(&root).unwrap(), burnt.before.head().n);
        assert_eq!(
            (chain.head().n, chain.recovered(), chain.vault_id()),
            (n + 1, Some(n + 1), burnt.before.vault_id())
        );
        assert_eq!(chain.line_hash(n), Some(burnt.before.head().hash), "the trail before is whole");
        let line = history(&root).unwrap().entries.pop().unwrap();
        assert!(line.what.contains("made anew from the key files of"), "{}", line.what);
        assert_eq!((line.reason.as_str(), line.approved.len()), ("the server burnt", 2));
        // Usable in full: whoever saw the chain before goes on, any two open all, and a new key is made.
        pins::check_and_advance(state.path(), &root, &chain).unwrap();
        let vault = Vault {
            root: root.clone(),
            people: burnt.vault.people.iter().map(|p| p.again().unwrap()).collect(),
        };
        vault.all_open(&[0, 2], &burnt.runs);
        assert_eq!(vault.agree(Operation::Rotate { epoch: 3 }).epoch(), 3);
        vault.all_open(&[1, 2], &burnt.runs);
        let refused = check_place(&root, &Place::within(&root)).unwrap_err();
        assert!(matches!(refused, Error::CustodyThere), "{refused}");
    }
}

#[test]
fn a_machine_that_saw_more_says_so() {
    let vault = Vault::of(2, 3);
    vault.gateway();
    let files: Vec<KeyFile> = vault.people.iter().map(|one| drilled(&vault.root, one)).collect();
    vault.agree(Operation::Rotate { epoch: 2 });
    let state = tempfile::tempdir().unwrap();
    pins::check_and_advance(state.path(), &vault.root, &vault.chain()).unwrap();
    let root = without_custody(&vault.root);
    let given: Vec<Given> = [0, 1].iter().map(|i| given(&files[*i], &vault.people[*i])).collect();
    let found = Found::among(&root, &given, None).unwrap();
    let look = |view: &Arc<dyn Dir>, chain: &Chain| pins::check_and_advance(state.path(), view, chain);
    let place = Place::within(&root);
    let before = crate::layout::names(&root, ".").unwrap().len();
    let refused = recover(&root, &place, &found, &given, "", look, &mut |_, _| {}).unwrap_err();
    assert!(matches!(refused, Error::RolledBack { pinned: 2, found: 1 }), "{refused}");
    assert_eq!(crate::layout::names(&root, ".").unwrap().len(), before, "nothing is left");
    recover(&root, &place, &found, &given, "", |_, _| Ok(()), &mut |_, _| {}).unwrap();
    let refused = pins::check_and_advance(state.path(), &root, &Chain::load(&root).unwrap()).unwrap_err();
    assert!(matches!(refused, Error::Forked { line: 2 }), "{refused}");
}

/// A vault of two of three after their drill, its gateway, and a run that knows no more than the key files do.
struct Drilled {
    vault: Vault,
    gateway: StateFolder,
    run: RunId,
    given: Vec<Given>,
}

impl Drilled {
    fn new() -> Self {
        let vault = Vault::of(2, 3);
        let gateway = vault.gateway();
        let run = vault.runs(&gateway, 1)[0].0;
        let drilled = |one: &Identity| given(&drilled(&vault.root, one), one);
        let given = vault.people.iter().take(2).map(drilled).collect();
        Self { vault, gateway, run, given }
    }

    /// The state of line 2, which no key file has seen.
    fn line_2(&self) -> StateRef {
        let (_, reader) = crate::quorum::tests::reader("later", false);
        self.vault.agree(Operation::AddReader { reader }).state_ref()
    }

    fn among(&self, accepted: Option<u64>) -> Result<Found> {
        Found::among(&self.vault.root, &self.given, accepted)
    }

    /// What is named of the store beyond line 1; accepted by a person it is passed over.
    fn refused(&self) -> (String, String) {
        let accepted = self.among(Some(1)).unwrap();
        assert_eq!(accepted.passed_over().len(), 1);
        match self.among(None).unwrap_err() {
            Error::SeenMore { who, seen, found: 1 } => (who, seen),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn what_the_stores_runs_name_beyond_the_copies_is_not_passed_over_in_silence() {
    let burnt = Drilled::new();
    assert!(burnt.among(None).unwrap().passed_over().is_empty());
    // A run that was made after the drill, by a gateway that the copies know.
    burnt.line_2();
    let (later, _) = burnt.vault.runs(&burnt.gateway, 1)[0];
    let (who, seen) = burnt.refused();
    assert!(who.starts_with(&format!("runs/{later}/run.json, signed by")), "{who}");
    assert_eq!(seen, "line 2 of the audit log");
    assert!(matches!(burnt.among(Some(2)), Err(Error::SeenMore { .. })), "another line was accepted");
    // One that its gateway did not sign is no witness.
    let run_json = get(&run_dir(&burnt.vault.root, &later), "run.json");
    let mut forged = run_json.clone();
    *forged.iter_mut().rev().nth(4).unwrap() ^= 1;
    put(&run_dir(&burnt.vault.root, &later), "run.json", &forged);
    assert!(burnt.among(None).is_ok());
    // On its way into the place of another one it is.
    let runs = burnt.vault.root.open_dir(b"runs").unwrap();
    put(&run_dir(&burnt.vault.root, &later), "run.json", &run_json);
    runs.rename(later.to_string().as_bytes(), &*runs, format!(".new-{later}").as_bytes(), Rename::Over)
        .unwrap();
    assert!(burnt.refused().0.starts_with(&format!("runs/.new-{later}/run.json")));

    // A run of before the drill, sealed after it.
    let burnt = Drilled::new();
    let state = burnt.line_2();
    seal_at(&burnt.vault.root, &burnt.gateway, &burnt.run, state);
    let (who, seen) = burnt.refused();
    assert!(
        who.starts_with(&format!("runs/{}/seal/seal.note", burnt.run)) && seen.contains("line 2"),
        "{who}"
    );
    // By what it names another history is told too.
    let burnt = Drilled::new();
    seal_at(&burnt.vault.root, &burnt.gateway, &burnt.run, StateRef { n: 1, hash: state.hash });
    assert_eq!(burnt.refused().1, "another line 1 of the audit log");

    // A machine that was let in after it, or anybody who says so: nobody here can tell. It is told, and no more; what one of
    // the copies' signers signed is refused all the same.
    let unproven = |burnt: &Drilled| {
        let found = burnt.among(None).unwrap();
        found.unproven().iter().map(Error::to_string).collect::<Vec<_>>()
    };
    let burnt = Drilled::new();
    assert_eq!(unproven(&burnt), Vec::<String>::new());
    let gateway = burnt.vault.gateway();
    let (theirs, _) = burnt.vault.runs(&gateway, 1)[0];
    for place in [theirs.to_string(), format!(".new-{theirs}")] {
        let told = format!(
            "runs/{place}/run.json, signed by {}, whom the copies do not know, has seen line 2",
            gateway.id()
        );
        assert!(unproven(&burnt)[0].starts_with(&told), "{:?}", unproven(&burnt));
        let runs = burnt.vault.root.open_dir(b"runs").unwrap();
        runs.rename(place.as_bytes(), &*runs, format!(".new-{theirs}").as_bytes(), Rename::Over).unwrap();
    }
    burnt.vault.runs(&burnt.gateway, 1);
    assert!(burnt.refused().0.contains(&burnt.gateway.id().to_string()));
    // A run that was sealed to a later vault key, which nobody signs: likewise, whoever put the newest there.
    let burnt = Drilled::new();
    burnt.vault.agree(Operation::Rotate { epoch: 2 });
    let place = format!("runs/{}/keys", burnt.run);
    let told = |e: u32| format!("whoever wrote {place}/vault-{e} has seen vault key {e}; ");
    assert!(unproven(&burnt)[0].starts_with(&told(2)));
    put(&run_dir(&burnt.vault.root, &burnt.run).open_dir(b"keys").unwrap(), "vault-77", b"");
    assert!(unproven(&burnt)[0].starts_with(&told(77)));
    burnt.vault.runs(&burnt.gateway, 1);
    assert_eq!(burnt.refused().1, "line 2 of the audit log");
    // Another vault's runs say nothing of this one.
    let burnt = Drilled::new();
    let other = Burnt::new();
    let (run, runs) = (other.runs[2].0, burnt.vault.root.open_dir(b"runs").unwrap());
    runs.create_dir(run.to_string().as_bytes(), 0o755).unwrap();
    let note = get(&run_dir(&other.vault.root, &run), "run.json");
    put(&run_dir(&burnt.vault.root, &run), "run.json", &note);
    assert!(burnt.among(None).is_ok());
}

/// Lines that said whom an envelope is for may be lost with custody/: of runs that were made before that. Of those that are
/// made since none is.
#[test]
fn an_envelope_for_nobody_is_passed_over_in_runs_of_before_alone() {
    let burnt = Drilled::new();
    let made = |root: &Arc<dyn Dir>, run: &RunId| {
        let note = get(&run_dir(root, run), "run.json");
        RunDescriptor::parse_text(Note::parse(&note).unwrap().text).unwrap().state
    };
    let before = (burnt.run, made(&burnt.vault.root, &burnt.run));
    burnt.line_2();
    let (lost, _) = burnt.vault.runs(&burnt.gateway, 1)[0];
    let lost = (lost, made(&burnt.vault.root, &lost));
    let root = without_custody(&burnt.vault.root);
    let found = Found::among(&root, &burnt.given, Some(1)).unwrap();
    recover(&root, &Place::within(&root), &found, &burnt.given, "", |_, _| Ok(()), &mut |_, _| {}).unwrap();
    let people = burnt.vault.people.iter().map(|one| one.again().unwrap()).collect();
    let vault = Vault { root: root.clone(), people };
    let (since, _) = vault.runs(&burnt.gateway, 1)[0];
    let since = (since, made(&root, &since));
    assert_eq!([before.1.n, lost.1.n, since.1.n], [1, 2, 2], "two states of one number");
    let stranger = IdentityId([7; 16]);
    let planted = [EnvelopeName::Vault(77), EnvelopeName::Reader(stranger), EnvelopeName::Worker(stranger)];
    let all = [&planted[..], &[EnvelopeName::Vault(1)]].concat();
    let chain = vault.chain();
    let unknown = |(run, made): &(RunId, StateRef)| chain.unknown_recipients(run, made, &all);
    assert_eq!([&before, &lost, &since].map(unknown), [vec![], vec![], planted.to_vec()]);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let burnt = Burnt::new();
    let root = &burnt.vault.root;
    let among = |given: &[Given]| Found::among(root, given, None).unwrap_err();
    assert!(matches!(burnt.among(&[0]).unwrap_err(), Error::TooFewKeys { given: 1, needed: 2 }));
    assert!(
        matches!(burnt.among(&[0, 1, 0]).unwrap_err(), Error::KeyTwice { key } if key.contains("custodian-0"))
    );
    let with = |one: Given| [burnt.given(&[0]), vec![one]].concat_given();
    let other = Burnt::new();
    let refused = among(&with(given(&other.files[1], &other.vault.people[1])));
    assert!(matches!(refused, Error::KeysOfTwoVaults { .. }), "{refused}");
    let stranger = Identity::generate("stranger").unwrap();
    let plain = |identity: &Identity| key_files::lock(identity, &NewLock::None, None).unwrap();
    let refused = among(&with(given(&plain(&stranger), &stranger)));
    assert!(matches!(refused, Error::WrongKey { ref given, .. } if given.contains("stranger")), "{refused}");

    // What another one has seen beyond the copies, or otherwise.
    let second = &burnt.vault.people[1];
    let kept = burnt.files[1].kept().unwrap().clone();
    let changed = |kept: Kept| given(&plain(second).keeping(kept, second).unwrap(), second);
    let (mut later, mut forked, mut share) = (kept.clone(), kept.clone(), kept.clone());
    later.head.n += 1;
    let refused = among(&with(changed(later.clone())));
    assert!(
        matches!(refused, Error::SeenMore { found: 2, ref who, ref seen } if who.contains("custodian-1") && seen.contains("line 3")),
        "{refused}"
    );
    let accepted = Found::among(root, &with(changed(later)), Some(2)).unwrap();
    assert!(accepted.seen().iter().any(|seen| seen.n == 3) && accepted.passed_over().len() == 1);
    forked.head.hash = Digest([9; 32]);
    assert!(matches!(among(&with(changed(forked))), Error::Forked { line: 2 }));
    share.share.as_mut().unwrap().share.x += 1;
    let refused = among(&with(changed(share)));
    assert!(
        matches!(refused, Error::WrongShare { ref custodian } if custodian.contains("custodian-1")),
        "{refused}"
    );
    // An older file, without a copy, counts beside one that has it; alone there is nothing.
    assert!(Found::among(root, &with(given(&plain(second), second)), None).is_ok());
    let bare: Vec<Given> = burnt.vault.people.iter().map(|one| given(&plain(one), one)).collect();
    assert!(matches!(among(&bare), Error::NoCopy));

    // A copy proves itself.
    let good = burnt.files[0].copy().unwrap().clone();
    let with_copy = |copy| {
        let first = given(&burnt.files[0].clone().with_copy(Some(copy)), &burnt.vault.people[0]);
        among(&[vec![first], burnt.given(&[1])].concat_given())
    };
    let mut without_a_line = good.clone();
    without_a_line.lines.remove(0);
    let mut changed = good.clone();
    changed.lines[1].line = changed.lines[1].line.replace("\"epoch\":2", "\"epoch\":3");
    let mut other_state = good;
    other_state.first = other_state.first.replace("\"quorum\":2", "\"quorum\":1");
    assert!(matches!(with_copy(without_a_line), Error::ChainBroken { line: 1, .. }));
    assert!(matches!(with_copy(changed), Error::ChainBroken { line: 2, .. }));
    assert!(matches!(with_copy(other_state), Error::Damaged { .. }));

    // Another store, or none.
    let elsewhere = copy(&other.vault.root);
    let refused = burnt.recover(&elsewhere, &[0, 1]).unwrap_err();
    assert!(matches!(refused, Error::KeysOfTwoVaults { .. }), "{refused}");
    let nothing = runvault_store::doubles::memory::MemoryDir::root();
    assert!(matches!(burnt.recover(&nothing, &[0, 1]), Err(Error::NotAVault { .. })));
}

trait ConcatGiven {
    fn concat_given(self) -> Vec<Given>;
}

impl<const N: usize> ConcatGiven for [Vec<Given>; N] {
    fn concat_given(self) -> Vec<Given> {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn killed_at_any_call_it_is_done_again() {
    let burnt = Burnt::new();
    // Also the file that names the vault may be lost.
    burnt.vault.root.unlink(b"vault.json").unwrap();
    let given = burnt.given(&[0, 1]);
    let (mut again, mut stood) = (0, 0);
    for n in 0.. {
        let root = copy(&burnt.vault.root);
        let Some(_) = killed_at(&root, n, |root| recover_at(root, &given)) else { break };
        match recover_at(&root, &given) {
            Ok(done) => {
                again += 1;
                assert_eq!(done.runs.failed, []);
            }
            Err(Error::CustodyThere) => stood += 1,
            Err(other) => panic!("call {n}: {other}"),
        }
        let chain = Chain::load(&root).unwrap();
        assert_eq!(chain.recovered(), Some(burnt.before.head().n + 1), "call {n}");
        assert!(custody(&root).stat(b"locks").is_ok());
        let people = burnt.vault.people.iter().map(|one| one.again().unwrap()).collect();
        Vault { root, people }.all_open(&[1, 2], &burnt.runs);
    }
    assert!(again > 10 && stood > 3, "{again} {stood}");
}

#[test]
fn a_single_owner_needs_the_one_file() {
    let (root, owner, mut chain) = crate::testing::vault();
    let gateway = enrolled(&root, &mut chain, &owner);
    let runs: Vec<_> = (0..2).map(|_| make_run(&root, &chain, &gateway)).collect();
    crate::rotate::rotate(&root, &chain, &owner, &mut |_, _| {}).unwrap();
    let file = key_files::lock(&owner, &NewLock::None, Some(chain.vault_id())).unwrap();
    let file = file.with_copy(Some(Chain::load(&root).unwrap().copy(&root).unwrap()));
    let root = without_custody(&root);
    let done = recover_at(&root, &[given(&file, &owner)]).unwrap();
    assert_eq!((done.runs.already, done.chain.recovered()), (runs.len() as u64, Some(3)));
    crate::rotate::rotate(&root, &done.chain, &owner, &mut |_, _| {}).unwrap();
}
