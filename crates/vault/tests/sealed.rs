//! Runs that are sealed: what the seal says, what it refuses to say, and every tampering afterwards.

mod tampering;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::common::{self, CALLER, Fixture, Mount, WRITE, posix};
use proptest::test_runner::{RngAlgorithm, TestRng};
use runvault_crypto::digest::sha256;
use runvault_format::ids::{Digest, RunId};
use runvault_format::manifest::Kind;
use runvault_store::backend::{Kind as Stored, SetTime};
use runvault_store::doubles::observe::{Call, Observer, Op, observe};
use runvault_vault::api::SetAttr;
use runvault_vault::authority::{Last, Until};
use runvault_vault::seal::{self, Anew, Change, Checked, Outcome, Scrubbed, Seal, Summary, Verified};
use runvault_vault::{Error, Posix};
use tampering::{Rewritten, copy, data, dirs_below, everything, files_below, is_within};

/// Of the only run named `run`.
fn id(mount: &Mount) -> RunId {
    named(mount, "run")
}

fn try_seal(mount: &Mount) -> runvault_vault::Result<Outcome> {
    try_seal_of(mount, &id(mount))
}

fn try_seal_of(mount: &Mount, run: &RunId) -> runvault_vault::Result<Outcome> {
    mount.seal(run, &mut |_| Ok(Some("{}".into())), &mut |_, _| ())
}

fn named(mount: &Mount, name: &str) -> RunId {
    let runs = mount.status().runs;
    runs.iter().find(|run| run.name.as_deref() == Some(name.as_bytes())).expect("the run").run
}

/// A second run, of one file.
fn other(mount: &Mount) -> RunId {
    mount.make_dir("other").unwrap();
    mount.put("other/f", b"x").unwrap();
    named(mount, "other")
}

fn sealed(mount: &Mount) -> Summary {
    match try_seal(mount).expect("a seal") {
        Outcome::Sealed(summary) => summary,
        other => panic!("{other:?}"),
    }
}

/// A store on disk with one run, sealed, which nobody has mounted; and the run's directory.
fn sealed_on_disk() -> (Fixture, RunId, PathBuf) {
    let fixture = Fixture::on_disk();
    let mount = fixture.writer();
    everything(&mount);
    let run = id(&mount);
    sealed(&mount);
    mount.close().unwrap();
    let dir = fixture.path().join("runs").join(run.to_string());
    (fixture, run, dir)
}

fn verify(fixture: &Fixture, run: &RunId, checked: &dyn Checked) -> runvault_vault::Result<Verified> {
    let seal = Seal::load(&fixture.root, run, &*fixture.authority)?;
    seal::verify(&fixture.root, &seal, &*fixture.authority, checked, &mut |_, _| ())
}

fn scrub(fixture: &Fixture, run: &RunId, checked: &dyn Checked) -> runvault_vault::Result<Scrubbed> {
    let seal = Seal::load(&fixture.root, run, &*fixture.authority)?;
    seal::scrub(&fixture.root, &seal, &*fixture.authority, checked, &|_, _| ())
}

#[test]
fn a_run_is_sealed_as_it_is_and_can_only_be_read_from_then_on() {
    let fixture = Fixture::on_disk();
    let mount = fixture.writer();
    everything(&mount);
    let run = id(&mount);
    let top = mount.ino("run").unwrap();
    let nodes = ["run", "run/Data/L001", "run/RunInfo.xml", "run/sparse", "run/link"]
        .map(|at| mount.ino(at).unwrap());
    let summary = sealed(&mount);
    // The kernel is told of each, so that it keeps neither pages nor names.
    let told = mount.nodes_sealed_since();
    assert!(nodes.iter().all(|node| told.contains(node)), "{nodes:?}: {told:?}");
    assert_eq!((summary.run, summary.n, summary.files), (run, 1, 12));
    // Whoever stands in the run's old folder is sent to look under its name.
    assert_eq!(posix(mount.getattr(top, None)), Posix::Stale);
    assert!(summary.foreign.is_empty() && fixture.state.session(&run).is_none(), "{summary:?}");
    assert_eq!(mount.get("run/RunInfo.xml").unwrap(), b"<RunInfo/>");
    mount.close().unwrap();

    let authority = &*fixture.authority;
    let verified = verify(&fixture, &run, &Anew).unwrap();
    assert_eq!(verified.findings, []);
    assert_eq!((&verified.name[..], verified.files, verified.bytes), (&b"run"[..], 12, summary.bytes));
    assert_eq!(scrub(&fixture, &run, &Anew).unwrap().findings, []);

    let manifest = seal::manifest(&fixture.root, &run, authority).unwrap();
    let paths = seal::paths(&manifest);
    let entry = |path: &str| &manifest.entries[paths.iter().position(|p| p == path.as_bytes()).unwrap()];
    let reader = fixture.reader();
    let records = manifest.entries.iter().map(|entry| &entry.record).enumerate();
    for (i, record) in records.filter(|(_, record)| record.kind == Kind::File) {
        let path = String::from_utf8(paths[i].clone()).unwrap();
        let content = reader.get(&format!("run/{path}")).unwrap();
        assert_eq!((record.size, record.sha256), (content.len() as u64, sha256(&[&content])), "{path}");
    }
    assert_eq!(entry("link").target, b"Data/L001");
    assert_eq!(entry("fifo").record.kind, Kind::Fifo);
    let (one, two) = (&entry("RunInfo.xml").record, &entry("again.xml").record);
    assert!(one.object == two.object && (one.nlink, two.nlink) == (2, 2) && one.sha256 == two.sha256);
    assert_eq!(entry("RunInfo.xml").xattrs, [(b"user.sample".to_vec(), b"NA12878".to_vec())]);
    assert!(reader.put("run/new", b"x").is_err());
    // Neither does its own gateway write it again, nor another take it over; the next seal follows this one.
    let again = fixture.writer();
    assert!(matches!(again.remove("run/RunInfo.xml"), Err(Error::Sealed { .. })));
    assert!(matches!(try_seal(&again), Err(Error::Sealed { .. })));
    let other = common::State::new(4);
    let taken = common::taken_over(&fixture.root, authority, &other, &run);
    assert!(matches!(taken, Err(Error::Sealed { .. })));
    again.make_dir("second").unwrap();
    again.put("second/f", b"x").unwrap();
    let second = named(&again, "second");
    let Outcome::Sealed(summary) = try_seal_of(&again, &second).unwrap() else {
        panic!("refused");
    };
    assert_eq!(summary.n, 2);
    let load = |run| seal::Seal::load(&fixture.root, run, authority).unwrap();
    assert_eq!(load(&second).note.prev, Some(load(&run).hash));
}

