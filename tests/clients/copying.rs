//! `rsync -aHAX` there and back.

use std::fs;
use std::os::unix::fs::symlink;
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
