//! Random operations, the ones of the crash model, and their shrinking.

use runvault_store::doubles::crash::Draw;

use super::engine::{CHUNK, FILES};

/// One operation; files are told by index, offsets and lengths in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Write {
        file: usize,
        offset: usize,
        len: usize,
    },
    Fsync {
        file: usize,
    },
    Truncate {
        file: usize,
        len: usize,
    },
    Punch {
        file: usize,
        offset: usize,
        len: usize,
    },
    Zero {
        file: usize,
        offset: usize,
        len: usize,
    },
    /// Plain fallocate: room, and size, before there are bytes.
    Reserve {
        file: usize,
        offset: usize,
        len: usize,
    },
    /// release: bytes go out, nothing is synced.
    Flush {
        file: usize,
    },
    /// The last handle goes, the file is opened again.
    Reopen {
        file: usize,
    },
    Checkpoint,
    /// Waiting bytes have waited long enough.
    Tick,
    /// kill -9: memory goes, what the kernel has stays; a second session recovers.
    Kill,
    /// The power fails; a second session recovers what the disk kept.
    Power,
    /// One of the two, somewhere inside the step.
    Within {
        step: Box<Step>,
        power: bool,
    },
}

/// The workload of this number.
pub fn random(seed: u64) -> Vec<Step> {
    let mut draw = Draw::new(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
    let steps = 3 + draw.below(11);
    let crashes = draw.below(2) == 0;
    // Half of the workloads stay in one file, where operations meet more often.
    let files = 1 + draw.below(FILES.len() as u64);
    (0..steps).map(|_| step(&mut draw, crashes, files)).collect()
}

fn step(draw: &mut Draw, crashes: bool, files: u64) -> Step {
    if crashes && draw.below(12) == 0 {
        return Step::Within { step: Box::new(step(draw, false, files)), power: draw.below(2) == 0 };
    }
    let file = draw.below(files) as usize;
    let x = draw.below(100);
    match x {
        0..40 => Step::Write { file, offset: position(draw), len: 1 + length(draw) },
        40..60 => Step::Fsync { file },
        60..73 => Step::Truncate { file, len: if draw.below(5) == 0 { 0 } else { position(draw) } },
        73..79 => Step::Punch { file, offset: position(draw), len: 1 + length(draw) },
        79..80 => Step::Zero { file, offset: position(draw), len: 1 + length(draw) },
        80..82 => Step::Reserve { file, offset: position(draw), len: 1 + length(draw) },
        82..84 => Step::Flush { file },
        84..86 => Step::Reopen { file },
        86..90 => Step::Checkpoint,
        90..94 if crashes => Step::Kill,
        94..96 if crashes => Step::Power,
        _ => Step::Tick,
    }
}

/// Up to four chunks, often at or beside a border.
fn position(draw: &mut Draw) -> usize {
    let chunk = draw.below(4) as usize * CHUNK;
    match draw.below(5) {
        0 | 1 => chunk,
        2 => chunk + 1 + draw.below(2) as usize,
        3 => chunk + CHUNK - 1,
        _ => chunk + draw.below(CHUNK as u64) as usize,
    }
}

fn length(draw: &mut Draw) -> usize {
    match draw.below(4) {
        0 => draw.below(3) as usize,
        1 => CHUNK - 2 + draw.below(3) as usize,
        _ => draw.below(CHUNK as u64 * 5 / 2) as usize,
    }
}

/// The workload of this number with no crash in it.
pub fn without_crashes(seed: u64) -> Vec<Step> {
    let no_crash = |step: &Step| !matches!(step, Step::Kill | Step::Power | Step::Within { .. });
    random(seed).into_iter().filter(no_crash).collect()
}

/// Leaves out what is not needed for the failure.
pub fn shrink<F>(steps: &[Step], fails: impl Fn(&[Step]) -> Option<F>) -> (Vec<Step>, Option<F>) {
    let mut steps = steps.to_vec();
    let mut failure = fails(&steps);
    let mut i = 0;
    while failure.is_some() && i < steps.len() {
        let mut fewer = steps.clone();
        fewer.remove(i);
        match fails(&fewer) {
            Some(again) => (steps, failure) = (fewer, Some(again)),
            None => i += 1,
        }
    }
    (steps, failure)
}
