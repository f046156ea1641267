//! A run with something of everything, under a new key.

mod meanwhile;
mod read_back;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use runvault_format::custody_state::Custodian;
use runvault_format::note::Note;
use runvault_format::operation::Operation;
use runvault_store::backend::{Kind, Rename};
use runvault_store::doubles::faulty::{Fault, Faults, Rule};
use runvault_store::doubles::observe::Op;
use runvault_vault::api::{Caller, OpenFlags, ROOT};
use runvault_vault::authority::Gateway;
use runvault_vault::seal::rekey::{Job, Outcome as Done, Shard, rekey};
use runvault_vault::seal::{self, Anew, Outcome as Sealed};
use runvault_vault::{Error as Engine, Options, Vault};

use super::*;
use crate::chains::gaps;
use crate::ends::LastKnown;
use crate::exposure::tests::read_by;
use crate::exposure::{As, Opens, exposure};
use crate::gateway::StateFolder;
use crate::quorum::alone;
use crate::seen::Remembering;
use crate::testing::{
    copy, copy_to, custody, enrolled, envelopes, get, killed_at, put, reader_entry, run_dir, take_away, vault,
};

const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };
const WRITE: OpenFlags =
    OpenFlags { read: true, write: true, truncate: false, append: false, kill_suidgid: false };
const READ: OpenFlags =
    OpenFlags { read: true, write: false, truncate: false, append: false, kill_suidgid: false };

struct Site {
    root: Arc<dyn Dir>,
    owner: Identity,
    chain: Chain,
    gateway: Arc<StateFolder>,
}

impl Site {
    fn new() -> Self {
        let (root, owner, mut chain) = vault();
        let gateway = Arc::new(enrolled(&root, &mut chain, &owner));
        Self { root, owner, chain, gateway }
    }

    /// A sealed run of that name.
    fn sealed(&self, name: &[u8]) -> RunId {
        self.sealed_with(name, &[])
    }

    /// With a file of these bytes, unless it is none.
    fn sealed_with(&self, name: &[u8], large: &[u8]) -> RunId {
        let authority = Acting::ingest(&self.root, self.chain.clone());
        let vault = Vault::open(self.root.clone(), authority, Some(self.gateway.clone()), Options::default())
            .unwrap();
        let run = vault.mkdir(&CALLER, ROOT, name, 0o755).unwrap().ino;
        let deep = vault.mkdir(&CALLER, run, b"Data", 0o750).unwrap().ino;
        let file = |dir, name: &[u8], at: u64, bytes: &[u8]| {
            let (attr, opened) = vault.create(&CALLER, dir, name, 0o640, WRITE).unwrap();
            if !bytes.is_empty() {
                vault.write(opened.handle, at, bytes, false).unwrap();
            }
            vault.release(opened.handle).unwrap();
            attr.ino
        };
        file(run, b"empty", 0, b"");
        file(run, b"sparse", 100_000, b"end");
        if !large.is_empty() {
            file(run, b"large", 0, large);
        }
        let twice = file(deep, b"a.cbcl", 0, &[7; 30_000]);
        file(deep, &[b'n'; 200], 0, b"a long name");
        vault.link(twice, run, b"again.cbcl").unwrap();
        vault.setxattr(twice, b"user.sample", b"NA12878", 0).unwrap();
        vault.symlink(&CALLER, run, b"link", b"Data/a.cbcl").unwrap();
        vault.symlink(&CALLER, run, b"long link", &b"y/".repeat(1_000)).unwrap();
        vault.mknod(&CALLER, run, b"fifo", Kind::Fifo, 0o600, 0).unwrap();
        let id = vault.status().runs.iter().find(|one| one.name.as_deref() == Some(name)).unwrap().run;
        let sealed = vault.seal(&id, &mut |_| Ok(Some("{}".into())), &mut |_, _| ()).unwrap();
        assert!(matches!(sealed, Sealed::Sealed(_)));
        vault.close().unwrap();
        id
    }

    fn agree(&mut self, op: Operation) {
        let (chain, summary) =
            alone::act(&self.root, &self.chain, &self.owner, op, "a test", &mut |_, _| {}).unwrap();
        assert_eq!(summary.failed, []);
        self.chain = chain;
    }

    /// What the log says of the run that is to take its place.
    fn agree_on(&mut self, run: RunId) -> Replacement {
        self.agree(Operation::Rekey { runs: vec![run] });
        self.chain.replaced_by(&run).last().unwrap().clone()
    }

    /// A run that was sealed, and is to be re-keyed.
    fn agreed() -> (Self, RunId, Replacement) {
        let mut site = Self::new();
        let run = site.sealed(b"run");
        let one = site.agree_on(run);
        (site, run, one)
    }

    fn worker(&self, of: &Replacement) -> Identity {
        worker_of(&self.root, &self.chain, &self.owner, of).unwrap().unwrap()
    }

    /// The store as a kill leaves it right after the new run got its name: the old one is there too.
    fn both(&self, one: &Replacement) -> Arc<dyn Dir> {
        let worker = self.worker(one);
        let (mut less, mut more) = (0u64, 1 << 14);
        loop {
            let (n, root) = (less.midpoint(more), copy(&self.root));
            let killed = killed_at(&root, n, |root| Ok(self.work_as(root, one, Shard::ALL, &worker)?));
            let there = runs::list(&root).unwrap();
            match (there.contains(&one.new), there.contains(&one.run)) {
                (false, _) => less = n + 1,
                (true, true) => return root,
                (true, false) => more = n,
            }
            assert!(less < more, "{killed:?}");
        }
    }

    fn may_open(&self, reader: &Identity, runs: [&RunId; 2]) -> [bool; 2] {
        let acting = Acting::open(&self.root, self.chain.clone(), reader).unwrap();
        runs.map(|run| acting.may_open(run))
    }

    fn add_reader(&mut self, label: &str, standing: bool) -> Identity {
        let identity = Identity::generate(label).unwrap();
        let reader = reader_entry(&identity, standing, None);
        self.agree(Operation::AddReader { reader });
        identity
    }

    fn work(&self, root: &Arc<dyn Dir>, of: &Replacement, shard: Shard) -> runvault_vault::Result<Done> {
        let worker = worker_of(root, &self.chain, &self.owner, of)?;
        let worker = worker.ok_or(Engine::NotBegun { run: of.run.to_string() })?;
        self.work_as(root, of, shard, &worker)
    }

    fn work_as(
        &self,
        root: &Arc<dyn Dir>,
        of: &Replacement,
        shard: Shard,
        worker: &Identity,
    ) -> runvault_vault::Result<Done> {
        let authority = Acting::open(root, self.chain.clone(), worker)?;
        let (old, new, grace, waits) = (of.run, of.new, Duration::ZERO, &|| ());
        let job = Job { root, authority: &*authority, worker, old, new, grace, waits };
        rekey(&job, shard, &|_, _| ())
    }

