//! Random operations on a file and on a vector.

use std::sync::Arc;

use proptest::prelude::*;

use crate::api::Allocate;
use crate::file::FileObject;
use crate::file::testing::{Rig, content};
use crate::file::tests::holes::listed_data;

#[derive(Clone, Debug)]
enum Op {
    Write(u64, usize),
    Append(usize),
    Truncate(u64),
    Punch(u64, u64),
    Zero(u64, u64),
    Fsync,
    Flush,
    Tick,
    Checkpoint,
    Reopen,
    Remount,
    Kill,
    Read(u64, usize),
    Reserve(u64, u64),
}

/// Offsets and lengths in units that meet chunk borders often.
fn at(chunk: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        0..chunk * 12,
        (0u64..12).prop_map(move |i| i * chunk),
        (1u64..12).prop_map(move |i| i * chunk - 1),
        (0u64..12).prop_map(move |i| i * chunk + 1),
    ]
}

fn op(chunk: u64) -> impl Strategy<Value = Op> {
    let len = prop_oneof![1..chunk * 3, Just(chunk), 1..40u64];
    prop_oneof![
        8 => (at(chunk), len.clone()).prop_map(|(a, n)| Op::Write(a, n as usize)),
        5 => len.clone().prop_map(|n| Op::Append(n as usize)),
        4 => at(chunk).prop_map(Op::Truncate),
        1 => Just(Op::Truncate(0)),
        2 => (at(chunk), len.clone()).prop_map(|(a, n)| Op::Punch(a, n * 2)),
        1 => (at(chunk), len.clone()).prop_map(|(a, n)| Op::Zero(a, n)),
        4 => Just(Op::Fsync),
        3 => Just(Op::Flush),
        3 => Just(Op::Tick),
        1 => Just(Op::Checkpoint),
        2 => Just(Op::Reopen),
        1 => Just(Op::Remount),
        1 => Just(Op::Kill),
        3 => (at(chunk), len.clone()).prop_map(|(a, n)| Op::Read(a, n as usize)),
        1 => (at(chunk), len).prop_map(|(a, n)| Op::Reserve(a, n)),
    ]
}

fn put(model: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if model.len() < offset + data.len() {
        model.resize(offset + data.len(), 0);
    }
    model[offset..offset + data.len()].copy_from_slice(data);
}

fn zero(model: &mut [u8], from: u64, to: u64) {
    let to = (to as usize).min(model.len());
    if (from as usize) < to {
        model[from as usize..to].fill(0);
    }
}

fn fill(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 ^ (seed as u8) | 1).collect()
}

/// `false`: what it did may not be compared any more (a kill loses what was not synced).
fn step(rig: &mut Option<Rig>, file: &mut Option<Arc<FileObject>>, model: &mut Vec<u8>, n: usize, op: &Op) {
    let f = file.clone().unwrap();
    let r = rig.as_ref().unwrap();
    match op {
        Op::Write(offset, len) => {
            let data = fill(n, *len);
            f.write(*offset, &data).unwrap();
            put(model, *offset as usize, &data);
        }
        Op::Append(len) => {
            let data = fill(n, *len);
            f.write(f.size(), &data).unwrap();
            model.extend_from_slice(&data);
        }
        Op::Truncate(size) => {
            f.truncate(*size).unwrap();
            model.resize(*size as usize, 0);
        }
        Op::Punch(offset, len) => {
            f.allocate(*offset, *len, Allocate::PunchHole).unwrap();
            zero(model, *offset, offset + len);
        }
        Op::Zero(offset, len) => {
            f.allocate(*offset, *len, Allocate::ZeroRange { keep_size: false }).unwrap();
            zero(model, *offset, offset + len);
            if model.len() < (offset + len) as usize {
                model.resize((offset + len) as usize, 0);
            }
        }
        Op::Reserve(offset, len) => {
            f.allocate(*offset, *len, Allocate::Plain).unwrap();
            if model.len() < (offset + len) as usize {
                model.resize((offset + len) as usize, 0);
            }
        }
        Op::Fsync => f.fsync().unwrap(),
        Op::Flush => f.flush().unwrap(),
        Op::Tick => r.run.tick().unwrap(),
        Op::Checkpoint => r.run.checkpoint().unwrap(),
        Op::Read(offset, len) => {
            let mut got = vec![0xaa; *len];
            let read = f.read(*offset, &mut got).unwrap();
            let from = (*offset as usize).min(model.len());
            let to = (*offset as usize + len).min(model.len()).max(from);
            assert_eq!(&got[..read], &model[from..to]);
        }
        Op::Reopen => {
            f.flush().unwrap();
            drop(f);
            *file = None;
            *file = Some(r.open("f").unwrap());
            return;
        }
        Op::Remount | Op::Kill => {
            if matches!(op, Op::Kill) {
                f.fsync().unwrap();
            } else {
                f.flush().unwrap();
            }
            drop(f);
            *file = None;
            let old = rig.take().unwrap();
            let new = if matches!(op, Op::Kill) { old.killed() } else { old.remounted() };
            assert_eq!(listed_data(&new, "f"), [0u64; 0], "data that the newest slot calls a hole");
            *file = Some(new.open("f").unwrap());
            *rig = Some(new);
            return;
        }
    }
    assert_eq!(f.size(), model.len() as u64);
}

fn run(log2: u8, ops: &[Op]) {
    let mut rig = Some(Rig::new(log2));
    let mut file = Some(rig.as_ref().unwrap().file("f"));
    let mut model = Vec::new();
    for (n, op) in ops.iter().enumerate() {
        step(&mut rig, &mut file, &mut model, n, op);
        let f = file.as_ref().unwrap();
        let got = content(f).unwrap_or_else(|e| panic!("after {n} {op:?}: {e}"));
        assert!(got == model, "differs after {n} {op:?}: {} against {} bytes", got.len(), model.len());
    }
    drop(file);
    let rig = rig.unwrap().remounted();
    if !ops.is_empty() {
        assert_eq!(listed_data(&rig, "f"), [0u64; 0], "data that the newest slot calls a hole");
        assert!(content(&rig.open("f").unwrap()).unwrap() == model, "after the last remount");
        let reader = rig.reader();
        assert!(content(&rig.open_in(&reader, "f").unwrap()).unwrap() == model, "for a reader");
    }
}

#[test]
fn a_tail_waits_while_a_checkpoint_makes_its_chunk_durable() {
    run(9, &[Op::Append(1), Op::Flush, Op::Append(1), Op::Checkpoint, Op::Append(1), Op::Fsync]);
    run(9, &[Op::Append(1), Op::Reopen, Op::Write(0, 1), Op::Checkpoint, Op::Append(1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn small_chunks(ops in prop::collection::vec(op(512), 1..60)) {
        run(9, &ops);
    }

    #[test]
    fn usual_chunks(ops in prop::collection::vec(op(8192), 1..30)) {
        run(13, &ops);
    }
}
