//! When a run is finished: a pure function of names and times.
//!
//! A run is open until a marker says that base calling has ended; then it drains, since files are still sent;
//! then it is complete. A marker that is missing is replaced by silence. What comes after the end does not open a
//! run again: it only puts off the time from which it was quiet.
//!
//! `Analysis/<n>/`, which fills for hours after its run has ended, is observed like a run of no known family.

use std::time::{Duration, SystemTime};

use crate::family::Family;
use crate::marker::Marker;

/// A marker that lies in a run folder's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub marker: Marker,
    /// Its modification time.
    pub modified: SystemTime,
}

/// What is known of a run folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The family; `None` if its instrument is unknown.
    pub family: Option<Family>,
    /// Markers in its root.
    pub markers: Vec<Seen>,
    /// The last change of anything in it.
    pub last_write: SystemTime,
}

/// How long silence lasts before it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// After base calling has ended, for want of the last marker.
    pub drained: Duration,
    /// Without any marker: the run was aborted.
    pub abandoned: Duration,
    /// After completion, before nothing is expected any more.
    pub quiet: Duration,
}

impl Default for Patience {
    /// Six hours, as a large centre waits; three days, longer than the silence of any paired-end turn; half an hour.
    fn default() -> Self {
        const HOUR: u64 = 3600;
        Self {
            drained: Duration::from_secs(6 * HOUR),
            abandoned: Duration::from_secs(72 * HOUR),
            quiet: Duration::from_secs(HOUR / 2),
        }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is being sequenced.
    Open,
    /// Base calling has ended, files are still sent.
    Draining,
    /// Nothing more is needed.
    Complete {
        /// What said so.
        why: Why,
        /// Whether nothing has been written for [`Patience::quiet`] either.
        quiet: bool,
    },
}

/// Why a run counts as complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The marker that its family writes last.
    Marker(Marker),
    /// Silence after the end of base calling.
    Drained,
    /// Silence without any marker.
    Abandoned,
}

/// How far a run is, at a time.
#[must_use]
pub fn state(run: &Observation, now: SystemTime, patience: &Patience) -> State {
    // A clock that runs backwards makes no silence.
    let silence = now.duration_since(run.last_write).unwrap_or_default();
    let complete = |why| State::Complete { why, quiet: silence >= patience.quiet };
    let has = |marker| run.markers.iter().any(|seen| seen.marker == marker);
    if let Some(last) = last_markers(run.family).iter().copied().find(|last| has(*last)) {
        return complete(Why::Marker(last));
    }
    if has(Marker::RtaComplete) || all_reads_copied(run) {
        return if silence >= patience.drained { complete(Why::Drained) } else { State::Draining };
    }
    if silence >= patience.abandoned { complete(Why::Abandoned) } else { State::Open }
}

fn last_markers(family: Option<Family>) -> &'static [Marker] {
    family.map_or(&[Marker::CopyComplete], |family| family.profile().last)
}

