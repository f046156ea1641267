//! Set-id bits go as a plain directory's go, whoever changes a file and by which call.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use runvault_tests::Site;
use runvault_tests::tools::{again_as, root_for};
use rustix::fs::{AtFlags, CWD, FallocateFlags, StatxFlags, copy_file_range, fallocate, statx};

type Change = fn(&Path);

const CHANGES: [(&str, Change); 9] = [
    ("O_TRUNC", |path| drop(OpenOptions::new().write(true).truncate(true).open(path).expect("open"))),
    ("ftruncate", |path| writing(path).set_len(3).expect("ftruncate")),
    ("ftruncate to the same size", |path| writing(path).set_len(9).expect("ftruncate")),
    ("truncate", truncate),
    ("write", |path| writing(path).write_all_at(b"x", 4).expect("write")),
    ("fallocate", |path| allocate(path, FallocateFlags::empty())),
    ("punch", |path| allocate(path, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE)),
    ("zero", |path| allocate(path, FallocateFlags::ZERO_RANGE)),
    ("copy_file_range", |path| {
        let from = File::open(path.with_file_name("source")).expect("open");
        copy_file_range(from, None, writing(path), None, 5).expect("copy");
    }),
];

fn writing(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).expect("open")
}

fn truncate(path: &Path) {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("a path");
    // SAFETY: a path that ends in a zero byte and lives until the call returns.
    assert_eq!(unsafe { libc::truncate(path.as_ptr(), 4) }, 0);
}

fn allocate(path: &Path, how: FallocateFlags) {
    fallocate(writing(path), how, 0, 4096).expect("fallocate");
}

/// The mode of a file of mode `before` after each change.
fn after_each(dir: &Path, before: u32) -> Vec<(&'static str, String)> {
    fs::write(dir.join("source"), b"source").expect("a file");
    let path = dir.join("file");
    CHANGES
        .iter()
        .map(|(name, change)| {
            fs::write(&path, b"plaintext").expect("a file");
            fs::set_permissions(&path, Permissions::from_mode(before)).expect("chmod");
            change(&path);
            (*name, format!("{:o}", mode_alone(&path)))
        })
        .collect()
}

/// Asked for alone, as `stat -c %a` does: of what the kernel keeps, a write makes it forget size and times only.
fn mode_alone(path: &Path) -> u16 {
    statx(CWD, path, AtFlags::empty(), StatxFlags::MODE).expect("statx").stx_mode & 0o7777
}

#[test]
fn they_go_as_in_a_plain_directory() {
    let site = Site::new();
    let mount = site.mount();
    let (run, plain) = (mount.path("run"), site.dir().join("plain"));
    fs::create_dir(&run).and_then(|()| fs::create_dir(&plain)).expect("directories");
    for before in [0o6777, 0o4644, 0o2755, 0o2644] {
        assert_eq!(after_each(&run, before), after_each(&plain, before), "{before:o}");
    }
    mount.unmount();
}

#[test]
fn they_go_so_for_an_ordinary_user_too() {
    if root_for("becoming another user") {
        again_as(65534, 65534, "set_id::they_go_as_in_a_plain_directory");
    }
}
