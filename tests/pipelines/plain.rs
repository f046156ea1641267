//! On a plain directory: what is generated is a run to the programs of others, so that the tests on a mount prove
//! the mount and not the generator.

use runvault_sequencer::family::FAMILIES;
use runvault_sequencer::{Family, Replay, RunSpec, Size};
use runvault_tests::analysis::{
    assert_as_generated, assert_generated_fastq, assert_real_hiseq_fastq, interop_summary,
};
use runvault_tests::tools::real_runs;

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a temporary directory")
}

#[test]
fn picard_finds_the_generator_s_bases_in_every_family() {
    let _alone = crate::alone();
    for family in FAMILIES {
        let dir = scratch();
        let spec = RunSpec::preset(family, Size::Tiny).seeded(11);
        let run = Replay::new(spec.clone()).run(dir.path(), &mut |_| {}).expect("a run");
        assert_as_generated(&run.folder, &spec);
        assert_generated_fastq(&run.folder, &spec, dir.path());
    }
}

/// Blocks that end within a tile, tiles of many blocks, several lanes and swaths.
#[test]
fn picard_finds_them_in_larger_tiles() {
    let _alone = crate::alone();
    for family in [Family::NextSeq, Family::NovaSeqX] {
        let dir = scratch();
        let preset = RunSpec::preset(family, Size::Tiny);
        let spec = RunSpec { clusters_per_tile: 30_000, swaths: 2, lanes: 1, ..preset };
        let run = Replay::new(spec.clone()).run(dir.path(), &mut |_| {}).expect("a run");
        assert_generated_fastq(&run.folder, &spec, dir.path());
    }
}

#[test]
fn picard_finds_what_its_authors_expect() {
    let _alone = crate::alone();
    let Some(runs) = real_runs() else { return };
    let dir = scratch();
    let folder = runs.join("hiseq-25T8B25T");
    assert_real_hiseq_fastq(&folder, &folder.join("expected"), dir.path());
}

#[test]
fn interop_reads_the_metrics_of_every_family() {
    let _alone = crate::alone();
    for family in FAMILIES {
        let dir = scratch();
        let spec = RunSpec::preset(family, Size::Tiny).scaled(100.0);
        let run = Replay::new(spec.clone()).run(dir.path(), &mut |_| {}).expect("a run");
        let clusters = spec.tile_list().len() * spec.clusters_per_tile as usize;
        let summary = interop_summary(&run.folder);
        assert!(
            summary.contains(&format!("[({clusters}.0, ")),
            "{family}: {clusters} clusters: {summary:.400}"
        );
        if family.profile().interop_by_cycle {
            // What a viewer has while the run goes on: files of single cycles only.
            for name in family.profile().interop {
                let whole = run.folder.join(format!("InterOp/{name}MetricsOut.bin"));
                std::fs::remove_file(whole).expect("a metric of the whole run");
            }
            let live = interop_summary(&run.folder);
            assert!(live.contains(&format!("[({clusters}.0, ")), "{family}: {live:.400}");
        }
    }
}
