//! A sealed run gets another key while it is read: nobody who reads it notices.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use runvault_tests::tools::{printed, run, runvault};
use runvault_tests::{Mount, Random};
use rustix::fs::{Advice, fadvise};

use crate::fio::{self, Fio};
use crate::live::{Custody, Ends, LARGE, Mapped, content, shown, soon};

const NAME: &str = "run one";

/// More than a machine under load keeps anybody waiting; what is asked for is a second, and what was measured is printed.
const STALL: Duration = Duration::from_secs(5);

/// The longest time that one call of a reader took.
#[derive(Default)]
struct Longest(AtomicU64);

impl Longest {
    fn timed<T>(&self, act: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = act();
        self.0.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
        done
    }

    fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// What is read comes from the mount, and not from the kernel's memory.
fn drop_pages(file: &File) {
    fadvise(file, 0, None, Advice::DontNeed).expect("advice");
}

/// Opens it anew each time.
fn by_name(at: &Path, known: &[u8], longest: &Longest) {
    let file = longest.timed(|| File::open(at.join("Data/large"))).expect("a file");
    let mut bytes = vec![0; known.len()];
    longest.timed(|| file.read_exact_at(&mut bytes, 0)).expect("all of it");
    assert!(bytes == known);
    drop_pages(&file);
}

/// Somewhere in a file that was opened before.
fn by_descriptor(file: &File, known: &[u8], random: &mut Random, longest: &Longest) {
    let from = random.below((known.len() - 10_000) as u64);
    let mut bytes = [0; 10_000];
    longest.timed(|| file.read_exact_at(&mut bytes, from)).expect("a part");
    assert!(bytes == known[from as usize..][..bytes.len()]);
    drop_pages(file);
}

/// Names, kinds and numbers.
fn by_listing(at: &Path, longest: &Longest) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    longest.timed(|| {
        for dir in [at.to_owned(), at.join("Data")] {
            for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry")) {
                let meta = fs::symlink_metadata(entry.path()).expect("attributes");
                found.push((entry.file_name().into_string().expect("UTF-8"), meta.ino()));
            }
        }
    });
    found.sort();
    found
}

fn id_of(custody: &Custody, mount: &Mount) -> String {
    let status = custody.site.status(&mount.at);
    let runs = status["runs"].as_array().expect("runs");
    let named = runs.iter().find(|run| run["name"] == NAME).expect("the run");
    named["run"].as_str().expect("an id").to_owned()
}

/// Agreed on, and done; the old run goes `grace` after the new one has come. Gives the new one's id.
fn rekey(custody: &Custody, run_id: &str, grace: &str) -> String {
    custody.act(&["rekey", run_id]);
    let mut work = custody.command(&["rekey", "--json", "--grace", grace]);
    let said =
        run(work.arg(&custody.site.store).arg(run_id).arg("--identity").arg(&custody.site.identity)).stdout;
    let said: serde_json::Value = serde_json::from_slice(&said).expect("JSON");
    assert_eq!((said["run"].as_str(), &said["replaced"]), (Some(run_id), &true.into()), "{said}");
    assert!(!custody.site.store.join("runs").join(run_id).exists());
    said["new"].as_str().expect("an id").to_owned()
}

/// What the mount's process keeps of files that were removed.
fn removed_but_open(mount: &Mount) -> usize {
    let fds = fs::read_dir(format!("/proc/{}/fd", mount.pid())).expect("the process").flatten();
    fds.filter_map(|fd| fs::read_link(fd.path()).ok())
        .filter(|to| to.to_string_lossy().contains("/runs/.gone"))
        .count()
}

