//! Nothing of what was written stands in the store, in the state folder, or in the log.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use runvault_sequencer::{Family, Replay, RunSpec, Size};
use runvault_tests::making::{full_tree, plain_tree};
use runvault_tests::tools::run;
use runvault_tests::{Random, Site};

/// Bytes of a file's content that may stand nowhere.
const PIECE: usize = 16;
/// Bytes of a name, path, target or attribute: so many that none stands in the store by chance.
const WORD: usize = 8;
/// Different bytes that a piece has at least: holes, and runs of one byte, stand anywhere.
const DIFFERENT: usize = 6;

/// Names that are gone when the trees are looked at, in trees and in what this file writes.
const FORMER: [&str; 6] =
    ["name before", "folder before", "was linked", "for a moment", "former name", "former folder"];
const SAMPLES: &str = "Sample_ID,PatientJaneRoe-0042\n";
const ATTRIBUTE: (&str, &[u8]) = ("user.sample-of-jane-roe", b"attribute-value-of-jane-roe");

/// What may not be seen.
#[derive(Default)]
struct Plain {
    pieces: HashSet<[u8; PIECE]>,
    words: HashSet<[u8; WORD]>,
}

impl Plain {
    /// Content of a file.
    fn content(&mut self, bytes: &[u8]) {
        self.pieces.extend(bytes.array_windows().filter(|piece| varied(*piece)));
    }

    /// A name, path, link target, attribute, sample name.
    fn word(&mut self, bytes: &[u8]) {
        self.words.extend(bytes.array_windows().filter(|word| varied(*word)));
    }

    /// All that a tree shows, with the paths of its objects below `root`.
    fn tree(&mut self, root: &Path, at: &Path) {
        self.word(at.strip_prefix(root).expect("below the root").as_os_str().as_bytes());
        for (name, value) in attributes(at) {
            self.word(&name);
            self.word(&value);
        }
        let meta = at.symlink_metadata().expect("metadata");
        if meta.is_dir() {
            for entry in fs::read_dir(at).expect("a directory") {
                self.tree(root, &entry.expect("an entry").path());
            }
        } else if meta.is_symlink() {
            self.word(fs::read_link(at).expect("a target").as_os_str().as_bytes());
        } else if meta.is_file() {
            self.content(&fs::read(at).expect("a file"));
        }
    }

    /// What of it stands below `at`, and where: in a file, a name, a link, an attribute.
    fn seen(&self, at: &Path) -> Option<String> {
        let meta = at.symlink_metadata().expect("metadata");
        let mut all = vec![at.file_name().expect("a name").as_bytes().to_vec()];
        all.extend(attributes(at).into_iter().flat_map(<[Vec<u8>; 2]>::from));
        if meta.is_dir() {
            let mut entries = fs::read_dir(at).expect("a directory");
            let below = entries.find_map(|entry| self.seen(&entry.expect("an entry").path()));
            if below.is_some() {
                return below;
            }
        } else if meta.is_symlink() {
            all.push(fs::read_link(at).expect("a target").as_os_str().as_bytes().to_vec());
        } else if meta.is_file() {
            all.push(fs::read(at).expect("a stored file"));
        }
        let found = all.iter().find_map(|bytes| self.found_in(bytes))?;
        Some(format!("{:?} stands in {}", String::from_utf8_lossy(found), at.display()))
    }

    fn found_in<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let word = bytes.array_windows().find(|word| self.words.contains(*word)).map(|w| &w[..]);
        word.or_else(|| bytes.array_windows().find(|piece| self.pieces.contains(*piece)).map(|p| &p[..]))
    }
}

fn varied(bytes: &[u8]) -> bool {
    let first = |i: usize| !bytes[..i].contains(&bytes[i]);
    (0..bytes.len()).filter(|i| first(*i)).count() >= DIFFERENT
}

/// Attributes with their values; ACLs are the store's own, as modes are.
fn attributes(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = [0u8; 4096];
    let Ok(n) = rustix::fs::llistxattr(path, &mut names) else { return Vec::new() };
    let names = names[..n].split(|b| *b == 0);
    names
        .filter(|name| !name.is_empty() && !name.starts_with(b"system."))
        .map(|name| {
            let mut value = vec![0u8; 4096];
            let n = rustix::fs::lgetxattr(path, name, &mut value).unwrap_or(0);
            value.truncate(n);
            (name.to_vec(), value)
        })
        .collect()
}

