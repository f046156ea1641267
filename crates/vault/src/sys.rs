//! What the engine asks of the machine: clocks, and who this process is.

use std::os::unix::fs::MetadataExt;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use runvault_crypto::digest::sha256;
use runvault_format::ids::Digest;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Time since boot, suspends counted (CLOCK_BOOTTIME).
pub(crate) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// How many of something are kept open although nobody uses them: `most`, and no more than one for each `part` descriptors
/// that this process may have.
pub(crate) fn kept_open(most: usize, part: usize) -> usize {
    static DESCRIPTORS: LazyLock<usize> = LazyLock::new(|| {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    most.min(*DESCRIPTORS / part)
}

/// RFC 3339 in UTC.
pub(crate) fn utc_now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    runvault_format::time::text(since.as_secs())
}

/// A process of a machine, as a lease tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Hash of the machine's id, and of the namespace in which `pid` counts: what another one holds is not seen.
    pub(crate) host: Digest,
    /// The kernel's id of this boot.
    pub(crate) boot: String,
    pub(crate) pid: u32,
    /// When it was started, in the kernel's ticks since boot.
    pub(crate) start: u64,
}

impl Process {
    /// This one.
    pub(crate) fn this() -> Self {
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        let machine = Some(text("/etc/machine-id"))
            .filter(|id| !id.trim().is_empty())
            .unwrap_or_else(|| text("/proc/sys/kernel/hostname"));
        let pid = std::process::id();
        Self {
            host: host(machine.trim(), pid_namespace()),
            boot: Some(text("/proc/sys/kernel/random/boot_id").trim().to_owned())
                .filter(|boot| !boot.is_empty())
                .unwrap_or_else(|| "unknown".to_owned()),
            pid,
            start: Stat::of(pid).map_or(0, |stat| stat.start),
        }
    }

    /// Whether this process, seen from `here` on the same machine, has certainly ended.
    pub(crate) fn has_ended(&self, here: &Process) -> bool {
        self.is_here_and(here, Stat::is_dead)
    }

    /// Whether it has ended, or its main thread is past its last call: other threads may still be in theirs.
    pub(crate) fn is_ending(&self, here: &Process) -> bool {
        self.is_here_and(here, |stat| stat.is_dead() || stat.is_exiting())
    }

    /// The command that it runs, as `/proc` shows it.
    pub(crate) fn command(&self) -> Option<String> {
        let words = std::fs::read(format!("/proc/{}/cmdline", self.pid)).ok()?;
        let text = String::from_utf8_lossy(&words).replace('\0', " ");
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn is_here_and(&self, here: &Process, gone: impl Fn(&Stat) -> bool) -> bool {
        self.host == here.host
            && (self.boot != here.boot
                || match Stat::of(self.pid) {
                    Some(stat) => stat.start != self.start || gone(&stat),
                    None => !exists(self.pid),
                })
    }
}

/// Whether there is such a process, also one that /proc does not show to this user.
fn exists(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(Errno::SRCH))
}

/// Inode number of this process's pid namespace; 0 where /proc does not tell.
fn pid_namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |namespace| namespace.ino())
}

fn host(machine: &str, namespace: u64) -> Digest {
    /// `PROC_PID_INIT_INO` of the kernel's proc_ns.h: the namespace of what runs in no container.
    const INITIAL: u64 = 0xEFFF_FFFC;
    let inner = if namespace == INITIAL { String::new() } else { format!("\0{namespace}") };
    Digest(sha256(&[b"runvault/1 host\0", machine.as_bytes(), inner.as_bytes()]))
}

/// Whether a process was killed and is on its way out, so that what it holds is soon free.
#[must_use]
pub fn is_on_its_way_out(pid: u32) -> bool {
    Stat::of(pid).is_some_and(|stat| stat.is_exiting()) || is_killed(pid)
}

/// Whether a SIGKILL waits for the process: it does from kill(2) on, until the last thread is gone.
fn is_killed(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let waiting = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let waiting = waiting.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
    waiting & 1 << (libc::SIGKILL - 1) != 0
}

/// What `/proc/<pid>/stat` tells: fields 3, 9, 20 and 22.
struct Stat {
    state: char,
    flags: u64,
    threads: u64,
    /// In the kernel's ticks since boot.
    start: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name in field 2 may contain anything.
    fn parse(text: &str) -> Option<Self> {
        let (_, after_name) = text.rsplit_once(')')?;
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            flags: number(6)?,
            threads: number(17)?,
            start: number(19)?,
        })
    }

    /// A main thread that has ended is shown as a zombie, too, while others still run.
    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }

    fn is_exiting(&self) -> bool {
        /// `PF_EXITING` of the kernel's sched.h.
        const EXITING: u64 = 4;
        matches!(self.state, 'Z' | 'X') || self.flags & EXITING != 0
    }
}

/// Whether this process may change owners. Asked for at every creation: it never changes.
pub(crate) fn is_root() -> bool {
    static ROOT: LazyLock<bool> = LazyLock::new(|| rustix::process::geteuid().is_root());
    *ROOT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_others_have_ended() {
        let here = Process::this();
        assert!(!here.has_ended(&here));
        assert!(Process { start: here.start + 1, ..here.clone() }.has_ended(&here));
        assert!(Process { boot: "another".into(), ..here.clone() }.has_ended(&here));
        assert!(!Process { host: Digest([0; 32]), boot: "another".into(), ..here.clone() }.has_ended(&here));
        assert!(!here.is_ending(&here) && here.command().is_some());
    }

    #[test]
    fn hosts_are_machines_and_their_containers() {
        let plain = Digest(sha256(&[b"runvault/1 host\0m"]));
        assert_eq!(host("m", 0xEFFF_FFFC), plain);
        let hosts = [plain, host("m", 0), host("m", 4_026_532_178), host("m", 4_026_532_179), host("n", 0)];
        assert_eq!(hosts.iter().map(|host| host.0).collect::<std::collections::HashSet<_>>().len(), 5);
        assert_ne!(pid_namespace(), 0);
        let here = Process::this();
        let container = Process { host: host("m", 4_026_532_178), pid: u32::MAX, ..here.clone() };
        assert!(!container.has_ended(&here) && !container.is_ending(&here));
        assert!(Process { pid: u32::MAX, ..here.clone() }.has_ended(&here));
    }

    #[test]
    fn a_process_that_nobody_has_waited_for_has_ended() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let here = Process::this();
        let process = Process { pid: child.id(), start: Stat::of(child.id()).unwrap().start, ..here.clone() };
        assert!(!process.has_ended(&here) && !is_on_its_way_out(child.id()));
        child.kill().unwrap();
        assert!(is_on_its_way_out(child.id()));
        let begin = std::time::Instant::now();
        while !process.has_ended(&here) && begin.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(process.has_ended(&here) && process.is_ending(&here));
        child.wait().unwrap();
    }

    #[test]
    fn an_ending_process_with_threads_has_not_ended() {
        let stat = |state, flags, threads| {
            let text = format!("7 (a) b) {state} 1 7 7 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 {threads} 0 99 0");
            let stat = Stat::parse(&text).unwrap();
            assert_eq!(stat.start, 99);
            (stat.is_dead(), stat.is_exiting())
        };
        assert_eq!(stat('S', 0x40_0100, 9), (false, false));
        assert_eq!(stat('D', 0x40_0104, 9), (false, true));
        assert_eq!(stat('Z', 0x40_0104, 9), (false, true));
        assert_eq!(stat('Z', 0x40_0104, 1), (true, true));
        assert!(Stat::parse("7 (a) S 1").is_none());
    }
}