/// A gateway without a reader's key.
#[test]
fn who_holds_no_key_sees_nothing_of_a_run_once_it_is_sealed() {
    let mut fixture = Fixture::in_memory();
    std::sync::Arc::get_mut(&mut fixture.authority).unwrap().opens = false;
    let mount = fixture.writer();
    everything(&mount);
    let node = mount.ino("run/RunInfo.xml").unwrap();
    sealed(&mount);
    assert_eq!(mount.list("").unwrap(), [""; 0]);
    assert_eq!(posix(mount.attr("run")), Posix::NotFound);
    assert!(mount.getattr(node, None).is_err() && mount.open_file(node, common::READ).is_err());
}

#[test]
fn a_run_in_use_is_not_sealed_and_goes_on() {
    let fixture = Fixture::in_memory();
    let mount = fixture.writer();
    everything(&mount);
    let ino = mount.ino("run/RunInfo.xml").unwrap();
    let open = mount.open_file(ino, WRITE).unwrap().handle;
    assert_eq!(posix(try_seal(&mount)), Posix::Busy);
    mount.write(open, 0, b"<", false).unwrap();
    mount.release(open).unwrap();
    mount.put("Thumbs.db", b"x").unwrap();
    // Nor one that whoever asks does not want sealed as it is; to ask is no change of it.
    std::thread::sleep(std::time::Duration::from_millis(100));
    let quiet = mount.held_runs()[0].quiet;
    let mut seen = Vec::new();
    let withheld = mount.seal(
        &id(&mount),
        &mut |contents| {
            seen = contents.files().map(|(path, _)| path).collect();
            assert_eq!(contents.read(b"RunInfo.xml", 100)?.unwrap(), b"<RunInfo/>");
            assert_eq!(contents.read(b"RunInfo.xml", 9)?, None);
            Ok(None)
        },
        &mut |_, _| (),
    );
    assert_eq!(withheld.unwrap(), Outcome::Withheld);
    assert!(seen.contains(&b"Data/L002/C3.cbcl".to_vec()), "{seen:?}");
    let held = mount.held_runs();
    assert_eq!(held.len(), 1);
    assert!(held[0].quiet > quiet, "{quiet:?}: {held:?}");
    let name = || mount.held_name(&held[0].run);
    assert_eq!(name().as_deref(), Some(&b"run"[..]));
    let mut tops = mount.top_files(&held[0].run).unwrap();
    tops.sort();
    assert_eq!(tops, [&b"RunInfo.xml"[..], b"again.xml", b"empty", b"sparse"]);
    sealed(&mount);
    assert!(mount.held_runs().is_empty());
    assert_eq!(name(), None);
}

/// Whoever asked for it may have gone, and others may ask meanwhile.
#[test]
fn a_seal_that_is_given_up_leaves_its_run_open() {
    let fixture = Fixture::in_memory();
    let mount = fixture.writer();
    everything(&mount);
    let run = id(&mount);
    let mut met = None;
    let given_up = mount.seal(&run, &mut |_| panic!("it is not read to its end"), &mut |done, total| {
        met.get_or_insert_with(|| (try_seal(&mount), done, total));
        mount.give_up_seal();
    });
    assert!(matches!(given_up, Err(Error::GivenUp)), "{given_up:?}");
    match met {
        Some((Err(Error::Sealing { run: other, done: read, total: all }), done, total)) => {
            assert_eq!((other, read, all), (run.to_string(), done, total));
        }
        other => panic!("{other:?}"),
    }
    mount.put("run/more", b"it is still open").unwrap();
    sealed(&mount);
}

/// Between write and seal the store is someone else's.
#[test]
fn what_does_not_authenticate_is_named_and_not_signed() {
    let fixture = Fixture::on_disk();
    let mount = fixture.writer();
    everything(&mount);
    let run = id(&mount);
    mount.close().unwrap();
    let dir = fixture.path().join("runs").join(run.to_string());
    let files = files_below(&dir.join("tree"));
    // One of 30,000 bytes.
    let victim = files.iter().find(|file| fs::metadata(file).unwrap().len() == 31_136).unwrap();
    let good = fs::read(victim).unwrap();
    let mut bad = good.clone();
    let at = bad.len() / 2;
    bad[at] ^= 1;
    fs::write(victim, &bad).unwrap();
    let mount = fixture.writer();
    let Outcome::Refused(faults) = try_seal(&mount).unwrap() else { panic!("signed") };
    let [fault] = &faults[..] else { panic!("{faults:?}") };
    assert_eq!(dir.join(&fault.object), *victim);
    assert!(fault.path.as_ref().is_some_and(|path| path.ends_with(b"C3.cbcl")), "{fault:?}");
    assert!(!dir.join("seal").exists() && !dir.join("seal.new").exists());
    assert!(fixture.state.session(&run).is_some());
    mount.put("run/more", b"goes on").unwrap();
    mount.close().unwrap();
    fs::write(victim, &good).unwrap();
    let mount = fixture.writer();
    assert_eq!(sealed(&mount).files, 13);
}

