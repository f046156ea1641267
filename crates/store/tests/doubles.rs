//! The doubles do what they say.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runvault_store::backend::{Access, Dir, Rename};
use runvault_store::doubles::crash::{Disk, Draw, Every};
use runvault_store::doubles::delaying::Delays;
use runvault_store::doubles::faulty::{Fault, Faults, Rule};
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::doubles::observe::{Change, Op};
use runvault_store::doubles::recording::Recording;
use runvault_store::read_whole::read_whole;
use runvault_store::{posix, replace};

/// All stores that a power cut after `work` may leave, each told by `tell`.
fn after<T: Ord>(work: impl FnOnce(&Arc<dyn Dir>), tell: impl Fn(&dyn Dir) -> T) -> BTreeSet<T> {
    let base = MemoryDir::root();
    let mut disk = Disk::of(&*base).unwrap();
    let (store, recording) = Recording::over(base).unwrap();
    work(&store);
    for change in recording.changes() {
        disk.advance(&change).unwrap();
    }
    let mut every = Every::default();
    let mut told = BTreeSet::new();
    loop {
        told.insert(tell(&*disk.cut(&mut every).unwrap()));
        if !every.next() {
            return told;
        }
    }
}

fn bytes(dir: &dyn Dir, name: &[u8]) -> Option<Vec<u8>> {
    read_whole(dir, name, 1 << 20).ok()
}

fn names(dir: &dyn Dir) -> String {
    let mut found = Vec::new();
    dir.entries(0, &mut |e| {
        found.push(String::from_utf8(e.name).unwrap());
        true
    })
    .unwrap();
    found.sort();
    found.join(" ")
}

#[test]
fn a_sync_leaves_one_store() {
    let told = after(
        |root| {
            let file = root.create_file(b"f", 0o600).unwrap();
            file.write_at(&[1; 2000], 0).unwrap();
            file.sync_data().unwrap();
            root.sync().unwrap();
        },
        |root| bytes(root, b"f"),
    );
    assert_eq!(told, BTreeSet::from([Some(vec![1; 2000])]));
}

#[test]
fn without_the_directorys_sync_the_name_may_be_missing() {
    let work = |root: &Arc<dyn Dir>| {
        let file = root.create_file(b"f", 0o600).unwrap();
        file.write_at(b"x", 0).unwrap();
        file.sync_all().unwrap();
    };
    assert_eq!(after(work, |root| bytes(root, b"f")), BTreeSet::from([None, Some(b"x".to_vec())]));
}

#[test]
fn a_write_is_torn_between_sectors_only() {
    let work = |root: &Arc<dyn Dir>| {
        let file = root.create_file(b"f", 0o600).unwrap();
        file.write_at(&[1; 1536], 0).unwrap();
        file.sync_data().unwrap();
        root.sync().unwrap();
        file.write_at(&[2; 1000], 100).unwrap();
    };
    let told = after(work, |root| bytes(root, b"f").unwrap());
    // Sectors 0, 1 and 2 are old or new, each by itself.
    assert_eq!(told.len(), 8);
    for bytes in told {
        assert!(bytes[..100].iter().chain(&bytes[1100..]).all(|b| *b == 1));
        for piece in [&bytes[100..512], &bytes[512..1024], &bytes[1024..1100]] {
            assert!(piece.iter().all(|b| *b == piece[0]));
        }
    }
}

#[test]
fn a_growing_file_may_stop_at_a_page_or_hold_zeros() {
    let work = |root: &Arc<dyn Dir>| {
        let file = root.create_file(b"f", 0o600).unwrap();
        root.sync().unwrap();
        file.write_at(&[1; 5000], 0).unwrap();
    };
    let lengths = after(work, |root| bytes(root, b"f").unwrap().len());
    assert!(lengths.is_superset(&BTreeSet::from([0, 4096, 5000])), "{lengths:?}");
    let zeros = after(work, |root| bytes(root, b"f").unwrap().iter().all(|b| *b == 0));
    assert_eq!(zeros.len(), 2);
}

