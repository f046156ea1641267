//! What the stores hold: small, and every kind of thing that the format treats differently.

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use runvault_tests::Site;
use runvault_tests::tools::run;
use rustix::fs::{CWD, FallocateFlags, FileType, Mode, XattrFlags, fallocate, mknodat, setxattr};

/// Plaintext bytes of a chunk.
const CHUNK: usize = 8192;
/// Two names of one file.
pub const LINKS: [(&str, &str); 1] =
    [("240101_A00001_0001_AHXXXXXXXX/InterOp/first", "240101_A00001_0001_AHXXXXXXXX/second")];
/// Of which object, name, value.
pub const ATTRIBUTE: (&str, &str, &[u8]) =
    ("240101_A00001_0001_AHXXXXXXXX/InterOp", "user.comment", b"of a directory");

/// A vault of three runs: one written and closed, one before a rotation of the vault key, one cut short.
pub fn make(site: &Site) {
    let mount = site.mount();
    tree(&mount.path("240101_A00001_0001_AHXXXXXXXX"));
    fs::create_dir(mount.path("before the rotation")).expect("a run");
    file(&mount.path("before the rotation/file"), 300);
    file(&mount.path("beside the runs"), 20);
    mount.unmount();
    run(site.command(&["custody", "rotate"]).arg(&site.store));
    let mount = site.mount();
    cut_short(&mount.path("cut short"));
    mount.kill();
}

fn tree(at: &Path) {
    let interop = at.join("InterOp");
    fs::create_dir_all(&interop).expect("directories");
    for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 77] {
        file(&at.join(format!("of {size} bytes")), size);
    }
    for length in [140, 141, 255] {
        file(&interop.join("n".repeat(length)), length);
    }
    let deep = at.join("d".repeat(200)).join("\u{e9}");
    fs::create_dir_all(&deep).expect("directories");
    file(&deep.join("deep"), 10);
    fs::create_dir(at.join("empty")).expect("a directory");
    fs::set_permissions(at.join("empty"), Permissions::from_mode(0o750)).expect("a mode");
    symlink("InterOp/first", at.join("link")).expect("a link");
    symlink(PathBuf::from("t".repeat(250)).join("u".repeat(250)).join("v".repeat(250)), at.join("long link"))
        .expect("a link");
    let replaced = at.join("replaced link");
    symlink("w".repeat(900), &replaced).expect("a link");
    symlink("x".repeat(800), at.join("new link")).expect("a link");
    fs::rename(at.join("new link"), &replaced).expect("renamed");
    mknodat(CWD, at.join("fifo"), FileType::Fifo, Mode::from(0o640), 0).expect("a fifo");
    sparse(&at.join("sparse"));
    file(&interop.join("first"), 500);
    fs::hard_link(interop.join("first"), at.join("second")).expect("a link");
    let (_, name, value) = ATTRIBUTE;
    for path in [&interop, &at.join("of 1 bytes"), &at.join("of 0 bytes")] {
        setxattr(path, name, value, XattrFlags::empty()).expect("an attribute");
    }
    let emptied = at.join("emptied and written again");
    file(&emptied, 9000);
    fs::write(&emptied, b"again").expect("written");
    fs::rename(at.join("of 16384 bytes"), interop.join("renamed")).expect("renamed");
}

/// Data at the start, far behind, and a hole punched into the rest; nothing at the end.
fn sparse(path: &Path) {
    let file = File::create(path).expect("a file");
    for (at, len) in [(0, 100), (3 << 20, 5 * CHUNK), (9 << 20, 1)] {
        file.write_all_at(&pattern(len), at).expect("written");
    }
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, (3 << 20) + CHUNK as u64, 2 * CHUNK as u64).expect("a hole");
    file.set_len(10 << 20).expect("a length");
}

/// A run whose writer is killed with a journal that has records.
fn cut_short(at: &Path) {
    fs::create_dir(at).expect("a run");
    let path = at.join("file");
    file(&path, 5 * CHUNK);
    let open = OpenOptions::new().write(true).open(&path).expect("a file");
    open.sync_all().expect("synced");
    for (at, len) in [(100, 50), (CHUNK as u64 * 2, CHUNK), (CHUNK as u64 * 5, 10)] {
        open.write_all_at(&vec![0xee; len], at).expect("written");
        open.sync_all().expect("synced");
    }
    date(&open);
    open.sync_all().expect("synced");
    File::open(at).and_then(|dir| dir.sync_all()).expect("synced");
}

fn file(path: &Path, size: usize) {
    fs::write(path, pattern(size)).expect("a file");
    date(&File::open(path).expect("a file"));
    let mode = [0o600, 0o644, 0o755, 0o444, 0o640][size % 5];
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
}

fn date(file: &File) {
    let at = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    file.set_times(FileTimes::new().set_modified(at)).expect("times");
}

/// Bytes of prime period, so that blocks that swap places cannot cancel.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}
