//! A store in the hands of someone without the key: EIO or hidden, named by `check`, never followed.

use std::sync::Arc;

use crate::common::{CALLER, Fixture, Mount, READ, State, WRITE, names, posix, taken_over};
use runvault_format::ids::Digest;
use runvault_format::lease::Lease;
use runvault_format::note::Note;
use runvault_format::note::text_hash;
use runvault_store::backend::{Access, Dir, Kind, Rename};
use runvault_store::doubles::faulty::{Fault, Faults, Rule};
use runvault_store::doubles::observe::Op;
use runvault_store::read_whole::read_whole;
use runvault_store::replace::replace;
use runvault_vault::authority::Authority;
use runvault_vault::authority::{Last, Until};
use runvault_vault::check::check;
use runvault_vault::runs;
use runvault_vault::{CheckEvent, CheckSummary, Damage, Error, Posix, Result, Unproven, takeover};

fn damage<T: std::fmt::Debug>(result: Result<T>) -> Damage {
    match result {
        Err(Error::Damaged { damage, .. }) => damage,
        other => panic!("not damage: {other:?}"),
    }
}

fn tree(fixture: &Fixture) -> Arc<dyn Dir> {
    let runs = fixture.root.open_dir(b"runs").unwrap();
    let run = fixture.run_dirs().into_iter().find(|n| n.len() == 32).unwrap();
    runs.open_dir(&run).unwrap().open_dir(b"tree").unwrap()
}

/// The stored name of an inode.
fn stored(dir: &dyn Dir, ino: u64) -> Vec<u8> {
    let mut found = None;
    dir.entries(0, &mut |e| {
        if e.ino == ino {
            found = Some(e.name.clone());
        }
        found.is_none()
    })
    .unwrap();
    found.unwrap()
}

fn checked(fixture: &Fixture) -> (CheckSummary, Vec<(String, Option<String>, String)>) {
    let authority: Arc<dyn Authority> = fixture.authority.clone();
    let mut found = Vec::new();
    let summary =
        check(&fixture.root, &authority, &|run| fixture.state.session(run), &mut |event| match event {
            CheckEvent::Damage { object, path, what } => {
                found.push((object, path.map(|p| String::from_utf8_lossy(&p).into_owned()), what));
            }
            CheckEvent::Foreign { object } => found.push((object, None, "foreign".into())),
            CheckEvent::Leftover { object } => found.push((object, None, "leftover".into())),
            CheckEvent::Unread { object, .. } => found.push((object, None, "unread".into())),
            CheckEvent::Newer { object, .. } => found.push((object, None, "newer".into())),
            CheckEvent::Run { .. } | CheckEvent::File { .. } => {}
        })
        .unwrap();
    (summary, found)
}

fn written(fixture: &Fixture) -> Mount {
    let vault = fixture.writer();
    vault.make_dir("run").unwrap();
    vault.make_dir("run/a").unwrap();
    vault.make_dir("run/b").unwrap();
    for (path, n) in [("run/x", 1u8), ("run/y", 2), ("run/a/f", 3), ("run/b/g", 4)] {
        vault.put(path, &vec![n; 30_000]).unwrap();
    }
    vault.close().unwrap();
    fixture.reader()
}

#[test]
fn an_untouched_store_is_fine() {
    let fixture = Fixture::in_memory();
    written(&fixture);
    let (summary, found) = checked(&fixture);
    assert!(found.is_empty(), "{found:?}");
    assert_eq!((summary.runs, summary.files, summary.bytes), (1, 4, 120_000));
    assert_eq!((summary.directories, summary.damages), (3, 0));
}

#[test]
fn swapped_moved_and_copied_files_are_refused() {
    let fixture = Fixture::in_memory();
    let vault = written(&fixture);
    let (x, y) = (vault.ino("run/x").unwrap(), vault.ino("run/y").unwrap());
    let tree = tree(&fixture);
    let (sx, sy) = (stored(&*tree, x), stored(&*tree, y));
    tree.rename(&sx, &*tree, &sy, Rename::Exchange).unwrap();
    let vault = fixture.reader();
    assert_eq!(damage(vault.get("run/x")), Damage::Place);
    assert_eq!(damage(vault.get("run/y")), Damage::Place);
    assert_eq!(vault.get("run/a/f").unwrap(), vec![3; 30_000]);
    let (summary, found) = checked(&fixture);
    assert_eq!(summary.damages, 2);
    let paths: Vec<_> = found.iter().map(|(_, path, _)| path.clone().unwrap()).collect();
    assert!(paths.contains(&"run/x".to_owned()) && paths.contains(&"run/y".to_owned()));
    // O_TRUNC, unlink and a rename over it still work for the writer.
    let writer = fixture.writer();
    writer.put("run/x", b"new").unwrap();
    assert_eq!(writer.get("run/x").unwrap(), b"new");
    writer.remove("run/y").unwrap();
    writer.close().unwrap();
    assert_eq!(checked(&fixture).0.damages, 0);
}

#[test]
fn a_file_of_one_directory_in_another_has_no_name_there() {
    let fixture = Fixture::in_memory();
    let vault = written(&fixture);
    let (a, f) = (vault.ino("run/a").unwrap(), vault.ino("run/a/f").unwrap());
    let b = vault.ino("run/b").unwrap();
    let tree = tree(&fixture);
    let (da, db) = (tree.open_dir(&stored(&*tree, a)).unwrap(), tree.open_dir(&stored(&*tree, b)).unwrap());
    let name = stored(&*da, f);
    da.link(&name, &*db, &name).unwrap();
    let vault = fixture.reader();
    assert_eq!(vault.list("run/b").unwrap(), ["g"]);
    assert_eq!(vault.status().foreign_names, 1);
    assert_eq!(posix(vault.attr("run/b/f")), Posix::NotFound);
    let (summary, found) = checked(&fixture);
    assert_eq!(summary.damages, 1);
    assert!(found[0].2.contains("name"));
}

