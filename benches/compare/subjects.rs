//! What is compared: a directory, and what stands behind it.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::home::{Home, MOUNT};
use crate::machine;
use crate::mounted::{Mounted, run};
use crate::vault::Vault;

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    Plain,
    Passthrough,
    Gocryptfs,
    Runvault,
    /// A gateway's mount, which holds no reader key.
    Ingest,
}

impl Kind {
    /// All but a gateway, which is measured beside an owner's mount alone.
    pub(crate) const ALL: [Kind; 4] = [Kind::Plain, Kind::Passthrough, Kind::Gocryptfs, Kind::Runvault];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Plain => "plain",
            Kind::Passthrough => "pass-through",
            Kind::Gocryptfs => "gocryptfs",
            Kind::Runvault => "runvault",
            Kind::Ingest => "ingest",
        })
    }
}

/// Where the programs are.
pub(crate) struct Programs {
    runvault: PathBuf,
    passthrough: PathBuf,
    gocryptfs: Option<PathBuf>,
}

impl Programs {
    pub(crate) fn find(
        runvault: &Option<PathBuf>,
        passthrough: &Option<PathBuf>,
        gocryptfs: &Option<PathBuf>,
    ) -> Result<Self> {
        let here = std::env::current_exe()?;
        let beside = |name: &str| here.with_file_name(name);
        Ok(Self {
            runvault: runvault.clone().unwrap_or_else(|| beside("runvault")),
            passthrough: passthrough.clone().unwrap_or_else(|| beside("passthrough")),
            gocryptfs: gocryptfs.clone().or_else(|| in_path("gocryptfs")),
        })
    }

    pub(crate) fn runvault(&self) -> Command {
        Command::new(&self.runvault)
    }

    pub(crate) fn passthrough(&self) -> Command {
        Command::new(&self.passthrough)
    }

    /// Those of `wanted` that can run; only gocryptfs may be missing.
    pub(crate) fn available(&self, wanted: &[Kind]) -> Result<Vec<Kind>> {
        let mut kinds = wanted.to_vec();
        kinds.sort();
        kinds.dedup();
        if self.gocryptfs.is_none() && kinds.contains(&Kind::Gocryptfs) {
            eprintln!("no gocryptfs: scripts/gocryptfs-newest.sh DIR brings it; left out");
            kinds.retain(|kind| *kind != Kind::Gocryptfs);
        }
        let built = [
            (Kind::Runvault, &self.runvault),
            (Kind::Ingest, &self.runvault),
            (Kind::Passthrough, &self.passthrough),
        ];
        for (kind, program) in built {
            ensure!(!kinds.contains(&kind) || program.exists(), "{} is not built", program.display());
        }
        if let Some(gocryptfs) = &self.gocryptfs {
            ensure!(!kinds.contains(&Kind::Gocryptfs) || gocryptfs.exists(), "no {}", gocryptfs.display());
        }
        Ok(kinds)
    }
}

fn in_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|file| file.exists())
}

/// One of them, at work. Dropping it unmounts and deletes whatever it left.
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    /// Where the workload goes: a fresh directory, which in a vault is a run.
    pub(crate) dir: PathBuf,
    mount: Option<Mounted>,
    /// Goes after the mount in it.
    _home: Home,
}

impl Subject {
    pub(crate) fn start(kind: Kind, place: &Path, programs: &Programs) -> Result<Self> {
        let home = Home::new(place, &kind.to_string())?;
        let mount = match kind {
            Kind::Plain => None,
            Kind::Passthrough => Some(passthrough(&home, programs)?),
            Kind::Gocryptfs => {
                Some(gocryptfs(&home, programs.gocryptfs.as_deref().context("no gocryptfs")?)?)
            }
            Kind::Runvault => Some(Vault::new(programs, &home)?.owners_mount()?),
            Kind::Ingest => Some(Vault::new(programs, &home)?.gateways_mount()?),
        };
        let dir = mount.as_ref().map_or(&home.0, |mount| &mount.at).join("run");
        fs::create_dir(&dir).context("making the run's directory")?;
        Ok(Self { kind, dir, mount, _home: home })
    }

    /// Bytes that the mounting process has in memory.
    pub(crate) fn memory_now(&self) -> Option<u64> {
        machine::process_memory(self.mount.as_ref()?.pid()?, "VmRSS")
    }

    /// The most that it ever had.
    pub(crate) fn memory_peak(&self) -> Option<u64> {
        machine::process_memory(self.mount.as_ref()?.pid()?, "VmHWM")
    }

    /// Unmounts and waits for the process.
    ///
    /// # Errors
    /// It did not unmount, or failed.
    pub(crate) fn stop(self) -> Result<()> {
        self.mount.map_or(Ok(()), Mounted::stop)
    }
}

fn passthrough(home: &Home, programs: &Programs) -> Result<Mounted> {
    let [store, at] = home.directories(["store", MOUNT])?;
    Mounted::new(programs.passthrough().arg(&store).arg(&at), &home.0, at)
}

fn gocryptfs(home: &Home, program: &Path) -> Result<Mounted> {
    let [store, at] = home.directories(["store", MOUNT])?;
    let passphrase = home.0.join("passphrase");
    fs::write(&passphrase, "benchmark\n")?;
    let passfile = [OsStr::new("-q"), OsStr::new("-passfile"), passphrase.as_os_str()];
    run(Command::new(program).args(["-init", "-scryptn", "10"]).args(passfile).arg(&store))?;
    let mut mount = Command::new(program);
    Mounted::new(mount.arg("-fg").args(passfile).arg(&store).arg(&at), &home.0, at)
}
