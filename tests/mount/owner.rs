//! What an owner does with a vault beside and during a mount: keys, rotation, takeover, check, copies.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use runvault_tests::Site;
use runvault_tests::snapshot::{assert_same, snapshot};
use runvault_tests::tools::{output, printed, root_for, run, runvault};
use serde_json::Value;

const PASSPHRASES: [&str; 2] = [
    "outlet gravel sublime tanker veneer mossy pelican",
    "another seven words that nobody guesses xylophone",
];

fn expect(command: &mut Command, code: i32, says: &str) -> Output {
    let done = output(command);
    assert_eq!(done.status.code(), Some(code), "{command:?}\n{}", printed(&done));
    assert!(printed(&done).contains(says), "{command:?} does not say {says:?}:\n{}", printed(&done));
    done
}

fn json_lines(done: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// `runvault ARGS` on the site's store.
fn on_store(site: &Site, args: &[&str]) -> Command {
    let mut command = site.command(args);
    command.arg(&site.store);
    command
}

#[test]
fn the_passphrase_changes_while_the_vault_is_mounted() {
    let site = Site::uninitialised(&std::env::temp_dir());
    let files: Vec<PathBuf> = PASSPHRASES
        .iter()
        .enumerate()
        .map(|(n, passphrase)| {
            let path = site.dir().join(format!("pass-{n}"));
            fs::write(&path, passphrase).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
            path
        })
        .collect();
    run(Command::new(runvault()).arg("init").arg(&site.store).arg("--passphrase-file").arg(&files[0]));
    let copy = site.dir().join("copy.key");
    run(Command::new(runvault()).args(["key", "export"]).arg(&site.store).arg("--out").arg(&copy));
    let mount = |file: &Path| {
        let mut command = Command::new(runvault());
        command.args(["mount", "--log", "stderr", "--passphrase-file"]).arg(file).arg("--state");
        command.arg(&site.state).arg(&site.store).arg(&site.at);
        command
    };
    run(&mut mount(&files[0]));
    fs::create_dir(site.at.join("run")).expect("a run");
    let mut passwd = Command::new(runvault());
    passwd.arg("passwd").arg("--passphrase-file").arg(&files[0]).arg("--new-passphrase-file").arg(&files[1]);
    run(passwd.arg("--state").arg(&site.state).arg(&site.store));
    fs::write(site.at.join("run/file"), b"goes on").expect("the mount goes on");
    run(Command::new(runvault()).arg("unmount").arg(&site.at));
    expect(&mut mount(&files[0]), 3, "passphrase");
    run(&mut mount(&files[1]));
    assert_eq!(fs::read(site.at.join("run/file")).expect("read"), b"goes on");
    run(Command::new(runvault()).arg("unmount").arg(&site.at));
    // The exported copy is under the passphrase of its day.
    let cat = |key: &Path, file: &Path| {
        let mut command = Command::new(runvault());
        command.args(["cat", "--identity"]).arg(key).arg("--passphrase-file").arg(file);
        command.arg("--state").arg(&site.state).arg(&site.store).arg("run/file");
        command
    };
    expect(&mut cat(&copy, &files[0]), 0, "goes on");
    expect(&mut cat(&copy, &files[1]), 3, "passphrase");
}

#[test]
fn a_rotation_while_mounted_keeps_runs_readable_and_new_ones_too() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("before")).expect("a run");
    fs::write(mount.path("before/file"), b"before").expect("a file");
    let done = expect(&mut on_store(&site, &["custody", "rotate", "--json"]), 0, "epoch");
    let said = &json_lines(&done)[0];
    assert_eq!((said["epoch"].as_u64(), said["rotated"].as_u64()), (Some(2), Some(1)), "{said}");
    fs::write(mount.path("before/file"), b"during").expect("the mount goes on");
    fs::create_dir(mount.path("after")).expect("a run");
    fs::write(mount.path("after/file"), b"after").expect("a file");
    mount.unmount();
    for (path, text) in [("before/file", "during"), ("after/file", "after")] {
        assert_eq!(run(on_store(&site, &["cat"]).arg(path)).stdout, text.as_bytes());
    }
    expect(&mut on_store(&site, &["check"]), 0, "read and authenticated");
}

