//! Readers' mounts beside one that writes.

use std::fs::{self, File, Metadata};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use runvault_tests::{Mount, Site, tailing};

use crate::live::{Custody, Ends};

const WHILE: Duration = Duration::from_secs(8);
const CHUNK: usize = 8192;

/// A run that is being written, and a reader.
fn written_and_read(custody: &Custody) -> (Mount, Mount) {
    let key = custody.named_key("lab");
    custody.act(&["add-reader", &key, "--standing"]);
    let writer = custody.site.mount();
    fs::create_dir(writer.path("run")).expect("a run");
    (writer, custody.reader("lab"))
}

fn beside_a_writer(site: Site) {
    let custody = Custody::of(site);
    let (writer, lab) = written_and_read(&custody);
    let owner = custody.site.dir().join("owner");
    let owner = custody.site.builder().args(["--read-only", "--open"]).at(&owner).mount();
    tailing::readers_of_what_is_written(&writer.path("run"), &[owner.path("run"), lab.path("run")], WHILE);
    for mount in [owner, lab, writer] {
        mount.unmount();
    }
}

#[test]
fn readers_see_old_or_new_bytes_on_a_disk() {
    beside_a_writer(Site::new());
}

#[test]
fn readers_see_old_or_new_bytes_in_memory() {
    beside_a_writer(Site::in_memory());
}

/// No byte is zero.
fn byte(at: usize) -> u8 {
    (at % 251) as u8 + 1
}

/// Of a file that only grows: as many bytes as were shown are there, for read(2) and in a mapping, and never fewer than
/// before.
fn is_there(file: &File, shown: &Metadata, seen: &mut usize, how: &str) {
    let len = shown.len() as usize;
    assert!(len >= *seen, "{how} shows {len} after {seen}");
    let mut bytes = vec![0; len + CHUNK];
    let got = file.read_at(&mut bytes, 0).expect("read");
    assert!(got >= len, "{how} shows {len}, and {got} can be read");
    *seen = got;
    if len == 0 {
        return;
    }
    // SAFETY: a new mapping of a file, for reading.
    let at = unsafe {
        libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    assert_ne!(at, libc::MAP_FAILED);
    // SAFETY: what was mapped. EFAULT where a program that reads it would get SIGBUS: of two answers that were under way the
    // kernel may believe the older one for a moment.
    let populate = || unsafe { libc::madvise(at, len, libc::MADV_POPULATE_READ) };
    let mut there = populate();
    for _ in 0..10 {
        if there == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        there = populate();
    }
    let error = std::io::Error::last_os_error();
    assert_eq!(there, 0, "{how} shows {len}, which cannot be mapped: {error}");
    // SAFETY: mapped, of that length, and brought in just now.
    let mapped = unsafe { std::slice::from_raw_parts(at.cast::<u8>(), len) };
    let wrong = mapped.iter().enumerate().find(|(at, found)| **found != byte(*at));
    assert_eq!(wrong, None, "{how} shows {len}: a byte of the mapping");
    // SAFETY: what was mapped.
    unsafe { libc::munmap(at, len) };
}

/// What the writer has not synced waits in its memory, while what comes behind that is stored.
#[test]
fn a_size_is_never_ahead_of_what_can_be_read() {
    let custody = Custody::of_one_owner();
    let (writer, lab) = written_and_read(&custody);
    let at = writer.path("run/file");
    let mut file = File::create_new(&at).expect("a file");
    let (mut written, over) = (0, AtomicBool::new(false));
    let shown = lab.path("run/file");
    std::thread::scope(|scope| {
        let writing = Ends(&over);
        for by in ["stat", "fstat", "readdir"] {
            let (over, shown) = (&over, &shown);
            scope.spawn(move || {
                let mut seen = 0;
                while !over.load(Ordering::Relaxed) {
                    // Nobody has it open for a while.
                    sleep(Duration::from_millis(30));
                    let stat = match by {
                        "stat" => fs::metadata(shown),
                        "fstat" => File::open(shown).and_then(|file| file.metadata()),
                        _ => {
                            let mut names = fs::read_dir(shown.parent().expect("a run")).expect("a listing");
                            names.next().map_or(fs::metadata(shown), |entry| entry.expect("it").metadata())
                        }
                    };
                    match stat.and_then(|stat| File::open(shown).map(|file| (stat, file))) {
                        Ok((stat, file)) => is_there(&file, &stat, &mut seen, by),
                        Err(e) => assert_eq!((e.raw_os_error(), seen), (Some(libc::ENOENT), 0), "{by}"),
                    }
                }
            });
        }
        let end = Instant::now() + WHILE;
        while Instant::now() < end {
            for (more, pause) in [(100, 10), (3 * CHUNK, 300), (CHUNK / 2, 300)] {
                let bytes: Vec<u8> = (written..written + more).map(byte).collect();
                file.write_all(&bytes).expect("written");
                written += more;
                sleep(Duration::from_millis(pause));
                file.sync_data().expect("a sync");
            }
        }
        drop(writing);
    });
    drop(file);
    for mount in [lab, writer] {
        mount.unmount();
    }
}

struct Tail(Child);

impl Drop for Tail {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("tail ends");
    }
}

