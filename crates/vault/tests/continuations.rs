//! What is added to a sealed run: by its gateway, which no longer knows it, and by a mount of the owner's.

use std::sync::Arc;

use crate::common::{self, CALLER, Fixture, Mount, READ, State, WRITE, posix};
use runvault_format::descriptor::How;
use runvault_format::ids::RunId;
use runvault_format::note::{Note, text_hash};
use runvault_store::backend::{Rename, SetTime};
use runvault_vault::api::{Allocate, SetAttr};
use runvault_vault::authority::{Last, Until};
use runvault_vault::seal::{Outcome, Seen, Shown, manifest};
use runvault_vault::{Error, Posix, runs};

/// The runs of that name, those that continue another one last.
fn named(mount: &Mount, name: &str) -> Vec<(RunId, Option<RunId>)> {
    let runs = mount.status().runs.into_iter().filter(|run| run.name.as_deref() == Some(name.as_bytes()));
    let mut found: Vec<_> = runs.map(|run| (run.run, run.continues)).collect();
    found.sort_by_key(|(run, continues)| (continues.is_some(), *run));
    found
}

fn seal(mount: &Mount, run: &RunId) {
    let done = mount.seal(run, &mut |_| Ok(Some("{}".into())), &mut |_, _| ()).unwrap();
    assert!(matches!(done, Outcome::Sealed(_)), "{done:?}");
}

/// A sealed run with two directories and three files.
fn sealed(fixture: &Fixture) -> RunId {
    let mount = fixture.writer();
    for dir in ["run", "run/Data", "run/Analysis"] {
        mount.make_dir(dir).unwrap();
    }
    for (file, bytes) in
        [("run/RunInfo.xml", "info"), ("run/Data/1.cbcl", "bases"), ("run/Analysis/log", "first")]
    {
        mount.put(file, bytes.as_bytes()).unwrap();
    }
    let run = named(&mount, "run")[0].0;
    seal(&mount, &run);
    mount.close().unwrap();
    run
}

/// A gateway without any key of the vault's.
fn closed(fixture: &mut Fixture, opens: bool) {
    Arc::get_mut(&mut fixture.authority).unwrap().opens = opens;
}

#[test]
fn a_gateway_adds_to_a_run_that_it_cannot_read_and_readers_see_both() {
    let mut fixture = Fixture::on_disk();
    let first = sealed(&fixture);
    let seal_before = std::fs::read(fixture.path().join(format!("runs/{first}/seal/seal.note"))).unwrap();
    closed(&mut fixture, false);
    let mount = fixture.writer();
    assert_eq!(mount.list("").unwrap(), [""; 0]);
    mount.make_dir("run").unwrap();
    for dir in ["run/Analysis", "run/Analysis/1", "run/Analysis/1/Data"] {
        mount.make_dir(dir).unwrap();
    }
    mount.put("run/Analysis/1/Data/sample.fastq", b"reads").unwrap();
    // One that is there already, which the gateway cannot know.
    mount.put("run/Analysis/log", b"second").unwrap();
    let later = named(&mount, "run")[0].0;
    drop(mount.close());
    drop(mount);

    closed(&mut fixture, true);
    let described = runs::read_descriptor(&fixture.root, &later, &*fixture.authority).unwrap().descriptor;
    let after = described.after.clone().unwrap();
    assert_eq!((after.run, after.how), (first, How::Continues));
    // As long as it is open, and when it is sealed.
    for sealing in [true, false] {
        let reader = fixture.reader();
        assert_eq!(named(&reader, "run"), [(first, None), (later, Some(first))]);
        assert_eq!(reader.list("").unwrap(), ["run"]);
        assert_eq!(reader.list("run").unwrap(), ["Analysis", "Data", "RunInfo.xml"]);
        assert_eq!(reader.list("run/Analysis").unwrap(), ["1", "log"]);
        assert_eq!(reader.list_by("run/Analysis", 1).unwrap(), ["1", "log"]);
        assert_eq!(reader.list("run/Analysis/1").unwrap(), ["Data"]);
        assert_eq!(reader.get("run/Analysis/1/Data/sample.fastq").unwrap(), b"reads");
        assert_eq!(reader.get("run/Analysis/log").unwrap(), b"first", "the earlier one");
        assert_eq!(reader.get("run/Data/1.cbcl").unwrap(), b"bases");
        assert_eq!(posix(reader.ino("run/Data/2.cbcl")), Posix::NotFound);
        drop(reader);
        if sealing {
            closed(&mut fixture, false);
            let mount = fixture.writer();
            seal(&mount, &later);
            mount.close().unwrap();
            drop(mount);
            closed(&mut fixture, true);
        }
    }
    let seal_after = std::fs::read(fixture.path().join(format!("runs/{first}/seal/seal.note"))).unwrap();
    assert_eq!(seal_before, seal_after);
}

