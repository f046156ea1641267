//! `rsync -aHAX` and `runvault cp -r` there and back.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use runvault_tests::Site;
use runvault_tests::snapshot::{assert_same, snapshot};
use runvault_tests::tools::{is_root, root_for, run};

fn a_tree(at: &Path) {
    fs::create_dir_all(at.join("Data/L001/C1.1")).expect("directories");
    for n in 0..200usize {
        let bytes: Vec<u8> = (0..n * 613).map(|i| (i * n % 251) as u8).collect();
        fs::write(at.join(format!("Data/L001/C1.1/s_1_{n}.bcl")), bytes).expect("a file");
    }
    symlink("L001/C1.1", at.join("Data/link")).expect("a link");
    fs::hard_link(at.join("Data/L001/C1.1/s_1_7.bcl"), at.join("second-name")).expect("a second name");
    let file = at.join("Data/L001/C1.1/s_1_8.bcl");
    rustix::fs::setxattr(&file, "user.note", b"value", rustix::fs::XattrFlags::empty())
        .expect("an attribute");
    if root_for("another owner") {
        run(Command::new("setfacl").args(["-m", "u:daemon:r"]).arg(&file));
        run(Command::new("chown").arg("daemon:daemon").arg(at.join("Data/L001/C1.1/s_1_9.bcl")));
    }
}

/// Compares nanoseconds: by default rsync sets no time that is in the right second already.
fn rsync(from: &Path, to: &Path) {
    let mut source = from.as_os_str().to_owned();
    source.push("/");
    run(Command::new("rsync").args(["-aHAX", "--modify-window=-1", "--numeric-ids"]).arg(source).arg(to));
}

/// What rsync would still do to make `to` like `from`.
fn left_to_do(from: &Path, to: &Path) -> String {
    let mut source = from.as_os_str().to_owned();
    source.push("/");
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAXcni", "--modify-window=-1", "--numeric-ids"]).arg(source).arg(to);
    String::from_utf8_lossy(&run(&mut rsync).stdout).into_owned()
}

/// What a copy has to keep besides.
fn decorate(at: &Path) {
    let attribute = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).expect("an attribute");
    };
    fs::create_dir(at.join("Thumbnails")).expect("a directory");
    attribute(&at.join("Thumbnails"), "user.note", b"of a directory");
    attribute(&at.join("Data/L001/C1.1/s_1_0.bcl"), "user.note", b"of an empty file");
    for (name, of) in [
        ("third-name", "second-name"),
        ("Thumbnails/empty", "Data/L001/C1.1/s_1_0.bcl"),
        ("Thumbnails/link", "Data/link"),
    ] {
        fs::hard_link(at.join(of), at.join(name)).expect("a further name");
    }
    let sparse = fs::File::create(at.join("sparse")).expect("a file");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 8 << 20).expect("written");
    sparse.set_len(16 << 20).expect("a hole at the end");
    run(Command::new("mkfifo").arg(at.join("fifo")));
    fs::set_permissions(at.join("sparse"), fs::Permissions::from_mode(0o440)).expect("a mode");
    if is_root() {
        run(Command::new("setfacl").args(["-d", "-m", "u:daemon:rx"]).arg(at.join("Thumbnails")));
        run(Command::new("chown").args(["-h", "daemon:games"]).args([
            at.join("Data/link"),
            at.join("fifo"),
            at.join("Data"),
        ]));
        attribute(&at.join("sparse"), "trusted.note", b"for root alone");
    }
}

#[test]
fn cp_keeps_what_rsync_keeps() {
    let (site, other) = (Site::new(), Site::new());
    let (plain, back) = (site.dir().join("plain"), site.dir().join("back"));
    fs::create_dir(&plain).expect("a directory");
    a_tree(&plain);
    decorate(&plain);
    let in_vault = |site: &Site, path: &str| format!("{}:/{path}", site.store.display());
    run(site.command(&["cp", "-r"]).arg(&plain).arg(in_vault(&site, "run")));
    let across = |args: &[&str]| {
        let mut command = other.command(args);
        command.arg("--from-identity").arg(&site.identity).args([in_vault(&site, ""), in_vault(&other, "")]);
        command
    };
    run(&mut across(&["cp", "-r"]));
    run(&mut across(&["cp", "-r", "--force"]));
    run(other.command(&["cp", "-r"]).arg(in_vault(&other, "run")).arg(&back));
    assert_eq!(left_to_do(&plain, &back), "");
    assert_eq!(left_to_do(&back, &plain), "");
    assert!(back.join("sparse").metadata().expect("metadata").blocks() < 2048, "holes stay holes");
    for vault in [&site, &other] {
        let mount = vault.mount_read_only();
        assert_eq!(left_to_do(&plain, &mount.path("run")), "");
        mount.unmount();
        run(vault.command(&["check"]).arg(&vault.store));
    }
}

#[test]
fn rsync_there_and_back() {
    let site = Site::new();
    let (plain, back) = (site.dir().join("plain"), site.dir().join("back"));
    fs::create_dir(&plain).expect("a directory");
    a_tree(&plain);
    let mount = site.mount();
    rsync(&plain, &mount.path("run"));
    assert_same(&snapshot(&plain, true), &snapshot(&mount.path("run"), true), "on the mount");
    mount.unmount();
    let again = site.mount();
    rsync(&again.path("run"), &back);
    assert_same(&snapshot(&plain, true), &snapshot(&back, true), "back again");
    // Nothing is left to do: sizes and times are as rsync compares them.
    let mut source = plain.as_os_str().to_owned();
    source.push("/");
    let todo = run(Command::new("rsync")
        .args(["-aHAXni", "--modify-window=-1", "--numeric-ids"])
        .arg(source)
        .arg(again.path("run")));
    assert!(todo.stdout.is_empty(), "{}", String::from_utf8_lossy(&todo.stdout));
    if is_root() {
        let acl = run(Command::new("getfacl").arg(back.join("Data/L001/C1.1/s_1_8.bcl")));
        assert!(String::from_utf8_lossy(&acl.stdout).contains("user:daemon:r--"));
    }
    again.unmount();
}