#[test]
fn readers_and_a_writer_go_on_while_a_run_is_rekeyed_and_removed() {
    let custody = Custody::of_one_owner();
    let gateway = custody.gateway();
    fs::create_dir_all(gateway.path(NAME).join("Data")).expect("a run");
    fio::write(&gateway.path(NAME).join("Data/blocks"));
    let first = custody.sealed(&gateway, NAME);
    let key = custody.named_key("dave");
    custody.act(&["add-reader", &key]);
    custody.act(&["grant", &first, "dave"]);
    let dave = custody.reader("dave");
    let at = dave.path(NAME);
    let fio = Fio::reads(&at.join("Data/blocks"));
    let known = content(NAME);
    let file = File::open(at.join("Data/large")).expect("a file");
    let mapped = Mapped::of(&file);
    let names = by_listing(&at, &Longest::default());
    let (over, longest) = (AtomicBool::new(false), Longest::default());
    let until_over = |mut act: Box<dyn FnMut() + '_>| {
        while !over.load(Ordering::Relaxed) {
            act();
        }
    };
    let ids = std::thread::scope(|scope| {
        let ends = Ends(&over);
        let readers = [
            scope.spawn(|| until_over(Box::new(|| by_name(&at, &known, &longest)))),
            scope.spawn(|| {
                let mut random = Random::of(1);
                until_over(Box::new(|| by_descriptor(&file, &known, &mut random, &longest)));
            }),
            scope.spawn(|| until_over(Box::new(|| assert_eq!(by_listing(&at, &longest), names)))),
            scope.spawn(|| {
                fs::create_dir(gateway.path("another run")).expect("a run");
                let mut written = File::create(gateway.path("another run/file")).expect("a file");
                until_over(Box::new(|| {
                    written.write_all(&known[..100_000]).and_then(|()| written.sync_all()).expect("written");
                }));
            }),
        ];
        // Gone before the mount looks again; then with time to see both.
        let second = rekey(&custody, &first, "0s");
        soon("the new run", &dave, || id_of(&custody, &dave) == second);
        let third = rekey(&custody, &second, "3s");
        assert_eq!(id_of(&custody, &dave), third);
        drop(ends);
        for reader in readers {
            reader.join().expect("no error");
        }
        [first, second, third]
    });
    println!("longest call of a reader: {:?}", longest.get());
    assert!(longest.get() < STALL, "{:?}", longest.get());
    if let Some((reads, longest)) = fio.map(Fio::end) {
        println!("fio: {reads} reads, the longest {longest:?}");
        assert!(reads > 0 && longest < STALL, "{reads} {longest:?}");
    }
    assert!(mapped.bytes() == known, "the pages that nobody had read");
    soon("what was removed takes no room", &dave, || removed_but_open(&dave) == 0);
    assert!(!dave.log().contains("error"), "{}", dave.log());
    assert_eq!(shown(&dave), [NAME]);
    let verified = run(custody.site.command(&["verify"]).arg(&custody.site.store).arg(NAME));
    assert!(verified.status.success(), "{}", printed(&verified));
    drop((file, mapped));
    dave.unmount();
    // The nodes have the numbers that they had under the first key.
    let again = custody.reader("dave");
    assert_eq!(by_listing(&again.path(NAME), &longest), names);
    assert!(fs::read(again.path(NAME).join("Data/large")).expect("read") == known && known.len() == LARGE);
    assert_eq!(id_of(&custody, &again), ids[2]);
    again.unmount();
    gateway.unmount();
    let listed = run(Command::new(runvault())
        .args(["scrub", "--state"])
        .arg(&custody.site.state)
        .arg(&custody.site.store));
    assert!(listed.status.success(), "{}", printed(&listed));
}

/// A process that is ended with the test.
struct Working(Child);

impl Drop for Working {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn who_is_revoked_while_both_runs_are_there_is_shown_neither() {
    let custody = Custody::of_one_owner();
    let gateway = custody.gateway();
    let first = custody.sealed(&gateway, NAME);
    gateway.unmount();
    let key = custody.named_key("dave");
    custody.act(&["add-reader", &key]);
    custody.act(&["grant", &first, "dave"]);
    let dave = custody.reader("dave");
    assert_eq!(shown(&dave), [NAME]);
    custody.act(&["rekey", &first]);
    let mut work = custody.command(&["rekey", "--grace", "1h"]);
    work.arg(&custody.site.store).arg(&first).arg("--identity").arg(&custody.site.identity);
    let _working = Working(work.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process"));
    soon("the new run", &dave, || id_of(&custody, &dave) != first);
    custody.act(&["revoke", &id_of(&custody, &dave), "dave"]);
    soon("revoked", &dave, || shown(&dave).is_empty());
    assert!(custody.site.store.join("runs").join(&first).exists());
    fs::read(dave.path(NAME).join("RunInfo.xml")).expect_err("by no path");
    dave.unmount();
    let again = custody.reader("dave");
    assert!(shown(&again).is_empty(), "{:?}", shown(&again));
    again.unmount();
}
