//! Mounts as a service manager and mount(8) ask for them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use runvault_tests::Site;
use runvault_tests::site::{detach, is_mounted};
use runvault_tests::tools::{output, printed, root_for, run, runvault};

/// A passphrase that raises no warning.
const PASSPHRASE: &str = "outlet gravel sublime tanker veneer mossy pelican";

fn secret(path: &Path, text: &str) {
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode");
}

#[test]
fn systemd_is_told_when_the_mount_answers_and_when_it_ends() {
    let site = Site::new();
    let name = site.dir().join("notify");
    let socket = UnixDatagram::bind(&name).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time");
    let heard = |word: &str| {
        let mut bytes = [0; 4096];
        let n = socket.recv(&mut bytes).unwrap_or_else(|e| panic!("waiting for {word}: {e}"));
        let said = String::from_utf8_lossy(&bytes[..n]).into_owned();
        assert!(said.lines().any(|line| line == word), "{said}");
    };
    let mount = site.builder().env("NOTIFY_SOCKET", &name).mount();
    heard("READY=1");
    fs::create_dir(mount.path("run")).expect("it answers");
    mount.unmount();
    heard("STOPPING=1");
}

#[test]
fn a_credential_opens_the_owners_key() {
    let site = Site::uninitialised(&std::env::temp_dir());
    let credentials = site.dir().join("credentials");
    fs::create_dir(&credentials).expect("a directory");
    let file = credentials.join("runvault.passphrase");
    secret(&file, &format!("{PASSPHRASE}\n"));
    run(Command::new(runvault()).arg("init").arg(&site.store).arg("--passphrase-file").arg(&file));
    let mount = |folder: &Path| {
        let mut command = Command::new(runvault());
        command.args(["mount", "--log", "stderr", "--state"]).arg(&site.state).arg(&site.store);
        output(command.arg(&site.at).env("CREDENTIALS_DIRECTORY", folder))
    };
    let done = mount(&credentials);
    let mounted = is_mounted(&site.at);
    let unmounted = output(Command::new(runvault()).arg("unmount").arg(&site.at));
    assert!(done.status.success() && mounted, "{}", printed(&done));
    assert!(unmounted.status.success(), "{}", printed(&unmounted));
    secret(&file, "another seven words that nobody guesses xylophone");
    let refused = mount(&credentials);
    assert_eq!(refused.status.code(), Some(3), "{}", printed(&refused));
    assert!(!is_mounted(&site.at));
}

/// The program under the name by which mount(8) looks for it.
fn helper(site: &Site, name: &str) -> PathBuf {
    let link = site.dir().join(name);
    symlink(runvault(), &link).expect("a link");
    link
}

fn options(site: &Site, more: &str) -> String {
    format!("{more}identity={},state={}", site.identity.display(), site.state.display())
}

fn work_and_unmount(site: &Site, mounted: &Output) {
    assert!(mounted.status.success(), "{}", printed(mounted));
    fs::create_dir_all(site.at.join("run")).expect("a run");
    run(Command::new(runvault()).arg("unmount").arg(&site.at));
}

#[test]
fn the_helper_mounts_by_either_name() {
    for name in ["mount.runvault", "mount.fuse.runvault"] {
        let site = Site::new();
        let mut command = Command::new(helper(&site, name));
        command.arg(&site.store).arg(&site.at).arg("-o").arg(options(&site, "rw,noatime,_netdev,"));
        work_and_unmount(&site, &output(&mut command));
    }
}

#[test]
fn the_helper_refuses_unknown_options_and_tolerates_them_with_s() {
    let site = Site::new();
    let helper = helper(&site, "mount.runvault");
    let call = |args: &[&str], wish: &str| {
        let mut command = Command::new(&helper);
        output(command.arg(&site.store).arg(&site.at).args(args).arg("-o").arg(options(&site, wish)))
    };
    let refused = call(&[], "frobnicate,");
    assert_eq!(refused.status.code(), Some(2), "{}", printed(&refused));
    assert!(printed(&refused).contains("frobnicate"));
    assert!(!is_mounted(&site.at));
    let fake = call(&["-f"], "");
    assert!(fake.status.success() && !is_mounted(&site.at), "{}", printed(&fake));
    work_and_unmount(&site, &call(&["-s", "-n"], "frobnicate,"));
    let reader = call(&["-r"], "open,");
    let refused = fs::write(site.at.join("run/x"), b"x");
    run(Command::new(runvault()).arg("unmount").arg(&site.at));
    assert!(reader.status.success(), "{}", printed(&reader));
    assert_eq!(refused.expect_err("read-only").raw_os_error(), Some(libc::EROFS));
}

#[test]
fn mount_8_finds_the_helper_as_mount_t() {
    // In a mount namespace of its own: the name in /sbin goes with it.
    if !root_for("mount(8)") {
        return;
    }
    let site = Site::new();
    let script = r#"set -e
mkdir "$DIR/sbin" && cp -a /sbin/. "$DIR/sbin/"
mount --bind "$DIR/sbin" "$(readlink -f /sbin)"
mkdir -p "$DIR/mnt"
for type in runvault fuse.runvault; do
    ln -sf "$PROGRAM" "$DIR/sbin/mount.$type"
    mount -t "$type" -o "$OPTIONS" "$DIR/store" "$DIR/mnt"
    mkdir -p "$DIR/mnt/run" && echo written >> "$DIR/mnt/run/file"
    "$PROGRAM" unmount "$DIR/mnt"
done"#;
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", script]);
    command.env("DIR", site.dir()).env("PROGRAM", runvault()).env("OPTIONS", options(&site, ""));
    run(&mut command);
    let cat = run(site.command(&["cat"]).arg(&site.store).arg("run/file"));
    assert_eq!(cat.stdout, b"written\nwritten\n");
    detach(&site.at);
}

