//! Three custodians, two of whom have to agree.

use std::sync::Arc;

use runvault_format::approval_file::ApprovalFile;
use runvault_format::custody_state::{Custodian, ReaderEntry};
use runvault_format::ids::{Digest, IdentityId, RunId};
use runvault_format::keys::RunKey;
use runvault_format::operation::Operation;
use runvault_format::removed::{GoneRun, RemovedSeal};
use runvault_store::backend::Dir;
use runvault_store::doubles::memory::MemoryDir;
use runvault_vault::authority::{Authority, Gateway, Lost};
use runvault_vault::runs;

use super::approve::approve;
use super::carry_out::carry_out;
use super::execute::{execute, resume};
use super::in_words;
use super::propose::propose;
use super::request_file::RequestFile;
use crate::authority::Acting;
use crate::chain::Chain;
use crate::epochs::EpochKeys;
use crate::gateway::StateFolder;
use crate::identity::Identity;
use crate::init::NewVault;
use crate::state_folder::Folder;
use crate::testing::{copy, custody, envelopes, get, killed_at, make_run, reader_entry};
use crate::{Error, Result};

pub(crate) struct Vault {
    pub(crate) root: Arc<dyn Dir>,
    pub(crate) people: Vec<Identity>,
}

impl Vault {
    /// `quorum` of so many.
    pub(crate) fn of(quorum: u8, custodians: usize) -> Self {
        let root = MemoryDir::root();
        let people: Vec<_> =
            (0..custodians).map(|i| Identity::generate(&format!("custodian-{i}")).unwrap()).collect();
        let custodians = people.iter().map(|one| Custodian::new(&one.label, &one.public())).collect();
        NewVault::of_custodians(custodians, quorum).unwrap().write_shared(&root).unwrap();
        Self { root, people }
    }

    pub(crate) fn chain(&self) -> Chain {
        Chain::load(&self.root).unwrap()
    }

    fn propose(&self, op: Operation) -> (RequestFile, Identity) {
        let (file, executor) = propose(&self.chain(), op, "a test", 3600).unwrap();
        (RequestFile::parse(&file.to_bytes().unwrap()).unwrap(), executor)
    }

    fn yes(&self, who: usize, file: &RequestFile) -> ApprovalFile {
        let (approval, _) = approve(file, &self.people[who], None, false).unwrap();
        ApprovalFile::parse(approval.to_text().unwrap().as_bytes()).unwrap()
    }

    /// Agreed on by the first two, executed and carried out.
    pub(crate) fn agree(&self, op: Operation) -> Chain {
        self.agree_on(op, false)
    }

    /// The same of a gateway's end, though it went on.
    fn agree_cutting(&self, op: Operation) -> Chain {
        self.agree_on(op, true)
    }

    fn agree_on(&self, op: Operation, cut: bool) -> Chain {
        let (file, executor) = self.propose(op);
        let approvals: Vec<_> =
            (0..usize::from(file.before.quorum)).map(|who| self.yes(who, &file)).collect();
        let done = execute(&self.root, &self.chain(), &file, &executor, &approvals, cut).unwrap();
        let summary = carry_out(&self.root, done, &file.request.op, &mut |_, _| {}).unwrap();
        assert_eq!(summary.failed, []);
        self.chain()
    }

    /// The vault's keys from the shares of these custodians, as a request that releases them gives them.
    fn keys(&self, who: &[usize]) -> Result<EpochKeys> {
        let chain = self.chain();
        let share = |who: &usize| {
            Ok((self.people[*who].id(), crate::epochs::open_share(&chain, &self.people[*who])?))
        };
        EpochKeys::combine(chain.state(), &who.iter().map(share).collect::<Result<Vec<_>>>()?)
    }

    pub(crate) fn gateway(&self) -> StateFolder {
        let chain = self.chain();
        let gateway = StateFolder::on(Folder::on(MemoryDir::root()), chain.vault_id()).unwrap();
        let op = Operation::EnrolGateway { gateway: chain.machine(&gateway.public(None)) };
        let (file, executor) = propose(&chain, op, "", 3600).unwrap();
        let approvals = [self.yes(0, &file), self.yes(1, &file)];
        assert!(approvals.iter().all(|approval| approval.env.is_none()), "no share for an enrolment");
        execute(&self.root, &chain, &file, &executor, &approvals, false).unwrap();
        gateway.settle(&self.root).unwrap();
        gateway
    }

