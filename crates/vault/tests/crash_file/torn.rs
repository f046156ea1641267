//! Torn writes: every second sector, or page, of all that was not synced when the power failed. Each
//! byte that was durable before the change is old or new.

use super::check::{Look, run};
use super::workload::Step;

/// Runs `change` over a durable file, for the least chunk size and the usual one.
fn torn(change: impl Fn(usize) -> Vec<Step>) {
    for log2 in [9, 13] {
        let chunk = 1 << log2;
        for len in [1, chunk / 2, chunk - 1, chunk, chunk + 1, 2 * chunk + chunk / 3, 4 * chunk] {
            let mut steps = vec![Step::Write { file: 0, offset: 0, len }, Step::Fsync { file: 0 }];
            steps.extend(change(chunk));
            steps.extend([Step::Tick, Step::Flush { file: 0 }, Step::Fsync { file: 0 }]);
            if let Err(failure) = run(&steps, log2, len as u64, Look::Stripes) {
                panic!("{failure}\nin {steps:#?}");
            }
        }
    }
}

fn write(offset: usize, len: usize) -> Step {
    Step::Write { file: 0, offset, len }
}

#[test]
fn rewrites() {
    torn(|chunk| vec![write(0, chunk)]);
    torn(|_| vec![write(3, 1)]);
    torn(|chunk| vec![write(chunk - 5, 10)]);
    torn(|chunk| vec![write(chunk / 2, 2 * chunk), Step::Tick, write(0, chunk), Step::Tick]);
}

/// More chunks than one core seals at a time: their records go into the journal in several writes.
#[test]
fn long_rewrites() {
    let (log2, chunk) = (9, 512);
    for (seed, offset) in [(1, 0), (2, 3), (3, 7 * chunk)] {
        let sync = Step::Fsync { file: 0 };
        let steps = [
            write(0, 60 * chunk),
            sync.clone(),
            write(offset, 40 * chunk),
            Step::Tick,
            write(9, 45 * chunk),
            sync,
        ];
        if let Err(failure) = run(&steps, log2, seed, Look::Stripes) {
            panic!("{failure}\nin {steps:#?}");
        }
    }
}

#[test]
fn appends() {
    torn(|chunk| vec![write(chunk / 2, 1), write(2 * chunk, chunk), write(4 * chunk, 100)]);
    torn(|chunk| vec![write(4 * chunk + 1, 5), Step::Flush { file: 0 }, write(4 * chunk + 6, chunk)]);
}

#[test]
fn head_rewrites() {
    torn(|chunk| vec![Step::Truncate { file: 0, len: 0 }, write(0, 3 * chunk / 2)]);
    torn(|chunk| {
        let head = [Step::Truncate { file: 0, len: 0 }, Step::Flush { file: 0 }, write(0, 100)];
        [&head[..], &[Step::Fsync { file: 0 }], &head[..], &[write(100, chunk)]].concat()
    });
}

#[test]
fn truncations() {
    for keep in [1, 100, 511] {
        torn(|_| vec![Step::Truncate { file: 0, len: keep }]);
        torn(|chunk| vec![Step::Truncate { file: 0, len: keep }, write(keep, chunk), Step::Tick]);
    }
    torn(|chunk| vec![Step::Truncate { file: 0, len: chunk }, Step::Truncate { file: 0, len: 3 * chunk }]);
    torn(|chunk| vec![write(10, 20), Step::Truncate { file: 0, len: chunk + 7 }]);
}

#[test]
fn holes() {
    torn(|chunk| vec![Step::Punch { file: 0, offset: 0, len: chunk }]);
    torn(|chunk| vec![Step::Punch { file: 0, offset: 100, len: 2 * chunk }, write(chunk, 50)]);
    torn(|chunk| vec![Step::Truncate { file: 0, len: 8 * chunk }, write(6 * chunk, 100), Step::Tick]);
    torn(|chunk| {
        let hole = Step::Punch { file: 0, offset: chunk, len: chunk };
        vec![hole, Step::Fsync { file: 0 }, write(chunk, chunk), Step::Fsync { file: 0 }, write(chunk, 9)]
    });
}
