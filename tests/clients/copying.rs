//! `rsync -aHAX` there and back, and many writers and readers at once.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use runvault_tests::Site;
use runvault_tests::snapshot::{assert_same, snapshot};
use runvault_tests::tools::{is_root, run};

fn a_tree(at: &Path) {
    fs::create_dir_all(at.join("Data/L001/C1.1")).expect("directories");
    for n in 0..200usize {
        let bytes: Vec<u8> = (0..n * 613).map(|i| (i * n % 251) as u8).collect();
        fs::write(at.join(format!("Data/L001/C1.1/s_1_{n}.bcl")), bytes).expect("a file");
    }
    symlink("L001/C1.1", at.join("Data/link")).expect("a link");
    fs::hard_link(at.join("Data/L001/C1.1/s_1_7.bcl"), at.join("second-name")).expect("a second name");
    let file = at.join("Data/L001/C1.1/s_1_8.bcl");
    rustix::fs::setxattr(&file, "user.note", b"value", rustix::fs::XattrFlags::empty())
        .expect("an attribute");
    if is_root() {
        run(Command::new("setfacl").args(["-m", "u:daemon:r"]).arg(&file));
        run(Command::new("chown").arg("daemon:daemon").arg(at.join("Data/L001/C1.1/s_1_9.bcl")));
    }
}

fn rsync(from: &Path, to: &Path) {
    let mut source = from.as_os_str().to_owned();
    source.push("/");
    run(Command::new("rsync").args(["-aHAX", "--numeric-ids"]).arg(source).arg(to));
}

#[test]
fn rsync_there_and_back() {
    let site = Site::new();
    let (plain, back) = (site.dir().join("plain"), site.dir().join("back"));
    fs::create_dir(&plain).expect("a directory");
    a_tree(&plain);
    let mount = site.mount();
    rsync(&plain, &mount.path("run"));
    assert_same(&snapshot(&plain, true), &snapshot(&mount.path("run"), true), "on the mount");
    mount.unmount();
    let again = site.mount();
    rsync(&again.path("run"), &back);
    assert_same(&snapshot(&plain, true), &snapshot(&back, true), "back again");
    // Nothing is left to do: sizes and times are as rsync compares them.
    let mut source = plain.as_os_str().to_owned();
    source.push("/");
    let todo =
        run(Command::new("rsync").args(["-aHAXni", "--numeric-ids"]).arg(source).arg(again.path("run")));
    assert!(todo.stdout.is_empty(), "{}", String::from_utf8_lossy(&todo.stdout));
    if is_root() {
        let acl = run(Command::new("getfacl").arg(back.join("Data/L001/C1.1/s_1_8.bcl")));
        assert!(String::from_utf8_lossy(&acl.stdout).contains("user:daemon:r--"));
    }
    again.unmount();
}

/// Each writer's file holds blocks that name writer, block and version, so that a reader can tell
/// an old block from a new one, and either from garbage.
#[test]
fn four_writers_and_four_readers() {
    const BLOCK: usize = 4096;
    const BLOCKS: u64 = 64;
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    let block = |writer: u64, n: u64, version: u64| -> Vec<u8> {
        let seed = writer.wrapping_mul(31).wrapping_add(n).wrapping_mul(1_000_003).wrapping_add(version);
        let mut bytes = Vec::with_capacity(BLOCK);
        bytes.extend_from_slice(&writer.to_le_bytes());
        bytes.extend_from_slice(&n.to_le_bytes());
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend((24..BLOCK).map(|i| (seed.wrapping_mul(i as u64 | 1) >> 7) as u8));
        bytes
    };
    for writer in 0..4 {
        let all: Vec<u8> = (0..BLOCKS).flat_map(|n| block(writer, n, 0)).collect();
        fs::write(mount.path(format!("run/{writer}")), all).expect("a file");
    }
    let seconds = std::env::var("RUNVAULT_SOAK_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let end = Instant::now() + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        for worker in 0..4u64 {
            let path = mount.path(format!("run/{worker}"));
            let block = &block;
            scope.spawn({
                let path = path.clone();
                move || {
                    let file = fs::OpenOptions::new().write(true).open(path).expect("open");
                    let mut version = 1;
                    while Instant::now() < end {
                        let n = version * 17 % BLOCKS;
                        let bytes = block(worker, n, version);
                        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, n * BLOCK as u64)
                            .expect("write");
                        if version % 50 == 0 {
                            file.sync_data().expect("sync");
                        }
                        version += 1;
                    }
                }
            });
            scope.spawn(move || {
                let file = fs::File::open(path).expect("open");
                let mut n = 0;
                let mut bytes = vec![0u8; BLOCK];
                while Instant::now() < end {
                    n = (n + 13) % BLOCKS;
                    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, n * BLOCK as u64)
                        .expect("read");
                    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
                    assert_eq!((word(0), word(8)), (worker, n));
                    assert!(bytes == block(worker, n, word(16)), "block {n} of writer {worker} is garbage");
                }
            });
        }
    });
    mount.unmount();
}