#[test]
fn swapped_directories_and_lost_records_are_refused() {
    let fixture = Fixture::in_memory();
    let vault = written(&fixture);
    let (a, b) = (vault.ino("run/a").unwrap(), vault.ino("run/b").unwrap());
    let tree = tree(&fixture);
    let (sa, sb) = (stored(&*tree, a), stored(&*tree, b));
    tree.rename(&sa, &*tree, &sb, Rename::Exchange).unwrap();
    let vault = fixture.reader();
    assert_eq!(damage(vault.ino("run/a")), Damage::Place);
    assert_eq!(vault.list("run").unwrap(), ["a", "b", "x", "y"]);
    assert_eq!(checked(&fixture).0.damages, 2);
    tree.rename(&sa, &*tree, &sb, Rename::Exchange).unwrap();
    tree.open_dir(&sa).unwrap().unlink(b"_dir").unwrap();
    let vault = fixture.writer();
    assert_eq!(damage(vault.ino("run/a")), Damage::DirectoryRecord);
    assert_eq!(vault.get("run/b/g").unwrap(), vec![4; 30_000]);
    assert_eq!(checked(&fixture).0.damages, 1);
}

#[test]
fn planted_names_and_things_are_hidden_or_refused_and_never_followed() {
    let fixture = Fixture::on_disk();
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(outside.path(), b"secret").unwrap();
    let vault = written(&fixture);
    let x = vault.ino("run/x").unwrap();
    let tree = tree(&fixture);
    tree.create_file(b"lost+found", 0o644).unwrap();
    tree.create_file(b".nfs0001", 0o644).unwrap();
    tree.create_symlink(b"evil", outside.path().as_os_str().as_encoded_bytes()).unwrap();
    let sx = stored(&*tree, x);
    tree.unlink(&sx).unwrap();
    tree.create_symlink(&sx, outside.path().as_os_str().as_encoded_bytes()).unwrap();
    let vault = fixture.writer();
    assert_eq!(vault.list("run").unwrap(), ["a", "b", "x", "y"]);
    assert_eq!(vault.status().foreign_names, 3);
    let ino = vault.ino("run/x").unwrap();
    assert_eq!(damage(vault.readlink(ino)), Damage::Name);
    assert_eq!(posix(vault.open_file(ino, READ)), Posix::Invalid);
    let (summary, found) = checked(&fixture);
    assert_eq!((summary.damages, summary.foreign_names), (1, 3), "{found:?}");
    tree.unlink(&sx).unwrap();
    tree.create_node(&sx, Kind::Fifo, 0o666, 0).unwrap();
    assert_eq!(posix(vault.open_file(vault.ino("run/x").unwrap(), WRITE)), Posix::Invalid);
    assert_eq!(checked(&fixture).0.damages, 0);
    tree.unlink(&sx).unwrap();
    let short = tree.create_file(&sx, 0o644).unwrap();
    short.write_at(&[0; 700], 0).unwrap();
    assert_eq!(vault.attr("run/x").unwrap().size, 0);
    assert_eq!(damage(vault.get("run/x")), Damage::Header);
    assert_eq!(checked(&fixture).0.damages, 1);
}

#[test]
fn an_attribute_of_a_directory_that_does_not_open_is_named() {
    let fixture = Fixture::in_memory();
    let vault = written(&fixture);
    let a = vault.ino("run/a").unwrap();
    let tree = tree(&fixture);
    tree.set_xattr(b"user.rv.planted", b"x", 0).unwrap();
    tree.open_dir(&stored(&*tree, a)).unwrap().set_xattr(b"user.rv.planted", b"x", 0).unwrap();
    let (summary, found) = checked(&fixture);
    let paths: Vec<_> = found.iter().filter_map(|(_, path, _)| path.as_deref()).collect();
    assert_eq!((summary.damages, paths), (2, vec!["run", "run/a"]), "{found:?}");
}

#[test]
fn a_side_file_without_its_name_is_no_planted_one() {
    let fixture = Fixture::in_memory();
    written(&fixture);
    let side = [&[b'0'][..], &[b'a'; 32], b".name"].concat();
    tree(&fixture).create_file(&side, 0o644).unwrap();
    let (summary, found) = checked(&fixture);
    assert_eq!((summary.damages, summary.foreign_names, summary.leftovers), (0, 0, 1), "{found:?}");
}

/// Found for the machine and the user that check, never for the store: what the user may not read is named,
/// a shortage ends the check.
#[test]
fn what_this_machine_or_user_lacks_is_no_damage() {
    let fixture = Fixture::in_memory();
    written(&fixture);
    let authority: Arc<dyn Authority> = fixture.authority.clone();
    for (op, errno) in [
        (Op::OpenDir, libc::EMFILE),
        (Op::OpenFile, libc::ENFILE),
        (Op::Entries, libc::ENOMEM),
        (Op::OpenDir, libc::EACCES),
        (Op::OpenFile, libc::EACCES),
        (Op::Stat, libc::EACCES),
    ] {
        for after in 1..40 {
            let (root, faults) = Faults::over(fixture.root.clone()).unwrap();
            faults.add(Rule { after, ..Rule::every(op, Fault::Fail(errno)) });
            let mut damaged = false;
            let ended = check(&root, &authority, &|run| fixture.state.session(run), &mut |event| {
                damaged |= matches!(event, CheckEvent::Damage { .. });
            });
            assert!(!damaged, "{op:?} {after}");
            match ended {
                // What lies behind one closed door is one object.
                Ok(summary) if summary.unread > 0 => assert!(errno == libc::EACCES && summary.files <= 4),
                Ok(summary) => assert_eq!(summary.files, 4, "{op:?} {after}"),
                Err(error) => assert!(error.is_of_this_machine(), "{op:?} {after}: {error}"),
            }
        }
    }
}