    pub(crate) fn runs(&self, gateway: &StateFolder, count: usize) -> Vec<(RunId, RunKey)> {
        (0..count).map(|_| make_run(&self.root, &self.chain(), gateway)).collect()
    }

    pub(crate) fn all_open(&self, who: &[usize], runs: &[(RunId, RunKey)]) {
        let acting = Acting::with_keys(self.chain(), self.keys(who).unwrap());
        for (run, key) in runs {
            let opened = acting.open_run(run, &envelopes(&self.root, run)).unwrap().unwrap();
            assert_eq!(opened.0.expose(), key.0.expose());
        }
    }
}

pub(crate) fn reader(label: &str, standing: bool) -> (Identity, ReaderEntry) {
    let identity = Identity::generate(label).unwrap();
    let entry = reader_entry(&identity, standing, None);
    (identity, entry)
}

fn bytes_of_custody(root: &Arc<dyn Dir>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let custody = custody(root);
    let mut names = crate::layout::names(&custody, "custody").unwrap();
    names.sort();
    let files = names.into_iter().filter(|name| name != b"locks");
    files.map(|name| (name.clone(), get(&custody, std::str::from_utf8(&name).unwrap()))).collect()
}

#[test]
fn two_of_three_rotate_and_any_two_open() {
    let vault = Vault::of(2, 3);
    let gateway = vault.gateway();
    let runs = vault.runs(&gateway, 4);
    for pair in [[0, 1], [0, 2], [1, 2]] {
        vault.all_open(&pair, &runs);
    }
    assert!(matches!(vault.keys(&[0]), Err(Error::Crypto(runvault_crypto::Error::Threshold))));
    assert!(matches!(Acting::opened(vault.chain(), &vault.people[0]), Err(Error::NeedsQuorum { .. })));
    let chain = vault.agree(Operation::Rotate { epoch: 2 });
    assert_eq!((chain.epoch(), chain.head().n), (2, 2));
    vault.all_open(&[2, 1], &runs);
    for (run, _) in &runs {
        assert_eq!(
            envelopes(&vault.root, run).iter().map(|e| e.name.as_str()).collect::<Vec<_>>(),
            ["vault-2"]
        );
    }
}

#[test]
fn what_is_not_agreed_on_changes_no_byte() {
    let vault = Vault::of(2, 3);
    let (file, executor) = vault.propose(Operation::Rotate { epoch: 2 });
    let (other, _) = vault.propose(Operation::Rotate { epoch: 2 });
    let elsewhere = Vault::of(2, 3);
    let before = bytes_of_custody(&vault.root);
    let refused = |file: &RequestFile, executor: &Identity, approvals: &[ApprovalFile]| {
        let refused = execute(&vault.root, &vault.chain(), file, executor, approvals, false).unwrap_err();
        assert_eq!(bytes_of_custody(&vault.root), before, "{refused}");
        refused
    };
    let (one, two) = (vault.yes(0, &file), vault.yes(1, &file));
    let few = refused(&file, &executor, std::slice::from_ref(&one));
    assert!(matches!(few, Error::TooFewApprovals { given: 1, needed: 2 }), "{few}");
    let said = |error: Error| error.to_string();
    assert!(said(refused(&file, &executor, &[one.clone(), one.clone()])).contains("is there twice"));
    assert!(
        said(refused(&file, &executor, &[one.clone(), vault.yes(1, &other)])).contains("another request")
    );
    let stranger = Identity::generate("stranger").unwrap();
    let mut forged = two.clone();
    forged.approval.custodian = stranger.id();
    assert!(said(refused(&file, &executor, &[one.clone(), forged])).contains("nobody who is a custodian"));
    let mut changed = two.clone();
    changed.approval.sig[0] ^= 1;
    assert!(said(refused(&file, &executor, &[one.clone(), changed])).contains("not signed"));
    let bare = ApprovalFile {
        approval: runvault_format::request::Approval::sign(
            vault.people[1].id(),
            &vault.people[1].keys.sign,
            &file.hash().unwrap(),
            None,
        ),
        env: None,
        ..two.clone()
    };
    assert!(said(refused(&file, &executor, &[one.clone(), bare])).contains("share"));
    assert!(matches!(refused(&file, &stranger, &[one.clone(), two.clone()]), Error::OtherExecutor));
    let (of_other, its) = elsewhere.propose(Operation::Rotate { epoch: 2 });
    assert!(matches!(refused(&of_other, &its, &[]), Error::RequestOfOtherVault { .. }));
    assert!(matches!(resume(&vault.root, &vault.chain(), &file, &executor, &[]), Err(Error::RequestNotUsed)));
    let (late, its) = propose(&vault.chain(), Operation::Rotate { epoch: 2 }, "", 0).unwrap();
    let answers = [vault.yes(0, &late), vault.yes(1, &late)];
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(matches!(refused(&late, &its, &answers), Error::Expired { .. }));
    assert!(matches!(approve(&late, &vault.people[0], None, false), Err(Error::Expired { .. })));

    execute(&vault.root, &vault.chain(), &file, &executor, &[one.clone(), two.clone()], false).unwrap();
    let used = execute(&vault.root, &vault.chain(), &file, &executor, &[one, two], false).unwrap_err();
    assert!(matches!(used, Error::RequestUsed { line: 1 }), "{used}");
    let (file, executor) = (other.clone(), executor);
    let overtaken = execute(&vault.root, &vault.chain(), &file, &executor, &[], false).unwrap_err();
    assert!(matches!(overtaken, Error::OtherExecutor), "{overtaken}");
}

