//! A store that fails: nothing is retried into success, nothing accepted is dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use runvault_format::ids::RunId;
use runvault_store::backend::{Access, Dir};
use runvault_store::doubles::faulty::{Fault, Faults, Rule};
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::doubles::observe::Op;
use runvault_store::doubles::recording::Recording;

use crate::file::FileObject;
use crate::file::testing::{Rig, content};
use crate::file::write::WRITES_LIMIT;
use crate::{Error, Result};

fn faulty() -> (Rig, Arc<Faults>, Arc<dyn Dir>) {
    let beneath = MemoryDir::root();
    beneath.create_dir(b"tree", 0o755).unwrap();
    let (dir, faults) = Faults::over(beneath.clone()).unwrap();
    (Rig::over(dir, 9, RunId([1; 16])), faults, beneath)
}

/// One file `f` on such a store, whose bytes are durable.
fn durable(bytes: &[u8]) -> (Rig, Arc<Faults>, Arc<dyn Dir>, Arc<FileObject>) {
    let (rig, faults, beneath) = faulty();
    let file = rig.file("f");
    file.write(0, bytes).unwrap();
    file.fsync().unwrap();
    (rig, faults, beneath, file)
}

fn errno<T: std::fmt::Debug>(outcome: Result<T>) -> i32 {
    match outcome {
        Err(Error::Store { source, .. }) => source.raw_os_error().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn is_poisoned<T: std::fmt::Debug>(outcome: Result<T>) -> bool {
    matches!(outcome, Err(Error::Poisoned { .. }))
}

/// The kernel ends a large write at a page when its process is killed.
#[test]
fn a_first_write_that_a_kill_cuts_short_leaves_a_shorter_file_and_no_damage() {
    for kept in [1024, 1024 + 100, 4096, 1024 + 540 * 20, 1024 + 540 * 20 + 17] {
        let (rig, faults, beneath) = faulty();
        let file = rig.file("f");
        faults.add(Rule { after: 1, ..Rule::next(Op::Write, Fault::Hang) });
        let left = std::thread::scope(|scope| {
            let writer = scope.spawn(|| file.write(0, &[7; 32 << 10]));
            while faults.hanging() == 0 {
                std::thread::yield_now();
            }
            let tree = beneath.open_dir(b"tree").unwrap();
            tree.open_file(b"f", Access::ReadWrite).unwrap().set_len(kept).unwrap();
            let next = Rig::over(beneath.clone(), 9, RunId([1; 16]));
            next.run.assume_crash();
            let opened = [next.open_in(&next.reader(), "f"), next.open("f")];
            let readers = opened.map(|opened| opened.and_then(|file| content(&file)));
            faults.release();
            writer.join().unwrap().unwrap();
            readers
        });
        let chunks = (kept as usize - 1024) / 540 * 512;
        for left in left {
            let left = left.unwrap();
            assert!(left.len() >= chunks && left.iter().all(|b| *b == 7), "{kept}: {}", left.len());
        }
    }
}

#[test]
fn poisoned_after_a_failed_sync_until_the_last_close() {
    let (rig, faults, _) = faulty();
    let file = rig.file("f");
    file.write(0, &[1; 600]).unwrap();
    faults.add(Rule::next(Op::SyncData, Fault::Fail(libc::EIO)));
    assert_eq!(errno(file.fsync()), libc::EIO);
    assert!(is_poisoned(file.fsync()));
    assert!(is_poisoned(file.write(0, b"x")));
    assert!(is_poisoned(file.truncate(3)));
    assert!(is_poisoned(file.flush()));
    assert_eq!(content(&file).unwrap(), [1; 600]);
    rig.run.tick().unwrap();
    drop(file);
    let file = rig.open("f").unwrap();
    file.write(0, b"2").unwrap();
    file.fsync().unwrap();
    assert_eq!(content(&file).unwrap()[..2], *b"2\x01");
}

/// The link breaks under an overwrite whose record is in the journal.
#[test]
fn where_no_sync_of_the_store_reaches_a_file_a_record_goes_only_after_its_own() {
    let beneath = MemoryDir::root();
    beneath.create_dir(b"tree", 0o755).unwrap();
    let (dir, faults) = Faults::over(Recording::over_remote(beneath).unwrap().0).unwrap();
    let rig = Rig::over(dir, 9, RunId([1; 16]));
    let unsettled = || rig.run.writer.as_ref().unwrap().journal.has_unsettled();
    let file = rig.file("f");
    for byte in [1, 2] {
        file.write(0, &[byte; 600]).unwrap();
        file.fsync().unwrap();
    }
    rig.run.checkpoint().unwrap();
    assert!(!unsettled());
    file.write(0, &[3; 600]).unwrap();
    // Behind the journal's.
    faults.add(Rule { after: 1, ..Rule::next(Op::SyncData, Fault::Fail(libc::EIO)) });
    assert_eq!(errno(file.fsync()), libc::EIO);
    rig.run.checkpoint().unwrap();
    assert!(unsettled());
    rig.run.tick().unwrap();
    rig.run.checkpoint().unwrap();
    assert!(!unsettled());
    drop(file);
    assert_eq!(content(&rig.open("f").unwrap()).unwrap(), [3; 600]);
}

#[test]
fn poisoned_after_a_failed_write() {
    let (rig, faults, _, file) = durable(&[1; 600]);
    faults.add(Rule::next(Op::Write, Fault::Fail(libc::EIO)));
    assert_eq!(errno(file.write(600, &[2; 5000])), libc::EIO);
    assert!(is_poisoned(file.write(0, b"x")));
    drop(file);
    rig.run.tick().unwrap();
    assert_eq!(content(&rig.open("f").unwrap()).unwrap(), [1; 600]);
}

#[test]
fn a_full_store_accepts_nothing_and_works_again() {
    for (before, synced) in [(0usize, false), (512, false), (700, false), (700, true), (1024, true)] {
        let (rig, faults, _) = faulty();
        let file = rig.file("f");
        let old: Vec<u8> = (0..before).map(|i| i as u8).collect();
        file.write(0, &old).unwrap();
        if synced {
            file.fsync().unwrap();
        }
        // The journal is made at the first overwrite, and then has its room.
        let other = rig.file("other");
        other.write(0, &[1; 10]).unwrap();
        other.fsync().unwrap();
        other.write(0, &[2; 10]).unwrap();
        other.fsync().unwrap();
        for room in [0u64, 300, 900, 1500, 4000] {
            faults.set_room(Some(room));
            assert_eq!(
                errno(file.write(before as u64, &[9; 9000])),
                libc::ENOSPC,
                "{before} {synced} {room}"
            );
            assert_eq!(errno(file.write(before as u64 + 3000, &[9; 9000])), libc::ENOSPC);
            faults.set_room(None);
            assert_eq!(content(&file).unwrap(), old, "{before} {synced} {room}");
            assert_eq!(file.size(), before as u64);
        }
        file.fsync().unwrap();
        file.write(before as u64, &[9; 9000]).unwrap();
        file.fsync().unwrap();
        drop((file, other));
        let rig = rig.remounted();
        let all = content(&rig.open("f").unwrap()).unwrap();
        assert_eq!((&all[..before], all.len()), (&old[..], before + 9000));
    }
}

#[test]
fn accepted_bytes_wait_while_the_store_is_full() {
    let (rig, faults, _, file) = durable(&[1; 1500]);
    file.write(100, &[2; 100]).unwrap();
    faults.set_room(Some(0));
    assert_eq!(errno(file.fsync()), libc::ENOSPC);
    faults.set_room(None);
    file.fsync().unwrap();
    drop(file);
    let rig = rig.killed();
    let all = content(&rig.open("f").unwrap()).unwrap();
    assert_eq!((all[99], all[100], all[199], all[200]), (1, 2, 2, 1));
}

#[test]
fn a_chunk_torn_in_place_keeps_its_record() {
    let (rig, faults, beneath, file) = durable(&[1; 512]);
    file.write(0, &[2; 512]).unwrap();
    // The second write of the sync is the one into place; the first goes into the journal.
    faults.add(Rule { after: 1, ..Rule::next(Op::Write, Fault::Fail(libc::EIO)) });
    assert_eq!(errno(file.fsync()), libc::EIO);
    file.stored().write_at(&[0; 100], 1024).unwrap();
    rig.run.checkpoint().unwrap();
    assert!(is_poisoned(file.write(0, b"x")));
    let (session, id) = (rig.session, rig.id());
    drop((file, rig, faults));
    let rig = Rig::recovered(beneath, 9, id, &session).unwrap();
    assert_eq!(content(&rig.open("f").unwrap()).unwrap(), [2; 512]);
}

#[test]
fn a_chunk_torn_in_place_is_made_good_by_the_timer() {
    let (rig, faults, _, file) = durable(&[1; 512]);
    file.write(0, &[2; 512]).unwrap();
    faults.add(Rule { after: 1, ..Rule::next(Op::Write, Fault::Fail(libc::EIO)) });
    assert_eq!(errno(file.fsync()), libc::EIO);
    drop(file);
    rig.run.tick().unwrap();
    assert_eq!(content(&rig.open("f").unwrap()).unwrap(), [2; 512]);
    assert_eq!(content(&rig.remounted().open("f").unwrap()).unwrap(), [2; 512]);
}

#[test]
fn a_chunk_that_never_gets_into_place_holds_up_nobody_else() {
    let (rig, faults, _, file) = durable(&[1; 512]);
    let other = rig.file("other");
    other.write(0, &[1; 512]).unwrap();
    other.fsync().unwrap();
    file.write(0, &[2; 512]).unwrap();
    faults.add(Rule { after: 1, ..Rule::next(Op::Write, Fault::Fail(libc::EIO)) });
    assert_eq!(errno(file.fsync()), libc::EIO);
    // Its record stays, and with it the journal file that it is in.
    let full = (0..2000u32).find_map(|n| {
        other.write(0, &n.to_le_bytes()).unwrap();
        other.fsync().err().map(|error| (n, error))
    });
    let (n, error) = full.unwrap();
    assert_eq!(errno::<()>(Err(error)), libc::EIO);
    // No sync of the whole store is tried for it.
    faults.add(Rule::next(Op::SyncFs, Fault::Fail(libc::ENODEV)));
    assert_eq!(errno(other.fsync()), libc::EIO);
    faults.clear();
    // Much waits already: what would have to wait is refused, and the file is as it was.
    let much = 65 << 20;
    let waiting = &rig.run.writer.as_ref().unwrap().overlay_bytes;
    waiting.fetch_add(much, Ordering::Relaxed);
    assert_eq!(errno(other.write(0, &[9; 512])), libc::EIO);
    assert_eq!(content(&other).unwrap()[..4], n.to_le_bytes());
    let third = rig.file("third");
    third.write(0, &[3; 2000]).unwrap();
    third.fsync().unwrap();
    waiting.fetch_sub(much, Ordering::Relaxed);
    // Once the timer has brought it in place, what waited goes out; the timer may meet that first.
    rig.run.tick().or_else(|_| rig.run.tick()).unwrap();
    other.fsync().unwrap();
    drop((file, other));
    let rig = rig.killed();
    assert_eq!(content(&rig.open("f").unwrap()).unwrap(), [2; 512]);
    assert_eq!(content(&rig.open("other").unwrap()).unwrap()[..4], n.to_le_bytes());
}

#[test]
fn a_journal_whose_sync_failed_is_made_anew_and_what_waited_for_it_goes_out() {
    let (rig, faults, _, file) = durable(&[1; 512]);
    file.write(0, &[2; 512]).unwrap();
    file.flush().unwrap();
    faults.add(Rule::next(Op::SyncData, Fault::Fail(libc::EIO)));
    assert_eq!(errno(file.fsync()), libc::EIO);
    drop(file);
    rig.run.tick().unwrap();
    let rig = rig.killed();
    let file = rig.open("f").unwrap();
    assert_eq!(content(&file).unwrap(), [2; 512], "a close had acknowledged it");
    file.write(0, &[3; 512]).unwrap();
    file.fsync().unwrap();
    drop(file);
    assert_eq!(content(&rig.killed().open("f").unwrap()).unwrap(), [3; 512]);
}

#[test]
fn records_whose_append_failed_bring_nothing_back() {
    for (number, others) in
        [(libc::EIO, true), (libc::ENOSPC, true), (libc::EIO, false), (libc::ENOSPC, false)]
    {
        let (rig, faults, beneath, file) = durable(&[1; 1536]);
        let other = rig.file("other");
        other.write(0, &[1; 512]).unwrap();
        other.fsync().unwrap();
        file.write(0, &[2; 1024]).unwrap();
        // Both records got there, and nobody was told.
        faults.add(Rule::next(Op::Write, Fault::FailAfter(number)));
        assert_eq!(errno(file.fsync()), number);
        drop(file);
        if others {
            // One that takes as much room as the first of them.
            other.write(0, &[3; 512]).unwrap();
            other.fsync().unwrap();
        }
        let file = rig.open("f").unwrap();
        file.truncate(512).unwrap();
        let (session, id) = (rig.session, rig.id());
        drop((file, other, rig, faults));
        let rig = Rig::recovered(beneath, 9, id, &session).unwrap();
        assert_eq!(rig.open("f").unwrap().size(), 512, "{number} {others}");
        let expected = if others { 3 } else { 1 };
        assert_eq!(content(&rig.open("other").unwrap()).unwrap(), [expected; 512]);
    }
}

#[test]
fn what_a_failed_cut_left_behind_does_not_come_back() {
    let (rig, faults, _) = faulty();
    let file = rig.file("f");
    file.write(0, &[1; 1536]).unwrap();
    file.flush().unwrap();
    faults.add(Rule::next(Op::SetLen, Fault::Fail(libc::EIO)));
    assert_eq!(errno(file.truncate(512)), libc::EIO);
    // What grows there is zeros, now and later; or the file is as it was, and takes nothing.
    let grown = file.truncate(1536).and_then(|()| file.fsync());
    drop(file);
    rig.run.tick().unwrap();
    let expected = if grown.is_ok() { [vec![1; 512], vec![0; 1024]].concat() } else { vec![1; 1536] };
    assert!(content(&rig.open("f").unwrap()).unwrap() == expected, "{grown:?}");
}

#[test]
fn a_worn_out_key_refuses_new_bytes_and_lets_accepted_ones_out() {
    let rig = Rig::new(9);
    let file = rig.file("f");
    file.write(0, &[1; 512]).unwrap();
    file.fsync().unwrap();
    file.write(0, &[2; 512]).unwrap();
    file.exclusive().writes = WRITES_LIMIT;
    assert!(matches!(file.write(0, b"x"), Err(Error::WornOut { .. })));
    assert!(matches!(file.truncate(5), Err(Error::WornOut { .. })));
    file.fsync().unwrap();
    assert_eq!(
        file.prepare_rename(Rig::place("f"), Rig::place("f"), true).map(|held| held.done()).ok(),
        Some(())
    );
    drop(file);
    let rig = rig.killed();
    let file = rig.open("f").unwrap();
    assert_eq!(content(&file).unwrap(), [2; 512]);
    assert!(matches!(file.write(0, b"x"), Err(Error::WornOut { .. })), "it is on record");
    // Truncated to nothing it has a new key.
    file.truncate(0).unwrap();
    file.write(0, b"fresh").unwrap();
    file.fsync().unwrap();
    drop(file);
    assert_eq!(content(&rig.remounted().open("f").unwrap()).unwrap(), b"fresh");
}