    /// Everything in a run, by the owner's key: nothing of it is otherwise than it was sealed.
    fn contents(&self, root: &Arc<dyn Dir>, name: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let authority = Acting::open(root, self.chain.clone(), &self.owner).unwrap();
        let vault = Vault::open(root.clone(), authority, None, Options::default()).unwrap();
        let top = vault.lookup(ROOT, name).unwrap().ino;
        let (mut found, mut dirs) = (Vec::new(), vec![top]);
        while let Some(dir) = dirs.pop() {
            let handle = vault.opendir(dir).unwrap();
            let mut listed = Vec::new();
            vault
                .readdir(handle, 0, false, &mut |entry| {
                    listed.push((entry.name.clone(), entry.kind));
                    true
                })
                .unwrap();
            vault.releasedir(handle).unwrap();
            for (name, kind) in listed.into_iter().filter(|(name, _)| name != b"." && name != b"..") {
                let attr = vault.lookup(dir, &name).unwrap();
                let mut bytes =
                    format!("{:o} {} {} {:?}", attr.mode, attr.nlink, attr.size, attr.mtime).into_bytes();
                match kind {
                    Kind::Dir => {
                        dirs.push(attr.ino);
                        bytes.clear();
                    }
                    Kind::Symlink => bytes.extend(vault.readlink(attr.ino).unwrap()),
                    Kind::File => {
                        let handle = vault.open_file(attr.ino, READ).unwrap().handle;
                        let mut data = vec![0; attr.size as usize];
                        assert_eq!(vault.read(handle, 0, &mut data).unwrap(), data.len());
                        vault.release(handle).unwrap();
                        bytes.extend(data);
                        bytes.extend(vault.getxattr(attr.ino, b"user.sample").unwrap_or_default());
                    }
                    _ => {}
                }
                found.push((name, bytes));
            }
        }
        vault.close().unwrap();
        found.sort();
        found
    }

    /// With the key and without, all is as it was sealed, and no chain has a gap.
    fn assert_sound(&self, root: &Arc<dyn Dir>, run: &RunId) {
        let authority = Acting::open(root, self.chain.clone(), &self.owner).unwrap();
        let seal = Seal::load(root, run, &*authority).unwrap();
        let verified = seal::verify(root, &seal, &*authority, &Anew, &mut |_, _| ()).unwrap();
        assert_eq!(verified.findings, []);
        assert_eq!(seal::scrub(root, &seal, &*authority, &Anew, &|_, _| ()).unwrap().findings, []);
        assert_eq!(gaps(root, &self.chain).unwrap(), []);
        assert_eq!(runs::list(root).unwrap().iter().filter(|one| *one == run).count(), 1);
    }
}

fn names_of(root: &Arc<dyn Dir>, run: &RunId) -> Vec<String> {
    envelopes(root, run).into_iter().map(|file| file.name).collect()
}

fn cleared(root: &Arc<dyn Dir>, chain: &Chain) -> Result<usize> {
    clear(root, chain, &|_, _| ()).map(|cleared| cleared.runs)
}

fn waits(site: &Site) -> Vec<Replacement> {
    waiting(&site.root, site.chain.replacements()).unwrap().into_iter().map(|(one, _)| one).collect()
}

fn refusal(result: runvault_vault::Result<impl Sized>) -> String {
    result.err().expect("a refusal").to_string()
}

#[test]
fn the_content_stays_and_what_was_revoked_opens_nothing() {
    let mut site = Site::new();
    let standing = site.add_reader("standing", true);
    let run = site.sealed(b"run");
    let (granted, revoked) = (site.add_reader("granted", false), site.add_reader("revoked", false));
    let late = site.add_reader("late", true);
    for reader in [&granted, &revoked] {
        site.agree(Operation::Grant { reader: reader.id(), runs: vec![run] });
    }
    let kept: Vec<_> = envelopes(&site.root, &run);
    site.agree(Operation::Revoke { reader: revoked.id(), runs: vec![run] });
    let before = site.contents(&site.root, b"run");
    let old_seal = get(&run_dir(&site.root, &run).open_dir(b"seal").unwrap(), "seal.note");
    let one = site.agree_on(run);
    let done = site.work(&site.root, &one, Shard::ALL).unwrap();
    assert!(matches!(done, Done::Replaced(done) if done.files == 4 && done.copied == done.bytes));
    assert_eq!(runs::list(&site.root).unwrap(), [one.new], "the old run is gone");
    assert_eq!(site.contents(&site.root, b"run"), before);
    site.assert_sound(&site.root, &one.new);
    let mut expected = vec![format!("reader-{}", standing.id()), format!("reader-{}", granted.id())];
    expected.sort();
    expected.push("vault-1".to_owned());
    assert_eq!(names_of(&site.root, &one.new), expected, "nobody gets more than they had: {}", late.id());
    // An envelope of the old run, under any name in the new one.
    let keys = run_dir(&site.root, &one.new).open_dir(b"keys").unwrap();
    let old = kept.iter().find(|file| file.name == format!("reader-{}", revoked.id())).unwrap();
    put(&keys, &old.name, &old.bytes);
    let acting = Acting::open(&site.root, site.chain.clone(), &revoked).unwrap();
    assert!(seal::manifest(&site.root, &one.new, &*acting).is_err());
    let acting = Acting::open(&site.root, site.chain.clone(), &granted).unwrap();
    seal::manifest(&site.root, &one.new, &*acting).unwrap();
    // What its gateway signed is there to the byte.
    let new_seal = run_dir(&site.root, &one.new).open_dir(b"seal").unwrap();
    assert_eq!(get(&new_seal, "origin.note"), old_seal);
    assert!(
        Note::parse(&old_seal).unwrap().signatures.iter().any(|s| s.name == site.gateway.id().to_string())
    );
}

/// Twice: the origin is the first one's, and what adds to that adds to the last.
#[test]
fn a_run_that_was_rekeyed_is_rekeyed_again() {
    let mut site = Site::new();
    let run = site.sealed(b"run");
    let before = site.contents(&site.root, b"run");
    let first = site.agree_on(run);
    site.work(&site.root, &first, Shard::ALL).unwrap();
    // The gateway knows nothing of it, and adds to what it had sealed.
    let authority = Acting::ingest(&site.root, site.chain.clone());
    let vault =
        Vault::open(site.root.clone(), authority, Some(site.gateway.clone()), Options::default()).unwrap();
    let more = vault.mkdir(&CALLER, ROOT, b"run", 0o755).unwrap().ino;
    let (_, opened) = vault.create(&CALLER, more, b"later", 0o644, WRITE).unwrap();
    vault.write(opened.handle, 0, b"results", false).unwrap();
    vault.release(opened.handle).unwrap();
    vault.close().unwrap();
    let second = site.agree_on(first.new);
    let grace = copy(&site.root);
    site.work(&site.root, &second, Shard::ALL).unwrap();
    site.assert_sound(&site.root, &second.new);
    // For a while both are there, and keep what the first gateway signed.
    grace.open_dir(b"runs").unwrap().create_dir(second.new.to_string().as_bytes(), DIR_MODE).unwrap();
    copy_to(&run_dir(&site.root, &second.new), &run_dir(&grace, &second.new));
    assert_eq!(gaps(&grace, &site.chain).unwrap(), []);
    let last = LastKnown { run: None, seal: None };
    crate::enroll::revoke(&grace, &site.chain, &site.owner, &site.gateway.id(), &last, "").unwrap();
    let seal = Seal::load(&site.root, &second.new, &*Acting::gateway_only(site.chain.clone())).unwrap();
    let origin = seal.origin.unwrap();
    assert_eq!((origin.run.run, origin.replaced.clone()), (run, vec![first.new, run]));
    let now = site.contents(&site.root, b"run");
    assert_eq!(now.len(), before.len() + 1, "joined, under the one name");
    assert!(before.iter().all(|entry| now.contains(entry)));
    assert!(matches!(check(&site.root, &site.chain, &run), Err(Error::Vault(_))), "it is not there any more");
}