#[test]
fn a_request_that_another_overtook_is_refused() {
    let vault = Vault::of(2, 3);
    let (first, its) = vault.propose(Operation::Rotate { epoch: 2 });
    let answers = [vault.yes(0, &first), vault.yes(2, &first)];
    vault.agree(Operation::ChangeQuorum { quorum: 3 });
    let refused = execute(&vault.root, &vault.chain(), &first, &its, &answers, false).unwrap_err();
    assert!(matches!(refused, Error::Overtaken { line: 0, newest: 1 }), "{refused}");
}

/// The share goes to the key of this request alone, and a wrong one is named.
#[test]
fn shares_are_for_one_executor_and_of_the_newest_state() {
    let vault = Vault::of(2, 3);
    let gateway = vault.gateway();
    let (file, executor) = vault.propose(Operation::Rotate { epoch: 2 });
    let (one, two) = (vault.yes(0, &file), vault.yes(1, &file));
    let text = runvault_format::info::info(
        runvault_format::info::Purpose::Approval,
        &vault.chain().vault_id(),
        &runvault_format::info::Scope::Request(file.hash().unwrap()),
        &runvault_format::info::Recipient::Identity(executor.id()),
    );
    let env = one.env.as_deref().unwrap();
    runvault_format::envelope_file::open(&executor.keys.kem, &text, env).unwrap();
    for other in vault.people.iter().chain([&Identity::generate("executor").unwrap()]) {
        assert!(runvault_format::envelope_file::open(&other.keys.kem, &text, env).is_err());
    }
    // The share of an older epoch, signed and sealed as it should be.
    let mut older = file.clone();
    let chain = vault.agree(Operation::Rotate { epoch: 2 });
    let (newer, its) = propose(&chain, Operation::Rotate { epoch: 3 }, "", 3600).unwrap();
    older.request = newer.request.clone();
    older.before.epochs = file.before.epochs.clone();
    let (stale, _) = approve(&older, &vault.people[1], None, false).unwrap();
    assert!(RequestFile::parse(&older.to_bytes().unwrap()).is_err(), "nobody gets such a file from us");
    let refused =
        execute(&vault.root, &chain, &newer, &its, &[vault.yes(0, &newer), stale], false).unwrap_err();
    assert!(
        matches!(&refused, Error::WrongShare { custodian } if custodian.contains("custodian-1")),
        "{refused}"
    );
    drop((two, gateway));
}

