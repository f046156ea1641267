//! Whole run folders in a plain directory: every mode leaves the same files with the same content.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use runvault_sequencer::copy_log::CopyLog;
use runvault_sequencer::family::FAMILIES;
use runvault_sequencer::layout::{self, File};
use runvault_sequencer::replay::MODES;
use runvault_sequencer::{Error, Family, Mode, Replay, RunInfo, RunSpec, Size, synthetic};

/// In memory where that is possible: a disk's journal makes rewriting of many small files slow.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn every_mode_leaves_what_the_generator_says() {
    for family in FAMILIES {
        let spec = RunSpec::preset(family, Size::Tiny).seeded(7);
        let mut first = None;
        for (mode, name) in MODES {
            let dir = scratch();
            let mut events = Vec::new();
            let replay = Replay::new(spec.clone()).mode(mode).readers(3);
            let done = replay.run(dir.path(), &mut |e| events.push(e)).unwrap();
            let tree = tree(&done.folder);
            for (path, bytes) in &tree {
                let file = layout::file_at(family, path).unwrap_or_else(|| panic!("{path}"));
                assert!(*bytes == synthetic::content(&spec, &file).unwrap(), "{family} {name} {path}");
            }
            let last = events.last().unwrap();
            assert_eq!((last.files, last.bytes), (done.files, done.bytes));
            assert_eq!((last.files, last.cycle), (last.files_in_all, last.cycles));
            assert!(events.is_sorted_by_key(|event| (event.cycle, event.files)));
            let tailed = mode == Mode::Tailed;
            // Each reader looks at everything once more after the end.
            assert_eq!((done.looks >= 3, done.longest_look > Duration::ZERO), (tailed, tailed));
            assert!(done.longest_write > Duration::ZERO && done.longest_write <= done.writing);
            assert_eq!(*first.get_or_insert_with(|| tree.clone()), tree, "{family} {name}");
        }
    }
}

#[test]
fn many_hands_write_the_same() {
    let spec = RunSpec::preset(Family::NovaSeqX, Size::Tiny);
    let dirs = [scratch(), scratch()];
    let [one, many] = [(&dirs[0], 1), (&dirs[1], 8)].map(|(dir, hands)| {
        tree(&Replay::new(spec.clone()).hands(hands).run(dir.path(), &mut |_| {}).unwrap().folder)
    });
    assert_eq!(one, many);
}

#[test]
fn speed_sets_the_pace() {
    let dir = scratch();
    let spec = RunSpec::preset(Family::MiSeq, Size::Tiny);
    // 56 cycles of 300 s and a turn of 3,600 s, in two tenths of a second or a little more.
    let begun = Instant::now();
    Replay::new(spec).speed(100_000.0).run(dir.path(), &mut |_| {}).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

#[test]
fn what_fails_is_named_and_ends_it() {
    let dir = scratch();
    let spec = RunSpec::preset(Family::NovaSeq, Size::Tiny);
    fs::create_dir(dir.path().join(&spec.name)).unwrap();
    let blocked = dir.path().join(&spec.name).join("Data");
    fs::write(&blocked, b"not a directory").unwrap();
    let failed = Replay::new(spec.clone()).hands(3).run(dir.path(), &mut |_| {}).unwrap_err();
    assert!(matches!(&failed, Error::Io { path, .. } if path.starts_with(&blocked)), "{failed}");
    let unsound = RunSpec { lanes: 0, ..spec };
    assert!(matches!(Replay::new(unsound).run(dir.path(), &mut |_| {}), Err(Error::Spec(_))));
}

#[test]
fn it_ends_before_the_next_file_when_it_is_told_to() {
    let dir = scratch();
    let stop = Arc::new(AtomicBool::new(false));
    let replay = Replay::new(RunSpec::preset(Family::MiSeq, Size::Tiny)).stopped_by(Arc::clone(&stop));
    let (mut files, mut in_all) = (0, 0);
    let stopped = replay.run(dir.path(), &mut |event| {
        (files, in_all) = (event.files, event.files_in_all);
        if files == 3 {
            stop.store(true, Ordering::Relaxed);
        }
    });
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    assert!(files < in_all / 2, "{files} files of {in_all}");
}

/// The real NextSeq run: its order, its real files where they exist, synthetic ones otherwise.
#[test]
fn a_real_copy_log() {
    let Some(original) = real_run("170609_NB551051_0017_AHLFFJBGX2") else { return };
    let text = fs::read_to_string(original.join("RTALogs/20170609-2057_FileCopyLog_00.tsv")).unwrap();
    let log = CopyLog::parse(&text).unwrap();
    assert_eq!((log.batches.len(), log.requests()), (159, 2498));
    let info = RunInfo::parse(&fs::read_to_string(original.join("RunInfo.xml")).unwrap()).unwrap();
    let spec = RunSpec::of_run_info(Family::NextSeq, &info, 10).unwrap();
    assert_eq!((spec.cycles(), spec.tile_list().len()), (158, 864));
    let dir = scratch();
    let replay = Replay::after_log(spec.clone(), &log).originals(&original);
    let done = replay.run(dir.path(), &mut |_| {}).unwrap();
    assert_eq!(done.files, 2498);
    let tree = tree(&done.folder);
    let unique: std::collections::BTreeSet<_> = log.batches.iter().flat_map(|batch| &batch.paths).collect();
    assert_eq!(tree.keys().collect::<Vec<_>>(), unique.into_iter().collect::<Vec<_>>());
    for (path, bytes) in tree {
        match fs::read(original.join(&path)) {
            Ok(real) => assert!(bytes == real, "{path}"),
            Err(_) => {
                let file = layout::file_at(Family::NextSeq, &path).unwrap();
                assert!(bytes == synthetic::content(&spec, &file).unwrap(), "{path}");
            }
        }
    }
}

#[test]
fn real_run_infos_round_trip() {
    for name in ["170609_NB551051_0017_AHLFFJBGX2", "130417_M00146_0021_000000000-A2WDF"] {
        let Some(run) = real_run(name) else { return };
        let info = RunInfo::parse(&fs::read_to_string(run.join("RunInfo.xml")).unwrap()).unwrap();
        assert_eq!(info.id, name);
        assert_eq!(RunInfo::parse(&info.to_xml()).unwrap(), info);
    }
}

#[test]
fn real_paths_say_what_they_are() {
    let Some(run) = real_run("hiseq-25T8B25T") else { return };
    let calls = tree(&run.join("Data")).into_keys().filter(|path| path.ends_with(".bcl"));
    let files: Vec<_> = calls.map(|path| layout::file_at(Family::HiSeq, &format!("Data/{path}"))).collect();
    assert!(!files.is_empty());
    assert!(files.iter().all(|file| matches!(file, Some(File::BaseCalls { lane: 1, .. }))));
}

fn real_run(name: &str) -> Option<PathBuf> {
    let runs = std::env::var_os("RUNVAULT_RUNS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/runs")),
        PathBuf::from,
    );
    let run = runs.join(name);
    if run.is_dir() {
        return Some(run);
    }
    assert!(std::env::var_os("RUNVAULT_REQUIRE_ALL").is_none(), "{} is missing", run.display());
    println!("left out: no real run folder {}", run.display());
    None
}
