//! Seals by markers, while programs still write and others read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use runvault_sequencer::{Family, Replay, RunSpec, Size};
use runvault_tests::making::of_few_cycles;
use runvault_tests::tools::{printed, run, runvault};
use runvault_tests::{Random, Site};

const RUNS: u64 = 3;
const LATE: u64 = 2;

/// What a file has that was acknowledged.
type Acknowledged = BTreeMap<PathBuf, Vec<u8>>;

fn write(path: &Path, pieces: &[Vec<u8>], random: &mut Random) -> io::Result<()> {
    fs::create_dir_all(path.parent().expect("a folder"))?;
    let mut file = File::create_new(path)?;
    for piece in pieces {
        file.write_all(piece)?;
        if random.below(4) == 0 {
            std::thread::sleep(Duration::from_millis(random.below(40)));
        }
    }
    if random.below(3) == 0 { file.sync_all() } else { Ok(()) }
}

/// A program whose files come late, before the seal of their run and after it.
fn come_late(at: &Path, runs: &[String], me: u64, done: &AtomicBool) -> Acknowledged {
    let (mut random, mut files, mut n) = (Random::of(me), Acknowledged::new(), 0);
    while !done.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(random.below(1600)));
        for name in runs {
            n += 1;
            let file = Path::new(name).join(format!("Logs/{me}/{n}"));
            let pieces: Vec<_> = (0..1 + random.below(3)).map(|_| random.some(20_000)).collect();
            match write(&at.join(&file), &pieces, &mut random) {
                Ok(()) => drop(files.insert(file, pieces.concat())),
                // The run that it was opened in is being sealed, or has just been.
                Err(e) => assert!(
                    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESTALE | libc::EROFS | libc::EBUSY)),
                    "{}: {e}",
                    file.display()
                ),
            }
        }
    }
    files
}

/// What is there of a late file is the beginning of one, or all of it.
fn read_along(at: &Path, runs: &[String], done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        for name in runs {
            for me in 0..LATE {
                let Ok(names) = fs::read_dir(at.join(name).join(format!("Logs/{me}"))) else { continue };
                for entry in names.flatten() {
                    let _ = fs::read(entry.path());
                }
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_comes_while_runs_are_sealed_is_in_them_or_added_to_them() {
    let site = Site::new();
    site.enroll();
    let gateway = site.ingest().args(["--quiet", "1s"]).mount();
    let owner = site.builder().args(["--read-only", "--open"]).at(&site.dir().join("owner"));
    let owner = owner.state(&site.dir().join("owners")).mount();
    let runs: Vec<String> = (0..RUNS).map(|n| format!("20250214_LH00999_{n:04}_A22RVTSTT{n}")).collect();
    let (done, at) = (AtomicBool::new(false), gateway.at.clone());
    let acknowledged = std::thread::scope(|scope| {
        let late: Vec<_> = (0..LATE)
            .map(|me| {
                scope.spawn({
                    let (at, runs, done) = (&at, &runs, &done);
                    move || come_late(at, runs, me, done)
                })
            })
            .collect();
        scope.spawn(|| read_along(&owner.at, &runs, &done));
        let instruments: Vec<_> = runs
            .iter()
            .map(|name| {
                let spec = of_few_cycles(RunSpec::preset(Family::NovaSeqX, Size::Tiny));
                let spec = RunSpec { name: name.clone(), ..spec };
                scope.spawn(|| Replay::new(spec).run(&at, &mut |_| {}).expect("a run"))
            })
            .collect();
        instruments.into_iter().for_each(|instrument| drop(instrument.join().expect("an instrument")));
        let until = Instant::now() + Duration::from_secs(60);
        while gateway.log().matches("is sealed: seal ").count() < runs.len() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(Duration::from_secs(3));
        done.store(true, Ordering::Relaxed);
        late.into_iter().flat_map(|one| one.join().expect("a late one")).collect::<Acknowledged>()
    });
    let log = gateway.log();
    for name in &runs {
        let mut seal = Command::new(runvault());
        run(seal.args(["seal", "--state"]).arg(&site.state).arg(&site.store).arg(name));
    }
    gateway.unmount();
    owner.unmount();
    assert!(acknowledged.len() > 10, "{}", acknowledged.len());
    let mount = site.builder().arg("--read-only").mount();
    for (file, content) in &acknowledged {
        let found = fs::read(mount.path(file)).unwrap_or_else(|e| panic!("{}: {e}\n{log}", file.display()));
        assert!(found == *content, "{} is another one\n{log}", file.display());
    }
    mount.unmount();
    for name in &runs {
        let verified = run(site.command(&["verify"]).arg(&site.store).arg(name));
        assert!(printed(&verified).matches("is as gateway").count() > 1, "{}", printed(&verified));
    }
}