/// Whichever of its ids this machine has seen, and however often it was re-keyed since.
#[test]
fn a_run_that_was_re_keyed_and_retired_is_not_missed() {
    let mut site = Site::new();
    let run = site.sealed(b"run");
    let check = |state: &tempfile::TempDir, root: &Arc<dyn Dir>, chain: &Chain| {
        crate::pins::check_and_advance(state.path(), root, chain)
    };
    let look = |site: &Site, run: &RunId| {
        let state = tempfile::tempdir().unwrap();
        check(&state, &site.root, &site.chain).unwrap();
        let seen = Remembering::over(Acting::gateway_only(site.chain.clone()), state.path());
        runs::read_descriptor(&site.root, run, &*seen).unwrap();
        seal::find(&site.root, run, &*seen).unwrap().unwrap();
        state
    };
    let before = look(&site, &run);
    // What they say in a copy of the store is seen by no other machine.
    let mut others = vec![look(&site, &run), look(&site, &run), look(&site, &run), look(&site, &run)];
    let mut at = run;
    for _ in 0..2 {
        let one = site.agree_on(at);
        site.work(&site.root, &one, Shard::ALL).unwrap();
        at = one.new;
        let after = look(&site, &at);
        let missed = copy(&site.root);
        take_away(&missed, &at);
        let refused = check(&before, &missed, &site.chain).unwrap_err();
        assert!(matches!(refused, Error::RunGone { seq: 1, run: gone, .. } if gone == run), "{refused}");
        let authority = Acting::gateway_only(site.chain.clone());
        let retired = copy(&site.root);
        crate::retired::retire(&retired, &site.chain, &site.owner, &*authority, &at, "").unwrap();
        let said = copy(&retired);
        take_away(&retired, &at);
        for state in [&before, &after] {
            check(state, &retired, &site.chain).unwrap();
        }
        assert_eq!(gaps(&retired, &site.chain).unwrap(), []);
        // By a line of the log, as the run is in the store, and as its owner had said it.
        for root in [copy(&site.root), said] {
            let named = crate::retired::named(&root, &site.chain, &*authority, &at).unwrap().unwrap();
            let op = Operation::Retire { runs: vec![named] };
            let (chain, _) = alone::act(&root, &site.chain, &site.owner, op, "", &mut |_, _| {}).unwrap();
            take_away(&root, &at);
            // The note is not needed any more.
            let notes = root.open_dir(b"retired").unwrap();
            let _ = notes.unlink(at.to_string().as_bytes());
            check(&others.pop().unwrap(), &root, &chain).unwrap();
        }
    }
}

/// Killed before each of its calls in turn, and gone on with: at any time the one or the other run is whole.
#[test]
fn a_rekeying_that_is_killed_anywhere_goes_on() {
    let mut site = Site::new();
    let run = site.sealed(b"run");
    let before = site.contents(&site.root, b"run");
    let one = site.agree_on(run);
    let worker = site.worker(&one);
    let start = site.root.clone();
    let (mut kills, mut step) = (0, 1);
    let mut n = 0;
    loop {
        let root = copy(&start);
        let killed = killed_at(&root, n, |root| Ok(site.work_as(root, &one, Shard::ALL, &worker)?));
        let there = runs::list(&root).unwrap();
        assert!(there.contains(&run) || there.contains(&one.new), "call {n}");
        if killed.is_none() {
            break;
        }
        let done = site.work_as(&root, &one, Shard::ALL, &worker).unwrap();
        assert!(matches!(done, Done::Replaced(_)), "call {n}: {done:?}");
        assert_eq!(left(&root, &one).unwrap(), Left::Nothing, "call {n}");
        assert_eq!(site.contents(&root, b"run"), before, "call {n}");
        site.assert_sound(&root, &one.new);
        assert_eq!(names_of(&root, &one.new), ["vault-1"], "call {n}");
        kills += 1;
        // All of the first and, at random, of those that are alike.
        step = if n < 60 { 1 } else { 1 + (step * 7 + 3) % 5 };
        n += step;
    }
    assert!(kills > 100, "{kills}");
}

#[test]
fn shards_do_not_collide_and_the_last_one_seals() {
    let mut site = Site::new();
    let run = site.sealed(b"run");
    let before = site.contents(&site.root, b"run");
    let one = site.agree_on(run);
    let shard = |number| Shard { number, of: 3 };
    let start = site.root.clone();
    for order in [[1, 2, 3], [3, 1, 2], [2, 3, 1]] {
        let root = copy(&start);
        for (at, number) in order.into_iter().enumerate() {
            match site.work(&root, &one, shard(number)).unwrap() {
                Done::Waiting(waiting) => {
                    assert!(at < 2 && waiting.files == 4 && waiting.missing > 0, "{waiting:?}");
                }
                Done::Replaced(_) => assert_eq!(at, 2),
            }
        }
        assert_eq!(site.contents(&root, b"run"), before);
        site.assert_sound(&root, &one.new);
    }
    // All at once, each of them twice: nobody's work spoils another's.
    let root = copy(&start);
    std::thread::scope(|scope| {
        for number in [1, 2, 3, 1, 2, 3] {
            let (site, root, one) = (&site, &root, &one);
            scope.spawn(move || site.work(root, one, shard(number)));
        }
    });
    let _ = site.work(&root, &one, Shard::ALL);
    assert_eq!(left(&root, &one).unwrap(), Left::Nothing);
    assert_eq!(site.contents(&root, b"run"), before);
    site.assert_sound(&root, &one.new);
}

#[test]
fn damage_of_the_old_run_stops_it_and_is_named() {
    let (site, run, one) = Site::agreed();
    let tree = run_dir(&site.root, &run).open_dir(b"tree").unwrap();
    let mut large = None;
    for name in crate::layout::names(&tree, "tree").unwrap() {
        if tree
            .stat(&name)
            .is_ok_and(|stat| stat.kind == Kind::File && stat.size > 20_000 && stat.size < 40_000)
        {
            large = Some(name);
        }
    }
    let name = large.unwrap();
    let file = tree.open_file(&name, runvault_store::backend::Access::ReadWrite).unwrap();
    file.write_at(b"x", 12_000).unwrap();
    let refused = refusal(site.work(&site.root, &one, Shard::ALL));
    assert!(refused.contains(&format!("runs/{run}/tree")) && refused.contains("authenticate"), "{refused}");
    assert!(runs::list(&site.root).unwrap() == [run], "nothing took its place");
}

/// A run that says it replaces another, otherwise than the audit log and the first gateway say.
#[test]
fn what_nobody_agreed_on_is_refused_by_name() {
    let mut site = Site::new();
    let (run, other) = (site.sealed(b"run"), site.sealed(b"other"));
    let (one, two) = (site.agree_on(run), site.agree_on(other));
    for of in [&one, &two] {
        site.work(&site.root, of, Shard::ALL).unwrap();
    }
    let load = |root: &Arc<dyn Dir>, run| {
        refusal(Seal::load(root, run, &*Acting::gateway_only(site.chain.clone())).map(drop))
    };
    let seal_of = |root: &Arc<dyn Dir>, run| run_dir(root, run).open_dir(b"seal").unwrap();
    // What its gateway signed is gone, or is that of another run.
    for name in ["origin.note", "origin.run"] {
        let root = copy(&site.root);
        seal_of(&root, &one.new).unlink(name.as_bytes()).unwrap();
        let refused = load(&root, &one.new);
        assert!(refused.contains(name) && refused.contains("missing"), "{refused}");
        let bytes = get(&seal_of(&root, &two.new), name);
        put(&seal_of(&root, &one.new), name, &bytes);
        let refused = load(&root, &one.new);
        assert!(
            refused.contains(name) && refused.contains("another run") || refused.contains("that of run"),
            "{refused}"
        );
    }
    // All of another run's seal, or its run.json: of another manifest, and signed for it by the same kind of worker.
    let root = copy(&site.root);
    for name in ["seal.note", "origin.note", "origin.run"] {
        let bytes = get(&seal_of(&root, &two.new), name);
        put(&seal_of(&root, &one.new), name, &bytes);
    }
    assert!(load(&root, &one.new).contains("seal.note"));
    let root = copy(&site.root);
    put(&run_dir(&root, &one.new), "run.json", &get(&run_dir(&root, &two.new), "run.json"));
    let refused = load(&root, &one.new);
    assert!(refused.contains("the audit log names worker"), "{refused}");
    // A run that no line names.
    let root = copy(&site.root);
    let runs = root.open_dir(b"runs").unwrap();
    let stranger = RunId([9; 16]);
    runs.rename(one.new.to_string().as_bytes(), &*runs, stranger.to_string().as_bytes(), Rename::Over)
        .unwrap();
    let refused = load(&root, &stranger);
    assert!(refused.contains("no line of the audit log names it"), "{refused}");
    // Notes of a run that was taken away, in the seal of one that does not stand for it, close no gap.
    let root = copy(&site.root);
    let third = site.sealed(b"third");
    let (note, run_json) = {
        let dir = run_dir(&site.root, &third);
        (get(&dir.open_dir(b"seal").unwrap(), "seal.note"), get(&dir, "run.json"))
    };
    put(&seal_of(&root, &one.new), "origin.note", &note);
    put(&seal_of(&root, &one.new), "origin.run", &run_json);
    let gaps = gaps(&root, &site.chain).unwrap();
    assert!(gaps.iter().any(|gap| gap.what.contains("number 1 is missing")), "{gaps:?}");
}