#[test]
fn what_may_not_be_read_hides_no_damage_elsewhere() {
    let fixture = Fixture::in_memory();
    let vault = written(&fixture);
    let tree = tree(&fixture);
    let name = |path| stored(&*tree, vault.ino(path).unwrap());
    tree.open_file(&name("run/y"), Access::ReadWrite).unwrap().write_at(&[0; 16], 1024 + 100).unwrap();
    let (root, faults) = Faults::over(fixture.root.clone()).unwrap();
    let forbidden = Rule::every(Op::OpenFile, Fault::Fail(libc::EACCES));
    faults.add(Rule { name: Some(name("run/x")), ..forbidden });
    let authority: Arc<dyn Authority> = fixture.authority.clone();
    let mut seen = Vec::new();
    let summary = check(&root, &authority, &|run| fixture.state.session(run), &mut |event| match event {
        CheckEvent::Damage { path, .. } => seen.push(("damage", path)),
        CheckEvent::Unread { path, .. } => seen.push(("unread", path)),
        _ => {}
    })
    .unwrap();
    seen.sort();
    let path = |text: &str| Some(text.as_bytes().to_vec());
    assert_eq!(seen, [("damage", path("run/y")), ("unread", path("run/x"))]);
    assert_eq!((summary.damages, summary.unread, summary.files), (1, 1, 3));
}

#[test]
fn a_flipped_bit_is_named_by_its_chunk_and_hurts_nothing_else() {
    let fixture = Fixture::in_memory();
    let vault = written(&fixture);
    let y = vault.ino("run/y").unwrap();
    let tree = tree(&fixture);
    let file = tree.open_file(&stored(&*tree, y), Access::ReadWrite).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, 1024 + 8220 + 100).unwrap();
    file.write_at(&[byte[0] ^ 1], 1024 + 8220 + 100).unwrap();
    let vault = fixture.reader();
    let handle = vault.open_file(vault.ino("run/y").unwrap(), READ).unwrap().handle;
    let mut buf = [0; 8192];
    assert_eq!(vault.read(handle, 0, &mut buf).unwrap(), 8192);
    assert_eq!(damage(vault.read(handle, 8192, &mut buf)), Damage::Chunk(1));
    assert_eq!(vault.read(handle, 16384, &mut buf).unwrap(), 8192);
    vault.release(handle).unwrap();
    let (summary, found) = checked(&fixture);
    assert_eq!(summary.damages, 1);
    assert_eq!(found[0].1.as_deref(), Some("run/y"));
    assert!(found[0].2.contains("chunk 1"));
}

/// Of a file with both header copies, every ninth byte of them, and both ends and the middle of each chunk.
#[test]
fn a_bit_flipped_anywhere_gives_no_wrong_byte_and_is_named() {
    let fixture = Fixture::in_memory();
    written(&fixture);
    let vault = fixture.writer();
    let mut bytes: Vec<u8> = (0..20_000usize).map(|i| (i % 251) as u8).collect();
    let ino = vault.put("run/y", &bytes).unwrap();
    let handle = vault.open_file(ino, WRITE).unwrap().handle;
    vault.fsync(handle, false).unwrap();
    vault.write(handle, 20_000, &[9; 100], false).unwrap();
    vault.fsync(handle, false).unwrap();
    vault.release(handle).unwrap();
    bytes.extend([9; 100]);
    vault.close().unwrap();
    let tree = tree(&fixture);
    let file = tree.open_file(&stored(&*tree, ino), Access::ReadWrite).unwrap();
    let size = file.stat().unwrap().size;
    let ends = (1024..size).step_by(8220).flat_map(|at| [at, at + 11, at + 12, at + 28, at + 500, at + 3000]);
    let places = (0..1024).step_by(61).chain(ends).chain(size - 16..size);
    let (mut of_chunk, mut of_copy, mut unnamed) = (0, 0, Vec::new());
    for at in places.filter(|at| *at < size) {
        let mut byte = [0];
        file.read_at(&mut byte, at).unwrap();
        file.write_at(&[byte[0] ^ (1 << (at % 8))], at).unwrap();
        let vault = fixture.reader();
        let handle = vault.open_file(vault.ino("run/y").unwrap(), READ).unwrap().handle;
        for (i, whole) in bytes.chunks(8192).enumerate() {
            let mut got = vec![0; whole.len()];
            let read = vault.read(handle, i as u64 * 8192, &mut got);
            if at >= 1024 && (at - 1024) / 8220 == i as u64 {
                assert_eq!(damage(read), Damage::Chunk(i as u64), "byte {at}");
                of_chunk += 1;
            } else {
                assert_eq!(read.unwrap(), whole.len(), "byte {at}, chunk {i}");
                assert!(got == whole, "byte {at}, chunk {i}");
                of_copy += u64::from(at < 1024 && i == 0);
            }
        }
        vault.release(handle).unwrap();
        let (summary, found) = checked(&fixture);
        if summary.damages != 1 || found[0].1.as_deref() != Some("run/y") {
            unnamed.push((at, found));
        }
        file.write_at(&byte, at).unwrap();
    }
    assert!(of_chunk > 15 && of_copy > 15, "{of_chunk} {of_copy}");
    assert!(unnamed.is_empty(), "{} of them, first {:?}", unnamed.len(), unnamed[0]);
}

