//! What an instrument sends and when: batches of files, one or more a cycle.

use std::collections::HashMap;
use std::time::Duration;

use crate::copy_log::CopyLog;
use crate::family::{Family, Profile};
use crate::layout::{self, File};
use crate::marker::Marker;
use crate::spec::RunSpec;
use crate::synthetic::{FILTER_CYCLE, interop, text};

/// Which program of the instrument writes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The base caller (RTA) and the copy service beside it.
    BaseCaller,
    /// The control software: parameters, recipe, pictures, its logs.
    Control,
}

/// One file that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// Path within the run folder.
    pub path: String,
    /// What it is.
    pub file: File,
    /// Who writes it.
    pub writer: Writer,
    /// How often it is sent up to now, and in all.
    pub turn: (u32, u32),
}

/// Files that are sent together.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Batch {
    /// When, from the run's first file on.
    pub at: Duration,
    /// The last cycle that is complete; 0 before the first.
    pub cycle: u32,
    /// The files, in order.
    pub sends: Vec<Send>,
}

/// Positions are known after this many cycles, and then the base calls of all of them come.
const TEMPLATE_CYCLES: u32 = 5;

/// What an instrument of the run's family sends.
#[must_use]
pub fn of_family(spec: &RunSpec) -> Vec<Batch> {
    let mut plan = Plan { spec, profile: spec.family.profile(), batches: Vec::new(), now: Duration::ZERO };
    plan.start();
    for cycle in 1..=spec.cycles() {
        plan.cycle(cycle);
    }
    plan.end();
    number_turns(&mut plan.batches);
    plan.batches
}

/// What a real instrument sent, by its log. Files that such a run does not have are left out.
#[must_use]
pub fn of_log(spec: &RunSpec, log: &CopyLog) -> Vec<Batch> {
    let mut cycle = 0;
    let mut batches: Vec<Batch> = Vec::new();
    for copied in &log.batches {
        let mut batch = Batch { at: copied.at, ..Batch::default() };
        for path in &copied.paths {
            let Some(file) = layout::file_at(spec.family, path) else { continue };
            if let File::BaseCalls { cycle: called, .. } = file {
                cycle = called.max(cycle);
            }
            batch.sends.push(send(spec, file));
        }
        batch.cycle = cycle.min(spec.cycles());
        batches.push(batch);
    }
    number_turns(&mut batches);
    batches
}

fn number_turns(batches: &mut [Batch]) {
    let mut turns: HashMap<String, u32> = HashMap::new();
    for send in batches.iter_mut().flat_map(|batch| &mut batch.sends) {
        let turn = turns.entry(send.path.clone()).or_default();
        *turn += 1;
        send.turn.0 = *turn;
    }
    for send in batches.iter_mut().flat_map(|batch| &mut batch.sends) {
        send.turn.1 = turns.get(&send.path).copied().unwrap_or(1);
    }
}

fn send(spec: &RunSpec, file: File) -> Send {
    let writer = match &file {
        File::Thumbnail { .. } | File::SampleSheet | File::Text(_) => Writer::Control,
        File::Marker(Marker::RunCompletionStatus | Marker::CompletedJobInfo) => Writer::Control,
        _ => Writer::BaseCaller,
    };
    Send { path: layout::path_of(spec, &file), file, writer, turn: (1, 1) }
}

struct Plan<'a> {
    spec: &'a RunSpec,
    profile: &'static Profile,
    batches: Vec<Batch>,
    now: Duration,
}

