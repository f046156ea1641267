//! A state folder through restarts, kills and restores.

use runvault_store::doubles::memory::MemoryDir;

use runvault_format::descriptor::RunDescriptor;
use runvault_format::note::Note;

use super::*;
use crate::testing::{
    begin, copy, draw_run, enrolled, get, killed_at, make_run, put, seal, store_run, vault,
};

fn reopen(folder: &Arc<dyn Dir>, chain: &Chain) -> Result<StateFolder> {
    StateFolder::on(Folder::on(folder.clone()), chain.vault_id())
}

/// A seal's note, and its text hash.
fn parse_seal(gateway: &StateFolder, note: &[u8]) -> (SealNote, Digest) {
    let pending = gateway.place().parse_seal(note.to_vec(), &gateway.identity).unwrap();
    (pending.seal, pending.hash)
}

/// An enrolled gateway and the directory that its folder lies in.
fn gateway() -> (Arc<dyn Dir>, Chain, Arc<dyn Dir>) {
    let (root, owner, mut chain) = vault();
    let folder = MemoryDir::root();
    let gateway = reopen(&folder, &chain).unwrap();
    let refused = gateway.require_enrolled(&chain).unwrap_err();
    assert!(matches!(refused, Error::NotEnrolled { .. }));
    gateway.enroll(&root, &mut chain, &owner).unwrap();
    gateway.require_enrolled(&chain).unwrap();
    (root, chain, folder)
}

#[test]
fn one_identity_and_its_runs_survive_a_restart() {
    let (root, chain, folder) = gateway();
    let first = reopen(&folder, &chain).unwrap();
    let (run, key) = make_run(&root, &chain, &first);
    let second = reopen(&folder, &chain).unwrap();
    assert_eq!((first.id(), first.holder()), (second.id(), second.id().to_string()));
    assert_eq!(second.held().unwrap(), [run]);
    assert_eq!(second.resume(&run).unwrap().unwrap().key.0.expose(), key.0.expose());
    assert_eq!(second.settle(&root).unwrap(), Settled::default());
    second.release(&run).unwrap();
    second.release(&run).unwrap();
    assert!(second.held().unwrap().is_empty() && second.resume(&run).unwrap().is_none());
}

#[test]
fn runs_are_numbered_and_chained() {
    let (root, chain, folder) = gateway();
    let gateway = reopen(&folder, &chain).unwrap();
    let mut prev = None;
    for seq in 1..4 {
        let (run, _) = make_run(&root, &chain, &gateway);
        let dir = root.open_dir(b"runs").unwrap().open_dir(run.to_string().as_bytes()).unwrap();
        let note = get(&dir, "run.json");
        let signed = parse_own(note.clone(), &gateway.identity).unwrap();
        assert_eq!((signed.head.seq, signed.prev), (seq, prev));
        prev = Some(signed.head.hash);
        let other = Identity::generate("other").unwrap();
        assert_eq!(parse_own(note, &other).err(), Some(runvault_format::Error::Unsigned));
    }
}

/// Killed at each call of its folder while it makes a run, a gateway uses no number twice.
#[test]
fn a_run_begun_and_killed_is_adopted_or_retired() {
    let (start, chain, start_folder) = gateway();
    for stored in [false, true] {
        for n in 0.. {
            let (root, folder) = (copy(&start), copy(&start_folder));
            fix_modes(&folder);
            let (run, resume) = draw_run();
            let killed = killed_at(&folder, n, |folder| {
                let gateway = reopen(folder, &chain)?;
                let mut text = |place| {
                    Ok(crate::testing::descriptor(&chain, &gateway, &run, &resume.key, place).to_text()?)
                };
                let note = gateway.begin_run(&run, &resume, &mut text)?;
                if stored {
                    store_run(&root, &chain, &run, &resume.key, &note);
                }
                Ok(gateway.commit_run(&run)?)
            });
            let in_store = root.open_dir(b"runs").unwrap().stat(run.to_string().as_bytes()).is_ok();
            let again = reopen(&folder, &chain).unwrap();
            let settled = again.settle(&root).unwrap();
            if let Some(adopted) = settled.adopted {
                assert!(in_store && adopted == run);
            }
            if let Some(retired) = settled.retired {
                let note = get(&root.open_dir(b"retired").unwrap(), &retired.to_string());
                let text = Note::parse(&note).unwrap();
                let text = text.verify(&again.id(), &again.identity.keys.sign.public()).unwrap();
                let said = Retired::parse_text(&text).unwrap();
                assert_eq!((said.run, said.seq, said.prev), (run, 1, None));
                assert!(!in_store && again.held().unwrap().is_empty());
            }
            if in_store {
                assert_eq!(again.held().unwrap(), [run], "stored {stored}, call {n}");
            }
            let used = u64::from(in_store || settled.retired.is_some() || (!stored && killed.is_none()));
            let (next, resume) = draw_run();
            let note = begin(&chain, &again, &next, &resume);
            let seq = parse_own(note, &again.identity).unwrap().head.seq;
            assert!(seq > used && seq <= 2, "stored {stored}, call {n}: {seq} after {used}");
            if killed.is_none() {
                break;
            }
        }
    }
}

