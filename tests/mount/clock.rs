//! A clock that jumps while a run is written: set right by a service, or wrong by a person.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use runvault_sequencer::{Family, Replay, RunSpec, Size};
use runvault_tests::tools::{faketime, printed, run, runvault};
use runvault_tests::{Mount, Site};

const DAY: i64 = 24 * 3600;

/// The wall clock of one process, which a file moves.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// `None` leaves a test out, and says so: there is no libfaketime.
    fn new(dir: &Path) -> Option<Self> {
        let library = faketime()?;
        let clock = Self { library, file: dir.join("clock") };
        clock.is_off_by(0);
        Some(clock)
    }

    /// Whole at once: it is read at every question for the time.
    fn is_off_by(&self, seconds: i64) {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n")).expect("a file");
        fs::rename(new, &self.file).expect("renamed");
    }

    /// A gateway's mount by this clock. Times since boot stay what they are, as on a machine whose clock is set.
    fn ingest(&self, site: &Site, options: &str) -> Mount {
        let mount = site.ingest().arg("-o").arg(options).env("LD_PRELOAD", &self.library);
        let mount = mount.env("FAKETIME_TIMESTAMP_FILE", &self.file).env("FAKETIME_NO_CACHE", "1");
        mount.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1").mount()
    }
}

/// Backwards by a day and forwards by a month, while it is sequenced and while its last files are sent: to whoever
/// judges silence by the time of day, it was quiet for long each time.
#[test]
fn jumps_seal_no_half_run_and_lose_none() {
    let site = Site::new();
    let Some(clock) = Clock::new(site.dir()) else { return };
    site.enroll();
    let mount = clock.ingest(&site, "quiet=2s");
    let spec = RunSpec::preset(Family::NovaSeqX, Size::Tiny);
    let jumps = [(10, -DAY), (20, 30 * DAY), (30, -DAY)];
    let mut ahead = jumps.iter().peekable();
    let done = Replay::new(spec)
        .run(&mount.at, &mut |event| {
            while ahead
                .next_if(|(cycle, _)| *cycle == event.cycle)
                .map(|(_, to)| clock.is_off_by(*to))
                .is_some()
            {
                // Those who look every half second have looked.
                std::thread::sleep(Duration::from_millis(700));
            }
            if event.path.ends_with("RTAComplete.txt") {
                clock.is_off_by(60 * DAY);
                std::thread::sleep(Duration::from_millis(700));
            }
            let log = mount.log();
            assert!(
                !log.contains("is sealed: seal") && !log.contains("was it aborted"),
                "in cycle {}:\n{log}",
                event.cycle
            );
        })
        .unwrap_or_else(|e| panic!("{e}\n{}", mount.log()));
    mount.logged("is sealed: seal", 1);
    // Set right after a seal in its future: the next run begins before the last one ended.
    clock.is_off_by(0);
    let next =
        Replay::new(RunSpec::preset(Family::MiSeq, Size::Tiny)).run(&mount.at, &mut |_| {}).expect("a run");
    mount.logged("is sealed: seal", 2);
    assert!(!mount.log().contains("lease"), "{}", mount.log());
    mount.unmount();
    let scrubbed = run(Command::new(runvault()).args(["scrub", "--state"]).arg(&site.state).arg(&site.store));
    assert!(printed(&scrubbed).contains("2 sealed runs as signed"), "{}", printed(&scrubbed));
    let [first, next] = [done, next].map(|done| done.folder.file_name().expect("a name").to_owned());
    let (first_told, next_told) = (told(&site, &first), told(&site, &next));
    let (sealed, begun) = (first_told["sealed"].as_str(), next_told["begun"].as_str());
    assert!(sealed.is_some() && sealed > begun, "the clock did not jump: {first_told} {next_told}");
    for name in [first, next] {
        assert_eq!(site.verified(name.as_ref())["complete"], true);
    }
}

#[test]
fn a_clock_that_is_set_is_an_alarm() {
    let site = Site::new();
    let Some(clock) = Clock::new(site.dir()) else { return };
    site.enroll();
    let mount = clock.ingest(&site, "quiet=2s");
    // It is looked at every half second.
    std::thread::sleep(Duration::from_millis(1200));
    assert!(!mount.log().contains("alarm clock"), "{}", mount.log());
    clock.is_off_by(-3600);
    mount.logged("alarm clock raised: the clock was set by -3", 1);
    let said =
        run(Command::new(runvault()).args(["runs", "--json", "--state"]).arg(&site.state).arg(&site.store));
    assert!(printed(&said).contains("\"alarm\":\"clock\""), "{}", printed(&said));
    mount.unmount();
}

/// As `runs` tells its owner.
fn told(site: &Site, name: &OsStr) -> serde_json::Value {
    let said = run(site.command(&["runs", "--json"]).arg(&site.store)).stdout;
    let runs = String::from_utf8(said).expect("UTF-8");
    let mut runs = runs.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    runs.find(|run| OsStr::new(run["name"].as_str().unwrap_or_default()) == name).expect("a run")
}