/// In the background no child of ours tells that it ended: only `unmount` itself waits for that.
#[test]
fn unmount_returns_when_the_process_has_gone() {
    let site = Site::new();
    for _ in 0..10 {
        run(site.command(&["mount", "--log", "stderr"]).arg(&site.store).arg(&site.at));
        let status = site.status(&site.at);
        // One that has ended may wait for its parent as a zombie.
        let runs = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", status["pid"])).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
        };
        assert!(runs(), "{status}");
        let unmounted = output(Command::new(runvault()).arg("unmount").arg(&site.at));
        assert!(!runs(), "{}", printed(&unmounted));
        assert!(unmounted.status.success(), "{}", printed(&unmounted));
    }
}

/// Who does not trust what the store says of owners and modes says it here.
#[test]
fn a_readers_mount_shows_the_owner_and_the_mode_that_it_was_told() {
    use std::os::unix::fs::MetadataExt;
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/file"), b"x").expect("a file");
    fs::set_permissions(mount.path("run/file"), fs::Permissions::from_mode(0o666)).expect("chmod");
    mount.unmount();
    let mount = site.builder().arg("-o").arg("ro,open,uid=5,gid=6,umask=027").mount();
    for (path, mode) in [("run", 0o750), ("run/file", 0o640)] {
        let meta = fs::metadata(mount.path(path)).expect("metadata");
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (5, 6, mode), "{path}");
    }
    mount.unmount();
}

/// A lock file, or the pipe of a caller who waits for its end, must not live as long as the mount.
#[test]
fn a_mount_in_the_background_keeps_nothing_that_its_caller_had_open() {
    let site = Site::uninitialised(&std::env::temp_dir());
    let file = site.dir().join("passphrase");
    secret(&file, &format!("{PASSPHRASE}\n"));
    run(Command::new(runvault()).arg("init").arg(&site.store).arg("--passphrase-file").arg(&file));
    let lock = site.dir().join("lock");
    fs::write(&lock, b"").expect("a file");
    let script = "exec 7<\"$1\" 8>\"$2\"; shift 2; exec \"$@\" --passphrase-fd 7";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(&file).arg(&lock).arg(runvault());
    command.args(["mount", "--log", "stderr", "--state"]).arg(&site.state).arg(&site.store).arg(&site.at);
    let mounted = output(&mut command);
    assert!(mounted.status.success(), "{}", printed(&mounted));
    assert!(printed(&mounted).contains("--log stderr without -f"), "{}", printed(&mounted));
    let status = site.status(&site.at);
    let open: Vec<PathBuf> = fs::read_dir(format!("/proc/{}/fd", status["pid"]))
        .expect("a live process")
        .filter_map(|entry| fs::read_link(entry.expect("an entry").path()).ok())
        .collect();
    run(Command::new(runvault()).arg("unmount").arg(&site.at));
    assert!(open.contains(&"/dev/fuse".into()), "{open:?}");
    assert!(!open.contains(&lock) && !open.contains(&file), "{open:?}");
}

/// RLIMIT_FSIZE, as a service manager's LimitFSIZE: by default its signal ends the process.
#[test]
fn a_limit_of_file_size_fails_the_write_and_ends_no_mount() {
    let site = Site::new();
    let script = r#"ulimit -f 20000; exec "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(runvault()).args(["mount", "-o", &options(&site, "")]);
    run(command.arg(&site.store).arg(&site.at));
    let folder = site.at.join("run");
    fs::create_dir(&folder).expect("a run folder");
    let large = fs::write(folder.join("large"), vec![7; 24 << 20])
        .and_then(|()| fs::File::open(folder.join("large"))?.sync_all());
    let small = fs::write(folder.join("small"), b"small");
    let unmounted = output(Command::new(runvault()).arg("unmount").arg(&site.at));
    assert_eq!(large.map_err(|e| e.raw_os_error()), Err(Some(libc::EFBIG)));
    small.expect("it goes on");
    assert!(unmounted.status.success(), "{}", printed(&unmounted));
}

/// Stacked, the second would hide the first, and one `unmount` leave the other.
#[test]
fn of_two_mounts_at_once_one_is_refused() {
    for _ in 0..5 {
        let site = Site::new();
        let start = |option| {
            let mut command = Command::new(runvault());
            command.args(["mount", "-o", &options(&site, option)]).arg(&site.store).arg(&site.at);
            command.spawn().expect("the program starts")
        };
        let codes: Vec<_> = [start(""), start("ro,")]
            .into_iter()
            .map(|mut child| child.wait().expect("a child").code())
            .collect();
        let table = fs::read_to_string("/proc/self/mounts").expect("the table");
        let there = table.lines().filter(|line| line.split(' ').nth(1) == site.at.to_str()).count();
        run(Command::new(runvault()).arg("unmount").arg(&site.at));
        assert_eq!(there, 1, "{codes:?}");
        assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
        assert!(!is_mounted(&site.at));
    }
}
