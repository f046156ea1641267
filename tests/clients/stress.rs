//! `stress-ng`'s file system stressors, those that pass on the plain directory.

use std::path::Path;
use std::process::Command;

use runvault_tests::Site;
use runvault_tests::tools::{output, printed};

/// Its class `filesystem`, without those that need no directory, and verity, which FUSE has no call for; chattr
/// and inode-flags want chattr(1)'s flags, which are not taken (docs/operations.md); io-uring asks for a file that it has
/// removed.
const STRESSORS: [&str; 45] = [
    "access",
    "aio",
    "chdir",
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "dnotify",
    "dup",
    "fallocate",
    "fanotify",
    "fcntl",
    "fiemap",
    "file-ioctl",
    "filename",
    "flock",
    "fpunch",
    "fsize",
    "fstat",
    "getdent",
    "handle",
    "hdd",
    "inotify",
    "io",
    "iomix",
    "lease",
    "link",
    "locka",
    "lockf",
    "lockofd",
    "mknod",
    "open",
    "readahead",
    "rename",
    "revio",
    "seek",
    "sendfile",
    "symlink",
    "sync-file",
    "touch",
    "utime",
    "xattr",
];

/// Stressors that a machine's own file system may fail.
const LEFT_OUT_AT_MOST: usize = 3;

fn passes(stressor: &str, on: &Path, seconds: u64) -> Result<(), String> {
    let done = output(
        Command::new("stress-ng")
            .args([&format!("--{stressor}"), "2", "--timeout", &format!("{seconds}s"), "--temp-path"])
            .arg(on)
            .args(["--verify", "--oomable", "--hdd-bytes", "64M", "--fallocate-bytes", "64M"])
            .args(["--copy-file-bytes", "128M", "--iomix-bytes", "64M", "--revio-bytes", "64M"])
            .args(["--readahead-bytes", "64M", "--sync-file-bytes", "64M", "--dirmany-bytes", "64K"]),
    );
    if done.status.success() {
        Ok(())
    } else {
        Err(format!("{stressor}: {}\n{}", done.status, printed(&done)))
    }
}

#[test]
fn stressors_that_pass_on_the_plain_directory() {
    let site = Site::new();
    let mount = site.mount();
    let (plain, run) = (site.dir().join("plain"), mount.path("run"));
    for dir in [&plain, &run] {
        std::fs::create_dir(dir).expect("a directory");
    }
    // 60 s on the mount in all, of which each has a second or two.
    let seconds = std::env::var("RUNVAULT_SOAK_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60u64);
    let until = |n: usize| seconds * n as u64 / STRESSORS.len() as u64;
    let (mut failed, mut left_out) = (Vec::new(), Vec::new());
    for (n, stressor) in STRESSORS.into_iter().enumerate() {
        let each = (until(n + 1) - until(n)).max(1);
        if let Err(here) = passes(stressor, &run, each) {
            match passes(stressor, &plain, each) {
                Ok(()) => failed.push(here),
                Err(there) => left_out.push(there),
            }
        }
    }
    println!("on the plain directory fails too: {}", left_out.join("\n"));
    assert!(failed.is_empty(), "{}\n{}", failed.join("\n"), mount.log());
    assert!(left_out.len() <= LEFT_OUT_AT_MOST, "stress-ng itself fails: {}", left_out.join("\n"));
    mount.unmount();
}
