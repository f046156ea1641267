//! Runs are opened behind a vault that answers already; sealed ones that an earlier mount knew are not opened at all, and
//! are verified as soon as something in them is asked for.

use std::collections::BTreeSet;
use std::fs;
use std::io::Result as IoResult;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{scope, sleep};
use std::time::Duration;

use crate::common::{self, Chain, Fixture, Mount, State, posix};
use runvault_format::ids::{Digest, RunId};
use runvault_store::backend::Dir;
use runvault_store::doubles::delaying::Delays;
use runvault_store::doubles::observe::{Call, Observer, Op, observe};
use runvault_vault::api::ROOT;
use runvault_vault::authority::{Gateway, Last, Until};
use runvault_vault::seal::Outcome;
use runvault_vault::{Error, Posix, Vault};

/// Longer than any opening here.
const LONG: Duration = Duration::from_secs(60);

fn behind(mut fixture: Fixture) -> Fixture {
    fixture.options.in_background = true;
    fixture
}

/// Sealed runs, each with one file; their ids.
fn sealed(fixture: &Fixture, names: &[String]) -> Vec<RunId> {
    let mount = fixture.writer();
    for name in names {
        mount.make_dir(name).unwrap();
        mount.put(&format!("{name}/RunInfo.xml"), name.as_bytes()).unwrap();
    }
    let ids = names.iter().map(|name| id(&mount, name)).collect::<Vec<_>>();
    for id in &ids {
        let done = mount.seal(id, &mut |_| Ok(Some("{}".into())), &mut |_, _| ()).unwrap();
        assert!(matches!(done, Outcome::Sealed(_)), "{done:?}");
    }
    mount.close().unwrap();
    ids
}

fn named(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("run {i:03}")).collect()
}

fn id(mount: &Mount, name: &str) -> RunId {
    let runs = mount.status().runs;
    runs.iter().find(|run| run.name.as_deref() == Some(name.as_bytes())).expect("the run").run
}

/// Opened, looked at, and closed: what is known of its sealed runs is kept.
fn seen(fixture: &Fixture) -> Vec<String> {
    let reader = fixture.reader();
    let names = reader.list("").unwrap();
    assert!(reader.await_runs(LONG));
    reader.close().unwrap();
    names
}

/// The same vault over another handle on its store.
fn reader_over(fixture: &Fixture, root: Arc<dyn Dir>) -> Mount {
    Mount(Vault::open(root, fixture.authority.clone(), None, fixture.options).unwrap())
}

/// The authority, once the threads of earlier mounts have ended.
fn alone(fixture: &mut Fixture) -> &mut Chain {
    while Arc::strong_count(&fixture.authority) > 1 {
        sleep(Duration::from_millis(1));
    }
    Arc::get_mut(&mut fixture.authority).unwrap()
}

fn kept(authority: &Chain) -> (BTreeSet<RunId>, usize) {
    let index = authority.index.lock().unwrap();
    (index.0.keys().copied().collect(), index.1)
}

#[test]
fn a_known_sealed_run_costs_no_call_to_the_store() {
    let fixture = behind(Fixture::in_memory());
    let names = named(300);
    let runs = sealed(&fixture, &names);
    assert_eq!(seen(&fixture), names);
    let (rows, times) = kept(&fixture.authority);
    assert!(runs.iter().all(|run| rows.contains(run)) && times == 1, "{} rows, {times}", rows.len());
    let (counted, calls) = Delays::over(fixture.root.clone(), Duration::ZERO).unwrap();
    let reader = reader_over(&fixture, counted);
    assert_eq!(reader.list("").unwrap(), names);
    for name in &names {
        let attr = reader.attr(name).unwrap();
        assert!(reader.listxattr(attr.ino).unwrap().is_empty() && attr.mode == 0o755, "{attr:?}");
    }
    // One listing of runs/, and what is asked of the root itself.
    assert_eq!((calls.count(Op::Entries), calls.count(Op::OpenFile), calls.count(Op::Read)), (1, 0, 0));
    assert!(calls.total() < 10, "{} calls", calls.total());
    // What is in one is verified, and that one alone.
    assert_eq!(reader.get("run 007/RunInfo.xml").unwrap(), b"run 007");
    assert!(calls.total() < 100, "{} calls", calls.total());
    assert!(calls.count(Op::OpenFile) > 5);
    reader.close().unwrap();
    assert_eq!(kept(&fixture.authority).1, 1, "nothing new, and written all the same");
}

