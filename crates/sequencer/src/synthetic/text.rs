//! Parameters, sample sheet, recipe, logs, markers: the text of a run, with all that identifies people in real ones.

use std::fmt::Write as _;

use crate::family::Family;
use crate::marker::Marker;
use crate::random::Stream;
use crate::spec::RunSpec;

/// The file that is replaced after every cycle.
pub const RUN_STATE: &str = "Recipe/RunState.xml";

/// Files that grow by lines: base caller's and control software's logs.
#[must_use]
pub fn is_log(path: &str) -> bool {
    (path.starts_with("Logs/") || path.starts_with("RTALogs/"))
        && (path.ends_with(".log") || path.ends_with(".tsv"))
}

/// The logs of a family.
#[must_use]
pub fn logs(family: Family) -> [&'static str; 2] {
    match family {
        Family::HiSeq | Family::MiSeq | Family::NextSeq => {
            ["RTALogs/GlobalLog_00.tsv", "Logs/CycleTimes.log"]
        }
        Family::NovaSeq | Family::NovaSeqX => ["Logs/UcsLogs.log", "Logs/CycleTimes.log"],
    }
}

/// What a log gains in a cycle.
#[must_use]
pub fn log_lines(spec: &RunSpec, path: &str, cycle: u32) -> String {
    let salt = path.bytes().fold(7, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let mut stream = Stream::new(spec.seed, &[salt, cycle.into()]);
    let mut lines = String::new();
    for lane in 1..=spec.lanes {
        let took = stream.next_u64() % 90_000;
        let _ =
            writeln!(lines, "{cycle:>4}\t{}\tlane {lane}\tcopied to {SHARE}\\{}\t{took} ms", HOST, spec.name);
    }
    lines
}

/// SampleSheet.csv: names of samples, project, investigator.
#[must_use]
pub fn sample_sheet(spec: &RunSpec) -> String {
    let mut sheet = format!(
        "[Header],,,\nInvestigator Name,Dr. Ada Example,,\nProject Name,Rare-Disease-Trio-7,,\n\
         Experiment Name,{},,\n\n[Reads],,,\n",
        spec.name
    );
    for read in spec.reads.iter().filter(|read| !read.indexed) {
        let _ = writeln!(sheet, "{},,,", read.cycles);
    }
    sheet.push_str("\n[Data],,,\nLane,Sample_ID,Sample_Name,Sample_Project\n");
    for lane in 1..=spec.lanes {
        let _ = writeln!(sheet, "{lane},PAT-{:04}-{lane},Patient_{:04}_{lane},Trio7", spec.seed, spec.seed);
    }
    sheet
}

/// A marker's content.
#[must_use]
pub fn marker(spec: &RunSpec, marker: Marker) -> String {
    match marker {
        Marker::RtaComplete => "RTA 2.4.11 completed on 1/1/2020 2:09:31 PM\n".into(),
        Marker::ReadComplete(_) => "1/1/2020 2:08:46 PM,RTA 2.4.11\n".into(),
        Marker::RunCompletionStatus => format!(
            "<?xml version=\"1.0\"?>\n<RunCompletionStatus>\n  <Version>1</Version>\n  \
             <CompletionStatus>CompletedAsPlanned</CompletionStatus>\n  <RunStatus>RunCompleted</RunStatus>\n  \
             <RunId>{}</RunId>\n</RunCompletionStatus>\n",
            spec.name
        ),
        Marker::CompletedJobInfo => format!(
            "<?xml version=\"1.0\"?>\n<AnalysisJobInfo>\n  <RTARunFolder>{SHARE}\\{}</RTARunFolder>\n</AnalysisJobInfo>\n",
            spec.name
        ),
        // Transfers end with an empty file.
        Marker::CopyComplete | Marker::SequenceComplete | Marker::SequencingComplete => String::new(),
        Marker::ImageAnalysis | Marker::BaseCalling | Marker::NetcopyRead(_) => "1/1/2020,14:08:46\n".into(),
    }
}

/// Any other text after a cycle: the run's state changes with it, the rest does not.
#[must_use]
pub fn other(spec: &RunSpec, path: &str, after: u32) -> String {
    if path == RUN_STATE {
        return run_state(spec, after);
    }
    if path == spec.family.profile().run_parameters {
        return run_parameters(spec);
    }
    // Configuration and recipe: long, regular, the same for every run of an instrument.
    let mut text = String::from("[Configuration]\n");
    for setting in 0..200 {
        let _ = writeln!(text, "{}.setting{setting:03}={}", spec.family, setting * 37 % 1000);
    }
    text
}

/// The run's state after a cycle. All of it changes, so that a mixture of two is seen.
#[must_use]
pub fn run_state(spec: &RunSpec, cycle: u32) -> String {
    let mut stream = Stream::new(spec.seed, &[8, cycle.into()]);
    let mut state = format!("<RunState>\n  <CompletedCycle>{cycle}</CompletedCycle>\n");
    for step in 0..64 {
        let _ = writeln!(state, "  <Step Number=\"{step}\">{:016x}</Step>", stream.next_u64());
    }
    state.push_str("</RunState>\n");
    state
}

/// The cycle that a state says it is of.
#[must_use]
pub fn cycle_of_state(state: &str) -> Option<u32> {
    state.split_once("<CompletedCycle>")?.1.split_once('<')?.0.parse().ok()
}

fn run_parameters(spec: &RunSpec) -> String {
    let info = spec.run_info();
    let mut xml = String::from("<?xml version=\"1.0\"?>\n<RunParameters>\n");
    let applications = match spec.family {
        Family::HiSeq => "HiSeq Control Software",
        Family::MiSeq => "MiSeq Control Software",
        Family::NextSeq => "NextSeq Control Software",
        Family::NovaSeq => "NovaSeq Control Software",
        Family::NovaSeqX => "NovaSeqX Control Software",
    };
    for (name, value) in [
        ("ApplicationName", applications),
        ("InstrumentId", &info.instrument),
        ("RunId", &info.id),
        ("Username", "ada.example"),
        ("ComputerName", HOST),
        ("OutputFolder", SHARE),
        ("ExperimentName", "Rare-Disease-Trio-7"),
        ("LibraryID", "LIB-2020-0007"),
    ] {
        let _ = writeln!(xml, "  <{name}>{value}</{name}>");
    }
    xml.push_str("</RunParameters>\n");
    xml
}

const HOST: &str = "SEQUENCER-PC-1";
const SHARE: &str = "\\\\nas.example.org\\runs\\sequencing";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Size;

    #[test]
    fn states_tell_their_cycle_and_differ() {
        let spec = RunSpec::preset(Family::MiSeq, Size::Tiny);
        assert_eq!(cycle_of_state(&run_state(&spec, 17)), Some(17));
        assert_ne!(run_state(&spec, 17)[60..], run_state(&spec, 18)[60..]);
        assert_eq!(cycle_of_state("<RunState>"), None);
    }

    #[test]
    fn logs_are_logs() {
        for family in crate::family::FAMILIES {
            assert!(logs(family).into_iter().all(is_log));
        }
        assert!(!is_log(RUN_STATE) && !is_log("Config/Effective.cfg"));
    }
}
