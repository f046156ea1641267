//! Several machines on one store, each with runs of its own.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{CALLER, Chain, Fixture, Mount, READ, State, posix};
use runvault_format::note::{Note, text_hash};
use runvault_store::backend::{Rename, SetTime, Time};
use runvault_vault::api::{OpenFlags, ROOT};
use runvault_vault::authority::{Gateway, Last, Until};
use runvault_vault::{Error, Posix, Vault, runs};

#[test]
fn another_gateways_runs_are_read_only_and_equal_names_are_told_apart() {
    let fixture = Fixture::in_memory();
    let one = fixture.writer();
    one.make_dir("run").unwrap();
    one.put("run/f", b"one").unwrap();
    let other: Mount = fixture.writer_of(&State::new(4));
    assert!(matches!(other.put("run/g", b""), Err(Error::NotHeld { .. })));
    assert_eq!(other.get("run/f").unwrap(), b"one");
    assert_eq!(posix(other.make_dir("run")), Posix::Exists);
    other.make_dir("mine").unwrap();
    other.put("mine/f", b"two").unwrap();
    other.mv("mine", "ours", Rename::Over).unwrap();
    one.close().unwrap();
    let again = fixture.writer();
    again.mv("run", "ours2", Rename::Over).unwrap();
    assert_eq!(again.list("").unwrap(), ["ours", "ours2"]);
}

/// The name under which a mount shows another gateway's files.
fn loose_of_another(mount: &Mount) -> String {
    let names = mount.list("").unwrap();
    let found: Vec<_> = names.into_iter().filter(|name| name.starts_with("loose~")).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// Two machines on one store, both mounted.
#[test]
fn two_gateways_work_beside_each_other_and_see_each_others_files() {
    let fixture = Fixture::in_memory();
    let (one, reader) = (fixture.writer(), fixture.reader());
    one.put("of one", b"1").unwrap();
    one.make_dir("run one").unwrap();
    let other = fixture.writer_of(&State::new(4));
    let loose = loose_of_another(&other);
    assert_eq!(other.get(&format!("{loose}/of one")).unwrap(), b"1");
    assert!(matches!(other.put(&format!("{loose}/more"), b""), Err(Error::NotHeld { .. })));
    assert_eq!(posix(other.mv(&loose, "mine", Rename::Over)), Posix::Busy);
    assert_eq!(posix(other.attr("of one")), Posix::NotFound);
    // The reader's top is what was opened first, by a clock of seconds.
    std::thread::sleep(Duration::from_millis(1100));
    other.put("of other", b"2").unwrap();
    other.make_dir("run other").unwrap();
    other.put("run other/f", b"22").unwrap();
    // What was made at its top has moved nothing.
    assert_eq!(other.list("").unwrap(), [&loose, "of other", "run one", "run other"]);
    std::thread::sleep(Duration::from_millis(2100));
    for mount in [&one, &other, &reader] {
        mount.tick().unwrap();
    }
    let of_other = loose_of_another(&one);
    for (mount, loose) in [(&one, &of_other), (&reader, &loose_of_another(&reader))] {
        assert_eq!(mount.list("").unwrap(), [loose, "of one", "run one", "run other"]);
        assert_eq!(mount.get(&format!("{loose}/of other")).unwrap(), b"2");
        assert_eq!(mount.get("run other/f").unwrap(), b"22");
    }
    one.put("more", b"of one").unwrap();
    // Of what the other may change at any time, nothing is kept for long.
    let attr = |path: &str| one.attr(path).unwrap().ours;
    assert_eq!(["more", "run one", "run other", "run other/f"].map(attr), [true, true, false, false]);
    let of_one = loose_of_another(&other);
    assert!(!other.attr(&format!("{of_one}/more")).unwrap().ours && !other.getattr(ROOT, None).unwrap().ours);
    other.close().unwrap();
    one.close().unwrap();
}

/// A chunk that was synced waits for the journal as it grows, while those behind it are stored.
#[test]
fn what_is_on_its_way_is_in_no_size_and_what_was_changed_earlier_is_not_opened_for_it() {
    let fixture = Fixture::on_disk();
    let writer = fixture.writer();
    writer.make_dir("run").unwrap();
    let ino = writer.put("run/f", &[1; 100]).unwrap();
    let handle = writer.open_file(ino, OpenFlags { write: true, ..READ }).unwrap().handle;
    writer.fsync(handle, false).unwrap();
    writer.write(handle, 100, &[2; 100_000], false).unwrap();
    let shown = |reader: &Mount| reader.attr("run/f").unwrap().size;
    let reader = fixture.reader();
    assert_eq!((shown(&reader), reader.get("run/f").unwrap().len()), (100, 100));
    // As if the writer had gone on for minutes since.
    let [run] = fixture.run_dirs().try_into().unwrap();
    let runs = fixture.root.open_dir(b"runs").unwrap();
    let dir = runs.open_dir(&run).unwrap();
    let renewed = dir.stat(b"lease").unwrap().mtime;
    let later = SetTime::At(Time { sec: renewed.sec + 120, ..renewed });
    dir.set_times(b"lease", SetTime::Omit, later).unwrap();
    assert!(shown(&fixture.reader()) > 90_000);
    writer.fsync(handle, false).unwrap();
    writer.release(handle).unwrap();
    assert_eq!((shown(&reader), reader.get("run/f").unwrap().len()), (100_100, 100_100));
    writer.close().unwrap();
}

/// The key of a gateway that was revoked while this mount is up makes a run.
#[test]
fn a_mount_that_is_up_believes_no_run_of_a_gateway_that_was_ended() {
    let fixture = Fixture::in_memory();
    fixture.writer().make_dir("one").unwrap();
    let reader = fixture.reader();
    assert_eq!(reader.list("").unwrap(), ["one"]);
    let first = reader.status().runs[0].run;
    let note = runs::read_descriptor(&fixture.root, &first, &*fixture.authority).unwrap().note;
    let run = Last { n: 1, hash: Some(text_hash(Note::parse(&note).unwrap().text)) };
    let until = Until { run, seal: Last { n: 0, hash: None } };
    *fixture.authority.until_later.lock().unwrap() = Some(until);
    // Whoever has the key does not ask.
    let unaware = Chain::of(fixture.authority.vault, fixture.authority.gateways.clone());
    let thief: Arc<dyn Gateway> = Arc::new(fixture.state.clone());
    let thief = Vault::open(fixture.root.clone(), Arc::new(unaware), Some(thief), fixture.options).unwrap();
    Mount(thief).make_dir("two").unwrap();
    std::thread::sleep(Duration::from_millis(2100));
    reader.tick().unwrap();
    assert_eq!(reader.list("").unwrap(), ["one"]);
    assert!(reader.left_out()[0].1.to_string().contains("end at number 1"), "{:?}", reader.left_out());
}

/// More runs than one look reads the names of.
#[test]
fn another_gateways_renamed_runs_are_seen() {
    let fixture = Fixture::in_memory();
    let one = fixture.writer();
    let names = |before: &str| (0..70).map(|n| format!("{before}{n:02}")).collect::<Vec<_>>();
    for name in names("old") {
        one.make_dir(&name).unwrap();
    }
    one.put("old00/f", b"of one").unwrap();
    let (reader, other) = (fixture.reader(), fixture.writer_of(&State::new(4)));
    let kept = reader.ino("old00/f").unwrap();
    for (old, new) in names("old").iter().zip(names("new")) {
        one.mv(old, &new, Rename::Over).unwrap();
    }
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(2100));
        for mount in [&reader, &other] {
            mount.tick().unwrap();
        }
    }
    for mount in [&reader, &other] {
        assert_eq!(mount.list("").unwrap(), names("new"));
        assert_eq!(mount.get("new00/f").unwrap(), b"of one");
        assert_eq!(posix(mount.attr("old00")), Posix::NotFound);
    }
    assert_eq!(reader.ino("new00/f").unwrap(), kept);
}