#[test]
fn custodians_come_and_go() {
    let mut vault = Vault::of(2, 3);
    let gateway = vault.gateway();
    let runs = vault.runs(&gateway, 2);
    let dave = Identity::generate("dave").unwrap();
    let chain = vault.agree(Operation::AddCustodian { custodian: Custodian::new("dave", &dave.public()) });
    vault.people.push(dave);
    assert_eq!((chain.epoch(), chain.quorum()), (1, (2, 4)), "the key stays");
    vault.all_open(&[3, 0], &runs);
    let old_shares = vault.keys(&[0, 1]).unwrap();

    let gone = vault.people.remove(0);
    let (file, executor) = vault.propose(Operation::RemoveCustodian { custodian: gone.id() });
    let answers = [vault.yes(0, &file), vault.yes(2, &file)];
    let done = execute(&vault.root, &vault.chain(), &file, &executor, &answers, false).unwrap();
    carry_out(&vault.root, done, &file.request.op, &mut |_, _| {}).unwrap();
    let chain = vault.chain();
    assert_eq!((chain.epoch(), chain.quorum()), (2, (2, 3)));
    vault.all_open(&[0, 2], &runs);
    assert!(crate::epochs::open_share(&chain, &gone).is_err());
    let (late, _) = make_run(&vault.root, &chain, &gateway);
    let old = Acting::with_keys(chain, old_shares);
    assert!(
        old.open_run(&late, &envelopes(&vault.root, &late)).unwrap().is_none(),
        "old shares open nothing new"
    );

    for refused in [
        Operation::RemoveCustodian { custodian: gone.id() },
        Operation::ChangeQuorum { quorum: 4 },
        Operation::ChangeQuorum { quorum: 2 },
        Operation::ChangeQuorum { quorum: 0 },
        Operation::AddCustodian { custodian: Custodian::new("x", &vault.people[0].public()) },
        Operation::Grant { reader: gone.id(), runs: vec![late] },
    ] {
        let refused = propose(&vault.chain(), refused, "", 3600).unwrap_err();
        assert!(matches!(refused, Error::CannotBe { .. }), "{refused}");
    }
}

#[test]
fn readers_get_what_is_granted_and_lose_it() {
    let vault = Vault::of(2, 2);
    let gateway = vault.gateway();
    let (bob, entry) = reader("bob", false);
    let (eve, standing) = reader("eve", true);
    let runs = vault.runs(&gateway, 3);
    vault.agree(Operation::AddReader { reader: entry.clone() });
    vault.agree(Operation::AddReader { reader: standing });
    let reads = |who: &Identity, run: &RunId| {
        let acting = Acting::opened(vault.chain(), who).unwrap();
        acting.open_run(run, &envelopes(&vault.root, run)).unwrap().is_some()
    };
    let later = vault.runs(&gateway, 1)[0].0;
    assert!(reads(&eve, &later) && !reads(&bob, &later) && !reads(&eve, &runs[0].0));
    let mut granted = vec![runs[0].0, runs[2].0];
    granted.sort();
    vault.agree(Operation::Grant { reader: bob.id(), runs: granted.clone() });
    assert!(reads(&bob, &runs[0].0) && !reads(&bob, &runs[1].0) && reads(&bob, &runs[2].0));
    // A rotation leaves readers' envelopes where they are.
    vault.agree(Operation::Rotate { epoch: 2 });
    assert!(reads(&bob, &runs[0].0) && reads(&eve, &later));
    vault.agree(Operation::Revoke { reader: bob.id(), runs: vec![runs[0].0] });
    assert!(!reads(&bob, &runs[0].0) && reads(&bob, &runs[2].0));
    vault.agree(Operation::AddReader { reader: ReaderEntry { standing: true, ..entry } });
    vault.agree(Operation::RemoveReader { reader: bob.id() });
    assert!(matches!(Acting::opened(vault.chain(), &bob), Err(Error::WrongKey { .. })));
    for run in runs::list(&vault.root).unwrap() {
        let names = envelopes(&vault.root, &run);
        assert!(names.iter().all(|file| !file.name.contains(&bob.id().to_string())), "{run}");
    }
}

