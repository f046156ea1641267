//! `control.sock`: how `status` and `unmount` reach the process that serves a mount.
//!
//! One request a connection, a word on a line; answers are lines of JSON that name the protocol. A mount
//! lives longer than the program that made it is installed: the requests `status` and `unmount "PATH"` and
//! their answers stay as they are, newer programs add words, and an unknown word is answered by its name.
//! Only the same user and root are heard (SO_PEERCRED), on both sides. The socket is in the state folder of
//! a writing mount, and for every mount in a runtime folder under the mount's device number, where it is
//! found without the state folder's name. The kernel gives a device number again as soon as a mount is gone, when its
//! process may still be closing: so the process's number is in the socket's name too, a request to
//! unmount says where, and a mount that is gone says so.

use std::fs::{DirBuilder, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use crate::mount_table::Entry;

/// The socket's name in a state folder.
pub const NAME: &str = "control.sock";
/// The longest line that either side reads.
const LINE: u64 = 16 << 20;
/// How long a peer may take for its request.
const REQUEST: Duration = Duration::from_secs(5);
/// How long a mount's process may take for its answers, where nobody says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The least that is waited for an answer: of several sockets each gets its turn.
const TURN: Duration = Duration::from_millis(200);
/// Raised when a word or an answer changes its meaning; not for new ones.
const PROTOCOL: u32 = 1;

/// What a mount answers with.
pub trait Service: Send + Sync {
    /// Everything `status` shows.
    fn status(&self) -> Value;
    /// Whether a request that comes now is too late: the mount is gone, the process ends.
    fn is_gone(&self) -> bool;
    /// Unmounts what is mounted at `at`, and replies: `{"gone": true}` where that is not this mount, or
    /// no longer; `{"busy": true}`, or `{"error": ...}`, or `{"stopping": true}` at once
    /// and then, when everything is durable or was found not to be, `{"closed": true}` or the error.
    /// Whether it was unmounted.
    fn unmount(&self, at: &str, reply: &mut dyn FnMut(&Value)) -> bool;
}

/// Sockets that are served; their names go away when dropped.
pub struct Server {
    names: Vec<PathBuf>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for name in &self.names {
            // Gone already is as good.
            let _ = std::fs::remove_file(name);
        }
    }
}

impl Server {
    /// Listens in the state folder, where there is one, and under the mount's device number. A socket
    /// that cannot be made is logged: the mount itself works without.
    pub fn start(state: Option<&Path>, device: Option<&str>, service: &Arc<dyn Service>) -> Server {
        let mut names: Vec<PathBuf> = state.map(|folder| folder.join(NAME)).into_iter().collect();
        let folders = runtime_folders(rustix::process::geteuid().as_raw());
        let runtime = folders.iter().find(|f| make_private(f).is_ok());
        match (runtime, device) {
            (Some(folder), Some(device)) => {
                remove_dead(folder, device);
                names.push(folder.join(format!("{}{}.sock", prefix(device), std::process::id())));
            }
            _ => log::warn!(
                "no control socket: none of {} is a private folder of this user, so that `runvault unmount` cannot \
                 wait for this process",
                folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ")
            ),
        }
        names.retain(|name| match listen(name, service) {
            Ok(()) => true,
            Err(error) => {
                log::warn!("no control socket {}: {error:#}", name.display());
                false
            }
        });
        Server { names }
    }
}

fn listen(name: &Path, service: &Arc<dyn Service>) -> Result<()> {
    // A live server of that name cannot be: the state folder is locked, the process's number is ours.
    let _ = std::fs::remove_file(name);
    let listener = in_folder(name, UnixListener::bind)?;
    std::fs::set_permissions(name, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let service = Arc::clone(service);
    Builder::new().name("control".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let service = Arc::clone(&service);
            let answering =
                Builder::new().name("control-peer".into()).spawn(move || answer(stream, &*service));
            if let Err(error) = answering {
                log::warn!("control request refused: {error}");
            }
        }
    })?;
    Ok(())
}