/// A worker signs another manifest than was sealed first: its own seal is good, and the run is refused all the same.
#[test]
fn a_worker_cannot_change_the_content() {
    let (site, _, one) = Site::agreed();
    let worker = site.worker(&one);
    site.work(&site.root, &one, Shard::ALL).unwrap();
    let seal = run_dir(&site.root, &one.new).open_dir(b"seal").unwrap();
    let text = Note::parse(&get(&seal, "seal.note")).unwrap().text.to_owned();
    let said = runvault_format::seal_note::SealNote::parse_text(&text).unwrap();
    let load = || Seal::load(&site.root, &one.new, &*Acting::gateway_only(site.chain.clone())).map(drop);
    load().unwrap();
    let other = runvault_format::seal_note::SealNote { manifest_sha256: Digest([5; 32]), ..said.clone() };
    put(&seal, "seal.note", &Worker::sign(&worker, &other.to_text().unwrap()));
    assert!(refusal(load()).contains("another content than was sealed first"));
    let chained = runvault_format::seal_note::SealNote { n: 2, prev: Some(Digest([1; 32])), ..said };
    put(&seal, "seal.note", &Worker::sign(&worker, &chained.to_text().unwrap()));
    assert!(refusal(load()).contains("have no chain"));
}

/// Whatever came between the commit and the end: the old run goes only where nothing is missing of the new one.
#[test]
fn the_old_run_stays_where_the_new_one_is_not_whole() {
    let (site, run, one) = Site::agreed();
    let worker = site.worker(&one);
    let both = |root: &Arc<dyn Dir>| [run, one.new].iter().all(|id| runs::list(root).unwrap().contains(id));
    let start = site.root.clone();
    let killed = (0..).step_by(5).map(|n| {
        let root = copy(&start);
        killed_at(&root, n, |root| Ok(site.work_as(root, &one, Shard::ALL, &worker)?)).expect("killed");
        root
    });
    let start = killed.into_iter().find(both).expect("a kill in between");
    type Change = fn(&Arc<dyn Dir>, &[u8]);
    let changes: [Change; 2] = [
        |tree, name| {
            let file = tree.open_file(name, runvault_store::backend::Access::ReadWrite).unwrap();
            file.set_len(0).unwrap();
        },
        |tree, name| tree.unlink(name).unwrap(),
    ];
    for change in changes {
        let root = copy(&start);
        let tree = run_dir(&root, &one.new).open_dir(b"tree").unwrap();
        let names = crate::layout::names(&tree, "tree").unwrap();
        let is_large =
            |name: &&Vec<u8>| tree.stat(name).is_ok_and(|stat| stat.kind == Kind::File && stat.size > 20_000);
        change(&tree, names.iter().find(is_large).unwrap());
        let refused = refusal(site.work_as(&root, &one, Shard::ALL, &worker));
        assert!(refused.contains("the run that it replaces stays"), "{refused}");
        assert!(both(&root));
    }
    site.work_as(&start, &one, Shard::ALL, &worker).unwrap();
    site.assert_sound(&start, &one.new);
}

/// What lies beside the new run and was not sealed is named, and nothing else is to be moved for the work to go on.
#[test]
fn what_was_added_to_the_new_run_is_named_and_the_work_goes_on_without_it() {
    let (site, _, one) = Site::agreed();
    let worker = site.worker(&one);
    let start = site.both(&one);
    let work = |root: &Arc<dyn Dir>| site.work_as(root, &one, Shard::ALL, &worker);
    for folder in ["", "keys", "tree"] {
        let root = copy(&start);
        let new = run_dir(&root, &one.new);
        let dir = if folder.is_empty() { new } else { new.open_dir(folder.as_bytes()).unwrap() };
        put(&dir, "stray", b"x");
        let place = ["runs", &one.new.to_string(), folder, "stray: added: it was not sealed"];
        let place: Vec<&str> = place.into_iter().filter(|part| !part.is_empty()).collect();
        let refused = refusal(work(&root));
        assert_eq!(refused, format!("{}: the run that it replaces stays", place.join("/")));
        assert_eq!(runs::list(&root).unwrap().len(), 2);
        dir.unlink(b"stray").unwrap();
        work(&root).unwrap();
        assert_eq!(left(&root, &one).unwrap(), Left::Nothing);
        site.assert_sound(&root, &one.new);
    }
    // By its form nobody needs to ask about it.
    put(&run_dir(&start, &one.new), ".nfs000000000012ab3400000001", b"deleted while it was open");
    work(&start).unwrap();
    assert_eq!(runs::list(&start).unwrap(), [one.new]);
}

/// A copy of before, whole or not, beside the run that took its place: that the run was re-keyed is known without a key,
/// for as long as its new run is whole.
#[test]
fn what_is_put_back_beside_the_run_that_took_its_place_is_told() {
    let mut site = Site::new();
    let run = site.sealed(b"run");
    let one = site.agree_on(run);
    let stood = |root: &Arc<dyn Dir>| stands(root, &site.chain, &run, &|_, _| ()).unwrap();
    assert_eq!(stood(&site.root), None);
    let both = site.both(&one);
    assert_eq!((left(&both, &one).unwrap(), stood(&both)), (Left::OldRun, Some(one.new)));
    site.work(&site.root, &one, Shard::ALL).unwrap();
    for whole in [true, false] {
        let root = copy(&site.root);
        let runs = root.open_dir(b"runs").unwrap();
        runs.create_dir(run.to_string().as_bytes(), DIR_MODE).unwrap();
        if whole {
            copy_to(&run_dir(&both, &run), &run_dir(&root, &run));
        }
        assert_eq!((left(&root, &one).unwrap(), stood(&root)), (Left::PutBack, Some(one.new)));
        assert_eq!(waiting(&root, site.chain.replacements()).unwrap(), [(one.clone(), Left::PutBack)]);
        run_dir(&root, &one.new).unlink(b"name").unwrap();
        assert_eq!(stood(&root), None);
    }
}

