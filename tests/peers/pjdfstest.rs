//! `pjdfstest`: 398 cases of POSIX semantics. Needs root.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use runvault_tests::Site;
use runvault_tests::tools::{output, printed, root_for, tool};
use tempfile::TempDir;

const CONFIG: &str = r#"[features]
posix_fallocate = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// glibc tells the most links of the file systems that it knows by number. FUSE is none of them, so that this case
/// never runs here: [`assert_most_links`] is instead of it.
const OF_KNOWN_FILE_SYSTEMS: &str = "link::link_count_max";

/// What did not pass.
#[derive(Debug)]
struct Outcome {
    failed: BTreeSet<String>,
    skipped: BTreeSet<String>,
    text: String,
}

fn pjdfstest(config: &Path, on: &Path) -> Outcome {
    std::fs::create_dir_all(on).expect("a directory");
    let other = another_file_system(on);
    let done = output(
        Command::new(tool("bin/pjdfstest"))
            .arg("-c")
            .arg(config)
            .arg("-s")
            .arg(other.path())
            .arg("-p")
            .arg(on),
    );
    let text = printed(&done);
    assert!(text.contains("398 total"), "{text}");
    let cases = |verdict: &str| {
        text.lines().filter_map(|l| l.strip_suffix(verdict)).map(|name| name.trim().to_owned()).collect()
    };
    Outcome { failed: cases(" FAILED"), skipped: cases(" skipped"), text }
}

/// A directory of its own on another one than `on`, for EXDEV.
fn another_file_system(on: &Path) -> TempDir {
    let device = |path: &Path| std::fs::metadata(path).expect("a directory").dev();
    let mut candidates = [PathBuf::from("/dev/shm"), std::env::temp_dir()].into_iter();
    let other = candidates.find(|path| device(path) != device(on)).expect("two file systems");
    TempDir::with_prefix_in("runvault-other-", other).expect("a temporary directory")
}

/// A file has as many names as the store's file system allows (`most`), then EMLINK. All but a few are given to the
/// store's file beside the store, which takes a second where the mount would take minutes.
fn assert_most_links(site: &Site, most: u32, run: &Path) {
    let (first, second) = (run.join("first"), run.join("second"));
    std::fs::write(&first, "bytes").expect("a file");
    std::fs::hard_link(&first, &second).expect("a second name");
    let stored = twice_named(&site.store).expect("a stored file of two names");
    let beside = site.dir().join("links");
    std::fs::create_dir(&beside).expect("a directory");
    for n in 3..most {
        std::fs::hard_link(&stored, beside.join(n.to_string())).expect("a name beside");
    }
    std::fs::hard_link(&first, run.join("last")).expect("the last name");
    let more = std::fs::hard_link(&first, run.join("one more")).expect_err("one more name");
    assert_eq!(more.raw_os_error(), Some(libc::EMLINK), "{more}");
}

fn twice_named(dir: &Path) -> Option<PathBuf> {
    std::fs::read_dir(dir).expect("a directory").find_map(|entry| {
        let path = entry.expect("an entry").path();
        let metadata = path.symlink_metadata().expect("metadata");
        if metadata.is_dir() { twice_named(&path) } else { (metadata.nlink() == 2).then_some(path) }
    })
}

/// What ext4 allows, the only file system here whose number glibc knows and pjdfstest tries.
const MOST_LINKS_OF_EXT4: u32 = 65_000;

/// What passes on the plain directory beside the store passes on the mount; where `all`, nothing fails on either.
pub fn on(site: &Site, all: bool) {
    let config = site.dir().join("pjdfstest.toml");
    std::fs::write(&config, CONFIG).expect("a configuration");
    let plain = pjdfstest(&config, &site.dir().join("plain"));
    let mount = site.builder().arg("--allow-other").mount();
    let ours = pjdfstest(&config, &mount.path("r/t"));
    assert!(!all || plain.failed.is_empty(), "on the plain directory: {:#?}\n{}", plain.failed, plain.text);
    let failed: Vec<_> = ours.failed.difference(&plain.failed).collect();
    assert!(failed.is_empty(), "{failed:#?}\n{}", ours.text);
    let skipped = |outcome: &Outcome| outcome.skipped.contains(OF_KNOWN_FILE_SYSTEMS);
    if skipped(&ours) && !skipped(&plain) {
        assert_most_links(site, MOST_LINKS_OF_EXT4, &mount.path("r"));
    }
    let more: Vec<_> =
        ours.skipped.difference(&plain.skipped).filter(|name| *name != OF_KNOWN_FILE_SYSTEMS).collect();
    assert!(more.is_empty(), "skipped here, run on the plain directory: {more:#?}");
    mount.unmount();
}

/// On the machine's own file system, where it is none of those of `filesystems`.
#[test]
fn passes_what_the_plain_directory_passes() {
    const EXT4: i64 = 0xEF53;
    let kind = rustix::fs::statfs(std::env::temp_dir().as_path()).expect("a file system").f_type;
    if kind != EXT4 && root_for("pjdfstest") {
        on(&Site::new(), true);
    }
}