#[test]
fn a_damaged_run_is_left_out_and_the_others_work() {
    let fixture = Fixture::in_memory();
    let vault = fixture.writer();
    for run in ["one", "two", "three", "four"] {
        vault.make_dir(run).unwrap();
        vault.put(&format!("{run}/f"), run.as_bytes()).unwrap();
    }
    vault.close().unwrap();
    let runs = fixture.root.open_dir(b"runs").unwrap();
    let ids = fixture.run_dirs();
    let dir = |n: usize| runs.open_dir(&ids[n]).unwrap();
    let note = |n: usize| dir(n).open_file(b"run.json", Access::ReadWrite).unwrap();
    // Another run's descriptor; a changed byte; an envelope of another run.
    let mut bytes = vec![0; note(1).stat().unwrap().size as usize];
    note(1).read_at(&mut bytes, 0).unwrap();
    note(0).set_len(0).unwrap();
    note(0).write_at(&bytes, 0).unwrap();
    note(1).write_at(b"R", 0).unwrap();
    let keys = dir(2).open_dir(b"keys").unwrap();
    keys.open_file(b"vault-1", Access::ReadWrite).unwrap().write_at(&[0; 32], 0).unwrap();
    let vault = fixture.reader();
    let status = vault.status();
    let troubled: Vec<_> = status.runs.iter().filter(|r| r.trouble.is_some()).map(|r| r.run).collect();
    assert_eq!(troubled.len(), 3);
    let left = vault.list("").unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(vault.get(&format!("{}/f", left[0])).unwrap(), left[0].as_bytes());
    assert_eq!(checked(&fixture).0.damages, 3);
    // A run made with public keys alone: its signer is no gateway.
    let strangers = Fixture::in_memory();
    let stranger = strangers.writer_of(&State::new(77));
    assert!(matches!(stranger.make_dir("forged"), Ok(_) | Err(_)));
    let reader = strangers.reader();
    assert!(reader.list("").unwrap().is_empty());
    assert!(reader.status().runs[0].trouble.as_ref().unwrap().contains("no gateway of this vault"));
}

/// A newer program's run is told from one whose run.json was changed to look like one.
#[test]
fn an_unknown_version_or_suite_is_no_damage_where_a_gateway_signed_it() {
    for (from, to, unknown) in [
        ("\"suite\":1", "\"suite\":2", runvault_format::Error::Suite(2)),
        ("runvault/1 run", "runvault/2 run", runvault_format::Error::Version(2)),
    ] {
        for signed in [true, false] {
            let fixture = Fixture::in_memory();
            let vault = fixture.writer();
            for run in ["one", "two"] {
                vault.make_dir(run).unwrap();
                vault.put(&format!("{run}/f"), run.as_bytes()).unwrap();
            }
            vault.close().unwrap();
            let run = run_dir(&fixture);
            let bytes = read_whole(&*run, b"run.json", 1 << 20).unwrap();
            let note = String::from_utf8(bytes).unwrap().replacen(from, to, 1);
            let text = Note::parse(note.as_bytes()).unwrap().text;
            let newer = if signed { fixture.state.sign(text) } else { note.clone().into_bytes() };
            replace(&*run, b"run.json", &newer, 0o644).unwrap();
            let vault = fixture.reader();
            let (left, cause) = vault.left_out().remove(0);
            assert_eq!(vault.list("").unwrap().len(), 1, "the other run reads");
            match &*cause {
                Error::Newer { object, source } if signed => {
                    assert_eq!((object, source), (&format!("runs/{left}/run.json"), &unknown));
                }
                Error::Damaged { .. } if !signed => {}
                other => panic!("{to}, signed: {signed}: {other:?}"),
            }
            let summary = checked(&fixture).0;
            let expected = if signed { (0, 1) } else { (1, 0) };
            assert_eq!((summary.damages, summary.newer_runs), expected, "{to}");
            assert_eq!((summary.runs, summary.files), (1, 1));
        }
    }
}

#[test]
fn a_run_that_cannot_be_looked_at_stays_in_the_listing() {
    let fixture = Fixture::in_memory();
    let vault = fixture.writer();
    for run in ["one", "two"] {
        vault.make_dir(run).unwrap();
    }
    vault.close().unwrap();
    let run = fixture.root.open_dir(b"runs").unwrap().open_dir(&fixture.run_dirs()[0]).unwrap();
    run.rename(b"tree", &*run, b"elsewhere", Rename::NoReplace).unwrap();
    let vault = fixture.reader();
    let names = vault.list("").unwrap();
    assert_eq!(names.len(), 2, "{names:?}");
    let refused = names.iter().filter_map(|name| vault.ino(name).err()).collect::<Vec<_>>();
    let [Error::Damaged { object, .. }] = &refused[..] else { panic!("{refused:?}") };
    assert!(object.ends_with("/tree"), "{object}");
}

#[test]
fn the_runs_of_an_ended_gateway_count_up_to_its_end() {
    let mut fixture = Fixture::in_memory();
    let vault = fixture.writer();
    for run in ["one", "two", "three"] {
        vault.make_dir(run).unwrap();
    }
    vault.close().unwrap();
    drop(vault);
    let of_two = fixture.run_dirs().into_iter().find_map(|name| {
        let run = String::from_utf8(name).ok()?.parse().ok()?;
        let found = runs::read_descriptor(&fixture.root, &run, &*fixture.authority).ok()?;
        (found.descriptor.seq == Some(2)).then(|| text_hash(Note::parse(&found.note).unwrap().text))
    });
    let until = |hash| Until { run: Last { n: 2, hash: Some(hash) }, seal: Last { n: 0, hash: None } };
    Arc::get_mut(&mut fixture.authority).unwrap().until = Some(until(of_two.unwrap()));
    assert_eq!(fixture.reader().list("").unwrap(), ["one", "two"]);
    let (summary, found) = checked(&fixture);
    assert_eq!((summary.runs, summary.damages), (2, 1));
    assert!(found[0].2.contains("end at number 2"), "{found:?}");
    // Another run under the last number is none of those that count.
    Arc::get_mut(&mut fixture.authority).unwrap().until = Some(until(Digest([1; 32])));
    assert_eq!(fixture.reader().list("").unwrap(), ["one"]);
}

/// `runs/<id>` of the only run.
fn run_dir(fixture: &Fixture) -> Arc<dyn Dir> {
    fixture.root.open_dir(b"runs").unwrap().open_dir(&fixture.run_dirs()[0]).unwrap()
}

