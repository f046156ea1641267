//! A NovaSeq X with both flow cells, many times faster than the real one, and three readers that follow it.
//!
//! The replayer sends what the instrument sends, in its order: 16 CBCL a cycle and flow cell, InterOp of each cycle,
//! logs that are truncated and written anew, filters, thumbnails. The bytes of the CBCL are random, as packed ones look;
//! they are made before the clock starts, so that they cost none of it.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use runvault_sequencer::layout::base_call_files;
use runvault_sequencer::replay::Summary;
use runvault_sequencer::{Event, Family, Mode, Replay, RunSpec, Size, layout};

use crate::machine;
use crate::mounted::{Home, Mount};
use crate::report::{line, mib};
use crate::subjects::Programs;
use crate::vault::Vault;
use crate::workload::Load;

/// What a NovaSeq X writes with two flow cells 25B, on the average of its 42 hours: 11.1 TB.
const REAL: f64 = 77e6;
/// Nothing may take longer.
const STALL: Duration = Duration::from_secs(1);
const MEMORY: u64 = 256 << 20;
/// How much more memory the end may take than the middle.
const GROWTH: u64 = 8 << 20;
/// Readers of each flow cell's run.
const READERS: [usize; 2] = [2, 1];
/// Files of a batch that are sent at the same time.
const HANDS: usize = 2;

