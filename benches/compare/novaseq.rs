//! A NovaSeq X with both flow cells, many times faster than the real one, and three readers that follow it.
//!
//! The replayer sends what the instrument sends, in its order: 16 CBCL a cycle and flow cell, InterOp of each cycle,
//! logs that are truncated and written anew, filters, thumbnails. The bytes of the CBCL are random, as packed ones look;
//! they are made before the clock starts, so that they cost none of it.

use std::fs::{self, File};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use runvault_sequencer::layout::base_call_files;
use runvault_sequencer::replay::Summary;
use runvault_sequencer::{Family, Mode, Replay, RunSpec, Size, layout};

use crate::home::Home;
use crate::machine;
use crate::report::{grouped, line, mib};
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
/// Of what is asked; the replayer's own work at its end is in the time.
const REACHED: f64 = 0.95;
/// Readers of each flow cell's run.
const READERS: [usize; 2] = [2, 1];
/// Files of a batch that are sent at the same time.
const HANDS: usize = 2;

/// A run of `load`'s size in MiB on each flow cell, at `factor` times the real rate or as fast as it goes: into a plain
/// directory, which tells what the machine can, and through a gateway's mount.
///
/// # Errors
/// The program's; a reader that saw what was never written.
pub(crate) fn table(place: &Path, programs: &Programs, load: &Load, factor: f64) -> Result<String> {
    let home = Home::new(place, "novaseq")?;
    let [originals, plain] = home.directories(["originals", "plain"])?;
    let spec = RunSpec::preset(Family::NovaSeqX, Size::Demo).scaled(0.02);
    make_base_calls(&originals, &spec, load)?;
    let pace = REAL * factor / ((load.mib << 20) as f64 * READERS.len() as f64);
    let write = |to: &Path, seen: &mut (dyn FnMut(usize) + Send)| play(&spec, &originals, to, pace, seen);
    let of_plain = write(&plain, &mut |_| {})?;
    fs::remove_dir_all(&plain)?;
    let mount = Vault::new(programs, &home)?.gateways_mount()?;
    let pid = mount.pid().context("no process")?;
    let mut memory = Memory::default();
    let of_vault = write(&mount.at, &mut |hundredth| memory.note(pid, hundredth))?;
    memory.note(pid, 100);
    let peak = machine::process_memory(pid, "VmHWM").context("no memory")?;
    mount.stop()?;
    Ok(shown(place, factor, [&of_plain, &of_vault], memory.parts(), peak))
}

/// What both flow cells came to.
struct Played {
    took: Duration,
    cells: Vec<Summary>,
}

impl Played {
    fn sum(&self, of: fn(&Summary) -> u64) -> u64 {
        self.cells.iter().map(of).sum()
    }

    fn longest(&self, of: fn(&Summary) -> Duration) -> Duration {
        self.cells.iter().map(of).max().unwrap_or_default()
    }

    /// Bytes a second.
    fn rate(&self) -> f64 {
        self.sum(|cell| cell.bytes) as f64 / self.took.as_secs_f64()
    }
}

/// Writes both runs into a directory; `pace` is the runs' parts that a second takes. `seen` is told how many hundredths
/// of a run are there, after each file.
fn play(
    spec: &RunSpec,
    originals: &Path,
    to: &Path,
    pace: f64,
    seen: &mut (dyn FnMut(usize) + Send),
) -> Result<Played> {
    let (begin, seen) = (Instant::now(), Mutex::new(seen));
    let cell = |(side, readers): (char, usize)| {
        let mut spec = spec.clone().seeded(u64::from(side));
        spec.name = spec.name.replace("_A22", &format!("_{side}22"));
        let replay = Replay::new(spec).originals(originals).mode(Mode::Tailed).readers(readers).hands(HANDS);
        let speed = replay.duration().as_secs_f64() * pace;
        replay.speed(speed).run(to, &mut |event| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen((event.files * 100 / event.files_in_all.max(1)) as usize);
        })
    };
    let ended = std::thread::scope(|scope| {
        let cells = ['A', 'B'].into_iter().zip(READERS).map(|with| scope.spawn(move || cell(with)));
        let cells: Vec<_> = cells.collect();
        let ended = cells.into_iter().map(|cell| cell.join());
        ended.map(|cell| cell.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect::<Vec<_>>()
    });
    let took = begin.elapsed();
    Ok(Played { took, cells: ended.into_iter().collect::<Result<_, _>>()? })
}

