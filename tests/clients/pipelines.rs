//! Programs that analyse a run read it from the mount: picard, interop, samtools.

use std::fs;
use std::path::Path;
use std::process::Command;

use runvault_tests::analysis::{assert_real_hiseq_fastq, interop_summary};
use runvault_tests::tools::{real_runs, run};
use runvault_tests::{Mount, Site};

/// The vault, mounted for reading by another process than the one that copied the folder `from` in as `name`.
fn copied_in(site: &Site, from: &Path, name: &str) -> Mount {
    let mount = site.mount();
    run(Command::new("cp").args(["-r", "--no-preserve=mode"]).arg(from).arg(mount.path(name)));
    mount.unmount();
    site.mount_read_only()
}

/// The HiSeq test run of picard's own suite gives the FASTQ that picard's suite expects.
#[test]
fn picard_reads_a_real_hiseq_run() {
    let Some(runs) = real_runs() else { return };
    let source = runs.join("hiseq-25T8B25T");
    let site = Site::new();
    let mount = copied_in(&site, &source, "hiseq");
    assert_real_hiseq_fastq(&mount.path("hiseq"), &source.join("expected"), site.dir());
    mount.unmount();
}

/// `interop` gives the same summary of a run on the mount as of the plain folder.
#[test]
fn interop_summarises_real_runs() {
    let Some(runs) = real_runs() else { return };
    // The NextSeq's files of qualities are not among the ones at hand.
    for (name, says) in [
        ("130417_M00146_0021_000000000-A2WDF", "% >= Q30"),
        ("170609_NB551051_0017_AHLFFJBGX2", "494868160.0"),
    ] {
        let site = Site::new();
        let mount = copied_in(&site, &runs.join(name), name);
        let summary = interop_summary(&mount.path(name));
        assert_eq!(summary, interop_summary(&runs.join(name)));
        assert!(summary.contains(says), "{summary}");
        mount.unmount();
    }
}

/// samtools sorts, indexes and reads regions of a BAM on the mount.
#[test]
fn samtools_works_on_the_mount() {
    let site = Site::new();
    let mount = site.mount();
    let (dir, plain) = (mount.path("run/Analysis"), site.dir().join("plain"));
    for at in [&dir, &plain] {
        fs::create_dir_all(at).expect("a directory");
        fs::write(at.join("reads.sam"), reads()).expect("a SAM file");
        let samtools = |args: &[&str]| run(Command::new("samtools").args(args).current_dir(at)).stdout;
        samtools(&["sort", "-O", "bam", "-o", "sorted.bam", "reads.sam"]);
        samtools(&["index", "sorted.bam"]);
    }
    for region in ["chr1:1-5000", "chr1:100000-200000", "chr2:70000-70100"] {
        let view = |at: &Path| {
            run(Command::new("samtools").args(["view", "sorted.bam", region]).current_dir(at)).stdout
        };
        let (ours, theirs) = (view(&dir), view(&plain));
        assert!(!theirs.is_empty() && ours == theirs, "{region}");
    }
    mount.unmount();
}

/// 20,000 unsorted reads on two chromosomes.
fn reads() -> String {
    use std::fmt::Write;
    let mut sam = String::from("@HD\tVN:1.6\n@SQ\tSN:chr1\tLN:1000000\n@SQ\tSN:chr2\tLN:1000000\n");
    for n in 0..20_000u64 {
        let at = n * 7919 % 900_000 + 1;
        let bases: String =
            (0..50).map(|i| ['A', 'C', 'G', 'T'][((n * 31 + i * 7) >> 2) as usize % 4]).collect();
        let quality = "I".repeat(50);
        writeln!(sam, "r{n}\t0\tchr{}\t{at}\t60\t50M\t*\t0\t0\t{bases}\t{quality}", n % 2 + 1)
            .expect("a string");
    }
    sam
}
