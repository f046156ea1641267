//! A store that fills up, and one whose link breaks, in the middle of a run that a copy service brings to a gateway.
//! The service sends again what failed, as services do, and ends with the whole run.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use runvault_sequencer::{Event, Family, Replay, RunSpec, Size};
use runvault_tests::image::Image;
use runvault_tests::site::{detach, is_mounted};
use runvault_tests::snapshot::contents;
use runvault_tests::tools::{root_for, run};
use runvault_tests::watched::{Seen, Watched};
use runvault_tests::{Mount, Site};
use rustix::process::Signal;

use super::full::fill;
use super::hang::PROMISE;
use super::link::{Link, RECONNECT, SYNC};

/// What is written beside the run, in it.
const OWN: &str = "Logs/of its own.log";

/// Files of several chunks.
fn spec() -> RunSpec {
    RunSpec { clusters_per_tile: 20_000, ..RunSpec::preset(Family::NovaSeqX, Size::Tiny) }
}

/// The run, by a service that does not give up; what it met, and how often a file was refused.
fn replayed(at: &Path, progress: &mut dyn FnMut(&Event)) -> Seen {
    let watched = Arc::new(Watched::default());
    let replay = Replay::new(spec()).place(watched.clone()).patience(PROMISE);
    replay.run(at, &mut |event| progress(&event)).expect("the whole run is written");
    watched.seen()
}

/// Sealed by its marker, complete, and to its owner what was sent; gives what else it holds.
fn whole(site: &Site, mount: Mount) -> BTreeMap<PathBuf, Vec<u8>> {
    mount.logged("is sealed: seal 1 of this gateway", 1);
    mount.unmount();
    let name = spec().name;
    assert_eq!(site.verified(name.as_ref())["complete"], true);
    let plain = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let sent = Replay::new(spec()).run(plain.path(), &mut |_| {}).expect("a plain run");
    let reader = site.builder().arg("--read-only").state(&site.dir().join("owner")).mount();
    let mut found = contents(&reader.path(&name));
    reader.unmount();
    for (path, bytes) in contents(&sent.folder) {
        assert!(found.remove(&path).as_ref() == Some(&bytes), "{} is another", path.display());
    }
    found
}

#[test]
fn a_store_that_is_full_at_90_percent_of_a_run_gets_all_of_it_once_there_is_space() {
    if !root_for("a loop image") {
        return;
    }
    let image = Image::new("ext4", 128);
    // The state folder has its room elsewhere, as it is meant to.
    let mut site = Site::in_memory();
    site.enroll();
    let moved = image.path().join("store");
    run(Command::new("cp").arg("-a").arg(&site.store).arg(&moved));
    site.store = moved;
    let mount = site.ingest().arg("--quiet").arg("2s").mount();
    let filler = image.path().join("filler");
    let mut full = false;
    let seen = replayed(&mount.at, &mut |event| {
        if !full && event.files * 10 >= event.files_in_all * 9 {
            full = true;
            fill(&filler);
            let filler = filler.clone();
            // Somebody is told, and makes room.
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(2));
                fs::remove_file(filler).expect("room");
            });
        }
    });
    assert!(!seen.errors.is_empty() && seen.errors.iter().all(|errno| *errno == libc::ENOSPC), "{seen:?}");
    assert!(whole(&site, mount).is_empty());
}

/// Stops whoever waits for it, also when a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the writer of a log was promised.
#[derive(Default)]
struct Acknowledged {
    bytes: Vec<u8>,
    refused: usize,
    /// Records since the last refusal.
    since: usize,
}

/// A log of which every record is synced; whoever writes it opens it again after an error.
fn records(path: &Path, stop: &AtomicBool) -> Acknowledged {
    let (mut got, mut file) = (Acknowledged::default(), None);
    let mut ends = None;
    // The run may be done before the log was let go on.
    while !stop.load(Ordering::Relaxed)
        || (got.since == 0 && ends.get_or_insert_with(Instant::now).elapsed() < PROMISE)
    {
        let record = format!("record at {:08}\n", got.bytes.len()).into_bytes();
        let opened = file.take().map_or_else(|| again(path, &got.bytes), Ok);
        let written = opened.and_then(|mut open: File| {
            open.write_all(&record)?;
            open.sync_all()?;
            Ok(open)
        });
        match written {
            Ok(open) => {
                got.bytes.extend(record);
                (file, got.since) = (Some(open), got.since + 1);
            }
            Err(missing) if missing.kind() == ErrorKind::NotFound => {}
            Err(_) => (got.refused, got.since) = (got.refused + 1, 0),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    got
}

/// Opens the log and cuts what nobody acknowledged.
fn again(path: &Path, acknowledged: &[u8]) -> std::io::Result<File> {
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let mut found = Vec::new();
    file.read_to_end(&mut found)?;
    assert!(
        found.starts_with(acknowledged),
        "acknowledged were {} bytes, of {}",
        acknowledged.len(),
        found.len()
    );
    file.set_len(acknowledged.len() as u64)?;
    Ok(file)
}

/// The run, beside a log of which every record is synced. What their writers met, and the log.
fn beside_a_log(at: &Path, progress: &mut dyn FnMut(&Event)) -> (Seen, Acknowledged) {
    let (stop, log) = (AtomicBool::new(false), at.join(spec().name).join(OWN));
    std::thread::scope(|scope| {
        let records = scope.spawn(|| records(&log, &stop));
        let until = Stop(&stop);
        let seen = replayed(at, progress);
        drop(until);
        (seen, records.join().expect("the log's writer"))
    })
}

/// Both went through an interruption, and nothing that was acknowledged is missing.
fn nothing_missing(site: &Site, mount: Mount, (seen, got): (Seen, Acknowledged), errors: &[i32]) {
    assert!(!seen.errors.is_empty() && got.refused > 0, "nobody noticed");
    assert!(seen.errors.iter().all(|errno| errors.contains(errno)), "{seen:?}\n{}", mount.log());
    assert!(seen.longest < PROMISE, "{seen:?}");
    assert!(got.since > 0, "the log does not go on\n{}", mount.log());
    let more = whole(site, mount);
    let own = Path::new(OWN);
    assert_eq!(more.keys().collect::<Vec<_>>(), [own]);
    assert!(
        more[own].starts_with(&got.bytes),
        "acknowledged were {}, of {}",
        got.bytes.len(),
        more[own].len()
    );
}

#[test]
fn a_store_whose_link_breaks_in_a_run_gets_all_of_it_once_it_is_back() {
    let site = Site::new();
    site.enroll();
    let Some(link) = Link::new(&site.store, site.dir(), RECONNECT) else { return };
    let mount = site.ingest().store(&link.at).arg("--quiet").arg("2s").mount();
    let mut cut = [20, 40].into_iter().peekable();
    let met = beside_a_log(&mount.at, &mut |event| {
        if cut.next_if_eq(&event.cycle).is_some() {
            link.cut();
            let back = link.way_back();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(1));
                back();
            });
        }
    });
    nothing_missing(&site, mount, met, &[libc::EIO]);
}

