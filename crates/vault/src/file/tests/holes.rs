//! Files that get their size before their bytes: what was written into a hole is data ever after,
//! and damage to it is never taken for a hole.

use std::sync::Arc;

use runvault_format::header::Kind;
use runvault_format::size::Geometry;
use runvault_store::backend::Access;

use crate::api::Allocate;
use crate::file::testing::{Rig, content};
use crate::file::{Extents, FileObject, Found, RunContext, Stored};
use crate::{Damage, Error};

const CHUNK: u64 = 512;
const CHUNKS: u64 = 6;
/// The last chunk is a partial one.
const SIZE: u64 = CHUNKS * CHUNK - 100;

/// The data chunks that the newest slot of `name` lists as holes.
pub(super) fn listed_data(rig: &Rig, name: &str) -> Vec<u64> {
    let run: &RunContext = &rig.run;
    let file = run.tree.open_file(name.as_bytes(), Access::Read).unwrap();
    let stored = run.geometry.plain_len_floor(file.stat().unwrap().size).unwrap();
    if stored == 0 {
        return Vec::new();
    }
    let Ok(found) = Found::read(run, &*file, Kind::File) else { panic!("no header") };
    let (_, slot) = &found.copies[found.newest_fitting(stored).unwrap()];
    let key = run.keys.file_key(&found.clear, slot.epoch);
    let there = Stored { run, file: &*file, key: &key };
    let chunks = 0..stored.div_ceil(run.geometry.chunk());
    let listed = Extents::from_slot(&slot.holes);
    chunks.filter(|i| listed.contains(*i) && there.authenticates(*i, stored).unwrap()).collect()
}

fn bytes() -> Vec<u8> {
    (0..SIZE).map(|i| (i % 250) as u8 + 1).collect()
}

type File = Arc<FileObject>;
type Step = fn(&Rig, File) -> File;
type Fill = fn(&File);
type End = fn(Rig, File) -> Rig;

/// Each gives the file its size; nothing, or not all, is written yet.
const SIZED: [(&str, Step); 6] = [
    ("truncate", |_, f| {
        f.truncate(SIZE).unwrap();
        f
    }),
    ("allocate", |_, f| {
        f.allocate(0, SIZE, Allocate::Plain).unwrap();
        f
    }),
    ("allocate and keep the size", |_, f| {
        f.allocate(0, SIZE, Allocate::KeepSize).unwrap();
        f
    }),
    ("punch", |_, f| {
        f.write(0, &vec![9; SIZE as usize]).unwrap();
        f.allocate(CHUNK, 3 * CHUNK, Allocate::PunchHole).unwrap();
        f
    }),
    ("punch what is durable", |_, f| {
        f.write(0, &vec![9; SIZE as usize]).unwrap();
        f.fsync().unwrap();
        f.allocate(CHUNK, 3 * CHUNK, Allocate::PunchHole).unwrap();
        f
    }),
    ("write the end", |_, f| {
        f.write(SIZE - 10, &[1; 10]).unwrap();
        f
    }),
];

/// What may lie between size and bytes.
const BETWEEN: [(&str, Step); 6] = [
    ("nothing", |_, f| f),
    ("a flush", |_, f| {
        f.flush().unwrap();
        f
    }),
    ("a sync", |_, f| {
        f.fsync().unwrap();
        f
    }),
    ("a checkpoint", |rig, f| {
        rig.run.checkpoint().unwrap();
        f
    }),
    ("a close", |rig, f| {
        f.flush().unwrap();
        drop(f);
        rig.run.tick().unwrap();
        rig.open("f").unwrap()
    }),
    ("a close and a checkpoint", |rig, f| {
        f.flush().unwrap();
        drop(f);
        rig.run.tick().unwrap();
        rig.run.checkpoint().unwrap();
        rig.open("f").unwrap()
    }),
];

const FILLED: [(&str, Fill); 3] = [
    ("at once", |f| f.write(0, &bytes()).unwrap()),
    ("in small pieces", |f| {
        for (i, piece) in bytes().chunks(200).enumerate() {
            f.write(i as u64 * 200, piece).unwrap();
        }
    }),
    ("with a sync in the middle", |f| {
        let half = SIZE as usize / 2;
        f.write(0, &bytes()[..half]).unwrap();
        f.fsync().unwrap();
        f.write(half as u64, &bytes()[half..]).unwrap();
    }),
];

