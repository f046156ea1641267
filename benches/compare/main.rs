//! How fast a vault is, beside the newest gocryptfs, a bare pass-through and the plain directory.
//!
//!     cargo build --profile fast -p runvault -p runvault-benches
//!     target/fast/compare --gocryptfs "$(scripts/gocryptfs-newest.sh target/gocryptfs)"
//!
//! Each row is timed on all of them one right after the other, in an order that rotates from round to
//! round, so that the machine's mood falls on all alike. Medians are printed, and their ratios beside those that
//! are asked for: bold where one is missed. As root the kernel's caches are dropped before cold rows; without root
//! those rows are warm, and say so.

mod afterwards;
mod custody;
mod home;
mod latency;
mod machine;
mod mounted;
mod mounts;
mod novaseq;
mod proofs;
mod rekeying;
mod report;
mod rotation;
mod sealed;
mod subjects;
mod targets;
mod vault;
mod workload;

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

use report::{Measured, Report};
use subjects::{Kind, Programs, Subject};
use workload::{Load, Row};

/// Times runvault beside gocryptfs, a bare pass-through and the plain directory.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Directories to work in; each gets a table.
    #[arg(long = "at", value_name = "DIR", default_values_os_t = default_places())]
    places: Vec<PathBuf>,
    /// Rounds; medians are taken over them.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Size of the large file, in MiB.
    #[arg(long, default_value_t = 512)]
    mib: u64,
    /// Which to compare.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Kind::ALL)]
    only: Vec<Kind>,
    /// The program to measure [default: the one beside this].
    #[arg(long)]
    runvault: Option<PathBuf>,
    /// The yardstick [default: the one beside this].
    #[arg(long)]
    passthrough: Option<PathBuf>,
    /// The peer [default: gocryptfs in PATH; left out where there is none].
    #[arg(long)]
    gocryptfs: Option<PathBuf>,
    /// Rows whose name contains this.
    #[arg(long)]
    row: Option<String>,
    /// Instead: 500,000 names in one directory, a 1 TiB sparse file, and the memory that they cost.
    #[arg(long)]
    large: bool,
    /// Names for --large.
    #[arg(long, default_value_t = 500_000)]
    names: u64,
    /// Instead: `custody rotate` over so many runs, and the CPU that each costs.
    #[arg(long, value_name = "RUNS", conflicts_with_all = ["large", "row", "json"])]
    rotation: Option<u64>,
    /// Instead: acts of a quorum with 10, 1,000 and so many runs, and what is done to each run.
    #[arg(long, value_name = "RUNS", conflicts_with_all = ["large", "row", "json", "rotation"])]
    custody: Option<u64>,
    /// Instead: how soon a mount of so many sealed runs answers and lists them, the first one and later ones.
    #[arg(long, value_name = "RUNS", conflicts_with_all = ["large", "row", "json", "rotation"])]
    mounts: Option<u64>,
    /// Instead: reads and the walk of a sealed run beside those of an open one.
    #[arg(long, conflicts_with_all = ["large", "row", "json", "rotation"])]
    sealed: bool,
    /// Instead: seal, verify and scrub of a run of --mib beside sha256sum on all cores.
    #[arg(long, conflicts_with_all = ["large", "row", "json", "rotation", "sealed"])]
    proofs: bool,
    /// Instead: rekey of a sealed run of --mib beside cp of it through the mount.
    #[arg(long, conflicts_with_all = ["large", "row", "json", "rotation", "sealed", "proofs"])]
    rekeying: bool,
    /// Instead: a NovaSeq X so many times faster, a run of --mib on each flow cell, and three readers that follow.
    #[arg(long, value_name = "TIMES", num_args = 0..=1, default_missing_value = "25")]
    #[arg(conflicts_with_all = ["large", "row", "json", "rotation", "sealed", "proofs"])]
    novaseq: Option<f64>,
    /// Instead: a run of about --mib while it is written, beside tar, pigz and gpg after it.
    #[arg(long, conflicts_with_all = ["large", "row", "json", "rotation", "sealed", "proofs", "novaseq"])]
    afterwards: bool,
    /// Instead: small files on a store behind a network, of which a round trip takes so many ms each: 1,10,100.
    #[arg(long, value_name = "MS", value_delimiter = ',', conflicts_with_all = ["large", "row", "json", "rotation"])]
    latency: Vec<u64>,
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Of what is measured instead of the rows.
    fn other_table(&self, place: &Path, programs: &Programs, load: &Load) -> Option<Result<String>> {
        if let Some(runs) = self.custody {
            return Some(custody::tables(place, programs, runs));
        }
        if let Some(runs) = self.mounts {
            return Some(mounts::table(place, programs, runs));
        }
        if self.sealed {
            return Some(sealed::table(place, programs, load, self.rounds));
        }
        if self.proofs {
            return Some(proofs::table(place, programs, load, self.rounds));
        }
        if self.rekeying {
            return Some(rekeying::table(place, programs, load, self.rounds));
        }
        if self.afterwards {
            return Some(afterwards::table(place, programs, load));
        }
        self.novaseq.map(|times| novaseq::table(place, programs, load, times))
    }
}