/// Of the instruments that mark the copying of images and base calls: both are there.
fn all_reads_copied(run: &Observation) -> bool {
    [Marker::ImageAnalysis, Marker::BaseCalling]
        .iter()
        .all(|marker| run.markers.iter().any(|seen| seen.marker == *marker))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::FAMILIES;
    use crate::layout::File;
    use crate::models::MODELS;
    use crate::schedule;
    use crate::spec::{RunSpec, Size};

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(since: Duration) -> SystemTime {
        SystemTime::UNIX_EPOCH + since
    }

    fn history(family: Family) -> Vec<Observation> {
        history_of(&RunSpec::preset(family, Size::Tiny))
    }

    /// What one sees of a run after each of its batches.
    fn history_of(spec: &RunSpec) -> Vec<Observation> {
        let family = Some(spec.family);
        let mut run = Observation { family, markers: vec![], last_write: at(Duration::ZERO) };
        let batches = schedule::of_family(spec);
        batches
            .into_iter()
            .map(|batch| {
                run.last_write = at(batch.at);
                for send in batch.sends {
                    if let File::Marker(marker) = send.file {
                        run.markers.push(Seen { marker, modified: at(batch.at) });
                    }
                }
                run.clone()
            })
            .collect()
    }

    #[test]
    fn each_family_opens_drains_and_completes_once() {
        for family in FAMILIES {
            let rank = |run: &Observation| match state(run, run.last_write, &Patience::default()) {
                State::Open => 0,
                State::Draining => 1,
                State::Complete { why: Why::Marker(_), quiet: false } => 2,
                other => panic!("{family}: {other:?}"),
            };
            let ranks: Vec<i32> = history(family).iter().map(rank).collect();
            assert!(ranks.is_sorted() && ranks.contains(&1), "{family}: {ranks:?}");
            assert_eq!((ranks.first(), ranks.last()), (Some(&0), Some(&2)), "{family}");
        }
    }

    #[test]
    fn the_last_marker_of_each_family() {
        let last =
            |family| match state(history(family).last().unwrap(), at(Duration::ZERO), &Patience::default()) {
                State::Complete { why: Why::Marker(marker), .. } => marker,
                other => panic!("{other:?}"),
            };
        assert_eq!(last(Family::HiSeq), Marker::SequencingComplete);
        assert_eq!(last(Family::MiSeq), Marker::CopyComplete);
        assert_eq!(last(Family::NextSeq), Marker::RunCompletionStatus);
        assert_eq!(last(Family::NovaSeq), Marker::CopyComplete);
        assert_eq!(last(Family::NovaSeqX), Marker::CopyComplete);
    }

    /// Marked by the first that may be its last, or over after six hours where none comes.
    #[test]
    fn each_model_ends_in_its_own_way() {
        for (model, last) in [
            ("HiSeq 2500", None),
            ("HiSeq X", Some(Marker::SequencingComplete)),
            ("MiSeq", Some(Marker::CompletedJobInfo)),
            ("MiniSeq", Some(Marker::CopyComplete)),
            ("iSeq 100", Some(Marker::CopyComplete)),
            ("NextSeq 2000", Some(Marker::CopyComplete)),
        ] {
            let spec = MODELS.iter().find(|known| known.name == model).unwrap().preset(Size::Tiny);
            let history = history_of(&spec);
            let of = |run: &Observation, later| state(run, run.last_write + later, &Patience::default());
            let states: Vec<State> = history.iter().map(|run| of(run, Duration::ZERO)).collect();
            let first = states.iter().find(|state| matches!(state, State::Complete { .. }));
            let marked = last.map(|last| State::Complete { why: Why::Marker(last), quiet: false });
            assert_eq!(first, marked.as_ref(), "{model}");
            assert!(states.contains(&State::Draining), "{model}");
            let end = of(history.last().unwrap(), 6 * HOUR);
            match last {
                Some(_) => assert!(matches!(end, State::Complete { why: Why::Marker(_), .. }), "{model}"),
                None => assert_eq!(end, State::Complete { why: Why::Drained, quiet: true }, "{model}"),
            }
        }
        assert_eq!(MODELS.len(), 6);
    }

    #[test]
    fn an_aborted_run_is_complete_after_long_silence_only() {
        for family in FAMILIES {
            let run = history(family).swap_remove(20);
            let seen = |later| state(&run, run.last_write + later, &Patience::default());
            assert_eq!(seen(71 * HOUR), State::Open, "{family}");
            assert_eq!(seen(72 * HOUR), State::Complete { why: Why::Abandoned, quiet: true }, "{family}");
        }
    }

    #[test]
    fn for_want_of_the_last_marker_six_hours_of_silence_do() {
        let mut run = history(Family::NovaSeqX).pop().unwrap();
        run.markers.retain(|seen| seen.marker == Marker::RtaComplete);
        let seen = |later| state(&run, run.last_write + later, &Patience::default());
        assert_eq!(seen(5 * HOUR), State::Draining);
        assert_eq!(seen(6 * HOUR), State::Complete { why: Why::Drained, quiet: true });
    }

    #[test]
    fn files_sent_again_keep_a_run_draining_and_never_open_it() {
        let mut run = history(Family::NextSeq).pop().unwrap();
        run.markers
            .retain(|seen| seen.marker != Marker::RunCompletionStatus && seen.marker != Marker::CopyComplete);
        let marked = run.markers.iter().find(|seen| seen.marker == Marker::RtaComplete).unwrap().modified;
        // RTAConfiguration.xml comes again five hours later, and the wait begins anew.
        run.last_write = marked + 5 * HOUR;
        assert_eq!(state(&run, marked + 7 * HOUR, &Patience::default()), State::Draining);
        assert!(matches!(state(&run, marked + 11 * HOUR, &Patience::default()), State::Complete { .. }));
    }

    #[test]
    fn writing_after_completion_only_ends_the_quiet() {
        let mut run = history(Family::NovaSeq).pop().unwrap();
        let quiet = |run: &Observation, now| match state(run, now, &Patience::default()) {
            State::Complete { quiet, .. } => quiet,
            other => panic!("{other:?}"),
        };
        let done = run.last_write;
        assert!(!quiet(&run, done + HOUR / 4) && quiet(&run, done + HOUR));
        run.last_write = done + HOUR;
        assert!(!quiet(&run, done + HOUR) && quiet(&run, done + 2 * HOUR));
    }

    #[test]
    fn unknown_instruments_end_with_the_copy_and_clocks_may_run_backwards() {
        let marker = Seen { marker: Marker::CopyComplete, modified: at(HOUR) };
        let mut run = Observation { family: None, markers: vec![marker], last_write: at(HOUR) };
        let complete = State::Complete { why: Why::Marker(Marker::CopyComplete), quiet: false };
        assert_eq!(state(&run, at(Duration::ZERO), &Patience::default()), complete);
        run.markers.clear();
        assert_eq!(state(&run, at(Duration::ZERO), &Patience::default()), State::Open);
    }
}
