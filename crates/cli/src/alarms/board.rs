//! What is raised: each alarm once, and cleared once it has been well for long enough.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use runvault_format::ids::RunId;

use super::rules::{Finding, Level};
use super::{Alarm, Kind};

/// An alarm that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub alarm: Alarm,
    /// Else it was cleared.
    pub raised: bool,
}

#[derive(Default)]
pub struct Board(BTreeMap<(Kind, Option<RunId>), Raised>);

struct Raised {
    alarm: Alarm,
    /// Since when nothing is found any more.
    well: Option<Instant>,
}

/// How long it must be well before it is cleared: a store that is slow is so by fits.
fn calm(kind: Kind) -> Duration {
    Duration::from_secs(if kind == Kind::Slow { 300 } else { 0 })
}

impl Board {
    /// Takes in what was found now, and tells what changed.
    pub fn update(&mut self, findings: Vec<Finding>, now: Instant, clock: SystemTime) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut well: Vec<_> = self.0.keys().copied().collect();
        for finding in findings {
            let key = (finding.kind, finding.run);
            well.retain(|other| *other != key);
            match self.0.get_mut(&key) {
                Some(raised) => {
                    raised.well = None;
                    raised.alarm.text = finding.text;
                }
                None if finding.level == Level::Keep => {}
                None => {
                    let Finding { kind, run, text, .. } = finding;
                    let alarm = Alarm { kind, run, text, since: clock };
                    changes.push(Change { alarm: alarm.clone(), raised: true });
                    self.0.insert(key, Raised { alarm, well: None });
                }
            }
        }
        for key in well {
            let Some(raised) = self.0.get_mut(&key) else { continue };
            let since = *raised.well.get_or_insert(now);
            if now.saturating_duration_since(since) >= calm(key.0)
                && let Some(raised) = self.0.remove(&key)
            {
                changes.push(Change { alarm: raised.alarm, raised: false });
            }
        }
        changes
    }

    /// All that is raised.
    pub fn raised(&self) -> impl Iterator<Item = &Alarm> {
        self.0.values().map(|raised| &raised.alarm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: Kind, level: Level, text: &str) -> Finding {
        Finding { kind, run: None, level, text: text.into() }
    }

    /// What changed at that second.
    fn at(board: &mut Board, begin: Instant, second: u64, findings: Vec<Finding>) -> Vec<(Kind, bool)> {
        let clock = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let changes = board.update(findings, begin + Duration::from_secs(second), clock);
        changes.into_iter().map(|change| (change.alarm.kind, change.raised)).collect()
    }

    #[test]
    fn an_alarm_is_raised_once_and_cleared_once() {
        let (mut board, begin) = (Board::default(), Instant::now());
        let raise = |text: &str| vec![found(Kind::Filling, Level::Raise, text)];
        assert_eq!(at(&mut board, begin, 0, vec![found(Kind::Filling, Level::Keep, "12 %")]), []);
        assert_eq!(at(&mut board, begin, 1, raise("9 %")), [(Kind::Filling, true)]);
        assert_eq!(at(&mut board, begin, 2, raise("8 %")), []);
        let alarm = board.raised().next().unwrap();
        assert_eq!(alarm.text, "8 %", "what it says now");
        assert_eq!(alarm.since, SystemTime::UNIX_EPOCH + Duration::from_secs(1), "when it began");
        assert_eq!(at(&mut board, begin, 3, vec![found(Kind::Filling, Level::Keep, "11 %")]), []);
        assert_eq!(at(&mut board, begin, 4, vec![]), [(Kind::Filling, false)]);
        assert_eq!(at(&mut board, begin, 5, vec![]), []);
        assert_eq!(at(&mut board, begin, 6, raise("9 %")), [(Kind::Filling, true)], "again");
    }

    #[test]
    fn a_store_that_is_slow_by_fits_is_one_alarm() {
        let (mut board, begin) = (Board::default(), Instant::now());
        let slow = || vec![found(Kind::Slow, Level::Raise, "")];
        assert_eq!(at(&mut board, begin, 0, slow()), [(Kind::Slow, true)]);
        assert_eq!(at(&mut board, begin, 1, vec![]), []);
        assert_eq!(at(&mut board, begin, 290, vec![]), []);
        assert_eq!(at(&mut board, begin, 295, slow()), []);
        assert_eq!(at(&mut board, begin, 300, vec![]), []);
        assert_eq!(at(&mut board, begin, 599, vec![]), []);
        assert_eq!(at(&mut board, begin, 600, vec![]), [(Kind::Slow, false)]);
    }

    #[test]
    fn runs_have_alarms_of_their_own() {
        let (mut board, begin) = (Board::default(), Instant::now());
        let stuck = |run: u8| Finding { run: Some(RunId([run; 16])), ..found(Kind::Stuck, Level::Raise, "") };
        assert_eq!(at(&mut board, begin, 0, vec![stuck(1), stuck(2)]).len(), 2);
        assert_eq!(
            at(&mut board, begin, 1, vec![stuck(2), stuck(3)]),
            [(Kind::Stuck, true), (Kind::Stuck, false)]
        );
        let runs: Vec<_> = board.raised().filter_map(|alarm| alarm.run).collect();
        assert_eq!(runs, [RunId([2; 16]), RunId([3; 16])]);
    }
}
