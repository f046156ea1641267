//! Small files on a store behind a network: how many round trips each costs, beside the plain directory there.
//!
//! The network is the pass-through with `--delay`: every call of the kernel to it takes so long, and is counted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::mounted::{Mounted, run};
use crate::subjects::Programs;

/// Files of one directory, and their bytes.
const FILES: usize = 40;
const SIZE: usize = 20_000;
/// Told by the pass-through.
const TOLD: &str = "user.runvault.trips";

/// Calls, by kind.
type Trips = BTreeMap<String, u64>;

/// What one operation on all files took.
struct Cost {
    took: Duration,
    trips: Trips,
}

/// One after the other, in milliseconds a round trip: a table.
///
/// # Errors
/// A mount that does not come; the file system's.
pub(crate) fn table(place: &Path, programs: &Programs, latencies: &[u64]) -> Result<String> {
    let mut table = format!(
        "| {FILES} files of {SIZE} bytes, one after the other | ms a trip | plain: trips a file | ms a file | runvault: trips \
         a file | ms a file | more, in all |\n|---|---|---|---|---|---|---|\n"
    );
    for latency in latencies {
        let [plain, ours] = measured(place, programs, *latency)?;
        for (plain, ours) in plain.iter().zip(&ours) {
            table += &row(*latency, plain, ours);
        }
    }
    Ok(table)
}

fn row(latency: u64, (name, plain): &(&str, Cost), (_, ours): &(&str, Cost)) -> String {
    let each = |cost: &Cost| {
        let trips = cost.trips.values().sum::<u64>() as f64 / FILES as f64;
        format!("{trips:.2} | {:.1}", cost.took.as_secs_f64() * 1e3 / FILES as f64)
    };
    let kinds = plain.trips.keys().chain(ours.trips.keys()).collect::<std::collections::BTreeSet<_>>();
    let count = |cost: &Cost, kind: &str| cost.trips.get(kind).map_or(0, |n| *n as i64);
    let more = kinds.into_iter().map(|kind| (kind, count(ours, kind) - count(plain, kind)));
    let more: Vec<String> =
        more.filter(|(_, more)| *more != 0).map(|(kind, more)| format!("{kind} {more:+}")).collect();
    format!("| {name} | {latency} | {} | {} | {} |\n", each(plain), each(ours), more.join(", "))
}

type Costs = Vec<(&'static str, Cost)>;

/// The plain directory's and runvault's.
fn measured(place: &Path, programs: &Programs, latency: u64) -> Result<[Costs; 2]> {
    let home = Home(place.join(format!("runvault-compare-{}-latency", std::process::id())));
    let path = |name: &str| home.0.join(name);
    for name in ["served", "share", "mnt", "state"] {
        fs::create_dir_all(path(name))?;
    }
    let share = || {
        let mut share = programs.passthrough();
        Mounted::new(
            share.arg("--delay").arg(latency.to_string()).arg(path("served")).arg(path("share")),
            &home.0,
            path("share"),
        )
    };
    let (plain, ours) = (path("share/plain"), path("mnt/run"));
    let store = path("share/store");
    let identity = path("identity");

    let network = share()?;
    let counted = |what: &dyn Fn() -> Result<()>| cost(&path("share"), what);
    fs::create_dir(&plain)?;
    let plain_made = counted(&|| make(&plain))?;
    fs::create_dir(&store)?;
    run(programs.runvault().args(["init", "--no-lock", "--identity"]).arg(&identity).arg(&store))?;
    let fingerprint = fingerprint(programs, &store)?;
    let mut enroll = programs.runvault();
    enroll.args(["gateway", "enroll", "--fingerprint", &fingerprint, "--identity"]).arg(&identity);
    run(enroll.arg("--state").arg(path("state")).arg(&store))?;
    let mut gateway = programs.runvault();
    gateway.args(["mount", "--ingest", "--seal", "hand", "-f", "--state"]).arg(path("state"));
    let gateway = Mounted::new(gateway.arg(&store).arg(path("mnt")), &home.0, path("mnt"))?;
    fs::create_dir(&ours)?;
    let ours_made = counted(&|| make(&ours))?;
    gateway.stop()?;
    network.stop()?;

    // Nothing is known any more, on either side.
    let network = share()?;
    let mut reader = programs.runvault();
    reader
        .args(["mount", "--read-only", "--open", "-f", "--identity"])
        .arg(&identity)
        .arg("--state")
        .arg(path("reader"));
    let reader = Mounted::new(reader.arg(&store).arg(path("mnt")), &home.0, path("mnt"))?;
    let (mut of_plain, mut of_ours) = (vec![("create, write, close", plain_made)], vec![("", ours_made)]);
    for (name, what) in [("list and stat", list as fn(&Path) -> Result<()>), ("open, read, close", read)] {
        of_plain.push((name, counted(&|| what(&plain))?));
        of_ours.push((name, counted(&|| what(&ours))?));
    }
    reader.stop()?;
    network.stop()?;
    Ok([of_plain, of_ours])
}

fn fingerprint(programs: &Programs, store: &Path) -> Result<String> {
    let said = programs.runvault().arg("fingerprint").arg(store).output()?;
    let said = String::from_utf8(said.stdout)?;
    Ok(said.lines().last().context("no fingerprint")?.to_owned())
}

fn cost(share: &Path, what: &dyn Fn() -> Result<()>) -> Result<Cost> {
    let (before, begun) = (trips(share)?, Instant::now());
    what()?;
    let took = begun.elapsed();
    let mut trips = trips(share)?;
    trips.iter_mut().for_each(|(kind, n)| *n -= before.get(kind).copied().unwrap_or(0));
    Ok(Cost { took, trips })
}

fn trips(share: &Path) -> Result<Trips> {
    let mut told = vec![0; 4096];
    let length = rustix::fs::getxattr(share, TOLD, &mut told)?;
    told.truncate(length);
    let lines = String::from_utf8(told)?;
    let count =
        |line: &str| Some((line.split_once(' ')?.0.to_owned(), line.split_once(' ')?.1.parse().ok()?));
    Ok(lines.lines().filter_map(count).collect())
}

fn name(dir: &Path, n: usize) -> PathBuf {
    dir.join(format!("s_1_{:04}.filter", 1101 + n))
}

fn make(dir: &Path) -> Result<()> {
    let bytes = vec![7; SIZE];
    (0..FILES).try_for_each(|n| Ok(File::create(name(dir, n))?.write_all(&bytes)?))
}

fn list(dir: &Path) -> Result<()> {
    let listed = fs::read_dir(dir)?.try_fold(0, |n, entry| entry?.metadata().map(|_| n + 1))?;
    ensure!(listed == FILES, "{listed} files are listed");
    Ok(())
}

fn read(dir: &Path) -> Result<()> {
    (0..FILES).try_for_each(|n| {
        ensure!(fs::read(name(dir, n))?.len() == SIZE, "another length");
        Ok(())
    })
}

struct Home(PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        // A gateway's mount point, bare, takes nothing and cannot be removed.
        let opened = File::open(self.0.join("mnt")).and_then(|dir| {
            let flags = rustix::fs::ioctl_getflags(&dir)?;
            Ok(rustix::fs::ioctl_setflags(&dir, flags - rustix::fs::IFlags::IMMUTABLE)?)
        });
        let _ = opened;
        let _ = fs::remove_dir_all(&self.0);
    }
}