#[test]
fn things_named_like_a_run_that_are_none_are_named() {
    let fixture = Fixture::on_disk();
    written(&fixture);
    let runs = fixture.root.open_dir(b"runs").unwrap();
    runs.create_symlink(&[b'a'; 32], b"/").unwrap();
    runs.create_node(&[b'b'; 32], Kind::Fifo, 0o666, 0).unwrap();
    runs.create_file(&[b'c'; 32], 0o644).unwrap();
    let vault = fixture.writer();
    assert_eq!(vault.list("").unwrap(), ["run"]);
    assert_eq!(vault.status().runs.iter().filter(|run| run.trouble.is_some()).count(), 3);
    let (summary, found) = checked(&fixture);
    assert_eq!((summary.runs, summary.damages), (1, 3), "{found:?}");
    assert!(found.iter().all(|(object, _, what)| object.starts_with("runs/") && what.contains("kind")));
}

#[test]
fn another_kind_of_object_in_the_place_of_a_runs_parts_is_damage() {
    for part in ["run.json", "name", "keys", "tree", "keys/vault-1"] {
        let fixture = Fixture::on_disk();
        written(&fixture);
        let run = std::str::from_utf8(&fixture.run_dirs()[0]).unwrap().to_owned();
        let path = fixture.path().join("runs").join(&run).join(part);
        std::fs::rename(&path, fixture.path().join("aside")).unwrap();
        for planted in ["fifo", "link", "directory"] {
            let there = |what| part.starts_with(what) && planted == "directory";
            if there("keys") && part == "keys" || there("tree") {
                continue;
            }
            match planted {
                "fifo" => {
                    let mode = rustix::fs::Mode::from_raw_mode(0o666);
                    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
                }
                "link" => std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
                _ => std::fs::create_dir(&path).unwrap(),
            }
            let (summary, found) = checked(&fixture);
            assert_eq!(summary.damages, 1, "{part} as a {planted}: {found:?}");
            assert!(found[0].0.contains(&run) && found[0].2.contains("kind"), "{part}: {found:?}");
            let vault = fixture.reader();
            assert!(!matches!(vault.get("run/x"), Err(Error::Store { .. })), "{part} as a {planted}");
            drop(vault);
            if planted == "directory" { std::fs::remove_dir(&path) } else { std::fs::remove_file(&path) }
                .unwrap();
        }
    }
}

#[test]
fn decoys_do_not_hide_the_envelope() {
    let fixture = Fixture::in_memory();
    written(&fixture);
    let keys = run_dir(&fixture).open_dir(b"keys").unwrap();
    for n in 0..10_001 {
        keys.create_file(format!("decoy-{n}").as_bytes(), 0o644).unwrap();
    }
    assert_eq!(fixture.reader().get("run/x").unwrap(), vec![1; 30_000]);
    assert_eq!(checked(&fixture).0.damages, 0);
}

#[test]
fn a_planted_journal_leaves_the_run_readable_and_is_named() {
    for planted in ["session", "fifo", "file"] {
        let fixture = Fixture::on_disk();
        written(&fixture);
        let dir = run_dir(&fixture);
        if planted == "file" {
            dir.create_file(b"journal", 0o644).unwrap();
        } else {
            dir.create_dir(b"journal", 0o755).unwrap();
            let journal = dir.open_dir(b"journal").unwrap();
            let mut sector = [0u8; 512];
            sector[..8].copy_from_slice(b"rvredo/1");
            sector[8..12].copy_from_slice(&512u32.to_le_bytes());
            sector[12] = 1;
            sector[20..36].fill(0x66);
            for name in [b"0", b"1"] {
                if planted == "fifo" {
                    journal.create_node(name, Kind::Fifo, 0o666, 0).unwrap();
                } else {
                    journal.create_file(name, 0o644).unwrap().write_at(&sector, 0).unwrap();
                }
            }
        }
        let (summary, found) = checked(&fixture);
        assert_eq!(summary.damages, 1, "{planted}: {found:?}");
        assert!(found[0].0.ends_with("/journal"), "{found:?}");
        // Also where nothing is known of the run's sessions.
        let authority: Arc<dyn Authority> = fixture.authority.clone();
        assert_eq!(check(&fixture.root, &authority, &|_| None, &mut |_| {}).unwrap().damages, 1, "{planted}");

        let vault = fixture.writer();
        assert_eq!(vault.get("run/x").unwrap(), vec![1; 30_000], "{planted}");
        assert_eq!(posix(vault.put("run/z", b"")), Posix::ReadOnly);
        assert_eq!(posix(vault.put("run/x", b"")), Posix::ReadOnly);
        let run = vault.status().runs[0].clone();
        assert!(!run.writing && run.trouble.unwrap().contains("read-only"), "{planted}");
        vault.make_dir("second").unwrap();
        vault.put("second/f", b"others are written").unwrap();
        vault.close().unwrap();
        let goes_on = takeover::goes_on(&fixture.root, &fixture.state, &run.run);
        assert!(!goes_on.unwrap(), "{planted}: a person is to look at it");
    }
}

#[test]
fn a_lost_entry_of_the_state_folder_leaves_the_run_readable() {
    let fixture = Fixture::in_memory();
    written(&fixture);
    let state = fixture.state.apart();
    state.damage();
    let vault = fixture.writer_of(&state);
    assert_eq!(vault.get("run/x").unwrap(), vec![1; 30_000]);
    assert!(matches!(vault.put("run/z", b""), Err(Error::NotHeld { .. })));
    assert!(!vault.status().runs[0].writing);
}

