//! The fence: a writer that could not renew its lease for 60 s writes no more, so that another machine may take over; one
//! that finds another's lease does not either.
//! In real time. The writer is stopped as a whole, as a paused virtual machine is, with bytes that it has accepted.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runvault_tests::Site;
use rustix::process::Signal;

/// What a writer that does not renew may still do.
pub(crate) const FENCE: Duration = Duration::from_secs(60);

/// Every file of the store, or of a part of it, by its path.
pub(crate) fn store(at: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![at.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let bytes = fs::read(&path).expect("a file");
                found.insert(path, bytes);
            }
        }
    }
    found
}

/// Another machine's lease in the place of a run's.
pub(crate) fn take_over(run: &Path) {
    let (lease, new) = (run.join("lease"), run.join(".lease"));
    let text = fs::read_to_string(&lease).expect("a lease");
    let at = text.find("\"host\":\"").expect("a host") + 8;
    fs::write(&new, format!("{}{}{}", &text[..at], "07".repeat(32), &text[at + 64..])).expect("written");
    fs::rename(new, lease).expect("in place");
}

/// The directories of `runs/`.
pub(crate) fn runs(site: &Site) -> Vec<PathBuf> {
    let runs = fs::read_dir(site.store.join("runs")).expect("runs");
    runs.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn a_writer_that_was_away_too_long_writes_no_more() {
    writes_no_more(FENCE + Duration::from_secs(1));
}

/// As a virtual machine comes back whose clock stood still.
#[test]
fn a_writer_whose_time_is_not_over_looks_before_it_writes() {
    writes_no_more(Duration::from_secs(2));
}

/// A run of a writer that is stopped for so long is another machine's when it goes on.
fn writes_no_more(away: Duration) {
    let site = Site::in_memory();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    let open = |name: &str| {
        let path = mount.path("run").join(name);
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).expect("a file")
    };
    let (file, other) = (open("file"), open("other"));
    for file in [&file, &other, &open("unread")] {
        file.write_all_at(&[1; 20_000], 0).expect("written");
        file.sync_all().expect("synced");
    }
    fs::write(mount.path("run/shrinks"), [1; 30_000]).expect("a file");
    std::thread::sleep(Duration::from_secs(2));
    // Accepted, not yet in the store: the end of a file, and a change within what is durable.
    file.write_all_at(b"at the end", 20_000).expect("accepted");
    other.write_all_at(b"within", 5_000).expect("accepted");
    mount.signal(Signal::STOP);
    std::thread::sleep(away);
    runs(&site).iter().for_each(|run| take_over(run));
    // Who holds the run now has cut a file to its first chunk.
    let shrinks = store(&site.store).into_iter().find(|(_, bytes)| bytes.len() == 1024 + 30_000 + 4 * 28);
    let shrinks =
        fs::OpenOptions::new().write(true).open(shrinks.expect("the stored file").0).expect("a file");
    shrinks.set_len(1024 + 8192 + 28).expect("cut");
    let taken = store(&site.store);
    mount.signal(Signal::CONT);

    let refused = |what: &str, outcome: std::io::Result<()>| {
        let error = outcome.err().and_then(|e| e.raw_os_error());
        assert!(matches!(error, Some(libc::EROFS | libc::EIO)), "{what}: {error:?}\n{}", mount.log());
    };
    refused("write", file.write_all_at(b"late", 0));
    refused("fsync", file.sync_all());
    refused("fsync of the other", other.sync_all());
    refused("create", fs::write(mount.path("run/new"), b"late"));
    refused("truncate", file.set_len(0));
    refused("rename", fs::rename(mount.path("run/file"), mount.path("run/renamed")));
    refused("unlink", fs::remove_file(mount.path("run/other")));
    assert_eq!(fs::read(mount.path("run/unread")).expect("reading goes on"), [1; 20_000]);
    drop((file, other));
    // Several ticks, which let waiting bytes out.
    std::thread::sleep(Duration::from_secs(3));
    // The kernel kept its size for as long as only this mount could change it.
    assert_eq!(fs::metadata(mount.path("run/shrinks")).expect("stat").len(), 8192);
    assert!(mount.log().contains("host 07070707"), "the new holder is not named:\n{}", mount.log());
    mount.signal(Signal::TERM);
    let _ = mount.wait();
    let after = store(&site.store);
    let names = |all: &BTreeMap<PathBuf, Vec<u8>>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(&taken));
    for (path, bytes) in &taken {
        assert!(after[path] == *bytes, "{} was written after the takeover", path.display());
    }
}
