//! Through a mount: written as instruments write, read by the programs that analyse runs.

use std::path::Path;
use std::time::SystemTime;

use runvault_sequencer::copy_log::CopyLog;
use runvault_sequencer::family::FAMILIES;
use runvault_sequencer::replay::MODES;
use runvault_sequencer::{Family, Mode, Replay, RunInfo, RunSpec, Size};
use runvault_tests::Site;
use runvault_tests::analysis::{assert_as_generated, assert_generated_fastq, interop_summary};
use runvault_tests::tools::real_runs;

/// Writes through one mount, gives a read-only one of the same vault to `check`.
fn through_a_mount(replay: &Replay, check: impl Fn(&Site, &Path)) {
    let site = Site::in_memory();
    let mount = site.mount();
    let done = replay.run(&mount.at, &mut |_| {}).unwrap_or_else(|e| panic!("{e}\n{}", mount.log()));
    mount.unmount();
    let reader = site.mount_read_only();
    check(&site, &reader.path(done.folder.file_name().expect("a name")));
    reader.unmount();
}

/// Every mode once, and every family at least once.
#[test]
fn every_mode_of_writing_arrives_whole() {
    let _alone = crate::alone();
    for ((mode, name), family) in MODES.into_iter().zip(FAMILIES.into_iter().cycle()) {
        println!("{family}, {name}");
        let spec = RunSpec::preset(family, Size::Tiny).seeded(3);
        let begun = SystemTime::now();
        through_a_mount(&Replay::new(spec.clone()).mode(mode), |_, folder| {
            assert_as_generated(folder, &spec);
            if mode == Mode::Preallocate {
                assert_older_than(folder, begun);
            }
        });
    }
}

/// A copy service sets each file's time last, to one in the past: no byte that is let out later changes it.
fn assert_older_than(dir: &Path, begun: SystemTime) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let (path, meta) = entry.and_then(|e| Ok((e.path(), e.metadata()?))).expect("an entry");
        if meta.is_dir() {
            assert_older_than(&path, begun);
        } else {
            assert!(meta.modified().expect("a time") < begun, "{} has another time", path.display());
        }
    }
}

#[test]
fn picard_finds_the_generator_s_bases_on_the_mount() {
    let _alone = crate::alone();
    for family in FAMILIES {
        let spec = RunSpec::preset(family, Size::Tiny).seeded(5);
        through_a_mount(&Replay::new(spec.clone()).hands(4), |site, folder| {
            assert_generated_fastq(folder, &spec, site.dir());
        });
    }
}

#[test]
fn interop_finds_the_same_on_the_mount() {
    let _alone = crate::alone();
    let spec = RunSpec::preset(Family::NextSeq, Size::Tiny);
    let plain = tempfile::tempdir_in("/dev/shm").expect("a temporary directory");
    let run = Replay::new(spec.clone()).run(plain.path(), &mut |_| {}).expect("a run");
    let expected = interop_summary(&run.folder);
    through_a_mount(&Replay::new(spec), |_, folder| assert_eq!(interop_summary(folder), expected));
}

/// Readers in this process follow a run of a MiSeq and one of a NextSeq while they are written; each file that
/// grows is truncated and written anew after every cycle.
#[test]
fn readers_that_tail_interop_see_old_or_new_bytes() {
    let _alone = crate::alone();
    for family in [Family::MiSeq, Family::NextSeq] {
        let site = Site::in_memory();
        let mount = site.mount();
        let replay = Replay::new(RunSpec::preset(family, Size::Tiny)).mode(Mode::Tailed);
        let done = replay.run(&mount.at, &mut |_| {}).unwrap_or_else(|e| panic!("{family}: {e}"));
        assert!(done.looks > 100, "{family}: only {} looks", done.looks);
        mount.unmount();
    }
}

/// 2,498 copies in the order of a real NextSeq's log, its real files where they exist.
#[test]
fn a_real_nextseq_s_copies_arrive() {
    let _alone = crate::alone();
    let Some(runs) = real_runs() else { return };
    let original = runs.join("170609_NB551051_0017_AHLFFJBGX2");
    let text = |name: &str| std::fs::read_to_string(original.join(name)).expect("a text");
    let log = CopyLog::parse(&text("RTALogs/20170609-2057_FileCopyLog_00.tsv")).expect("a copy log");
    let info = RunInfo::parse(&text("RunInfo.xml")).expect("RunInfo.xml");
    let spec = RunSpec::of_run_info(Family::NextSeq, &info, 20).expect("a NextSeq's geometry");
    let replay = Replay::after_log(spec, &log).originals(&original).mode(Mode::Rewrite);
    let plain = tempfile::tempdir_in("/dev/shm").expect("a temporary directory");
    let expected = replay.run(plain.path(), &mut |_| {}).expect("a run").folder;
    through_a_mount(&replay, |_, folder| {
        for path in log.batches.iter().flat_map(|batch| &batch.paths) {
            let read = |at: &Path| std::fs::read(at.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert!(read(folder) == read(&expected), "{path} differs");
        }
    });
}
