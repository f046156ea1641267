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

/// Names of the cases that were skipped; panics if one failed.
fn pjdfstest(config: &Path, on: &Path) -> BTreeSet<String> {
    std::fs::create_dir_all(on).expect("a directory");
    let done = output(
        Command::new(tool("bin/pjdfstest")).arg("-c").arg(config).args(["-s", "/dev/shm", "-p"]).arg(on),
    );
    let text = printed(&done);
    assert!(done.status.success(), "{text}");
    text.lines().filter(|l| l.to_lowercase().contains("skipped")).map(|l| l.trim().to_owned()).collect()
}

/// Nothing fails, and nothing is skipped that runs on the plain directory beside the store.
pub fn on(site: &Site) {
    let config = site.dir().join("pjdfstest.toml");
    std::fs::write(&config, CONFIG).expect("a configuration");
    let plain = pjdfstest(&config, &site.dir().join("plain"));
    let mount = site.builder().arg("--allow-other").mount();
    let ours = pjdfstest(&config, &mount.path("run/t"));
    let more: Vec<_> = ours.difference(&plain).collect();
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