const ENDED: [(&str, End); 6] = [
    ("the session ends", |rig, f| {
        drop(f);
        rig.remounted()
    }),
    ("closed, the session ends", |rig, f| {
        f.flush().unwrap();
        drop(f);
        rig.remounted()
    }),
    ("synced, the session ends", |rig, f| {
        f.fsync().unwrap();
        drop(f);
        rig.remounted()
    }),
    ("synced and killed", |rig, f| {
        f.fsync().unwrap();
        drop(f);
        rig.killed()
    }),
    ("closed and killed later", |rig, f| {
        f.flush().unwrap();
        drop(f);
        rig.run.tick().unwrap();
        rig.killed()
    }),
    ("opened and closed again, killed later", |rig, f| {
        f.flush().unwrap();
        drop(f);
        rig.open("f").unwrap().flush().unwrap();
        rig.run.tick().unwrap();
        rig.killed()
    }),
];

/// Every chunk of "f", zeroed or with one bit changed, is damage.
fn every_chunk_is_vouched_for(rig: &Rig) {
    let geometry = Geometry::new(9).unwrap();
    let stored = rig.run.tree.open_file(b"f", Access::ReadWrite).unwrap();
    for i in 0..CHUNKS {
        let at = geometry.chunk_offset(i);
        let mut was = vec![0; geometry.chunk_len(i, SIZE) + 28];
        stored.read_at(&mut was, at).unwrap();
        let mut flipped = was.clone();
        flipped[20] ^= 4;
        for changed in [vec![0; was.len()], flipped] {
            stored.write_at(&changed, at).unwrap();
            let read = rig.open("f").and_then(|f| content(&f));
            let refused = matches!(&read, Err(Error::Damaged { damage: Damage::Chunk(n), .. }) if *n == i);
            assert!(refused, "chunk {i}: {read:?}");
        }
        stored.write_at(&was, at).unwrap();
    }
}

#[test]
fn what_was_written_into_a_hole_is_vouched_for() {
    for (sized, size) in SIZED {
        for (between, wait) in BETWEEN {
            for (filled, fill) in FILLED {
                for (ended, end) in ENDED {
                    let case = format!("{sized}, {between}, filled {filled}, {ended}");
                    let rig = Rig::new(9);
                    let file = wait(&rig, size(&rig, rig.file("f")));
                    fill(&file);
                    let rig = end(rig, file);
                    assert!(content(&rig.open("f").unwrap()).unwrap() == bytes(), "{case}");
                    assert_eq!(listed_data(&rig, "f"), [0u64; 0], "{case}");
                    every_chunk_is_vouched_for(&rig);
                }
            }
        }
    }
}

/// Who copies what SEEK_DATA finds must not miss a file's last bytes, which the store gets later.
#[test]
fn what_waits_in_memory_is_no_hole() {
    let rig = Rig::new(9);
    let last = 99 * CHUNK;
    for reopened in [false, true] {
        let mut file = rig.file("f");
        file.truncate(last + 100).unwrap();
        if reopened {
            file.flush().unwrap();
            drop(file);
            rig.run.tick().unwrap();
            file = rig.open("f").unwrap();
        }
        file.write(last + 50, b"the end").unwrap();
        assert_eq!(file.seek(50 * CHUNK, true).unwrap(), last, "reopened: {reopened}");
        file.truncate(0).unwrap();
        file.flush().unwrap();
        drop(file);
        rig.run.tick().unwrap();
    }
}

/// A gap is no damage before a close or sync has told of it either: not to a reader beside the writer, and not to the
/// next session after a kill.
#[test]
fn a_gap_reads_as_zeros_from_the_moment_that_data_lies_behind_it() {
    let makes: [(&str, Fill); 3] = [
        ("written behind it", |f| f.write(7 * CHUNK, &[2; CHUNK as usize]).unwrap()),
        ("grown first", |f| {
            f.truncate(9 * CHUNK).unwrap();
            f.write(7 * CHUNK, &[2; CHUNK as usize]).unwrap();
        }),
        ("punched", |f| {
            f.write(700, &[2; 4000]).unwrap();
            f.allocate(2 * CHUNK, 3 * CHUNK, Allocate::PunchHole).unwrap();
        }),
    ];
    for (what, make) in makes {
        for durable in [false, true] {
            let rig = Rig::new(9);
            let file = rig.file("f");
            file.write(0, &[1; 700]).unwrap();
            file.flush().unwrap();
            if durable {
                file.fsync().unwrap();
            }
            make(&file);
            let now = content(&file).unwrap();
            let seen = content(&rig.open_in(&rig.reader(), "f").unwrap());
            let seen = seen.unwrap();
            assert!(now.starts_with(&seen), "{what}, beside a writer, {durable}");
            // Where the last chunk from before waits in memory its old end is all that a reader can know.
            assert!(durable || seen.len() == now.len(), "{what}, beside a writer: {}", seen.len());
            drop(file);
            let rig = rig.killed();
            let left = content(&rig.open("f").unwrap());
            let left = left.unwrap_or_else(|e| panic!("{what}, after a kill, {durable}: {e}"));
            assert!(now.starts_with(&left) && left.len() >= 700, "{what}, after a kill, {durable}");
        }
    }
}