/// Nothing tells them from honest ones: a person may know how many there should be.
#[test]
fn check_counts_what_carries_no_proof_of_its_place() {
    let fixture = Fixture::in_memory();
    let vault = fixture.writer();
    vault.make_dir("run").unwrap();
    vault.make_dir("run/sub").unwrap();
    let run = vault.ino("run").unwrap();
    for name in ["a", "b", "c"] {
        vault.put(&format!("run/{name}"), b"x").unwrap();
    }
    vault.put("run/empty", b"").unwrap();
    vault.symlink(&CALLER, run, b"link", b"a").unwrap();
    for (name, kind) in [(b"s", Kind::Socket), (b"d", Kind::BlockDevice), (b"e", Kind::CharDevice)] {
        vault.mknod(&CALLER, run, name, kind, 0o644, 0).unwrap();
    }
    vault.close().unwrap();
    let honest = Unproven { empty_files: 1, symlinks: 1, sockets: 1, devices: 2, ..Unproven::default() };
    let (summary, found) = checked(&fixture);
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(summary.unproven, honest);

    let reader = fixture.reader();
    let tree = tree(&fixture);
    let [a, b, c] = ["a", "b", "c"].map(|name| stored(&*tree, reader.ino(&format!("run/{name}")).unwrap()));
    tree.open_file(&a, Access::ReadWrite).unwrap().set_len(0).unwrap();
    tree.unlink(&b).unwrap();
    tree.create_node(&b, Kind::Fifo, 0o644, 0).unwrap();
    tree.unlink(&c).unwrap();
    tree.create_dir(&c, 0o755).unwrap();
    let (summary, found) = checked(&fixture);
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(summary.unproven, Unproven { empty_files: 2, empty_directories: 1, fifos: 1, ..honest });
}

#[test]
fn check_counts_what_it_read() {
    let fixture = Fixture::in_memory();
    let vault = fixture.writer();
    vault.make_dir("run").unwrap();
    let ino = vault.put("run/f", &[1; 8192]).unwrap();
    let handle = vault.open_file(ino, WRITE).unwrap().handle;
    vault.write(handle, 1 << 40, b"far", false).unwrap();
    vault.release(handle).unwrap();
    vault.close().unwrap();
    let (summary, found) = checked(&fixture);
    assert!(found.is_empty(), "{found:?}");
    assert!(summary.bytes < 4 << 20, "{}", summary.bytes);
}

#[test]
fn runs_that_no_key_opens_are_hidden_and_counted() {
    let mut fixture = Fixture::in_memory();
    written(&fixture);
    Arc::get_mut(&mut fixture.authority).map(|a| a.opens = false).unwrap();
    let vault = fixture.reader();
    assert!(vault.list("").unwrap().is_empty());
    let status = vault.status();
    assert_eq!((status.runs.len(), status.runs[0].name.as_ref(), status.runs[0].closed), (1, None, true));
    assert_eq!(checked(&fixture).0.closed_runs, 1);
    // The gateway that holds it needs no envelope.
    assert_eq!(fixture.writer().get("run/x").unwrap(), vec![1; 30_000]);
}

#[test]
fn a_run_without_any_envelope_is_damage_and_its_writer_puts_one_back() {
    for whole in [false, true] {
        let fixture = Fixture::in_memory();
        written(&fixture);
        let dir = run_dir(&fixture);
        dir.open_dir(b"keys").unwrap().unlink(b"vault-1").unwrap();
        if whole {
            dir.remove_dir(b"keys").unwrap();
        }
        let (summary, found) = checked(&fixture);
        assert_eq!((summary.damages, summary.closed_runs), (1, 0), "{found:?}");
        assert!(found[0].0.ends_with("/keys"), "{found:?}");
        let vault = fixture.reader();
        assert!(vault.list("").unwrap().is_empty());
        assert_eq!((vault.left_out().len(), vault.closed_runs()), (1, 0));

        fixture.writer().close().unwrap();
        let (summary, found) = checked(&fixture);
        assert_eq!((summary.runs, summary.damages), (1, 0), "{found:?}");
        assert_eq!(fixture.reader().get("run/x").unwrap(), vec![1; 30_000]);
    }
}

#[test]
fn an_envelope_that_opens_to_no_key_of_the_run_is_replaced_by_its_writer() {
    for changed in [&[7; 32][..], b"torn"] {
        let fixture = Fixture::in_memory();
        written(&fixture);
        let keys = run_dir(&fixture).open_dir(b"keys").unwrap();
        keys.unlink(b"vault-1").unwrap();
        keys.create_file(b"vault-1", 0o644).unwrap().write_at(changed, 0).unwrap();
        assert!(fixture.reader().list("").unwrap().is_empty());
        fixture.writer().close().unwrap();
        let (summary, found) = checked(&fixture);
        assert_eq!((summary.runs, summary.damages), (1, 0), "{found:?}");
        assert_eq!(fixture.reader().get("run/x").unwrap(), vec![1; 30_000]);
    }
}

#[test]
fn what_is_planted_beside_the_parts_of_a_run_is_named() {
    let fixture = Fixture::on_disk();
    written(&fixture);
    let run = fixture.path().join("runs").join(std::str::from_utf8(&fixture.run_dirs()[0]).unwrap());
    std::fs::create_dir(run.join("lease")).unwrap();
    let (summary, found) = checked(&fixture);
    assert_eq!((summary.damages, summary.foreign_names), (1, 0), "{found:?}");
    assert!(found[0].0.ends_with("/lease") && found[0].2.contains("kind"), "{found:?}");
    std::fs::remove_dir(run.join("lease")).unwrap();

    // The fourth and what follows are of what was cut short, or is under way.
    let junks =
        ["junk", "keys/junk", "journal/junk", ".tmp-0123456789abcdef", "keys/.tmp-01", "worker-vault-1"];
    for (n, junk) in junks.into_iter().enumerate() {
        std::fs::create_dir_all(run.join("journal")).unwrap();
        std::fs::write(run.join(junk), "").unwrap();
        let (summary, found) = checked(&fixture);
        let leftover = u64::from(n >= 3);
        let counted = (summary.damages, summary.foreign_names, summary.leftovers);
        assert_eq!(counted, (0, 1 - leftover, leftover), "{junk}: {found:?}");
        assert!(found[0].0.ends_with(junk), "{found:?}");
        std::fs::remove_file(run.join(junk)).unwrap();
    }
    std::fs::write(run.join("keys").join(format!("reader-{}", "0".repeat(32))), "").unwrap();
    assert!(checked(&fixture).1.is_empty());
    // What claims to be a seal must be one.
    std::fs::create_dir(run.join("seal")).unwrap();
    let (summary, found) = checked(&fixture);
    assert_eq!(summary.damages, 1, "{found:?}");
    assert!(found[0].0.ends_with("/seal"), "{found:?}");
}