fn default_places() -> Vec<PathBuf> {
    vec!["/dev/shm".into(), "/var/tmp".into()]
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.rounds > 0 && args.mib > 0 && args.names > 0, "nothing to measure");
    if let Some(runs) = args.rotation {
        ensure!(runs > 0, "nothing to measure");
        println!("{}\n{}", rotation::table(&args.places, runs)?, machine::describe());
        return Ok(());
    }
    let programs = Programs::find(&args.runvault, &args.passthrough, &args.gocryptfs)?;
    if !args.latency.is_empty() {
        for place in &args.places {
            println!("{}", latency::table(place, &programs, &args.latency)?);
        }
        println!("{}", machine::describe());
        return Ok(());
    }
    let load = Load::new(args.mib, args.names)?;
    for place in &args.places {
        let Some(table) = args.other_table(place, &programs, &load) else { break };
        println!("{}", table.with_context(|| format!("in {}", place.display()))?);
        if args.places.last() == Some(place) {
            println!("{}", machine::describe());
            return Ok(());
        }
    }
    let kinds = programs.available(&args.only)?;
    let mut rows = if args.large { workload::large() } else { workload::usual() };
    if let Some(part) = &args.row {
        rows.iter_mut().for_each(|row| row.shown = row.name.contains(part.as_str()));
        ensure!(rows.iter().any(|row| row.shown), "no row's name contains {part:?}");
    }
    let mut reports = Vec::new();
    for place in &args.places {
        let mut report = Report::new(place, &kinds, &rows)?;
        for round in 0..args.rounds {
            one_round(place, round, &kinds, &programs, &rows, &load, &mut report)
                .with_context(|| format!("in {}", place.display()))?;
        }
        if !args.json {
            println!("{}", report.table());
        }
        reports.push(report);
    }
    if args.json {
        println!("{}", report::json(&reports)?);
    } else {
        println!("{}", machine::describe());
    }
    Ok(())
}

fn one_round(
    place: &Path,
    round: usize,
    kinds: &[Kind],
    programs: &Programs,
    rows: &[Row],
    load: &Load,
    report: &mut Report,
) -> Result<()> {
    let subjects = kinds
        .iter()
        .map(|kind| Subject::start(*kind, place, programs).with_context(|| format!("starting {kind}")))
        .collect::<Result<Vec<_>>>()?;
    for row in rows {
        for turn in 0..subjects.len() * row.times() {
            let Some(subject) = subjects.get((turn + round) % subjects.len()) else { bail!("no subject") };
            let rate =
                rate(row, &subject.dir, load).with_context(|| format!("{} on {}", row.name, subject.kind))?;
            report.add(row.name, subject.kind, Measured::Rate(rate));
            if let Some(bytes) = subject.memory_now() {
                report.add(row.name, subject.kind, Measured::Resident(bytes));
            }
        }
        eprintln!("{} round {}: {}", place.display(), round + 1, row.name);
    }
    for subject in &subjects {
        if let Some(bytes) = subject.memory_peak() {
            report.add("", subject.kind, Measured::Peak(bytes));
        }
    }
    subjects.into_iter().try_for_each(Subject::stop)
}

/// What the row before, or an emptied cache, has left others to do (inodes to forget, memory to collect) is over by
/// then: else whoever comes after a busy peer is measured beside it.
const REST: Duration = Duration::from_millis(200);

fn rate(row: &Row, dir: &Path, load: &Load) -> Result<f64> {
    if let Some(prepare) = row.prepare {
        prepare(dir)?;
    }
    if row.cold {
        machine::drop_caches();
    }
    sleep(REST);
    let begin = Instant::now();
    let amount = (row.run)(dir, load)?;
    Ok(amount / begin.elapsed().as_secs_f64())
}