#[test]
fn a_run_held_by_another_machine_is_read_only_until_it_is_taken_over() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/file"), b"first").expect("a file");
    let file = fs::File::open(mount.path("run/file")).expect("open");
    file.sync_all().expect("sync");
    drop(file);
    mount.kill();
    // What a writer on another machine looks like from here.
    let runs = fs::read_dir(site.store.join("runs")).expect("runs");
    for dir in runs.map(|entry| entry.expect("an entry").path()).filter(|dir| dir.join("lease").exists()) {
        let text = fs::read_to_string(dir.join("lease")).expect("a lease");
        let (kind, line) = text.split_once('\n').expect("two lines");
        let fields: Value = serde_json::from_str(line).expect("JSON");
        let host = fields["host"].as_str().expect("a host");
        let line = line.replace(host, &"07".repeat(32));
        fs::write(dir.join("lease"), format!("{kind}\n{line}")).expect("write");
    }
    let mount = site.mount();
    assert_eq!(fs::read(mount.path("run/file")).expect("reading works"), b"first");
    for refused in [fs::write(mount.path("run/new"), b"x"), fs::write(mount.path("run/file"), b"x")] {
        assert_eq!(refused.expect_err("held").raw_os_error(), Some(libc::EROFS));
    }
    assert!(mount.log().contains("host 07070707"), "the holder is not named:\n{}", mount.log());
    fs::create_dir(mount.path("own")).expect("other runs work");
    mount.unmount();
    let takeover = || on_store(&site, &["takeover"]);
    expect(takeover().arg("run"), 1, "--yes accepts");
    expect(takeover().arg("none").arg("--yes"), 1, "there is no run none");
    expect(takeover().arg("run").arg("--yes"), 0, "this machine's now");
    let mount = site.mount();
    fs::write(mount.path("run/new"), b"x").expect("taken over");
    assert_eq!(fs::read(mount.path("run/file")).expect("read"), b"first");
    mount.unmount();
}

/// Another host, by its leases: it sees no process of this one. Mounts of other tests would not end while it has copies.
fn in_a_container(command: &str) -> Command {
    let mut container = Command::new("unshare");
    container.args(["--pid", "--fork", "--mount-proc", "sh", "-c"]);
    container.args(["umount -a -l -t fuse.runvault; exec \"$@\"", "sh"]).arg(runvault()).arg(command);
    container
}

/// It has this machine's id and boot, and a copy of the state folder, and does not see the writer's process.
#[test]
fn a_container_takes_no_run_that_is_written_outside_it() {
    if !root_for("a pid namespace") {
        return;
    }
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/file"), b"first").expect("a file");
    let state = site.dir().join("copied-state");
    run(Command::new("cp").arg("-a").arg(&site.state).arg(&state));
    let mut copy = in_a_container("cp");
    copy.arg("--identity").arg(&site.identity).arg("--state").arg(state);
    copy.arg(&site.identity).arg(format!("{}:/run/other", site.store.display()));
    expect(&mut copy, 5, "is written by gateway");
    fs::write(mount.path("run/file"), b"and again").expect("it is still the writer");
    mount.unmount();
}

/// Whatever a person says who takes it to be gone.
#[test]
fn a_run_whose_writer_on_another_machine_lives_is_not_taken_over() {
    if !root_for("a pid namespace") {
        return;
    }
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/file"), b"first").expect("a file");
    let mut elsewhere = in_a_container("takeover");
    elsewhere.args(["--yes", "--identity"]).arg(&site.identity);
    elsewhere.arg("--state").arg(site.dir().join("other-state")).arg(&site.store).arg("run");
    expect(&mut elsewhere, 5, "its lease was renewed while it was watched");
    fs::write(mount.path("run/file"), b"and again").expect("it is still the writer");
    mount.unmount();
}

#[test]
fn check_names_the_file_of_a_flipped_bit() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir_all(mount.path("run/Data/Intensities")).expect("a run");
    for name in ["s_1.bcl", "s_2.bcl"] {
        fs::write(mount.path("run/Data/Intensities").join(name), vec![1; 30_000]).expect("a file");
    }
    mount.unmount();
    let file = largest(&site.store.join("runs"));
    let mut bytes = fs::read(&file).expect("read");
    bytes[9000] ^= 0x10;
    fs::write(&file, bytes).expect("write");
    let done = expect(&mut on_store(&site, &["check", "--json"]), 4, "run/Data/Intensities/s_");
    let lines = json_lines(&done);
    let damaged: Vec<_> = lines.iter().filter(|line| line.get("damage").is_some()).collect();
    assert_eq!(damaged.len(), 1, "{lines:?}");
    assert_eq!(lines.last().expect("a summary")["summary"]["damages"].as_u64(), Some(1));
    expect(&mut on_store(&site, &["check"]), 4, "1 object damaged");
}

fn largest(dir: &Path) -> PathBuf {
    let mut files = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => open.push(path),
                false => files.push((path.metadata().expect("metadata").len(), path)),
            }
        }
    }
    files.retain(|(_, path)| path.components().any(|part| part.as_os_str() == "tree"));
    files.into_iter().max().expect("a file").1
}

