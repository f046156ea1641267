//! Kills, journals that were cut or are another session's, and recovery begun again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use runvault_format::ids::{RunId, SessionId};
use runvault_store::backend::{Access, Dir, Rename, SetTime, Time};
use runvault_store::doubles::observe::{Call, Observer, Op, observe};

use super::{Counted, JournalFiles, Recovered, count, log, recover, replay};
use crate::file::testing::{Rig, content};
use crate::{Damage, Error};

/// A run with a durable file "f" of four chunks of ones, the second overwritten with twos, synced.
fn overwritten() -> Rig {
    let rig = Rig::new(9);
    let file = rig.file("f");
    file.write(0, &[1; 2048]).unwrap();
    file.fsync().unwrap();
    file.write(512, &[2; 512]).unwrap();
    file.fsync().unwrap();
    rig
}

/// The second chunk as a torn write leaves it.
fn tear(rig: &Rig) {
    let file = rig.run.tree.open_file(b"f", Access::ReadWrite).unwrap();
    file.write_at(&[0xee; 270], 1024 + 540 + 270).unwrap();
}

fn journal(rig: &Rig) -> Arc<dyn Dir> {
    rig.dir.open_dir(b"journal").unwrap()
}

fn expect_overwritten(rig: &Rig) {
    let all = content(&rig.open("f").unwrap()).unwrap();
    assert!(all[..512] == [1; 512] && all[512..1024] == [2; 512] && all[1024..] == [1; 1024]);
}

#[test]
fn a_torn_chunk_is_made_good_once() {
    let rig = overwritten();
    tear(&rig);
    let done = recover(&rig.run, &rig.dir, &rig.session).unwrap();
    assert_eq!(done, Recovered { records: 1, replayed: 1, files: 1, skipped: 0, left: 0 });
    let again = recover(&rig.run, &rig.dir, &rig.session).unwrap();
    assert_eq!(again, Recovered::default());
    expect_overwritten(&rig.killed());
}

/// A power cut inside the first record of a session: only who knows the session can tell it from a stranger's.
#[test]
fn a_torn_first_record_is_named_where_the_session_is_not_known() {
    let rig = overwritten();
    assert_eq!(count(&rig.run, &rig.dir, None).unwrap(), Counted { records: 1, behind: 0 });
    journal(&rig).open_file(b"0", Access::ReadWrite).unwrap().write_at(&[0; 512], 512).unwrap();
    assert_eq!(count(&rig.run, &rig.dir, Some(rig.session)).unwrap(), Counted::default());
    assert!(matches!(count(&rig.run, &rig.dir, None), Err(Error::Damaged { damage: Damage::Run(_), .. })));
    recover(&rig.run, &rig.dir, &rig.session).unwrap();
    assert_eq!(count(&rig.run, &rig.dir, None).unwrap(), Counted::default());
    expect_overwritten(&rig.killed());
}

/// A power cut and a damaged sector: the records come in place all the same, and nothing is cut by the copy that is
/// left, which may be the older one.
#[test]
fn a_damaged_header_copy_hides_no_record_and_cuts_nothing() {
    for copy in [100, 612] {
        let rig = overwritten();
        let file = rig.open("f").unwrap();
        file.write(2048, &[3; 700]).unwrap();
        file.fsync().unwrap();
        file.write(512, &[4; 512]).unwrap();
        file.fsync().unwrap();
        drop(file);
        tear(&rig);
        let stored = rig.run.tree.open_file(b"f", Access::ReadWrite).unwrap();
        stored.write_at(&[0x55; 7], copy).unwrap();
        let mtime = Time { sec: 1_000_000, nsec: 7 };
        stored.set_times(SetTime::Omit, SetTime::At(mtime)).unwrap();
        let rig = rig.killed();
        assert_eq!(stored.stat().unwrap().mtime, mtime, "{copy}");
        let file = rig.open("f").unwrap();
        assert!(file.has_lost_copy(), "{copy}");
        let all = content(&file).unwrap();
        assert_eq!(all.len(), 2748, "{copy}");
        assert!(all[..512] == [1; 512] && all[512..1024] == [4; 512] && all[2048..] == [3; 700], "{copy}");
    }
}

