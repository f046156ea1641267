//! A mount in a process of its own.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::machine;

/// How long a mount may take to come or go.
const PATIENCE: Duration = Duration::from_secs(60);

/// Dropping it unmounts, without waiting for what is still under way.
pub(crate) struct Mount {
    pub(crate) at: PathBuf,
    child: Child,
    ended: bool,
}

impl Mount {
    /// Runs a mount that stays in front, and waits until it is there; what it says goes into `log`.
    ///
    /// # Errors
    /// It did not come, with what it said.
    pub(crate) fn start(command: &mut Command, at: &Path, log: &Path) -> Result<Self> {
        let output = File::create(log)?;
        let outside = fs::metadata(at.parent().unwrap_or(at))?.dev();
        let child = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()?;
        let mut mount = Self { at: at.to_owned(), child, ended: false };
        let begin = Instant::now();
        while fs::metadata(at).map_or(outside, |m| m.dev()) == outside {
            let gone = mount.child.try_wait()?;
            if gone.is_some() || begin.elapsed() > PATIENCE {
                bail!("it does not mount: {}", fs::read_to_string(log).unwrap_or_default().trim());
            }
            sleep(Duration::from_millis(10));
        }
        Ok(mount)
    }

    /// Bytes that its process has in memory.
    pub(crate) fn memory_now(&self) -> Option<u64> {
        machine::process_memory(self.child.id(), "VmRSS")
    }

    /// The most that it ever had.
    pub(crate) fn memory_peak(&self) -> Option<u64> {
        machine::process_memory(self.child.id(), "VmHWM")
    }

    /// Unmounts and waits for the process.
    ///
    /// # Errors
    /// It did not unmount, or failed.
    pub(crate) fn stop(mut self) -> Result<()> {
        unmount(&self.at, &[])?;
        let status = self.wait()?;
        self.ended = true;
        ensure!(status.success(), "the mount ended with {status}");
        Ok(())
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let begin = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) => return Ok(status),
                None if begin.elapsed() > PATIENCE => bail!("the mount does not end"),
                None => sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if !self.ended {
            let _ = unmount(&self.at, &["-z"]);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn unmount(at: &Path, how: &[&str]) -> Result<()> {
    run(Command::new("fusermount3").arg("-u").args(how).arg("--").arg(at)).map(drop)
}

/// What a program prints.
///
/// # Errors
/// It failed, with what it said.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| name.clone())?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A directory that goes with all that is in it.
pub(crate) struct Home(pub(crate) PathBuf);

impl Home {
    /// A new one in `place`.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn new(place: &Path, name: &str) -> Result<Self> {
        let home = place.join(format!("runvault-compare-{}-{name}", std::process::id()));
        fs::create_dir(&home).with_context(|| home.display().to_string())?;
        Ok(Self(home))
    }

    /// New directories in it.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn directories<const N: usize>(&self, names: [&str; N]) -> Result<[PathBuf; N]> {
        let paths = names.map(|name| self.0.join(name));
        paths.iter().try_for_each(fs::create_dir)?;
        Ok(paths)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