fn answer(mut stream: UnixStream, service: &dyn Service) {
    if !allowed(&stream, rustix::process::geteuid().as_raw()) {
        return;
    }
    let _ = stream.set_read_timeout(Some(REQUEST));
    let _ = stream.set_write_timeout(Some(REQUEST));
    let Ok(request) = read_line(&mut BufReader::new(&stream)) else { return };
    // A peer that does not listen any more has its own reasons.
    let mut reply = |value: &Value| drop(send(&mut stream, &with_protocol(value)));
    let (word, at) = request.trim().split_once(' ').unwrap_or((request.trim(), ""));
    match (word, serde_json::from_str::<String>(at)) {
        ("status", _) if service.is_gone() => reply(&serde_json::json!({ "gone": true })),
        ("status", _) => reply(&service.status()),
        ("unmount", Ok(at)) => {
            if service.unmount(&at, &mut reply) {
                // Open until the process ends: its end of file tells the peer that it has gone.
                std::mem::forget(stream);
            }
        }
        _ => reply(&serde_json::json!({ "error": format!("unknown request {:?}", request.trim()) })),
    }
}

fn with_protocol(answer: &Value) -> Value {
    let mut answer = answer.clone();
    if let Some(object) = answer.as_object_mut() {
        object.insert("protocol".into(), PROTOCOL.into());
    }
    answer
}

/// Whether the peer is this user or root.
fn allowed(stream: &UnixStream, user: u32) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid.as_raw() == user)
}

fn send(stream: &mut UnixStream, value: &Value) -> std::io::Result<()> {
    stream.write_all(format!("{value}\n").as_bytes())
}

fn read_line(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    reader.take(LINE).read_line(&mut line)?;
    Ok(line)
}

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

/// The request to unmount what is mounted at `at`.
pub fn unmount_request(at: &Path) -> String {
    format!("unmount {}", Value::from(at.to_string_lossy()))
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
        let mut last = anyhow::anyhow!("it has no control socket");
        for name in runtime_folders(user).iter().flat_map(|folder| sockets(folder, &entry.device)) {
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

    fn silent_or(&self, error: std::io::Error) -> anyhow::Error {
        if error.kind() != std::io::ErrorKind::WouldBlock {
            return error.into();
        }
        Silent { pid: self.process.as_ref().map_or(0, |(pid, _)| pid.as_raw_nonzero().get()) }.into()
    }
}

/// What the names of a device number's sockets begin with.
fn prefix(device: &str) -> String {
    format!("{}.", device.replace(':', "-"))
}

/// The sockets of a device number; mostly one.
fn sockets(folder: &Path, device: &str) -> Vec<PathBuf> {
    let prefix = prefix(device);
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    names
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect()
}

/// What killed processes left under a number that is now another mount's.
fn remove_dead(folder: &Path, device: &str) {
    for name in sockets(folder, device) {
        let refused = in_folder(&name, UnixStream::connect)
            .is_err_and(|e| io_kind(&e) == Some(std::io::ErrorKind::ConnectionRefused));
        if refused {
            // Gone already is as good.
            let _ = std::fs::remove_file(name);
        }
    }
}

fn io_kind(error: &anyhow::Error) -> Option<std::io::ErrorKind> {
    error.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
}

/// Where a user's sockets may lie, the best place first.
fn runtime_folders(user: u32) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if user == 0 {
        folders.push(PathBuf::from("/run/runvault"));
    } else {
        folders.push(PathBuf::from(format!("/run/user/{user}/runvault")));
    }
    folders.push(PathBuf::from(format!("/tmp/runvault-{user}")));
    folders
}

/// Makes the folder, or takes one that is this user's alone.
fn make_private(folder: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e.into()),
    }
    let meta = std::fs::symlink_metadata(folder)?;
    let private =
        meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o077 == 0;
    if private { Ok(()) } else { bail!("{}: not a private folder of this user", folder.display()) }
}