#[test]
fn however_many_sealed_runs_are_read_few_stay_open() {
    let fixture = Fixture::in_memory();
    let names = named(300);
    sealed(&fixture, &names);
    let (counted, calls) = Delays::over(fixture.root.clone(), Duration::ZERO).unwrap();
    let reader = reader_over(&fixture, counted);
    let read = |name: &String| {
        calls.reset();
        assert_eq!(reader.get(&format!("{name}/RunInfo.xml")).unwrap(), name.as_bytes());
        calls.count(Op::OpenDir)
    };
    let costs = || names.iter().map(read).sum::<u64>();
    costs();
    assert_eq!(costs(), 0, "each keeps its directory");
    reader.tick().unwrap();
    assert!(costs() > 0);
    // What is used stays open.
    let file = reader.open_file(reader.ino("run 000/RunInfo.xml").unwrap(), common::READ).unwrap().handle;
    (0..2).for_each(|_| reader.tick().unwrap());
    assert_eq!(reader.read_all(file).unwrap(), b"run 000");
    reader.close().unwrap();
}

#[test]
fn a_gateway_knows_the_sealed_runs_that_it_cannot_open_by_their_ids_alone() {
    let mut fixture = behind(Fixture::in_memory());
    let names = named(20);
    let runs = sealed(&fixture, &names);
    alone(&mut fixture).opens = false;
    let first = fixture.writer();
    assert!(first.await_runs(LONG));
    assert_eq!(first.closed_runs(), 20, "{:?}", first.status());
    first.close().unwrap();
    let rows = fixture.authority.index.lock().unwrap().0.clone();
    assert_eq!(rows.keys().copied().collect::<BTreeSet<_>>(), runs.iter().copied().collect());
    assert!(rows.values().all(|row| row.shown.is_none()));
    let (counted, calls) = Delays::over(fixture.root.clone(), Duration::ZERO).unwrap();
    let gateway: Arc<dyn Gateway> = Arc::new(fixture.state.clone());
    let again =
        Mount(Vault::open(counted, fixture.authority.clone(), Some(gateway), fixture.options).unwrap());
    assert!(again.await_runs(LONG) && again.closed_runs() == 20 && again.lost_runs().is_empty());
    assert!(calls.total() < 10, "{} calls", calls.total());
    again.make_dir("new").unwrap();
    assert_eq!(again.list("").unwrap(), ["new"]);
    again.close().unwrap();
}

/// Holds every opening of a run whose run.json is among these back.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
    /// How many may pass before.
    free: Mutex<usize>,
}