/// What a mount that is up asks: who it is to the newest line.
#[test]
fn an_open_vault_stands_as_the_newest_line_says() {
    let vault = Vault::of(2, 3);
    let gateway = vault.gateway();
    let runs = vault.runs(&gateway, 2);
    let (bob, entry) = reader("bob", false);
    vault.agree(Operation::AddReader { reader: entry.clone() });
    let acting = Acting::open(&vault.root, vault.chain(), &bob).unwrap();
    let looked = || {
        acting.refresh();
        let standing = acting.standing();
        let may = runs.iter().map(|(run, _)| acting.may_open(run)).collect::<Vec<_>>();
        (standing.line, standing.lost, may)
    };
    let (line, lost, may) = looked();
    assert_eq!((lost, may), (None, vec![true, true]), "nothing was taken, and nothing given");
    let first = runs[0].0;
    vault.agree(Operation::Grant { reader: bob.id(), runs: vec![first] });
    assert_eq!((looked().0, acting.granted_behind(line)), (line + 1, vec![first]));
    assert_eq!(acting.granted_behind(line + 1), []);
    let granted = envelopes(&vault.root, &first);
    vault.agree(Operation::Revoke { reader: bob.id(), runs: vec![first] });
    assert_eq!((looked().2, acting.granted_behind(line)), (vec![false, true], vec![]));
    assert!(runs.iter().all(|(run, _)| !acting.may_be_given(run)), "no line gives them");
    // Whoever writes to the store may put it back: the line stands.
    assert!(acting.open_run(&first, &granted).unwrap().is_none());
    vault.agree(Operation::Grant { reader: bob.id(), runs: vec![first] });
    assert!(
        looked().2[0] && acting.may_be_given(&first) && acting.open_run(&first, &granted).unwrap().is_some()
    );
    vault.agree(Operation::RemoveReader { reader: bob.id() });
    assert_eq!((looked().1, looked().2), (Some(Lost::Removed), vec![false, false]));
    vault.agree(Operation::AddReader { reader: entry });
    assert_eq!((looked().1, looked().2), (None, vec![true, true]));
}

/// Whoever can write to the store may garble the first state's envelopes: a custodian who agrees to anything sees it.
#[test]
fn envelopes_that_do_not_open_are_not_carried_on() {
    let vault = Vault::of(2, 2);
    let (_, entry) = reader("bob", false);
    let (mut file, _) = vault.propose(Operation::AddReader { reader: entry });
    file.before.epochs[0].shares[1].env.as_mut().unwrap()[300] ^= 1;
    let file = RequestFile::parse(&file.to_bytes().unwrap()).unwrap();
    approve(&file, &vault.people[0], None, false).unwrap();
    let refused = approve(&file, &vault.people[1], None, false).unwrap_err();
    assert!(
        matches!(&refused, Error::WrongShare { custodian } if custodian.contains("custodian-1")),
        "{refused}"
    );
}

/// The key before is in the memory of who goes on; what a later line says of a reader stays.
#[test]
fn going_on_undoes_no_later_line() {
    let vault = Vault::of(2, 2);
    let gateway = vault.gateway();
    let (bob, entry) = reader("bob", false);
    let runs = vault.runs(&gateway, 1);
    vault.agree(Operation::AddReader { reader: entry });
    let (file, executor) = vault.propose(Operation::Grant { reader: bob.id(), runs: vec![runs[0].0] });
    let answers = [vault.yes(0, &file), vault.yes(1, &file)];
    execute(&vault.root, &vault.chain(), &file, &executor, &answers, false).unwrap();
    resume(&vault.root, &vault.chain(), &file, &executor, &answers).unwrap();
    vault.agree(Operation::Revoke { reader: bob.id(), runs: vec![runs[0].0] });
    let refused = resume(&vault.root, &vault.chain(), &file, &executor, &answers).unwrap_err();
    assert!(matches!(refused, Error::Overtaken { line: 3, newest: 4 }), "{refused}");
}

/// Its end was agreed on; what it made since would be lost unseen.
#[test]
fn a_gateway_s_end_cuts_nothing_unseen() {
    let vault = Vault::of(2, 2);
    let gateway = vault.gateway();
    vault.runs(&gateway, 1);
    let chain = vault.chain();
    let (until, _) = crate::enroll::ended(&vault.root, &chain, &gateway.id(), &Default::default()).unwrap();
    let (file, executor) = vault.propose(Operation::RevokeGateway { gateway: gateway.id(), until });
    let answers = [vault.yes(0, &file), vault.yes(1, &file)];
    vault.runs(&gateway, 1);
    let refused = execute(&vault.root, &chain, &file, &executor, &answers, false).unwrap_err();
    assert!(matches!(refused, Error::EndCuts { run: 1, newest: 2, .. }), "{refused}");
    execute(&vault.root, &chain, &file, &executor, &answers, true).unwrap();
    assert_eq!(vault.chain().gateway_key(&gateway.id()).unwrap().until.unwrap().run.n, 1);
}

