//! What people and scripts read: tables, JSON, sizes, names.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

use crate::lines::Lines;

/// Standard output failed. A broken pipe among these is no error: the reader has seen enough.
#[derive(Debug, thiserror::Error)]
#[error("standard output: {0}")]
pub struct StandardOutput(pub io::Error);

/// Whether standard output was closed when the process began. Before `main` the standard library opens
/// /dev/null in its place: what is written would be lost without an error.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// The loader calls it before the standard library does anything.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = {
    extern "C" fn look() {
        // SAFETY: F_GETFD takes no argument and touches no memory.
        let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
        CLOSED.store(flags == -1, Ordering::Relaxed);
    }
    look
};

/// Writes bytes to standard output.
///
/// # Errors
/// [`StandardOutput`].
pub fn bytes(bytes: &[u8]) -> Result<()> {
    let written = check_open().and_then(|()| io::stdout().lock().write_all(bytes));
    written.map_err(|e| StandardOutput(e).into())
}

/// Whether standard output leads anywhere, for what does not write through [`bytes`].
///
/// # Errors
/// EBADF where it was closed when the process began.
pub fn check_open() -> io::Result<()> {
    if CLOSED.load(Ordering::Relaxed) { Err(io::Error::from_raw_os_error(libc::EBADF)) } else { Ok(()) }
}

/// Writes a line to standard output.
///
/// # Errors
/// [`StandardOutput`].
pub fn line(text: &str) -> Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Everything out, before the process says it is done.
///
/// # Errors
/// [`StandardOutput`].
pub fn flush() -> Result<()> {
    io::stdout().lock().flush().map_err(|e| StandardOutput(e).into())
}

/// A value as one line of JSON.
///
/// # Errors
/// [`StandardOutput`].
pub fn json(value: &serde_json::Value) -> Result<()> {
    line(&value.to_string())
}

/// Who writes to standard error, in a process that answers requests.
static ERRORS: OnceLock<Lines> = OnceLock::new();

/// From now on nobody waits longer than a moment for standard error.
pub fn hand_over(errors: &Lines) {
    // The first one stays, and writes the same.
    let _ = ERRORS.set(errors.clone());
}

/// The same line from a thread that somebody waits for: it is not waited for at all, where [`hand_over`] was called.
pub fn error_line_later(text: &str) {
    match ERRORS.get() {
        Some(errors) => errors.put(format!("{}\n", tame(text)).into_bytes()),
        // Nobody listens on a closed standard error.
        None => drop(error_line(text)),
    }
}

/// What was left to be written later is written now, if that takes no longer than a moment.
pub fn flush_errors() {
    if let Some(errors) = ERRORS.get() {
        errors.flush();
    }
}

/// A line on standard error. Everything for people goes through here: whatever control characters a name of
/// the store or of the command line brought along become `\xNN`.
///
/// # Errors
/// Whatever writing it gave.
pub fn error_line(text: &str) -> io::Result<()> {
    if ERRORS.get().is_none() {
        return writeln!(io::stderr().lock(), "{}", tame(text));
    }
    error_line_later(text);
    flush_errors();
    Ok(())
}

/// What can be done, below the line that says what happened; STORE becomes the store that is meant.
pub fn advice(text: &str) {
    for line in crate::given::with_store(text).lines() {
        // Nobody listens on a closed standard error.
        let _ = error_line(&format!("  {line}"));
    }
}

/// The text without control characters; what [`visible`] gave stays as it is.
fn tame(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut tame, c| {
        if c.is_control() {
            c.to_string().bytes().for_each(|b| escape(&mut tame, b));
        } else {
            tame.push(c);
        }
        tame
    })
}

/// Something that the person should know and that is no failure.
pub fn warn(text: &str) {
    // Nobody listens on a closed standard error.
    let _ = error_line(&format!("runvault: warning: {text}"));
}

