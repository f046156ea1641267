//! `stress-ng`'s file system stressors, those that pass on the plain directory.

use std::path::Path;
use std::process::Command;

use runvault_tests::Site;
use runvault_tests::tools::output;

const STRESSORS: [&str; 22] = [
    "access",
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dup",
    "fallocate",
    "fiemap",
    "flock",
    "fstat",
    "getdent",
    "hdd",
    "io",
    "link",
    "locka",
    "lockf",
    "metamix",
    "rename",
    "seek",
    "symlink",
    "xattr",
];

fn passes(stressor: &str, on: &Path, seconds: u64) -> Result<(), String> {
    let done = output(
        Command::new("stress-ng")
            .args([&format!("--{stressor}"), "2", "--timeout", &format!("{seconds}s"), "--temp-path"])
            .arg(on)
            .args([
                "--verify",
                "--oomable",
                "--hdd-bytes",
                "64M",
                "--fallocate-bytes",
                "64M",
                "--copy-file-bytes",
                "64M",
            ]),
    );
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    if done.status.success() { Ok(()) } else { Err(format!("{stressor}: {}\n{text}", done.status)) }
}

#[test]
fn stressors_that_pass_on_the_plain_directory() {
    let site = Site::new();
    let mount = site.mount();
    let (plain, run) = (site.dir().join("plain"), mount.path("run"));
    for dir in [&plain, &run] {
        std::fs::create_dir(dir).expect("a directory");
    }
    // 60 s on the mount in all.
    let seconds = std::env::var("RUNVAULT_SOAK_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60u64);
    let each = (seconds / STRESSORS.len() as u64).max(2);
    let mut failed = Vec::new();
    for stressor in STRESSORS {
        if let Err(text) = passes(stressor, &run, each) {
            match passes(stressor, &plain, each) {
                Ok(()) => failed.push(text),
                Err(_) => println!("{stressor} fails on the plain directory too"),
            }
        }
    }
    assert!(failed.is_empty(), "{}\n{}", failed.join("\n"), mount.log());
    mount.unmount();
}
