//! A store on a network that takes writes, loses them, and says so when a file is flushed or synced.

use std::sync::Arc;
use std::time::Duration;

use runvault_format::ids::RunId;
use runvault_store::backend::Dir;
use runvault_store::doubles::delaying::Delays;
use runvault_store::doubles::faulty::{Fault, Faults, Rule};
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::doubles::observe::Op;
use runvault_store::doubles::recording::Recording;

use crate::file::FileObject;
use crate::file::testing::{Rig, content};
use crate::{Error, Result};

fn remote() -> Arc<dyn Dir> {
    let beneath = MemoryDir::root();
    beneath.create_dir(b"tree", 0o755).unwrap();
    Recording::over_remote(beneath).unwrap().0
}

fn faulty() -> (Rig, Arc<Faults>) {
    let (dir, faults) = Faults::over(remote()).unwrap();
    (Rig::over(dir, 9, RunId([1; 16])), faults)
}

/// Loses the write after so many.
fn lose(faults: &Faults, after: u64) {
    faults.add(Rule { after, ..Rule::next(Op::Write, Fault::Lose(libc::EIO)) });
}

/// What a copy service does with a file that it sends again.
fn anew(rig: &Rig) -> Arc<FileObject> {
    match rig.open("f") {
        Ok(file) => {
            file.truncate(0).unwrap();
            file
        }
        Err(Error::Damaged { .. }) => {
            let file = rig.run.tree.open_file(b"f", runvault_store::backend::Access::ReadWrite).unwrap();
            let ino = file.stat().unwrap().ino;
            FileObject::open_for_replacement(&rig.run, ino, file, Some(Rig::place("f"))).unwrap()
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_close_tells_of_every_write_that_was_lost_and_the_file_can_be_sent_again() {
    for len in [1, 200, 512, 700, 20_000] {
        for lost in 0.. {
            let (rig, faults) = faulty();
            let file = rig.file("f");
            lose(&faults, lost);
            let written = file.write(0, &vec![1; len]);
            if written.and_then(|()| file.flush()).is_ok() {
                assert!(lost > 0, "{len}");
                assert_eq!(content(&file).unwrap(), vec![1; len]);
                break;
            }
            assert!(matches!(file.flush(), Err(Error::Poisoned { .. })), "told once more");
            drop(file);
            faults.clear();
            let file = anew(&rig);
            file.write(0, &vec![2; len]).unwrap();
            file.flush().unwrap();
            drop(file);
            assert_eq!(content(&rig.open("f").unwrap()).unwrap(), vec![2; len], "{len} {lost}");
        }
    }
}

#[test]
fn no_name_changes_before_the_header_that_it_needs_has_arrived() {
    let (rig, faults) = faulty();
    let file = rig.file("f");
    file.write(0, &[1; 700]).unwrap();
    file.flush().unwrap();
    lose(&faults, 0);
    assert!(file.prepare_rename(Rig::place("f"), Rig::place("g"), false).is_err());
}

/// What is done to a file between two closes.
type Act = fn(&Rig, &Arc<FileObject>, &mut Vec<u8>) -> Result<()>;

fn write(file: &Arc<FileObject>, all: &mut Vec<u8>, at: usize, piece: &[u8]) -> Result<()> {
    file.write(at as u64, piece)?;
    let end = at + piece.len();
    all.resize(all.len().max(end), 0);
    all[at..end].copy_from_slice(piece);
    Ok(())
}

const ACTS: [Act; 9] = [
    |_, f, all| write(f, all, 0, &[1; 1300]),
    |_, f, all| write(f, all, all.len(), &[2; 100]),
    |_, f, _| f.fsync(),
    // Durable: by the journal.
    |_, f, all| write(f, all, 100, &[3; 50]),
    |_, f, all| write(f, all, all.len(), &[4; 700]),
    |rig, f, all| write(f, all, 600, &[5; 900]).and_then(|()| rig.run.tick()),
    |_, f, all| {
        all.truncate(1000);
        f.truncate(1000)
    },
    |_, f, all| write(f, all, 900, &[6; 3000]),
    |rig, f, all| write(f, all, 0, &[7; 10]).and_then(|()| rig.run.checkpoint()),
];

/// Whatever is lost, and whenever: the writer was told, or it is there once the store works again.
#[test]
fn what_a_close_acknowledged_is_there_or_its_writer_was_told() {
    let (mut told, mut kept) = (0, 0);
    for lost in 0.. {
        let (rig, faults) = faulty();
        lose(&faults, lost);
        let (mut acknowledged, mut failed) = (Vec::new(), false);
        for act in ACTS {
            let file = rig.file("f");
            let mut all = acknowledged.clone();
            let done = act(&rig, &file, &mut all).and_then(|()| file.flush());
            drop(file);
            let _ = rig.run.tick();
            if done.is_err() {
                failed = true;
                break;
            }
            acknowledged = all;
        }
        for _ in 0..3 {
            let _ = rig.run.tick();
            let _ = rig.run.checkpoint();
        }
        if failed {
            told += 1;
            continue;
        }
        assert!(content(&rig.open("f").unwrap()).unwrap() == acknowledged, "write {lost} was lost");
        rig.run.close().unwrap();
        kept += 1;
        if faults.is_due() {
            break;
        }
    }
    assert!(told > 10 && kept > 1, "{told} {kept}");
}

#[test]
fn a_close_asks_once_and_only_over_a_network() {
    for (far, flushes) in [(true, 1), (false, 0)] {
        let beneath = MemoryDir::root();
        beneath.create_dir(b"tree", 0o755).unwrap();
        let store = if far { remote() } else { beneath };
        let (dir, calls) = Delays::over(store, Duration::ZERO).unwrap();
        let rig = Rig::over(dir, 13, RunId([1; 16]));
        let file = rig.file("f");
        file.write(0, &[1; 20_000]).unwrap();
        file.flush().unwrap();
        file.flush().unwrap();
        assert_eq!(calls.count(Op::Flush), flushes);
    }
}