/// The memory double's copy makes files of mode 0644; secrets have 0600.
fn fix_modes(folder: &Arc<dyn Dir>) {
    folder.set_mode(b"identity", 0o600).unwrap();
    let kek = folder.open_dir(b"kek").unwrap();
    kek.set_mode(b"1", 0o600).unwrap();
}

#[test]
fn a_restored_folder_counts_the_runs_that_it_forgot() {
    let (root, chain, folder) = gateway();
    let old = copy(&folder);
    fix_modes(&old);
    let first = reopen(&folder, &chain).unwrap();
    let (sealed, _) = make_run(&root, &chain, &first);
    make_run(&root, &chain, &first);
    seal(&root, &first, &sealed);
    let restored = reopen(&old, &chain).unwrap();
    assert!(restored.settle(&root).unwrap().restored);
    assert!(!restored.settle(&root).unwrap().restored);
    let (run, resume) = draw_run();
    let note = begin(&chain, &restored, &run, &resume);
    assert_eq!(parse_own(note, &restored.identity).unwrap().head.seq, 3);
}

#[test]
fn a_second_begin_settles_the_first_one() {
    let (root, chain, folder) = gateway();
    let gateway = reopen(&folder, &chain).unwrap();
    gateway.settle(&root).unwrap();
    let (first, resume) = draw_run();
    begin(&chain, &gateway, &first, &resume);
    // The store was full: the run never came to be.
    let (second, resume) = draw_run();
    let note = begin(&chain, &gateway, &second, &resume);
    assert_eq!(parse_own(note, &gateway.identity).unwrap().head.seq, 2);
    assert!(root.open_dir(b"retired").unwrap().stat(first.to_string().as_bytes()).is_ok());
    assert!(gateway.commit_run(&first).is_err());
    gateway.commit_run(&second).unwrap();
    assert!(gateway.commit_run(&second).is_err());
}

#[test]
fn a_store_that_is_read_only_or_full_is_settled_later() {
    for errno in [libc::EROFS, libc::ENOSPC, libc::EDQUOT] {
        settled_later(errno);
    }
}

fn settled_later(errno: i32) {
    use runvault_store::doubles::faulty::{Fault, Faults, Rule};
    use runvault_store::doubles::observe::Op;
    let (root, chain, folder) = gateway();
    let (run, resume) = draw_run();
    begin(&chain, &reopen(&folder, &chain).unwrap(), &run, &resume);
    let (refusing, faults) = Faults::over(root.clone()).unwrap();
    faults.add(Rule::every(Op::CreateFile, Fault::Fail(errno)));
    let again = reopen(&folder, &chain).unwrap();
    assert_eq!(again.settle(&refusing).unwrap(), Settled::default());
    let (next, resume) = draw_run();
    let mut text =
        |place| Ok(crate::testing::descriptor(&chain, &again, &next, &resume.key, place).to_text()?);
    assert!(again.begin_run(&next, &resume, &mut text).is_err());
    drop(again);
    assert_eq!(reopen(&folder, &chain).unwrap().settle(&root).unwrap().retired, Some(run));
}

#[test]
fn another_runs_text_is_not_signed() {
    let (root, chain, folder) = gateway();
    let gateway = reopen(&folder, &chain).unwrap();
    gateway.settle(&root).unwrap();
    let ((run, resume), (other, _)) = (draw_run(), draw_run());
    let mut text =
        |place| Ok(crate::testing::descriptor(&chain, &gateway, &other, &resume.key, place).to_text()?);
    assert!(gateway.begin_run(&run, &resume, &mut text).is_err());
    let (made, _) = make_run(&root, &chain, &gateway);
    let dir = root.open_dir(b"runs").unwrap().open_dir(made.to_string().as_bytes()).unwrap();
    let note = get(&dir, "run.json");
    gateway.retire_run(&made, &note, "2026-01-31T23:59:59Z").unwrap();
    assert!(gateway.retire_run(&run, &note, "2026-01-31T23:59:59Z").is_err());
}