#[test]
fn an_owner_adds_results_and_changes_nothing_that_was_sealed() {
    let fixture = Fixture::on_disk();
    let first = sealed(&fixture);
    let mount = fixture.writer();
    // Nothing of what was sealed changes, and nothing is begun by trying.
    let refused = |result: runvault_vault::Result<()>| matches!(result, Err(Error::Sealed { .. }));
    let info = mount.ino("run/RunInfo.xml").unwrap();
    assert!(refused(mount.open_file(info, WRITE).map(drop)));
    assert!(refused(mount.remove("run/RunInfo.xml")));
    assert!(refused(mount.remove_dir("run/Data")));
    assert!(refused(mount.mv("run/RunInfo.xml", "run/other", Rename::Over)));
    assert_eq!(posix(mount.make_dir("run/Data")), Posix::Exists);
    assert_eq!(posix(mount.remove("run/none")), Posix::NotFound);
    assert_eq!(named(&mount, "run"), [(first, None)]);

    mount.make_dir("run/Analysis/2").unwrap();
    mount.put("run/Analysis/2/result.vcf", b"variant").unwrap();
    mount.put("run/Data/note", b"beside").unwrap();
    mount.put("run/top", b"at the top").unwrap();
    let later = named(&mount, "run")[1].0;
    assert_eq!(named(&mount, "run"), [(first, None), (later, Some(first))], "one run for all of them");
    assert_eq!(mount.list("run").unwrap(), ["Analysis", "Data", "RunInfo.xml", "top"]);
    assert_eq!(mount.list("run/Data").unwrap(), ["1.cbcl", "note"]);
    let analysis = (mount.attr("run/Analysis").unwrap().mode, mount.attr("run/Analysis").unwrap().uid);

    // What is not sealed yet can still be changed.
    mount.mv("run/Data/note", "run/Analysis/2/note", Rename::Over).unwrap();
    mount.put("run/Analysis/2/note", b"again").unwrap();
    let note = mount.ino("run/Analysis/2/note").unwrap();
    let (data, _) = mount.parent("run/Data/x").unwrap();
    mount.link(note, data, b"linked").unwrap();
    mount.symlink(&CALLER, data, b"symlink", b"../RunInfo.xml").unwrap();
    assert!(refused(mount.mv("run/top", "run/RunInfo.xml", Rename::Over)));
    assert_eq!(posix(mount.mv("run/top", "run/RunInfo.xml", Rename::NoReplace)), Posix::Exists);
    mount.remove("run/top").unwrap();
    assert_eq!(posix(mount.remove_dir("run/Analysis/2")), Posix::NotEmpty);
    assert_eq!(mount.list("run").unwrap(), ["Analysis", "Data", "RunInfo.xml"]);
    assert_eq!(mount.list("run/Data").unwrap(), ["1.cbcl", "linked", "symlink"]);

    // Sealed in its turn, and continued once more.
    seal(&mount, &later);
    assert!(refused(mount.remove("run/Data/linked")));
    assert_eq!(posix(mount.make_dir("run/Analysis/2")), Posix::Exists);
    mount.put("run/Analysis/2/third", b"3").unwrap();
    let reader = fixture.reader();
    assert_eq!(reader.list("run/Analysis/2").unwrap(), ["note", "result.vcf", "third"]);
    assert_eq!(reader.get("run/Data/linked").unwrap(), b"again");
    let third: Vec<RunId> =
        named(&reader, "run").iter().map(|run| run.0).filter(|run| ![first, later].contains(run)).collect();
    let described = runs::read_descriptor(&fixture.root, &third[0], &*fixture.authority).unwrap().descriptor;
    assert_eq!(described.after.clone().unwrap().run, later, "the newest that is sealed");
    mount.close().unwrap();
    // Of one machine the directory looks as it did.
    let attr = reader.attr("run/Analysis").unwrap();
    assert_eq!((attr.mode, attr.uid), analysis);
}

