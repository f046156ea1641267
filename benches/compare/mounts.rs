//! How soon a mount of many sealed runs answers, and lists them: the first one of a machine, and later ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use runvault_custody::authority::Acting;
use runvault_custody::chain::Chain;
use runvault_custody::gateway::StateFolder;
use runvault_store::posix;
use runvault_vault::api::{Caller, OpenFlags, ROOT};
use runvault_vault::held::HeldRun;
use runvault_vault::seal::Outcome;
use runvault_vault::{Options, Vault as Engine};

use crate::home::Home;
use crate::machine;
use crate::mounted::run;
use crate::subjects::Programs;
use crate::vault::Vault;

/// What is asked for: seconds until `mount` returns, and of the first and of later mounts' `ls`.
const ANSWERS: f64 = 1.0;
const LISTS: [f64; 2] = [5.0, 1.0];
/// Runs that are made and sealed before the next ones: what they cost must not grow with their number.
const BATCH: u64 = 250;

/// A vault of `runs` sealed runs of one file, mounted by its owner and by its gateway: a table.
///
/// # Errors
/// The program's and the store's.
pub(crate) fn table(place: &Path, programs: &Programs, runs: u64) -> Result<String> {
    let home = Home::new(place, "mounts")?;
    let vault = Vault::new(programs, &home)?;
    vault.gateways_mount()?.stop()?;
    make(&vault, &home, runs)?;
    let mut table = format!(
        "| {} ({}), {runs} sealed runs | s until `mount` returns (under {ANSWERS}) | s of `ls` | s of `ls -l` after it |\n\
         |---|---|---|---|\n",
        place.display(),
        machine::file_system(place)
    );
    for (who, ingest, shown) in [("owner", false, runs), ("gateway", true, 0)] {
        for (which, asked) in ["first", "later"].iter().zip(LISTS) {
            machine::drop_caches();
            let times = Times::of(&vault, ingest, shown)?;
            let Times { mount, ls, long } = times;
            let long = long.map_or_else(|| "fails".into(), |long| format!("{:.2}", long.as_secs_f64()));
            let [mount, ls] = [mount, ls].map(|time| time.as_secs_f64());
            table += &format!("| {who}, {which} mount | {mount:.2} | {ls:.2} (under {asked}) | {long} |\n");
        }
    }
    Ok(table)
}

/// Of `mount`, `ls`, and `ls -l` if it succeeds.
struct Times {
    mount: Duration,
    ls: Duration,
    long: Option<Duration>,
}

impl Times {
    fn of(vault: &Vault<'_>, ingest: bool, shown: u64) -> Result<Self> {
        let (mut command, at) = vault.mount_command(ingest);
        let mounted = Instant::now();
        run(&mut command)?;
        let mount = mounted.elapsed();
        let _end = Unmounted(at.clone());
        let begin = Instant::now();
        let names = fs::read_dir(&at)?.collect::<std::io::Result<Vec<_>>>()?;
        let ls = begin.elapsed();
        ensure!(names.len() as u64 == shown, "{} of {shown} runs are listed", names.len());
        let begin = Instant::now();
        let listed = run(Command::new("ls").arg("-l").arg(&at));
        Ok(Self { mount, ls, long: listed.is_ok().then(|| begin.elapsed()) })
    }
}

/// Unmounts when it is dropped.
struct Unmounted(PathBuf);

impl Drop for Unmounted {
    fn drop(&mut self) {
        let outside = |at: &Path| {
            fs::read_to_string("/proc/self/mounts")
                .is_ok_and(|mounts| !mounts.contains(&*at.to_string_lossy()))
        };
        let _ = run(Command::new("fusermount3").arg("-u").arg(&self.0));
        // Its process ends after that; the next one waits for it by the lock of the state folder.
        while !outside(&self.0) {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// By the engine, as the gateway does it.
fn make(vault: &Vault<'_>, home: &Home, runs: u64) -> Result<()> {
    let [aside] = home.directories(["aside"])?;
    let root = posix::open_root(vault.store())?;
    let chain = Chain::load(&root)?;
    let state = Arc::new(StateFolder::open(vault.gateway_state(), chain.vault_id())?);
    state.settle(&root)?;
    let authority = Acting::ingest(&root, chain);
    let stored = vault.store().join("runs");
    let carry = |from: &Path, to: &Path| -> Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            fs::rename(entry.path(), to.join(entry.file_name()))?;
        }
        Ok(())
    };
    for first in (0..runs).step_by(BATCH as usize) {
        let engine = Engine::open(root.clone(), authority.clone(), Some(state.clone()), Options::default())?;
        for n in first..runs.min(first + BATCH) {
            make_one(&engine, &format!("240101_A00123_{n:06}_AHMKTKDSX7"))?;
        }
        engine.close()?;
        drop(engine);
        carry(&stored, &aside)?;
    }
    carry(&aside, &stored)
}

fn make_one(engine: &Engine, name: &str) -> Result<()> {
    let caller = Caller { uid: 0, gid: 0, pid: std::process::id(), umask: 0o022 };
    let write = OpenFlags { read: true, write: true, truncate: false, append: false, kill_suidgid: false };
    let top = engine.mkdir(&caller, ROOT, name.as_bytes(), 0o755)?;
    let (_, opened) = engine.create(&caller, top.ino, b"RunInfo.xml", 0o644, write)?;
    engine.write(opened.handle, 0, b"<RunInfo/>", false)?;
    engine.release(opened.handle)?;
    let named = |held: &HeldRun| engine.held_name(&held.run).as_deref() == Some(name.as_bytes());
    let held = engine.held_runs().into_iter().find(named);
    let run = held.context("the run is not held")?.run;
    match engine.seal(&run, &mut |_| Ok(Some("{}".into())), &mut |_, _| ())? {
        Outcome::Sealed(_) => Ok(()),
        other => bail!("{name} is not sealed: {other:?}"),
    }
}