/// What gateways signed about the runs of a request goes with it, and nothing else does.
#[test]
fn what_is_signed_about_runs_goes_along_and_is_verified() {
    let (vault, other) = (Vault::of(2, 2), Vault::of(2, 2));
    let gateway = vault.gateway();
    let (lab, entry) = reader("lab", false);
    vault.agree(Operation::AddReader { reader: entry });
    let mut ids: Vec<RunId> = vault.runs(&gateway, 2).iter().map(|(run, _)| *run).collect();
    let chain = vault.chain();
    let (until, _) = crate::enroll::ended(&vault.root, &chain, &gateway.id(), &Default::default()).unwrap();
    let third = vault.runs(&gateway, 1)[0].0;
    ids.sort();
    let about = |vault: &Vault, runs: Vec<RunId>| {
        let (mut file, _) = vault.propose(Operation::Grant { reader: lab.id(), runs });
        file.take_along(&vault.root);
        file
    };
    let file = about(&vault, ids.clone());
    assert_eq!(RequestFile::parse(&file.to_bytes().unwrap()).unwrap(), file);
    let bare = RequestFile { signed: Vec::new(), ..file.clone() };
    assert_eq!((file.signed.len(), file.hash().unwrap()), (2, bare.hash().unwrap()));
    assert_eq!(file.signed_run(&ids[1]).unwrap().made.signer, gateway.id());
    assert!(file.signed_run(&third).is_none());

    let refused = |signed: Vec<_>, what: &str| {
        let bytes = RequestFile { signed, ..file.clone() }.to_bytes().unwrap();
        let refused = RequestFile::parse(&bytes).unwrap_err();
        assert!(matches!(&refused, Error::BadRequest { why } if why.contains(what)), "{refused}");
    };
    let [one, two] = [file.signed[0].clone(), file.signed[1].clone()];
    refused(vec![two.clone(), one.clone()], "out of order");
    refused(vec![one.clone(), one.clone()], "out of order");
    refused(about(&vault, vec![third]).signed, "does not name");
    // Of another vault's gateway, and of one that is ended: all that it made behind its end.
    let others = other.gateway();
    let run = other.runs(&others, 1)[0].0;
    let (_, entry) = reader("lab", false);
    let op = Operation::AddReader {
        reader: ReaderEntry { id: lab.id(), sign: lab.public().sign, kem: lab.public().kem, ..entry },
    };
    other.agree(op);
    refused(about(&other, vec![run]).signed, "no signature of the expected key");
    vault.agree_cutting(Operation::RevokeGateway { gateway: gateway.id(), until });
    let mut all = ids.clone();
    all.push(third);
    all.sort();
    let known = about(&vault, all);
    let shown: Vec<RunId> = known.signed.iter().map(|run| run.made.run).collect();
    assert_eq!(shown, ids, "none from behind the end");
}

/// A gateway's id is made of both its keys: another one under it is not let in.
#[test]
fn a_gateway_under_another_s_id_is_refused() {
    let vault = Vault::of(2, 2);
    let (genuine, thief) = (Identity::generate("novaseq").unwrap(), Identity::generate("thief").unwrap());
    let mut machine = vault.chain().machine(&crate::public_file::of(&genuine, None));
    machine.sign = thief.public().sign;
    let refused =
        propose(&vault.chain(), Operation::EnrolGateway { gateway: machine }, "", 3600).unwrap_err();
    assert!(matches!(&refused, Error::CannotBe { why } if why.contains("id of the gateway")), "{refused}");
}

