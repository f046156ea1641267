//! What ships for a machine's services: units, folders, the rotation of logs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use runvault_tests::Site;
use runvault_tests::tools::{leave_out, printed, root_for, run, runvault};

#[test]
fn the_gateways_unit_is_sound_and_confined() {
    if !is_there("systemd-analyze", "systemd") {
        return;
    }
    let text = fs::read_to_string(shipped("systemd/runvault-ingest@.service")).expect("the unit");
    let installed = "/usr/local/bin/runvault";
    assert!(text.contains(installed), "{text}");
    let dir = tempfile::tempdir().expect("a folder");
    let unit = dir.path().join("runvault-ingest@novaseq.service");
    // Verifying looks for the program.
    fs::write(&unit, text.replace(installed, runvault().to_str().expect("UTF-8"))).expect("a unit");
    let said = printed(&run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit)));
    assert!(!said.contains("novaseq"), "{said}");
    // Of 10; what mounts for others can have no mount namespace of its own.
    run(Command::new("systemd-analyze").args(["security", "--offline=yes", "--threshold=50"]).arg(&unit));
}

/// Without the mount no share, and with each start of the mount the share: `BindsTo=` takes Samba down with a gateway that
/// ends, and nothing else would start it again when the gateway is started again.
#[test]
fn the_share_goes_and_comes_with_the_mount() {
    let gateway = directives("systemd/runvault-ingest@.service", "Unit");
    let samba = directives("systemd/smbd.service.d/runvault.conf", "Unit");
    let mount = "runvault-ingest@NAME.service";
    for (unit, key, other) in [
        (&samba, "BindsTo", mount),
        (&samba, "After", mount),
        (&gateway, "Wants", "smbd.service"),
        (&gateway, "Before", "smbd.service"),
    ] {
        let named = unit.iter().filter(|(known, _)| known == key);
        assert!(
            named.clone().any(|(_, value)| value.split(' ').any(|word| word == other)),
            "{key}: {unit:?}"
        );
    }
    let service = directives("systemd/runvault-ingest@.service", "Service");
    assert!(service.contains(&("Restart".to_owned(), "always".to_owned())), "{service:?}");
}

/// Keys and values of a section of a shipped unit.
fn directives(name: &str, section: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(shipped(name)).expect("a unit");
    let lines = text.lines().skip_while(|line| *line != format!("[{section}]")).skip(1);
    let own = lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.starts_with('#'));
    own.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.into(), value.into())).collect()
}

/// Whether a program is installed; else a test is left out.
fn is_there(program: &str, package: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        leave_out(&format!("{program} is missing (package {package})"));
    }
    there
}

fn shipped(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib").join(name)
}

#[test]
fn the_gateways_folders_are_as_the_program_wants_them() {
    if !root_for("folders of root") || !is_there("systemd-tmpfiles", "systemd") {
        return;
    }
    let root = tempfile::tempdir().expect("a folder");
    // Users are looked up below that root.
    fs::create_dir(root.path().join("etc")).expect("a folder");
    for (file, line) in [("passwd", "root:x:0:0::/:/bin/sh\n"), ("group", "root:x:0:\nadm:x:4:\n")] {
        fs::write(root.path().join("etc").join(file), line).expect("a file");
    }
    let mut made = Command::new("systemd-tmpfiles");
    made.arg("--create").arg(format!("--root={}", root.path().display()));
    run(made.arg(shipped("tmpfiles.d/runvault.conf").canonicalize().expect("the file")));
    for (folder, mode) in [
        ("run/runvault", 0o700),
        ("var/lib/runvault", 0o700),
        ("etc/runvault", 0o755),
        ("var/log/runvault", 0o750),
    ] {
        let meta = fs::metadata(root.path().join(folder)).expect(folder);
        assert_eq!(meta.permissions().mode() & 0o7777, mode, "{folder}");
    }
}

/// A mount keeps its log open: what it says after a rotation is in the new file, and what it said before in the old.
#[test]
fn a_log_that_is_rotated_goes_on() {
    if !root_for("logrotate's configuration") || !is_there("logrotate", "logrotate") {
        return;
    }
    let site = Site::new();
    let (folder, log) = (site.dir().join("log"), site.dir().join("log/novaseq.log"));
    fs::create_dir(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o750)).expect("its mode");
    let text = fs::read_to_string(shipped("logrotate/runvault")).expect("the file");
    assert!(text.contains("/var/log/runvault/*.log"), "{text}");
    let conf = site.dir().join("conf");
    fs::write(&conf, text.replace("/var/log/runvault", folder.to_str().expect("UTF-8"))).expect("a file");
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o644)).expect("its mode");
    let state = site.dir().join("rotated");
    let rotate = |how: &str| {
        let said = printed(&run(Command::new("logrotate").arg(how).arg("-s").arg(&state).arg(&conf)));
        assert!(!said.contains("error"), "{said}");
    };
    rotate("-d");
    run(site.command(&["mount"]).arg("--log").arg(&log).arg(&site.store).arg(&site.at));
    rotate("-f");
    run(Command::new(runvault()).arg("unmount").arg(&site.at));
    let read = |path: &Path| fs::read_to_string(path).expect("a log");
    let before = read(&folder.join("novaseq.log.1"));
    assert!(before.contains("mounted at") && !before.contains("unmounted"), "{before}");
    assert!(read(&log).contains("unmounted") && !read(&log).contains("\0"), "{}", read(&log));
}