/// As people watch a log, while other programs ask for its size.
#[test]
fn who_follows_a_log_gets_each_line_once() {
    let custody = Custody::of_one_owner();
    let (writer, lab) = written_and_read(&custody);
    let mut log = File::create_new(writer.path("run/log")).expect("a file");
    writeln!(log, "the first").and_then(|()| log.sync_data()).expect("written");
    let shown = lab.path("run/log");
    let until = Instant::now() + Duration::from_secs(10);
    while fs::read(&shown).is_err() {
        assert!(Instant::now() < until, "readers do not see it");
        sleep(Duration::from_millis(20));
    }
    let out = |n: usize| custody.site.dir().join(format!("tail {n}"));
    let follow = |n: usize| {
        let into = |path: &Path| File::create(path).expect("a file");
        let mut tail = Command::new("tail");
        tail.args(["-n", "+1", "-F", "-s", ["0.1", "1"][n % 2]]).arg(&shown).stdin(Stdio::null());
        tail.stdout(into(&out(n))).stderr(into(&out(n).with_extension("said")));
        Tail(tail.spawn().expect("tail"))
    };
    let (mut tails, mut lines) = (Vec::new(), "the first\n".to_owned());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = Ends(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                fs::metadata(&shown).expect("attributes");
                sleep(Duration::from_millis(7));
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                is_never_cut(&shown);
            }
        });
        let (end, mut n) = (Instant::now() + WHILE, 0);
        while Instant::now() < end {
            // What a program reads at first is more than the kernel knew a moment before.
            if n % 50 == 0 {
                tails.push(follow(tails.len()));
            }
            n += 1;
            let line = format!("{n}: {}\n", "x".repeat(n % 300));
            log.write_all(line.as_bytes()).expect("written");
            lines.push_str(&line);
            if n % 3 == 0 {
                log.sync_data().expect("a sync");
            }
            sleep(Duration::from_millis(9));
        }
        drop(writing);
    });
    drop(log);
    let until = Instant::now() + Duration::from_secs(10);
    let got = |n: usize| fs::read_to_string(out(n)).expect("lines");
    while (0..tails.len()).any(|n| got(n).len() < lines.len()) && Instant::now() < until {
        sleep(Duration::from_millis(100));
    }
    let count = tails.len();
    drop(tails);
    for n in 0..count {
        let said = fs::read_to_string(out(n).with_extension("said")).expect("words");
        assert_eq!(said, "", "of {} bytes, tail {n} got {}", lines.len(), got(n).len());
        assert!(got(n) == lines, "tail {n} got other lines");
    }
    for mount in [lab, writer] {
        mount.unmount();
    }
}

/// What was read of a log is in its size, for a while.
fn is_never_cut(log: &Path) {
    let file = File::open(log).expect("the log");
    let (mut seen, mut bytes) = (0, [0; 4096]);
    for _ in 0..100 {
        while let n @ 1.. = file.read_at(&mut bytes, seen).expect("read") {
            seen += n as u64;
        }
        let size = file.metadata().expect("attributes").len();
        assert!(size >= seen, "{seen} bytes were read of {size}");
        sleep(Duration::from_millis(2));
    }
}
