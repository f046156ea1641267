//! Torn writes: the store is copied while the mount is live; then the newer bytes of each changed
//! file are laid over its older content only in part, as a power cut may leave them. What we had
//! synced by then stays whole: nothing at once, the journal once its records went out, the header
//! of a file that was shortened. Every byte that was durable before reads back, old or new.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use runvault_tests::Site;
use runvault_tests::tools::run;

const SIZE: usize = 100_003;

fn old() -> Vec<u8> {
    (0..SIZE).map(|i| (i % 251) as u8).collect()
}

/// A change, as `(range, new content)` pieces, and what it does to the file.
struct Change {
    name: &'static str,
    apply: fn(&fs::File),
    /// What the file holds when all of the change arrived.
    after: fn() -> Vec<u8>,
    /// Durable bytes stay readable below this size.
    kept: usize,
    /// The call itself syncs the header before it returns, and the journal.
    syncs: bool,
}

fn patched(pieces: &[(usize, u8, usize)], len: usize) -> Vec<u8> {
    let mut bytes = old();
    bytes.resize(bytes.len().max(len), 0);
    for (at, byte, n) in pieces {
        bytes[*at..at + n].fill(*byte);
    }
    bytes
}

fn changes() -> Vec<Change> {
    vec![
        Change {
            name: "a rewritten middle",
            apply: |f| f.write_all_at(&[0xaa; 20_000], 30_000).expect("write"),
            after: || patched(&[(30_000, 0xaa, 20_000)], 0),
            kept: SIZE,
            syncs: false,
        },
        Change {
            name: "an append to a durable tail",
            apply: |f| f.write_all_at(&[0xbb; 100], SIZE as u64).expect("write"),
            after: || patched(&[(SIZE, 0xbb, 100)], SIZE + 100),
            kept: SIZE,
            syncs: false,
        },
        Change {
            name: "a rewritten head",
            apply: |f| f.write_all_at(&[0xcc; 10], 0).expect("write"),
            after: || patched(&[(0, 0xcc, 10)], 0),
            kept: SIZE,
            syncs: false,
        },
        Change {
            name: "a truncation",
            apply: |f| f.set_len(50_001).expect("truncate"),
            after: || old()[..50_001].to_vec(),
            kept: 50_001,
            syncs: true,
        },
        Change {
            name: "a hole behind the end",
            apply: |f| f.write_all_at(&[0xdd; 100], 300_000).expect("write"),
            after: || patched(&[(300_000, 0xdd, 100)], 300_100),
            kept: SIZE,
            syncs: false,
        },
    ]
}

/// Regular files below `dir`, by relative path.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.is_file() {
                all.push(path.strip_prefix(dir).expect("below").to_owned());
            }
        }
    }
    all
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// When the copy is taken: at once, or after waiting changes went out by themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    AtOnce,
    Later,
}

/// Bytes of a header: both copies.
const HEADER: usize = 1024;

/// The older content with every second block of the newer one, from block `first` on.
fn torn(older: &[u8], newer: &[u8], block: usize, first: usize, newer_length: bool) -> Vec<u8> {
    let mut bytes = older.to_vec();
    bytes.resize(if newer_length { newer.len() } else { older.len() }, 0);
    for (n, piece) in newer.chunks(block).enumerate() {
        let at = n * block;
        if n % 2 == first && at + piece.len() <= bytes.len() {
            bytes[at..at + piece.len()].copy_from_slice(piece);
        }
    }
    bytes
}

#[test]
fn bytes_that_were_durable_read_back() {
    for change in changes() {
        tear(&change, Moment::Later);
        if !change.syncs {
            tear(&change, Moment::AtOnce);
        }
    }
}

fn tear(change: &Change, moment: Moment) {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    let path = mount.path("run/file");
    fs::write(&path, old()).expect("a file");
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("open");
    file.sync_all().expect("sync");
    let [before, during, state] = ["before", "during", "state-during"].map(|name| site.dir().join(name));
    copy(&site.store, &before);
    (change.apply)(&file);
    if moment == Moment::Later {
        std::thread::sleep(Duration::from_millis(2500));
    }
    copy(&site.store, &during);
    copy(&site.state, &state);
    drop(file);
    mount.kill();

    for (block, first, newer_length) in
        [(512, 0, true), (512, 1, true), (4096, 0, true), (4096, 1, true), (512, 1, false), (4096, 0, false)]
    {
        copy(&during, &site.store);
        copy(&state, &site.state);
        for name in files(&during) {
            let newer = fs::read(during.join(&name)).expect("read");
            let older = fs::read(before.join(&name)).unwrap_or_default();
            let synced = moment == Moment::Later && name.iter().any(|part| part == "journal");
            if newer == older || synced {
                continue;
            }
            let mut bytes = torn(&older, &newer, block, first, newer_length || change.syncs);
            if change.syncs && name.iter().any(|part| part == "tree") {
                bytes[..HEADER].copy_from_slice(&newer[..HEADER]);
            }
            fs::write(site.store.join(&name), bytes).expect("tear");
        }
        let what = format!("{} {moment:?}, blocks of {block} from {first}", change.name);
        let again = site.mount();
        let got = fs::read(again.path("run/file")).unwrap_or_else(|e| panic!("{what}: {e}\n{}", again.log()));
        verify(change, &got, &what);
        again.unmount();
    }
}

fn verify(change: &Change, got: &[u8], what: &str) {
    let (was, after) = (old(), (change.after)());
    assert!(got.len() >= change.kept, "{what}: {} bytes left", got.len());
    for i in 0..change.kept {
        let fine = got[i] == was[i] || Some(&got[i]) == after.get(i);
        assert!(fine, "{what}: byte {i} is {}", got[i]);
    }
}