#[test]
fn what_cp_takes_in_and_out_is_the_same_tree() {
    let site = Site::new();
    let tree = site.dir().join("in");
    fs::create_dir_all(tree.join("InterOp/empty")).expect("a tree");
    fs::write(tree.join("RunInfo.xml"), b"<RunInfo/>").expect("a file");
    fs::write(tree.join("InterOp/big"), vec![9; 700_001]).expect("a file");
    fs::set_permissions(tree.join("InterOp/big"), fs::Permissions::from_mode(0o640)).expect("a mode");
    std::os::unix::fs::symlink("../RunInfo.xml", tree.join("InterOp/link")).expect("a link");
    let vault = format!("{}:/", site.store.display());
    let cp = |from: &str, to: &str| {
        let mut command = site.command(&["cp", "-r"]);
        command.args([from, to]);
        command
    };
    let from = tree.display().to_string();
    run(&mut cp(&from, &vault));
    expect(&mut cp(&from, &vault), 1, "--force");
    let out = site.dir().join("out");
    run(&mut cp(&format!("{vault}in"), &out.display().to_string()));
    assert_same(&snapshot(&tree, true), &snapshot(&out, true), "in and out");
    let mount = site.mount_read_only();
    assert_same(&snapshot(&tree, true), &snapshot(&mount.path("in"), true), "in a mount");
    mount.unmount();
    let ls = expect(&mut on_store(&site, &["ls", "-R", "--json"]), 0, "in/InterOp/big");
    assert_eq!(json_lines(&ls).len(), 6, "{}", printed(&ls));
    expect(on_store(&site, &["cat"]).arg("in/none"), 1, "no such file");
}

/// An older audit.log put back right after a rotation is refused by the machine that rotated.
#[test]
fn a_rotation_is_pinned_at_once() {
    let site = Site::new();
    let mount = site.mount();
    std::fs::create_dir(mount.path("run")).expect("a run");
    mount.unmount();
    let log = site.store.join("custody/audit.log");
    let older = std::fs::read(&log).expect("the log");
    run(site.command(&["custody", "rotate"]).arg(&site.store));
    std::fs::write(&log, older).expect("put back");
    std::fs::remove_file(site.store.join("custody/line-2")).expect("the rotation's own file");
    let done = output(site.command(&["ls"]).arg(&site.store));
    assert_eq!(done.status.code(), Some(4), "{}", printed(&done));
}

/// What a store says of modes and devices does not reach the machine that copies out of it, and a copy
/// never takes the place of what is no file.
#[test]
fn copies_out_make_no_devices_and_no_set_id_directories() {
    use std::os::unix::fs::PermissionsExt;
    if !root_for("making a device") {
        return;
    }
    let site = Site::new();
    let mount = site.mount();
    std::fs::create_dir_all(mount.path("run/dir")).expect("a run");
    std::fs::set_permissions(mount.path("run/dir"), std::fs::Permissions::from_mode(0o6777)).expect("chmod");
    std::fs::write(mount.path("run/file"), b"x").expect("a file");
    run(Command::new("mknod").arg(mount.path("run/device")).args(["b", "7", "200"]));
    mount.unmount();
    let out = site.dir().join("out");
    let mut source = site.store.as_os_str().to_owned();
    source.push(":/run");
    let done = output(site.command(&["cp", "-r"]).arg(&source).arg(&out));
    assert_eq!(done.status.code(), Some(1), "{}", printed(&done));
    assert!(!out.join("device").exists() && out.join("file").exists(), "{}", printed(&done));
    let mode = std::fs::metadata(out.join("dir")).expect("a directory").permissions().mode();
    assert_eq!(mode & 0o7777, 0o777);
    let pipe = site.dir().join("pipe");
    run(Command::new("mkfifo").arg(&pipe));
    source.push("/file");
    let refused = output(site.command(&["cp", "--force"]).arg(&source).arg(&pipe));
    assert_eq!(refused.status.code(), Some(1), "{}", printed(&refused));
    assert!(!std::fs::metadata(&pipe).expect("still there").is_file());
}

/// Two writers of one run destroy what each has acknowledged.
#[test]
fn a_run_whose_writer_lives_on_this_machine_is_not_taken_over() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/file"), b"acknowledged").expect("a file");
    let other = site.dir().join("other-state");
    let mut takeover = Command::new(runvault());
    takeover.args(["takeover", "--yes", "--identity"]).arg(&site.identity).arg("--state").arg(&other);
    let done = output(takeover.arg(&site.store).arg("run"));
    assert_eq!(done.status.code(), Some(5), "{}", printed(&done));
    assert!(printed(&done).contains("alive on this machine"), "{}", printed(&done));
    let way_out = format!("runvault status {} shows where", site.store.display());
    assert!(printed(&done).contains(&way_out), "{}", printed(&done));
    fs::write(mount.path("run/file"), b"and again").expect("it is still the writer");
    mount.unmount();
}