#[test]
fn resume_entries_open_in_their_place_only() {
    let (root, chain, folder) = gateway();
    let gateway = reopen(&folder, &chain).unwrap();
    let (one, _) = make_run(&root, &chain, &gateway);
    let (two, _) = make_run(&root, &chain, &gateway);
    let entries = folder.open_dir(b"resume").unwrap().open_dir(b"1").unwrap();
    let (kept, moved) = (get(&entries, &two.to_string()), get(&entries, &one.to_string()));
    put(&entries, &two.to_string(), &moved);
    assert!(gateway.resume(&two).err().unwrap().to_string().contains("does not authenticate"));
    put(&entries, &two.to_string(), &kept);
    gateway.resume(&two).unwrap().unwrap();
    // Without their key the entries are lost, and a new one would hide that.
    let kek = folder.open_dir(b"kek").unwrap();
    put(&kek, "1", &[1; 32]);
    kek.set_mode(b"1", 0o600).unwrap();
    assert!(reopen(&folder, &chain).unwrap().resume(&one).is_err());
    kek.unlink(b"1").unwrap();
    let refused = reopen(&folder, &chain).unwrap_err();
    assert!(matches!(&refused, Error::Damaged { why, .. } if why.contains("missing")), "{refused}");
}

#[test]
fn readable_secrets_and_foreign_folders_are_refused() {
    let (_, chain, folder) = gateway();
    folder.set_mode(b"identity", 0o640).unwrap();
    assert!(matches!(reopen(&folder, &chain), Err(Error::Permissions { mode: 0o640, .. })));
    folder.set_mode(b"identity", 0o600).unwrap();
    let kek = folder.open_dir(b"kek").unwrap();
    kek.set_mode(b"1", 0o604).unwrap();
    assert!(matches!(reopen(&folder, &chain), Err(Error::Permissions { mode: 0o604, .. })));
    kek.set_mode(b"1", 0o600).unwrap();
    let (_, _, other) = vault();
    let refused = reopen(&folder, &other).unwrap_err();
    assert!(matches!(&refused, Error::Damaged { why, .. } if why == "of another vault"), "{refused}");
    for file in ["identity", "head", "pending"] {
        let store = copy(&folder);
        fix_modes(&store);
        put(&store, file, b"{\"seq\":");
        store.set_mode(file.as_bytes(), 0o600).unwrap();
        let refused = reopen(&store, &chain).unwrap_err();
        assert!(
            matches!(&refused, Error::Damaged { object, .. } if object.ends_with(file)),
            "{file}: {refused}"
        );
    }
}

#[test]
fn one_process_at_a_time_and_the_other_is_told_whom() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, chain) = vault();
    let first = StateFolder::open(dir.path(), chain.vault_id()).unwrap();
    let pid = std::process::id();
    let refused = StateFolder::open(dir.path(), chain.vault_id()).unwrap_err();
    assert!(matches!(&refused, Error::Busy { pid: found, mountpoint: None } if *found == pid), "{refused}");
    first.note_mountpoint(Path::new("/mnt/with a space")).unwrap();
    let refused = StateFolder::open(dir.path(), chain.vault_id()).unwrap_err();
    assert!(refused.to_string().ends_with("mounted at /mnt/with a space"), "{refused}");
    drop(first);
    StateFolder::open(dir.path(), chain.vault_id()).unwrap();
}

/// A process that was killed holds the lock until its last call to the store has ended.
#[test]
fn a_killed_holder_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, chain) = vault();
    let held = StateFolder::open(dir.path(), chain.vault_id()).unwrap();
    let mut killed = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    killed.kill().unwrap();
    let lock = dir.path().join(chain.vault_id().to_string()).join("lock");
    std::fs::write(lock, format!("{}\n", killed.id())).unwrap();
    let letting_go = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(held);
    });
    StateFolder::open(dir.path(), chain.vault_id()).unwrap();
    letting_go.join().unwrap();
    killed.wait().unwrap();
}

#[test]
fn enrolling_twice_adds_no_line() {
    let (root, owner, mut chain) = vault();
    let gateway = enrolled(&root, &mut chain, &owner);
    let head = chain.head();
    gateway.enroll(&root, &mut chain, &owner).unwrap();
    assert_eq!(chain.head(), head);
    let other = StateFolder::on(Folder::on(MemoryDir::root()), chain.vault_id()).unwrap();
    let stranger = Identity::generate("stranger").unwrap();
    let refused = other.enroll(&root, &mut chain, &stranger).unwrap_err();
    assert!(matches!(refused, Error::NotEnrolled { .. }), "{refused}");
}

/// What a seal's note says of a run, at its place.
fn seal_text(gateway: &StateFolder, run: RunId, place: SealPlace) -> String {
    use runvault_format::ids::FileId;
    SealNote {
        run,
        run_note: Digest([1; 32]),
        gateway: gateway.id(),
        n: place.n,
        prev: place.prev,
        state: runvault_format::descriptor::StateRef { n: 1, hash: Digest([2; 32]) },
        files: 1,
        bytes: 2,
        manifest_sha256: Digest([3; 32]),
        manifest_id: FileId([4; 32]),
        pins_id: FileId([5; 32]),
        digests_sha256: Digest([6; 32]),
        sealed: "2026-11-24T06:00:00Z".into(),
    }
    .to_text()
    .unwrap()
}