/// A process that is killed at any moment leaves a run that is open, or one that is sealed.
#[test]
fn a_seal_that_was_committed_is_finished_by_the_next_start() {
    let fixture = Fixture::on_disk();
    let mount = fixture.writer();
    everything(&mount);
    let run = id(&mount);
    let before = fixture.state.apart();
    // What the state folder has at the moment of the rename: the pending seal, and the key.
    sealed(&mount);
    mount.close().unwrap();
    let hash = seal::Seal::load(&fixture.root, &run, &*fixture.authority).unwrap().hash;
    before.pend_seal(run, hash);
    assert!(before.session(&run).is_some());
    let again = fixture.writer_of(&before);
    assert!(before.session(&run).is_none(), "the key is erased");
    assert_eq!(again.get("run/RunInfo.xml").unwrap(), b"<RunInfo/>");
    // What a killed process left before the rename is made anew.
    let other = other(&again);
    let new = fixture.path().join("runs").join(other.to_string()).join("seal.new");
    fs::create_dir(&new).unwrap();
    fs::write(new.join("seal.note"), b"half").unwrap();
    assert!(matches!(try_seal_of(&again, &other), Ok(Outcome::Sealed(_))));
}

/// The state folder fails when the seal is in place already.
#[test]
fn nothing_is_written_after_a_seal_that_could_not_be_finished() {
    let fixture = Fixture::on_disk();
    let mount = fixture.writer();
    everything(&mount);
    let run = id(&mount);
    let seal = || try_seal_of(&mount, &run);
    fixture.state.set_full(true);
    let unfinished = seal();
    assert!(
        matches!(&unfinished, Err(Error::Unfinished { source, .. }) if matches!(**source, Error::Store { .. }))
    );
    assert!(seal::has_seal(&fixture.root, &run).unwrap());
    assert!(mount.put("run/late", b"x").is_err() && mount.get("run/RunInfo.xml").is_err());
    assert!(mount.status().runs.iter().any(|status| status.run == run && status.sealing));
    assert!(matches!(mount.finish_seals(), Err(Error::Unfinished { .. })), "still full");
    fixture.state.set_full(false);
    mount.finish_seals().unwrap();
    assert!(fixture.state.session(&run).is_none(), "the key is erased");
    assert_eq!(mount.get("run/RunInfo.xml").unwrap(), b"<RunInfo/>");
    mount.close().unwrap();
    assert!(verify(&fixture, &run, &Anew).unwrap().findings.is_empty());
}

/// The same command ends what it has begun.
#[test]
fn a_seal_that_could_not_be_finished_is_not_made_anew() {
    let fixture = Fixture::on_disk();
    let mount = fixture.writer();
    everything(&mount);
    let run = id(&mount);
    let seal = || try_seal_of(&mount, &run);
    mount.finish_seals().unwrap();
    mount.put("run/more", b"x").unwrap();
    fixture.state.set_full(true);
    assert!(matches!(seal(), Err(Error::Unfinished { .. })));
    fixture.state.set_full(false);
    assert_eq!(seal().unwrap(), Outcome::Finished);
    assert!(fixture.state.session(&run).is_none(), "the key is erased");
    mount.close().unwrap();
}

/// Whoever writes to the store can put one in the place of a seal.
#[test]
fn a_strangers_seal_is_in_the_way_of_no_other() {
    let fixture = Fixture::on_disk();
    let mount = fixture.writer();
    everything(&mount);
    let run = id(&mount);
    let other = other(&mount);
    let planted = fixture.path().join("runs").join(run.to_string()).join("seal");
    fs::create_dir(&planted).unwrap();
    fs::write(planted.join("seal.note"), b"no note").unwrap();
    assert!(matches!(mount.finish_seals(), Err(Error::Unfinished { .. })));
    let sealed = try_seal_of(&mount, &other);
    assert!(matches!(sealed, Ok(Outcome::Sealed(_))), "{sealed:?}");
    assert!(fixture.state.session(&run).is_some(), "its key is kept");
    fs::remove_dir_all(&planted).unwrap();
    mount.put("run/late", b"x").unwrap();
    let sealed = try_seal_of(&mount, &run);
    assert!(matches!(sealed, Ok(Outcome::Sealed(_))), "{sealed:?}");
    mount.close().unwrap();
}

/// Also where the next start fails likewise.
#[test]
fn a_seal_that_the_next_start_cannot_finish_is_finished_by_the_command() {
    let fixture = Fixture::on_disk();
    let mount = fixture.writer();
    everything(&mount);
    let run = id(&mount);
    let seal = |mount: &Mount| try_seal_of(mount, &run);
    fixture.state.set_full(true);
    assert!(matches!(seal(&mount), Err(Error::Unfinished { .. })));
    let _ = mount.close();
    let again = fixture.writer();
    assert!(matches!(seal(&again), Err(Error::Unfinished { .. })));
    assert!(fixture.state.session(&run).is_some());
    fixture.state.set_full(false);
    assert_eq!(seal(&again).unwrap(), Outcome::Finished);
    assert!(fixture.state.session(&run).is_none(), "the key is erased");
    again.close().unwrap();
}

/// Their numbers follow each other.
#[test]
fn a_seal_that_could_not_be_finished_is_finished_before_the_next() {
    let fixture = Fixture::on_disk();
    let mount = fixture.writer();
    everything(&mount);
    let run = id(&mount);
    let other = other(&mount);
    let seal = |run| try_seal_of(&mount, run);
    fixture.state.set_full(true);
    assert!(matches!(seal(&run), Err(Error::Unfinished { run: of, .. }) if of == run.to_string()));
    fixture.state.set_full(false);
    assert!(matches!(seal(&other), Ok(Outcome::Sealed(_))));
    assert!(fixture.state.session(&run).is_none() && fixture.state.session(&other).is_none());
    mount.close().unwrap();
}

