//! `control.sock`: how `status`, `runs`, `seal` and `unmount` reach the process that serves a mount.
//!
//! One request a connection, a word on a line; answers are lines of JSON that name the protocol. A mount
//! lives longer than the program that made it is installed: the requests `status`, `runs`, `alarms`, `unmount "PATH"`,
//! `seal "HEX"` (a run's name or id may be any bytes), `seal-at [MIB/S, "HEX"]` and their answers stay as they are, newer programs add words, and an unknown word is answered by its name.
//! Only the same user and root are heard (SO_PEERCRED), on both sides. The socket is in the state folder of
//! a writing mount, and for every mount in a runtime folder under the mount's device number, where it is
//! found without the state folder's name. The kernel gives a device number again as soon as a mount is gone, when its
//! process may still be closing: so the process's number is in the socket's name too, a request to
//! unmount says where, and a mount that is gone says so.

mod client;
mod places;

use std::io::{BufRead, BufReader, Read, Write};
use std::num::NonZeroU64;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

pub use self::client::{
    Client, PATIENCE, Silent, alarms_request, deadline, runs_request, seal_request, status_request,
    unmount_request,
};
pub use self::places::in_folder;
use self::places::{make_private, prefix, remove_dead, runtime_folders};

/// The socket's name in a state folder.
pub const NAME: &str = "control.sock";
/// The longest line that either side reads.
const LINE: u64 = 16 << 20;
/// How long a peer may take for its request.
const REQUEST: Duration = Duration::from_secs(5);
/// Raised when a word or an answer changes its meaning; not for new ones.
const PROTOCOL: u32 = 1;

/// What a mount answers with.
pub trait Service: Send + Sync {
    /// Everything `status` shows.
    fn status(&self) -> Value;
    /// Everything `runs` shows: `{"runs": [...]}`.
    fn runs(&self) -> Value;
    /// The alarms that are raised: `{"alarms": [...]}`. It comes although the store hangs.
    fn alarms(&self) -> Value;
    /// Whether a request that comes now is too late: the mount is gone, the process ends.
    fn is_gone(&self) -> bool;
    /// Unmounts what is mounted at `at`, and replies: `{"gone": true}` where that is not this mount, or
    /// no longer; `{"busy": true}`, or `{"error": ...}`, or `{"stopping": true}` at once
    /// and then, when everything is durable or was found not to be, `{"closed": true}` or the error.
    /// Whether it was unmounted.
    fn unmount(&self, at: &str, reply: &mut dyn FnMut(&Value)) -> bool;
    /// Seals the run of that name or id, read back no faster than `limit` MiB a second: `{"done": n, "total": n}` as it
    /// goes, then `{"sealed": ...}`, `{"refused": [...]}` or `{"error": ...}`. Where `reply` says that nobody listens any more, the seal is given up.
    fn seal(&self, run: &[u8], limit: Option<u64>, reply: &mut dyn FnMut(&Value) -> bool);
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
    // This thread waits for ever: what it held would keep the vault, and its keys, after the mount.
    let service = Arc::downgrade(service);
    Builder::new().name("control".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let Some(service) = service.upgrade() else { return };
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
    let mut heard = |value: &Value| send(&mut stream, &with_protocol(value)).is_ok();
    let mut reply = |value: &Value| _ = heard(value);
    let (word, at) = request.trim().split_once(' ').unwrap_or((request.trim(), ""));
    match (word, serde_json::from_str::<String>(at)) {
        ("status", _) if service.is_gone() => reply(&serde_json::json!({ "gone": true })),
        ("status", _) => reply(&service.status()),
        ("runs", _) => reply(&service.runs()),
        ("alarms", _) => reply(&service.alarms()),
        ("seal", Ok(run)) => service.seal(&client::of_hex(&run), None, &mut heard),
        ("seal-at", _) if let Ok((limit, run)) = serde_json::from_str::<(NonZeroU64, String)>(at) => {
            service.seal(&client::of_hex(&run), Some(limit.get()), &mut heard);
        }
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

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    struct Fixed;
    impl Service for Fixed {
        fn status(&self) -> Value {
            serde_json::json!({ "files": 3 })
        }
        fn runs(&self) -> Value {
            serde_json::json!({ "runs": [] })
        }
        fn alarms(&self) -> Value {
            serde_json::json!({ "alarms": [] })
        }
        fn is_gone(&self) -> bool {
            false
        }
        fn unmount(&self, at: &str, reply: &mut dyn FnMut(&Value)) -> bool {
            reply(&serde_json::json!({ "busy": at }));
            false
        }
        fn seal(&self, run: &[u8], limit: Option<u64>, reply: &mut dyn FnMut(&Value) -> bool) {
            reply(&serde_json::json!({ "error": String::from_utf8_lossy(run), "limit": limit }));
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
        assert_eq!(seal_request(OsStr::new("r"), None), "seal \"72\"");
        assert_eq!(seal_request(OsStr::new("r"), Some(9)), "seal-at [9,\"72\"]");
        assert_eq!(unmount_request(Path::new("/mnt/a b\"ü")), "unmount \"/mnt/a b\\\"ü\"");
        for (request, answer) in [
            (&b"status\n"[..], "{\"files\":3,\"protocol\":1}\n"),
            (b"runs\n", "{\"protocol\":1,\"runs\":[]}\n"),
            (b"seal \"72\"\n", "{\"error\":\"r\",\"limit\":null,\"protocol\":1}\n"),
            (b"seal-at [9,\"72\"]\n", "{\"error\":\"r\",\"limit\":9,\"protocol\":1}\n"),
            (b"alarms\n", "{\"alarms\":[],\"protocol\":1}\n"),
            (b"unmount \"/mnt/a b\"\n", "{\"busy\":\"/mnt/a b\",\"protocol\":1}\n"),
        ] {
            let mut stream = UnixStream::connect(tmp.path().join(NAME)).unwrap();
            stream.write_all(request).unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).unwrap();
            assert_eq!(said, answer);
        }
    }
}
