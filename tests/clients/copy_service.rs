//! The share as a place that a run is written to: each file that is open at one time has a client of its own.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use runvault_sequencer::replay::place::{How, Opened, Place};
use runvault_tests::tools::tool;
use serde_json::{Value, json};

/// Clients of one server.
pub struct CopyService {
    port: u16,
    password: &'static str,
    /// That have nothing to do.
    idle: Mutex<Vec<Client>>,
}

impl CopyService {
    pub fn new(port: u16, password: &'static str) -> Self {
        Self { port, password, idle: Mutex::default() }
    }

    fn client(&self) -> io::Result<Client> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| Client::start(self.port, self.password), Ok)
    }

    fn give_back(&self, client: Client) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
    }

    fn once(&self, call: Value) -> io::Result<(Value, Vec<u8>)> {
        let mut client = self.client()?;
        let done = client.call(call, &[]);
        self.give_back(client);
        done
    }
}

impl Place for CopyService {
    fn open(&self, path: &Path, how: How) -> io::Result<Box<dyn Opened + '_>> {
        let how = match how {
            How::Anew => "anew",
            How::Keep => "keep",
            How::Append => "append",
        };
        let mut client = self.client()?;
        match client.call(json!({ "call": "open", "path": path, "how": how }), &[]) {
            Ok((said, _)) => {
                let size = said["size"].as_u64().unwrap_or_default();
                Ok(Box::new(Remote { service: self, client: RefCell::new(Some(client)), size }))
            }
            Err(error) => {
                self.give_back(client);
                Err(error)
            }
        }
    }

    fn make_dirs(&self, dir: &Path) -> io::Result<()> {
        self.once(json!({ "call": "make_dirs", "path": dir })).map(drop)
    }

    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.once(json!({ "call": "rename_over", "path": from, "to": to })).map(drop)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.once(json!({ "call": "read", "path": path })).map(|(_, bytes)| bytes)
    }
}

/// A file that is open over there.
struct Remote<'a> {
    service: &'a CopyService,
    client: RefCell<Option<Client>>,
    /// When it was opened.
    size: u64,
}

impl Remote<'_> {
    fn call(&self, call: Value, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut client = self.client.borrow_mut();
        client.as_mut().expect("an open file").call(call, bytes).map(|(_, bytes)| bytes)
    }
}

impl Opened for Remote<'_> {
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.call(json!({ "call": "resize", "size": size }), &[]).map(drop)
    }

    fn read_from(&self, offset: u64) -> io::Result<Vec<u8>> {
        self.call(json!({ "call": "read_from", "offset": offset }), &[])
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.call(json!({ "call": "write", "offset": offset }), bytes).map(drop)
    }

    fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        let since = time.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
        self.call(json!({ "call": "stamp", "seconds": since.as_secs() }), &[]).map(drop)
    }

    fn close(self: Box<Self>) -> io::Result<()> {
        let mut client = self.client.borrow_mut().take().expect("an open file");
        let closed = client.call(json!({ "call": "close" }), &[]).map(drop);
        self.service.give_back(client);
        closed
    }

    fn drop_link(self: Box<Self>) -> io::Result<()> {
        let mut client = self.client.borrow_mut().take().expect("an open file");
        let dropped = client.call(json!({ "call": "drop_link" }), &[]).map(drop);
        self.service.give_back(client);
        dropped
    }
}

impl Drop for Remote<'_> {
    /// After an error: the service lets go of the file with its process.
    fn drop(&mut self) {
        self.client.borrow_mut().take();
    }
}

struct Client {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Client {
    fn start(port: u16, password: &str) -> io::Result<Self> {
        let program: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/copy_service.py");
        let mut python = Command::new(tool("python/bin/python"));
        python.arg("-B").arg(program).args([&port.to_string(), password]);
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (to, from) = (child.stdin.take(), child.stdout.take().expect("piped"));
        Ok(Self { child, to, from: BufReader::new(from) })
    }

    fn call(&mut self, mut call: Value, bytes: &[u8]) -> io::Result<(Value, Vec<u8>)> {
        call["bytes"] = bytes.len().into();
        let to = self.to.as_mut().expect("until it ends");
        writeln!(to, "{call}")?;
        to.write_all(bytes)?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line)?;
        let mut content = vec![0; said["bytes"].as_u64().unwrap_or_default() as usize];
        self.from.read_exact(&mut content)?;
        match said["error"].as_i64() {
            None => Ok((said, content)),
            Some(errno) => {
                let kind = io::Error::from_raw_os_error(errno as i32).kind();
                Err(io::Error::new(kind, said["what"].to_string()))
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It ends at the end of its calls, and logs off.
        self.to.take();
        let _ = self.child.wait();
    }
}
