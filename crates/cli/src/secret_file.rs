//! Files that hold secrets: passphrase files, key files, systemd's credential.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Result;
use zeroize::Zeroizing;

use crate::exit::{Exit, refuse, refuse_with};
use crate::output::shown;

/// The most that is read of a passphrase file.
const LIMIT: u64 = 1 << 20;

/// The passphrase in the first line of a file, without the line end.
///
/// # Errors
/// Exit 2: missing, a directory, empty, over 1 MiB, or readable by others and not `allow_readable`.
pub fn passphrase_from_file(path: &Path, allow_readable: bool) -> Result<Zeroizing<Vec<u8>>> {
    let name = shown(path);
    // A fifo would wait for its writer, and some devices act on being opened: looked at before and after.
    let failed = |e: std::io::Error| refuse(Exit::Usage, format!("passphrase file {name}: {e}"));
    require_file(&std::fs::metadata(path).map_err(failed)?, &name)?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    require_file(&meta, &name)?;
    if !allow_readable {
        check_mode(&meta, path)?;
    }
    first_line(file, &format!("passphrase file {name}"))
}

/// The passphrase in the first line that a file descriptor gives.
///
/// # Errors
/// Exit 2: not open, empty, or over 1 MiB.
pub fn passphrase_from_fd(fd: u32) -> Result<Zeroizing<Vec<u8>>> {
    let name = format!("file descriptor {fd}");
    let number = i32::try_from(fd).map_err(|_| refuse(Exit::Usage, format!("{name} is not open")))?;
    // SAFETY: the borrow lasts for the one dup(2) below, which answers EBADF where nothing is open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let ours = rustix::io::fcntl_dupfd_cloexec(borrowed, 3)
        .map_err(|e| refuse(Exit::Usage, format!("{name}: {e}")))?;
    let file = File::from(ours);
    check_kind(&file.metadata()?, &name)?;
    first_line(file, &name)
}

fn require_file(meta: &Metadata, name: &str) -> Result<()> {
    check_kind(meta, name)?;
    if meta.is_file() {
        return Ok(());
    }
    Err(refuse_with(
        Exit::Usage,
        format!("passphrase file {name}: not a regular file"),
        "what a pipe gives is taken by --passphrase-fd N",
    ))
}

fn check_kind(meta: &Metadata, name: &str) -> Result<()> {
    let kind = meta.file_type();
    if kind.is_file() || kind.is_fifo() || kind.is_socket() || kind.is_char_device() {
        return Ok(());
    }
    let what = if kind.is_dir() { "a directory" } else { "not a file" };
    Err(refuse(Exit::Usage, format!("{name}: {what}; a file whose first line is the passphrase is needed")))
}

fn check_mode(meta: &Metadata, path: &Path) -> Result<()> {
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let name = shown(path);
    let who = if mode & 0o007 != 0 { "others" } else { "its group" };
    Err(refuse_with(
        Exit::Usage,
        format!("{name} has mode {mode:04o}: {who} may use this secret"),
        format!("chmod 600 {name}, or accept it with --allow-readable-secret"),
    ))
}

fn first_line(source: impl Read, name: &str) -> Result<Zeroizing<Vec<u8>>> {
    // The whole capacity at once: a vector that grows leaves copies of a secret behind.
    let mut text = Zeroizing::new(Vec::with_capacity(LIMIT as usize + 64));
    source.take(LIMIT + 1).read_to_end(&mut text).map_err(|e| refuse(Exit::Usage, format!("{name}: {e}")))?;
    if text.len() as u64 > LIMIT {
        return Err(refuse(Exit::Usage, format!("{name}: over 1 MiB; this is no passphrase file")));
    }
    let end = text.iter().position(|b| *b == b'\n').unwrap_or(text.len());
    text.truncate(end);
    if text.last() == Some(&b'\r') {
        text.pop();
    }
    if text.is_empty() {
        return Err(refuse(Exit::Usage, format!("{name}: the first line is empty")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_end_does_not_count() {
        for text in ["word", "word\n", "word\r\n", "word\nsecond line\n"] {
            assert_eq!(*first_line(text.as_bytes(), "t").unwrap(), b"word");
        }
        assert_eq!(*first_line(&b" \xff \n"[..], "t").unwrap(), b" \xff ");
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for path in [fifo.as_path(), dir.path(), Path::new("/dev/zero")] {
            let error = passphrase_from_file(path, true).unwrap_err();
            assert_eq!(crate::exit::of(&error), Exit::Usage, "{error}");
        }
    }

    #[test]
    fn empty_and_giant_ones_are_usage_errors() {
        let giant = vec![b'a'; LIMIT as usize + 1];
        for text in [&b""[..], b"\n", b"\r\nsecond", &giant] {
            let error = first_line(text, "t").unwrap_err();
            assert_eq!(crate::exit::of(&error), Exit::Usage);
        }
    }
}
