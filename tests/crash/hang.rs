//! A store that hangs: on sshfs, whose server is stopped. EIO within 60 s, work again when the server
//! goes on; kill -9 of a mount that hangs can be cleared away.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use runvault_tests::Site;
use runvault_tests::keeper::{Keeper, variable};
use runvault_tests::site::{detach, is_mounted};
use runvault_tests::tools::{self, leave_out, printed};
use rustix::process::{Pid, Signal, kill_process};

use super::fence::{FENCE, runs, store, take_over};

const SERVERS: [&str; 2] = ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server"];
/// What a request may take at most: the promise.
pub const PROMISE: Duration = Duration::from_secs(60);

pub fn sftp_server() -> Option<&'static str> {
    SERVERS.into_iter().find(|path| Path::new(path).exists())
}

/// A directory seen through sshfs, and the two processes behind it.
struct Share {
    at: PathBuf,
    server: Child,
    client: Child,
}

impl Share {
    /// `None` leaves a test out, and says so: there is no sshfs.
    fn new(dir: &Path, at: &Path) -> Option<Self> {
        Self::with(dir, at, "passive")
    }

    /// Where a write waits for the server.
    fn synchronous(dir: &Path, at: &Path) -> Option<Self> {
        Self::with(dir, at, "passive,sshfs_sync")
    }

    fn with(dir: &Path, at: &Path, options: &str) -> Option<Self> {
        let Some(server) = sftp_server() else {
            leave_out("there is no sftp-server");
            return None;
        };
        let mut server = Command::new(server);
        server.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = server.spawn().expect("sftp-server starts");
        let (input, output) = (server.stdin.take().expect("piped"), server.stdout.take().expect("piped"));
        let mut client = Command::new("sshfs");
        client.args(["-f", "-o", options]).arg(format!(":{}", dir.display())).arg(at);
        match client.stdin(output).stdout(input).stderr(Stdio::null()).spawn() {
            Ok(client) => {
                let share = Self { at: at.to_owned(), server, client };
                let until = Instant::now() + PROMISE;
                while !is_mounted(at) {
                    assert!(Instant::now() < until, "sshfs does not mount");
                    std::thread::sleep(Duration::from_millis(10));
                }
                Some(share)
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let _ = server.kill();
                let _ = server.wait();
                leave_out("there is no sshfs");
                None
            }
            Err(e) => panic!("sshfs: {e}"),
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.server.id() as i32).expect("a pid"), signal).expect("a signal");
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        detach(&self.at);
        for process in [&mut self.server, &mut self.client] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A vault, and its store seen through sshfs.
fn shared() -> Option<(Site, PathBuf, Share)> {
    let site = Site::new();
    let remote = site.dir().join("remote");
    fs::create_dir(&remote).expect("a directory");
    let share = Share::new(&site.store, &remote)?;
    Some((site, remote, share))
}

/// Looks at a path in a process of its own, as one that hangs cannot be waited for.
fn probe(path: PathBuf) -> std::sync::mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(fs::read(path)));
    told
}

/// An sftp handle of a directory cannot be rewound.
#[test]
fn directories_of_an_sshfs_store_are_listed_more_than_once() {
    let Some((site, remote, _share)) = shared() else { return };
    let mount = site.builder().store(&remote).mount();
    let run = mount.path("run");
    fs::create_dir(&run).expect("a run");
    for (round, name) in ["a", "b", "c"].iter().enumerate() {
        fs::write(run.join(name), name).expect("a file");
        assert_eq!(fs::read_dir(&run).expect("a listing").count(), round + 1);
    }
    // More than one reply, and than one piece of the store's listing.
    for number in 0..400 {
        fs::write(run.join(format!("{number:0200}")), b"").expect("a file");
    }
    let names = || fs::read_dir(&run).expect("a listing").map(|entry| entry.expect("an entry").file_name());
    assert_eq!(names().collect::<std::collections::BTreeSet<_>>().len(), 403);
    assert_eq!(names().count(), 403);
    mount.unmount();
    let checked = printed(&tools::run(site.command(&["check"]).arg(&remote)));
    assert!(checked.contains("403 files"), "{checked}");
    let mount = site.builder().store(&remote).mount();
    fs::remove_dir_all(mount.path("run")).expect("the run goes");
    assert_eq!(fs::read_dir(&mount.at).expect("a listing").count(), 0);
    mount.unmount();
}

