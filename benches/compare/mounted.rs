//! A mount of any program that stays in front.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long a mount may take to come or go.
const PATIENCE: Duration = Duration::from_secs(60);

/// Unmounted when it is dropped.
pub(crate) struct Mounted {
    pub(crate) at: PathBuf,
    child: Option<Child>,
}

impl Mounted {
    /// Waits until it is there; what the program prints goes to `home/log`.
    ///
    /// # Errors
    /// It ended, or does not mount.
    pub(crate) fn new(command: &mut Command, home: &Path, at: PathBuf) -> Result<Self> {
        let log = File::create(home.join("log"))?;
        let outside = fs::metadata(home)?.dev();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut mounted = Self { at, child: Some(child) };
        let begin = Instant::now();
        while fs::metadata(&mounted.at).map_or(outside, |m| m.dev()) == outside {
            let gone = mounted.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if gone.is_some() || begin.elapsed() > PATIENCE {
                let said = fs::read_to_string(home.join("log")).unwrap_or_default();
                bail!("it does not mount: {}", said.trim());
            }
            sleep(Duration::from_millis(10));
        }
        Ok(mounted)
    }

    /// The process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Unmounts and waits for the process.
    ///
    /// # Errors
    /// It did not unmount, or failed.
    pub(crate) fn stop(mut self) -> Result<()> {
        unmount(&self.at, &[])?;
        let Some(child) = &mut self.child else { return Ok(()) };
        let begin = Instant::now();
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                None if begin.elapsed() > PATIENCE => bail!("{} does not end", self.at.display()),
                None => sleep(Duration::from_millis(10)),
            }
        };
        self.child = None;
        ensure!(status.success(), "{} ended with {status}", self.at.display());
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = unmount(&self.at, &["-z"]);
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn unmount(at: &Path, how: &[&str]) -> Result<()> {
    run(Command::new("fusermount3").arg("-u").args(how).arg("--").arg(at))
}

/// Runs a command to its end.
///
/// # Errors
/// With what it said, if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| name.clone())?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
