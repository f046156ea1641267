//! Programs that analyse a run read it from the mount: picard, interop, samtools.

use std::fs;
use std::path::Path;
use std::process::Command;

use runvault_tests::Site;
use runvault_tests::tools::{real_runs, run, tool};

fn copy_tree(from: &Path, to: &Path) {
    run(Command::new("cp").args(["-r", "--no-preserve=mode"]).arg(from).arg(to));
}

/// The HiSeq test run of picard's own suite gives the FASTQ that picard's suite expects.
#[test]
fn picard_reads_a_real_hiseq_run() {
    let Some(runs) = real_runs() else { return };
    let source = runs.join("hiseq-25T8B25T");
    let site = Site::new();
    let mount = site.mount();
    copy_tree(&source, &mount.path("hiseq"));
    mount.unmount();
    let reader = site.mount_read_only();
    let out = site.dir().join("out");
    run(Command::new("PicardCommandLine")
        .arg("IlluminaBasecallsToFastq")
        .arg(format!("BASECALLS_DIR={}", reader.path("hiseq/Data/Intensities/BaseCalls").display()))
        .arg(format!("OUTPUT_PREFIX={}", out.display()))
        .args(["READ_STRUCTURE=25T8B25T", "RUN_BARCODE=HiMom", "MACHINE_NAME=machine1"])
        .args(["FLOWCELL_BARCODE=abcdeACXX", "READ_NAME_FORMAT=ILLUMINA", "LANE=1"]));
    for part in ["1", "2", "barcode_1"] {
        let got = fs::read(site.dir().join(format!("out.{part}.fastq"))).expect("picard's FASTQ");
        let want = fs::read(source.join(format!("expected/testMultiplexRH.{part}.fastq"))).expect("expected");
        assert!(got == want, "out.{part}.fastq differs");
    }
    reader.unmount();
}

/// `interop` gives the same summary of the run on the mount as of the plain folder.
#[test]
fn interop_summarises_a_real_miseq_run() {
    let Some(runs) = real_runs() else { return };
    let name = "130417_M00146_0021_000000000-A2WDF";
    let site = Site::new();
    let mount = site.mount();
    copy_tree(&runs.join(name), &mount.path(name));
    let summary = |folder: &Path| {
        let script = "import interop, sys\nprint(interop.summary(sys.argv[1]).tolist())";
        let done = run(Command::new(tool("python/bin/python")).args(["-c", script]).arg(folder));
        String::from_utf8(done.stdout).expect("text")
    };
    let plain = summary(&runs.join(name));
    assert!(plain.len() > 40, "{plain}");
    assert_eq!(summary(&mount.path(name)), plain);
    mount.unmount();
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
