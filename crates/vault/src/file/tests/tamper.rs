//! What someone with write access to the store can do to a file, and what it is called.

use std::sync::Arc;
use std::time::{Duration, Instant};

use runvault_format::header::Clear;
use runvault_format::size::Geometry;
use runvault_store::backend::{Access, Rename};

use crate::file::testing::{Rig, content};
use crate::file::{FileObject, RunContext};
use crate::{Damage, Error, Result};

const CHUNK: u64 = 512;

fn damage<T: std::fmt::Debug>(outcome: Result<T>) -> Damage {
    match outcome {
        Err(Error::Damaged { damage, .. }) => damage,
        other => panic!("{other:?}"),
    }
}

/// A run with a clean file "f" of `len` bytes.
fn written(len: usize) -> (Rig, Vec<u8>) {
    let rig = Rig::new(9);
    let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
    let file = rig.file("f");
    file.write(0, &bytes).unwrap();
    file.fsync().unwrap();
    drop(file);
    (rig.remounted(), bytes)
}

fn flip(rig: &Rig, name: &str, at: u64) {
    let file = rig.run.tree.open_file(name.as_bytes(), Access::ReadWrite).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, at).unwrap();
    file.write_at(&[byte[0] ^ 0x40], at).unwrap();
}

fn open_reading(rig: &Rig, run: &Arc<RunContext>) -> Result<Arc<FileObject>> {
    rig.open_in(run, "f")
}

#[test]
fn a_flipped_bit_is_an_error_of_its_chunk_and_no_other() {
    let (rig, bytes) = written(3 * CHUNK as usize + 100);
    let geometry = Geometry::new(9).unwrap();
    for i in 0..3u64 {
        for within in [0, 5, 12, 300, geometry.stored_chunk() - 1] {
            let at = geometry.chunk_offset(i) + within;
            flip(&rig, "f", at);
            let file = rig.open("f").unwrap();
            for j in 0..4u64 {
                let from = (j * CHUNK) as usize;
                let to = bytes.len().min(from + CHUNK as usize);
                let mut got = vec![0; to - from];
                let read = file.read(from as u64, &mut got);
                if i == j {
                    assert_eq!(damage(read), Damage::Chunk(i), "byte {at}");
                } else {
                    assert_eq!(read.unwrap(), to - from);
                    assert_eq!(got, bytes[from..to]);
                }
            }
            assert_eq!(damage(content(&file)), Damage::Chunk(i));
            flip(&rig, "f", at);
        }
    }
    assert_eq!(content(&rig.open("f").unwrap()).unwrap(), bytes);
}

#[test]
fn a_flipped_bit_in_the_only_header_copy_is_an_error_of_the_file() {
    let (rig, _) = written(100);
    for at in [0, 8, 10, 12, 13, 20, 50, 64, 80, 300, 511] {
        flip(&rig, "f", at);
        let found = damage(rig.open("f"));
        let expected =
            if (8..14).contains(&at) || (48..64).contains(&at) { Damage::Foreign } else { Damage::Header };
        assert_eq!(found, expected, "byte {at}");
        flip(&rig, "f", at);
    }
    rig.open("f").unwrap();
}

#[test]
fn with_two_copies_one_may_be_lost() {
    let (rig, mut bytes) = written(100);
    let file = rig.open("f").unwrap();
    file.write(CHUNK, b"more").unwrap();
    file.fsync().unwrap();
    drop(file);
    bytes.resize(CHUNK as usize, 0);
    bytes.extend_from_slice(b"more");
    let rig = rig.remounted();
    flip(&rig, "f", 100);
    assert_eq!(content(&rig.open("f").unwrap()).unwrap(), bytes);
    flip(&rig, "f", 612);
    assert_eq!(damage(rig.open("f")), Damage::Header);
}

