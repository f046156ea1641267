//! `seal`, `verify` and `scrub` beside `sha256sum` of the plain files, all on all cores.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::home::Home;
use crate::machine;
use crate::mounted::run;
use crate::report::{line, median, share};
use crate::subjects::Programs;
use crate::vault::Vault;
use crate::workload::Load;

/// Of sha256sum's speed.
const WANTED: f64 = 0.8;
pub(crate) const FILES: u64 = 8;
const RUN: &str = "proofs";
const WHAT: [&str; 4] = ["sha256sum", "seal", "verify", "scrub"];

/// Medians of `rounds`, each with a vault of its own, as a table.
///
/// # Errors
/// The programs'.
pub(crate) fn table(place: &Path, programs: &Programs, load: &Load, rounds: usize) -> Result<String> {
    let mut seconds = WHAT.map(|_| Vec::new());
    for _ in 0..rounds {
        for (seconds, took) in seconds.iter_mut().zip(one_round(place, programs, load)?) {
            seconds.push(took);
        }
    }
    let head = format!(
        "{} ({}), a run of {} MiB in {FILES} files",
        place.display(),
        machine::file_system(place),
        load.mib
    );
    let mut text = line(&[head, "s".into(), "of sha256sum's speed".into()]) + "\n|---|---|---|\n";
    let [hashed, ..] = seconds.each_ref().map(|seconds| median(seconds));
    let hashed = hashed.context("no rounds")?;
    for (what, seconds) in WHAT.iter().zip(&seconds) {
        let took = median(seconds).context("no rounds")?;
        let reached = if *what == "sha256sum" { String::new() } else { share(hashed / took, WANTED) };
        text += &(line(&[what.to_string(), format!("{took:.2}"), reached]) + "\n");
    }
    Ok(text)
}

/// Seconds, in the order of [`WHAT`].
fn one_round(place: &Path, programs: &Programs, load: &Load) -> Result<[f64; WHAT.len()]> {
    let home = Home::new(place, RUN)?;
    let vault = Vault::new(programs, &home)?;
    let gateway = vault.gateways_mount()?;
    let plain = home.0.join("plain");
    for dir in [&plain, &gateway.at.join(RUN)] {
        write(dir, load).with_context(|| dir.display().to_string())?;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let all = format!("ls \"$0\"/* | xargs -P {cores} -n 1 sha256sum");
    let hash = || run(Command::new("sh").arg("-c").arg(&all).arg(&plain));
    let took =
        [timed(hash)?, timed(|| vault.seal(RUN))?, timed(|| vault.verify(RUN))?, timed(|| vault.scrub())?];
    gateway.stop()?;
    Ok(took)
}

pub(crate) fn write(dir: &Path, load: &Load) -> Result<()> {
    fs::create_dir(dir)?;
    for number in 0..FILES {
        let mut file = File::create(dir.join(number.to_string()))?;
        (0..load.mib.div_ceil(FILES)).try_for_each(|_| file.write_all(&load.block))?;
        file.sync_all()?;
    }
    Ok(())
}

pub(crate) fn timed(act: impl FnOnce() -> Result<()>) -> Result<f64> {
    machine::drop_caches();
    let begin = Instant::now();
    act()?;
    Ok(begin.elapsed().as_secs_f64())
}