/// Something that the person may not expect, and that is as it should be.
pub fn note(text: &str) {
    // Nobody listens on a closed standard error.
    let _ = error_line(&format!("runvault: note: {text}"));
}

/// Two columns, the left one padded: `key  value`.
pub fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, (key, value)| {
        let _ = writeln!(text, "{key:width$}  {value}");
        text
    })
}

/// Columns padded to their widest cell; `right` names those that are aligned to the right.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |n: usize| rows.iter().filter_map(|row| row.get(n)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut cells = String::new();
        for (n, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if n == 0 { "" } else { "  " };
            let _ = if right.contains(&n) {
                write!(cells, "{gap}{cell:>width$}")
            } else {
                write!(cells, "{gap}{cell:<width$}")
            };
        }
        let _ = writeln!(text, "{}", cells.trim_end());
    }
    text
}

/// `1.4 GiB`, `512 B`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// `1 file`, `2 files`.
pub fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// A name for a terminal: control characters and bytes that are not UTF-8 as `\xNN`, so that a name
/// cannot move the cursor or colour the line.
pub fn visible(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => c.to_string().bytes().for_each(|b| escape(&mut text, b)),
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|b| escape(&mut text, *b));
    }
    text
}

fn escape(text: &mut String, byte: u8) {
    let _ = write!(text, "\\x{byte:02x}");
}

/// A name for standard output: made visible on a terminal, byte for byte elsewhere.
pub fn name_bytes(name: &[u8]) -> Vec<u8> {
    if io::stdout().is_terminal() { visible(name).into_bytes() } else { name.to_vec() }
}

/// An option with a path, as it is typed behind other arguments; nothing where it is not given.
pub fn option(name: &str, path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| format!(" --{name} {}", quoted(path)))
}

/// A path for a message.
pub fn shown(path: &(impl AsRef<OsStr> + ?Sized)) -> String {
    visible(path.as_ref().as_bytes())
}

/// A path in a command that is told to a person: one word of a shell.
pub fn quoted(path: &(impl AsRef<OsStr> + ?Sized)) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/._-".contains(b);
    match path.as_ref().as_bytes() {
        bytes if bytes.iter().all(plain) => shown(path),
        _ => format!("'{}'", shown(path).replace('\'', r"'\''")),
    }
}

/// A name as JSON: the text, and where the bytes are not UTF-8, those in hex beside it.
pub fn json_name(object: &mut serde_json::Map<String, serde_json::Value>, key: &str, name: &[u8]) {
    object.insert(key.into(), String::from_utf8_lossy(name).into());
    if std::str::from_utf8(name).is_err() {
        let hex = name.iter().fold(String::new(), |mut hex, b| {
            let _ = write!(hex, "{b:02x}");
            hex
        });
        object.insert(format!("{key}_hex"), hex.into());
    }
}

/// `2026-11-24T05:56:21Z` of seconds since 1970; RFC 3339, UTC, years 0 to 9999 (clamped).
pub fn utc(seconds: i64) -> String {
    let seconds = seconds.clamp(-62_167_219_200, 253_402_300_799);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Days since 1970-01-01 to a proleptic Gregorian date (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_dates_read_as_expected() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "16384.0 PiB");
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(utc(-1), "1969-12-31T23:59:59Z");
        assert_eq!(utc(i64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(utc(i64::MIN), "0000-01-01T00:00:00Z");
    }

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(visible(b"a\x1b[2Jb\n\xff\\"), "a\\x1b[2Jb\\x0a\\xff\\\\");
        assert_eq!(visible("größe µ".as_bytes()), "größe µ");
        assert_eq!(tame("a\x1b[2Jb\nµ\u{9b}\\x1b"), "a\\x1b[2Jb\\x0aµ\\xc2\\x9b\\x1b");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".into(), "1".into(), "x".into()], vec!["long".into(), "100".into(), "".into()]];
        assert_eq!(table(&rows, &[1]), "a       1  x\nlong  100\n");
    }
}