/// A run of `load`'s size in MiB on each flow cell, at `factor` times the real rate or as fast as it goes.
///
/// # Errors
/// The program's; a reader that saw what was never written.
pub(crate) fn table(place: &Path, programs: &Programs, load: &Load, factor: f64) -> Result<String> {
    let home = Home::new(place, "novaseq")?;
    let originals = home.0.join("originals");
    let spec = RunSpec::preset(Family::NovaSeqX, Size::Demo).scaled(0.02);
    make_base_calls(&originals, &spec, load)?;
    let vault = Vault::new(&programs.runvault, &home)?;
    let mount = vault.gateways_mount()?;
    let seen = Memory::default();
    seen.note(&mount, 0);
    let bytes = (load.mib << 20) as f64 * READERS.len() as f64;
    let begin = Instant::now();
    let cells = std::thread::scope(|scope| {
        let cells: Vec<_> = ["A", "B"]
            .iter()
            .zip(READERS)
            .map(|(cell, readers)| {
                let mut spec = spec.clone().seeded(u64::from(cell.as_bytes().first().copied().unwrap_or(0)));
                spec.name = spec.name.replace("_A22", &format!("_{cell}22"));
                let replay = Replay::new(spec).originals(&originals).mode(Mode::Tailed);
                let replay = replay.readers(readers).hands(HANDS);
                let speed = replay.duration().as_secs_f64() * REAL * factor / bytes;
                let replay = replay.speed(speed);
                let (mount, seen) = (&mount, &seen);
                scope.spawn(move || replay.run(&mount.at, &mut |event: Event| seen.note_at(mount, &event)))
            })
            .collect();
        cells.into_iter().map(|cell| cell.join()).collect::<Vec<_>>()
    });
    let took = begin.elapsed();
    let mut all = Vec::new();
    for cell in cells {
        match cell {
            Ok(summary) => all.push(summary.context("a flow cell's run")?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    seen.note(&mount, 100);
    let peak = mount.memory_peak().context("no memory")?;
    mount.stop()?;
    shown(place, &all, took, factor, &seen, peak)
}

fn shown(
    place: &Path,
    cells: &[Summary],
    took: Duration,
    factor: f64,
    seen: &Memory,
    peak: u64,
) -> Result<String> {
    let sum = |of: fn(&Summary) -> u64| cells.iter().map(of).sum::<u64>();
    let most = |of: fn(&Summary) -> Duration| cells.iter().map(of).max().unwrap_or_default();
    let (bytes, files, looks) = (sum(|cell| cell.bytes), sum(|cell| cell.files), sum(|cell| cell.looks));
    let (write, look) = (most(|cell| cell.longest_write), most(|cell| cell.longest_look));
    let rate = bytes as f64 / took.as_secs_f64();
    let [begin, middle, end] = seen.all();
    let missed = |missed: bool| if missed { " **missed**" } else { "" };
    let rows = [
        ("written".into(), format!("{} MB in {files} files, {:.1} s", bytes / 1_000_000, took.as_secs_f64())),
        (
            format!("rate ({factor} x {:.0} MB/s asked)", REAL / 1e6),
            format!(
                "{:.0} MB/s, {:.1} times the instrument's{}",
                rate / 1e6,
                rate / REAL,
                missed(rate < REAL * factor * 0.95)
            ),
        ),
        (
            format!("longest file (under {} s asked)", STALL.as_secs()),
            format!("{:.0} ms{}", write.as_secs_f64() * 1e3, missed(write > STALL)),
        ),
        (
            format!("longest look of {looks} by {} readers", READERS.iter().sum::<usize>()),
            format!("{:.0} ms{}", look.as_secs_f64() * 1e3, missed(look > STALL)),
        ),
        (
            format!("memory at the beginning, middle, end; peak (under {} MiB asked)", MEMORY >> 20),
            format!(
                "{}, {}, {}; {} MiB{}",
                mib(begin),
                mib(middle),
                mib(end),
                mib(peak),
                missed(peak > MEMORY || end > middle + GROWTH)
            ),
        ),
    ];
    let head = format!("NovaSeq X, two flow cells, in {} ({})", place.display(), machine::file_system(place));
    let mut text = line(&[head, String::new()]) + "\n|---|---|\n";
    for (what, value) in rows {
        text += &(line(&[what, value]) + "\n");
    }
    Ok(text)
}

/// One file of random bytes under the name of every CBCL.
fn make_base_calls(originals: &Path, spec: &RunSpec, load: &Load) -> Result<()> {
    let calls: Vec<_> = (1..=spec.cycles()).flat_map(|cycle| base_call_files(spec, cycle)).collect();
    let Some(each) = (load.mib << 20).checked_div(calls.len() as u64) else { bail!("a run without cycles") };
    fs::create_dir(originals)?;
    let one = originals.join("calls");
    let mut file = File::create(&one)?;
    for at in (0..each).step_by(load.block.len()) {
        let part = load.block.get(..(each - at).min(load.block.len() as u64) as usize).unwrap_or_default();
        std::io::Write::write_all(&mut file, part)?;
    }
    for call in &calls {
        let path = originals.join(layout::path_of(spec.family, call));
        fs::create_dir_all(path.parent().context("a path")?)?;
        fs::hard_link(&one, path)?;
    }
    Ok(())
}

/// Resident bytes of the mount after each hundredth of the run.
struct Memory(Vec<AtomicU32>);

impl Default for Memory {
    fn default() -> Self {
        Self((0..=100).map(|_| AtomicU32::new(0)).collect())
    }
}

impl Memory {
    fn note_at(&self, mount: &Mount, event: &Event) {
        self.note(mount, (event.files * 100 / event.files_in_all.max(1)) as usize);
    }

    /// The most in each hundredth, in KiB.
    fn note(&self, mount: &Mount, hundredth: usize) {
        if let (Some(place), Some(now)) = (self.0.get(hundredth), mount.memory_now()) {
            place.fetch_max((now >> 10) as u32, Ordering::Relaxed);
        }
    }

    /// After a tenth, when pools and caches are warm; in the middle; at the end.
    fn all(&self) -> [u64; 3] {
        [5..=10, 45..=50, 95..=100].map(|part| {
            let kib = self.0.get(part).into_iter().flatten().map(|seen| seen.load(Ordering::Relaxed)).max();
            u64::from(kib.unwrap_or(0)) << 10
        })
    }
}
