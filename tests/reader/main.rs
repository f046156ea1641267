//! The second reader, `reader.py`: it opens what runvault writes, and its library opens what ours seals.

mod cross;
mod hostile;
mod making;
mod trees;
mod vectors;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use runvault_tests::Site;
use runvault_tests::tools::{output, printed, tool};

/// A small generator: tests must repeat by their seed alone.
pub struct Random(u64);

impl Random {
    /// The seed of a case; RUNVAULT_READER_SEED makes others of all of them.
    pub fn of(case: u64) -> Self {
        let other = std::env::var("RUNVAULT_READER_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0u64);
        Self(case + 1000 * other)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    /// 1 to `most` bytes.
    pub fn some(&mut self, most: u64) -> Vec<u8> {
        let len = 1 + self.below(most) as usize;
        self.bytes(len)
    }

    /// That many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// A Python program of this directory.
pub fn python(name: &str) -> Command {
    let mut command = Command::new(tool("python/bin/python"));
    command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("reader").join(name));
    command
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