impl Plan<'_> {
    fn batch(&mut self, cycle: u32, files: Vec<File>) {
        let sends = files.into_iter().map(|file| send(self.spec, file)).collect();
        self.batches.push(Batch { at: self.now, cycle, sends });
    }

    fn start(&mut self) {
        let text = |path: &str| File::Text(path.into());
        let mut files =
            vec![text(self.profile.configuration), File::RunInfo, text(self.profile.run_parameters)];
        files.extend([File::SampleSheet, text("Config/Effective.cfg"), text("Recipe/Recipe.xml")]);
        self.batch(0, files);
    }

    fn cycle(&mut self, cycle: u32) {
        self.now += Duration::from_secs(self.profile.cycle_seconds);
        let spec = self.spec;
        let last = spec.cycles();
        let template = TEMPLATE_CYCLES.min(last);
        let mut files = Vec::new();
        if cycle == template {
            files.extend(layout::location_files(spec));
            if spec.family == Family::NextSeq {
                files.extend((1..=spec.lanes).map(|lane| File::TileIndex { lane }));
            }
            (1..cycle).for_each(|earlier| files.extend(layout::base_call_files(spec, earlier)));
        }
        if cycle >= template {
            files.extend(layout::base_call_files(spec, cycle));
        }
        if cycle == (FILTER_CYCLE + 1).min(last) {
            files.extend(layout::filter_files(spec));
        }
        files.extend(self.thumbnails(cycle));
        files.extend(self.metrics(cycle));
        files.extend(text::logs(spec.family).map(|path| File::Text(path.into())));
        files.push(File::Text(text::RUN_STATE.into()));
        self.batch(cycle, files);
        self.end_of_read(cycle);
    }

    /// Every metric; in the run's own files, those that need the filter's decision from then on. Where each cycle
    /// has files of its own, the run's come once, at the end: readers look at a cycle's only while none of the
    /// run's is there.
    fn metrics(&self, cycle: u32) -> Vec<File> {
        let spec = self.spec;
        let by_cycle = self.profile.interop_by_cycle;
        let late = |metric: &str| matches!(metric, "Q" | "PFGrid" | "Error");
        let names =
            self.profile.interop.iter().filter(|name| by_cycle || cycle > FILTER_CYCLE || !late(name));
        names
            .filter(|name| !by_cycle || interop::has_records(spec, name, cycle))
            .map(|name| File::Metric { metric: (*name).into(), cycle: by_cycle.then_some(cycle) })
            .collect()
    }

    fn thumbnails(&self, cycle: u32) -> Vec<File> {
        let kept = self.profile.thumbnails;
        if !kept.cycles.is_empty() && !kept.cycles.contains(&cycle) {
            return Vec::new();
        }
        let mut files = Vec::new();
        for lane in 1..=self.spec.lanes {
            for tile in self.spec.tiles_of_lane(lane).into_iter().step_by(kept.every_tile) {
                files.extend(kept.channels.iter().map(|channel| File::Thumbnail {
                    lane,
                    tile,
                    cycle,
                    channel: (*channel).into(),
                }));
            }
        }
        files
    }

    /// The marker of a read, and the long silence while the next one is prepared.
    fn end_of_read(&mut self, cycle: u32) {
        let ended = self.spec.spans().zip(1..).find(|((first, read), _)| first + read.cycles - 1 == cycle);
        let Some((_, number)) = ended else { return };
        let netcopy = self.spec.markers.contains(&Marker::BaseCalling);
        let marker = if netcopy { Marker::NetcopyRead(number) } else { Marker::ReadComplete(number) };
        if netcopy || self.profile.family == Family::NextSeq {
            self.batch(cycle, vec![File::Marker(marker)]);
        }
        if cycle < self.spec.cycles() {
            self.now += Duration::from_secs(self.profile.turn_seconds);
        }
    }

    /// Markers in their order; what a NextSeq sends again comes right after RTAComplete.txt.
    fn end(&mut self) {
        let cycle = self.spec.cycles();
        if self.profile.interop_by_cycle {
            let whole = |name: &&str| File::Metric { metric: (**name).into(), cycle: None };
            self.batch(cycle, self.profile.interop.iter().map(whole).collect());
        }
        for marker in self.spec.markers {
            self.now += Duration::from_secs(45);
            let mut files = vec![File::Marker(*marker)];
            if *marker == Marker::RtaComplete && self.profile.family == Family::NextSeq {
                files.extend((1..).zip(&self.spec.reads).map(|(n, _)| File::Marker(Marker::ReadComplete(n))));
                files.push(File::Text(self.profile.configuration.into()));
                files.extend([File::RunInfo, File::Text(self.profile.run_parameters.into())]);
            }
            self.batch(cycle, files);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::family::FAMILIES;
    use crate::spec::Size;

    #[test]
    fn every_file_of_a_run_is_sent_and_the_last_marker_comes_last() {
        for family in FAMILIES {
            let spec = RunSpec::preset(family, Size::Tiny);
            let batches = of_family(&spec);
            assert!(batches.is_sorted_by_key(|batch| batch.at));
            let sent: HashSet<&File> =
                batches.iter().flat_map(|batch| &batch.sends).map(|send| &send.file).collect();
            for cycle in 1..=spec.cycles() {
                assert!(layout::base_call_files(&spec, cycle).iter().all(|file| sent.contains(file)));
            }
            let others = [layout::location_files(&spec), layout::filter_files(&spec)].concat();
            assert!(others.iter().all(|file| sent.contains(file)));
            let last = batches.last().unwrap().sends.last().unwrap();
            assert!(
                matches!(last.file, File::Marker(marker) if Some(&marker) == family.profile().markers.last())
            );
        }
    }

    #[test]
    fn novaseq_x_writes_sixteen_cbcl_a_cycle() {
        let batches = of_family(&RunSpec::preset(Family::NovaSeqX, Size::Full));
        let cbcl = |batch: &Batch| batch.sends.iter().filter(|send| send.path.ends_with(".cbcl")).count();
        assert_eq!(batches.iter().filter(|batch| cbcl(batch) == 16).count(), 318 - 5);
        assert_eq!(batches.iter().map(cbcl).sum::<usize>(), 16 * 318);
    }

    #[test]
    fn turns_count_what_is_sent_again() {
        let batches = of_family(&RunSpec::preset(Family::NextSeq, Size::Tiny));
        let tile = |send: &&Send| send.path == "InterOp/TileMetricsOut.bin";
        let turns: Vec<_> =
            batches.iter().flat_map(|b| &b.sends).filter(tile).map(|send| send.turn).collect();
        assert_eq!((turns.len(), turns.first(), turns.last()), (60, Some(&(1, 60)), Some(&(60, 60))));
        let info = batches.iter().flat_map(|b| &b.sends).filter(|send| send.file == File::RunInfo);
        assert_eq!(info.map(|send| send.turn).collect::<Vec<_>>(), [(1, 2), (2, 2)]);
    }
}
