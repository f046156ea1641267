//! /proc/PID/mountinfo: what is mounted where, without touching a mount that may hang.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The type under which a vault's mount is listed.
pub const FS_TYPE: &str = "fuse.runvault";

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `major:minor` of the mounted file system.
    pub device: String,
    /// Where it is mounted.
    pub at: PathBuf,
    /// Its type.
    pub fs_type: String,
    /// What was mounted: for a vault, its store.
    pub source: PathBuf,
    /// Mount options of this mount and of the file system.
    pub options: Vec<String>,
}

impl Entry {
    /// Who mounted a FUSE file system.
    pub fn user(&self) -> Option<u32> {
        self.options.iter().find_map(|o| o.strip_prefix("user_id=")?.parse().ok())
    }
    /// Whether it was mounted read-only.
    pub fn read_only(&self) -> bool {
        self.options.iter().any(|o| o == "ro")
    }
    /// Whether it is a vault.
    pub fn is_vault(&self) -> bool {
        self.fs_type == FS_TYPE
    }
}

/// Every mount of this process's namespace, the topmost of a mount point last.
///
/// # Errors
/// /proc is not there.
pub fn read() -> Result<Vec<Entry>> {
    of("self")
}

fn of(process: &str) -> Result<Vec<Entry>> {
    let table = format!("/proc/{process}/mountinfo");
    let table = std::fs::read(&table).context(table)?;
    Ok(table.split(|b| *b == b'\n').filter_map(parse).collect())
}

/// What is mounted at this very path (given canonical), if anything.
///
/// # Errors
/// As [`read`].
pub fn at(path: &Path) -> Result<Option<Entry>> {
    Ok(read()?.into_iter().rev().find(|entry| entry.at == path))
}

/// Where a file system is mounted in another mount namespace, as a container or a service of systemd has one.
#[derive(Debug)]
pub struct Elsewhere {
    /// A process there.
    pub pid: u32,
    /// The mount point, as it sees it.
    pub at: PathBuf,
}

/// The copies of a mount that other namespaces have, as far as this user may see them.
pub fn elsewhere(entry: &Entry) -> Vec<Elsewhere> {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let ours = namespace("self");
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut copies = BTreeMap::new();
    for pid in processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok()) {
        let Some(of_it) = namespace(&pid.to_string()).filter(|its| Some(its) != ours.as_ref()) else {
            continue;
        };
        if copies.contains_key(&of_it) {
            continue;
        }
        let same = |other: &Entry| {
            (&other.device, &other.fs_type, &other.source) == (&entry.device, &entry.fs_type, &entry.source)
        };
        let found = of(&pid.to_string()).ok().and_then(|table| table.into_iter().find(same));
        copies.insert(of_it, found.map(|found| Elsewhere { pid, at: found.at }));
    }
    copies.into_values().flatten().collect()
}

/// `id parent major:minor root mount-point options [tags...] - type source super-options`.
fn parse(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|b| *b == b' ');
    let device = String::from_utf8_lossy(fields.nth(2)?).into_owned();
    let at = unescape(fields.nth(1)?);
    let own = fields.next()?;
    fields.find(|field| *field == b"-")?;
    let fs_type = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = unescape(fields.next()?);
    let options = [own, fields.next().unwrap_or_default()]
        .iter()
        .flat_map(|list| list.split(|b| *b == b','))
        .map(|o| String::from_utf8_lossy(o).into_owned())
        .collect();
    Some(Entry { device, at, fs_type, source, options })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        match (first, octal(tail)) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn octal(text: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(text.get(..3)?).ok()?;
    u8::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_spaces_in_its_paths() {
        let line = br"36 35 0:52 / /mnt/a\040b rw,nosuid shared:1 master:2 - fuse.runvault /srv/s\134\011 rw,user_id=7,group_id=0";
        let entry = parse(line).unwrap();
        assert_eq!(entry.at, Path::new("/mnt/a b"));
        assert_eq!(entry.source, Path::new("/srv/s\\\t"));
        assert_eq!((entry.device.as_str(), entry.user(), entry.is_vault()), ("0:52", Some(7), true));
        assert_eq!(parse(b"garbage"), None);
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(at(Path::new("/")).unwrap().is_some());
    }
}