#[test]
fn what_is_planted_in_the_place_of_removed_runs_notes_is_named() {
    for planted in ["file", "link", "junk"] {
        let fixture = Fixture::on_disk();
        written(&fixture);
        let path = fixture.path().join("retired");
        match planted {
            "file" => std::fs::write(&path, "").unwrap(),
            "link" => std::os::unix::fs::symlink("/", &path).unwrap(),
            _ => {
                std::fs::create_dir(&path).unwrap();
                std::fs::write(path.join("0".repeat(32)), "").unwrap();
                std::fs::write(path.join("junk"), "").unwrap();
            }
        }
        let (summary, found) = checked(&fixture);
        let foreign = u64::from(planted == "junk");
        assert_eq!((summary.damages, summary.foreign_names), (1 - foreign, foreign), "{planted}: {found:?}");
        assert!(found[0].0.starts_with("retired"), "{found:?}");
    }
}

/// Another machine's lease in the place of the first run's.
fn held_elsewhere(fixture: &Fixture) -> (Arc<dyn Dir>, Lease) {
    let runs = fixture.root.open_dir(b"runs").unwrap();
    let dir = runs.open_dir(&fixture.run_dirs()[0]).unwrap();
    let lease = Lease {
        holder: State::new(4).id.to_string(),
        host: runvault_format::ids::Digest([8; 32]),
        boot: "elsewhere".into(),
        pid: 1,
        start: 1,
        seq: 1,
    };
    runvault_store::replace::replace(&*dir, b"lease", &lease.to_bytes().unwrap(), 0o644).unwrap();
    (dir, lease)
}

/// A written vault on a store that fails each of `ops`, until the faults are cleared.
fn written_and_failing(ops: &[Op], errno: i32) -> (Fixture, Arc<Faults>) {
    let mut fixture = Fixture::in_memory();
    written(&fixture);
    let (root, faults) = Faults::over(fixture.root.clone()).unwrap();
    fixture.root = root;
    for op in ops {
        faults.add(Rule::every(*op, Fault::Fail(errno)));
    }
    (fixture, faults)
}

#[test]
fn a_lease_of_another_machine_makes_the_run_read_only_until_it_is_taken_over() {
    let fixture = Fixture::in_memory();
    written(&fixture);
    let (dir, lease) = held_elsewhere(&fixture);
    let vault = fixture.writer();
    assert_eq!(vault.get("run/x").unwrap(), vec![1; 30_000]);
    assert!(matches!(vault.put("run/z", b""), Err(Error::Held { .. })));
    let status = vault.status();
    assert!(!status.runs[0].writing && status.runs[0].holder.as_ref().unwrap().contains(&lease.holder));
    vault.close().unwrap();
    let id = status.runs[0].run;
    assert!(takeover::holder(&fixture.root, &id).unwrap().unwrap().contains(&lease.holder));
    let goes_on = || takeover::goes_on(&fixture.root, &fixture.state, &id).unwrap();
    assert!(!goes_on());
    taken_over(&fixture.root, &*fixture.authority, &fixture.state, &id).unwrap();
    assert!(goes_on());
    let vault = fixture.writer();
    vault.put("run/z", b"mine").unwrap();
    vault.close().unwrap();
    assert!(!names(&*dir).contains(&b"lease".to_vec()));
}

#[test]
fn a_run_that_nobody_holds_says_why_it_is_read_only_until_it_is_taken_over() {
    let (fixture, faults) = written_and_failing(&[Op::CreateFile], libc::EROFS);
    let other = State::new(4);
    let vault = fixture.writer_of(&other);
    assert_eq!(vault.get("run/x").unwrap(), vec![1; 30_000]);
    let maker = fixture.state.id.to_string();
    for refused in [
        vault.put("run/z", b"").map(drop),
        vault.put("run/x", b"").map(drop),
        vault.make_dir("run/d").map(drop),
    ] {
        assert!(matches!(&refused, Err(Error::NotHeld { maker: m, .. }) if *m == maker), "{refused:?}");
    }
    let status = vault.status().runs[0].clone();
    let trouble = status.trouble.unwrap();
    assert!(trouble.contains(&maker) && trouble.contains("takeover"), "{trouble}");
    // Without a gateway nothing is to be written anyway.
    assert_eq!(fixture.reader().status().runs[0].trouble, None);
    vault.close().unwrap();

    // A store that takes nothing: nothing is taken over, however often it is tried.
    let take = || taken_over(&fixture.root, &*fixture.authority, &other, &status.run);
    assert!(matches!(take(), Err(Error::Store { .. })));
    assert!(other.session(&status.run).is_none());
    faults.clear();
    take().unwrap();
    let vault = fixture.writer_of(&other);
    vault.put("run/z", b"").unwrap();
    assert_eq!(vault.status().runs[0].trouble, None);
    vault.close().unwrap();
}

#[test]
fn a_store_that_is_read_only_is_read_by_its_writer_too() {
    let ops = [Op::CreateFile, Op::CreateDir, Op::Unlink, Op::Rename, Op::Write];
    let (fixture, faults) = written_and_failing(&ops, libc::EROFS);
    let vault = fixture.writer();
    assert_eq!(vault.get("run/x").unwrap(), vec![1; 30_000]);
    assert_eq!(posix(vault.put("run/z", b"")), Posix::ReadOnly);
    assert!(matches!(vault.make_dir("second"), Err(Error::Store { .. })));
    faults.clear();
    // The store is asked again a second later.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    vault.tick().unwrap();
    vault.put("run/z", b"again").unwrap();
    assert_eq!(vault.get("run/z").unwrap(), b"again");
    vault.close().unwrap();
}

