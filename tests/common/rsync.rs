//! `rsync -aHAX` there and back, and a tree that has what it keeps.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::Site;
use crate::snapshot::{assert_same, snapshot};
use crate::tools::{is_root, root_for, run};

/// Files, links, attributes, owners and ACLs.
///
/// # Panics
/// If they cannot be made.
pub fn a_tree(at: &Path) {
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
    decorate(at);
}

/// Compares nanoseconds: by default rsync sets no time that is in the right second already.
fn rsync(from: &Path, to: &Path) {
    let mut source = from.as_os_str().to_owned();
    source.push("/");
    run(Command::new("rsync").args(["-aHAX", "--modify-window=-1", "--numeric-ids"]).arg(source).arg(to));
}

/// What rsync would still do to make `to` like `from`.
///
/// # Panics
/// If it fails.
pub fn left_to_do(from: &Path, to: &Path) -> String {
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
    for length in [150, 255] {
        fs::write(at.join("n".repeat(length)), b"of a long name").expect("a file");
    }
    symlink("t".repeat(700), at.join("a long link")).expect("a link");
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

/// A tree goes into a run by rsync, and back by another mount; then nothing is left to do.
///
/// # Panics
/// If something is not as it was.
pub fn there_and_back(site: &Site) {
    let (plain, back) = (site.dir().join("there"), site.dir().join("back"));
    fs::create_dir(&plain).expect("a directory");
    a_tree(&plain);
    let mount = site.mount();
    let copied = mount.path("by rsync");
    rsync(&plain, &copied);
    assert_same(&snapshot(&plain, true), &snapshot(&copied, true), "on the mount");
    mount.unmount();
    let again = site.mount();
    rsync(&copied, &back);
    assert_same(&snapshot(&plain, true), &snapshot(&back, true), "back again");
    assert_eq!(left_to_do(&plain, &copied), "");
    assert_eq!(left_to_do(&plain, &back), "");
    if is_root() {
        let acl = run(Command::new("getfacl").arg(back.join("Data/L001/C1.1/s_1_8.bcl")));
        assert!(String::from_utf8_lossy(&acl.stdout).contains("user:daemon:r--"));
    }
    again.unmount();
}
