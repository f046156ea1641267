//! Notes of sessions that end in the middle of something.

use runvault_crypto::aead::Engine;
use runvault_crypto::secrets::Secret;
use runvault_format::ids::FileId;
use runvault_format::keys::{RunKey, RunKeys};
use runvault_format::ledger::How;
use runvault_format::manifest;
use runvault_store::doubles::delaying::Delays;
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::doubles::observe::Op;

use super::*;

const ID: RunId = RunId([2; 16]);
const FILE: Group = [3; 16];
const OTHER: Group = [4; 16];

fn key() -> LedgerKey {
    RunKeys::derive(&RunKey(Secret::copy_from(&[1; 32])), &ID, Engine::fastest()).ledger_key()
}

/// Every tick settles.
fn open(dir: &Arc<dyn Dir>) -> Ledger {
    Ledger::open(dir, ID, key(), Duration::ZERO).unwrap()
}

fn whole(size: u64) -> Content {
    Content { how: How::Whole, sum: 0, size, last: None }
}

/// The next session ends, and this is what a seal finds.
fn sizes(dir: &Arc<dyn Dir>) -> [Option<u64>; 2] {
    open(dir).end();
    let expected = read(&**dir, &ID, &key()).unwrap().expect("a ledger");
    [FILE, OTHER].map(|group| expected.contents.get(&group).map(|known| known.size))
}

fn cover(ledger: &Ledger) {
    ledger.durable(ledger.position());
}

#[test]
fn what_is_changing_when_a_session_ends_goes_on_changing() {
    let dir: Arc<dyn Dir> = MemoryDir::root();
    let ledger = open(&dir);
    ledger.content(FILE, whole(1));
    ledger.content(OTHER, whole(5));
    cover(&ledger);
    ledger.changing(FILE, LONG_AGO);
    ledger.end();
    let expected = read(&*dir, &ID, &key()).unwrap().expect("it has ended");
    assert_eq!(expected.contents.len(), 1, "who is at work may change the one");
    // It goes on all the same, and is killed while a second one changes the file.
    ledger.content(FILE, whole(2));
    cover(&ledger);
    ledger.changing(FILE, LONG_AGO);
    assert_eq!(sizes(&dir), [None, Some(5)]);
    let ledger = open(&dir);
    ledger.content(FILE, whole(3));
    cover(&ledger);
    assert_eq!(sizes(&dir), [Some(3), Some(5)], "what is over changes nothing any more");
}

#[test]
fn what_is_covered_counts_after_a_kill_where_it_was_not_changing() {
    let dir: Arc<dyn Dir> = MemoryDir::root();
    let ledger = open(&dir);
    let at = ledger.content(FILE, whole(1));
    ledger.content(OTHER, whole(5));
    // Nothing is covered yet, and what covers it says that it was changing.
    ledger.changing(FILE, at);
    cover(&ledger);
    assert_eq!(sizes(&dir), [None, Some(5)]);
    let ledger = open(&dir);
    ledger.content(FILE, whole(2));
    cover(&ledger);
    ledger.content(OTHER, whole(6));
    assert_eq!(sizes(&dir), [Some(2), Some(5)], "the last note is not covered");
}

#[test]
fn a_change_waits_for_the_disk_only_where_something_else_is_covered() {
    let (dir, calls) = Delays::over(MemoryDir::root(), Duration::ZERO).unwrap();
    let ledger = open(&dir);
    let syncs = |act: &dyn Fn()| {
        let before = calls.count(Op::SyncData);
        act();
        calls.count(Op::SyncData) - before
    };
    let at = ledger.content(FILE, whole(1));
    assert_eq!(syncs(&|| ledger.changing(FILE, at)), 0, "nothing of it is covered");
    assert_eq!(syncs(&|| ledger.changing(FILE, LONG_AGO)), 1, "its mode may be");
    assert_eq!(syncs(&|| ledger.changing(FILE, LONG_AGO)), 0, "it is said");
    for _ in 0..3 {
        ledger.changed(FILE);
    }
    ledger.tick();
    cover(&ledger);
    assert_eq!(syncs(&|| ledger.changing(FILE, at)), 1, "now it is");
    assert_eq!(syncs(&|| ledger.changing(FILE, at)), 0);
    let many = || (0..2 * u128::from(SYNCS)).for_each(|n| ledger.changing(n.to_le_bytes(), LONG_AGO));
    assert!(syncs(&many) <= u64::from(SYNCS) + 1, "all that follow are one");
    assert_eq!(syncs(&|| ledger.changing(OTHER, LONG_AGO)), 0);
}