/// Calls with a name short enough for a socket address (108 bytes), whatever the folder's path is.
fn in_folder<T>(name: &Path, call: impl FnOnce(PathBuf) -> std::io::Result<T>) -> Result<T> {
    let (folder, base) = name.parent().zip(name.file_name()).context("a socket has a folder and a name")?;
    let handle = File::open(folder)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd())).join(base);
    Ok(call(short)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;
    impl Service for Fixed {
        fn status(&self) -> Value {
            serde_json::json!({ "files": 3 })
        }
        fn is_gone(&self) -> bool {
            false
        }
        fn unmount(&self, at: &str, reply: &mut dyn FnMut(&Value)) -> bool {
            reply(&serde_json::json!({ "busy": at }));
            false
        }
    }

    #[test]
    fn a_request_is_answered_however_long_the_path() {
        let tmp = tempfile::tempdir().unwrap();
        let folder = tmp.path().join("x".repeat(120));
        std::fs::create_dir(&folder).unwrap();
        let service: Arc<dyn Service> = Arc::new(Fixed);
        let server = Server::start(Some(&folder), None, &service);
        assert_eq!(Client::of_state(&folder).unwrap().ask("status").unwrap()["files"], 3);
        assert_eq!(Client::of_state(&folder).unwrap().ask("unmount \"/mnt\"").unwrap()["busy"], "/mnt");
        assert!(Client::of_state(&folder).unwrap().ask("unmount").unwrap()["error"].is_string());
        let unknown = Client::of_state(&folder).unwrap().ask("nonsense").unwrap();
        assert_eq!(unknown["error"], "unknown request \"nonsense\"");
        assert_eq!(unknown["protocol"], 1);
        drop(server);
        assert!(!folder.join(NAME).exists());
    }

    /// What mounts of every released version understand and answer, byte for byte.
    #[test]
    fn the_words_of_the_protocol_stay_as_they_are() {
        let tmp = tempfile::tempdir().unwrap();
        let service: Arc<dyn Service> = Arc::new(Fixed);
        let _server = Server::start(Some(tmp.path()), None, &service);
        assert_eq!(status_request(), "status");
        assert_eq!(unmount_request(Path::new("/mnt/a b\"ü")), "unmount \"/mnt/a b\\\"ü\"");
        for (request, answer) in [
            (&b"status\n"[..], "{\"files\":3,\"protocol\":1}\n"),
            (b"unmount \"/mnt/a b\"\n", "{\"busy\":\"/mnt/a b\",\"protocol\":1}\n"),
        ] {
            let mut stream = UnixStream::connect(tmp.path().join(NAME)).unwrap();
            stream.write_all(request).unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).unwrap();
            assert_eq!(said, answer);
        }
    }

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

    #[test]
    fn dead_sockets_of_a_number_go_and_live_ones_stay() {
        let tmp = tempfile::tempdir().unwrap();
        let (dead, live, other) = ("0-52.1.sock", "0-52.2.sock", "0-5.1.sock");
        drop(UnixListener::bind(tmp.path().join(dead)).unwrap());
        drop(UnixListener::bind(tmp.path().join(other)).unwrap());
        let _live = UnixListener::bind(tmp.path().join(live)).unwrap();
        remove_dead(tmp.path(), "0:52");
        assert_eq!(sockets(tmp.path(), "0:52"), [tmp.path().join(live)]);
        assert_eq!(sockets(tmp.path(), "0:5"), [tmp.path().join(other)]);
    }

    #[test]
    fn a_folder_that_others_may_enter_is_not_used() {
        let tmp = tempfile::tempdir().unwrap();
        let open = tmp.path().join("open");
        DirBuilder::new().mode(0o755).create(&open).unwrap();
        assert!(make_private(&open).is_err());
        assert!(make_private(&tmp.path().join("new")).is_ok());
    }
}