#[test]
fn writes_of_one_file_arrive_as_any_subset() {
    let work = |root: &Arc<dyn Dir>| {
        let file = root.create_file(b"f", 0o600).unwrap();
        file.set_len(3).unwrap();
        file.sync_data().unwrap();
        root.sync().unwrap();
        for i in 0..3u8 {
            file.write_at(&[i + 1], u64::from(i)).unwrap();
        }
    };
    assert_eq!(after(work, |root| bytes(root, b"f").unwrap()).len(), 8);
}

#[test]
fn names_arrive_in_order() {
    let work = |root: &Arc<dyn Dir>| {
        root.create_dir(b"a", 0o700).unwrap();
        root.create_dir(b"b", 0o700).unwrap();
        root.rename(b"a", &**root, b"c", Rename::Over).unwrap();
        root.remove_dir(b"b").unwrap();
    };
    let told = after(work, names);
    let expected = ["", "a", "a b", "b c", "c"].map(String::from);
    assert_eq!(told, BTreeSet::from(expected));
}

#[test]
fn a_rename_between_directories_arrives_in_both_or_neither() {
    let work = |root: &Arc<dyn Dir>| {
        for dir in [b"d", b"e"] {
            root.create_dir(dir, 0o700).unwrap();
        }
        root.sync().unwrap();
        let (d, e) = (root.open_dir(b"d").unwrap(), root.open_dir(b"e").unwrap());
        d.create_file(b"f", 0o600).unwrap();
        d.sync().unwrap();
        e.create_file(b"before", 0o600).unwrap();
        d.rename(b"f", &*e, b"g", Rename::Over).unwrap();
    };
    let tell = |root: &dyn Dir| {
        let names_of = |dir| names(&*root.open_dir(dir).unwrap());
        (names_of(b"d"), names_of(b"e"))
    };
    let told = after(work, tell);
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(told, BTreeSet::from([pair("f", ""), pair("f", "before"), pair("", "before g")]));
    let synced = |root: &Arc<dyn Dir>| {
        work(root);
        root.open_dir(b"d").unwrap().sync().unwrap();
    };
    assert_eq!(after(synced, tell), BTreeSet::from([pair("", "before g")]));
}

#[test]
fn replacing_is_atomic_and_durable() {
    let work = |root: &Arc<dyn Dir>| {
        replace::replace(&**root, b"n", b"old", 0o600).unwrap();
        replace::replace(&**root, b"n", b"newer", 0o600).unwrap();
    };
    assert_eq!(after(work, |root| bytes(root, b"n")), BTreeSet::from([Some(b"newer".to_vec())]));
    let base = MemoryDir::root();
    let mut disk = Disk::of(&*base).unwrap();
    let (store, recording) = Recording::over(base).unwrap();
    work(&store);
    let mut seen = BTreeSet::new();
    let mut acknowledged = false;
    for (i, change) in recording.changes().iter().enumerate() {
        disk.advance(change).unwrap();
        acknowledged |= matches!(change, Change::SyncDir { .. });
        for seed in 0..50 {
            let cut = disk.cut(&mut Draw::new(seed + 1000 * i as u64)).unwrap();
            let now = bytes(&*cut, b"n");
            assert!(now.is_some() || !acknowledged, "after change {i}");
            seen.insert(now);
        }
    }
    assert_eq!(seen, BTreeSet::from([None, Some(b"old".to_vec()), Some(b"newer".to_vec())]));
}

#[test]
fn what_a_process_left_survives_its_death_but_not_the_power() {
    let base = MemoryDir::root();
    let mut disk = Disk::of(&*base).unwrap();
    let (store, recording) = Recording::over(base).unwrap();
    store.create_file(b"f", 0o600).unwrap().write_at(b"x", 0).unwrap();
    for change in recording.take() {
        disk.advance(&change).unwrap();
    }
    assert_eq!(disk.pending(), 2);
    let (second, recording) = Recording::over(disk.live()).unwrap();
    second.open_file(b"f", Access::ReadWrite).unwrap().write_at(b"y", 1).unwrap();
    second.create_file(b"g", 0o600).unwrap();
    second.sync_fs().unwrap();
    for change in recording.take() {
        disk.advance(&change).unwrap();
    }
    assert_eq!(disk.pending(), 0);
    let left = disk.cut(&mut Draw::new(1)).unwrap();
    assert_eq!((bytes(&*left, b"f"), names(&*left)), (Some(b"xy".to_vec()), "f g".to_owned()));
}