#[test]
fn another_gateways_run_is_not_joined() {
    let fixture = Fixture::on_disk();
    let first = sealed(&fixture);
    let other = State::new(4);
    let mount = fixture.writer_of(&other);
    let refused = mount.put("run/Data/forged", b"x").unwrap_err();
    assert!(matches!(refused, Error::Sealed { .. }), "{refused}");
    mount.close().unwrap();
    drop(mount);
    // It says that it continues the run, and is shown beside it.
    let hash = runvault_vault::seal::Seal::load(&fixture.root, &first, &*fixture.authority).unwrap().hash;
    other.sealed_before(b"run", (first, hash));
    other.sealed_before(b"alone", (RunId([9; 16]), hash));
    let mut fixture = fixture;
    closed(&mut fixture, false);
    let mount = fixture.writer_of(&other);
    mount.make_dir("run").unwrap();
    mount.put("run/forged", b"x").unwrap();
    mount.make_dir("alone").unwrap();
    mount.close().unwrap();
    drop(mount);
    closed(&mut fixture, true);
    let reader = fixture.reader();
    let shown = reader.list("").unwrap();
    assert!(shown[0].starts_with("alone~") && shown[1] == "run" && shown[2].starts_with("run~"), "{shown:?}");
    assert_eq!(posix(reader.ino("run/forged")), Posix::NotFound);
    assert_eq!(reader.get("run/RunInfo.xml").unwrap(), b"info");
}

#[test]
fn a_gateway_that_was_admitted_adds_to_runs_of_others() {
    let mut fixture = Fixture::on_disk();
    let first = sealed(&fixture);
    let other = State::new(4);
    let id = other.public().0;
    for (n, admitted) in [(id, None), (id, Some(first))].into_iter().enumerate() {
        Arc::get_mut(&mut fixture.authority).unwrap().admitted = vec![admitted];
        let mount = fixture.writer_of(&other);
        mount.put(&format!("run/Data/result-{n}"), b"x").unwrap();
        mount.close().unwrap();
        drop(mount);
        assert_eq!(fixture.reader().get(&format!("run/Data/result-{n}")).unwrap(), b"x");
    }
    // Without the word it stands by itself.
    Arc::get_mut(&mut fixture.authority).unwrap().admitted = vec![(id, Some(RunId([9; 16])))];
    assert_eq!(fixture.reader().list("").unwrap().len(), 2);
}

