//! Whether the base calls of a run are all there: what RunInfo.xml promises against the paths that were found.

use std::collections::HashSet;

use crate::Result;
use crate::family::{BaseCalls, Family};
use crate::layout::{File, base_call_files, filter_files, path_of};
use crate::run_info::RunInfo;
use crate::spec::RunSpec;

/// What is missing of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completeness {
    /// Files of base calls and filters that the run should have.
    pub expected: usize,
    /// Those that it has not, as people name them: `L003 C112.1`, in order, each once.
    pub missing: Vec<String>,
    /// The last cycle that there are base calls of; 0 for none.
    pub cycle: u32,
    /// How many cycles the run has.
    pub cycles: u32,
}

/// Compares a run's files, by their paths below it, with its RunInfo.xml.
///
/// # Errors
/// [`crate::Error::RunInfo`], [`crate::Error::Spec`] where the layout is none that is known.
pub fn of_run(family: Family, run_info: &str, found: &HashSet<String>) -> Result<Completeness> {
    let info = RunInfo::parse(run_info)?;
    // Clusters say nothing of which files there are.
    let spec = RunSpec::of_run_info(family, &info, 1)?;
    let calls = (1..=spec.cycles()).flat_map(|cycle| base_call_files(&spec, cycle));
    // RunInfo.xml does not say whether base calls are in gzip, and of one family some are.
    let either = [false, true].map(|gzip| RunSpec { gzip, ..spec.clone() });
    let mut outcome = Completeness { cycles: spec.cycles(), ..Completeness::default() };
    for file in calls.chain(filter_files(&spec)) {
        outcome.expected += 1;
        if either.iter().any(|spec| found.contains(&path_of(spec, &file))) {
            if let File::BaseCalls { cycle, .. } = file {
                outcome.cycle = outcome.cycle.max(cycle);
            }
            continue;
        }
        let named = named(&spec, &file);
        if outcome.missing.last() != Some(&named) {
            outcome.missing.push(named);
        }
    }
    outcome.missing.dedup();
    Ok(outcome)
}

/// How people name a file of base calls or of filters.
fn named(spec: &RunSpec, file: &File) -> String {
    match *file {
        File::BaseCalls { lane, part, cycle } if part > 0 => match spec.family.profile().base_calls {
            BaseCalls::Cbcl => format!("L{lane:03} C{cycle}.1 surface {part}"),
            _ => format!("L{lane:03} C{cycle}.1 tile {part}"),
        },
        File::BaseCalls { lane, cycle, .. } => format!("L{lane:03} C{cycle}.1"),
        File::BaseCallIndex { lane, cycle } => format!("L{lane:03} C{cycle}.1 index"),
        File::Filter { lane, tile: 0 } => format!("L{lane:03} filter"),
        File::Filter { lane, tile } => format!("L{lane:03} filter of tile {tile}"),
        ref other => path_of(spec, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::FAMILIES;
    use crate::models::MODELS;
    use crate::spec::Size;

    #[test]
    fn each_file_that_is_missing_is_named_in_every_family() {
        let presets = FAMILIES.map(|family| RunSpec::preset(family, Size::Tiny)).into_iter();
        for spec in presets.chain(MODELS.iter().map(|model| model.preset(Size::Tiny))) {
            let family = spec.family;
            let xml = spec.run_info().to_xml();
            let files = (1..=spec.cycles()).flat_map(|cycle| base_call_files(&spec, cycle));
            let files: Vec<File> = files.chain(filter_files(&spec)).collect();
            let all: HashSet<String> = files.iter().map(|file| path_of(&spec, file)).collect();
            let whole = of_run(family, &xml, &all).unwrap();
            assert_eq!((whole.expected, &whole.missing), (files.len(), &vec![]), "{family:?}");
            assert_eq!((whole.cycle, whole.cycles), (spec.cycles(), spec.cycles()), "{family:?}");
            for file in files.iter().step_by(files.len().div_ceil(40)) {
                let mut fewer = all.clone();
                fewer.remove(&path_of(&spec, file));
                assert_eq!(of_run(family, &xml, &fewer).unwrap().missing, [named(&spec, file)]);
            }
            let none = of_run(family, &xml, &HashSet::new()).unwrap();
            assert_eq!((none.missing.len(), none.cycle), (files.len(), 0));
        }
        assert!(of_run(Family::NovaSeq, "<RunInfo/>", &HashSet::new()).is_err());
        let calls = File::BaseCalls { lane: 3, part: 0, cycle: 112 };
        assert_eq!(named(&RunSpec::preset(Family::NextSeq, Size::Tiny), &calls), "L003 C112.1");
    }
}
