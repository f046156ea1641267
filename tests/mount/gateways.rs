//! Two machines mount one store at the same time. Here each is a state folder.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use runvault_tests::Site;
use runvault_tests::tools::{printed, run, runvault};

/// Reads a file as soon as it is there: a mount looks for new runs every few seconds.
fn read_soon(path: &Path) -> Vec<u8> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match fs::read(path) {
            Ok(bytes) => return bytes,
            Err(e) => assert!(Instant::now() < until, "{}: {e}", path.display()),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The folder that shows the other's files outside any run.
fn loose_of_the_other(at: &Path) -> String {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let names = fs::read_dir(at).expect("a mount").flatten().map(|entry| entry.file_name());
        if let Some(found) = names.filter_map(|n| n.into_string().ok()).find(|n| n.starts_with("loose~")) {
            return found;
        }
        assert!(Instant::now() < until, "no folder of the other's files");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn two_machines_write_runs_and_files_beside_each_other() {
    let site = Site::new();
    let one = site.mount();
    fs::write(one.path("Thumbs.db"), b"of one").expect("a file outside any run");
    let second = site.dir().join("second");
    let two = site.builder().state(&site.dir().join("state-2")).at(&second).mount();
    for (mount, name) in [(&one, "one"), (&two, "two")] {
        fs::create_dir(mount.path(name)).expect("a run");
        fs::write(mount.path(name).join("file"), name).expect("a file");
        fs::write(mount.path("Thumbs.db"), format!("of {name}")).expect("a file outside any run");
        fs::write(mount.path(format!("probe {name}")), name).expect("another");
    }
    for (mount, other) in [(&one, "two"), (&two, "one")] {
        let loose = loose_of_the_other(&mount.at);
        assert_eq!(read_soon(&mount.path(other).join("file")), other.as_bytes());
        assert_eq!(read_soon(&mount.path(&loose).join("Thumbs.db")), format!("of {other}").as_bytes());
        assert_eq!(read_soon(&mount.path(&loose).join(format!("probe {other}"))), other.as_bytes());
        for path in [mount.path(other).join("new"), mount.path(&loose).join("new")] {
            let refused = fs::write(path, b"x").expect_err("the other's");
            assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
        }
        assert!(mount.log().contains("is read-only here: gateway"), "{}", mount.log());
    }
    // What the other changes shows at once, not when the kernel has forgotten.
    assert_eq!(fs::metadata(two.path("one/file")).expect("stat").len(), 3);
    fs::write(one.path("one/file"), vec![1; 50_000]).expect("written anew");
    fs::remove_file(one.path("probe one")).expect("removed");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(fs::read(two.path("one/file")).expect("read"), vec![1; 50_000]);
    assert!(!two.path(loose_of_the_other(&two.at)).join("probe one").exists());
    one.unmount();
    // Nobody writes it now: its maker and the way out are named.
    let status = printed(&run(Command::new(runvault()).arg("status").arg(&two.at)));
    let of_one = status.lines().find(|line| line.contains("  one  ")).unwrap_or(&status);
    assert!(of_one.contains("gateway") && of_one.contains("runvault takeover"), "{status}");
    two.unmount();
}
