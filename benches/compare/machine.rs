//! What the numbers were measured on.

use std::fs;
use std::path::Path;

/// Empties the kernel's caches; false without root.
pub(crate) fn drop_caches() -> bool {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

/// Processor, cores, memory and kernel, in a line.
pub(crate) fn describe() -> String {
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let memory = field("/proc/meminfo", "MemTotal").and_then(|kib| kilobytes(&kib)).unwrap_or(0) >> 30;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{processor}, {cores} cores, {memory} GiB, Linux {}", kernel.trim())
}

/// The type of the file system that holds `path`.
pub(crate) fn file_system(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut best = (0, "?");
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        if let (Some(at), Some(kind)) = (words.next(), words.next())
            && path.starts_with(at)
            && at.len() >= best.0
        {
            best = (at.len(), kind);
        }
    }
    best.1.to_owned()
}

/// A field of /proc/PID/status, in bytes.
pub(crate) fn process_memory(pid: u32, name: &str) -> Option<u64> {
    kilobytes(&field(&format!("/proc/{pid}/status"), name)?)
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|n| n.trim() == name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn kilobytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        let (now, peak) =
            (process_memory(std::process::id(), "VmRSS"), process_memory(std::process::id(), "VmHWM"));
        assert!(now.unwrap() > 1 << 16 && peak >= now);
    }

    #[test]
    fn proc_is_proc() {
        assert_eq!(file_system(Path::new("/proc/self")), "proc");
    }
}
