//! The suites again, on stores on other file systems than the machine's own. Needs root.

use std::fs;
use std::time::Duration;

use runvault_tests::Site;
use runvault_tests::image::Image;
use runvault_tests::sharing::four_writers_and_four_readers;
use runvault_tests::tools::root_for;
use runvault_tests::{model, programs, rsync};

use crate::{fsx, pjdfstest};

/// On each file system; the machine's own has a minute, and more cases.
const SHARING: Duration = Duration::from_secs(6);
const MODEL_CASES: u32 = 12;
const PROGRAMS: Duration = Duration::from_secs(6);

/// On a file system of `kind` that fails no case of pjdfstest itself, if `passes`; fsx by this seed.
fn on(kind: &str, seed: u32, passes: bool) {
    if root_for("a loop image") {
        let image = Image::new(kind, 512);
        suites(&Site::below(image.path()), seed, passes);
    }
}

fn suites(site: &Site, seed: u32, passes: bool) {
    pjdfstest::on(site, passes);
    let mount = site.mount();
    for (name, weights) in [("plain", fsx::PLAIN), ("mmap", fsx::MMAP), ("everything", fsx::EVERYTHING)] {
        fsx::fsx(site, &mount, name, weights, seed..=seed);
    }
    let run = mount.path("shared");
    fs::create_dir(&run).expect("a run");
    four_writers_and_four_readers(&run, SHARING);
    let run = mount.path("programs");
    fs::create_dir(&run).expect("a run");
    let left = programs::beside_each_other(&run, PROGRAMS);
    mount.unmount();
    let mount = site.mount();
    left.verify(&mount.path("programs"));
    mount.unmount();
    rsync::there_and_back(site);
    model::behaves_like_a_plain_directory(site, MODEL_CASES);
}

#[test]
fn xfs() {
    on("xfs", 2, true);
}

#[test]
fn btrfs() {
    // It counts no subdirectories.
    on("btrfs", 3, false);
}

#[test]
fn ext4() {
    on("ext4", 4, true);
}

#[test]
fn tmpfs() {
    if root_for("pjdfstest") {
        suites(&Site::in_memory(), 6, true);
    }
}