/// Kept in the middle of it by nothing but the unit that starts it again.
#[test]
fn a_run_goes_on_after_its_gateway_was_killed() {
    let site = Site::new();
    site.enroll();
    let start = || site.ingest().arg("--quiet").arg("2s").mount();
    let mut first = Some(start());
    let at = site.at.clone();
    let (met, mount) = std::thread::scope(|scope| {
        let mut next = None;
        let met = beside_a_log(&at, &mut |event| {
            if let Some(killed) = first.take_if(|_| event.cycle == 20) {
                killed.signal(Signal::KILL);
                next = Some(scope.spawn(|| {
                    std::thread::sleep(Duration::from_secs(1));
                    killed.kill();
                    start()
                }));
            }
        });
        (met, next.expect("it was killed").join().expect("a second mount"))
    });
    // Of the dead mount, of the bare mount point, of a request that was on its way.
    nothing_missing(&site, mount, met, &[libc::ENOTCONN, libc::EPERM, libc::ECONNABORTED]);
    assert_eq!(fs::read_dir(site.store.join("runs")).expect("runs").count(), 1, "it is the same run");
}

/// The mount ends once the share is there again, and whoever starts services starts it anew.
#[test]
fn a_run_goes_on_after_sshfs_was_killed_and_the_share_mounted_again() {
    let site = Site::new();
    site.enroll();
    let Some(link) = Link::new(&site.store, site.dir(), SYNC) else { return };
    let start = || site.ingest().store(&link.at).arg("--quiet").arg("2s").mount();
    let first = start();
    let at = first.at.clone();
    let (met, mount) = std::thread::scope(|scope| {
        let service = scope.spawn(|| {
            let (log, status) = (first.log_path(), first.wait());
            let log = fs::read_to_string(log).expect("a log");
            assert_eq!(status.code(), Some(1), "{log}");
            assert!(log.contains("the store's file system had ended, and is another now"), "{log}");
            detach(&at);
            start()
        });
        let mut killed = false;
        let met = beside_a_log(&at, &mut |event| {
            if !killed && event.cycle == 20 {
                killed = true;
                link.end();
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_secs(1));
                    detach(&link.at);
                    assert!(link.begin());
                });
            }
        });
        (met, service.join().expect("a second mount"))
    });
    // Of the store, of the dead mount, of the bare mount point, of a request that was on its way.
    nothing_missing(&site, mount, met, &[libc::EIO, libc::ENOTCONN, libc::EPERM, libc::ECONNABORTED]);
}

/// The chain of custody can be read all the time: what is waited for is the share.
#[test]
fn a_mount_whose_custody_lies_elsewhere_ends_too_once_its_share_is_mounted_again() {
    let site = Site::new();
    site.enroll();
    let apart = site.dir().join("custody");
    fs::rename(site.store.join("custody"), &apart).expect("it lies elsewhere");
    let Some(link) = Link::new(&site.store, site.dir(), SYNC) else { return };
    let start = || site.ingest().store(&link.at).arg("--custody").arg(&apart).mount();
    let mount = start();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/file"), b"written").expect("a file");
    link.end();
    mount.logged("the store's file system has ended", 1);
    detach(&link.at);
    std::thread::sleep(Duration::from_secs(4));
    assert!(is_mounted(&mount.at), "a bare mount point is no store:\n{}", mount.log());
    assert!(link.begin());
    let (at, log, status) = (mount.at.clone(), mount.log_path(), mount.wait());
    let log = fs::read_to_string(log).expect("a log");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("the store's file system had ended, and is another now"), "{log}");
    detach(&at);
    let mount = start();
    assert_eq!(fs::read(mount.path("run/file")).expect("read"), b"written");
    mount.unmount();
}
