//! Events reach the journal and syslog: by the sockets of a machine whose services are this test.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use runvault_tests::Site;
use runvault_tests::tools::{root_for, run, runvault};

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
