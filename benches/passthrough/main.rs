//! The yardstick: a directory shown again through FUSE, with the library, the mount options and the
//! kernel capabilities of a vault, and nothing else. No mount of ours can be faster than this one.
//!
//!     passthrough DIR MNT
//!
//! stays in front until MNT is unmounted. With `--delay` each call takes a while and is counted, as on a network. Not for use: it checks nothing, keeps no xattrs, and makes
//! files for the user who runs it.

mod filesystem;
mod nodes;
mod trips;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use runvault_fuse::{MountOptions, Session};

/// Shows DIR again at MNT.
#[derive(Parser)]
struct Args {
    /// What is shown.
    dir: PathBuf,
    /// Where.
    mnt: PathBuf,
    /// Session threads.
    #[arg(long, default_value_t = 16)]
    threads: usize,
    /// Milliseconds that each call takes, as over a network; calls are counted then
    #[arg(long, value_name = "MS")]
    delay: Option<u64>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let trips = args.delay.map(|delay| trips::Trips::new(Duration::from_millis(delay)));
    let shown =
        filesystem::Passthrough::new(&args.dir, trips).with_context(|| args.dir.display().to_string())?;
    let options = MountOptions {
        source: args.dir.display().to_string(),
        allow_other: false,
        options: Vec::new(),
        threads: args.threads,
        local_store: true,
        stuck_after: Duration::from_secs(45),
        max_nodes: u64::MAX,
    };
    let session = Session::serve(shown, &args.mnt, &options)?;
    session.wait();
    session.unmount();
    Ok(())
}
