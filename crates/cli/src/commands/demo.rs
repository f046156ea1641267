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
use serde_json::{Value, json};

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
    let played = play(&stage, &spec, Voice { quiet: args.json });
    let interrupted = stage.interrupted();
    // First: whatever happened, nothing stays.
    stage.clean_up()?;
    if interrupted {
        return Err(refuse(Exit::Failed, "interrupted; everything was cleaned up"));
    }
    let figures = played?;
    if args.json { output::json(&figures) } else { Ok(()) }
}

/// A run of about so many MiB.
fn spec(mib: u64) -> RunSpec {
    let spec = RunSpec::preset(FAMILY, Size::Demo);
    let factor = (mib << 20) as f64 / spec.estimated_bytes().max(1) as f64;
    spec.scaled(factor)
}

/// Tells what happens while it does, unless figures alone are wanted.
#[derive(Clone, Copy)]
struct Voice {
    quiet: bool,
}

impl Voice {
    /// A new step.
    fn step(self, text: &str) -> Result<()> {
        self.line(&format!("\n{text}"))
    }

    fn line(self, text: &str) -> Result<()> {
        if self.quiet { Ok(()) } else { output::line(text) }
    }
}

fn play(stage: &Stage, spec: &RunSpec, voice: Voice) -> Result<Value> {
    voice.step(&format!("A new vault: {}\n{}", shown(&stage.store), stage.init()?))?;
    voice.step(&format!(
        "Mounted at {}. A NovaSeq X writes a run into it: {}",
        shown(&stage.at),
        spec.name
    ))?;
    stage.mount(false)?;
    let written = write(stage, spec, voice)?;
    stage.unmount()?;
    voice.step("Unmounted. What a thief of the store sees:")?;
    let searched = thief::look(&stage.store, spec, voice)?;
    voice.step("Mounted again, read-only, open runs too. Every file against what the instrument wrote:")?;
    stage.mount(true)?;
    let verified = verify(stage, spec, voice)?;
    stage.unmount()?;
    voice.step("Cleaned up. Your own: runvault init STORE, then runvault mount STORE MNT")?;
    Ok(json!({ "run": spec.name, "written": written, "searched": searched, "verified": verified }))
}

fn write(stage: &Stage, spec: &RunSpec, voice: Voice) -> Result<Value> {
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
    voice.line(&format!(
        "  {} in {}: {}/s through the mount ({}/s with the making of the data)",
        size(written.bytes),
        count(written.files, "file"),
        size(rate(written.bytes, written.writing)),
        size(rate(written.bytes, begin.elapsed())),
    ))?;
    Ok(figures(written.files, written.bytes, written.writing))
}

/// Bytes in all, as far as the files up to now tell.
fn estimate(bytes: u64, files: u64, files_in_all: u64) -> u64 {
    let all = u128::from(bytes) * u128::from(files_in_all) / u128::from(files.max(1));
    u64::try_from(all).unwrap_or(u64::MAX)
}

/// Bytes per second.
fn rate(bytes: u64, time: Duration) -> u64 {
    (bytes as f64 / time.as_secs_f64().max(1e-6)) as u64
}

fn figures(files: u64, bytes: u64, time: Duration) -> Value {
    json!({ "files": files, "bytes": bytes, "bytes_per_second": rate(bytes, time) })
}

/// The generator makes each file's content anew; nothing of the first mount is kept for it.
fn verify(stage: &Stage, spec: &RunSpec, voice: Voice) -> Result<Value> {
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
    let n = files.len() as u64;
    voice.line(&format!(
        "  {}, {}: all as written (SHA-256); read at {}/s",
        count(n, "file"),
        size(bytes),
        size(rate(bytes, reading))
    ))?;
    Ok(figures(n, bytes, reading))
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