/// The key is erased only where the seal can be read, also by the next start.
#[test]
fn a_key_stays_until_the_seal_reads_back() {
    for part in ["manifest", "pins", "vault-1"] {
        let fixture = Fixture::on_disk();
        let mount = fixture.writer();
        everything(&mount);
        let run = id(&mount);
        let before = fixture.state.apart();
        sealed(&mount);
        mount.close().unwrap();
        let hash = seal::Seal::load(&fixture.root, &run, &*fixture.authority).unwrap().hash;
        before.pend_seal(run, hash);
        let victim = fixture.path().join("runs").join(run.to_string()).join("seal").join(part);
        let good = fs::read(&victim).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        fs::write(&victim, bad).unwrap();
        drop(fixture.writer_of(&before));
        assert!(before.session(&run).is_some(), "{part}");
        fs::write(&victim, good).unwrap();
        drop(fixture.writer_of(&before));
        assert!(before.session(&run).is_none(), "{part}");
    }
}

/// By whoever has no key, and by whoever has it: none missed, and none told of a run that is as it was.
#[test]
fn every_tampering_is_named_with_and_without_the_key() {
    let rewritten = Rewritten::new();
    let Rewritten { fixture, run, .. } = &rewritten;
    let cases: u32 = std::env::var("RUNVAULT_TAMPERINGS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let scrub = || scrub(fixture, run, &Anew).map(|s| s.findings);
    let verify = || verify(fixture, run, &Anew).map(|v| v.findings);
    let mut words = std::collections::BTreeSet::new();
    let mut n = 0;
    while n < cases {
        let Some(act) = rewritten.tamper(&mut random) else {
            rewritten.restore();
            continue;
        };
        let said = &act.said;
        let found = [("scrub", scrub()), ("verify", verify())].map(|(who, found)| match found {
            Ok(findings) => {
                let objects: Vec<&str> = findings.iter().map(|finding| finding.object.as_str()).collect();
                assert!(act.is_named(&objects), "{who}: {said}: {objects:?}");
                words.extend(findings.iter().map(|finding| finding.change.word()));
                Some(findings)
            }
            Err(Error::Damaged { object, .. }) => {
                assert!(act.is_met(run, &object), "{who}: {said}: {object}");
                None
            }
            Err(Error::Store { source, object, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
                assert!(act.is_met(run, &object), "{who}: {said}: {object}");
                None
            }
            Err(other) => panic!("{who}: {said}: {other}"),
        });
        // Who has the key is told all that others are, or of the directory that it is in.
        if let [Some(scrubbed), Some(verified)] = &found {
            let is_told = |object: &str| verified.iter().any(|one| is_within(object, &one.object));
            let missed: Vec<_> = scrubbed.iter().filter(|one| !is_told(&one.object)).collect();
            assert!(missed.is_empty(), "{said}: {missed:?}");
        }
        rewritten.restore();
        n += 1;
    }
    assert_eq!((scrub().unwrap(), verify().unwrap()), (vec![], vec![]), "what was put back is as it was");
    for word in ["damaged", "missing", "added", "changed", "swapped", "older"] {
        assert!(words.contains(word), "{word} was never said: {words:?}");
    }
}

/// The seal would not count, and the run would be damaged for everybody: so another takes it over and seals it.
#[test]
fn who_is_revoked_while_it_reads_back_seals_nothing() {
    let fixture = Fixture::in_memory();
    let mount = fixture.writer();
    everything(&mount);
    let run = id(&mount);
    let nothing_more = Last { n: 0, hash: None };
    let until = Until { run: Last { n: 1, hash: None }, seal: nothing_more };
    let mut about = |_: &mut seal::Contents<'_>| {
        *fixture.authority.until_later.lock().unwrap() = Some(until);
        Ok(Some("{}".into()))
    };
    let refused = mount.seal(&run, &mut about, &mut |_, _| ());
    assert!(matches!(refused, Err(Error::Revoked { .. })), "{refused:?}");
    assert!(!seal::has_seal(&fixture.root, &run).unwrap());
}

#[test]
fn seals_of_an_ended_gateway_count_up_to_its_end() {
    let mut fixture = Fixture::on_disk();
    let mount = fixture.writer();
    everything(&mount);
    let run = id(&mount);
    sealed(&mount);
    mount.close().unwrap();
    drop(mount);
    let load = |fixture: &Fixture| seal::Seal::load(&fixture.root, &run, &*fixture.authority);
    let hash = load(&fixture).unwrap().hash;
    let mut ended = |n, hash| {
        let until = Until { run: Last { n: 9, hash: None }, seal: Last { n, hash } };
        Arc::get_mut(&mut fixture.authority).unwrap().until = Some(until);
        load(&fixture).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(ended(2, None), Ok(()));
    assert_eq!(ended(1, Some(hash)), Ok(()));
    assert!(ended(1, Some(Digest([1; 32]))).unwrap_err().contains("it is not the seal number 1"));
    assert!(ended(0, None).unwrap_err().contains("the seals of its signer end at number 0"));
    // It makes no more of them.
    ended(1, Some(hash)).unwrap();
    let mount = fixture.writer();
    let made = mount.make_dir("other");
    assert!(matches!(made, Err(Error::Revoked { .. })), "{made:?}");
}

/// Nobody reads to the end of what has no end.
#[test]
fn a_file_that_was_let_grow_is_named_without_reading_it() {
    let rewritten = Rewritten::new();
    let Rewritten { fixture, run, dir, .. } = &rewritten;
    for part in ["seal/digests", "run.json", "tree"] {
        let path = if part == "tree" { files_below(&dir.join(part))[0].clone() } else { dir.join(part) };
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 42).unwrap();
        match scrub(fixture, run, &Anew).map(|s| s.findings) {
            Ok(findings) => assert!(!findings.is_empty(), "{part}"),
            Err(Error::Damaged { .. }) => {}
            Err(other) => panic!("{part}: {other}"),
        }
        rewritten.restore();
    }
}

#[test]
fn what_the_digests_do_not_say_verify_does() {
    use std::os::unix::fs::PermissionsExt;
    let (fixture, run, dir) = sealed_on_disk();
    let file =
        files_below(&dir.join("tree")).into_iter().max_by_key(|f| fs::metadata(f).unwrap().len()).unwrap();
    let verify = || {
        let found = verify(&fixture, &run, &Anew).unwrap().findings;
        found.into_iter().map(|finding| finding.change).collect::<Vec<_>>()
    };
    let mode = fs::metadata(&file).unwrap().permissions();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(verify(), [Change::Changed("mode".into())]);
    fs::set_permissions(&file, mode).unwrap();
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    fs::File::open(&file).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(verify(), [Change::Changed("time".into())]);
    fs::File::open(&file).unwrap().set_modified(time).unwrap();
    assert_eq!(verify(), []);
    fs::remove_file(dir.join("name")).unwrap();
    assert_eq!(verify(), [Change::Missing]);
}

/// Everything that a mount shows of the run, but times of directories and numbers of nodes.
fn shown(mount: &Mount) -> BTreeMap<String, String> {
    let mut found = std::collections::BTreeMap::new();
    let mut stack = vec!["run".to_owned()];
    while let Some(dir) = stack.pop() {
        for name in mount.list(&dir).unwrap() {
            let path = format!("{dir}/{name}");
            let attr = mount.attr(&path).unwrap();
            let mut text = format!("{:?} {:o} {} {} {}", attr.kind, attr.mode, attr.uid, attr.gid, attr.rdev);
            match attr.kind {
                Stored::Dir => stack.push(path.clone()),
                Stored::Symlink => text += &format!("{:?}", mount.readlink(attr.ino).unwrap()),
                Stored::File => {
                    let content = sha256(&[&mount.get(&path).unwrap()]);
                    text += &format!("{:?} {:?} {} {content:?}", attr.size, attr.mtime, attr.nlink);
                    for name in mount.listxattr(attr.ino).unwrap() {
                        text += &format!("{name:?} {:?}", mount.getxattr(attr.ino, &name).unwrap());
                    }
                }
                _ => {}
            }
            found.insert(path, text);
        }
    }
    found
}

#[test]
fn a_sealed_run_shows_what_it_showed_before() {
    let fixture = Fixture::on_disk();
    let mount = fixture.writer();
    everything(&mount);
    let before = shown(&mount);
    sealed(&mount);
    assert_eq!(shown(&mount), before);
    let reader = fixture.reader();
    assert_eq!(shown(&reader), before);
    assert!(before.len() > 20, "{}", before.len());
    // Numbers of nodes are the same in every mount, and those of one object.
    for path in ["run", "run/Data/L001", "run/RunInfo.xml"] {
        assert_eq!(reader.attr(path).unwrap().ino, mount.attr(path).unwrap().ino, "{path}");
    }
    assert_eq!(reader.ino("run/again.xml").unwrap(), reader.ino("run/RunInfo.xml").unwrap());
    // Listings go on from every cookie, with attributes and without.
    for step in [1, 2, 7] {
        assert_eq!(reader.list_by("run", step).unwrap(), reader.list("run").unwrap());
    }
    let dir = reader.opendir(reader.ino("run/Data").unwrap()).unwrap();
    let mut entries = Vec::new();
    reader
        .readdir(dir, 2, true, &mut |entry| {
            entries.push((entry.name.clone(), entry.attr.map(|attr| attr.kind)));
            true
        })
        .unwrap();
    reader.releasedir(dir).unwrap();
    assert_eq!(entries, [(b"L001".to_vec(), Some(Stored::Dir)), (b"L002".to_vec(), Some(Stored::Dir))]);
    // A hole is one.
    let sparse = reader.open_file(reader.ino("run/sparse").unwrap(), common::READ).unwrap().handle;
    assert_eq!(reader.seek(sparse, 0, true).unwrap(), 98_304);
    assert_eq!(reader.seek(sparse, 98_304, false).unwrap(), 100_003);
    assert_eq!(posix(reader.seek(sparse, 100_003, true)), Posix::NoSuchData);
    let mut part = [1; 10];
    assert_eq!(reader.read(sparse, 99_995, &mut part).unwrap(), 8);
    assert_eq!(&part[..8], b"\0\0\0\0\0end");
    reader.release(sparse).unwrap();
}

/// What reads fail with, and which files do: the others must be as they were.
fn unreadable(fixture: &Fixture, good: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let reader = fixture.reader();
    let failed = good.iter().filter(|(path, content)| match reader.get(path) {
        Ok(found) => {
            assert_eq!(found, **content, "{path} reads as other bytes");
            false
        }
        Err(Error::Damaged { .. }) => true,
        Err(other) => panic!("{path}: {other}"),
    });
    failed.map(|(path, _)| path.clone()).collect()
}

/// At the read itself, before anybody verifies: what was put back to its own earlier state, taken away, exchanged or
/// punched out reads as an error; what was added is not seen; nothing reads as other bytes than were sealed.
#[test]
fn what_was_changed_in_the_store_is_an_error_at_the_read() {
    let sealed_run = Rewritten::new();
    let Rewritten { fixture, contents, .. } = &sealed_run;
    let (dir, older) = (sealed_run.dir.as_path(), sealed_run.older.as_path());
    // The whole tree as it was before the rewrite.
    fs::remove_dir_all(dir.join("tree")).unwrap();
    copy(&older.join("tree"), &dir.join("tree"));
    let rewritten: Vec<String> = (0..4).map(|cycle| format!("run/Data/L001/C{cycle}.cbcl")).collect();
    assert_eq!(unreadable(fixture, contents), rewritten);
    sealed_run.restore();
    // One chunk of a file made a hole.
    let file = files_below(&dir.join("tree"))
        .into_iter()
        .find(|file| fs::metadata(file).unwrap().len() == 31_136)
        .unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[1024..1024 + 8220].fill(0);
    fs::write(&file, bytes).unwrap();
    assert_eq!(unreadable(fixture, contents).len(), 1);
    sealed_run.restore();
    fs::remove_file(&file).unwrap();
    assert_eq!(unreadable(fixture, contents).len(), 1);
    assert_eq!(fixture.reader().list("run/Data/L001").unwrap().len(), 4, "it is listed, since it was sealed");
    sealed_run.restore();
    let dirs = dirs_below(&dir.join("tree"));
    let data = dirs.iter().find(|d| dirs_below(d).len() == 2).unwrap();
    let lanes = dirs_below(data);
    let aside = dir.join("aside");
    fs::rename(&lanes[0], &aside).unwrap();
    fs::rename(&lanes[1], &lanes[0]).unwrap();
    fs::rename(&aside, &lanes[1]).unwrap();
    assert_eq!(unreadable(fixture, contents).len(), 8, "two directories exchanged");
    sealed_run.restore();
    fs::write(lanes[0].join("a".repeat(39)), b"x").unwrap();
    fs::create_dir(lanes[0].join("b".repeat(39))).unwrap();
    assert_eq!(unreadable(fixture, contents), [""; 0]);
    assert_eq!(fixture.reader().list("run/Data/L001").unwrap().len(), 4, "what was added is not shown");
    sealed_run.restore();
    // Modes, owners and times are the manifest's.
    use std::os::unix::fs::PermissionsExt;
    let before = fixture.reader().attr("run/Data/L001/C3.cbcl").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(fixture.reader().attr("run/Data/L001/C3.cbcl").unwrap(), before);
    // Nor does a machine that has seen the seal take a run without it for one that is open.
    fs::rename(dir.join("seal"), dir.join("elsewhere")).unwrap();
    let reader = fixture.reader();
    assert_eq!(reader.list("").unwrap(), ["other"]);
    assert!(reader.left_out()[0].1.to_string().contains("its seal was removed"), "{:?}", reader.left_out());
    fs::rename(dir.join("elsewhere"), dir.join("seal")).unwrap();
    // A seal that does not hold closes the run.
    fs::write(dir.join("seal/seal.note"), b"x").unwrap();
    assert_eq!(fixture.reader().list("").unwrap(), ["other"]);
    assert_eq!(fixture.reader().left_out().len(), 1);
}

/// Whatever the tampering, a reader gets what was sealed, or an error.
#[test]
fn no_tampering_makes_a_read_lie() {
    let rewritten = Rewritten::new();
    let Rewritten { fixture, truth, .. } = &rewritten;
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[8; 32]);
    for _ in 0..150 {
        let Some(act) = rewritten.tamper(&mut random) else {
            rewritten.restore();
            continue;
        };
        let said = act.said;
        let reader = fixture.reader();
        if let Ok(names) = reader.list("run") {
            assert!(!names.is_empty(), "{said}");
            for (path, text) in truth {
                let Ok(attr) = reader.attr(path) else { continue };
                assert!(text.starts_with(&format!("{:?} {:o}", attr.kind, attr.mode)), "{said}: {path}");
                if attr.kind != Stored::File {
                    continue;
                }
                match reader.get(path) {
                    Ok(content) => {
                        assert!(text.contains(&format!("{:?}", sha256(&[&content]))), "{said}: {path}")
                    }
                    Err(Error::Damaged { .. }) => {}
                    Err(other) => panic!("{said}: {path}: {other}"),
                }
            }
        }
        rewritten.restore();
    }
}

