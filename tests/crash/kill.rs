//! kill -9 of the mount under fsynced load: every byte that fsync acknowledged is there afterwards.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runvault_tests::tools::run;
use runvault_tests::{Random, Site};

const WRITERS: u64 = 4;

/// What a writer's file must hold at least: the bytes at the last acknowledged fsync, and for each
/// range written since, either.
#[derive(Default)]
struct Acknowledged {
    bytes: Vec<u8>,
    since: Vec<(u64, usize)>,
    syncs: u64,
}

fn rounds() -> u64 {
    std::env::var("RUNVAULT_KILL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(50)
}

fn write_until(stop: &AtomicBool, file: &File, random: &mut Random, truth: &Mutex<Acknowledged>) {
    let mut now = truth.lock().expect("truth").bytes.clone();
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..=random.below(3) {
            let at = random.below(now.len() as u64 + 10_000).min(120_000);
            let len = 1 + random.below(20_000) as usize;
            let byte = random.below(250) as u8 + 1;
            let data = vec![byte; len];
            truth.lock().expect("truth").since.push((at, len));
            if file.write_all_at(&data, at).is_err() {
                return;
            }
            let end = at as usize + len;
            if now.len() < end {
                now.resize(end, 0);
            }
            now[at as usize..end].copy_from_slice(&data);
        }
        if file.sync_all().is_err() {
            return;
        }
        let mut truth = truth.lock().expect("truth");
        truth.bytes.clone_from(&now);
        truth.since.clear();
        truth.syncs += 1;
    }
}

fn verify(path: &Path, truth: &Acknowledged, round: u64) {
    let got = fs::read(path).unwrap_or_else(|e| panic!("round {round}, {}: {e}", path.display()));
    assert!(got.len() >= truth.bytes.len(), "round {round}: {} of {} bytes", got.len(), truth.bytes.len());
    for (i, want) in truth.bytes.iter().enumerate() {
        let open = truth.since.iter().any(|(at, len)| (*at..*at + *len as u64).contains(&(i as u64)));
        assert!(open || got[i] == *want, "round {round}: byte {i} is {} and not {want}", got[i]);
    }
}

#[test]
fn fsynced_bytes_survive_kill_9() {
    let site = Site::new();
    let mut mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    let truths: Vec<_> = (0..WRITERS).map(|_| Arc::new(Mutex::new(Acknowledged::default()))).collect();
    for round in 0..rounds() {
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = truths
            .iter()
            .enumerate()
            .map(|(n, truth)| {
                let path = mount.path(format!("run/file-{n}"));
                let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
                let file = file.unwrap_or_else(|e| panic!("round {round}: {e}\n{}", mount.log()));
                let (stop, truth) = (stop.clone(), truth.clone());
                std::thread::spawn(move || {
                    write_until(&stop, &file, &mut Random::of(round * 1000 + n as u64), &truth);
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(20 + round * 7 % 100));
        mount.kill();
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("a writer");
        }
        mount = site.mount();
        for (n, truth) in truths.iter().enumerate() {
            let path = mount.path(format!("run/file-{n}"));
            let mut truth = truth.lock().expect("truth");
            if truth.bytes.is_empty() && !path.exists() {
                continue;
            }
            verify(&path, &truth, round);
            // What is there now is where the next round starts from.
            truth.bytes = fs::read(&path).expect("read");
            truth.since.clear();
        }
    }
    let syncs: u64 = truths.iter().map(|truth| truth.lock().expect("truth").syncs).sum();
    assert!(syncs >= rounds() / 5, "{syncs} syncs were acknowledged: hardly anything had to survive");
    mount.unmount();
}

#[test]
fn a_copy_out_of_a_file_with_an_unclean_end_has_no_byte_that_nobody_wrote() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    let file = File::create(mount.path("run/file")).expect("a file");
    file.write_all_at(&[1; 20_000], 0).expect("a write");
    file.sync_all().expect("a sync");
    file.write_all_at(&[1; 500_000], 20_000).expect("a write");
    let copy = |name: &str| {
        let out = site.dir().join(name);
        run(site.command(&["cp"]).arg(format!("{}:/run/file", site.store.display())).arg(&out));
        fs::read(out).expect("the copy")
    };
    let beside = copy("beside");
    mount.kill();
    drop(file);
    let after = copy("after");
    let read = run(site.command(&["cat"]).arg(&site.store).arg("run/file")).stdout;
    assert!(beside.len() >= 20_000 && beside.iter().all(|byte| *byte == 1), "{} bytes", beside.len());
    assert!(after == read, "{} bytes, and cat gives {}", after.len(), read.len());
}