#[test]
fn a_store_that_hangs_is_eio_and_works_again_when_it_is_back() {
    let Some((site, remote, share)) = shared() else { return };
    let mount = site.builder().store(&remote).mount();
    fs::create_dir(mount.path("run")).expect("a run");
    for name in ["read", "other"] {
        fs::write(mount.path("run").join(name), vec![7; 300_000]).expect("a file");
    }
    fs::File::open(mount.path("run/read")).and_then(|file| file.sync_all()).expect("sync");
    mount.unmount();
    let mount = site.builder().store(&remote).mount();
    assert_eq!(fs::read(mount.path("run/other")).expect("read").len(), 300_000);

    share.signal(Signal::STOP);
    let begin = Instant::now();
    let (read, make) = (probe(mount.path("run/read")), {
        let (tell, told) = std::sync::mpsc::channel();
        let path = mount.path("run/new");
        std::thread::spawn(move || tell.send(fs::write(path, b"x")));
        told
    });
    let error = read.recv_timeout(PROMISE).expect("an answer within 60 s").expect_err("the store hangs");
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "read");
    let rest = PROMISE.saturating_sub(begin.elapsed());
    let error = make.recv_timeout(rest).expect("an answer within 60 s").expect_err("the store hangs");
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "create");

    share.signal(Signal::CONT);
    let until = Instant::now() + Duration::from_secs(8);
    while let Err(error) = fs::read(mount.path("run/read")) {
        assert!(Instant::now() < until, "it does not work again: {error}\n{}", mount.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    fs::write(mount.path("run/again"), b"again").expect("it works again");
    mount.unmount();
    let mount = site.builder().store(&remote).mount();
    assert_eq!(fs::read(mount.path("run/again")).expect("read"), b"again");
    mount.unmount();
}

/// Whoever logs that the store hangs must not hang with it.
#[test]
fn a_store_that_hangs_with_the_log_is_eio() {
    let site = Site::new();
    let remote = site.dir().join("remote");
    fs::create_dir(&remote).expect("a directory");
    let Some(share) = Share::synchronous(site.dir(), &remote) else { return };
    let mounted = || site.builder().store(&remote.join("store")).log(&remote.join("log")).mount();
    let mount = mounted();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/file"), vec![7; 300_000]).expect("a file");
    mount.unmount();
    let mount = mounted();
    share.signal(Signal::STOP);
    let hangs = probe(mount.path("run/file"));
    let answer = hangs.recv_timeout(PROMISE);
    // Nothing is asserted before the share goes on: a mount that hangs could not be cleared away.
    share.signal(Signal::CONT);
    let error = answer.expect("an answer within 60 s").expect_err("the store hangs");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    mount.logged("the store answers again", 1);
    assert!(mount.log().contains("the store does not answer: EIO for "), "{}", mount.log());
    mount.unmount();
}

/// What a gateway tells goes to a share that hangs, and its store is well.
#[test]
fn neither_requests_nor_alarms_wait_for_a_log_and_metrics_that_hang() {
    let site = Site::new();
    site.enroll();
    let (shared, remote) = (site.dir().join("shared"), site.dir().join("remote"));
    for made in [&shared, &remote] {
        fs::create_dir(made).expect("a directory");
    }
    let Some(share) = Share::synchronous(&shared, &remote) else { return };
    let keeper = Keeper::new(site.dir());
    let mount = site
        .ingest()
        .log(&remote.join("log"))
        .args(["--alarm-unsealed", "4s", "--alarm-stuck", "8s", "--metrics"])
        .arg(remote.join("runvault.prom"))
        .arg("--exec")
        .arg(&keeper.program)
        .mount();
    share.signal(Signal::STOP);
    let run = mount.path("run");
    let (tell, written) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let done = fs::create_dir(&run).and_then(|()| fs::write(run.join("RunInfo.xml"), b"<RunInfo/>"));
        tell.send(done.is_ok())
    });
    let written = written.recv_timeout(Duration::from_secs(20));
    let until = Instant::now() + Duration::from_secs(40);
    let mut heard = [false; 2];
    while Instant::now() < until && heard != [true; 2] {
        std::thread::sleep(Duration::from_millis(200));
        heard = ["unsealed.raised", "stuck.raised"].map(|change| keeper.environment(change).is_some());
    }
    share.signal(Signal::CONT);
    assert_eq!(written, Ok(true), "a file");
    assert_eq!(heard, [true; 2], "alarms");
    mount.logged("alarm stuck raised: ", 1);
    assert!(mount.log().contains("alarm unsealed raised: "), "{}", mount.log());
    let log = mount.log_path();
    mount.unmount();
    let log = fs::read_to_string(log).expect("the log");
    assert!(log.lines().last().is_some_and(|line| line.ends_with("everything is durable")), "{log}");
}

