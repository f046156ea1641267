//! What analyses a run folder, on a mount or on a plain directory alike: picard, `interop`, and the generator itself.
//!
//! What matters of picard (2.27.5, as Debian has it):
//! * EAMSS filtering is on by default and rewrites qualities of a BCL's read ends, of a CBCL's never. It must be off.
//! * Of CBCLs only clusters that pass the filter come out; `INCLUDE_NON_PF_READS` changes nothing there.
//! * Records are sorted by name as text within a tile, tiles by number as text. `/1`, `/2` only where there are two.
//! * It wants `Data/Intensities/s.locs`, `L<n>/s_<n>.locs` beside `BaseCalls/L<n>/s_<n>.bci`, or a `.locs` a tile.
//! * It maps filter, position and `.bci` files into memory, and opens every cycle's file at once.
//! * Reading CBCLs it needs commons-lang 2, which the package neither depends on nor has on its class path.
//! * `PicardCommandLine` splits its arguments at spaces: no path may have one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use runvault_sequencer::synthetic::fastq;
use runvault_sequencer::{RunSpec, layout, schedule, synthetic};

use crate::tools::{run, tool};

/// A lane's reads, as picard is to find them.
pub struct Lane<'a> {
    /// The run folder.
    pub folder: &'a Path,
    /// The lane, from 1.
    pub lane: u32,
    /// `READ_STRUCTURE`.
    pub structure: &'a str,
    /// `RUN_BARCODE`.
    pub run: &'a str,
}

impl Lane<'_> {
    /// Runs picard's IlluminaBasecallsToFastq; its files begin with `prefix`. `more` are further options.
    ///
    /// # Panics
    /// If picard fails.
    pub fn to_fastq(&self, prefix: &Path, more: &[&str]) {
        run(Command::new("PicardCommandLine")
            // A small machine runs many tests at once; none of this needs more.
            .env(
                "JAVA_OPTIONS",
                "-Xbootclasspath/a:/usr/share/java/commons-lang.jar -Xmx512m -XX:+UseSerialGC",
            )
            .arg("IlluminaBasecallsToFastq")
            .arg(format!("BASECALLS_DIR={}", self.folder.join("Data/Intensities/BaseCalls").display()))
            .arg(format!("OUTPUT_PREFIX={}", prefix.display()))
            .arg(format!("READ_STRUCTURE={}", self.structure))
            .arg(format!("RUN_BARCODE={}", self.run))
            .arg(format!("LANE={}", self.lane))
            .args(["READ_NAME_FORMAT=ILLUMINA", "NUM_PROCESSORS=1"])
            .args(more));
    }
}

/// Picard's FASTQ of every lane of a generated run is the generator's. `scratch` must exist.
///
/// # Panics
/// If it is not.
pub fn assert_generated_fastq(folder: &Path, spec: &RunSpec, scratch: &Path) {
    let (structure, run) = (fastq::read_structure(spec), fastq::run_barcode(spec));
    for lane in 1..=spec.lanes {
        let got = Lane { folder, lane, structure: &structure, run: &run };
        got.to_fastq(&scratch.join("got"), &["APPLY_EAMSS_FILTER=false"]);
        let expected = fastq::write_expected(spec, lane, scratch, "want").expect("the generator's FASTQ");
        for (want, got) in expected.iter().zip(fastq::file_names(spec, "got")) {
            let got = scratch.join(got);
            assert_same(want, &got);
            assert!(fs::metadata(&got).expect("FASTQ").len() > 0, "{} is empty", got.display());
        }
    }
}

/// Picard's FASTQ of the HiSeq run of its own test data (`hiseq-25T8B25T`) is what its authors expect.
///
/// # Panics
/// If it is not.
pub fn assert_real_hiseq_fastq(folder: &Path, expected: &Path, scratch: &Path) {
    let lane = Lane { folder, lane: 1, structure: "25T8B25T", run: "HiMom" };
    lane.to_fastq(&scratch.join("hiseq"), &["MACHINE_NAME=machine1", "FLOWCELL_BARCODE=abcdeACXX"]);
    for part in ["1", "2", "barcode_1"] {
        let want = expected.join(format!("testMultiplexRH.{part}.fastq"));
        assert_same(&want, &scratch.join(format!("hiseq.{part}.fastq")));
    }
}

/// What the Python package `interop` says of a run: cluster counts, and where its files tell, share of good
/// qualities and yield.
///
/// # Panics
/// If it cannot read the folder.
pub fn interop_summary(folder: &Path) -> String {
    let script = "import interop, sys\ns = interop.summary(sys.argv[1])\nprint(s.dtype.names, s.tolist())\n\
                  i = interop.imaging(sys.argv[1])\nprint(i.dtype.names, i.tolist())";
    let done = run(Command::new(tool("python/bin/python")).args(["-c", script]).arg(folder));
    let summary = String::from_utf8(done.stdout).expect("text");
    assert!(summary.contains("Cluster Count Pf"), "{summary}");
    summary
}

/// The folder has every file of the generated run, with the generator's bytes, and nothing else.
///
/// # Panics
/// If not, naming the file.
pub fn assert_as_generated(folder: &Path, spec: &RunSpec) {
    let sends = schedule::of_family(spec).into_iter().flat_map(|batch| batch.sends);
    let expected: BTreeSet<String> = sends.map(|send| send.path).collect();
    let mut found = BTreeSet::new();
    files_below(folder, folder, &mut found);
    assert!(
        found == expected,
        "differ: {:?}",
        found.symmetric_difference(&expected).take(5).collect::<Vec<_>>()
    );
    for path in found {
        let file = layout::file_at(spec.family, &path).expect("a file of the family");
        let want = synthetic::content(spec, &file).expect("content");
        assert!(fs::read(folder.join(&path)).expect("a file") == want, "{path} differs");
    }
}

fn files_below(root: &Path, dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files_below(root, &path, found);
        } else {
            let name = path.strip_prefix(root).expect("below the root");
            found.insert(name.to_str().expect("text").to_owned());
        }
    }
}

fn assert_same(want: &Path, got: &Path) {
    let read = |path: &Path| fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(read(want) == read(got), "{} differs from {}", got.display(), want.display());
}
