//! Where a mount's events go: one line an event, written by a thread that nobody waits for.

use std::fs::{File, OpenOptions};
use std::io::{Write, stderr};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fs::OFlags;

use crate::lines::Lines;
use crate::output::{self, utc, visible, warn};

const JOURNAL: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";
/// `LOG_DAEMON`, the facility of syslog(3).
const DAEMON: u8 = 3;

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    File(PathBuf),
    Journal,
    Syslog,
    Stderr,
}

impl Target {
    /// What `--log` says; without it the journal where its socket is, else syslog.
    pub fn of(option: Option<&str>) -> Target {
        match option {
            Some("journal") => Target::Journal,
            Some("syslog") => Target::Syslog,
            Some("stderr") => Target::Stderr,
            Some(file) => Target::File(file.into()),
            None if Path::new(JOURNAL).exists() => Target::Journal,
            None => Target::Syslog,
        }
    }
}

/// Installs the logger, and has standard error written as the log is. Opens the file now: a mount must not find out later
/// that it cannot log.
///
/// # Errors
/// The log file cannot be opened; a thread could not be started.
pub fn start(target: &Target) -> Result<()> {
    let errors = Lines::start("stderr", |line| stderr().lock().write_all(line), lost(file_line))?;
    output::hand_over(&errors);
    let logger = match target {
        Target::File(path) => {
            let write = whole_lines(open(path)?);
            Logger { lines: Lines::start("log", write, lost(file_line))?, form: file_line }
        }
        Target::Journal => datagrams(JOURNAL, journal_entry)?,
        Target::Syslog => datagrams(SYSLOG, syslog_line)?,
        Target::Stderr => Logger { lines: errors, form: file_line },
    };
    // A second start in one process keeps the first logger.
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
    Ok(())
}

/// A pipe that nobody reads would keep the mount from beginning, for as long as that is so.
fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ENXIO) => anyhow!("it is a pipe or a socket, and nobody reads it: start its reader first"),
        _ => error.into(),
    });
    let file = file.with_context(|| format!("log file {}", path.display()))?;
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

/// What a full file system took of a line ends before the next one begins.
fn whole_lines(mut file: impl Write) -> impl FnMut(&[u8]) -> std::io::Result<()> {
    let mut torn = false;
    move |line| {
        let end: &[u8] = if torn { b"\n" } else { b"" };
        torn = true;
        file.write_all(end).and_then(|()| file.write_all(line)).inspect(|()| torn = false)
    }
}

/// To the socket of that address.
fn datagrams(address: &'static str, form: Form) -> Result<Logger> {
    let socket = UnixDatagram::unbound()?;
    if UnixDatagram::unbound()?.connect(address).is_err() {
        warn(&nobody_listens(address));
    }
    let write = move |line: &[u8]| socket.send_to(line, address).map(|_| ());
    Ok(Logger { lines: Lines::start("log", write, lost(form))?, form })
}

/// What stands where lines are missing.
fn lost(form: Form) -> impl Fn(u64) -> Vec<u8> + Send + 'static {
    move |n| form(Level::Warn, &format!("{n} lines are missing here: they could not be written"))
}

/// Events are sent all the same: who listens may come later.
fn nobody_listens(address: &str) -> String {
    format!("nobody takes log events at {address}: those of this mount are lost; --log FILE keeps them")
}

/// How a line looks where it goes.
type Form = fn(Level, &str) -> Vec<u8>;

struct Logger {
    lines: Lines,
    form: Form,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let text = visible(record.args().to_string().as_bytes());
            self.lines.put((self.form)(record.level(), &text));
        }
    }

    /// Waits a moment, and no longer.
    fn flush(&self) {
        self.lines.flush();
    }
}

fn file_line(level: Level, text: &str) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let word = level.as_str().to_ascii_lowercase();
    format!("{} {word} {text}\n", utc(i64::try_from(now).unwrap_or(i64::MAX))).into_bytes()
}

/// The journal's native protocol; a text without line ends needs its simple form only.
fn journal_entry(level: Level, text: &str) -> Vec<u8> {
    format!(
        "PRIORITY={}\nSYSLOG_IDENTIFIER=runvault\nSYSLOG_PID={}\nMESSAGE={text}\n",
        priority(level),
        std::process::id()
    )
    .into_bytes()
}

fn syslog_line(level: Level, text: &str) -> Vec<u8> {
    format!("<{}>runvault[{}]: {text}", DAEMON * 8 + priority(level), std::process::id()).into_bytes()
}

/// syslog(3)'s numbers.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_word_or_a_file() {
        assert_eq!(Target::of(Some("journal")), Target::Journal);
        assert_eq!(Target::of(Some("syslog")), Target::Syslog);
        assert_eq!(Target::of(Some("stderr")), Target::Stderr);
        assert_eq!(Target::of(Some("/var/log/rv")), Target::File("/var/log/rv".into()));
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_refused_and_one_that_is_read_is_waited_for() {
        use rustix::fs::{CWD, FileType, Mode, fcntl_getfl, mknodat};

        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let refused = format!("{:#}", open(&pipe).unwrap_err());
        assert!(refused.contains("pipe: it is a pipe") && refused.contains("nobody reads it"), "{refused}");
        let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&pipe).unwrap();
        let file = open(&pipe).unwrap();
        assert!(!fcntl_getfl(&file).unwrap().contains(OFlags::NONBLOCK));
        drop(reader);
    }

    /// A file on a disk with so much room.
    #[derive(Clone, Default)]
    struct Disk {
        text: Arc<Mutex<Vec<u8>>>,
        room: Arc<AtomicUsize>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let fit = bytes.len().min(self.room.load(Ordering::Relaxed));
            self.room.fetch_sub(fit, Ordering::Relaxed);
            self.text.lock().unwrap().extend(&bytes[..fit]);
            if fit > 0 || bytes.is_empty() { Ok(fit) } else { Err(std::io::ErrorKind::StorageFull.into()) }
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn half_a_line_ends_before_the_next() {
        let disk = Disk::default();
        let mut write = whole_lines(disk.clone());
        disk.room.store(9, Ordering::Relaxed);
        write(b"first\n").unwrap();
        write(b"second\n").unwrap_err();
        disk.room.store(99, Ordering::Relaxed);
        write(b"third\n").and_then(|()| write(b"fourth\n")).unwrap();
        assert_eq!(*disk.text.lock().unwrap(), b"first\nsec\nthird\nfourth\n");
    }

    #[test]
    fn an_event_is_one_line() {
        let hostile = visible(b"a\nPRIORITY=0");
        assert_eq!(file_line(Level::Info, &hostile).iter().filter(|b| **b == b'\n').count(), 1);
        let entry = String::from_utf8(journal_entry(Level::Warn, &hostile)).unwrap();
        assert!(
            entry.starts_with("PRIORITY=4\n") && entry.ends_with("MESSAGE=a\\x0aPRIORITY=0\n"),
            "{entry}"
        );
        assert!(syslog_line(Level::Error, "x").starts_with(b"<27>runvault["));
    }
}
