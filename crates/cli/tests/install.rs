//! `scripts/install`: what it puts where, that it may be run again, and that it takes all of it away.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::Scratch;

fn install(scratch: &Scratch, args: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install");
    // Relative paths are the caller's.
    Command::new(script).args(args).current_dir(scratch.path("")).output().expect("the script runs")
}

/// Paths below a folder, with their modes; links by where they lead.
fn files(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            let meta = path.symlink_metadata().expect("its mode");
            if meta.is_dir() {
                folders.push(path);
                continue;
            }
            let what = std::fs::read_link(&path).map_or_else(
                |_| format!("{:o}", meta.permissions().mode() & 0o7777),
                |target| target.to_string_lossy().into_owned(),
            );
            found.insert(path.strip_prefix(folder).expect("below it").to_owned(), what);
        }
    }
    found
}

#[test]
fn program_helpers_pages_and_completions_come_and_go() {
    let scratch = Scratch::new();
    let prefix = scratch.folder("a prefix");
    scratch.secret("a prefix/other", "stays");
    let program = env!("CARGO_BIN_EXE_runvault");
    for _ in 0..2 {
        let done = install(&scratch, &["--program", program, "a prefix"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let there = files(&prefix);
        let binary = prefix.join("bin/runvault").to_string_lossy().into_owned();
        for (path, what) in [
            ("bin/runvault", "755"),
            ("sbin/mount.runvault", &binary),
            ("sbin/mount.fuse.runvault", &binary),
            ("share/man/man1/runvault.1", "644"),
            ("share/man/man1/runvault-mount.1", "644"),
            ("share/man/man1/runvault-custody-rotate.1", "644"),
            ("share/bash-completion/completions/runvault", "644"),
            ("share/zsh/site-functions/_runvault", "644"),
            ("share/fish/vendor_completions.d/runvault.fish", "644"),
        ] {
            assert_eq!(there.get(Path::new(path)).map(String::as_str), Some(what), "{path}: {there:?}");
            assert!(std::fs::metadata(prefix.join(path)).expect("not dangling").len() > 100, "{path}");
        }
    }
    let installed = Command::new(prefix.join("bin/runvault")).arg("--version").output().expect("it runs");
    assert!(String::from_utf8_lossy(&installed.stdout).starts_with("runvault "));
    // Called by that name it speaks as mount(8) expects of its helpers.
    let helper = Command::new(prefix.join("sbin/mount.runvault")).output().expect("it runs");
    assert_eq!(helper.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&helper.stderr).contains("mount.runvault"), "{helper:?}");
    let done = install(&scratch, &["--remove", "a prefix"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(files(&prefix).into_keys().collect::<Vec<_>>(), [Path::new("other")]);
}

#[test]
fn a_helper_of_another_installation_stays() {
    let scratch = Scratch::new();
    let prefix = scratch.folder("prefix");
    scratch.folder("prefix/sbin");
    let link = prefix.join("sbin/mount.runvault");
    std::os::unix::fs::symlink("/opt/other/bin/runvault", &link).expect("a link");
    assert!(install(&scratch, &["--remove", "prefix"]).status.success());
    assert!(link.symlink_metadata().is_ok());
    for wrong in [&["--frobnicate"][..], &["one", "two"], &["--remove", "one", "two"]] {
        let refused = install(&scratch, wrong);
        assert_eq!(refused.status.code(), Some(2), "{wrong:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("--program FILE"), "{refused:?}");
    }
}