/// The way out of a new run that is damaged: it stays, for those who have seen it, until another one is there.
#[test]
fn a_new_run_that_is_damaged_is_replaced_before_it_goes() {
    let mut site = Site::new();
    let run = site.sealed(b"run");
    let before = site.contents(&site.root, b"run");
    let one = site.agree_on(run);
    site.root = site.both(&one);
    let state = tempfile::tempdir().unwrap();
    std::fs::create_dir(state.path().join(site.chain.vault_id().to_string())).unwrap();
    let seen = |site: &Site| {
        let acting = Acting::open(&site.root, site.chain.clone(), &site.owner).unwrap();
        Remembering::over(acting, state.path())
    };
    seal::find(&site.root, &one.new, &*seen(&site)).unwrap().unwrap();
    let tree = run_dir(&site.root, &one.new).open_dir(b"tree").unwrap();
    let names = crate::layout::names(&tree, "tree").unwrap();
    let file = names.iter().find(|name| tree.stat(name).is_ok_and(|stat| stat.size > 20_000)).unwrap();
    tree.unlink(file).unwrap();
    let refused = refusal(site.work(&site.root, &one, Shard::ALL));
    assert!(refused.ends_with("missing: the run that it replaces stays"), "{refused}");
    // As the hint says.
    site.agree(Operation::Rekey { runs: vec![run] });
    let again = site.chain.replaced_by(&run).find(|other| other.new != one.new).unwrap().clone();
    seal::find(&site.root, &run, &*seen(&site)).unwrap().unwrap();
    site.work(&site.root, &again, Shard::ALL).unwrap();
    take_away(&site.root, &one.new);
    assert_eq!(waiting(&site.root, site.chain.replacements()).unwrap(), []);
    seal::find(&site.root, &again.new, &*seen(&site)).unwrap().unwrap();
    let remembers = seen(&site);
    let told = undone(&site.root, &site.chain, &|run| remembers.seal_seen(run).is_some()).unwrap();
    assert_eq!(told, []);
    assert_eq!(site.contents(&site.root, b"run"), before);
    site.assert_sound(&site.root, &again.new);
}

/// A rotation and a revocation between the line and the work: the new run is sealed to whom there is in the end.
#[test]
fn what_changes_meanwhile_counts() {
    let mut site = Site::new();
    let run = site.sealed(b"run");
    let guest = site.add_reader("guest", false);
    site.agree(Operation::Grant { reader: guest.id(), runs: vec![run] });
    let one = site.agree_on(run);
    let stale = Chain::load(&site.root).unwrap();
    site.agree(Operation::Revoke { reader: guest.id(), runs: vec![run] });
    site.agree(Operation::Rotate { epoch: 2 });
    let worker = site.worker(&one);
    // The worker's process began before.
    let authority = Acting::open(&site.root, stale, &worker).unwrap();
    let (root, grace) = (&site.root, Duration::ZERO);
    let job = Job {
        root,
        authority: &*authority,
        worker: &worker,
        old: one.run,
        new: one.new,
        grace,
        waits: &|| (),
    };
    rekey(&job, Shard::ALL, &|_, _| ()).unwrap();
    assert_eq!(names_of(&site.root, &one.new), ["vault-2"]);
    site.assert_sound(&site.root, &one.new);
}

/// While both runs are there, by whatever name they are called, they are one.
#[test]
fn what_is_said_of_the_new_run_counts_while_the_old_one_is_there() {
    let mut site = Site::new();
    let standing = site.add_reader("standing", true);
    let (late, guest) = (site.add_reader("late", false), site.add_reader("guest", false));
    let run = site.sealed(b"run");
    site.agree(Operation::Grant { reader: guest.id(), runs: vec![run] });
    let one = site.agree_on(run);
    site.root = site.both(&one);
    let of = |reader: &Identity| format!("reader-{}", reader.id());
    assert!(names_of(&site.root, &one.new).contains(&of(&standing)));
    site.agree(Operation::Revoke { reader: standing.id(), runs: vec![one.new] });
    site.agree(Operation::Revoke { reader: guest.id(), runs: vec![run] });
    site.agree(Operation::Grant { reader: late.id(), runs: vec![one.new] });
    for reader in [&standing, &guest] {
        for run in [&run, &one.new] {
            assert!(!names_of(&site.root, run).contains(&of(reader)), "neither opens to it");
        }
        assert_eq!(site.may_open(reader, [&run, &one.new]), [false, false]);
    }
    site.work(&site.root, &one, Shard::ALL).unwrap();
    assert_eq!(names_of(&site.root, &one.new), [of(&late), "vault-1".into()], "nothing is undone");
}

/// Also a run that has not got its name yet is closed to who is removed, or whose run is taken away.
#[test]
fn a_reader_that_goes_is_not_in_a_run_that_is_on_its_way() {
    let mut site = Site::new();
    let (removed, revoked) = (site.add_reader("removed", true), site.add_reader("revoked", true));
    let run = site.sealed(b"run");
    let one = site.agree_on(run);
    let keys = || {
        site.root
            .open_dir(b"runs")
            .unwrap()
            .open_dir(runs::coming_place(&one.new).as_bytes())
            .unwrap()
            .open_dir(b"keys")
    };
    for reader in [&removed, &revoked] {
        put(&keys().unwrap(), &format!("reader-{}", reader.id()), b"an envelope");
    }
    let (root, names) = (site.root.clone(), |dir: &Arc<dyn Dir>| crate::layout::names(dir, "keys").unwrap());
    let keys = keys().unwrap();
    site.agree(Operation::RemoveReader { reader: removed.id() });
    assert_eq!(names(&keys).len(), 2);
    site.agree(Operation::Revoke { reader: revoked.id(), runs: vec![run] });
    assert_eq!(names(&keys), [format!("worker-{}", one.worker).into_bytes()]);
    assert_eq!(names_of(&root, &run), ["vault-1".to_owned(), format!("worker-{}", one.worker)]);
}

/// What has the name of an envelope and is none keeps no other from going.
#[test]
fn a_reader_goes_from_all_runs_but_one_where_a_directory_has_its_name() {
    let mut site = Site::new();
    let reader = site.add_reader("reader", true);
    let (name, runs) =
        (format!("reader-{}", reader.id()), [site.sealed(b"1"), site.sealed(b"2"), site.sealed(b"3")]);
    let keys = |run| run_dir(&site.root, run).open_dir(b"keys").unwrap();
    for planted in &runs {
        let root = copy(&site.root);
        let keys = |run| run_dir(&root, run).open_dir(b"keys").unwrap();
        keys(planted).unlink(name.as_bytes()).unwrap();
        keys(planted).create_dir(name.as_bytes(), DIR_MODE).unwrap();
        let passing = root.open_dir(b"runs").unwrap();
        passing.create_dir(runs::gone_place(planted).as_bytes(), DIR_MODE).unwrap();
        let passing = passing.open_dir(runs::gone_place(planted).as_bytes()).unwrap();
        passing.create_dir(b"keys", DIR_MODE).unwrap();
        passing.open_dir(b"keys").unwrap().create_dir(name.as_bytes(), DIR_MODE).unwrap();
        let op = Operation::RemoveReader { reader: reader.id() };
        let (_, summary) = alone::act(&root, &site.chain, &site.owner, op, "a test", &mut |_, _| {}).unwrap();
        let failed: Vec<_> = summary.failed.iter().map(|(run, _)| *run).collect();
        assert_eq!(failed, [*planted]);
        for run in runs.iter().filter(|run| *run != planted) {
            assert_eq!(names_of(&root, run), ["vault-1"]);
        }
    }
    assert!(runs.iter().all(|run| keys(run).stat(name.as_bytes()).is_ok()));
}

/// Sealed under a state that custody/ was made anew without, in which another one has its number.
#[test]
fn who_was_a_standing_reader_is_told_by_the_state_and_not_by_its_number() {
    let mut site = Site::new();
    let before = copy(&custody(&site.root));
    site.add_reader("forgotten", true);
    let (run, sealed_at) = (site.sealed(b"run"), site.chain.state_ref());
    site.root.rename(b"custody", &*site.root, b"lost", Rename::Over).unwrap();
    site.root.create_dir(b"custody", DIR_MODE).unwrap();
    copy_to(&before, &custody(&site.root));
    site.chain = Chain::load(&site.root).unwrap();
    site.add_reader("never", true);
    assert_eq!(site.chain.state_ref().n, sealed_at.n);
    let guest = site.add_reader("guest", true);
    site.agree(Operation::Grant { reader: guest.id(), runs: vec![run] });
    let one = site.agree_on(run);
    site.work(&site.root, &one, Shard::ALL).unwrap();
    assert_eq!(names_of(&site.root, &one.new), [format!("reader-{}", guest.id()), "vault-1".into()]);
}