/// It was away for longer than a lease lasts, and another machine has taken one of two runs over.
#[test]
fn a_store_that_hung_past_the_fence_is_written_only_where_nobody_took_over() {
    let Some((site, remote, share)) = shared() else { return };
    let mount = site.builder().store(&remote).mount();
    fs::create_dir(mount.path("lost")).expect("a run");
    let lost = runs(&site);
    fs::create_dir(mount.path("kept")).expect("a run");
    for path in ["lost/unread", "kept/unread", "lost/open", "kept/open"] {
        fs::write(mount.path(path), vec![7; 300_000]).expect("a file");
        fs::File::open(mount.path(path)).and_then(|file| file.sync_all()).expect("sync");
    }
    let open = |path: &str| fs::OpenOptions::new().append(true).open(mount.path(path)).expect("a file");
    let files = [open("lost/open"), open("kept/open")];
    // Nothing of the run that will be lost is on its way: what a server has got, it may do when it goes on.
    (&files[0]).write_all(b"let out").expect("accepted");
    std::thread::sleep(Duration::from_secs(3));
    (&files[1]).write_all(b"accepted").expect("accepted");
    share.signal(Signal::STOP);
    std::thread::sleep(FENCE + Duration::from_secs(1));
    take_over(&lost[0]);
    let taken = store(&lost[0]);
    share.signal(Signal::CONT);

    let until = Instant::now() + Duration::from_secs(8);
    while let Err(error) = fs::read(mount.path("lost/unread")) {
        assert!(Instant::now() < until, "reading does not go on: {error}\n{}", mount.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let refused = |what: &str, outcome: std::io::Result<()>| {
        let error = outcome.err().and_then(|e| e.raw_os_error());
        assert!(matches!(error, Some(libc::EROFS | libc::EIO)), "{what}: {error:?}\n{}", mount.log());
    };
    refused("a new file", fs::write(mount.path("lost/new"), b"late"));
    refused("fsync", files[0].sync_all());
    fs::write(mount.path("kept/new"), b"goes on").expect("nobody took it over");
    files[1].sync_all().expect("what was accepted arrives");
    drop(files);
    assert!(mount.log().contains("host 07070707"), "the new holder is not named:\n{}", mount.log());
    mount.signal(Signal::TERM);
    let _ = mount.wait();
    let after = store(&lost[0]);
    let changed = |path: &&PathBuf| after.get(*path) != taken.get(*path);
    let changed: Vec<_> = taken.keys().chain(after.keys()).filter(changed).collect();
    assert!(changed.is_empty(), "written after the takeover: {changed:?}");
    let reader = site.mount_read_only();
    assert_eq!(fs::read(reader.path("kept/new")).expect("read"), b"goes on");
    assert!(fs::read(reader.path("kept/open")).expect("read").ends_with(b"accepted"));
    reader.unmount();
}

#[test]
fn a_hanging_mount_that_was_killed_is_cleared_away() {
    let Some((site, remote, share)) = shared() else { return };
    let mount = site.builder().store(&remote).mount();
    fs::create_dir(mount.path("run")).expect("a run");
    let file = fs::File::create(mount.path("run/file")).expect("a file");
    (&file).write_all(b"synced").expect("write");
    file.sync_all().expect("sync");
    share.signal(Signal::STOP);
    let hangs = probe(mount.path("run/none"));
    std::thread::sleep(Duration::from_millis(300));
    kill_process(Pid::from_raw(mount.pid() as i32).expect("a pid"), Signal::KILL).expect("a signal");
    std::thread::sleep(Duration::from_millis(200));
    share.signal(Signal::CONT);
    mount.kill();
    let _ = hangs.recv_timeout(Duration::from_secs(10)).expect("whoever waited was answered");
    let mount = site.builder().store(&remote).mount();
    assert_eq!(fs::read(mount.path("run/file")).expect("read"), b"synced");
    mount.unmount();
}

/// A gateway whose store hangs still says so, by what does not need the store.
#[test]
fn a_store_that_hangs_is_an_alarm() {
    let Some((site, remote, share)) = shared() else { return };
    site.enroll();
    let metrics = site.dir().join("runvault.prom");
    let keeper = Keeper::new(site.dir());
    let mount = site
        .ingest()
        .store(&remote)
        .args(["--alarm-slow", "2s", "--alarm-stuck", "4s", "--metrics"])
        .arg(&metrics)
        .arg("--exec")
        .arg(&keeper.program)
        .mount();
    fs::create_dir(mount.path("run")).expect("a run");
    let vault = fs::read_dir(&site.state).expect("state").flatten().next().expect("a vault").path();
    let folder = fs::File::open(vault).expect("a folder");
    // A socket's address is short.
    let socket = format!("/proc/self/fd/{}/control.sock", std::os::fd::AsRawFd::as_raw_fd(&folder));
    share.signal(Signal::STOP);
    let hangs = probe(mount.path("run/none"));
    // Nothing is asserted before the store goes on: a mount that hangs could not be cleared away.
    let until = Instant::now() + Duration::from_secs(30);
    let (mut said, mut waited, mut told) = (String::new(), 0.0, None);
    while Instant::now() < until && !(said.contains("\"slow\"") && waited >= 2.0 && told.is_some()) {
        std::thread::sleep(Duration::from_millis(200));
        said = alarms(&socket).unwrap_or_else(|error| error.to_string());
        let text = fs::read_to_string(&metrics).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("runvault_store_wait_seconds "));
        waited = line.and_then(|value| value.parse().ok()).unwrap_or(0.0);
        told = keeper.environment("slow.raised");
    }
    share.signal(Signal::CONT);
    let _ = hangs.recv_timeout(PROMISE).expect("whoever waited was answered");
    assert!(said.contains("\"alarm\":\"slow\""), "{said}");
    assert!(waited >= 2.0, "{waited}");
    let told = told.expect("the program was told while the store hung");
    assert!(variable(&told, "RUNVAULT_ALARM_TEXT").is_some_and(|text| !text.is_empty()));
    assert!(mount.log().contains("alarm slow raised: "), "{}", mount.log());
    mount.unmount();
}

/// What the mount answers, within its time.
fn alarms(socket: &str) -> std::io::Result<String> {
    let mut asked = std::os::unix::net::UnixStream::connect(socket)?;
    asked.set_read_timeout(Some(Duration::from_secs(5)))?;
    asked.write_all(b"alarms\n")?;
    let mut said = String::new();
    std::io::Read::read_to_string(&mut asked, &mut said)?;
    Ok(said)
}