#[test]
fn a_full_store_is_read_by_its_writer_and_written_once_there_is_room() {
    let ops = [Op::CreateFile, Op::CreateDir, Op::Write];
    let (fixture, faults) = written_and_failing(&ops, libc::ENOSPC);
    let vault = fixture.writer();
    assert_eq!(vault.get("run/x").unwrap(), vec![1; 30_000]);
    let full = vault.put("run/z", b"").unwrap_err();
    assert!(matches!(full, Error::Store { source, .. } if source.raw_os_error() == Some(libc::ENOSPC)));
    faults.clear();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    vault.tick().unwrap();
    vault.put("run/z", b"again").unwrap();
    vault.close().unwrap();
}

#[test]
fn a_full_store_is_emptied_by_a_new_mount() {
    let ops = [Op::CreateFile, Op::CreateDir, Op::Write];
    let (fixture, faults) = written_and_failing(&ops, libc::ENOSPC);
    let vault = fixture.writer();
    let run = vault.ino("run").unwrap();
    let (kept, _) = (vault.ino("run/x").unwrap(), vault.get("run/x").unwrap());
    assert!(vault.mv("run/x", "run/y", Rename::Over).is_err());
    assert_eq!(posix(vault.unlink(run, b"z")), Posix::NotFound);
    vault.unlink(run, b"x").unwrap();
    // That made room: it is used at once.
    faults.clear();
    vault.put("run/z", b"again").unwrap();
    assert!(vault.lookup(run, b"x").is_err() && vault.open_file(kept, READ).is_err());
    assert_eq!(vault.get("run/z").unwrap(), b"again");
    vault.close().unwrap();
}

#[test]
fn a_full_store_whose_run_another_machine_holds_stays_as_it_is() {
    let (fixture, faults) = written_and_failing(&[Op::CreateFile], libc::ENOSPC);
    let vault = fixture.writer();
    assert_eq!(vault.get("run/x").unwrap(), vec![1; 30_000]);
    faults.clear();
    held_elsewhere(&fixture);
    let run = vault.ino("run").unwrap();
    assert!(vault.unlink(run, b"x").is_err());
    assert_eq!(vault.get("run/x").unwrap(), vec![1; 30_000]);
    vault.close().unwrap();
}

#[test]
fn what_recovery_may_need_stays_in_a_full_store() {
    let mut fixture = Fixture::in_memory();
    let vault = fixture.writer();
    let run = vault.make_dir("run").unwrap().ino;
    for name in ["run/f", "run/g"] {
        let ino = vault.put(name, &[1; 100_000]).unwrap();
        let handle = vault.open_file(ino, WRITE).unwrap().handle;
        vault.fsync(handle, false).unwrap();
        vault.write(handle, 20_000, &[2; 5000], false).unwrap();
        vault.fsync(handle, true).unwrap();
    }
    let linked = vault.ino("run/f").unwrap();
    vault.link(linked, run, b"second").unwrap();
    std::mem::forget(vault);
    let (root, faults) = Faults::over(fixture.root.clone()).unwrap();
    fixture.root = root;
    for op in [Op::CreateFile, Op::CreateDir, Op::Write] {
        faults.add(Rule::every(op, Fault::Fail(libc::ENOSPC)));
    }
    let vault = fixture.writer();
    let run = vault.ino("run").unwrap();
    // By this name the journal's records may find the file.
    let full = vault.unlink(run, b"f").unwrap_err();
    assert!(matches!(full, Error::Store { source, .. } if source.raw_os_error() == Some(libc::ENOSPC)));
    vault.unlink(run, b"g").unwrap();
    faults.clear();
    vault.put("run/z", b"").unwrap();
    let mut expected = vec![1; 100_000];
    expected[20_000..25_000].fill(2);
    assert_eq!(vault.get("run/second").unwrap(), expected);
    vault.close().unwrap();
}

#[test]
fn a_held_run_is_asked_for_again() {
    let fixture = Fixture::in_memory();
    written(&fixture);
    let (dir, _) = held_elsewhere(&fixture);
    let vault = fixture.writer();
    assert!(matches!(vault.put("run/z", b""), Err(Error::Held { .. })));
    dir.unlink(b"lease").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    vault.tick().unwrap();
    vault.put("run/z", b"mine").unwrap();
    vault.close().unwrap();
}

#[test]
fn an_unclean_end_is_recovered_by_the_next_mount() {
    let fixture = Fixture::in_memory();
    let vault = fixture.writer();
    vault.make_dir("run").unwrap();
    let ino = vault.put("run/f", &[1; 100_000]).unwrap();
    let handle = vault.open_file(ino, WRITE).unwrap().handle;
    vault.fsync(handle, false).unwrap();
    vault.write(handle, 20_000, &[2; 5000], false).unwrap();
    vault.fsync(handle, true).unwrap();
    // Killed here: no close, the lease stays.
    std::mem::forget(vault);
    let again = fixture.writer();
    let mut expected = vec![1; 100_000];
    expected[20_000..25_000].fill(2);
    assert_eq!(again.get("run/f").unwrap(), expected);
    let run = again.ino("run").unwrap();
    again.mkdir(&CALLER, run, b"d", 0o755).unwrap();
    again.close().unwrap();
    let dir = fixture.root.open_dir(b"runs").unwrap().open_dir(&fixture.run_dirs()[0]).unwrap();
    assert_eq!(names(&*dir), [&b"keys"[..], b"name", b"run.json", b"tree"]);
    assert_eq!(checked(&fixture).0.damages, 0);
}