/// A kill after the old run is gone, before the last of the worker's keys is.
#[test]
fn what_is_left_of_the_worker_is_left_to_do() {
    let (mut site, run, one) = Site::agreed();
    site.root = site.both(&one);
    take_away(&site.root, &run);
    let dir = run_dir(&site.root, &one.new);
    assert_eq!(left(&site.root, &one).unwrap(), Left::Rest);
    let start = copy(&site.root);
    site.work(&site.root, &one, Shard::ALL).unwrap();
    assert_eq!(names_of(&site.root, &one.new), ["vault-1"]);
    assert!(crate::layout::names(&dir, "").unwrap().iter().all(|name| !name.starts_with(WORKER_SEED)));
    assert_eq!(left(&site.root, &one).unwrap(), Left::Nothing);
    // Only the one, and only the other.
    let keys = run_dir(&start, &one.new).open_dir(b"keys").unwrap();
    keys.unlink(format!("worker-{}", one.worker).as_bytes()).unwrap();
    assert_eq!(left(&start, &one).unwrap(), Left::Rest);
    put(&run_dir(&site.root, &one.new).open_dir(b"keys").unwrap(), &format!("worker-{}", one.worker), b"");
    assert_eq!(left(&site.root, &one).unwrap(), Left::Rest);
    // Nobody has a key for what was put there, and none is needed.
    for root in [&start, &site.root] {
        assert_eq!(cleared(root, &site.chain).unwrap(), 1);
        assert_eq!((left(root, &one).unwrap(), cleared(root, &site.chain).unwrap()), (Left::Nothing, 0));
        site.assert_sound(root, &one.new);
    }
}

/// Nobody has a key any more, and none is needed to take away what somebody put in the old run's place once it is done.
#[test]
fn what_is_put_in_the_place_of_what_was_left_is_cleared() {
    let (site, run, one) = Site::agreed();
    site.work(&site.root, &one, Shard::ALL).unwrap();
    let (runs, gone) = (site.root.open_dir(b"runs").unwrap(), runs::gone_place(&run));
    let names = || crate::layout::names(&runs, RUNS).unwrap();
    let directory = || {
        runs.create_dir(gone.as_bytes(), DIR_MODE).unwrap();
        put(&runs.open_dir(gone.as_bytes()).unwrap(), "run.json", b"x");
    };
    for plant in [&directory as &dyn Fn(), &|| put(&runs, &gone, b"x")] {
        plant();
        assert_eq!(left(&site.root, &one).unwrap(), Left::Rest);
        assert_eq!(cleared(&site.root, &site.chain).unwrap(), 1);
        assert_eq!((left(&site.root, &one).unwrap(), names().len()), (Left::Nothing, 1));
        site.assert_sound(&site.root, &one.new);
    }
    // What no run stands for is nobody's to remove.
    directory();
    run_dir(&site.root, &one.new).open_dir(b"seal").unwrap().unlink(b"seal.note").unwrap();
    assert_eq!((cleared(&site.root, &site.chain).unwrap(), names().len()), (0, 2));
    // Nor is it where the new one is damaged: the old one may have been put there.
    let (mut site, run, one) = Site::agreed();
    site.root = site.both(&one);
    take_away(&site.root, &run);
    let runs = site.root.open_dir(b"runs").unwrap();
    let gone = runs::gone_place(&run);
    runs.create_dir(gone.as_bytes(), DIR_MODE).unwrap();
    put(&runs.open_dir(gone.as_bytes()).unwrap(), "run.json", b"x");
    let dir = run_dir(&site.root, &one.new);
    for name in crate::layout::names(&dir, "").unwrap() {
        if name.starts_with(WORKER_SEED) {
            dir.unlink(&name).unwrap();
        }
    }
    dir.unlink(b"name").unwrap();
    assert_eq!((left(&site.root, &one).unwrap(), cleared(&site.root, &site.chain).unwrap()), (Left::Rest, 0));
    let told = clear(&site.root, &site.chain, &|_, _| ()).unwrap().stay;
    assert_eq!(told.len(), 1);
    assert_eq!(
        told[0].1.to_string(),
        format!("runs/{gone}: it stays: no run that took its place is there as it was sealed")
    );
    assert!(runs.open_dir(gone.as_bytes()).is_ok());
    // With an empty one nothing goes: nobody reads a run for it.
    runvault_vault::remove_dir(&*runs, gone.as_bytes()).unwrap();
    runs.create_dir(gone.as_bytes(), DIR_MODE).unwrap();
    let done = clear(&site.root, &site.chain, &|_, _| panic!("it reads")).unwrap();
    assert_eq!((done.runs, done.stay.len(), left(&site.root, &one).unwrap()), (1, 0, Left::Nothing));
    // Nor is it while the worker has not come to its end.
    let (mut site, run, one) = Site::agreed();
    site.root = site.both(&one);
    let runs = site.root.open_dir(b"runs").unwrap();
    runs.rename(run.to_string().as_bytes(), &*runs, runs::gone_place(&run).as_bytes(), Rename::Over).unwrap();
    assert_eq!(
        (left(&site.root, &one).unwrap(), cleared(&site.root, &site.chain).unwrap()),
        (Left::OldRun, 0)
    );
    site.work(&site.root, &one, Shard::ALL).unwrap();
    assert_eq!(left(&site.root, &one).unwrap(), Left::Nothing);
}

/// A kill, or somebody, left it there, and its run was re-keyed once more since.
#[test]
fn what_is_left_of_a_run_that_was_re_keyed_twice_is_told_and_cleared() {
    let mut site = Site::new();
    let run = site.sealed(b"run");
    let first = site.agree_on(run);
    site.work(&site.root, &first, Shard::ALL).unwrap();
    let second = site.agree_on(first.new);
    site.work(&site.root, &second, Shard::ALL).unwrap();
    let (runs, gone) = (site.root.open_dir(b"runs").unwrap(), runs::gone_place(&run));
    let plant = || {
        runs.create_dir(gone.as_bytes(), DIR_MODE).unwrap();
        put(&runs.open_dir(gone.as_bytes()).unwrap(), "run.json", b"x");
    };
    let waits = || waits(&site);
    assert_eq!(waits(), []);
    plant();
    assert_eq!(waits(), std::slice::from_ref(&first));
    assert_eq!((cleared(&site.root, &site.chain).unwrap(), waits()), (1, vec![]));
    // It may be all that there is.
    plant();
    run_dir(&site.root, &second.new).unlink(b"name").unwrap();
    let done = clear(&site.root, &site.chain, &|_, _| ()).unwrap();
    assert_eq!((done.runs, done.stay.len(), waits()), (0, 1, vec![first]));
}

