//! Workloads that once lost something, shrunk.

use super::check::{Look, run, run_remote};
use super::engine::{CHUNK, LOG2};
use super::workload::Step;

/// Runs the steps with many draws.
fn survives(steps: &[Step]) {
    for seed in 0..3 {
        if let Err(failure) = run(steps, LOG2, seed, Look::Draw(40)) {
            panic!("{failure}");
        }
    }
}

fn write(file: usize, offset: usize, len: usize) -> Step {
    Step::Write { file, offset, len }
}

const SYNC: Step = Step::Fsync { file: 0 };

/// The append's record is gone from the journal, and no slot told of it, when the file grows.
#[test]
fn growth_after_a_recorded_append_whose_record_was_overwritten() {
    let mut steps = vec![write(0, 0, 2 * CHUNK + 76), SYNC, write(0, 2 * CHUNK + 76, 70), SYNC];
    steps.push(Step::Checkpoint);
    for _ in 0..8 {
        steps.extend([write(1, 0, 4 * CHUNK), Step::Fsync { file: 1 }, Step::Checkpoint]);
    }
    steps.push(write(0, 3 * CHUNK + 188, 100));
    survives(&steps);
}

/// A checkpoint lets the record of an overwrite go, on a store where no sync of all of it reaches the file.
#[test]
fn an_overwrite_whose_record_went_before_the_link_broke() {
    let mut steps = vec![write(0, 0, 2 * CHUNK), SYNC, write(0, 10, 20), SYNC, Step::Checkpoint];
    for _ in 0..8 {
        steps.extend([write(1, 0, 4 * CHUNK), Step::Fsync { file: 1 }, Step::Checkpoint]);
    }
    if let Err(failure) = run_remote(&steps, LOG2, 0, Look::Draw(10)) {
        panic!("{failure}");
    }
}

/// An append within the last chunk, found beyond the slot by the session that acknowledges it.
#[test]
fn a_sync_tells_of_bytes_that_were_found_beyond_the_slot() {
    let cut = |step: Step| Step::Within { step: Box::new(step), power: true };
    survives(&[write(0, 511, 659), cut(SYNC), SYNC, write(0, 1724, 1092)]);
    survives(&[write(0, 0, 100), SYNC, write(0, 100, 1000), cut(SYNC), SYNC, write(0, 1724, 1092)]);
}

/// The last chunk that the newer slot claims need not have grown when the file has.
#[test]
fn a_slot_counts_though_the_file_grew_and_its_last_chunk_did_not() {
    survives(&[write(0, 512, 119), SYNC, write(0, 513, 884), SYNC, write(0, 2047, 1082)]);
}

/// An append that begins just where the durable bytes end still belongs to their last chunk.
#[test]
fn an_append_right_behind_durable_bytes() {
    survives(&[write(0, 0, 1), SYNC, write(0, 1, 256), SYNC, write(0, 257, 1)]);
}

/// Recovery ends the log by zeroing the first sector of both files: the older one's goes first.
#[test]
fn older_records_never_outlive_newer_ones() {
    let mut steps = Vec::new();
    for _ in 0..6 {
        steps.extend([write(0, 0, 4 * CHUNK), SYNC, Step::Checkpoint]);
    }
    steps.push(Step::Kill);
    survives(&steps);
}

fn cut(len: usize) -> Step {
    Step::Truncate { file: 0, len }
}

/// A slot may be written twice between two syncs: never over the copy that is known durable.
#[test]
fn two_slots_between_syncs_spare_the_durable_copy() {
    let flush = Step::Flush { file: 0 };
    for flushes in 1..4 {
        let mut steps = vec![write(0, 0, 4 * CHUNK), SYNC, cut(CHUNK), SYNC];
        for i in 1..=flushes {
            steps.extend([write(0, i * CHUNK, CHUNK), flush.clone()]);
        }
        survives(&steps);
    }
}

/// Records in place are made durable there before a shorter slot: the slot does not skip them.
#[test]
fn a_cut_below_a_record_that_is_not_durable_in_place() {
    let part = |n: usize| n * CHUNK / 4;
    let wrote = |offset: usize, len: usize| write(0, part(offset), part(len));
    survives(&[wrote(6, 3), SYNC, wrote(2, 7), wrote(9, 7), cut(part(10)), SYNC]);
    survives(&[wrote(2, 3), wrote(3, 4), SYNC, wrote(8, 5), cut(part(6)), SYNC]);
    let punch = Step::Punch { file: 0, offset: 0, len: part(8) };
    let writes = [wrote(3, 7), wrote(9, 1), cut(part(6)), SYNC, wrote(9, 9), cut(part(3)), SYNC];
    survives(&[&[punch][..], &writes].concat());
}

/// An acknowledged hole stays listed until its data is durable, whatever writes a slot meanwhile.
#[test]
fn a_file_that_has_its_size_before_its_bytes() {
    let grow = Step::Truncate { file: 0, len: 4 * CHUNK - 90 };
    let reserve = Step::Reserve { file: 0, offset: 0, len: 4 * CHUNK - 90 };
    let reopen = [Step::Reopen { file: 0 }, Step::Tick, Step::Checkpoint];
    for sized in [grow, reserve] {
        for synced in [&[SYNC][..], &reopen, &[]] {
            let fill = [write(0, 0, CHUNK), Step::Flush { file: 0 }, write(0, CHUNK, 3 * CHUNK - 90)];
            let end = [Step::Flush { file: 0 }, Step::Tick, SYNC, write(0, 5, CHUNK), SYNC, Step::Kill];
            survives(&[std::slice::from_ref(&sized), synced, &fill, &end].concat());
        }
    }
}

/// Recovery's own slot keeps what the slots before it said of the journal: it may run again.
#[test]
fn recovery_twice_replays_nothing_that_was_skipped_before() {
    let mut steps = vec![write(0, 0, 3 * CHUNK), SYNC, write(0, 2 * CHUNK, CHUNK), SYNC, cut(CHUNK)];
    steps.extend([write(0, CHUNK, 2 * CHUNK), SYNC, write(0, 0, CHUNK), SYNC, Step::Kill]);
    survives(&steps);
}