/// What was checked, and how much of it is told as read.
#[derive(Default)]
struct Kept(Mutex<(std::collections::BTreeSet<usize>, u64)>);

impl Checked for Kept {
    fn of(&self, _objects: usize) {}
    fn has(&self, number: usize) -> bool {
        self.0.lock().unwrap().0.contains(&number)
    }
    fn note(&self, number: usize, bytes: u64) {
        let mut kept = self.0.lock().unwrap();
        assert!(kept.0.insert(number), "{number} is told once");
        kept.1 += bytes;
    }
}

#[test]
fn what_was_checked_is_not_read_again_and_what_was_damaged_is() {
    let fixture = Fixture::on_disk();
    let mount = fixture.writer();
    everything(&mount);
    let run = id(&mount);
    sealed(&mount);
    drop(mount);
    let folder = fixture.path().join("runs").join(run.to_string());
    let files = files_below(&folder.join("tree"));
    let longest = files.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let good = fs::read(longest).unwrap();
    let modified = fs::metadata(longest).unwrap().modified().unwrap();
    let put = |bytes: &[u8]| {
        fs::write(longest, bytes).unwrap();
        fs::File::options().write(true).open(longest).unwrap().set_modified(modified).unwrap();
    };
    let bad: Vec<u8> = good.iter().enumerate().map(|(n, b)| b ^ u8::from(n + 1 == good.len())).collect();
    type Look<'a> = &'a dyn Fn(&Kept) -> (u64, Vec<Change>);
    let changes = |found: Vec<seal::Finding>| found.into_iter().map(|finding| finding.change).collect();
    let by_scrub = |kept: &Kept| {
        let found = scrub(&fixture, &run, kept).unwrap();
        (found.read, changes(found.findings))
    };
    let by_verify = |kept: &Kept| {
        let found = verify(&fixture, &run, kept).unwrap();
        (found.read, changes(found.findings))
    };
    for look in [&by_scrub as Look<'_>, &by_verify] {
        let (all, kept) = (look(&Kept::default()).0, Kept::default());
        put(&bad);
        let found = look(&kept).1;
        assert_eq!(found.len(), 1, "{found:?}");
        let noted = kept.0.lock().unwrap().1;
        assert!(noted > 0 && noted < all, "{noted} of {all}");
        assert_eq!(look(&kept).1, found, "what was damaged is read again");
        put(&good);
        assert_eq!(look(&kept), (all - noted, vec![]), "what was mended is told no more");
        assert_eq!(look(&kept), (0, vec![]), "all of it was checked");
        // Nothing of the content is read; what its place shows is.
        put(&bad);
        assert_eq!(look(&kept), (0, vec![]));
        assert_eq!(look(&Kept::default()).1, found);
        put(&good);
        fs::rename(longest, folder.join("away")).unwrap();
        assert!(look(&kept).1.contains(&Change::Missing));
        fs::rename(folder.join("away"), longest).unwrap();
        assert_eq!(look(&kept).1, vec![]);
    }
}