/// Whoever has the disk removes what was prepared, and it is agreed on again.
#[test]
fn of_several_rekeyings_of_a_run_the_one_that_is_on_its_way_waits() {
    let mut site = Site::new();
    let (run, other) = (site.sealed(b"run"), site.sealed(b"other"));
    let other = site.agree_on(other);
    let runs = site.root.open_dir(b"runs").unwrap();
    // By its id it may come before the others or after.
    for _ in 0..6 {
        site.agree(Operation::Rekey { runs: vec![run] });
        let new: Vec<_> = waits(&site).into_iter().filter(|one| *one != other).collect();
        assert_eq!((new.len(), new[0].run), (1, run));
        assert!(is_coming(&site.root, &new[0]).unwrap());
        runvault_vault::remove_dir(&*runs, runs::coming_place(&new[0].new).as_bytes()).unwrap();
        assert_eq!(waits(&site).iter().filter(|one| one.run == run).count(), 1);
    }
    site.agree(Operation::Rekey { runs: vec![run] });
    let last = waits(&site).into_iter().find(|one| one.run == run).unwrap();
    site.work(&site.root, &last, Shard::ALL).unwrap();
    assert_eq!(waits(&site), [other]);
}

/// Whoever has the disk puts there what is no file of ours, or no file.
#[test]
fn what_is_planted_beside_a_run_is_cleared_whatever_it_is() {
    let (site, run, one) = Site::agreed();
    site.work(&site.root, &one, Shard::ALL).unwrap();
    let (gone, new, own) = (runs::gone_place(&run), one.new.to_string(), format!("worker-{}", one.worker));
    let dir = |path: &[&str]| {
        path.iter().fold(site.root.open_dir(b"runs").unwrap(), |dir, name| {
            let _ = dir.create_dir(name.as_bytes(), DIR_MODE);
            dir.open_dir(name.as_bytes()).unwrap()
        })
    };
    let plants: [&dyn Fn(); 4] = [
        &|| drop(dir(&[&gone, "lease", "lease"])),
        &|| put(&dir(&[&gone]), "keys", b"x"),
        &|| put(&dir(&[&new, "worker-vault-1"]), "file", b"x"),
        &|| drop(dir(&[&new, "keys", &own])),
    ];
    for plant in plants {
        plant();
        assert_eq!(left(&site.root, &one).unwrap(), Left::Rest);
        assert_eq!(cleared(&site.root, &site.chain).unwrap(), 1);
        assert_eq!(left(&site.root, &one).unwrap(), Left::Nothing);
        site.assert_sound(&site.root, &one.new);
    }
    // That is damage, and no leftover.
    runvault_vault::remove_dir(&*run_dir(&site.root, &one.new), b"keys").unwrap();
    put(&run_dir(&site.root, &one.new), "keys", b"x");
    assert_eq!(cleared(&site.root, &site.chain).unwrap(), 0);
    assert_eq!(waiting(&site.root, site.chain.replacements()).unwrap(), []);
}

#[test]
fn what_cannot_be_cleared_beside_one_run_keeps_no_other_from_it() {
    let mut site = Site::new();
    let mut runs = [site.sealed(b"one"), site.sealed(b"other")];
    runs.sort();
    site.agree(Operation::Rekey { runs: runs.to_vec() });
    let work = runs.map(|run| site.chain.replaced_by(&run).last().unwrap().clone());
    for of in &work {
        site.work(&site.root, of, Shard::ALL).unwrap();
        put(&site.root.open_dir(b"runs").unwrap(), &runs::gone_place(&of.run), b"x");
    }
    // Which comes first is the chain's matter: one and the other stays.
    for (stays, goes) in [(&work[0], &work[1]), (&work[1], &work[0])] {
        let (root, faults) = Faults::over(copy(&site.root)).unwrap();
        let name = Some(runs::gone_place(&stays.run).into_bytes());
        faults.add(Rule { name, ..Rule::every(Op::Unlink, Fault::Fail(libc::EIO)) });
        assert_eq!(cleared(&root, &site.chain).unwrap(), 1);
        assert_eq!(left(&root, stays).unwrap(), Left::Rest);
        assert_eq!(left(&root, goes).unwrap(), Left::Nothing);
    }
}

/// Killed after its directory was made, before anything was in it; or somebody made it.
#[test]
fn what_is_empty_is_not_on_its_way() {
    let (mut site, run, one) = Site::agreed();
    let runs = site.root.open_dir(b"runs").unwrap();
    runvault_vault::remove_dir(&*runs, runs::coming_place(&one.new).as_bytes()).unwrap();
    runs.create_dir(runs::coming_place(&one.new).as_bytes(), DIR_MODE).unwrap();
    let told = |root: &Arc<dyn Dir>, chain: &Chain| undone(root, chain, &|_| false).unwrap();
    assert_eq!(told(&site.root, &site.chain), [Undone { of: one.clone(), seen: None }]);
    // Signed by another one, it is no better.
    let coming = runs.open_dir(runs::coming_place(&one.new).as_bytes()).unwrap();
    put(&coming, "run.json", &get(&run_dir(&site.root, &run), "run.json"));
    assert_eq!(told(&site.root, &site.chain), [Undone { of: one.clone(), seen: None }]);
    // It is agreed on again, and that one is on its way.
    site.agree(Operation::Rekey { runs: vec![run] });
    let again = site.chain.replaced_by(&run).find(|other| other.new != one.new).unwrap().clone();
    assert_eq!(told(&site.root, &site.chain), []);
    assert!(matches!(check(&site.root, &site.chain, &run), Err(Error::UnderWay { .. })));
    site.work(&site.root, &again, Shard::ALL).unwrap();
    assert_eq!(waiting(&site.root, site.chain.replacements()).unwrap(), []);
}

/// The old run is put back from a copy of before, and the new one taken away.
#[test]
fn a_re_keying_that_was_undone_is_told() {
    let mut site = Site::new();
    let run = site.sealed(b"run");
    let old = copy(&run_dir(&site.root, &run));
    let one = site.agree_on(run);
    let (nobody, nothing) = (|_: &RunId| false, Vec::<Undone>::new());
    let told = |root: &Arc<dyn Dir>, seen: &dyn Fn(&RunId) -> bool| undone(root, &site.chain, seen).unwrap();
    assert_eq!(told(&site.root, &nobody), nothing, "it is on its way");
    let coming = runs::coming_place(&one.new);
    let runs = site.root.open_dir(b"runs").unwrap();
    runs.rename(coming.as_bytes(), &*site.root, b"aside", Rename::Over).unwrap();
    assert_eq!(told(&site.root, &nobody), [Undone { of: one.clone(), seen: None }], "it never began");
    site.root.rename(b"aside", &*runs, coming.as_bytes(), Rename::Over).unwrap();
    assert_eq!(told(&site.both(&one), &nobody), nothing);

    // A machine that has seen the new one, by whatever it did; the worker's own has too.
    let state = tempfile::tempdir().unwrap();
    std::fs::create_dir(state.path().join(site.chain.vault_id().to_string())).unwrap();
    let remembering = |identity: &Identity| {
        Remembering::over(Acting::open(&site.root, site.chain.clone(), identity).unwrap(), state.path())
    };
    let worker = site.worker(&one);
    let authority = remembering(&worker);
    let (root, grace) = (&site.root, Duration::ZERO);
    let job =
        Job { root, authority: &*authority, worker: &worker, old: run, new: one.new, grace, waits: &|| () };
    rekey(&job, Shard::ALL, &|_, _| ()).unwrap();
    assert_eq!(told(&site.root, &nobody), nothing);
    let new_run_json = get(&run_dir(&site.root, &one.new), "run.json");
    take_away(&site.root, &one.new);
    runs.create_dir(run.to_string().as_bytes(), DIR_MODE).unwrap();
    copy_to(&old, &run_dir(&site.root, &run));
    let authority = remembering(&site.owner);
    let seen = |run: &RunId| authority.seal_seen(run).is_some();
    assert_eq!(told(&site.root, &nobody), [Undone { of: one.clone(), seen: None }]);
    // What was on its way then deceives nobody who has seen it there.
    runs.create_dir(coming.as_bytes(), DIR_MODE).unwrap();
    put(&runs.open_dir(coming.as_bytes()).unwrap(), "run.json", &new_run_json);
    assert_eq!(told(&site.root, &nobody), nothing);
    assert_eq!(told(&site.root, &seen), [Undone { of: one.clone(), seen: Some(one.new) }]);
    runvault_vault::remove_dir(&*runs, coming.as_bytes()).unwrap();
    // Nor does an empty directory in its place.
    runs.create_dir(one.new.to_string().as_bytes(), DIR_MODE).unwrap();
    assert_eq!(told(&site.root, &seen), [Undone { of: one.clone(), seen: Some(one.new) }]);
    assert!(refusal(seal::find(&site.root, &run, &*authority)).contains("its re-keying was undone"));
    runs.remove_dir(one.new.to_string().as_bytes()).unwrap();
    // It does not open there: not in a mount, not to be verified.
    let refused = refusal(seal::find(&site.root, &run, &*authority));
    assert!(refused.contains("its re-keying was undone"), "{refused}");
    let found = Seal::load(&site.root, &run, &*authority).unwrap();
    assert!(refusal(seal::verify(&site.root, &found, &*authority, &Anew, &mut |_, _| ())).contains("undone"));
    let open = |authority| Vault::open(site.root.clone(), authority, None, Options::default()).unwrap();
    let vault = open(authority.clone());
    assert!(vault.lookup(ROOT, b"run").is_err());
    assert_eq!(vault.left_out().iter().map(|(run, _)| *run).collect::<Vec<_>>(), [run]);
    vault.close().unwrap();
    let vault = open(Acting::open(&site.root, site.chain.clone(), &site.owner).unwrap());
    vault.lookup(ROOT, b"run").unwrap();
    vault.close().unwrap();

    // The way out, where the new one is lost: once more.
    site.agree(Operation::Rekey { runs: vec![run] });
    let again = site.chain.replaced_by(&run).find(|other| other.new != one.new).unwrap().clone();
    site.work(&site.root, &again, Shard::ALL).unwrap();
    site.assert_sound(&site.root, &again.new);
    assert_eq!(undone(&site.root, &site.chain, &nobody).unwrap(), nothing);
}