impl Gate {
    fn over(root: &Arc<dyn Dir>, free: usize) -> (Arc<dyn Dir>, Arc<Self>) {
        let gate = Arc::new(Self { free: Mutex::new(free), ..Self::default() });
        (observe(root.clone(), gate.clone()).unwrap(), gate)
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

impl Observer for Gate {
    fn around(&self, call: Call<'_>, run: &mut dyn FnMut() -> IoResult<u64>) -> IoResult<()> {
        if call.op == Op::OpenFile && call.name == b"name" {
            let mut free = self.free.lock().unwrap();
            if *free > 0 {
                *free -= 1;
            } else {
                drop(free);
                drop(self.changed.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
            }
        }
        run().map(drop)
    }
}

/// A vault of open runs, written by another machine.
fn open_runs(fixture: &Fixture, n: usize) -> Vec<String> {
    let names = named(n);
    let mount = fixture.writer_of(&State::new(4));
    for name in &names {
        mount.make_dir(name).unwrap();
    }
    mount.close().unwrap();
    names
}

#[test]
fn a_listing_is_whole_and_a_name_is_found_before_all_are_opened() {
    let fixture = behind(Fixture::in_memory());
    let names = open_runs(&fixture, 40);
    let (root, gate) = Gate::over(&fixture.root, 20);
    let reader = reader_over(&fixture, root);
    // The mount answers, and nobody counts on its links.
    assert_eq!(reader.getattr(ROOT, None).unwrap().nlink, 1);
    assert!(!reader.await_runs(Duration::from_millis(50)));
    let found = Mutex::new(BTreeSet::new());
    let (found, reader) = (&found, &reader);
    scope(|scope| {
        let listing = scope.spawn(|| reader.list("").unwrap());
        let absent = scope.spawn(|| posix(reader.lookup(ROOT, b"no such run")));
        // The half that was opened is found while the other is not.
        for name in &names {
            scope.spawn(move || {
                reader.lookup(ROOT, name.as_bytes()).map(|_| found.lock().unwrap().insert(name))
            });
        }
        while found.lock().unwrap().len() < 20 {
            sleep(Duration::from_millis(5));
        }
        sleep(Duration::from_millis(100));
        assert_eq!(found.lock().unwrap().len(), 20);
        assert!(!listing.is_finished() && !absent.is_finished() && reader.runs_to_open() > 0);
        gate.open();
        assert_eq!(listing.join().unwrap(), names);
        assert_eq!(absent.join().unwrap(), Posix::NotFound);
    });
    assert_eq!((reader.runs_to_open(), reader.getattr(ROOT, None).unwrap().nlink), (0, 42));
    reader.close().unwrap();
}

#[test]
fn what_is_damaged_is_told_and_costs_no_other() {
    let fixture = behind(Fixture::on_disk());
    let names = open_runs(&fixture, 12);
    let broken = fixture.run_dirs().remove(3);
    let broken = fixture.path().join("runs").join(String::from_utf8(broken).unwrap());
    fs::write(broken.join("run.json"), b"x").unwrap();
    let reader = fixture.reader();
    assert_eq!(reader.list("").unwrap().len(), names.len() - 1);
    assert_eq!(reader.left_out().len(), 1);
    reader.close().unwrap();
}

#[test]
fn who_waits_for_runs_is_answered_when_the_vault_is_closed() {
    let fixture = behind(Fixture::in_memory());
    open_runs(&fixture, 12);
    let (root, gate) = Gate::over(&fixture.root, 2);
    let reader = reader_over(&fixture, root);
    scope(|scope| {
        let listing = scope.spawn(|| reader.list(""));
        let absent = scope.spawn(|| reader.lookup(ROOT, b"no such run"));
        sleep(Duration::from_millis(50));
        assert!(!listing.is_finished() && !absent.is_finished());
        reader.close().unwrap();
        assert!(matches!(listing.join().unwrap(), Err(Error::Closed)));
        assert!(matches!(absent.join().unwrap(), Err(Error::Closed)));
        gate.open();
    });
}

#[test]
fn a_gateway_makes_runs_while_those_of_others_are_opened() {
    let mut fixture = behind(Fixture::in_memory());
    open_runs(&fixture, 12);
    let mount = fixture.writer();
    mount.make_dir("ours").unwrap();
    assert!(mount.await_runs(LONG));
    mount.close().unwrap();
    drop(mount);
    alone(&mut fixture).opens = false;
    let (root, gate) = Gate::over(&fixture.root, 1);
    let gateway: Arc<dyn Gateway> = Arc::new(fixture.state.clone());
    let mount = Mount(Vault::open(root, fixture.authority.clone(), Some(gateway), fixture.options).unwrap());
    mount.make_dir("another").unwrap();
    assert_eq!(mount.list("").unwrap(), ["another", "ours"]);
    assert_eq!(posix(mount.make_dir("ours")), Posix::Exists);
    gate.open();
    assert!(mount.await_runs(LONG));
    assert_eq!(mount.list("").unwrap(), ["another", "ours"]);
    mount.close().unwrap();
}

#[test]
fn what_continues_a_known_run_is_waited_for() {
    let fixture = behind(Fixture::in_memory());
    sealed(&fixture, &["run".into()]);
    let writer = fixture.writer();
    writer.make_dir("run/Analysis").unwrap();
    writer.close().unwrap();
    assert_eq!(seen(&fixture), ["run"]);
    let (root, gate) = Gate::over(&fixture.root, 0);
    let reader = reader_over(&fixture, root);
    scope(|scope| {
        // The run is there at once, and what it has itself.
        assert_eq!(reader.get("run/RunInfo.xml").unwrap(), b"run");
        let added = scope.spawn(|| reader.ino("run/Analysis").map(drop));
        sleep(Duration::from_millis(50));
        assert!(!added.is_finished());
        gate.open();
        added.join().unwrap().unwrap();
    });
    assert_eq!(reader.list("run").unwrap(), ["Analysis", "RunInfo.xml"]);
    reader.close().unwrap();
}

fn run_path(fixture: &Fixture, run: &RunId) -> PathBuf {
    fixture.path().join(format!("runs/{run}"))
}

/// Two sealed runs that a mount has seen.
fn two_known() -> (Fixture, RunId, RunId) {
    let fixture = behind(Fixture::on_disk());
    let runs = sealed(&fixture, &["one".into(), "two".into()]);
    assert_eq!(seen(&fixture), ["one", "two"]);
    assert_eq!(kept(&fixture.authority).0, runs.iter().copied().collect());
    (fixture, runs[0], runs[1])
}

/// The read is refused although its row is shown, and the next mount, which knows it no more, leaves it out.
fn noticed(fixture: &Fixture, run: &RunId) {
    let reader = fixture.reader();
    assert!(reader.await_runs(LONG));
    assert_eq!(reader.list("").unwrap(), ["one", "two"]);
    assert_eq!(reader.get("two/RunInfo.xml").unwrap(), b"two");
    for _ in 0..2 {
        let refused = reader.get("one/RunInfo.xml");
        assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
        let listed = reader.opendir(reader.ino("one").unwrap());
        assert!(matches!(listed, Err(Error::Damaged { .. })), "{listed:?}");
    }
    reader.close().unwrap();
    assert!(!kept(&fixture.authority).0.contains(run));
    let reader = fixture.reader();
    assert_eq!(reader.list("").unwrap(), ["two"]);
    assert_eq!(reader.left_out().iter().map(|(run, _)| *run).collect::<Vec<_>>(), [*run]);
    reader.close().unwrap();
}

#[test]
fn a_known_run_whose_seal_was_taken_away_is_noticed_at_the_read() {
    let (fixture, one, _) = two_known();
    fs::remove_dir_all(run_path(&fixture, &one).join("seal")).unwrap();
    noticed(&fixture, &one);
}

#[test]
fn a_known_run_in_whose_place_another_stands_is_noticed_at_the_read() {
    let (fixture, one, two) = two_known();
    let (at, other) = (run_path(&fixture, &one), run_path(&fixture, &two));
    fs::remove_dir_all(&at).unwrap();
    let copied = std::process::Command::new("cp").arg("-a").arg(&other).arg(&at).status().unwrap();
    assert!(copied.success());
    noticed(&fixture, &one);
}

#[test]
fn a_known_run_without_a_part_is_noticed_at_the_read() {
    for part in ["keys", "tree"] {
        let (fixture, one, _) = two_known();
        fs::remove_dir_all(run_path(&fixture, &one).join(part)).unwrap();
        noticed(&fixture, &one);
    }
}

#[test]
fn a_known_run_that_is_gone_is_not_shown_and_one_that_goes_is_an_error() {
    let (fixture, one, two) = two_known();
    let reader = fixture.reader();
    assert!(reader.await_runs(LONG));
    let top = reader.ino("two").unwrap();
    fs::remove_dir_all(run_path(&fixture, &two)).unwrap();
    let refused = reader.lookup(top, b"RunInfo.xml");
    assert!(matches!(&refused, Err(Error::Damaged { .. })), "{refused:?}");
    reader.close().unwrap();
    assert_eq!(seen(&fixture), ["one"]);
    assert_eq!(kept(&fixture.authority).0, BTreeSet::from([one]));
}

#[test]
fn a_known_run_is_opened_anew_where_what_is_signed_of_it_counts_no_more() {
    // Its gateway's chain was ended before it; before its seal; its seal is not the one that was seen, or none was.
    let none = Last { n: 0, hash: None };
    let all = Last { n: u64::MAX, hash: None };
    type Change = fn(&mut Chain, RunId, Until);
    let end: Change = |chain, _, until| chain.until = Some(until);
    let other: Change = |chain, run, _| {
        chain.seals.lock().unwrap().insert(run, Digest([5; 32]));
    };
    let unseen: Change = |chain, _, _| chain.seals.lock().unwrap().clear();
    let stranger: Change = |chain, _, _| chain.gateways.clear();
    for (change, until, shown) in [
        (end, Until { run: none, seal: all }, 0),
        (end, Until { run: all, seal: none }, 0),
        (end, Until { run: all, seal: all }, 2),
        (other, Until { run: all, seal: all }, 1),
        (unseen, Until { run: all, seal: all }, 2),
        (stranger, Until { run: all, seal: all }, 0),
    ] {
        let (mut fixture, one, _) = two_known();
        change(alone(&mut fixture), one, until);
        let reader = fixture.reader();
        assert_eq!(reader.list("").unwrap().len(), shown);
        assert_eq!(reader.left_out().len(), 2 - shown);
        reader.close().unwrap();
    }
}

#[test]
fn known_runs_whose_seals_were_taken_away_are_left_out_although_nobody_looks_into_them() {
    // More than are looked at in one go; the last are the last in turn.
    let fixture = behind(Fixture::on_disk());
    let mut runs = sealed(&fixture, &named(70));
    runs.sort_unstable();
    assert_eq!(seen(&fixture).len(), runs.len());
    let gone = [runs[0], runs[69]];
    for run in &gone {
        fs::rename(run_path(&fixture, run).join("seal"), run_path(&fixture, run).join("elsewhere")).unwrap();
    }
    let reader = fixture.reader();
    assert!(reader.await_runs(LONG));
    assert_eq!(reader.list("").unwrap().len(), runs.len());
    let begin = std::time::Instant::now();
    while reader.left_out().iter().map(|(run, _)| *run).collect::<Vec<_>>() != gone {
        assert!(begin.elapsed() < LONG, "{:?}", reader.left_out());
        sleep(Duration::from_millis(100));
        reader.tick().unwrap();
    }
    assert_eq!(reader.list("").unwrap().len(), runs.len() - gone.len());
    reader.close().unwrap();
    assert!(gone.iter().all(|run| !kept(&fixture.authority).0.contains(run)));
}

#[test]
fn a_mount_that_nobody_uses_asks_the_store_for_little_and_notices_all_the_same() {
    let fixture = Fixture::on_disk();
    let theirs = fixture.writer_of(&State::new(4));
    theirs.make_dir("their run").unwrap();
    let ours = fixture.writer();
    ours.make_dir("our run").unwrap();
    ours.close().unwrap();
    let (counted, calls) = Delays::over(fixture.root.clone(), Duration::ZERO).unwrap();
    let gateway: Arc<dyn Gateway> = Arc::new(fixture.state.clone());
    let mount =
        Mount(Vault::open(counted, fixture.authority.clone(), Some(gateway), fixture.options).unwrap());
    // Its body is opened for writing, and then left alone.
    mount.put("our run/file", b"x").unwrap();
    let ticks = |n: u32| {
        for _ in 0..n {
            mount.tick().unwrap();
            sleep(Duration::from_millis(250));
        }
    };
    // Each look comes twice after a change.
    ticks(17);
    // Every ten seconds it looks in any case.
    let quiet = (0..3).any(|_| {
        calls.reset();
        ticks(9);
        assert_eq!(calls.count(Op::Space), 0);
        calls.count(Op::Entries) + calls.count(Op::OpenDir) == 0 && calls.total() < 20
    });
    assert!(quiet, "{} calls", calls.total());
    theirs.mv("their run", "another name", runvault_store::backend::Rename::Over).unwrap();
    theirs.make_dir("a new run").unwrap();
    ticks(9);
    assert_eq!(mount.list("").unwrap(), ["a new run", "another name", "our run"]);
}