/// The note is in the store, as the engine puts it there.
fn store_seal(root: &Arc<dyn Dir>, run: &RunId, note: &[u8]) {
    let dir = root.open_dir(b"runs").unwrap().open_dir(run.to_string().as_bytes()).unwrap();
    dir.create_dir(b"seal", 0o755).unwrap();
    put(&dir.open_dir(b"seal").unwrap(), "seal.note", note);
}

fn begin_seal(gateway: &StateFolder, run: RunId) -> Vec<u8> {
    gateway.begin_seal(&run, &mut |place| Ok(seal_text(gateway, run, place))).unwrap()
}

#[test]
fn seals_are_numbered_and_chained_and_named_by_later_runs() {
    let (root, chain, folder) = gateway();
    let gateway = reopen(&folder, &chain).unwrap();
    let mut prev = None;
    for n in 1..4 {
        let (run, _) = make_run(&root, &chain, &gateway);
        let note = begin_seal(&gateway, run);
        let (seal, hash) = parse_seal(&gateway, &note);
        assert_eq!((seal.n, seal.prev), (n, prev));
        store_seal(&root, &run, &note);
        gateway.commit_seal(&run, b"run").unwrap();
        assert!(gateway.commit_seal(&run, b"run").is_err(), "once");
        prev = Some(hash);
    }
    let again = reopen(&folder, &chain).unwrap();
    again.settle(&root).unwrap();
    let (run, resume) = draw_run();
    let note = begin(&chain, &again, &run, &resume);
    let parsed = Note::parse(&note).unwrap();
    let made = RunDescriptor::parse_text(parsed.text).unwrap();
    assert_eq!((made.seals.n, made.seals.hash), (3, prev));
    // One that never came into the store gives its number back.
    let pending = begin_seal(&again, run);
    let third = reopen(&folder, &chain).unwrap();
    third.settle(&root).unwrap();
    assert!(folder.stat(PENDING_SEAL.as_bytes()).is_err());
    assert_eq!(parse_seal(&third, &begin_seal(&third, run)).0.n, parse_seal(&third, &pending).0.n);
}

/// Killed at each call of its folder while it erases a run's key, a gateway keeps those of its other runs.
#[test]
fn the_key_of_a_sealed_run_is_erased_and_the_others_stay() {
    let (root, chain, start) = gateway();
    let first = reopen(&start, &chain).unwrap();
    let (sealed, key) = make_run(&root, &chain, &first);
    let (open, open_key) = make_run(&root, &chain, &first);
    let note = begin_seal(&first, sealed);
    let (_, first_seal) = parse_seal(&first, &note);
    store_seal(&root, &sealed, &note);
    drop(first);
    let kek = get(&start.open_dir(b"kek").unwrap(), "1");
    let mut n = 0;
    loop {
        let folder = copy(&start);
        fix_modes(&folder);
        let killed = killed_at(&folder, n, |dir| reopen(dir, &chain)?.commit_seal(&sealed, b"run"));
        let again = reopen(&folder, &chain).unwrap();
        again.settle(&root).unwrap();
        assert_eq!(again.resume(&open).unwrap().unwrap().key.0.expose(), open_key.0.expose(), "call {n}");
        match again.resume(&sealed).unwrap() {
            // The engine finds the seal in the store, and commits it again.
            Some(resume) => {
                assert_eq!(resume.key.0.expose(), key.0.expose());
                again.commit_seal(&sealed, b"run").unwrap();
            }
            None => {
                assert!(folder.stat(PENDING_SEAL.as_bytes()).is_err(), "call {n}: no other run can be sealed")
            }
        }
        let next = parse_seal(&again, &begin_seal(&again, open)).0;
        assert_eq!((next.n, next.prev), (2, Some(first_seal)), "call {n}");
        folder.unlink(PENDING_SEAL.as_bytes()).unwrap();
        assert_eq!(again.held().unwrap(), [open], "call {n}");
        let keks = folder.open_dir(b"kek").unwrap();
        let names = layout_names(&keks);
        assert!(names.len() == 1 && get(&keks, &names[0]) != kek, "call {n}: {names:?}");
        assert_eq!(layout_names(&folder.open_dir(b"resume").unwrap()), names, "call {n}");
        if killed.is_none() {
            break;
        }
        n += 1;
    }
    assert!(n > 10, "{n}");
}

fn layout_names(dir: &Arc<dyn Dir>) -> Vec<String> {
    let names = crate::layout::names(dir, "a folder").unwrap();
    names.into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
}