#[test]
fn an_id_that_is_there_is_not_chosen() {
    let (there, free) = (RunId([1; 16]), RunId([2; 16]));
    let mut drawn = [there, there, free].into_iter();
    let id = fresh(&mut || Ok(drawn.next().unwrap()), &|id| Ok(*id == there)).unwrap();
    assert_eq!(id, free);
}

/// Twice, and each key is told of those runs that it opens in one of the copies that there ever were.
#[test]
fn keys_are_told_the_truth_of_a_run_that_was_re_keyed_twice() {
    let mut site = Site::new();
    let readers = ["standing", "guest", "second", "late", "never"];
    let standing = site.add_reader("standing", true);
    let bob = Identity::generate("bob").unwrap();
    site.agree(Operation::AddCustodian { custodian: Custodian::new("bob", &bob.public()) });
    let run = site.sealed(b"run");
    let [guest, second] = ["guest", "second"].map(|label| site.add_reader(label, false));
    let [late, never] = ["late", "never"].map(|label| site.add_reader(label, label == "late"));
    let mut copies = vec![copy(&site.root)];
    site.agree(Operation::Grant { reader: guest.id(), runs: vec![run] });
    copies.push(copy(&site.root));
    site.agree(Operation::Revoke { reader: guest.id(), runs: vec![run] });
    site.agree(Operation::RemoveCustodian { custodian: bob.id() });
    let first = site.agree_on(run);
    site.work(&site.root, &first, Shard::ALL).unwrap();
    copies.push(copy(&site.root));
    site.agree(Operation::Grant { reader: second.id(), runs: vec![first.new] });
    copies.push(copy(&site.root));
    site.agree(Operation::RemoveReader { reader: standing.id() });
    let last = site.agree_on(first.new);
    site.work(&site.root, &last, Shard::ALL).unwrap();
    copies.push(copy(&site.root));
    let told = |root: &Arc<dyn Dir>, key: &IdentityId| -> BTreeSet<RunId> {
        let said = exposure(root, &site.chain, key, (None, None), &mut |_, _| {}).unwrap();
        said.runs.iter().map(|one| one.run).collect()
    };
    for (reader, label) in [&standing, &guest, &second, &late, &never].into_iter().zip(readers) {
        let truth: BTreeSet<RunId> = copies.iter().flat_map(|root| read_by(root, reader)).collect();
        assert_eq!(told(&site.root, &reader.id()), truth, "{label}");
    }
    assert_eq!(told(&site.root, &standing.id()), BTreeSet::from([run, first.new]));
    // The machine that wrote it, and who was a custodian, had the first key alone.
    for key in [site.gateway.id(), bob.id()] {
        assert_eq!(told(&site.root, &key), BTreeSet::from([run]));
    }
    assert_eq!(told(&site.root, &site.owner.id()), BTreeSet::from([run, first.new, last.new]));
    // Nothing is left of it: the log tells, and where it cannot all count.
    take_away(&site.root, &last.new);
    assert_eq!(told(&site.root, &bob.id()), BTreeSet::from([run]));
    assert_eq!(told(&site.root, &site.owner.id()), BTreeSet::from([run, first.new, last.new]));
    assert!(told(&site.root, &second.id()).is_superset(&BTreeSet::from([first.new, last.new])));
}

/// Until it is done a run is not re-keyed twice, and an open one not at all.
#[test]
fn one_rekeying_at_a_time() {
    let (site, run, one) = Site::agreed();
    assert!(matches!(check(&site.root, &site.chain, &run), Err(Error::UnderWay { .. })));
    let again = alone::act(
        &site.root,
        &site.chain,
        &site.owner,
        Operation::Rekey { runs: vec![run] },
        "",
        &mut |_, _| {},
    );
    assert!(matches!(again, Err(Error::UnderWay { .. })));
    site.work(&site.root, &one, Shard::ALL).unwrap();
    assert!(worker_of(&site.root, &site.chain, &site.owner, &one).unwrap().is_none(), "no key is left");
}

#[test]
fn whoever_had_the_old_run_is_told_after_it_was_re_keyed() {
    let mut site = Site::new();
    let (lab, bob) = (site.add_reader("lab", true), Identity::generate("bob").unwrap());
    site.agree(Operation::AddCustodian { custodian: Custodian::new("bob", &bob.public()) });
    let run = site.sealed(b"R");
    site.agree(Operation::RemoveReader { reader: lab.id() });
    site.agree(Operation::RemoveCustodian { custodian: bob.id() });
    let keys =
        [(lab.id(), As::Reader), (bob.id(), As::Custodian { others: 0 }), (site.gateway.id(), As::Gateway)];
    let told = |site: &Site, root: &Arc<dyn Dir>, key: &IdentityId| -> Vec<(RunId, Opens, As)> {
        let said = exposure(root, &site.chain, key, (None, None), &mut |_, _| {}).unwrap();
        said.runs.iter().map(|one| (one.run, one.opens, one.by)).collect()
    };
    // The seal's own envelope is to the key of its time.
    let before = |by| if matches!(by, As::Custodian { .. }) { Opens::Now } else { Opens::Then };
    for (key, by) in &keys {
        assert_eq!(told(&site, &site.root, key), [(run, before(*by), *by)]);
    }
    let of = site.agree_on(run);
    site.work(&site.root, &of, Shard::ALL).unwrap();
    for (key, by) in &keys {
        assert_eq!(told(&site, &site.root, key), [(run, Opens::Then, *by)]);
    }
    // Nothing is left that says whose it was: everybody counts.
    take_away(&site.root, &of.new);
    for (key, by) in &keys {
        assert_eq!(told(&site, &site.root, key), [(run, Opens::Then, *by)]);
    }
}
