//! `pjdfstest`: 398 cases of POSIX semantics. Needs root.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use runvault_tests::Site;
use runvault_tests::tools::{is_root, output, printed, tool};

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
/// never runs here: [`assert_as_many_links`] is instead of it.
const OF_KNOWN_FILE_SYSTEMS: &str = "link::link_count_max";

/// Names of the cases that were skipped; panics if one failed.
fn pjdfstest(config: &Path, on: &Path) -> BTreeSet<String> {
    std::fs::create_dir_all(on).expect("a directory");
    let done = output(
        Command::new(tool("bin/pjdfstest")).arg("-c").arg(config).args(["-s", "/dev/shm", "-p"]).arg(on),
    );
    let text = printed(&done);
    assert!(done.status.success(), "{text}");
    text.lines().filter_map(|l| l.strip_suffix("skipped")).map(|name| name.trim().to_owned()).collect()
}

/// A file on the mount has as many links as one on the plain directory, then EMLINK.
fn assert_as_many_links(plain: &Path, ours: &Path) {
    let most = |dir: &Path| {
        let first = dir.join("links");
        std::fs::File::create(&first).expect("a file");
        for n in 1u32.. {
            if let Err(e) = std::fs::hard_link(&first, dir.join(format!("link-{n}"))) {
                assert_eq!(e.raw_os_error(), Some(libc::EMLINK), "{e}");
                return n;
            }
        }
        unreachable!("more links than numbers")
    };
    assert_eq!(most(ours), most(plain));
}

/// Nothing fails, and nothing is skipped that runs on the plain directory beside the store.
pub fn on(site: &Site) {
    let config = site.dir().join("pjdfstest.toml");
    std::fs::write(&config, CONFIG).expect("a configuration");
    let plain = pjdfstest(&config, &site.dir().join("plain"));
    let mount = site.builder().arg("--allow-other").mount();
    let ours = pjdfstest(&config, &mount.path("run/t"));
    let skipped = |set: &BTreeSet<String>| set.contains(OF_KNOWN_FILE_SYSTEMS);
    if skipped(&ours) && !skipped(&plain) {
        assert_as_many_links(&site.dir().join("plain"), &mount.path("run/t"));
    }
    let more: Vec<_> = ours.difference(&plain).filter(|name| *name != OF_KNOWN_FILE_SYSTEMS).collect();
    assert!(more.is_empty(), "skipped here, run on the plain directory: {more:#?}");
    mount.unmount();
}

#[test]
fn passes_what_the_plain_directory_passes() {
    if is_root() {
        on(&Site::new());
    } else {
        println!("left out: pjdfstest needs root");
    }
}
