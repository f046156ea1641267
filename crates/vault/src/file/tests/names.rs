//! Names that change, holes by the hundred, and many threads at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runvault_format::ids::RunId;
use runvault_format::state_slot::HOLES_MAX;
use runvault_store::backend::{Access, Rename};
use runvault_store::doubles::memory::MemoryDir;

use crate::api::Allocate;
use crate::file::testing::{Rig, content};
use crate::{Damage, Error};

fn misplaced<T: std::fmt::Debug>(outcome: crate::Result<T>) -> bool {
    matches!(outcome, Err(Error::Damaged { damage: Damage::Place, .. }))
}

#[test]
fn a_rename_is_prepared_and_happens_or_does_not() {
    let rig = Rig::new(9);
    let tree = rig.run.tree.clone();
    let file = rig.file("a");
    file.write(0, b"bytes").unwrap();
    file.fsync().unwrap();
    // Prepared and given up: the old name counts on, also after a restart.
    drop(file.prepare_rename(Rig::place("a"), Rig::place("b"), false).unwrap());
    drop(file);
    let rig = rig.killed();
    let file = rig.open("a").unwrap();
    let held = file.prepare_rename(Rig::place("a"), Rig::place("b"), false).unwrap();
    tree.rename(b"a", &*tree, b"b", Rename::NoReplace).unwrap();
    held.done();
    rig.called(file.ino, "b");
    drop(file);
    let rig = rig.killed();
    assert_eq!(content(&rig.open("b").unwrap()).unwrap(), b"bytes");
    // Back at the place before: a cut inside the rename may leave it there. Elsewhere: never.
    tree.rename(b"b", &*tree, b"a", Rename::NoReplace).unwrap();
    rig.open("a").unwrap();
    tree.rename(b"a", &*tree, b"c", Rename::NoReplace).unwrap();
    assert!(misplaced(rig.open("c")));
}

#[test]
fn records_follow_the_name() {
    let rig = Rig::new(9);
    let tree = rig.run.tree.clone();
    let file = rig.file("a");
    file.write(0, &[1; 1024]).unwrap();
    file.fsync().unwrap();
    file.write(0, &[2; 512]).unwrap();
    let held = file.prepare_rename(Rig::place("a"), Rig::place("b"), false).unwrap();
    tree.rename(b"a", &*tree, b"b", Rename::NoReplace).unwrap();
    rig.called(file.ino, "b");
    held.done();
    file.write(512, &[3; 512]).unwrap();
    file.fsync().unwrap();
    // Torn in place: the record is found under the new name.
    file.stored().write_at(&[0; 200], 1024 + 540).unwrap();
    drop(file);
    let rig = rig.killed();
    let all = content(&rig.open("b").unwrap()).unwrap();
    assert!(all[..512] == [2; 512] && all[512..] == [3; 512]);
}

#[test]
fn no_record_names_a_path_that_a_directory_has_left() {
    let (begun, has_begun) = channel();
    let (located, is_located) = channel();
    let (renamed, is_renamed) = channel();
    let watched = Arc::new(Mutex::new((0, 0)));
    let watching = watched.clone();
    let waits = Mutex::new((is_located, is_renamed));
    let dir = MemoryDir::root();
    dir.create_dir(b"tree", 0o755).unwrap();
    let rig = Rig::watched(dir, 9, RunId([1; 16]), move |ino| {
        let (first, second) = *watching.lock().unwrap();
        if ino == first {
            begun.send(()).unwrap();
            waits.lock().unwrap().0.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        if ino == second {
            located.send(()).unwrap();
            let _ = waits.lock().unwrap().1.recv_timeout(Duration::from_millis(300));
        }
    });
    let [other, file] = ["g", "f"].map(|name| rig.file(name));
    for file in [&other, &file] {
        file.write(0, &[1; 1024]).unwrap();
        file.fsync().unwrap();
    }
    rig.called(file.ino, "old/f");
    other.write(0, &[2; 512]).unwrap();
    *watched.lock().unwrap() = (other.ino, file.ino);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A directory's rename: it has seen which files have something to record.
            let held = rig.run.hold_records().unwrap();
            *watched.lock().unwrap() = (0, 0);
            rig.called(file.ino, "new/f");
            drop(held);
            renamed.send(()).unwrap();
        });
        has_begun.recv().unwrap();
        file.write(0, &[3; 512]).unwrap();
        file.fsync().unwrap();
    });
    let log = rig.dir.open_dir(b"journal").unwrap().open_file(b"0", Access::Read).unwrap();
    let mut bytes = vec![0; log.stat().unwrap().size as usize];
    log.read_at(&mut bytes, 0).unwrap();
    let old = bytes.windows(5).any(|at| at == b"old/f");
    assert!(!old || !rig.run.require_writer().unwrap().journal.has_unsettled());
}

