//! Readers' mounts beside one that writes.

use std::fs;
use std::time::Duration;

use runvault_tests::{Site, tailing};

use crate::live::Custody;

const WHILE: Duration = Duration::from_secs(8);

fn beside_a_writer(site: Site) {
    let custody = Custody::of(site);
    let key = custody.named_key("lab");
    custody.act(&["add-reader", &key, "--standing"]);
    let writer = custody.site.mount();
    fs::create_dir(writer.path("run")).expect("a run");
    let owner = custody.site.dir().join("owner");
    let owner = custody.site.builder().args(["--read-only", "--open"]).at(&owner).mount();
    let lab = custody.reader("lab");
    tailing::readers_of_what_is_written(&writer.path("run"), &[owner.path("run"), lab.path("run")], WHILE);
    for mount in [owner, lab, writer] {
        mount.unmount();
    }
}

#[test]
fn readers_see_old_or_new_bytes_on_a_disk() {
    beside_a_writer(Site::new());
}

#[test]
fn readers_see_old_or_new_bytes_in_memory() {
    beside_a_writer(Site::in_memory());
}
