//! Events reach the journal and syslog, by the sockets of a machine whose services are this test; and nobody waits until
//! they do.

use std::fs;
use std::io::{PipeReader, Read};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use runvault_tests::Site;
use runvault_tests::site::{detach, is_mounted};
use runvault_tests::tools::{root_for, run, runvault};
use rustix::process::{Pid, Signal, kill_process};

/// In a mount namespace of its own, where the sockets are the test's: mounts with further `options`, and unmounts.
/// Gives what each socket heard, the journal's first. That nobody listens is said, and nothing else is.
fn heard(sockets: [bool; 2], options: &[&str]) -> [Vec<String>; 2] {
    let site = Site::new();
    let bound = ["journal", "syslog"].map(|name| {
        let socket = UnixDatagram::bind(site.dir().join(name)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time");
        socket
    });
    let mut script = r#"cd "$DIR"; mkdir dev
mount -t tmpfs none dev; mkdir dev/shm; mount --bind /dev/shm dev/shm
for name in fuse null urandom; do touch dev/$name; mount --bind /dev/$name dev/$name; done
mount -t tmpfs none /run; mkdir -p /run/systemd/journal
"#
    .to_owned();
    if sockets[0] {
        script += "touch /run/systemd/journal/socket; mount --bind journal /run/systemd/journal/socket\n";
    }
    if sockets[1] {
        script += "touch dev/log; mount --bind syslog dev/log\n";
    }
    script += r#"mount --rbind dev /dev
"$PROGRAM" mount --identity owner.key --state state "$@" store mnt
"$PROGRAM" unmount mnt"#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", &script, "sh"]).args(options);
    let done = run(command.env("DIR", site.dir()).env("PROGRAM", runvault()));
    let says = String::from_utf8_lossy(&done.stderr);
    assert_eq!(says.contains("warning: nobody takes log events"), sockets == [false, false], "{says}");
    bound.map(|socket| {
        let mut all = Vec::new();
        let mut bytes = [0; 65_536];
        while let Ok(n) = socket.recv(&mut bytes) {
            all.push(String::from_utf8(bytes[..n].to_vec()).expect("text"));
        }
        all
    })
}

fn is_the_journals(entry: &str) -> bool {
    let fields: Vec<_> =
        entry.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    fields == ["PRIORITY", "SYSLOG_IDENTIFIER", "SYSLOG_PID", "MESSAGE"] && entry.contains("=runvault\n")
}

/// RFC 3164 as syslog(3) writes it to the local socket: `<30>runvault[7]: text`, of the facility daemon.
fn is_syslogs(line: &str) -> bool {
    let rest = line.strip_prefix("<30>runvault[").or_else(|| line.strip_prefix("<28>runvault["));
    rest.and_then(|rest| rest.split_once("]: ")).is_some_and(|(pid, _)| pid.parse::<u32>().is_ok())
}

/// Events of a mount that comes and goes, of which nothing went to the other one.
fn only(heard: &[String], other: &[String], form: fn(&str) -> bool) {
    assert!(heard.len() >= 2 && heard.iter().all(|entry| form(entry)), "{heard:?}");
    assert!(heard.iter().any(|entry| entry.contains("mounted")), "{heard:?}");
    assert!(other.is_empty(), "{other:?}");
}

#[test]
fn events_go_to_the_journal_by_default_and_by_its_name() {
    if !root_for("a machine with a journal") {
        return;
    }
    for (sockets, options) in [([true, true], &[][..]), ([true, true], &["--log", "journal"])] {
        let [journal, syslog] = heard(sockets, options);
        only(&journal, &syslog, is_the_journals);
    }
}

#[test]
fn events_go_to_syslog_where_there_is_no_journal_and_by_its_name() {
    if !root_for("a machine with syslog") {
        return;
    }
    for (sockets, options) in [([false, true], &[][..]), ([true, true], &["--log", "syslog"])] {
        let [journal, syslog] = heard(sockets, options);
        only(&syslog, &journal, is_syslogs);
    }
}

#[test]
fn that_nobody_takes_events_is_said_at_the_mount() {
    if !root_for("a machine without a journal and syslog") {
        return;
    }
    for options in [&[][..], &["--log", "journal"], &["--log", "syslog"]] {
        assert!(heard([false, false], options).iter().all(Vec::is_empty));
    }
}

/// More of them than there are threads, and than a small pipe takes lines.
const DAMAGED: usize = 60;