/// Clean files whose two header copies were written, each with what it holds: two states of one size; holes that a
/// sync acknowledged; growth behind a hole; a file that got its size before its bytes.
fn with_two_copies() -> Vec<(&'static str, Rig, Vec<u8>)> {
    const C: usize = CHUNK as usize;
    type Step = (u64, usize, u64);
    // Writes of so many bytes at an offset, each with the size that is set before it (0: none) and a sync behind it.
    let files: [(&str, &[Step]); 4] = [
        ("rewritten", &[(0, 3 * C + 100, 0), (C as u64, 10, 0)]),
        ("with holes", &[(0, 0, 6 * CHUNK), (CHUNK, C, 0), (4 * CHUNK, 9, 0)]),
        ("grown behind a hole", &[(0, 2 * C, 0), (7 * CHUNK + 3, 2 * C, 0)]),
        ("sized first", &[(0, 0, 4 * CHUNK), (0, 4 * C, 0)]),
    ];
    let made = files.into_iter().map(|(name, steps)| {
        let rig = Rig::new(9);
        let (file, mut bytes) = (rig.file("f"), Vec::new());
        for (n, (at, len, size)) in (1u8..).zip(steps) {
            if *size > 0 {
                file.truncate(*size).unwrap();
                bytes.resize(*size as usize, 0);
            }
            file.write(*at, &vec![n; *len]).unwrap();
            let end = *at as usize + len;
            bytes.resize(bytes.len().max(end), 0);
            bytes[*at as usize..end].fill(n);
            file.fsync().unwrap();
        }
        drop(file);
        (name, rig.remounted(), bytes)
    });
    made.collect()
}

/// Every chunk is an error or what was written, and the file is as long as it was; whether anything told of damage.
fn never_wrong(file: Result<Arc<FileObject>>, bytes: &[u8], what: &str) -> bool {
    let Ok(file) = file else { return true };
    assert_eq!(file.size(), bytes.len() as u64, "{what}");
    let mut told = file.has_lost_copy();
    for (i, expected) in bytes.chunks(CHUNK as usize).enumerate() {
        let mut got = vec![0xee; expected.len()];
        match file.read(i as u64 * CHUNK, &mut got) {
            Ok(n) => assert!(n == expected.len() && got == expected, "{what}: chunk {i}"),
            Err(_) => told = true,
        }
    }
    told
}

#[test]
fn a_bit_that_is_flipped_anywhere_is_told_and_nothing_else_is_read_for_it() {
    for (name, rig, bytes) in with_two_copies() {
        let stored = rig.run.tree.open_file(b"f", Access::Read).unwrap();
        let geometry = Geometry::new(9).unwrap();
        let in_hole = |at: u64| {
            let Some(i) = at.checked_sub(1024).map(|n| n / geometry.stored_chunk()) else { return false };
            let all = bytes.chunks(CHUNK as usize).nth(i as usize);
            all.is_some_and(|chunk| chunk.iter().all(|b| *b == 0))
        };
        assert!(!never_wrong(rig.open("f"), &bytes, name), "{name}: it was whole");
        for at in 0..stored.stat().unwrap().size {
            flip(&rig, "f", at);
            let told = never_wrong(rig.open("f"), &bytes, &format!("{name}, byte {at}"));
            // What lies where there is no data is nobody's.
            assert!(told || in_hole(at), "{name}, byte {at}");
            flip(&rig, "f", at);
        }
        for at in [70, 600] {
            flip(&rig, "f", at);
            let told = never_wrong(open_reading(&rig, &rig.reader()), &bytes, name);
            assert!(told, "{name}, byte {at}, read only");
            flip(&rig, "f", at);
        }
    }
}

#[test]
fn a_damaged_chunk_beside_a_damaged_header_copy_is_no_hole() {
    let geometry = Geometry::new(9).unwrap();
    for (name, rig, bytes) in with_two_copies() {
        for copy in [100, 612] {
            flip(&rig, "f", copy);
            for i in 0..bytes.len() as u64 / CHUNK {
                flip(&rig, "f", geometry.chunk_offset(i) + 20);
                never_wrong(rig.open("f"), &bytes, &format!("{name}, copy at {copy}, chunk {i}"));
                flip(&rig, "f", geometry.chunk_offset(i) + 20);
            }
            flip(&rig, "f", copy);
        }
    }
}

