//! What acts of a quorum cost beside the number of runs: those about people always the same, those about runs a little a
//! run. By the commands that people type, of two of three custodians.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use runvault_custody::authority::Acting;
use runvault_custody::chain::Chain;
use runvault_custody::gateway::StateFolder;
use runvault_store::posix;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::home::Home;
use crate::machine;
use crate::rotation::{self, TARGET};
use crate::subjects::Programs;

/// Acts of one kind, of which the median counts.
const TIMES: usize = 5;
/// USER_HZ of every Linux that people have.
const TICKS_A_SECOND: u64 = 100;

/// What a command took.
#[derive(Clone, Copy, Debug)]
struct Spent {
    wall: Duration,
    cpu: Duration,
    /// Bytes that it read and wrote, its own program and libraries included; 0 without root.
    moved: u64,
}

/// Each act of a quorum with 10, 1,000 and `most` runs, and the work over `most` runs: two tables.
///
/// # Errors
/// The program's and the store's.
pub(crate) fn tables(place: &Path, programs: &Programs, most: u64) -> Result<String> {
    let mut sizes = vec![10, 1000, most];
    sizes.dedup();
    let mut columns = Vec::new();
    let mut work = String::new();
    for runs in &sizes {
        let site = Site::new(place, programs, *runs)?;
        columns.push(site.acts()?);
        if *runs == most {
            work = site.work()?;
        }
    }
    let (name, kind) = (place.display(), machine::file_system(place));
    let mut table = format!("| 2 of 3 custodians, {name} ({kind}); ms, and KB read and written |");
    sizes.iter().for_each(|runs| table += &format!(" {runs} runs |"));
    table += &format!("\n|---|{}\n", "---|".repeat(sizes.len()));
    for (row, (what, _)) in columns.first().context("no size")?.iter().enumerate() {
        table += &format!("| {what} |");
        for (_, spent) in columns.iter().filter_map(|column| column.get(row)) {
            table += &format!(" {:.1}, {} |", spent.wall.as_secs_f64() * 1e3, spent.moved / 1000);
        }
        table.push('\n');
    }
    Ok(format!("{table}\n{work}"))
}

/// A vault of three custodians, its gateway, and runs of no files.
struct Site<'a> {
    programs: &'a Programs,
    home: Home,
    runs: u64,
}

impl<'a> Site<'a> {
    fn new(place: &Path, programs: &'a Programs, runs: u64) -> Result<Self> {
        let site = Self { programs, home: Home::new(place, "custody")?, runs };
        for one in ["alice", "bob", "carol", "dave", "lab"] {
            site.run(&format!("keygen --out {one}.key --no-lock"))?;
        }
        let three =
            "--custodian alice=alice.key.pub --custodian bob=bob.key.pub --custodian carol=carol.key.pub";
        site.run(&format!("init store {three} --quorum 2"))?;
        let root = posix::open_root(&site.path("store"))?;
        let vault = Chain::load(&root)?.vault_id();
        let enroll = "gateway enroll store --state gateway --name gateway --out gateway.req --fingerprint";
        site.run(&format!("{enroll} {vault}"))?;
        site.agree("enroll-gateway gateway.req")?;
        let gateway = StateFolder::open(&site.path("gateway"), vault)?;
        gateway.settle(&root)?;
        let authority = Acting::gateway_only(Chain::load(&root)?);
        (0..runs).try_for_each(|_| rotation::make_run(&root, &*authority, &gateway))?;
        Ok(site)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.0.join(name)
    }