/// The name of a record's file leads to another one by now.
#[test]
fn a_record_never_goes_into_another_file() {
    let rig = overwritten();
    let other = rig.file("g");
    other.write(0, &[5; 2048]).unwrap();
    other.fsync().unwrap();
    let files = JournalFiles::open_existing(&rig.dir).unwrap().unwrap();
    let (_, records) = log::read(&rig.run, &files, &rig.session).unwrap();
    let done = replay::file(&rig.run, &**other.stored(), &rig.session, &Vec::from_iter(&records)).unwrap();
    assert_eq!(done, Some(0));
    drop(other);
    assert_eq!(content(&rig.remounted().open("g").unwrap()).unwrap(), [5; 2048]);
}

#[test]
fn begun_again_it_does_the_same() {
    let rig = overwritten();
    tear(&rig);
    let mut saved = vec![0; 256 << 10];
    let file = journal(&rig).open_file(b"0", Access::ReadWrite).unwrap();
    file.read_at(&mut saved, 0).unwrap();
    for _ in 0..3 {
        file.write_at(&saved, 0).unwrap();
        tear(&rig);
        recover(&rig.run, &rig.dir, &rig.session).unwrap();
    }
    expect_overwritten(&rig.killed());
}

#[test]
fn another_sessions_journal_is_a_persons_decision() {
    let rig = overwritten();
    let refused = recover(&rig.run, &rig.dir, &SessionId([9; 16]));
    assert!(matches!(refused, Err(Error::Damaged { damage: Damage::Run(_), .. })), "{refused:?}");
}

#[test]
fn a_damaged_record_ends_the_log() {
    let rig = overwritten();
    let file = rig.open("f").unwrap();
    for chunk in [2, 3] {
        file.write(chunk * 512, &[3; 512]).unwrap();
        file.fsync().unwrap();
    }
    drop(file);
    assert_eq!(count(&rig.run, &rig.dir, None).unwrap(), Counted { records: 3, behind: 0 });
    let stored = journal(&rig).open_file(b"0", Access::ReadWrite).unwrap();
    let mut second = [0; 1024];
    stored.read_at(&mut second, 1024).unwrap();
    stored.write_at(&[0x55], 1024 + 300).unwrap();
    // Somewhere else it is no record that the log goes on with.
    stored.write_at(&second, 128 << 10).unwrap();
    assert_eq!(count(&rig.run, &rig.dir, None).unwrap(), Counted { records: 1, behind: 2 });
    stored.write_at(&[0; 1024], 128 << 10).unwrap();
    assert_eq!(count(&rig.run, &rig.dir, None).unwrap(), Counted { records: 1, behind: 1 });
    // One that claims to go on beyond the end of the file hides nothing.
    stored.write_at(&(1u32 << 16).to_le_bytes(), 1024 + 8).unwrap();
    assert_eq!(count(&rig.run, &rig.dir, None).unwrap(), Counted { records: 1, behind: 1 });
    // The first one too; only who knows the session can tell that.
    let mut first = [0; 1];
    stored.read_at(&mut first, 300).unwrap();
    stored.write_at(&[!first[0]], 300).unwrap();
    assert_eq!(count(&rig.run, &rig.dir, Some(rig.session)).unwrap(), Counted { records: 0, behind: 1 });
    stored.write_at(&first, 300).unwrap();
    let done = recover(&rig.run, &rig.dir, &rig.session).unwrap();
    assert_eq!((done.records, done.replayed), (1, 1));
}

#[test]
fn a_file_that_is_gone_or_another_is_passed_over() {
    let rig = overwritten();
    rig.run.tree.rename(b"f", &*rig.run.tree, b"away", Rename::Over).unwrap();
    let done = recover(&rig.run, &rig.dir, &rig.session).unwrap();
    assert_eq!((done.records, done.replayed, done.skipped), (1, 0, 1));
    let rig = overwritten();
    rig.run.tree.unlink(b"f").unwrap();
    rig.run.tree.create_symlink(b"f", b"/etc/passwd").unwrap();
    assert_eq!(recover(&rig.run, &rig.dir, &rig.session).unwrap().replayed, 0);
    let rig = overwritten();
    rig.run.tree.unlink(b"f").unwrap();
    let other = rig.file("f");
    other.write(0, &[5; 1500]).unwrap();
    other.fsync().unwrap();
    assert_eq!(recover(&rig.run, &rig.dir, &rig.session).unwrap().replayed, 0);
    assert_eq!(content(&other).unwrap(), [5; 1500]);
}

