//! After a run was written, nothing of it stands in the store or in the state folder.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use runvault_tests::Site;

const RUN: &str = "230912_A00187_1009_AHK33MDRX3";
const SAMPLES: &str = "SampleSheet-PatientJaneRoe.csv";
const LINK_TARGET: &str = "../elsewhere/Patient-JaneRoe-link-target";
const ATTRIBUTE: (&str, &[u8]) = ("user.sample-of-jane-roe", b"attribute-value-of-jane-roe");

/// Every byte under `dir`, file names included, one after the other.
fn bytes_below(dir: &Path, all: &mut Vec<u8>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        all.extend_from_slice(path.file_name().expect("a name").as_bytes());
        all.push(b'\n');
        let meta = path.symlink_metadata().expect("metadata");
        if meta.is_dir() {
            bytes_below(&path, all);
        } else if meta.is_file() {
            all.extend_from_slice(&fs::read(&path).expect("bytes"));
        } else if meta.is_symlink() {
            all.extend_from_slice(fs::read_link(&path).expect("a target").as_os_str().as_bytes());
        }
        for (name, value) in attributes(&path) {
            all.extend_from_slice(&name);
            all.extend_from_slice(&value);
        }
    }
}

fn attributes(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = [0u8; 4096];
    let Ok(n) = rustix::fs::llistxattr(path, &mut names) else { return Vec::new() };
    names[..n]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0u8; 4096];
            let n = rustix::fs::lgetxattr(path, name, &mut value).unwrap_or(0);
            value.truncate(n);
            (name.to_vec(), value)
        })
        .collect()
}

#[test]
fn nothing_of_a_run_is_to_be_seen() {
    let site = Site::new();
    let mount = site.mount();
    let run = mount.path(RUN);
    let dir = run.join("Data/Intensities/BaseCalls/L001/C1.1");
    fs::create_dir_all(&dir).expect("directories");
    // Random bytes: any 16 of them found in the store could not be there by chance.
    let mut content = vec![0u8; 200_000];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for byte in &mut content {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 33) as u8;
    }
    fs::write(dir.join("L001_1.cbcl"), &content).expect("a file");
    fs::write(run.join(SAMPLES), "Sample_ID,JaneRoe-0042\n").expect("a file");
    symlink(LINK_TARGET, run.join("link")).expect("a link");
    let file = run.join(SAMPLES);
    rustix::fs::setxattr(&file, ATTRIBUTE.0, ATTRIBUTE.1, rustix::fs::XattrFlags::empty())
        .expect("an attribute");
    // An overwrite of durable bytes goes through the journal.
    let rewritten = fs::OpenOptions::new().write(true).open(dir.join("L001_1.cbcl")).expect("a file");
    rewritten.sync_all().expect("sync");
    std::os::unix::fs::FileExt::write_all_at(&rewritten, &content[1000..9000], 500).expect("write");
    rewritten.sync_all().expect("sync");
    drop(rewritten);

    let journal_seen = fs::read_dir(site.store.join("runs"))
        .expect("runs")
        .any(|run| run.expect("an entry").path().join("journal").exists());
    assert!(journal_seen, "the journal is part of what is looked at");
    let mut all = Vec::new();
    bytes_below(&site.store, &mut all);
    bytes_below(&site.state, &mut all);
    mount.unmount();
    bytes_below(&site.store, &mut all);
    bytes_below(&site.state, &mut all);
    assert!(all.len() > 2 * content.len());

    let words =
        [RUN, SAMPLES, "SampleSheet", "Intensities", "BaseCalls", "L001_1", "cbcl", "C1.1", "JaneRoe"];
    let mut pieces: Vec<&[u8]> = words.iter().map(|w| w.as_bytes()).collect();
    pieces.extend([
        ATTRIBUTE.0.as_bytes(),
        ATTRIBUTE.1,
        LINK_TARGET.as_bytes(),
        &LINK_TARGET.as_bytes()[..13],
    ]);
    for piece in pieces {
        let found = memmem(&all, piece);
        assert!(!found, "{:?} stands in the store or the state folder", String::from_utf8_lossy(piece));
    }
    let stored: std::collections::HashSet<&[u8]> = all.windows(16).collect();
    for piece in content.windows(16) {
        assert!(!stored.contains(piece), "16 bytes of a file stand in the store");
    }
}

fn memmem(all: &[u8], piece: &[u8]) -> bool {
    all.windows(piece.len()).any(|w| w == piece)
}