#[test]
fn the_same_seed_draws_the_same_store() {
    let base = MemoryDir::root();
    let mut disk = Disk::of(&*base).unwrap();
    let (store, recording) = Recording::over(base).unwrap();
    for i in 0..20u8 {
        store.create_file(&[b'a' + i], 0o600).unwrap().write_at(&[i; 3000], 0).unwrap();
    }
    recording.changes().iter().for_each(|change| disk.advance(change).unwrap());
    let draw = |seed| {
        let left = disk.cut(&mut Draw::new(seed)).unwrap();
        (b'a'..b'u').map(|name| bytes(&*left, &[name])).collect::<Vec<_>>()
    };
    assert!((0..20).all(|seed| draw(seed) == draw(seed)));
    assert!((1..20).any(|seed| draw(seed) != draw(0)));
}

#[test]
fn faults_meet_the_calls_they_are_meant_for() {
    let place = tempfile::tempdir().unwrap();
    let (store, faults) = Faults::over(posix::open_root(place.path()).unwrap()).unwrap();
    let failed = |result: std::io::Result<()>| result.err().and_then(|e| e.raw_os_error());
    let file = store.create_file(b"f", 0o600).unwrap();
    faults.add(Rule { after: 1, times: 2, ..Rule::next(Op::Write, Fault::Fail(libc::EIO)) });
    let outcomes: Vec<_> = (0..4).map(|i| failed(file.write_at(b"x", i))).collect();
    assert_eq!(outcomes, [None, Some(libc::EIO), Some(libc::EIO), None]);
    assert_eq!(bytes(&*store, b"f").unwrap(), b"x\0\0x");
    faults.add(Rule { name: Some(b"g".to_vec()), ..Rule::every(Op::CreateDir, Fault::Fail(libc::EROFS)) });
    assert_eq!(failed(store.create_dir(b"g", 0o700)), Some(libc::EROFS));
    assert_eq!(failed(store.create_dir(b"h", 0o700)), None);
    faults.add(Rule::next(Op::SyncData, Fault::FailAfter(libc::EIO)));
    assert_eq!(failed(file.sync_data()), Some(libc::EIO));
    assert_eq!(failed(file.sync_data()), None);
    faults.set_room(Some(5));
    assert_eq!(failed(file.write_at(&[0; 5], 0)), None);
    assert_eq!(failed(file.write_at(&[0; 1], 0)), Some(libc::ENOSPC));
    faults.clear();
    assert_eq!(failed(file.write_at(&[0; 100], 0)), None);
    assert_eq!(failed(store.create_dir(b"g", 0o700)), None);
}

#[test]
fn calls_hang_until_released() {
    let (store, faults) = Faults::over(MemoryDir::root()).unwrap();
    let file = store.create_file(b"f", 0o600).unwrap();
    faults.add(Rule::next(Op::SyncAll, Fault::Hang));
    std::thread::scope(|scope| {
        let stuck = scope.spawn(|| file.sync_all());
        while faults.hanging() == 0 {
            std::thread::yield_now();
        }
        assert!(!stuck.is_finished());
        file.write_at(b"others go on", 0).unwrap();
        faults.release();
        stuck.join().unwrap().unwrap();
    });
    assert_eq!(faults.hanging(), 0);
}

#[test]
fn delays_are_taken_and_calls_counted() {
    let (store, delays) = Delays::over(MemoryDir::root(), Duration::ZERO).unwrap();
    delays.set(Op::SyncFs, Duration::from_millis(20));
    let file = store.create_file(b"f", 0o600).unwrap();
    (0..5).for_each(|i| file.write_at(b"x", i).unwrap());
    let before = Instant::now();
    store.sync_fs().unwrap();
    assert!(before.elapsed() >= Duration::from_millis(20));
    assert_eq!((delays.count(Op::Write), delays.count(Op::CreateFile), delays.total()), (5, 1, 7));
    delays.reset();
    assert_eq!(delays.total(), 0);
}