/// A tape from before five rotations: the keyring leads from today's key to the one that it was sealed to.
#[test]
fn a_run_of_five_rotations_ago_opens() {
    let vault = Vault::of(2, 3);
    let gateway = vault.gateway();
    let runs = vault.runs(&gateway, 2);
    let old = envelopes(&vault.root, &runs[0].0);
    for epoch in 2..=6 {
        vault.agree(Operation::Rotate { epoch });
    }
    runs::remove_envelope(&vault.root, &runs[0].0, "vault-6").unwrap();
    old.iter().for_each(|file| runs::put_envelope(&vault.root, &runs[0].0, file).unwrap());
    vault.all_open(&[2, 1], &runs);
    vault.agree(Operation::Rotate { epoch: 7 });
    vault.all_open(&[0, 1], &runs);
}

/// What an act asks of the store, call by call.
fn calls(vault: &Vault, op: &Operation) -> u64 {
    let (file, executor) = vault.propose(op.clone());
    let answers = [vault.yes(0, &file), vault.yes(1, &file)];
    let chain = vault.chain();
    let killed = |n: &u64| {
        killed_at(&copy(&vault.root), *n, |root| {
            let done = execute(root, &chain, &file, &executor, &answers, false)?;
            carry_out(root, done, &file.request.op, &mut |_, _| {}).map(drop)
        })
    };
    (0..).find(|n| killed(n).is_none()).unwrap()
}

#[test]
fn what_is_about_people_costs_the_same_with_any_number_of_runs() {
    let vault = Vault::of(2, 3);
    let gateway = vault.gateway();
    let dave = Identity::generate("dave").unwrap();
    let acts = [
        Operation::AddCustodian { custodian: Custodian::new("dave", &dave.public()) },
        Operation::AddReader { reader: reader("bob", true).1 },
    ];
    let with_none = acts.each_ref().map(|op| calls(&vault, op));
    vault.runs(&gateway, 12);
    assert_eq!(acts.each_ref().map(|op| calls(&vault, op)), with_none);
    assert!(calls(&vault, &Operation::Rotate { epoch: 2 }) > with_none[0] + 12);
}

/// Honest programs stop at the time that a reader was given, also one that has the vault open.
#[test]
fn a_reader_s_time_ends() {
    let vault = Vault::of(2, 2);
    let gateway = vault.gateway();
    let (bob, entry) = reader("bob", true);
    let until = |seconds| Some(crate::clock::in_seconds(seconds));
    vault.agree(Operation::AddReader { reader: ReaderEntry { expires: until(3600), ..entry.clone() } });
    let run = vault.runs(&gateway, 1)[0].0;
    let open = Acting::open(&vault.root, vault.chain(), &bob).unwrap();
    let reads = || open.open_run(&run, &envelopes(&vault.root, &run)).unwrap().is_some();
    assert!(reads());
    vault.agree(Operation::AddReader { reader: ReaderEntry { expires: until(0), ..entry.clone() } });
    assert!(!reads(), "the open vault hears of it");
    let refused = Acting::opened(vault.chain(), &bob).unwrap_err();
    assert!(matches!(&refused, Error::ReaderExpired { reader, .. } if reader.contains("bob")), "{refused}");
    let late = vault.runs(&gateway, 1)[0].0;
    assert!(envelopes(&vault.root, &late).iter().all(|file| !file.name.starts_with("reader-")));
    vault.agree(Operation::AddReader { reader: entry });
    assert!(reads());
    vault.agree(Operation::RemoveReader { reader: bob.id() });
    assert!(!reads());
}

/// Killed at each call in turn: every run opens for two custodians, and going on finishes it.
#[test]
fn an_execution_that_is_killed_anywhere_goes_on() {
    let mut vault = Vault::of(2, 3);
    let gateway = vault.gateway();
    let runs = vault.runs(&gateway, 3);
    let (file, executor) = vault.propose(Operation::RemoveCustodian { custodian: vault.people[2].id() });
    let answers = [vault.yes(0, &file), vault.yes(1, &file)];
    let start = vault.root.clone();
    let mut kills = 0;
    for n in 0.. {
        vault.root = copy(&start);
        let chain = vault.chain();
        let killed = killed_at(&vault.root, n, |root| {
            let done = execute(root, &chain, &file, &executor, &answers, false)?;
            carry_out(root, done, &file.request.op, &mut |_, _| {}).map(drop)
        });
        vault.all_open(&[0, 1], &runs);
        if killed.is_none() {
            break;
        }
        kills += 1;
        let done = match execute(&vault.root, &vault.chain(), &file, &executor, &answers, false) {
            Err(Error::RequestUsed { .. }) => resume(&vault.root, &vault.chain(), &file, &executor, &answers),
            done => done,
        };
        let summary = carry_out(&vault.root, done.unwrap(), &file.request.op, &mut |_, _| {}).unwrap();
        assert_eq!((summary.epoch, summary.failed), (2, vec![]), "call {n}");
        vault.all_open(&[0, 1], &runs);
        for (run, _) in &runs {
            let names: Vec<_> = envelopes(&vault.root, run).into_iter().map(|file| file.name).collect();
            assert_eq!(names, ["vault-2"], "call {n}");
        }
    }
    assert!(kills > 20, "{kills}");
}

