//! The names that a mount keeps for the kernel are bounded, and using them goes on.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use runvault_tests::tools::leave_out;
use runvault_tests::{Mount, Site};

const FILES: usize = 20_000;
const LIMIT: u64 = 1_000;

fn known(site: &Site, mount: &Mount) -> u64 {
    let status = site.status(&mount.at);
    status["known_nodes"].as_u64().unwrap_or_else(|| panic!("{status}"))
}

/// Whether the kernel can be asked for it: Linux 6.18.
fn can_be_asked() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 18) {
        leave_out("Linux before 6.18 cannot be asked to forget");
    }
    version >= (6, 18)
}

#[test]
fn the_kernel_is_asked_to_forget_what_nothing_uses() {
    if !can_be_asked() {
        return;
    }
    let site = Site::in_memory();
    let mount = site.builder().arg("--max-nodes").arg(LIMIT.to_string()).mount();
    let name = |n: usize| mount.path(format!("run/{n:05}"));
    fs::create_dir(mount.path("run")).expect("a run");
    fs::create_dir(mount.path("run/held")).expect("a directory");
    let numbers: Vec<u64> =
        (0..FILES).map(|n| File::create(name(n)).and_then(|f| f.metadata()).expect("a file").ino()).collect();
    let (file, directory) =
        (File::open(name(7)).expect("open"), File::open(mount.path("run/held")).expect("open"));
    let begin = Instant::now();
    while known(&site, &mount) > LIMIT {
        assert!(begin.elapsed() < Duration::from_secs(30), "{} nodes", known(&site, &mount));
        std::thread::sleep(Duration::from_millis(200));
    }
    for (n, number) in numbers.iter().enumerate() {
        assert_eq!(fs::metadata(name(n)).expect("stat").ino(), *number, "{n}");
    }
    for (open, path) in [(&file, name(7)), (&directory, mount.path("run/held"))] {
        // A dentry that was dropped in use would be shown as deleted.
        let shown = fs::read_link(format!("/proc/self/fd/{}", open.as_raw_fd())).expect("a link");
        assert_eq!(shown, path);
    }
    drop((file, directory));
    mount.unmount();
}