#[test]
fn a_run_that_was_taken_over_is_sealed_by_who_was_admitted_to_it() {
    let mut fixture = Fixture::on_disk();
    let mount = fixture.writer();
    mount.make_dir("run").unwrap();
    mount.put("run/file", b"bytes").unwrap();
    let run = named(&mount, "run")[0].0;
    mount.close().unwrap();
    drop(mount);
    let other = State::new(4);
    common::taken_over(&fixture.root, &*fixture.authority, &other, &run).unwrap();
    let seal_now = |fixture: &Fixture| {
        let mount = fixture.writer_of(&other);
        mount.put("run/more", b"bytes").unwrap();
        let done = mount.seal(&run, &mut |_| Ok(Some("{}".into())), &mut |_, _| ());
        drop(mount.close());
        done
    };
    let id = other.public().0;
    Arc::get_mut(&mut fixture.authority).unwrap().admitted = vec![(id, None)];
    let refused = seal_now(&fixture).unwrap_err();
    assert!(matches!(refused, Error::NotMaker { .. }), "to add to every run is not to seal one: {refused}");
    Arc::get_mut(&mut fixture.authority).unwrap().admitted = vec![(id, Some(run))];
    assert!(matches!(seal_now(&fixture), Ok(Outcome::Sealed(_))));
    assert_eq!(fixture.reader().get("run/more").unwrap(), b"bytes");
    // It counts up to where that was ended.
    fixture.authority.seals.lock().unwrap().clear();
    let load = |fixture: &Fixture| {
        let seal = runvault_vault::seal::Seal::load(&fixture.root, &run, &*fixture.authority);
        seal.map(|seal| seal.hash).map_err(|error| error.to_string())
    };
    let hash = load(&fixture).unwrap();
    for (last, counts) in [((1, Some(hash)), true), ((0, None), false)] {
        let last = Last { n: last.0, hash: last.1 };
        let none = Last { n: 0, hash: None };
        Arc::get_mut(&mut fixture.authority).unwrap().dismissed = Some(Until { run: none, seal: last });
        assert_eq!(load(&fixture).is_ok(), counts);
    }
    assert!(load(&fixture).unwrap_err().contains("was dismissed from the run before"));
    // Whoever knows of no such word refuses the seal.
    fixture.authority.seals.lock().unwrap().clear();
    Arc::get_mut(&mut fixture.authority).unwrap().admitted.clear();
    let refused =
        runvault_vault::seal::Seal::load(&fixture.root, &run, &*fixture.authority).map(drop).unwrap_err();
    assert!(refused.to_string().contains("did not make the run"), "{refused}");
}

/// What it added before it was dismissed stays, and what it adds after that stands by itself.
#[test]
fn a_gateway_that_was_dismissed_adds_no_more() {
    let mut fixture = Fixture::on_disk();
    sealed(&fixture);
    let other = State::new(4);
    Arc::get_mut(&mut fixture.authority).unwrap().admitted = vec![(other.public().0, None)];
    let mut added = Vec::new();
    for part in ["run/Data/first", "run/Data/second"] {
        let mount = fixture.writer_of(&other);
        mount.put(part, b"x").unwrap();
        let open = mount.status().runs.iter().find(|run| run.writing).unwrap().run;
        seal(&mount, &open);
        mount.close().unwrap();
        added.push(open);
    }
    let described = runs::read_descriptor(&fixture.root, &added[0], &*fixture.authority).unwrap();
    let hash = text_hash(Note::parse(&described.note).unwrap().text);
    let run = Last { n: described.descriptor.seq.unwrap(), hash: Some(hash) };
    let until = Until { run, seal: Last { n: 0, hash: None } };
    Arc::get_mut(&mut fixture.authority).unwrap().dismissed = Some(until);
    let reader = fixture.reader();
    assert_eq!(reader.list("run/Data").unwrap(), ["1.cbcl", "first"]);
    let alone = format!("run~{}", &added[1].to_string()[..8]);
    assert_eq!(reader.list("").unwrap(), ["run", &alone]);
    assert_eq!(reader.get(&format!("{alone}/Data/second")).unwrap(), b"x");
    let mount = fixture.writer_of(&other);
    let refused = mount.put("run/Data/third", b"x").unwrap_err();
    assert!(matches!(refused, Error::Sealed { .. }), "{refused}");
}

