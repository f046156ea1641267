//! What comes after a run's base calling has ended, and what does not.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use runvault_sequencer::replay::place::{Directory, How, Opened, Place};
use runvault_sequencer::{Family, Replay, RunSpec, Size};
use runvault_tests::Site;
use runvault_tests::snapshot::contents;
use runvault_tests::tools::{printed, run, runvault};
use serde_json::Value;

/// A directory to which nothing is sent for a while after RTAComplete.txt.
#[derive(Default)]
struct Pausing(AtomicU8);

impl Place for Pausing {
    fn open(&self, path: &Path, how: How) -> io::Result<Box<dyn Opened + '_>> {
        if path.ends_with("RTAComplete.txt") {
            self.0.store(1, Ordering::Relaxed);
        } else if self.0.compare_exchange(1, 2, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            std::thread::sleep(Duration::from_secs(3));
        }
        Directory.open(path, how)
    }

    fn make_dirs(&self, dir: &Path) -> io::Result<()> {
        Directory.make_dirs(dir)
    }

    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()> {
        Directory.rename_over(from, to)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Directory.read(path)
    }
}

/// A NextSeq sends RunInfo.xml and others again after RTAComplete.txt, a NovaSeq X its last files before
/// CopyComplete.txt: however quiet it was in between.
#[test]
fn nothing_is_sealed_between_the_end_of_base_calling_and_the_last_files() {
    for family in [Family::NextSeq, Family::NovaSeqX] {
        let site = Site::new();
        site.enroll();
        let mount = site.ingest().arg("--quiet").arg("2s").mount();
        let replay = Replay::new(RunSpec::preset(family, Size::Tiny));
        let plain = tempfile::tempdir_in("/dev/shm").expect("a folder");
        let expected = replay.run(plain.path(), &mut |_| {}).expect("a plain run").folder;
        let done = replay.place(Arc::new(Pausing::default())).run(&mount.at, &mut |_| {});
        let done = done.unwrap_or_else(|e| panic!("{e}\n{}", mount.log()));
        assert!(mount.log().contains("base calling has ended; files are still sent"), "{}", mount.log());
        mount.logged("is sealed: seal 1 of this gateway", 1);
        mount.unmount();
        let name = Path::new(done.folder.file_name().expect("a name"));
        let about = site.verified(name);
        assert_eq!(about["complete"], true, "{about}");
        assert_ne!(about["ended"], "RTAComplete.txt", "{about}");
        let reader = site.mount_read_only();
        assert!(contents(&reader.path(name)) == contents(&expected), "{family}");
        reader.unmount();
    }
}

/// One that is given up writes no marker, or one that says nothing of the base calls.
#[test]
fn a_run_that_was_aborted_says_so() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().arg("-o").arg("quiet=2s,drained=2s,abandoned=2s").mount();
    let done = Replay::new(RunSpec::preset(Family::NextSeq, Size::Tiny)).run(&mount.at, &mut |event| {
        // Before anybody looks: half a run, with no end.
        if event.files == event.files_in_all {
            let folder = mount.path(RunSpec::preset(Family::NextSeq, Size::Tiny).name);
            for marker in ["RTAComplete.txt", "RunCompletionStatus.xml", "CopyComplete.txt"] {
                fs::remove_file(folder.join(marker)).expect("a marker");
            }
            for cycle in 31..=60 {
                for lane in ["L001", "L002"] {
                    let call = format!("Data/Intensities/BaseCalls/{lane}/{cycle:04}.bcl.bgzf");
                    fs::remove_file(folder.join(call)).expect("a file");
                }
            }
        }
    });
    let folder = done.expect("a run").folder;
    mount.logged("no marker is there: was it aborted? It is sealed by hand only", 1);
    let runs = || {
        let mut runs = Command::new(runvault());
        let said = run(runs.args(["runs", "--json", "--state"]).arg(&site.state).arg(&site.store)).stdout;
        // Alarms have lines of their own.
        let lines = said.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let mut objects = lines.map(|line| serde_json::from_slice::<Value>(line).expect("JSON"));
        objects.find(|object| object["state"].is_string()).expect("the run")
    };
    let told = runs();
    assert_eq!((&told["state"], &told["cycle"]), (&"silent".into(), &30.into()), "{told}");
    assert!(told["waits_for"].as_str().is_some_and(|what| what.starts_with("a person: ")), "{told}");
    assert!(!mount.log().contains("is sealed: seal"), "{}", mount.log());
    // The control software's file, of a run that was stopped.
    let status =
        "<RunCompletionStatus><CompletionStatus>StoppedByUser</CompletionStatus></RunCompletionStatus>";
    fs::write(folder.join("RunCompletionStatus.xml"), status).expect("a marker");
    mount.logged("is sealed: seal 1 of this gateway", 1);
    assert!(mount.log().contains("is incomplete: "), "{}", mount.log());
    mount.unmount();
    let about = site.verified(Path::new(folder.file_name().expect("a name")));
    assert_eq!((&about["complete"], &about["ended"]), (&false.into(), &"RunCompletionStatus.xml".into()));
    let table = printed(&run(site.command(&["runs"]).arg(&site.store)));
    assert!(table.contains("incomplete: L001 C31.1"), "{table}");
}