#[test]
fn a_file_with_a_damaged_header_copy_is_written_on_with_and_written_anew_as_it_grows() {
    for (name, rig, mut bytes) in with_two_copies() {
        for copy in [100, 612] {
            flip(&rig, "f", copy);
            let Ok(file) = rig.open("f") else {
                flip(&rig, "f", copy);
                continue;
            };
            file.write(0, b"new").unwrap();
            file.fsync().unwrap();
            bytes[..3].copy_from_slice(b"new");
            never_wrong(Ok(file.clone()), &bytes, name);
            let end = bytes.len() as u64;
            file.write(end, &[7; 1000]).unwrap();
            file.fsync().unwrap();
            bytes.resize(bytes.len() + 1000, 7);
            drop(file);
            assert!(!rig.open("f").unwrap().has_lost_copy(), "{name}, copy at {copy}");
            never_wrong(rig.open("f"), &bytes, name);
        }
    }
}

#[test]
fn refused_under_another_name() {
    let (rig, _) = written(10);
    rig.run.tree.rename(b"f", &*rig.run.tree, b"g", Rename::Over).unwrap();
    assert_eq!(damage(rig.open("g")), Damage::Place);
    rig.run.tree.rename(b"g", &*rig.run.tree, b"f", Rename::Over).unwrap();
    rig.open("f").unwrap();
}

#[test]
fn refused_when_swapped() {
    let (rig, _) = written(10);
    let other = rig.file("g");
    other.write(0, b"the other").unwrap();
    other.fsync().unwrap();
    drop(other);
    rig.run.tree.rename(b"f", &*rig.run.tree, b"g", Rename::Exchange).unwrap();
    assert_eq!(damage(rig.open("f")), Damage::Place);
    assert_eq!(damage(rig.open("g")), Damage::Place);
}

#[test]
fn chunks_of_another_file_do_not_count() {
    let (rig, _) = written(2 * CHUNK as usize);
    let other = rig.file("g");
    other.write(0, &vec![9; 2 * CHUNK as usize]).unwrap();
    other.fsync().unwrap();
    let len = 2 * Geometry::new(9).unwrap().stored_chunk() as usize;
    let mut stored = vec![0; len];
    other.stored().read_at(&mut stored, 1024).unwrap();
    rig.run.tree.open_file(b"f", Access::ReadWrite).unwrap().write_at(&stored, 1024).unwrap();
    assert_eq!(damage(content(&rig.open("f").unwrap())), Damage::Chunk(0));
}

#[test]
fn shorter_than_it_was() {
    let (rig, _) = written(2 * CHUNK as usize);
    let stored = rig.run.tree.open_file(b"f", Access::ReadWrite).unwrap();
    let len = stored.stat().unwrap().size;
    for (cut, expected) in
        [(len - 1, Damage::Short), (1024, Damage::Short), (1023, Damage::Header), (1, Damage::Header)]
    {
        stored.set_len(cut).unwrap();
        assert_eq!(damage(rig.open("f")), expected, "{cut}");
    }
    // It can be written anew all the same.
    let ino = stored.stat().unwrap().ino;
    let file = FileObject::open_for_replacement(&rig.run, ino, stored, Some(Rig::place("f"))).unwrap();
    file.write(0, b"anew").unwrap();
    file.flush().unwrap();
    drop(file);
    assert_eq!(content(&rig.remounted().open("f").unwrap()).unwrap(), b"anew");
}

#[test]
fn of_another_run() {
    let (rig, _) = written(10);
    let other = Rig::new(9);
    let stored = rig.run.tree.open_file(b"f", Access::ReadWrite).unwrap();
    let stat = stored.stat().unwrap();
    let opened = FileObject::open(&other.run, 1, stored, &stat, None);
    assert_eq!(damage(opened.map(drop)), Damage::Foreign);
}

