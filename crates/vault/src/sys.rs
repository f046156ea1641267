//! What the engine asks of the machine: clocks, and who this process is.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use runvault_crypto::digest::sha256;
use runvault_format::ids::Digest;
use rustix::time::{ClockId, clock_gettime};

/// Time since boot, suspends counted (CLOCK_BOOTTIME).
pub(crate) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// RFC 3339 in UTC.
pub(crate) fn utc_now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    runvault_format::time::text(since.as_secs())
}

/// A process of a machine, as a lease tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Hash of the machine's id.
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
            host: Digest(sha256(&[b"runvault/1 host\0", machine.trim().as_bytes()])),
            boot: Some(text("/proc/sys/kernel/random/boot_id").trim().to_owned())
                .filter(|boot| !boot.is_empty())
                .unwrap_or_else(|| "unknown".to_owned()),
            pid,
            start: start_of(pid).unwrap_or(0),
        }
    }

    /// Whether this process, seen from `here` on the same machine, has certainly ended.
    pub(crate) fn has_ended(&self, here: &Process) -> bool {
        self.host == here.host && (self.boot != here.boot || start_of(self.pid) != Some(self.start))
    }
}

/// Field 22 of `/proc/<pid>/stat`; the name in field 2 may contain anything.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
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
    }
}