#[test]
fn records_before_a_truncation_stay_away() {
    let rig = overwritten();
    let file = rig.open("f").unwrap();
    file.truncate(512).unwrap();
    file.write(512, &[7; 700]).unwrap();
    file.fsync().unwrap();
    drop(file);
    let rig = rig.killed();
    let all = content(&rig.open("f").unwrap()).unwrap();
    assert!(all[..512] == [1; 512] && all[512..] == [7; 700]);
}

#[test]
fn also_when_the_file_was_closed_in_between() {
    let rig = Rig::new(9);
    for (value, len) in [(1u8, 2048usize), (2, 2048)] {
        let file = rig.file("f");
        file.write(0, &vec![value; len]).unwrap();
        file.fsync().unwrap();
        // Its records are durable in place, and the object goes.
        file.write(2048, &[value; 600]).unwrap();
        file.fsync().unwrap();
        file.flush().unwrap();
        rig.run.tick().unwrap();
    }
    rig.run.checkpoint().unwrap();
    let file = rig.open("f").unwrap();
    file.write(512, &[3; 512]).unwrap();
    file.write(2648, &[3; 600]).unwrap();
    file.fsync().unwrap();
    drop(file);
    rig.run.tick().unwrap();
    let file = rig.open("f").unwrap();
    file.truncate(512).unwrap();
    file.write(512, &[7; 900]).unwrap();
    file.fsync().unwrap();
    drop(file);
    let rig = rig.killed();
    let all = content(&rig.open("f").unwrap()).unwrap();
    assert!(all[..512] == [2; 512] && all[512..] == [7; 900], "{:?}", &all[510..520]);
}

#[test]
fn a_long_session_laps_the_journal() {
    let rig = Rig::new(9);
    let file = rig.file("f");
    let mut model = vec![0u8; 64 * 512];
    file.write(0, &model).unwrap();
    file.fsync().unwrap();
    for round in 1..40usize {
        for i in (round % 3..64).step_by(3) {
            let value = (round * 7 + i) as u8;
            file.write(i as u64 * 512, &[value; 512]).unwrap();
            model[i * 512..][..512].fill(value);
        }
        file.fsync().unwrap();
    }
    drop(file);
    let rig = rig.killed();
    assert!(content(&rig.open("f").unwrap()).unwrap() == model);
}

/// How many files beneath a directory this process has open, at most.
struct Open(std::path::PathBuf, AtomicUsize);

impl Open {
    fn now(&self) -> usize {
        let names = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let open = names.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        open.filter(|path| path.starts_with(&self.0)).count()
    }
}

impl Observer for Open {
    fn around(&self, call: Call<'_>, run: &mut dyn FnMut() -> std::io::Result<u64>) -> std::io::Result<()> {
        if call.op == Op::Write {
            self.1.fetch_max(self.now(), Ordering::SeqCst);
        }
        run().map(drop)
    }
}

/// Small records of many files go into one journal: more than a process may have open.
#[test]
fn recovery_holds_few_files_open() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().canonicalize().unwrap();
    let dir = runvault_store::posix::open_root(&path).unwrap();
    dir.create_dir(b"tree", 0o755).unwrap();
    let rig = Rig::over(dir.clone(), 9, RunId([1; 16]));
    for n in 0..40u8 {
        let file = rig.file(&n.to_string());
        file.write(0, &[1; 100]).unwrap();
        file.fsync().unwrap();
        file.write(0, &[n; 100]).unwrap();
        file.fsync().unwrap();
    }
    let (session, id) = (rig.session, rig.id());
    drop(rig);
    // What was killed has its own open still.
    let open = Arc::new(Open(path, AtomicUsize::new(0)));
    let before = open.now();
    let rig = Rig::recovered(observe(dir, open.clone()).unwrap(), 9, id, &session).unwrap();
    let most = open.1.load(Ordering::SeqCst) - before;
    assert!((1..15).contains(&most), "{most} are open");
    assert_eq!(content(&rig.open("7").unwrap()).unwrap(), [7; 100]);
}
