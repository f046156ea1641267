//! Four writers and four readers of the same files for a minute, or RUNVAULT_SOAK_SECONDS.

use std::fs;
use std::time::Duration;

use runvault_tests::Site;
use runvault_tests::sharing::four_writers_and_four_readers;

#[test]
fn every_block_is_old_or_new() {
    let seconds = std::env::var("RUNVAULT_SOAK_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    four_writers_and_four_readers(&mount.path("run"), Duration::from_secs(seconds));
    mount.unmount();
}