#[test]
fn of_another_suite_version_or_chunk_size() {
    let (rig, _) = written(10);
    let stored = rig.run.tree.open_file(b"f", Access::ReadWrite).unwrap();
    for (at, byte) in [(8u64, 2u8), (10, 2), (12, 13), (13, 2), (13, 9)] {
        let mut was = [0];
        stored.read_at(&mut was, at).unwrap();
        stored.write_at(&[byte], at).unwrap();
        assert_eq!(damage(rig.open("f")), Damage::Foreign, "byte {at}");
        stored.write_at(&was, at).unwrap();
    }
}

#[test]
fn two_files_in_one_header() {
    let (rig, _) = written(10);
    let file = rig.open("f").unwrap();
    let id = file.file_id().unwrap();
    drop(file);
    let geometry = Geometry::new(9).unwrap();
    let mut clear =
        Clear { geometry, kind: runvault_format::header::Kind::File, file_id: id, run_id: rig.id() };
    clear.file_id.0[0] ^= 1;
    let slot = runvault_format::state_slot::SlotState {
        seq: 9,
        size: 0,
        jskip: 0,
        jsession: [0; 8],
        writes: 0,
        epoch: 0,
        flags: 0,
        place: Rig::place("f"),
        previous: Rig::place("f"),
        holes: Vec::new(),
    };
    let key = rig.run.keys.slot_key(&clear);
    let sector = runvault_format::header::seal_copy(1, &clear, &key, &slot).unwrap();
    rig.run.tree.open_file(b"f", Access::ReadWrite).unwrap().write_at(&sector, 512).unwrap();
    assert_eq!(damage(rig.open("f")), Damage::Foreign);
}

#[test]
fn cut_and_longer_again_after_a_truncation_to_nothing() {
    let (rig, bytes) = written(2 * CHUNK as usize);
    let stored = rig.run.tree.open_file(b"f", Access::ReadWrite).unwrap();
    let mut old = vec![0; 2 * 540];
    stored.read_at(&mut old, 1024).unwrap();
    let file = rig.open("f").unwrap();
    file.truncate(0).unwrap();
    file.write(0, &bytes[..CHUNK as usize]).unwrap();
    file.fsync().unwrap();
    stored.write_at(&old, 1024).unwrap();
    drop(file);
    let rig = rig.remounted();
    assert_eq!(damage(content(&rig.open("f").unwrap())), Damage::Chunk(0), "old chunks never count again");
}

#[test]
fn a_reader_follows_a_writer() {
    let (rig, bytes) = written(700);
    let reader = rig.reader();
    let seen = open_reading(&rig, &reader).unwrap();
    assert_eq!(content(&seen).unwrap(), bytes);
    let file = rig.open("f").unwrap();
    file.truncate(0).unwrap();
    file.write(0, b"rewritten").unwrap();
    file.flush().unwrap();
    assert_eq!(content(&seen).unwrap(), b"rewritten");
    file.write(9, &[5; 1000]).unwrap();
    file.flush().unwrap();
    assert_eq!(content(&seen).unwrap().len(), 1009);
    assert!(matches!(seen.write(0, b"x"), Err(Error::Posix(crate::Posix::ReadOnly))));
}

/// The kernel fills with zeros what a reader was told of and does not get.
#[test]
fn a_reader_is_told_of_no_more_than_it_can_read() {
    let rig = Rig::new(9);
    let file = rig.file("f");
    file.write(0, &[1; 100]).unwrap();
    file.fsync().unwrap();
    let seen = open_reading(&rig, &rig.reader()).unwrap();
    // What was acknowledged waits for the journal, what comes behind it does not.
    file.write(100, &[2; 5000]).unwrap();
    assert!(seen.stored().stat().unwrap().size > 5000);
    let begin = Instant::now();
    for _ in 0..60 {
        assert_eq!((seen.attr().unwrap().size, content(&seen).unwrap().len()), (100, 100));
    }
    // Else those who wait for a chunk that is being written would soon find the run's patience used up.
    assert!(begin.elapsed() < Duration::from_secs(4), "an end is waited for");
    for size in [5100, 5000, 40] {
        file.truncate(size).unwrap();
        file.fsync().unwrap();
        assert_eq!((seen.attr().unwrap().size, content(&seen).unwrap().len() as u64), (size, size));
    }
}