/// A synced file "a" with these further names.
fn linked(names: &[&str]) -> Rig {
    let rig = Rig::new(9);
    let file = rig.file("a");
    file.write(0, b"bytes").unwrap();
    file.fsync().unwrap();
    for name in names {
        link(&rig, "a", name);
    }
    drop(file);
    rig.remounted()
}

fn link(rig: &Rig, from: &str, to: &str) {
    let tree = &rig.run.tree;
    let held = rig.open(from).unwrap();
    let held = held.prepare_link(Some(Rig::place(from)), Rig::place(to)).unwrap();
    tree.link(from.as_bytes(), &**tree, to.as_bytes()).unwrap();
    held.done();
}

fn unlink(rig: &Rig, name: &str) {
    let file = rig.open(name).unwrap();
    let held = file.prepare_unlink(false).unwrap();
    rig.run.tree.unlink(name.as_bytes()).unwrap();
    held.done();
}

fn rename(rig: &Rig, from: &str, to: &str) {
    let tree = &rig.run.tree;
    let file = rig.open(from).unwrap();
    let held = file.prepare_rename(Rig::place(from), Rig::place(to), false).unwrap();
    tree.rename(from.as_bytes(), &**tree, to.as_bytes(), Rename::NoReplace).unwrap();
    rig.called(file.ino, to);
    held.done();
}

/// What the file "from" is under the name "evil", where someone without the key put a copy of it.
fn copied_to_evil(rig: &Rig, from: &str) -> crate::Result<Vec<u8>> {
    let tree = &rig.run.tree;
    let stored = tree.open_file(from.as_bytes(), Access::Read).unwrap();
    let mut bytes = vec![0; stored.stat().unwrap().size as usize];
    stored.read_at(&mut bytes, 0).unwrap();
    tree.create_file(b"evil", 0o644).unwrap().write_at(&bytes, 0).unwrap();
    let found = rig.open("evil").and_then(|file| content(&file));
    tree.unlink(b"evil").unwrap();
    found
}

#[test]
fn two_names_of_a_file_are_its_only_ones() {
    let rig = linked(&["b"]);
    for name in ["a", "b"] {
        assert_eq!(content(&rig.open(name).unwrap()).unwrap(), b"bytes");
    }
    assert!(misplaced(copied_to_evil(&rig, "a")));
    for gone in ["a", "b"] {
        let rig = linked(&["b"]);
        let left = if gone == "a" { "b" } else { "a" };
        unlink(&rig, gone);
        let rig = rig.remounted();
        assert_eq!(content(&rig.open(left).unwrap()).unwrap(), b"bytes");
        assert!(misplaced(copied_to_evil(&rig, left)));
        // Further links and renames go on from there.
        link(&rig, left, "c");
        unlink(&rig, left);
        rename(&rig, "c", "d");
        let rig = rig.killed();
        assert_eq!(content(&rig.open("d").unwrap()).unwrap(), b"bytes");
        assert!(misplaced(copied_to_evil(&rig, "d")));
    }
}

#[test]
fn more_names_than_two_carry_no_place_until_one_is_left() {
    for rig in [linked(&["b", "c"]), {
        let rig = linked(&["b"]);
        rename(&rig, "b", "c");
        link(&rig, "a", "b");
        rig
    }] {
        let rig = rig.remounted();
        for name in ["a", "b", "c"] {
            assert_eq!(content(&rig.open(name).unwrap()).unwrap(), b"bytes");
        }
        unlink(&rig, "a");
        rename(&rig, "b", "e");
        unlink(&rig, "c");
        let rig = rig.killed();
        assert_eq!(content(&rig.open("e").unwrap()).unwrap(), b"bytes");
        rename(&rig, "e", "f");
        let rig = rig.remounted();
        assert_eq!(content(&rig.open("f").unwrap()).unwrap(), b"bytes");
        assert!(misplaced(copied_to_evil(&rig, "f")));
    }
}

