//! The suites again, on stores on other file systems than the machine's own. Needs root.

use runvault_tests::Site;
use runvault_tests::image::Image;
use runvault_tests::tools::root_for;

use crate::{fsx, pjdfstest};

fn on(kind: &str) {
    if !root_for("a loop image") {
        return;
    }
    let image = Image::new(kind, 512);
    let site = Site::below(image.path());
    suites(&site);
}

fn suites(site: &Site) {
    // Some file systems fail cases themselves: btrfs counts no subdirectories.
    pjdfstest::on(site, false);
    let mount = site.mount();
    fsx::fsx(site, &mount, "everything", fsx::EVERYTHING, 1..=1);
    mount.unmount();
}

#[test]
fn xfs() {
    on("xfs");
}

#[test]
fn btrfs() {
    on("btrfs");
}

#[test]
fn ext4() {
    on("ext4");
}

#[test]
fn tmpfs() {
    if root_for("pjdfstest") {
        suites(&Site::in_memory());
    }
}