/// A mount that saw the run while it was open.
#[test]
fn a_mount_notices_that_another_machine_sealed_a_run() {
    let fixture = Fixture::on_disk();
    let gateway = fixture.writer();
    gateway.make_dir("run").unwrap();
    gateway.put("run/file", b"bytes").unwrap();
    let run = named(&gateway, "run")[0].0;
    let reader = fixture.reader();
    let (top, file) = (reader.ino("run").unwrap(), reader.ino("run/file").unwrap());
    seal(&gateway, &run);
    gateway.put("run/more", b"added").unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while reader.list("run").unwrap_or_default() != ["file", "more"] {
        assert!(std::time::Instant::now() < until, "{:?}", reader.list("run"));
        reader.tick().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(posix(reader.getattr(top, None)), Posix::Stale, "the kernel looks again");
    assert!(reader.nodes_sealed_since().contains(&file));
    assert_eq!(reader.get("run/file").unwrap(), b"bytes");
}

#[test]
fn parts_in_trouble_cost_nothing_of_what_was_sealed_before() {
    let fixture = Fixture::on_disk();
    let first = sealed(&fixture);
    let mount = fixture.writer();
    mount.put("run/Data/added", b"x").unwrap();
    let later = named(&mount, "run")[1].0;
    mount.close().unwrap();
    drop(mount);
    let tree = fixture.path().join(format!("runs/{later}/tree"));
    let record = std::fs::read_dir(&tree).unwrap().next().unwrap().unwrap().path().join("_dir");
    let good = std::fs::read(&record).unwrap();
    std::fs::write(&record, "no record").unwrap();
    let reader = fixture.reader();
    assert_eq!(reader.get("run/Data/1.cbcl").unwrap(), b"bases");
    assert_eq!(posix(reader.ino("run/Data/none")), Posix::NotFound);
    // Whoever lists is told that something is missing.
    let handle = reader.opendir(reader.ino("run/Data").unwrap()).unwrap();
    let mut names = Vec::new();
    let mut take = |entry: &runvault_vault::api::DirEntry| {
        names.push(entry.name.clone());
        true
    };
    reader.readdir(handle, 0, false, &mut take).unwrap();
    assert_eq!(names, [&b"."[..], b"..", b"1.cbcl"]);
    assert_eq!(reader.unreadable_names(handle).unwrap(), 1);
    drop(reader);
    // Mended, all of it is there; without what it adds to, it is shown by itself and passes for nothing else.
    std::fs::write(&record, good).unwrap();
    assert_eq!(fixture.reader().list("run/Data").unwrap(), ["1.cbcl", "added"]);
    std::fs::rename(fixture.path().join(format!("runs/{first}")), fixture.path().join("gone")).unwrap();
    fixture.authority.seals.lock().unwrap().clear();
    assert_eq!(fixture.reader().list("").unwrap(), [format!("run~{}", &later.to_string()[..8])]);
}

#[test]
fn what_cannot_come_into_a_sealed_run_leaves_no_trace() {
    let fixture = Fixture::on_disk();
    let first = sealed(&fixture);
    let mount = fixture.writer();
    mount.make_dir("other").unwrap();
    mount.put("other/file", b"x").unwrap();
    assert_eq!(posix(mount.mv("other/file", "run/Data/file", Rename::Over)), Posix::CrossRun);
    let (data, _) = mount.parent("run/Data/x").unwrap();
    let file = mount.ino("other/file").unwrap();
    assert_eq!(posix(mount.link(file, data, b"link")), Posix::CrossRun);
    assert_eq!(posix(mount.link(mount.ino("run/RunInfo.xml").unwrap(), data, b"link")), Posix::CrossRun);
    assert_eq!(named(&mount, "run"), [(first, None)], "no run was begun");
}

/// An instrument's software uses a name again, and the gateway cannot know what was sealed under it.
#[test]
fn what_an_earlier_part_hides_is_found_by_itself() {
    let mut fixture = Fixture::on_disk();
    let first = sealed(&fixture);
    closed(&mut fixture, false);
    let mount = fixture.writer();
    mount.make_dir("run").unwrap();
    mount.put("run/RunInfo.xml", b"another").unwrap();
    mount.put("run/Data", b"a file where a directory was sealed").unwrap();
    let later = named(&mount, "run")[0].0;
    drop(mount.close());
    drop(mount);
    for sealing in [true, false] {
        closed(&mut fixture, true);
        let reader = fixture.reader();
        let alone = format!("run~{}", &later.to_string()[..8]);
        assert_eq!(reader.path_of(&later).unwrap(), alone.as_bytes());
        assert_eq!(reader.path_of(&first).unwrap(), b"run");
        assert_eq!(reader.list("").unwrap(), ["run"], "no listing has it");
        assert_eq!(reader.get("run/RunInfo.xml").unwrap(), b"info");
        assert_eq!(reader.list(&alone).unwrap(), ["Data", "RunInfo.xml"]);
        assert_eq!(reader.get(&format!("{alone}/RunInfo.xml")).unwrap(), b"another");
        assert_eq!(reader.get(&format!("{alone}/Data")).unwrap(), b"a file where a directory was sealed");
        assert_eq!(reader.attr("").unwrap().nlink, 3, "of directories that are shown");
        drop(reader);
        if sealing {
            closed(&mut fixture, false);
            let mount = fixture.writer();
            seal(&mount, &later);
            mount.close().unwrap();
        }
    }
    let mut shown = Shown::default();
    let mut seen = |part: &RunId| {
        let manifest = manifest(&fixture.root, part, &*fixture.authority).unwrap();
        shown.add(*part, &manifest).into_iter().map(|(path, seen)| (String::from_utf8(path).unwrap(), seen))
    };
    assert!(seen(&first).all(|(_, seen)| seen == Seen::Shown));
    let later: Vec<_> = seen(&later).collect();
    let hidden = Seen::Hidden { by: first };
    let expected = [("", Seen::Joined), ("Data", hidden), ("RunInfo.xml", hidden)];
    assert_eq!(later, expected.map(|(path, seen)| (path.to_owned(), seen)));
}

/// What a later program puts there gets the group and the ACL that it would have got before the seal.
#[test]
fn directories_on_the_way_are_made_as_they_were_sealed() {
    const DEFAULT: &[u8] = b"system.posix_acl_default";
    // user::rwx user:1234:rwx group::r-x mask::rwx other::---
    let acl = |entries: &[(u16, u16, u32)]| {
        let entries = entries.iter().flat_map(|(tag, perm, id)| {
            [&tag.to_le_bytes()[..], &perm.to_le_bytes()[..], &id.to_le_bytes()[..]].concat()
        });
        2u32.to_le_bytes().into_iter().chain(entries).collect::<Vec<u8>>()
    };
    let none = u32::MAX;
    let default = acl(&[(1, 7, none), (2, 7, 1234), (4, 5, none), (16, 7, none), (32, 0, none)]);
    let fixture = Fixture::on_disk();
    let mount = fixture.writer();
    for dir in ["run", "run/Data", "run/Data/L001"] {
        mount.make_dir(dir).unwrap();
    }
    let mode = |mode| SetAttr { mode: Some(mode), ..SetAttr::NOTHING };
    for (dir, bits) in [("run", 0o2775), ("run/Data", 0o2770), ("run/Data/L001", 0o750)] {
        mount.setattr(&CALLER, mount.ino(dir).unwrap(), None, &mode(bits)).unwrap();
    }
    mount.setxattr(mount.ino("run/Data").unwrap(), DEFAULT, &default, 0).unwrap();
    let run = named(&mount, "run")[0].0;
    seal(&mount, &run);
    mount.put("run/Data/L001/added", b"x").unwrap();
    let later = named(&mount, "run")[1].0;
    mount.close().unwrap();
    // The run that adds, by itself.
    let reader = fixture.reader();
    let alone = String::from_utf8(reader.path_of(&later).unwrap()).unwrap();
    for (dir, bits, has) in [("", 0o2775, false), ("/Data", 0o2770, true), ("/Data/L001", 0o750, false)] {
        let path = format!("{alone}{dir}");
        assert_eq!(reader.attr(&path).unwrap().mode & 0o7777, bits, "{path}");
        let found = reader.getxattr(reader.ino(&path).unwrap(), DEFAULT);
        assert_eq!(found.ok(), has.then(|| default.clone()), "{path}");
    }
}

/// Every call that would change a node of a sealed run says that it cannot be changed, wherever it is made.
#[test]
fn what_was_sealed_is_read_only_to_every_call() {
    let fixture = Fixture::on_disk();
    sealed(&fixture);
    let maker = fixture.writer();
    let other = fixture.writer_of(&State::new(4));
    let reader = fixture.reader();
    for (who, mount, adds) in [("maker", &maker, true), ("other", &other, false), ("reader", &reader, false)]
    {
        let node = |path: &str| mount.ino(path).unwrap();
        let (file, dir) = (node("run/RunInfo.xml"), node("run/Data"));
        let times = SetAttr { mtime: SetTime::Now, ..SetAttr::NOTHING };
        let size = SetAttr { size: Some(0), ..SetAttr::NOTHING };
        let read = mount.open_file(file, READ).unwrap().handle;
        let mut calls = vec![
            ("open", mount.open_file(file, WRITE).map(drop)),
            ("truncate", mount.setattr(&CALLER, file, None, &size).map(drop)),
            ("ftruncate", mount.setattr(&CALLER, file, Some(read), &size).map(drop)),
            ("utimens", mount.setattr(&CALLER, file, None, &times).map(drop)),
            ("utimens of a directory", mount.setattr(&CALLER, dir, None, &times).map(drop)),
            ("setxattr", mount.setxattr(file, b"user.a", b"b", 0)),
            ("removexattr", mount.removexattr(file, b"user.a")),
            ("write", mount.write(read, 0, b"x", false)),
            ("fallocate", mount.fallocate(read, 0, 1, Allocate::Plain, false)),
            ("unlink", mount.remove("run/RunInfo.xml")),
            ("rmdir", mount.remove_dir("run/Data")),
            ("rmdir of the run", mount.remove_dir("run")),
            ("rename", mount.mv("run/RunInfo.xml", "run/other", Rename::Over)),
            ("rename of the run", mount.mv("run", "other", Rename::Over)),
        ];
        if !adds {
            // Who may add copies: a link would be in another run.
            calls.push(("link", mount.link(file, dir, b"link").map(drop)));
            calls.push(("create", mount.put("run/Data/new", b"x").map(drop)));
            calls.push(("mkdir", mount.make_dir("run/Data/new").map(drop)));
            calls.push(("symlink", mount.symlink(&CALLER, dir, b"new", b"x").map(drop)));
        }
        for (call, done) in calls {
            let refused = matches!(done, Err(Error::Sealed { .. } | Error::Posix(Posix::ReadOnly)));
            assert!(refused, "{who}: {call}: {done:?}");
        }
        mount.release(read).unwrap();
    }
}

/// Whatever a part's names hide, one that is sealed is not hidden by one that is made later.
#[test]
fn parts_keep_their_order_and_one_open_part_is_shown() {
    let mut fixture = Fixture::on_disk();
    sealed(&fixture);
    let other = State::new(4);
    Arc::get_mut(&mut fixture.authority).unwrap().admitted = vec![(other.public().0, None)];
    let (ours, theirs) = (fixture.writer(), fixture.writer_of(&other));
    ours.make_dir("run/new").unwrap();
    ours.put("run/new/ours", b"o").unwrap();
    let is_there = |mount: &Mount, path: &str| mount.ino(path).is_ok();
    // Each sees its own, and neither hides the other's: those are shown by themselves.
    theirs.make_dir("run/new").unwrap();
    theirs.put("run/new/theirs", b"t").unwrap();
    assert!(is_there(&theirs, "run/new/theirs") && !is_there(&theirs, "run/new/ours"));
    let reader = fixture.reader();
    assert_eq!(reader.list("").unwrap().len(), 2, "one of the open ones has a name of its own");
    for mount in [&theirs, &ours] {
        let open = mount.status().runs.iter().find(|run| run.writing).unwrap().run;
        seal(mount, &open);
    }
    let reader = fixture.reader();
    assert_eq!(reader.list("").unwrap(), ["run"]);
    assert_eq!(reader.list("run/new").unwrap(), ["ours", "theirs"]);
    // The directory's own changes are durable when it says so.
    let again = fixture.writer();
    again.put("run/new/third", b"3").unwrap();
    let handle = again.opendir(again.ino("run/new").unwrap()).unwrap();
    again.fsyncdir(handle).unwrap();
}
