//! A tree as it looks to a program: names, types, modes, sizes, times, contents, targets, attributes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// One object of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// `f`, `d`, `l`, `p`, `s`, `b` or `c`.
    pub kind: char,
    /// Permission bits.
    pub mode: u32,
    /// Number of names (0 for directories, whose count is the file system's own affair).
    pub links: u64,
    /// Bytes (0 for directories).
    pub size: u64,
    /// Seconds and nanoseconds; left out where `times` was not asked for.
    pub mtime: Option<(i64, i64)>,
    /// A file's bytes (their digest where they are many), a link's target.
    pub content: Vec<u8>,
}

/// Everything below `root`, by relative path.
///
/// # Panics
/// If something there cannot be read.
pub fn snapshot(root: &Path, times: bool) -> BTreeMap<Vec<u8>, Object> {
    let mut tree = BTreeMap::new();
    collect(root, root, times, &mut tree);
    tree
}

fn collect(root: &Path, dir: &Path, times: bool, tree: &mut BTreeMap<Vec<u8>, Object>) {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    for entry in entries {
        let path = entry.unwrap_or_else(|e| panic!("{}: {e}", dir.display())).path();
        let name = path.strip_prefix(root).expect("below the root").as_os_str().as_bytes().to_vec();
        tree.insert(name, object(&path, times));
        if path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            collect(root, &path, times, tree);
        }
    }
}

/// The files below `root`, by relative path, and what they hold.
///
/// # Panics
/// If something there cannot be read.
pub fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = snapshot(root, false).into_iter().filter(|(_, object)| object.kind == 'f');
    files.map(|(path, object)| (OsString::from_vec(path).into(), object.content)).collect()
}

/// One object as it looks.
///
/// # Panics
/// If it cannot be read.
pub fn object(path: &Path, times: bool) -> Object {
    let meta = path.symlink_metadata().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let kind = meta.file_type();
    let (letter, content) = if kind.is_dir() {
        ('d', Vec::new())
    } else if kind.is_symlink() {
        ('l', fs::read_link(path).expect("a target").as_os_str().as_bytes().to_vec())
    } else if kind.is_file() {
        ('f', fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    } else if kind.is_fifo() {
        ('p', Vec::new())
    } else if kind.is_socket() {
        ('s', Vec::new())
    } else if kind.is_block_device() {
        ('b', meta.rdev().to_le_bytes().to_vec())
    } else {
        ('c', meta.rdev().to_le_bytes().to_vec())
    };
    Object {
        kind: letter,
        mode: meta.mode() & 0o7777,
        links: if meta.is_dir() { 0 } else { meta.nlink() },
        size: if meta.is_dir() { 0 } else { meta.len() },
        mtime: (times && !meta.is_dir()).then(|| (meta.mtime(), meta.mtime_nsec())),
        content,
    }
}

/// Whether two paths are one file.
///
/// # Panics
/// If one of them is not there.
pub fn is_one_file(a: &Path, b: &Path) -> bool {
    let inode = |path: &Path| path.metadata().map(|m| (m.dev(), m.ino())).expect("a file");
    inode(a) == inode(b)
}

/// Panics with the first differences of two trees.
///
/// # Panics
/// If they differ.
pub fn assert_same(left: &BTreeMap<Vec<u8>, Object>, right: &BTreeMap<Vec<u8>, Object>, what: &str) {
    let mut differences = Vec::new();
    let names: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
    for name in names {
        let (a, b) = (left.get(name), right.get(name));
        if a != b {
            differences.push(format!("{}:\n  {}\n  {}", String::from_utf8_lossy(name), brief(a), brief(b)));
        }
    }
    assert!(
        differences.is_empty(),
        "{what}: {} differ\n{}",
        differences.len(),
        differences[..differences.len().min(5)].join("\n")
    );
}

fn brief(object: Option<&Object>) -> String {
    match object {
        None => "missing".to_owned(),
        Some(o) => {
            let head: Vec<u8> = o.content.iter().take(16).copied().collect();
            format!(
                "{} {:o} links {} size {} mtime {:?} {head:02x?}",
                o.kind, o.mode, o.links, o.size, o.mtime
            )
        }
    }
}
