//! The second reader, `reader.py`: it opens what runvault writes, and its library opens what ours seals.

mod cross;
mod hostile;
mod quorum;
mod sealed;
mod trees;
mod vectors;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use runvault_tests::tools::{output, printed, tool};
use runvault_tests::{Random, Site};

/// The generator of a case; RUNVAULT_READER_SEED makes others of all of them.
pub fn random(case: u64) -> Random {
    let other = std::env::var("RUNVAULT_READER_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0u64);
    Random::of(case + 1000 * other)
}

/// A Python program of this directory.
pub fn python(name: &str) -> Command {
    let mut command = Command::new(tool("python/bin/python"));
    command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("reader").join(name));
    command
}

/// Without site-packages, as on a machine that has Python and nothing else.
#[test]
fn a_reader_without_its_package_names_the_command() {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("reader/reader.py");
    let done = output(Command::new("python3").args(["-B", "-S", "-E"]).arg(reader).args(["store", "list"]));
    assert_eq!(done.status.code(), Some(2), "{}", printed(&done));
    assert_eq!(printed(&done), "reader.py needs a Python package: pip install cryptography==50.0.2\n");
}

/// `reader.py extract` of a site's store as it lies, to its end; and where it extracted to.
pub fn try_extract(site: &Site) -> (Output, PathBuf) {
    let out = site.dir().join("extracted");
    let mut reader = python("reader.py");
    reader.arg("--identity").arg(&site.identity).arg(&site.store).arg("extract").arg(&out);
    (output(&mut reader), out)
}

/// The same, all of it read.
pub fn extract(site: &Site) -> PathBuf {
    let (done, out) = try_extract(site);
    assert!(done.status.success() && done.stderr.is_empty(), "{}: {}", done.status, printed(&done));
    out
}
