//! The temporary folder with a store, a mount point and the process that serves it; gone in the end.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{mount_table, signals};

/// How long a mount may take to come or to go.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that the demo leaves no trace of.
pub struct Stage {
    pub store: PathBuf,
    pub at: PathBuf,
    key: PathBuf,
    state: PathBuf,
    folder: TempDir,
    mount: Arc<Mutex<Option<Child>>>,
    stop: Arc<AtomicBool>,
}

impl Stage {
    /// The folders; Ctrl-C ends the mount from now on, and with it whatever uses it.
    pub fn new() -> Result<Stage> {
        let folder = tempfile::Builder::new().prefix("runvault-demo-").tempdir()?;
        // A mount point is found in the table by its canonical path.
        let base = folder.path().canonicalize()?;
        let stage = Stage {
            store: base.join("store"),
            at: base.join("mnt"),
            key: base.join("owner.key"),
            state: base.join("state"),
            folder,
            mount: Arc::default(),
            stop: Arc::default(),
        };
        std::fs::create_dir(&stage.at)?;
        let (mount, stop) = (Arc::clone(&stage.mount), Arc::clone(&stage.stop));
        signals::on_first(move |_| {
            stop.store(true, Ordering::Relaxed);
            terminate(mount.lock().unwrap_or_else(PoisonError::into_inner).as_ref());
        })?;
        Ok(stage)
    }

    /// `runvault init`; what it prints of the fingerprint.
    pub fn init(&self) -> Result<String> {
        let output = self.command("init").args(["--no-lock", "--json"]).arg(&self.store).output()?;
        let printed: serde_json::Value = serde_json::from_slice(&checked("init", output)?.stdout)?;
        let of = |key: &str| printed[key].as_str().unwrap_or_default().to_owned();
        Ok(format!("  fingerprint {}\n  in words    {}", of("vault"), of("words")))
    }

    /// `runvault mount -f`, and until it answers.
    pub fn mount(&self, read_only: bool) -> Result<()> {
        self.go_on()?;
        let mut command = self.command("mount");
        command.args(["-f", "--log", "stderr", "--state"]).arg(&self.state);
        if read_only {
            command.args(["--read-only", "--open"]);
        }
        let errors = self.folder.path().join("mount.log");
        command.arg(&self.store).arg(&self.at).stderr(std::fs::File::create(&errors)?);
        // In a group of its own: Ctrl-C reaches us, and we end it in order.
        let child = command.process_group(0).spawn()?;
        *self.mount.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        self.wait(&errors, |stage| Ok(mount_table::at(&stage.at)?.is_some()))
    }

    fn wait(&self, errors: &Path, there: impl Fn(&Stage) -> Result<bool>) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !there(self)? {
            let ended = {
                let mut mount = self.mount.lock().unwrap_or_else(PoisonError::into_inner);
                mount.as_mut().map(Child::try_wait).transpose()?.flatten().is_some()
            };
            if ended || Instant::now() > until {
                let said = std::fs::read_to_string(errors).unwrap_or_default();
                bail!("the mount did not come up: {}", said.trim());
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// `runvault unmount`.
    pub fn unmount(&self) -> Result<()> {
        self.go_on()?;
        let output = Command::new(program()?).arg("unmount").arg(&self.at).output()?;
        checked("unmount", output)?;
        if let Some(mut child) = self.take() {
            child.wait()?;
        }
        Ok(())
    }

    /// Whether Ctrl-C came.
    pub fn interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Fails once Ctrl-C came.
    pub fn go_on(&self) -> Result<()> {
        if self.interrupted() { bail!("interrupted") } else { Ok(()) }
    }

    /// Ends the mount and removes the folder.
    pub fn clean_up(self) -> Result<()> {
        if let Some(mut child) = self.take() {
            terminate(Some(&child));
            child.wait()?;
        }
        if mount_table::at(&self.at)?.is_some() {
            bail!("{} is still mounted; nothing was removed", self.at.display());
        }
        self.folder.close().context("remove the demo's folder")
    }

    fn take(&self) -> Option<Child> {
        self.mount.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program().unwrap_or_else(|_| "runvault".into()));
        command.arg(name).arg("--identity").arg(&self.key).stdin(Stdio::null());
        command
    }
}

fn program() -> Result<PathBuf> {
    std::env::current_exe().context("find this program")
}

fn terminate(child: Option<&Child>) {
    let pid = child.and_then(|child| Pid::from_raw(child.id().cast_signed()));
    if let Some(pid) = pid {
        // Gone already is as good.
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn checked(what: &str, output: Output) -> Result<Output> {
    if output.status.success() {
        return Ok(output);
    }
    bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim())
}

/// Paths of all files below a folder, sorted.
pub fn files_below(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).with_context(|| next.display().to_string())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if let Ok(path) = entry.path().strip_prefix(folder) {
                files.push(path.to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}