#[test]
fn unlinked_while_open_it_lives_on() {
    let rig = Rig::new(9);
    let file = rig.file("a");
    file.write(0, &[1; 1024]).unwrap();
    file.fsync().unwrap();
    file.write(0, &[2; 10]).unwrap();
    let held = file.prepare_unlink(true).unwrap();
    rig.run.tree.unlink(b"a").unwrap();
    held.done();
    file.write(1000, &[3; 1000]).unwrap();
    file.fsync().unwrap();
    file.truncate(1500).unwrap();
    rig.run.tick().unwrap();
    let all = content(&file).unwrap();
    assert!(all[..10] == [2; 10] && all[10..1000] == [1; 990] && all[1000..] == [3; 500]);
    drop(file);
    rig.remounted();
}

#[test]
fn a_header_for_an_empty_file() {
    let rig = Rig::new(9);
    let file = rig.file("a");
    assert_eq!(file.file_id(), None);
    let id = file.ensure_written_header().unwrap();
    assert_eq!(file.file_id(), Some(id));
    drop(file);
    let rig = rig.remounted();
    let file = rig.open("a").unwrap();
    assert_eq!((file.size(), file.file_id()), (0, Some(id)));
    file.write(0, b"x").unwrap();
    assert_eq!(file.ensure_written_header().unwrap(), id);
}

#[test]
fn more_holes_than_a_slot_lists() {
    for synced in [false, true] {
        let rig = Rig::new(9);
        let file = rig.file("a");
        let mut model = vec![7u8; 400 * 512];
        file.write(0, &model).unwrap();
        if synced {
            file.fsync().unwrap();
        }
        for i in (0..400usize).step_by(4) {
            file.allocate(i as u64 * 512, 512, Allocate::PunchHole).unwrap();
            model[i * 512..][..512].fill(0);
            if i % 40 == 0 {
                file.fsync().unwrap();
                assert!(file.exclusive().listed_holes().to_slot(HOLES_MAX).len() <= HOLES_MAX);
            }
        }
        file.fsync().unwrap();
        drop(file);
        let rig = rig.killed();
        assert!(content(&rig.open("a").unwrap()).unwrap() == model, "synced: {synced}");
    }
}

#[test]
fn a_sparse_file_of_terabytes_costs_nothing() {
    let rig = Rig::new(13);
    let file = rig.file("a");
    file.truncate(8 << 40).unwrap();
    file.write(5 << 40, b"island").unwrap();
    file.fsync().unwrap();
    assert_eq!(file.seek(0, true).unwrap(), 5 << 40);
    assert_eq!(file.seek(5 << 40, false).unwrap(), (5 << 40) + 8192);
    // Nor does one without holes: it is not looked through chunk by chunk.
    let full = rig.file("b");
    full.exclusive().size = 8 << 50;
    assert_eq!(full.seek(0, false).unwrap(), 8 << 50);
    full.exclusive().holes.insert(1 << 40..2 << 40);
    assert_eq!((full.seek(7, false).unwrap(), full.seek(7, true).unwrap()), (8192 << 40, 7));
    full.exclusive().size = 0;
    drop(file);
    let rig = rig.remounted();
    let file = rig.open("a").unwrap();
    let mut buf = [1; 6];
    assert_eq!(file.read(5 << 40, &mut buf).unwrap(), 6);
    assert_eq!(&buf, b"island");
    assert_eq!(file.size(), 8 << 40);
}

#[test]
fn many_threads_on_few_files() {
    let rig = Rig::new(9);
    let files: Vec<_> = ["a", "b", "c"].iter().map(|n| rig.file(n)).collect();
    let stop = AtomicBool::new(false);
    let regions: Vec<(usize, u64)> = (0..6).map(|t| (t % 3, (t as u64 / 3) * 40_000)).collect();
    std::thread::scope(|scope| {
        let house = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                rig.run.tick().unwrap();
                rig.run.checkpoint().unwrap();
                drop(rig.run.hold_records().unwrap());
            }
        });
        let writers: Vec<_> = regions
            .iter()
            .map(|(f, base)| {
                let file = Arc::clone(&files[*f]);
                scope.spawn(move || {
                    for round in 1..40u8 {
                        for piece in 0..20u64 {
                            file.write(base + piece * 1900, &[round; 1900]).unwrap();
                        }
                        if round % 4 == 0 {
                            file.fsync().unwrap();
                        }
                        let mut got = [0; 1900];
                        file.read(base + 3800, &mut got).unwrap();
                        assert_eq!(got, [round; 1900]);
                    }
                    file.flush().unwrap();
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        house.join().unwrap();
    });
    drop(files);
    let rig = rig.remounted();
    for (f, base) in regions {
        let mut got = [0; 38_000];
        rig.open(["a", "b", "c"][f]).unwrap().read(base, &mut got).unwrap();
        assert!(got == [39; 38_000]);
    }
}
