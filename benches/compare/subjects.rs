//! What is compared: a directory, and what stands behind it.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::machine;
use crate::mounted::{Mounted, run};

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    Plain,
    Passthrough,
    Gocryptfs,
    Runvault,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [Kind::Plain, Kind::Passthrough, Kind::Gocryptfs, Kind::Runvault];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Plain => "plain",
            Kind::Passthrough => "pass-through",
            Kind::Gocryptfs => "gocryptfs",
            Kind::Runvault => "runvault",
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
        for (kind, program) in [(Kind::Runvault, &self.runvault), (Kind::Passthrough, &self.passthrough)] {
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
    home: PathBuf,
    mount: Option<Mounted>,
}

impl Subject {
    pub(crate) fn start(kind: Kind, place: &Path, programs: &Programs) -> Result<Self> {
        let home = place.join(format!("runvault-compare-{}-{kind}", std::process::id()));
        fs::create_dir(&home).with_context(|| home.display().to_string())?;
        let mut subject = Self { kind, dir: home.clone(), home, mount: None };
        let at = match kind {
            Kind::Plain => subject.home.clone(),
            Kind::Passthrough => subject.passthrough(&programs.passthrough)?,
            Kind::Gocryptfs => subject.gocryptfs(programs.gocryptfs.as_deref().context("no gocryptfs")?)?,
            Kind::Runvault => subject.runvault(&programs.runvault)?,
        };
        subject.dir = at.join("run");
        fs::create_dir(&subject.dir).context("making the run's directory")?;
        Ok(subject)
    }

    fn passthrough(&mut self, program: &Path) -> Result<PathBuf> {
        let [store, at] = self.directories(["store", "mnt"])?;
        self.mount(Command::new(program).arg(&store).arg(&at), at)
    }

    fn gocryptfs(&mut self, program: &Path) -> Result<PathBuf> {
        let [store, at] = self.directories(["store", "mnt"])?;
        let passphrase = self.home.join("passphrase");
        fs::write(&passphrase, "benchmark\n")?;
        let passfile = [OsStr::new("-q"), OsStr::new("-passfile"), passphrase.as_os_str()];
        run(Command::new(program).args(["-init", "-scryptn", "10"]).args(passfile).arg(&store))?;
        self.mount(Command::new(program).arg("-fg").args(passfile).arg(&store).arg(&at), at)
    }

    fn runvault(&mut self, program: &Path) -> Result<PathBuf> {
        let [store, at, state] = self.directories(["store", "mnt", "state"])?;
        let identity = self.home.join("identity");
        run(Command::new(program).arg("init").arg(&store).arg("--identity").arg(&identity).arg("--no-lock"))?;
        let mut mount = Command::new(program);
        mount.arg("mount").arg(&store).arg(&at).arg("--identity").arg(&identity);
        self.mount(mount.arg("--state").arg(&state).arg("-f"), at)
    }

    fn directories<const N: usize>(&self, names: [&str; N]) -> Result<[PathBuf; N]> {
        let paths = names.map(|name| self.home.join(name));
        paths.iter().try_for_each(fs::create_dir)?;
        Ok(paths)
    }

    fn mount(&mut self, command: &mut Command, at: PathBuf) -> Result<PathBuf> {
        self.mount = Some(Mounted::new(command, &self.home, at.clone())?);
        Ok(at)
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
    pub(crate) fn stop(mut self) -> Result<()> {
        self.mount.take().map_or(Ok(()), Mounted::stop)
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.mount.take();
        let _ = fs::remove_dir_all(&self.home);
    }
}
