//! What an operation costs in calls to the store.

use std::sync::Arc;
use std::time::Duration;

use runvault_format::ids::RunId;
use runvault_store::doubles::delaying::Delays;
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::doubles::observe::Op;

use crate::file::testing::Rig;

fn counted() -> (Rig, Arc<Delays>) {
    let beneath = MemoryDir::root();
    beneath.create_dir(b"tree", 0o755).unwrap();
    let (dir, calls) = Delays::over(beneath, Duration::ZERO).unwrap();
    (Rig::over(dir, 13, RunId([1; 16])), calls)
}

#[test]
fn a_file_of_64_kib_is_one_write_and_its_size() {
    let (rig, calls) = counted();
    let file = rig.file("f");
    calls.reset();
    file.write(0, &[1; 65536]).unwrap();
    file.flush().unwrap();
    assert_eq!((calls.count(Op::Write), calls.total()), (2, 2));
    file.fsync().unwrap();
    assert_eq!((calls.count(Op::SyncData), calls.total()), (1, 3));
}

#[test]
fn a_file_that_ends_within_a_chunk_is_one_write_and_its_size_too() {
    let (rig, calls) = counted();
    let file = rig.file("f");
    calls.reset();
    file.write(0, &[1; 20_000]).unwrap();
    file.flush().unwrap();
    assert_eq!((calls.count(Op::Write), calls.total()), (2, 2));
    // Written on, the chunk comes back once; at the close the rest, the size and the time.
    file.write(20_000, &[1; 10]).unwrap();
    file.write(20_010, &[1; 10]).unwrap();
    assert_eq!((calls.count(Op::Read), calls.total()), (1, 3));
    file.flush().unwrap();
    assert_eq!((calls.count(Op::Write), calls.count(Op::SetTimes), calls.total()), (4, 1, 6));
}

#[test]
fn a_stream_is_one_write_a_request_and_one_more() {
    let (rig, calls) = counted();
    let file = rig.file("f");
    calls.reset();
    for i in 0..20u64 {
        file.write(i << 20, &vec![1; 1 << 20]).unwrap();
    }
    assert_eq!((calls.count(Op::Write), calls.total()), (21, 21));
}

#[test]
fn small_appends_cost_nothing_until_the_chunk_is_full() {
    let (rig, calls) = counted();
    let file = rig.file("f");
    calls.reset();
    for i in 0..40 {
        file.write(i * 200, &[1; 200]).unwrap();
    }
    assert_eq!(calls.total(), 0);
    file.write(8000, &[1; 200]).unwrap();
    assert_eq!((calls.count(Op::Write), calls.total()), (2, 2));
}

#[test]
fn a_small_file_is_a_write_and_its_time() {
    let (rig, calls) = counted();
    let file = rig.file("f");
    calls.reset();
    file.write(0, &[1; 200]).unwrap();
    file.flush().unwrap();
    assert_eq!((calls.count(Op::Write), calls.count(Op::SetTimes), calls.total()), (1, 1, 2));
}

#[test]
fn reading_is_one_read_a_request() {
    let (rig, calls) = counted();
    let file = rig.file("f");
    file.write(0, &vec![1; 1 << 20]).unwrap();
    calls.reset();
    let mut buf = vec![0; 1 << 20];
    assert_eq!(file.read(0, &mut buf).unwrap(), 1 << 20);
    assert_eq!(file.read(4096, &mut buf[..4096]).unwrap(), 4096);
    assert_eq!((calls.count(Op::Read), calls.total()), (2, 2));
}

#[test]
fn syncs_as_the_format_says() {
    let (rig, calls) = counted();
    let file = rig.file("f");
    let syncs = |what: &str, n: u64| {
        assert_eq!(calls.count(Op::SyncData), n, "{what}");
        calls.reset();
    };
    file.write(0, &[1; 20_000]).unwrap();
    file.fsync().unwrap();
    file.write(0, &[2]).unwrap();
    file.fsync().unwrap();
    calls.reset();
    file.write(20_000, &[3; 100]).unwrap();
    file.fsync().unwrap();
    syncs("an append inside the tail chunk", 1);
    file.write(5, &[3; 100]).unwrap();
    file.write(9_000, &[3; 100]).unwrap();
    file.fsync().unwrap();
    syncs("random overwrites", 1);
    file.write(20_100, &[3; 8192]).unwrap();
    file.fsync().unwrap();
    syncs("an append across a chunk border", 2);
    file.fsync().unwrap();
    syncs("nothing to do", 0);
    file.truncate(0).unwrap();
    file.write(0, &[1; 100]).unwrap();
    file.fsync().unwrap();
    syncs("a rewrite", 2);
}
