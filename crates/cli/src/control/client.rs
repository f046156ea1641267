//! Who asks a mount's process, and how long an answer may take.

use std::ffi::OsStr;
use std::io::{BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use super::places::{in_folder, runtime_folders, sockets};
use super::{NAME, allowed, read_line};
use crate::mount_table::Entry;

/// How long a mount's process may take for its answers, where nobody says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The least that is waited for an answer: of several sockets each gets its turn.
const TURN: Duration = Duration::from_millis(200);
/// How long after a mount is there its process may take to listen.
const NEWLY_MOUNTED: Duration = Duration::from_millis(500);

/// A connection to a live mount.
pub struct Client {
    stream: BufReader<UnixStream>,
    /// Until when its answers are waited for; `None`: without limit.
    until: Option<Instant>,
    /// The process that serves the mount, to wait for its end.
    pub process: Option<(Pid, OwnedFd)>,
}

/// A process that is there and has not answered in time: stopped, or waiting for its store.
#[derive(Debug, thiserror::Error)]
#[error("process {pid} does not answer")]
pub struct Silent {
    /// Its number; 0 where it runs in a namespace that is not ours.
    pub pid: i32,
}

/// The request for the status.
pub fn status_request() -> String {
    "status".to_owned()
}

/// The request for how far each run is.
pub fn runs_request() -> String {
    "runs".to_owned()
}

/// The request for the alarms that are raised, which needs no answer of the store.
pub fn alarms_request() -> String {
    "alarms".to_owned()
}

/// The request to unmount what is mounted at `at`.
pub fn unmount_request(at: &Path) -> String {
    format!("unmount {}", Value::from(at.to_string_lossy()))
}

/// The request to seal a run, whose name may be any bytes: in hex.
pub fn seal_request(run: &OsStr, limit: Option<u64>) -> String {
    let hex: String = run.as_encoded_bytes().iter().map(|b| format!("{b:02x}")).collect();
    match limit {
        None => format!("seal {}", Value::from(hex)),
        Some(limit) => format!("seal-at {}", serde_json::json!([limit, hex])),
    }
}

/// The name in such a request; what is no hex names no run.
pub(super) fn of_hex(hex: &str) -> Vec<u8> {
    let pair = |at| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..hex.len()).step_by(2).map_while(pair).collect()
}

/// When the patience ends; none does where it is zero.
pub fn deadline(patience: Duration) -> Option<Instant> {
    Some(patience)
        .filter(|patience| !patience.is_zero())
        .and_then(|patience| Instant::now().checked_add(patience))
}

impl Client {
    /// Asks whoever serves this mount: the connection, and the first answer.
    ///
    /// # Errors
    /// Nobody answers, or someone else's process does, or that of a mount that is gone; [`Silent`].
    pub fn ask_mount(entry: &Entry, request: &str, until: Option<Instant>) -> Result<(Client, Value)> {
        let user = entry.user().unwrap_or_else(|| rustix::process::geteuid().as_raw());
        let begun = Instant::now();
        let names = loop {
            let folders = runtime_folders(user);
            let names: Vec<_> = folders.iter().flat_map(|folder| sockets(folder, &entry.device)).collect();
            if !names.is_empty() || begun.elapsed() > NEWLY_MOUNTED {
                break names;
            }
            std::thread::sleep(NEWLY_MOUNTED / 25);
        };
        let mut last = anyhow::anyhow!("it has no control socket");
        for name in names {
            let asked = Client::connect(&name, user, until).and_then(|mut client| {
                let answer = client.ask(request)?;
                Ok((client, answer))
            });
            match asked {
                Ok((_, answer)) if answer.get("gone").is_some() => {}
                Ok(asked) => return Ok(asked),
                Err(_) if last.is::<Silent>() => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Connects to the writing mount of a state folder (`<state>/<vault id>`).
    ///
    /// # Errors
    /// As [`Client::ask_mount`].
    pub fn of_state(folder: &Path) -> Result<Client> {
        let owner = std::fs::metadata(folder)?.uid();
        Client::connect(&folder.join(NAME), owner, deadline(PATIENCE))
    }

    fn connect(name: &Path, user: u32, until: Option<Instant>) -> Result<Client> {
        let stream = in_folder(name, UnixStream::connect)?;
        if !allowed(&stream, user) {
            bail!("{}: another user's process listens there", name.display());
        }
        // Before any request: after one the process may have gone.
        let process = rustix::net::sockopt::socket_peercred(&stream)
            .ok()
            .and_then(|peer| Some((peer.pid, pidfd_open(peer.pid, PidfdFlags::empty()).ok()?)));
        Ok(Client { stream: BufReader::new(stream), until, process })
    }

    /// Waits for its answers without limit: they come when the work is done.
    #[must_use]
    pub fn patient(mut self) -> Self {
        self.until = None;
        self
    }

    /// Sends the request and reads the first answer.
    ///
    /// # Errors
    /// The peer went away or talks nonsense.
    pub fn ask(&mut self, request: &str) -> Result<Value> {
        writeln!(self.stream.get_mut(), "{request}")?;
        self.next()?.context("the mount's process ended without an answer")
    }

    /// The next answer; `None` once the peer has closed.
    ///
    /// # Errors
    /// As [`Client::ask`]; [`Silent`].
    pub fn next(&mut self) -> Result<Option<Value>> {
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()).max(TURN));
        self.stream.get_ref().set_read_timeout(left)?;
        let line = read_line(&mut self.stream).map_err(|error| self.silent_or(error))?;
        if line.is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line).context("answer of the mount's process")?))
    }

    /// Whether the next answer, or the end of the connection, is there within that time.
    pub fn answers_within(&self, time: Duration) -> bool {
        let limit = rustix::event::Timespec { tv_sec: time.as_secs() as i64, tv_nsec: 0 };
        let mut watched = [PollFd::new(self.stream.get_ref(), PollFlags::IN)];
        !self.stream.buffer().is_empty() || !matches!(poll(&mut watched, Some(&limit)), Ok(0))
    }

    fn silent_or(&self, error: std::io::Error) -> anyhow::Error {
        if error.kind() != std::io::ErrorKind::WouldBlock {
            return error.into();
        }
        Silent { pid: self.process.as_ref().map_or(0, |(pid, _)| pid.as_raw_nonzero().get()) }.into()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_process_that_does_not_answer_is_told_from_none() {
        let tmp = tempfile::tempdir().unwrap();
        let name = tmp.path().join("x.sock");
        let _mute = UnixListener::bind(&name).unwrap();
        let user = rustix::process::geteuid().as_raw();
        let mut client = Client::connect(&name, user, deadline(Duration::from_millis(1))).unwrap();
        let error = client.ask(&status_request()).unwrap_err();
        assert_eq!(error.to_string(), format!("process {} does not answer", std::process::id()));
        assert!(error.is::<Silent>());
        assert!(!Client::connect(&tmp.path().join("none"), user, None).err().unwrap().is::<Silent>());
    }
}
