//! A store on sshfs whose link breaks.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use runvault_sequencer::replay::place::{Directory, How, Place};
use runvault_tests::Site;
use runvault_tests::site::{detach, is_mounted};
use runvault_tests::tools::leave_out;
use rustix::process::{Pid, Signal, kill_process};

use super::hang::{PROMISE, sftp_server};

/// It acknowledges writes that the server does not have yet.
pub const RECONNECT: &str = "reconnect";
/// What docs/operations.md asks for.
pub const SYNC: &str = "reconnect,sshfs_sync";

/// A directory seen through sshfs, whose connection can be cut and kept from coming back.
pub struct Link {
    pub at: PathBuf,
    dir: PathBuf,
    /// What sshfs is called with.
    arguments: [String; 3],
    client: Mutex<Option<Child>>,
}

impl Link {
    /// `None` leaves a test out, and says so.
    pub fn new(store: &Path, dir: &Path, options: &str) -> Option<Self> {
        let Some(server) = sftp_server() else {
            leave_out("there is no sftp-server");
            return None;
        };
        let (at, ssh) = (dir.join("remote"), dir.join("ssh"));
        fs::create_dir(&at).expect("a directory");
        // What sshfs runs to connect, each time.
        let (down, pid) = (dir.join("down").display().to_string(), dir.join("pid").display().to_string());
        let script = format!("#!/bin/sh\n[ ! -e {down} ] || exit 255\necho $$ >{pid}\nexec {server}\n");
        fs::write(&ssh, script).expect("a script");
        fs::set_permissions(&ssh, Permissions::from_mode(0o755)).expect("a mode");
        let arguments = [
            format!("-o{options},ssh_command={}", ssh.display()),
            format!("host:{}", store.display()),
            at.display().to_string(),
        ];
        let link = Self { at, dir: dir.to_owned(), arguments, client: Mutex::default() };
        if link.begin() {
            return Some(link);
        }
        leave_out("there is no sshfs");
        None
    }

    /// Mounts the share; `false` where there is no sshfs.
    pub fn begin(&self) -> bool {
        let mut client = Command::new("sshfs");
        client.arg("-f").args(&self.arguments).stdin(Stdio::null()).stderr(Stdio::null());
        let Ok(client) = client.spawn() else { return false };
        *self.client.lock().expect("the client") = Some(client);
        let until = Instant::now() + Duration::from_secs(10);
        while !is_mounted(&self.at) {
            assert!(Instant::now() < until, "sshfs does not mount");
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// kill -9 of sshfs itself; what it leaves is taken away when somebody comes to look.
    pub fn end(&self) {
        if let Some(mut client) = self.client.lock().expect("the client").take() {
            let _ = client.kill();
            let _ = client.wait();
        }
    }

    /// The server takes nothing from now on.
    fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// It breaks, and stays broken until [`Link::way_back`] is gone.
    pub fn cut(&self) {
        fs::write(self.dir.join("down"), b"").expect("a file");
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        let pid = fs::read_to_string(self.dir.join("pid")).expect("the server's");
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("the server");
    }

    pub fn way_back(&self) -> impl FnOnce() + Send + 'static {
        let down = self.dir.join("down");
        move || fs::remove_file(down).expect("the link is back")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        detach(&self.at);
        self.end();
    }
}

/// Lengths around a chunk of 8 KiB, a page and a request.
const LENGTHS: [usize; 5] = [0, 200, 8192, 20_000, 300_000];

/// The server stops, so that nothing that is written from here on arrives, and is gone when the file is closed.
fn broken_off(link: &Link, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = Directory.open(path, How::Anew)?;
    link.stop();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            link.cut();
            link.way_back()();
        });
        file.write_at(bytes, 0)?;
        file.close()
    })
}

#[test]
fn a_file_that_a_broken_link_has_lost_is_an_error_to_who_closes_it() {
    for options in [RECONNECT, SYNC] {
        let site = Site::new();
        let Some(link) = Link::new(&site.store, site.dir(), options) else { return };
        let mount = site.builder().store(&link.at).mount();
        fs::create_dir(mount.path("run")).expect("a run");
        let files = LENGTHS.map(|len| (mount.path("run").join(len.to_string()), vec![7; len]));
        for (path, bytes) in &files {
            let told = broken_off(&link, path, bytes).err().and_then(|error| error.raw_os_error());
            let lost = (!bytes.is_empty()).then_some(libc::EIO);
            assert_eq!(told, lost, "{options}: {} bytes\n{}", bytes.len(), mount.log());
            let until = Instant::now() + PROMISE;
            while let Err(error) = Directory.open(path, How::Anew).and_then(|file| {
                file.write_at(bytes, 0)?;
                file.close()
            }) {
                assert!(Instant::now() < until, "{options}: it cannot be sent again: {error}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        mount.unmount();
        let mount = site.mount_read_only();
        for (path, bytes) in &files {
            let path = mount.path("run").join(path.file_name().expect("a name"));
            assert!(fs::read(&path).expect("read") == *bytes, "{options}: {}", path.display());
        }
        mount.unmount();
    }
}