/// Nobody knows what is where after that, and still what was written before.
#[test]
fn an_object_of_before_is_not_new_although_everything_was_changing_since() {
    let dir: Arc<dyn Dir> = MemoryDir::root();
    let ledger = open(&dir);
    let file = |object| Named::Object(manifest::Kind::File as u8, object);
    ledger.name(&DirId::ROOT, b"before", file(FILE));
    cover(&ledger);
    (0..=u128::from(SYNCS)).for_each(|n| ledger.changing(n.to_le_bytes(), LONG_AGO));
    // It was killed, and so is the next one.
    let ledger = open(&dir);
    ledger.name(&DirId::ROOT, b"empty", file(OTHER));
    cover(&ledger);
    open(&dir).end();
    let expected = read(&*dir, &ID, &key()).unwrap().expect("a ledger");
    let names = &expected.names[&DirId::ROOT];
    assert!(!names.contains_key(&b"before"[..]), "everything was changing");
    let loose = names[&b"empty"[..]].loose;
    assert_eq!([FILE, [5; 16]].map(|object| expected.may_be_new(loose, &object)), [false, true]);
}

#[test]
fn one_that_was_torn_while_it_was_made_is_begun_anew() {
    for torn in [&MAGIC[..0], &MAGIC[..3], b"nothing of ours"] {
        let dir: Arc<dyn Dir> = MemoryDir::root();
        dir.create_file(ID.to_string().as_bytes(), MODE).unwrap().write_at(torn, 0).unwrap();
        let ledger = open(&dir);
        ledger.content(FILE, whole(1));
        cover(&ledger);
        assert_eq!(sizes(&dir), [Some(1), None], "{torn:?}");
    }
}

#[test]
fn a_name_that_went_stays_gone_after_a_kill_where_nobody_made_it_again() {
    let (dir, calls) = Delays::over(MemoryDir::root(), Duration::ZERO).unwrap();
    let (place, name) = (FileId([9; 32]), b"removed");
    let gone = || {
        open(&dir).end();
        let expected = read(&*dir, &ID, &key()).unwrap().expect("a ledger");
        expected.names.get(&place).and_then(|names| names.get(&name[..])).map(|name| name.what)
    };
    let ledger = open(&dir);
    ledger.name(&place, name, Named::Nothing);
    cover(&ledger);
    assert_eq!(gone(), Some(Named::Nothing));
    // The next session knows it too, and is killed while it makes the name again.
    let ledger = open(&dir);
    let before = calls.count(Op::SyncData);
    drop(ledger.making_name(&place, b"never there"));
    assert_eq!(calls.count(Op::SyncData), before);
    let _making = ledger.making_name(&place, name);
    assert_eq!(calls.count(Op::SyncData), before + 1);
    assert_eq!(gone(), None);
}

#[test]
fn a_mode_that_may_have_changed_under_a_newer_id_is_not_known() {
    let dir: Arc<dyn Dir> = MemoryDir::root();
    let (place, name) = (FileId([9; 32]), b"empty");
    let mode = |mode| Owner { mode: Some(mode), ..Owner::default() };
    let ledger = open(&dir);
    ledger.name(&place, name, Named::Object(1, FILE));
    ledger.owner(FILE, mode(0o644));
    cover(&ledger);
    // Opened, it has another id, under which its mode changes; the kill comes before that is covered.
    ledger.reopened(&place, name, OTHER);
    ledger.changing_owner(OTHER, || Ok::<_, ()>(()), |()| mode(0o600)).unwrap();
    open(&dir).end();
    let expected = read(&*dir, &ID, &key()).unwrap().expect("a ledger");
    assert_eq!(expected.owners.get(&FILE), None);
}

#[test]
fn what_was_about_to_change_and_did_not_is_covered_as_well() {
    let dir: Arc<dyn Dir> = MemoryDir::root();
    let ledger = open(&dir);
    ledger.content(FILE, whole(1));
    cover(&ledger);
    ledger.changing(FILE, LONG_AGO);
    ledger.changed(FILE);
    assert!(ledger.tick(), "the store is to be synced");
    cover(&ledger);
    assert_eq!(sizes(&dir), [Some(1), None]);
}
