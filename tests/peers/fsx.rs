//! `fsx`: 20,000 random operations on one file against its own model, in three configurations.

use std::ops::RangeInclusive;
use std::process::Command;

use runvault_tests::tools::{run, tool};
use runvault_tests::{Mount, Site};

const OPERATIONS: &str = "20000";

pub const PLAIN: &str = "[weights]\nclose_open=1\nread=10\nwrite=10\ninvalidate=0\ntruncate=5\nfsync=1\nfdatasync=1\nmapread=0\nmapwrite=0\n";
pub const MMAP: &str = "[weights]\nclose_open=1\nread=10\nwrite=10\ninvalidate=0\ntruncate=5\nfsync=1\nfdatasync=1\nmapread=10\nmapwrite=10\n";
pub const EVERYTHING: &str = "[weights]\nclose_open=1\nread=10\nwrite=10\ninvalidate=0\ntruncate=5\nfsync=1\nfdatasync=1\nmapread=10\nmapwrite=10\nposix_fallocate=3\npunch_hole=3\nsendfile=3\ncopy_file_range=3\n";

pub fn fsx(site: &Site, mount: &Mount, name: &str, weights: &str, seeds: RangeInclusive<u32>) {
    let config = site.dir().join(format!("{name}.toml"));
    std::fs::write(&config, weights).expect("a configuration");
    for seed in seeds {
        let file = mount.path(format!("{name}-{seed}"));
        run(Command::new(tool("bin/fsx"))
            .args(["-N", OPERATIONS, "-S", &seed.to_string(), "-f"])
            .arg(&config)
            .arg("-P")
            .arg(site.dir())
            .arg(file));
    }
}

/// In memory, where a sync costs nothing; `filesystems` has it on disks.
fn on_a_mount(name: &str, weights: &str) {
    let site = Site::in_memory();
    let mount = site.mount();
    fsx(&site, &mount, name, weights, 1..=5);
    mount.unmount();
}

#[test]
fn fsx_plain() {
    on_a_mount("plain", PLAIN);
}

#[test]
fn fsx_mmap() {
    on_a_mount("mmap", MMAP);
}

#[test]
fn fsx_everything() {
    on_a_mount("everything", EVERYTHING);
}