/// What was looked up and is another kind of object since is looked up again: nobody's damage.
#[test]
fn a_file_that_a_symlink_replaced_meanwhile_is_stale() {
    let fixture = Fixture::in_memory();
    let one = fixture.writer();
    one.make_dir("run").unwrap();
    one.put("run/f", b"file").unwrap();
    let reader = fixture.reader();
    let file = reader.ino("run/f").unwrap();
    let run = one.ino("run").unwrap();
    one.symlink(&CALLER, run, b"l", b"target").unwrap();
    one.mv("run/l", "run/f", Rename::Over).unwrap();
    assert_eq!(posix(reader.open_file(file, READ)), Posix::Stale);
    assert_eq!(reader.readlink(reader.ino("run/f").unwrap()).unwrap(), b"target");
}

#[test]
fn another_gateways_folders_show_its_runs() {
    let mut fixture = Fixture::in_memory();
    fixture.options.run_depth = 2;
    let one = fixture.writer();
    one.make_dir("MiSeq01").unwrap();
    one.make_dir("MiSeq01/run").unwrap();
    one.put("MiSeq01/run/f", b"1").unwrap();
    let other = fixture.writer_of(&State::new(4));
    let loose = loose_of_another(&other);
    assert_eq!(other.list("").unwrap(), [&loose[..]]);
    let folder = format!("{loose}/MiSeq01");
    assert_eq!(other.list(&folder).unwrap(), ["run"]);
    assert_eq!(other.get(&format!("{folder}/run/f")).unwrap(), b"1");
    assert!(matches!(other.make_dir(&format!("{folder}/new")), Err(Error::NotHeld { .. })));
    // A folder of its own shows all runs of that name.
    other.make_dir("MiSeq01").unwrap();
    other.make_dir("MiSeq01/of other").unwrap();
    assert_eq!(other.list("MiSeq01").unwrap(), ["of other", "run"]);
    assert_eq!(fixture.reader().list("MiSeq01").unwrap(), ["of other", "run"]);
}
