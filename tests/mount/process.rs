//! What the process of a mount is to its machine: its memory, its state folder, what it tells.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use runvault_tests::tools::{again_as, is_root, printed, root_for, run, runvault};
use runvault_tests::{Mount, Site};

fn of_process(mount: &Mount, file: &str) -> String {
    fs::read_to_string(format!("/proc/{}/{file}", mount.pid())).expect("a live process")
}

/// Of a line `name   number ...`.
fn number(text: &str, name: &str) -> u64 {
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{name}{line}"))
}

#[test]
fn keys_lie_in_memory_that_is_locked_and_in_no_core_image() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    let limits = of_process(&mount, "limits");
    assert_eq!(number(&limits, "Max core file size"), 0, "{limits}");
    assert!(number(&of_process(&mount, "status"), "VmLck:") > 0);
    if is_root() {
        let maps = of_process(&mount, "smaps");
        let mut flags = maps.lines().filter_map(|line| line.strip_prefix("VmFlags:"));
        let has = |flags: &str, flag: &str| flags.split_whitespace().any(|f| f == flag);
        // Locked, and not in core images.
        assert!(flags.any(|flags| has(flags, "lo") && has(flags, "dd")), "no such memory");
    } else {
        // proc(5): root's, where the process is not dumpable.
        let meta = fs::metadata(format!("/proc/{}/stat", mount.pid())).expect("a live process");
        assert_eq!(meta.uid(), 0, "the process can be dumped");
    }
    mount.unmount();
}

#[test]
fn a_users_mount_is_not_dumpable() {
    if root_for("becoming another user") {
        again_as(65534, 65534, "process::keys_lie_in_memory_that_is_locked_and_in_no_core_image");
    }
}

#[test]
fn a_mount_with_a_run_depth_has_its_runs_below_folders() {
    let site = Site::new();
    let mount = site.builder().arg("--run-depth").arg("2").mount();
    for name in ["NovaSeq/one", "NovaSeq/two", "MiSeq/one"] {
        fs::create_dir_all(mount.path(name)).expect("a run");
        fs::write(mount.path(name).join("file"), name).expect("a file");
    }
    let across = fs::rename(mount.path("NovaSeq/one/file"), mount.path("NovaSeq/two/new"));
    assert_eq!(across.expect_err("two runs").raw_os_error(), Some(libc::EXDEV));
    mount.unmount();
    // And one of this machine's own, for the folders outside any run.
    let runs = || fs::read_dir(site.store.join("runs")).expect("runs").count();
    assert_eq!(runs(), 3 + 1);

    let plain = site.dir().join("plain");
    fs::create_dir(&plain).expect("a directory");
    fs::write(plain.join("file"), "copied").expect("a file");
    let in_vault = format!("{}:/NovaSeq/three", site.store.display());
    run(site.command(&["cp", "-r", "--run-depth", "2"]).arg(&plain).arg(in_vault));
    assert_eq!(runs(), 4 + 1);
    let again = site.builder().arg("-o").arg("run-depth=2").mount();
    for (path, text) in
        [("NovaSeq/two", "NovaSeq/two"), ("MiSeq/one", "MiSeq/one"), ("NovaSeq/three", "copied")]
    {
        assert_eq!(fs::read_to_string(again.path(path).join("file")).expect("a file"), text);
    }
    again.unmount();
}

#[test]
fn status_says_when_something_was_synced_last() {
    let site = Site::new();
    let mount = site.mount();
    let status = || site.status(&mount.at);
    assert!(status()["last_sync_seconds"].is_null(), "{}", status());
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/file"), b"synced").expect("a file");
    fs::File::open(mount.path("run/file")).and_then(|file| file.sync_all()).expect("synced");
    assert!(status()["last_sync_seconds"].as_u64().is_some_and(|ago| ago < 60), "{}", status());
    mount.unmount();
}

/// Of a mount that is up, by its mount point, by its store, and of all there are.
#[test]
fn status_counts_what_went_through_a_mount() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/first"), [1; 1000]).expect("a file");
    let open = fs::File::create(mount.path("run/second")).expect("a file");
    std::io::Write::write_all(&mut &open, &[2; 234]).expect("written");
    assert_eq!(fs::read(mount.path("run/first")).expect("read").len(), 1000);
    for at in [&mount.at, &site.store] {
        let status = site.status(at);
        let number = |name: &str| status[name].as_u64().unwrap_or_else(|| panic!("{name}: {status}"));
        assert_eq!((number("files_written"), number("bytes_written")), (2, 1234), "{status}");
        assert!(number("bytes_read") >= 1000 && number("open_handles") == 1, "{status}");
        assert!(status["engine"]["bytes_per_second"].as_f64().is_some_and(|speed| speed > 1e6), "{status}");
        let space = rustix::fs::statvfs(&site.store).expect("statvfs");
        assert_eq!(status["space"]["bytes"].as_u64(), Some(space.f_blocks * space.f_frsize), "{status}");
        let runs = status["runs"].as_array().expect("runs");
        assert!(runs.iter().any(|run| run["name"] == "run" && run["writing"] == true), "{status}");
    }
    let all = printed(&run(&mut site.command(&["status", "--json"])));
    assert!(all.contains(mount.at.to_str().expect("UTF-8")), "{all}");
    drop(open);
    mount.unmount();
}

/// `cp` into a vault with no `--state` makes this machine a gateway, whose state then lies below `place`.
fn enrols_in(place: &Path, site: &Site, variables: &[(&str, &Path)]) {
    let script = r#"if [ "$(id -u)" = 0 ]; then mount -t tmpfs none /var/lib; fi
"$PROGRAM" cp --force --identity owner.key owner.key "$PWD/store:/file"; ls "$PLACE"/*/identity"#;
    // Root's place is the machine's own: it is hidden in a mount namespace.
    let mut command = Command::new(if is_root() { "unshare" } else { "env" });
    if is_root() {
        command.args(["--mount", "--propagation", "private"]);
    }
    command.args(["sh", "-ec", script]).current_dir(site.dir()).env_clear().env("PATH", "/usr/bin:/bin");
    command.env("PROGRAM", runvault()).env("PLACE", place);
    run(command.envs(variables.iter().copied()));
}

/// Root's place is the system's, a user's is in the home or where the desktop's standard says.
#[test]
fn without_an_option_the_state_has_its_usual_place() {
    let site = Site::new();
    if is_root() {
        return enrols_in(Path::new("/var/lib/runvault"), &site, &[]);
    }
    let home = site.dir().join("home");
    let xdg = site.dir().join("state of the desktop");
    enrols_in(&home.join(".local/state/runvault"), &site, &[("HOME", &home)]);
    enrols_in(&xdg.join("runvault"), &site, &[("HOME", &home), ("XDG_STATE_HOME", &xdg)]);
}

#[test]
fn without_an_option_a_users_state_has_its_usual_place() {
    if root_for("becoming another user") {
        again_as(65534, 65534, "process::without_an_option_the_state_has_its_usual_place");
    }
}
