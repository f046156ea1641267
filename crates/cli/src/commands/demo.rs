//! `demo`: the main job on a throw-away vault, by the very commands that a person would type.

mod stage;
mod thief;

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use runvault_crypto::digest::{Stream, sha256};
use runvault_sequencer::layout::file_at;
use runvault_sequencer::synthetic::content;
use runvault_sequencer::{Family, Replay, RunSpec, Size};

use crate::args::Demo;
use crate::exit::{Exit, refuse};
use crate::output::{self, count, shown, size};
use crate::{fuse_ready, progress};
use stage::Stage;

const FAMILY: Family = Family::NovaSeqX;

pub fn run(args: &Demo) -> Result<()> {
    fuse_ready::check(false)?;
    let spec = spec(args.size);
    let stage = Stage::new()?;
    let played = play(&stage, &spec);
    let interrupted = stage.interrupted();
    // First: whatever happened, nothing stays.
    stage.clean_up()?;
    if interrupted {
        return Err(refuse(Exit::Failed, "interrupted; everything was cleaned up"));
    }
    played
}

/// A run of about so many MiB.
fn spec(mib: u64) -> RunSpec {
    let spec = RunSpec::preset(FAMILY, Size::Demo);
    let factor = (mib << 20) as f64 / spec.estimated_bytes().max(1) as f64;
    spec.scaled(factor)
}

fn play(stage: &Stage, spec: &RunSpec) -> Result<()> {
    say(&format!("A new vault: {}\n{}", shown(&stage.store), stage.init()?))?;
    say(&format!("Mounted at {}. A NovaSeq X writes a run into it: {}", shown(&stage.at), spec.name))?;
    stage.mount(false)?;
    write(stage, spec)?;
    stage.unmount()?;
    say("Unmounted. What a thief of the store sees:")?;
    thief::look(&stage.store, spec)?;
    say("Mounted again, read-only. Every file against what the instrument wrote:")?;
    stage.mount(true)?;
    verify(stage, spec)?;
    stage.unmount()?;
    say("Cleaned up. Your own: runvault init STORE, then runvault mount STORE MNT")
}

fn say(text: &str) -> Result<()> {
    output::line(&format!("\n{text}"))
}

fn write(stage: &Stage, spec: &RunSpec) -> Result<()> {
    let bar = progress::bytes(spec.estimated_bytes(), "write");
    let begin = Instant::now();
    let written = Replay::new(spec.clone()).run(&stage.at, &mut |event| {
        bar.set_length(estimate(event.bytes, event.files, event.files_in_all));
        bar.set_position(event.bytes);
        bar.set_message(format!("cycle {} of {}", event.cycle, event.cycles));
    });
    bar.finish_and_clear();
    let written = written?;
    rustix::fs::syncfs(std::fs::File::open(&stage.at)?).context("sync the mount")?;
    output::line(&format!(
        "  {} in {}: {} through the mount ({} with the making of the data)",
        size(written.bytes),
        count(written.files, "file"),
        rate(written.bytes, written.writing),
        rate(written.bytes, begin.elapsed()),
    ))
}

/// Bytes in all, as far as the files up to now tell.
fn estimate(bytes: u64, files: u64, files_in_all: u64) -> u64 {
    let all = u128::from(bytes) * u128::from(files_in_all) / u128::from(files.max(1));
    u64::try_from(all).unwrap_or(u64::MAX)
}

fn rate(bytes: u64, time: Duration) -> String {
    format!("{}/s", size((bytes as f64 / time.as_secs_f64().max(1e-6)) as u64))
}

/// The generator makes each file's content anew; nothing of the first mount is kept for it.
fn verify(stage: &Stage, spec: &RunSpec) -> Result<()> {
    let folder = stage.at.join(&spec.name);
    let files = stage::files_below(&folder)?;
    let bar = progress::items(files.len() as u64, "verify");
    let (mut bytes, mut reading, mut wrong) = (0u64, Duration::ZERO, Vec::new());
    for path in &files {
        stage.go_on()?;
        let begin = Instant::now();
        let (digest, n) = digest(&folder.join(path))?;
        reading += begin.elapsed();
        bytes += n;
        let file = file_at(FAMILY, path)
            .with_context(|| format!("{path}: not a file that the instrument writes"))?;
        if sha256(&[&content(spec, &file)?]) != digest {
            wrong.push(path.as_str());
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if !wrong.is_empty() {
        return Err(refuse(Exit::Damaged, format!("not as written: {}", wrong.join(", "))));
    }
    output::line(&format!(
        "  {}, {}: all as written (SHA-256); read at {}",
        count(files.len() as u64, "file"),
        size(bytes),
        rate(bytes, reading)
    ))
}

fn digest(path: &Path) -> Result<([u8; 32], u64)> {
    let mut file = std::fs::File::open(path).with_context(|| shown(path))?;
    let (mut hash, mut piece, mut bytes) = (Stream::default(), vec![0; 1 << 20], 0u64);
    loop {
        let n = file.read(&mut piece).with_context(|| shown(path))?;
        if n == 0 {
            return Ok((hash.finish(), bytes));
        }
        hash.update(piece.get(..n).unwrap_or_default());
        bytes += n as u64;
    }
}