/// A run of files of which each has one bit changed, and a healthy directory.
fn with_damaged_files() -> Site {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir_all(mount.path("run/healthy")).expect("a run");
    for n in 0..DAMAGED {
        fs::write(mount.path(format!("run/{n}")), [7; 300]).expect("a file");
    }
    mount.unmount();
    let run = fs::read_dir(site.store.join("runs")).expect("runs").flatten().next().expect("a run").path();
    let mut changed = 0;
    for file in fs::read_dir(run.join("tree")).expect("a tree").flatten() {
        if file.path().is_file() && file.file_name() != "_dir" {
            let open = fs::OpenOptions::new().read(true).write(true).open(file.path()).expect("a file");
            let last = open.metadata().expect("its length").len() - 1;
            let mut byte = [0];
            open.read_exact_at(&mut byte, last).expect("its last byte");
            open.write_all_at(&[byte[0] ^ 1], last).expect("another one");
            changed += 1;
        }
    }
    assert_eq!(changed, DAMAGED);
    site
}

/// A mount that logs into a pipe of 4 KiB.
fn with_a_small_pipe(site: &Site) -> (Child, PipeReader) {
    let (unread, end) = std::io::pipe().expect("a pipe");
    rustix::pipe::fcntl_setpipe_size(&end, 4096).expect("a small one");
    let mut command = site.command(&["mount", "-f", "--log", "stderr"]);
    let mount = command.arg(&site.store).arg(&site.at).stderr(end).spawn().expect("runvault starts");
    let until = Instant::now() + Duration::from_secs(30);
    while !is_mounted(&site.at) {
        assert!(Instant::now() < until, "it does not mount");
        thread::sleep(Duration::from_millis(5));
    }
    (mount, unread)
}

/// What each of the files gives, and then the directory's look: as far as it comes in time.
fn look(at: &Path) -> (Vec<Option<i32>>, bool) {
    let (tell, read) = channel();
    let (stated, healthy) = channel();
    let run = at.join("run");
    thread::spawn(move || {
        for n in 0..DAMAGED {
            let errno = fs::read(run.join(n.to_string())).err().and_then(|error| error.raw_os_error());
            let _ = tell.send(errno);
        }
        let _ = stated.send(fs::metadata(run.join("healthy")).is_ok_and(|meta| meta.is_dir()));
    });
    let until = Instant::now() + Duration::from_secs(30);
    let left = || until.saturating_duration_since(Instant::now());
    let errors = (0..DAMAGED).map_while(|_| read.recv_timeout(left()).ok()).collect();
    (errors, healthy.recv_timeout(left()).unwrap_or(false))
}

/// How it ends by itself, within its time.
fn ends(mut mount: Child, at: &Path) -> Option<ExitStatus> {
    kill_process(Pid::from_raw(mount.id() as i32).expect("a pid"), Signal::TERM).expect("a signal");
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        if let Some(status) = mount.try_wait().expect("a child") {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(10));
    }
    mount.kill().and_then(|()| mount.wait()).expect("a child");
    detach(at);
    None
}

#[test]
fn nobody_waits_for_a_log_that_nobody_reads() {
    let site = with_damaged_files();
    let (mount, unread) = with_a_small_pipe(&site);
    let (errors, healthy) = look(&site.at);
    let ended = ends(mount, &site.at);
    drop(unread);
    assert_eq!(errors, vec![Some(libc::EIO); DAMAGED], "files");
    assert!(healthy, "a healthy directory");
    assert!(ended.is_some_and(|status| status.success()), "the end: {ended:?}");
}

#[test]
fn a_log_that_is_read_late_lacks_nothing() {
    let site = with_damaged_files();
    let (mount, mut unread) = with_a_small_pipe(&site);
    let (errors, healthy) = look(&site.at);
    let reading = thread::spawn(move || {
        let mut text = String::new();
        unread.read_to_string(&mut text).map(|_| text)
    });
    let ended = ends(mount, &site.at);
    let text = reading.join().expect("a reader").expect("text");
    assert_eq!((errors, healthy), (vec![Some(libc::EIO); DAMAGED], true));
    assert!(ended.is_some_and(|status| status.success()), "the end: {ended:?}");
    let damaged = text.lines().filter(|line| line.contains(" warn ") && line.contains("runs/")).count();
    assert!(damaged >= DAMAGED, "{text}");
    assert!(text.lines().last().is_some_and(|line| line.ends_with("everything is durable")), "{text}");
}