/// A store that is shown differently to two who propose gets one answer of each custodian.
#[test]
fn two_requests_on_one_head_are_not_both_approved() {
    let vault = Vault::of(2, 3);
    let (file, _) = vault.propose(Operation::Rotate { epoch: 2 });
    let (other, _) = vault.propose(Operation::ChangeQuorum { quorum: 3 });
    let alice = &vault.people[0];
    let (_, kept) = approve(&file, alice, None, false).unwrap();
    approve(&file, alice, Some(&kept), false).unwrap();
    assert!(matches!(approve(&other, alice, Some(&kept), false), Err(Error::ApprovedAnother { .. })));
    let (_, kept) = approve(&other, alice, Some(&kept), true).unwrap();
    assert_eq!(kept.head, vault.chain().head(), "what a request says of the head is not what was seen");
    assert_eq!(kept.approved.as_ref().unwrap().request, other.hash().unwrap());
    // Of a history that this custodian has seen differently, and of one that it has seen further.
    let mut forked = kept.clone();
    forked.head.hash.0[0] ^= 1;
    assert!(matches!(approve(&file, alice, Some(&forked), true), Err(Error::Forked { .. })));
    forked.head.n = 5;
    assert!(matches!(approve(&file, alice, Some(&forked), true), Err(Error::Overtaken { .. })));
    let stranger = Identity::generate("stranger").unwrap();
    assert!(matches!(approve(&file, &stranger, None, false), Err(Error::WrongKey { .. })));
}

/// Whoever changes the file on its way changes the words, or is refused.
#[test]
fn a_request_says_what_it_does() {
    let vault = Vault::of(2, 3);
    let dave = Identity::generate("dave").unwrap();
    let (file, _) =
        vault.propose(Operation::AddCustodian { custodian: Custodian::new("dave", &dave.public()) });
    assert!(file.sentence().contains("dave") && file.sentence().contains("one of 4"), "{}", file.sentence());
    let gone = |seal: Option<RemovedSeal>| Operation::Retire {
        runs: vec![GoneRun {
            run: RunId([1; 16]),
            gateway: IdentityId([2; 16]),
            seq: 3,
            run_note: Digest([4; 32]),
            prev: Some(Digest([5; 32])),
            seal,
        }],
    };
    let seal = RemovedSeal { gateway: IdentityId([6; 16]), n: 7, hash: Digest([8; 32]), prev: None };
    let (open, sealed) = (in_words::runs(&gone(None)).concat(), in_words::runs(&gone(Some(seal))).concat());
    assert!(open.contains("number 3 of gateway 0202") && open.ends_with("not sealed"), "{open}");
    assert!(sealed.contains("gateway 0606") && sealed.contains("number 7, seal 0808"), "{sealed}");
    let mut hidden = file.clone();
    hidden.request.op = Operation::Rotate { epoch: 2 };
    let refused = RequestFile::parse(&hidden.to_bytes().unwrap()).unwrap_err();
    assert!(refused.to_string().contains("another state"), "{refused}");
    let mut silent = file.clone();
    silent.request.releases_share = false;
    assert!(RequestFile::parse(&silent.to_bytes().unwrap()).is_err());
    let bytes = file.to_bytes().unwrap();
    for at in (0..bytes.len()).step_by(bytes.len() / 150) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x05;
        let parsed = RequestFile::parse(&changed);
        assert!(parsed.map_or(true, |parsed| parsed != file));
        assert!(RequestFile::parse(&bytes[..at]).is_err());
    }
}