/// A run of files that were changed long enough ago.
fn settled(mount: &Mount) -> Vec<String> {
    mount.make_dir("run").unwrap();
    let names: Vec<String> = (0..12).map(|n| format!("run/{n:02}")).collect();
    for (n, name) in names.iter().enumerate() {
        mount.put(name, &data(40_000, n as u8)).unwrap();
    }
    mount.put("run/empty", b"").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(3100));
    names
}

/// A seal that is given up after ten of twelve files, once what was read is kept.
fn cut_short(mount: &Mount) {
    let mut files = 0;
    let ended = mount.seal(&id(mount), &mut |_| Ok(Some("{}".into())), &mut |_, _| {
        files += 1;
        match files {
            8 => std::thread::sleep(std::time::Duration::from_millis(2100)),
            10 => mount.end_seals(),
            _ => {}
        }
    });
    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    mount.close().unwrap();
}

#[test]
fn a_seal_that_was_cut_short_reads_back_what_it_has_not_and_what_was_changed_since() {
    let fixture = Fixture::on_disk();
    let mount = fixture.writer();
    let names = settled(&mount);
    let run = id(&mount);
    let dir = fixture.path().join("runs").join(run.to_string());
    cut_short(&mount);
    let log = dir.join("read-back");
    assert!(log.exists());
    let mount = fixture.writer();
    let file = mount.ino(&names[3]).unwrap();
    let time = mount.attr(&names[3]).unwrap().mtime;
    // Written over in its place, with its length and its time.
    let opened = mount.open_file(file, WRITE).unwrap();
    mount.write(opened.handle, 100, b"another", false).unwrap();
    mount.release(opened.handle).unwrap();
    let times = SetAttr { mtime: SetTime::At(time), ..SetAttr::NOTHING };
    mount.setattr(&CALLER, file, None, &times).unwrap();
    let summary = sealed(&mount);
    assert!(summary.read >= 3 * 40_000 && summary.read <= 6 * 40_000, "{summary:?}");
    assert_eq!(summary.bytes, 12 * 40_000);
    assert!(!log.exists() && !dir.join("read-back.new").exists());
    mount.close().unwrap();
    let verified = verify(&fixture, &run, &Anew).unwrap();
    assert_eq!((verified.findings, verified.files), (vec![], 13));
    assert_eq!(scrub(&fixture, &run, &Anew).unwrap().findings, []);
    let reader = fixture.reader();
    for (n, name) in names.iter().enumerate() {
        let mut expected = data(40_000, n as u8);
        if n == 3 {
            expected[100..107].copy_from_slice(b"another");
        }
        assert_eq!(reader.get(name).unwrap(), expected, "{name}");
    }
}

