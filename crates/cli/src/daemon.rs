//! A mount in the background: the command returns when the mount answers, or with why it does not.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use rustix::io::FdFlags;
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::exit::Exit;

/// Which of the two processes this is.
pub enum Side {
    /// The command that was typed; it ends with this code.
    Parent(ExitCode),
    /// The process that will serve the mount. It still has the terminal, for questions and errors.
    Child(Readiness),
}

/// The child's word to its parent.
pub struct Readiness {
    pipe: File,
    inherited: Vec<OwnedFd>,
}

/// Splits the process in two. Must be called before any thread is made: a forked child has only the
/// thread that forked. Nothing secret is open yet, since locks on memory do not pass to a child.
///
/// # Errors
/// No pipe or no process could be made.
pub fn split() -> Result<Side> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: the process has one thread here, so the child's memory is consistent.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(std::io::Error::last_os_error()).context("fork"),
        0 => {
            drop(read);
            Ok(Side::Child(Readiness { pipe: File::from(write), inherited: inherited()? }))
        }
        child => {
            drop(write);
            wait(child, File::from(read)).map(Side::Parent)
        }
    }
}

/// The descriptors above standard error that whoever called us left open: they lack the close-on-exec
/// flag that all of ours have. A secret may still have to be read from one (`--passphrase-fd 3`),
/// so they stay open until the mount answers.
fn inherited() -> Result<Vec<OwnedFd>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").context("list the open files")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        // SAFETY: it is open, since it was just listed and this process has one thread.
        let flags = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) })?;
        if number > 2 && !flags.contains(FdFlags::CLOEXEC) {
            // SAFETY: nothing in this process made it, so nothing else closes it.
            found.push(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
    Ok(found)
}

/// Until the child says that it is ready, or has ended with its own code and message.
fn wait(child: i32, mut pipe: File) -> Result<ExitCode> {
    if pipe.read(&mut [0])? == 1 {
        return Ok(Exit::Done.into());
    }
    let pid = Pid::from_raw(child).context("fork gave no process")?;
    let Some((_, status)) = waitpid(Some(pid), WaitOptions::empty())? else {
        bail!("the mount's process cannot be waited for");
    };
    match status.exit_status().and_then(|code| u8::try_from(code).ok()) {
        Some(0) => bail!("the mount's process ended before the mount answered"),
        Some(code) => Ok(ExitCode::from(code)),
        None => {
            bail!("the mount's process was killed by signal {}", status.terminating_signal().unwrap_or(0))
        }
    }
}

impl Readiness {
    /// Leaves the terminal and everything else that the caller had open, and lets the parent return.
    ///
    /// # Errors
    /// The parent has gone: nobody waits for this mount any more.
    pub fn tell(mut self) -> Result<()> {
        rustix::process::setsid()?;
        // What is on its way there still arrives.
        crate::output::flush_errors();
        let null = File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        self.inherited.clear();
        self.pipe.write_all(&[1]).context("the command that asked for this mount has gone")
    }
}