fn shown(place: &Path, factor: f64, played: [&Played; 2], memory: [u64; 3], peak: u64) -> String {
    let [begin, middle, end] = memory;
    let of_memory = format!("{}, {}, {}; {}", mib(begin), mib(middle), mib(end), mib(peak));
    let bold = |text: String, missed: bool| if missed { format!("**{text}**") } else { text };
    let ms = |took: Duration| bold(format!("{:.0} ms", took.as_secs_f64() * 1e3), took > STALL);
    let each = |of: &dyn Fn(&Played) -> String| played.map(of);
    let readers = READERS.iter().sum::<usize>();
    let rows = [
        (
            "written".into(),
            each(&|played| {
                let (bytes, files) = (played.sum(|cell| cell.bytes), played.sum(|cell| cell.files));
                format!("{} MB in {} files", grouped(bytes as f64 / 1e6), grouped(files as f64))
            }),
        ),
        (
            format!("rate ({factor} times {:.0} MB/s asked)", REAL / 1e6),
            each(&|played| {
                let rate = played.rate();
                let text = format!("{:.0} MB/s, {:.1} times", rate / 1e6, rate / REAL);
                bold(text, rate < REAL * factor * REACHED)
            }),
        ),
        (
            "longest file (under 1 s asked)".into(),
            each(&|played| ms(played.longest(|cell| cell.longest_write))),
        ),
        (
            format!("longest look of {readers} readers (under 1 s asked)"),
            each(&|played| ms(played.longest(|cell| cell.longest_look))),
        ),
        ("looks".into(), each(&|played| grouped(played.sum(|cell| cell.looks) as f64))),
        (
            format!("MiB of memory at the beginning, middle, end; peak (under {} asked)", MEMORY >> 20),
            ["-".into(), bold(of_memory, peak > MEMORY || end > middle + GROWTH)],
        ),
    ];
    let head = format!("NovaSeq X, two flow cells, in {} ({})", place.display(), machine::file_system(place));
    let mut text = line(&[head, "plain directory".into(), "runvault".into()]) + "\n|---|---|---|\n";
    for (what, [plain, vault]) in rows {
        text += &(line(&[what, plain, vault]) + "\n");
    }
    text
}

/// One file of random bytes under the name of every CBCL.
fn make_base_calls(originals: &Path, spec: &RunSpec, load: &Load) -> Result<()> {
    let calls: Vec<_> = (1..=spec.cycles()).flat_map(|cycle| base_call_files(spec, cycle)).collect();
    let Some(each) = (load.mib << 20).checked_div(calls.len() as u64) else { bail!("a run without cycles") };
    let one = originals.join("calls");
    let mut file = File::create(&one)?;
    for at in (0..each).step_by(load.block.len()) {
        let part = load.block.get(..(each - at).min(load.block.len() as u64) as usize).unwrap_or_default();
        std::io::Write::write_all(&mut file, part)?;
    }
    for call in &calls {
        let path = originals.join(layout::path_of(spec, call));
        fs::create_dir_all(path.parent().context("a path")?)?;
        fs::hard_link(&one, path)?;
    }
    Ok(())
}

/// The most that was resident in each hundredth of a run.
struct Memory([u64; 101]);

impl Default for Memory {
    fn default() -> Self {
        Self([0; 101])
    }
}

impl Memory {
    fn note(&mut self, pid: u32, hundredth: usize) {
        if let (Some(place), Some(now)) = (self.0.get_mut(hundredth), machine::process_memory(pid, "VmRSS")) {
            *place = now.max(*place);
        }
    }

    /// After a twentieth, when pools and caches are warm; in the middle; at the end.
    fn parts(&self) -> [u64; 3] {
        let most = |part: &[u64]| part.iter().max().copied().unwrap_or(0);
        [5..=10, 45..=50, 95..=100].map(|part| self.0.get(part).map_or(0, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_flow_cells_are_written_and_followed() {
        let home = tempfile::tempdir().unwrap();
        let (originals, to) = (home.path().join("originals"), home.path().join("to"));
        for dir in [&originals, &to] {
            fs::create_dir(dir).unwrap();
        }
        let spec = RunSpec::preset(Family::NovaSeqX, Size::Tiny);
        make_base_calls(&originals, &spec, &Load::new(1, 1).unwrap()).unwrap();
        let mut last = 0;
        let played = play(&spec, &originals, &to, 100.0, &mut |hundredth| last = hundredth).unwrap();
        assert_eq!((played.cells.len(), last, fs::read_dir(&to).unwrap().count()), (2, 100, 2));
        let calls = (1 << 20) / (u64::from(spec.cycles()) * 4) * u64::from(spec.cycles()) * 4;
        assert!(played.sum(|cell| cell.bytes) > 2 * calls && played.sum(|cell| cell.looks) > 0);
    }
}