    /// Each act, and the median of what it took.
    fn acts(&self) -> Result<Vec<(&'static str, Spent)>> {
        let mut taken: Vec<(&'static str, Vec<Spent>)> = Vec::new();
        let mut note = |what, spent| match taken.iter_mut().find(|(known, _)| *known == what) {
            Some((_, all)) => all.push(spent),
            None => taken.push((what, vec![spent])),
        };
        for n in 0..TIMES {
            note("own lock: `key relock`", self.run("key relock alice.key --lock none")?);
            note(
                "the drill: `confirm`",
                self.run("custody confirm store --identity alice.key --state state")?,
            );
            note("`list`", self.run("custody list store --state state")?);
            let label = format!("lab-{n}");
            let add_reader = format!("add-reader {label}=lab.key.pub --standing");
            let [propose, approve, execute] = self.agree(&add_reader)?;
            note("`propose` a standing reader", propose);
            note("`approve` it", approve);
            note("`execute` it", execute);
            self.run(&format!("keygen --out new-{n}.key --no-lock"))?;
            let [_, approve, execute] = self.agree(&format!("add-custodian new-{n}=new-{n}.key.pub"))?;
            note("`approve` one more custodian, with a share", approve);
            note("`execute` that, all shares anew", execute);
        }
        taken.into_iter().map(|(what, all)| Ok((what, median(&all)?))).collect()
    }

    /// What is done run by run: a table.
    fn work(&self) -> Result<String> {
        let mut table = format!(
            "| over {} runs | ms of CPU a run | target | s of wall clock |\n|---|---|---|---|\n",
            self.runs
        );
        self.agree("add-reader dave=dave.key.pub")?;
        let ids = fs::read_dir(self.path("store/runs"))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>>>()?
            .join(" ");
        let acts = [
            ("rotation", "rotate --unconfirmed".to_owned()),
            ("grant to one reader", format!("grant {ids} dave")),
            ("revocation", format!("revoke {ids} dave")),
            ("removal of a custodian", "remove-custodian carol --unconfirmed".to_owned()),
        ];
        for (what, act) in acts {
            let [_, _, spent] = self.agree(&act)?;
            let each = spent.cpu.as_secs_f64() * 1e3 / self.runs as f64;
            let (target, wall) = (TARGET.as_millis(), spent.wall.as_secs_f64());
            table += &format!("| {what} | {each:.2} | under {target} | {wall:.1} |\n");
        }
        Ok(table)
    }

    /// Proposed, approved by two, executed: what the proposal, an approval and the execution took.
    fn agree(&self, what: &str) -> Result<[Spent; 3]> {
        let unconfirmed = if what.ends_with("--unconfirmed") { " --unconfirmed" } else { "" };
        let what = what.trim_end_matches(" --unconfirmed");
        for used in ["req", "req.executor", "alice.ok", "bob.ok"] {
            let _ = fs::remove_file(self.path(used));
        }
        let propose = self.run(&format!("custody propose store {what} --out req --state state"))?;
        let mut approve = propose;
        for one in ["alice", "bob"] {
            approve = self.run(&format!("custody approve req --identity {one}.key --out {one}.ok --yes"))?;
        }
        let approvals = "--approval alice.ok --approval bob.ok --state state";
        let execute = self.run(&format!("custody execute store req {approvals}{unconfirmed}"))?;
        Ok([propose, approve, execute])
    }

    fn run(&self, line: &str) -> Result<Spent> {
        let mut command = self.programs.runvault();
        command.args(line.split(' ')).current_dir(&self.home.0);
        measured(&mut command).with_context(|| line.chars().take(100).collect::<String>())
    }
}

/// Of each thing that was measured for itself: the trail is longer at each turn.
fn median(all: &[Spent]) -> Result<Spent> {
    let (wall, cpu) = (middle(all, |spent| spent.wall)?, middle(all, |spent| spent.cpu)?);
    Ok(Spent { wall, cpu, moved: middle(all, |spent| spent.moved)? })
}

/// The median of one thing that was measured.
fn middle<T: Ord + Copy>(all: &[Spent], of: impl Fn(&Spent) -> T) -> Result<T> {
    let mut values: Vec<T> = all.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().context("nothing was measured")
}

/// Runs a command, and looks at what is left of it before it is forgotten.
fn measured(command: &mut Command) -> Result<Spent> {
    let begin = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process")?;
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    let wall = begin.elapsed();
    let (cpu, moved) = (cpu_of(child.id())?, moved_by(child.id()).unwrap_or(0));
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(Spent { wall, cpu, moved })
}

/// User's and system's time of /proc/PID/stat, fields 14 and 15.
fn cpu_of(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, behind_name) = stat.rsplit_once(") ").context("no name in /proc/PID/stat")?;
    let ticks = behind_name.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_A_SECOND))
}

fn moved_by(pid: u32) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let field = |name: &str| io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    Some(field("rchar:")? + field("wchar:")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_took_is_seen_after_its_end() {
        let spent =
            measured(Command::new("sh").args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]));
        let spent = spent.unwrap();
        assert!(spent.cpu > Duration::ZERO && spent.wall >= spent.cpu / 2, "{spent:?}");
        assert!(measured(Command::new("sh").args(["-c", "exit 3"])).is_err());
    }
}
