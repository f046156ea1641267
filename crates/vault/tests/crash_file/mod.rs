//! Whatever a sync acknowledged is there after a crash: the operations of the crash model, on the
//! real engine, over a store that records. After every change that reaches the store, several of
//! the disks that a power cut may leave are recovered, opened and compared, also with the power
//! failing again inside recovery.
//!
//! `RUNVAULT_CRASH_STATES` says how many disks are looked at (default 4,000);
//! `RUNVAULT_CRASH_SEED` runs one workload only.

mod check;
mod engine;
mod expect;
mod named;
mod torn;
mod workload;

use std::sync::atomic::{AtomicU64, Ordering};

use self::check::{Failure, Look, run, run_remote};
use self::engine::LOG2;
use self::workload::{Step, random, shrink, without_crashes};

/// Disks that are looked at for each change of the store.
const DISKS: Look = Look::Draw(6);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.replace('_', "").parse().expect("a number"))
}

fn report(seed: u64, steps: &[Step]) -> ! {
    let still_fails = |steps: &[Step]| (0..8).find_map(|more| run(steps, LOG2, seed + more, DISKS).err());
    let (steps, failure) = shrink(steps, still_fails);
    let failure = failure.map_or_else(|| "not seen again while shrinking".to_owned(), |f| f.to_string());
    panic!("seed {seed}: {failure}\nshrunk to {steps:#?}");
}

#[test]
fn acknowledged_bytes_survive_every_crash() {
    if let Some(seed) = number("RUNVAULT_CRASH_SEED") {
        if run(&random(seed), LOG2, seed, DISKS).is_err() {
            report(seed, &random(seed));
        }
        return;
    }
    let wanted = number("RUNVAULT_CRASH_STATES").unwrap_or(4_000);
    let (seen, seeds) = (AtomicU64::new(0), AtomicU64::new(0));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let failed: Option<(u64, Failure)> = std::thread::scope(|scope| {
        let work = || {
            while seen.load(Ordering::Relaxed) < wanted {
                let seed = seeds.fetch_add(1, Ordering::Relaxed);
                match run(&random(seed), LOG2, seed, DISKS) {
                    Ok(disks) => seen.fetch_add(disks, Ordering::Relaxed),
                    Err(failure) => {
                        seen.store(wanted, Ordering::Relaxed);
                        return Some((seed, failure));
                    }
                };
            }
            None
        };
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        running.into_iter().find_map(|worker| worker.join().expect("no panic"))
    });
    let (seen, workloads) = (seen.into_inner(), seeds.into_inner());
    if let Some((seed, failure)) = failed {
        eprintln!("seed {seed}: {failure}");
        report(seed, &random(seed));
    }
    println!("{seen} crash states of {workloads} workloads, nothing acknowledged was lost");
}

#[test]
fn and_on_a_store_where_no_sync_of_all_of_it_reaches_a_file() {
    let (mut seen, mut seed) = (0, 0);
    while seen < number("RUNVAULT_CRASH_STATES").unwrap_or(4_000) / 4 {
        match run_remote(&without_crashes(seed), LOG2, seed, DISKS) {
            Ok(disks) => seen += disks,
            Err(failure) => panic!("seed {seed}: {failure}\n{:#?}", without_crashes(seed)),
        }
        seed += 1;
    }
}