/// It is only a help: whatever it says, the seal says what is there.
#[test]
fn what_was_kept_of_a_seal_that_was_cut_short_may_be_anything() {
    let fixture = Fixture::on_disk();
    let mount = fixture.writer();
    settled(&mount);
    let run = id(&mount);
    let log = fixture.path().join("runs").join(run.to_string()).join("read-back");
    cut_short(&mount);
    let good = fs::read(&log).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (n, bytes) in
        [&b""[..], &[7; 3000], &good[..good.len() / 2], &good[..1000], &flipped].into_iter().enumerate()
    {
        fs::write(&log, bytes).unwrap();
        let mount = fixture.writer();
        let mut files = 0;
        // All but the last file; nothing new is kept so soon.
        let ended = mount.seal(&run, &mut |_| Ok(None), &mut |_, _| files += 1);
        assert_eq!((ended.unwrap(), files), (Outcome::Withheld, 13), "{n}");
        mount.close().unwrap();
    }
    fs::write(&log, &good).unwrap();
    let mount = fixture.writer();
    assert!(sealed(&mount).read <= 5 * 40_000);
    mount.close().unwrap();
    assert_eq!(verify(&fixture, &run, &Anew).unwrap().findings, []);
}

/// Which files the kernel was told to forget, and which were read, in order, by their inode numbers.
#[derive(Default)]
struct Forgetting(Mutex<Vec<(Op, u64)>>);

impl Observer for Forgetting {
    fn around(&self, call: Call<'_>, run: &mut dyn FnMut() -> std::io::Result<u64>) -> std::io::Result<()> {
        if matches!(call.op, Op::Forget | Op::Read) {
            self.0.lock().unwrap().push((call.op, call.ino));
        }
        run().map(drop)
    }
}