/// What has a past: overwritten through the journal, renamed, given an attribute.
fn a_past(at: &Path, plain: &mut Plain) {
    let mut random = Random::of(41);
    fs::create_dir_all(at.join("former folder")).expect("directories");
    let (before, now) =
        (at.join("former folder/former name of it"), at.join("SampleSheet of the patient.csv"));
    let (old, new) = (random.bytes(200_000), random.bytes(9000));
    fs::write(&before, &old).expect("a file");
    rustix::fs::setxattr(&before, ATTRIBUTE.0, ATTRIBUTE.1, rustix::fs::XattrFlags::empty())
        .expect("an attribute");
    let file = OpenOptions::new().write(true).open(&before).expect("a file");
    file.sync_all().expect("sync");
    file.write_all_at(&new, 500).expect("written over");
    file.write_all_at(SAMPLES.as_bytes(), 100_000).expect("written over");
    file.sync_all().expect("sync");
    fs::rename(&before, &now).expect("renamed");
    File::open(at).and_then(|dir| dir.sync_all()).expect("sync");
    rustix::fs::removexattr(&now, ATTRIBUTE.0).expect("removed");
    plain.content(&old);
    for word in [SAMPLES.as_bytes(), ATTRIBUTE.0.as_bytes(), ATTRIBUTE.1] {
        plain.word(word);
    }
}

#[test]
fn nothing_of_a_run_is_to_be_seen() {
    let site = Site::new();
    let mut plain = Plain::default();
    FORMER.iter().for_each(|name| plain.word(name.as_bytes()));
    let mount = site.mount();
    let generated = RunSpec::preset(Family::NextSeq, Size::Tiny).seeded(42);
    Replay::new(generated).run(&mount.at, &mut |_| {}).expect("a run as an instrument writes it");
    full_tree(&mount.path("every size, name and kind of object"), &mut Random::of(43));
    a_past(&mount.path("what has a past"), &mut plain);
    plain.tree(&mount.at, &mount.at);
    let journal = fs::read_dir(site.store.join("runs"))
        .expect("runs")
        .any(|run| run.expect("an entry").path().join("journal").exists());
    assert!(journal, "the journal is part of what is looked at");
    let seen_nowhere = |plain: &Plain| {
        for at in [&site.store, &site.state, &site.dir().join("mount.log")] {
            assert_eq!(plain.seen(at), None);
        }
    };
    seen_nowhere(&plain);
    mount.unmount();
    let copied = site.dir().join("a run that is copied in");
    plain_tree(&copied, &mut Random::of(44));
    plain.tree(site.dir(), &copied);
    run(site.command(&["cp", "-r"]).arg(&copied).arg(format!("{}:/", site.store.display())));
    seen_nowhere(&plain);
}

/// The look itself finds what stands there, whichever way.
#[test]
fn what_is_to_be_seen_is_seen() {
    let dir = tempfile::TempDir::with_prefix("rv-").expect("a temporary directory");
    let mut plain = Plain::default();
    plain.word(b"a secret name");
    plain.content(&Random::of(45).bytes(1000));
    let seen = |make: &dyn Fn(&Path)| {
        let at = tempfile::TempDir::with_prefix_in("rv-", dir.path()).expect("a temporary directory");
        make(at.path());
        plain.seen(at.path()).is_some()
    };
    assert!(!seen(&|at| fs::write(at.join("file"), b"a sec, et name").expect("a file")));
    assert!(seen(&|at| fs::write(at.join("file"), b"xx secret nxx").expect("a file")));
    assert!(seen(&|at| fs::write(at.join("file"), &Random::of(45).bytes(1000)[500..516]).expect("a file")));
    assert!(seen(&|at| fs::create_dir(at.join("a secret name")).expect("a directory")));
    assert!(seen(&|at| std::os::unix::fs::symlink("a secret name", at.join("l")).expect("a link")));
}