impl Forgetting {
    /// Each of these files was read after the kernel was told to forget it, since this was asked last.
    fn assert_forgot(&self, files: &[PathBuf], who: &str) {
        let calls = std::mem::take(&mut *self.0.lock().unwrap());
        for file in files.iter().filter(|file| fs::metadata(file).unwrap().len() > 0) {
            let of_it = |op, ino| move |call: &(Op, u64)| *call == (op, ino);
            let ino = fs::metadata(file).unwrap().ino();
            let (forgot, read) =
                (calls.iter().position(of_it(Op::Forget, ino)), calls.iter().rposition(of_it(Op::Read, ino)));
            assert!(forgot.is_some() && forgot < read, "{who}: {}: {forgot:?} {read:?}", file.display());
        }
    }
}

/// What counts is on the disk, and not in the kernel's memory of what was written.
#[test]
fn everything_is_read_back_past_the_kernels_cache() {
    let (forgetting, mut fixture) = (Arc::new(Forgetting::default()), Fixture::on_disk());
    fixture.root = observe(fixture.root.clone(), forgetting.clone()).unwrap();
    let mount = fixture.writer();
    everything(&mount);
    let run = id(&mount);
    forgetting.0.lock().unwrap().clear();
    sealed(&mount);
    let dir = fixture.path().join("runs").join(run.to_string());
    forgetting.assert_forgot(&files_below(&dir), "seal");
    mount.close().unwrap();
    for (who, look) in [
        ("scrub", &(|| scrub(&fixture, &run, &Anew).unwrap().findings) as &dyn Fn() -> Vec<seal::Finding>),
        ("verify", &|| verify(&fixture, &run, &Anew).unwrap().findings),
    ] {
        forgetting.0.lock().unwrap().clear();
        assert_eq!(look(), []);
        forgetting.assert_forgot(&files_below(&dir.join("tree")), who);
    }
}

/// Writers come and go, and a kill leaves what they had in hand; a network's file system keeps what was deleted while it was
/// open. Nobody is shown either, and by its form neither is told as an addition.
#[test]
fn what_writers_leave_is_no_addition() {
    let (fixture, run, dir) = sealed_on_disk();
    let looks = || {
        let looks =
            [verify(&fixture, &run, &Anew).unwrap().findings, scrub(&fixture, &run, &Anew).unwrap().findings];
        looks.map(|found| found.into_iter().map(|one| (one.object, one.change)).collect::<Vec<_>>())
    };
    let passing = [".tmp-lease", ".tmp-0123456789abcdef", "keys/.tmp-0123456789abcdef"];
    passing.iter().chain(&["lease"]).for_each(|name| fs::write(dir.join(name), "half").unwrap());
    assert_eq!(looks(), [[], []]);
    let days = std::time::Duration::from_secs(2 * 24 * 3600);
    let set_time = |path: &Path, time| {
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    };
    let age = |path: &Path| set_time(path, std::time::SystemTime::now() - days);
    for name in passing {
        for time in [std::time::SystemTime::now() - days, std::time::SystemTime::now() + days] {
            set_time(&dir.join(name), time);
            assert_eq!(looks(), [(); 2].map(|()| vec![(name.to_owned(), Change::LeftOver)]));
        }
        fs::remove_file(dir.join(name)).unwrap();
    }
    let told = |name: &str, change: Change| {
        let path = dir.join(name);
        let finding = vec![(name.to_owned(), change)];
        assert_eq!(looks(), [finding.clone(), finding], "{name}");
        if path.is_dir() { fs::remove_dir(path).unwrap() } else { fs::remove_file(path).unwrap() }
    };
    let deleted = [".nfs000000000123abcd0000002f", ".fuse_hidden0000abcd00000001"];
    for name in
        ["", "keys/", "seal/", "tree/"].iter().flat_map(|at| deleted.map(|name| format!("{at}{name}")))
    {
        fs::write(dir.join(&name), vec![7; 5_000]).unwrap();
        told(&name, Change::LeftOver);
    }
    // A file that is missing may be what is called so now; and whoever made a directory may have made what is in it.
    let sealed = files_below(&dir.join("tree")).into_iter().next().unwrap();
    let hidden = sealed.with_file_name(".nfs000000000123abcd0000002f");
    fs::rename(&sealed, &hidden).unwrap();
    for found in looks() {
        assert!(found.iter().any(|(_, change)| *change == Change::Added), "{found:?}");
        assert!(found.iter().all(|(_, change)| *change != Change::LeftOver), "{found:?}");
    }
    fs::rename(hidden, sealed).unwrap();
    fs::create_dir(dir.join("seal/x;y")).unwrap();
    fs::write(dir.join("seal/x;y/.nfs12"), "x").unwrap();
    assert!(looks().iter().flatten().all(|(_, change)| *change == Change::Added));
    fs::remove_dir_all(dir.join("seal/x;y")).unwrap();
    // Another form, another kind, another place, another size.
    for name in
        [".nfs", ".nfs12x", "tree/.nfs-12", "keys/.NFS12", ".tmp-leases", "tree/.tmp-12", "seal/.tmp-12"]
    {
        fs::write(dir.join(name), "x").unwrap();
        age(&dir.join(name));
        told(name, Change::Added);
    }
    fs::create_dir(dir.join(".nfs12")).unwrap();
    told(".nfs12", Change::Added);
    std::os::unix::fs::symlink("run.json", dir.join("keys/.nfs12")).unwrap();
    told("keys/.nfs12", Change::Added);
    fs::write(dir.join(".tmp-12"), [0; 1_211]).unwrap();
    told(".tmp-12", Change::Added);
    fs::write(dir.join("lease"), [b' '; 4097]).unwrap();
    assert_eq!(looks(), [(); 2].map(|()| vec![("lease".to_owned(), Change::Added)]));
}
