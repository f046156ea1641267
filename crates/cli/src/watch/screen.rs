//! What the live view shows: what was seen last, in order, and the part of it that fits.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::run_rows::{self, Seen, number};

/// Over how long the present rate of a run is taken: an instrument sends in bursts.
const WINDOW: Duration = Duration::from_secs(60);

/// How far the list moves.
#[derive(Clone, Copy, Debug)]
pub enum Move {
    Lines(isize),
    Pages(isize),
    Top,
    Bottom,
}

pub struct Screen {
    /// The store, safe for a terminal.
    pub store: String,
    /// Sorted.
    pub seen: Seen,
    /// When that was; `None` before the first look.
    pub at: Option<Instant>,
    /// Why the last look failed.
    pub error: Option<String>,
    /// The first run that is shown.
    pub first: usize,
    /// How many runs fit.
    pub page: usize,
    sizes: HashMap<String, VecDeque<(Instant, u64)>>,
}

impl Screen {
    pub fn of(store: String) -> Screen {
        Screen {
            store,
            seen: Seen::default(),
            at: None,
            error: None,
            first: 0,
            page: 0,
            sizes: HashMap::new(),
        }
    }

    pub fn saw(&mut self, mut runs: Vec<Value>, now: Instant) {
        runs.sort_by_cached_key(order);
        let id = |run: &Value| run["run"].as_str().unwrap_or_default().to_owned();
        let there: HashMap<String, u64> =
            runs.iter().filter_map(|run| Some((id(run), number(run, "bytes")?))).collect();
        self.sizes.retain(|run, _| there.contains_key(run));
        for (run, bytes) in there {
            let sizes = self.sizes.entry(run).or_default();
            sizes.push_back((now, bytes));
            // The one at the window's beginning or just before it stays.
            while sizes.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
                sizes.pop_front();
            }
        }
        (self.seen.runs, self.at, self.error) = (runs, Some(now), None);
        self.scroll(Move::Lines(0));
    }

    pub fn failed(&mut self, why: &str) {
        self.error = Some(run_rows::safe(why));
    }

    /// Bytes a second over the last minute, or as long as it has been watched.
    pub fn rate(&self, run: &Value) -> Option<u64> {
        let sizes = self.sizes.get(run["run"].as_str()?)?;
        let ((from, before), (to, after)) = (sizes.front()?, sizes.back()?);
        let seconds = to.duration_since(*from).as_secs_f64();
        (seconds >= 1.0).then(|| (after.saturating_sub(*before) as f64 / seconds) as u64)
    }

    pub fn scroll(&mut self, by: Move) {
        let last = self.seen.runs.len().saturating_sub(self.page.max(1));
        let page = isize::try_from(self.page.max(1)).unwrap_or(isize::MAX);
        let wanted = match by {
            Move::Lines(n) => self.first.saturating_add_signed(n),
            Move::Pages(n) => self.first.saturating_add_signed(n.saturating_mul(page)),
            Move::Top => 0,
            Move::Bottom => last,
        };
        self.first = wanted.min(last);
    }
}

/// What needs someone first, then what is being written, then what is over; the newest of each first.
fn order(run: &Value) -> (u8, std::cmp::Reverse<String>, String) {
    let rank = match run["state"].as_str().unwrap_or_default() {
        "damaged" | "silent" => 0,
        _ if run["trouble"].is_string() => 0,
        "sealing" => 1,
        "complete" | "draining" => 2,
        "open" => 3,
        _ => 4,
    };
    let text = |key: &str| run[key].as_str().unwrap_or_default().to_owned();
    let newest = if rank == 4 { text("sealed") } else { text("last_write") };
    (rank, std::cmp::Reverse(newest), text("run"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seen(bytes: u64) -> Vec<Value> {
        vec![
            json!({ "run": "0", "state": "sealed", "sealed": "2026-01-02" }),
            json!({ "run": "1", "state": "sealed", "sealed": "2026-01-03" }),
            json!({ "run": "2", "state": "open", "last_write": "2026-02-01", "bytes": bytes }),
            json!({ "run": "3", "state": "open", "last_write": "2026-02-02" }),
            json!({ "run": "4", "state": "sealed", "trouble": "its seal was removed" }),
            json!({ "run": "5", "state": "complete" }),
        ]
    }

    #[test]
    fn what_needs_someone_comes_first() {
        let mut screen = Screen::of(String::new());
        screen.saw(seen(0), Instant::now());
        let order: Vec<_> = screen.seen.runs.iter().map(|run| run["run"].as_str().unwrap()).collect();
        assert_eq!(order, ["4", "5", "3", "2", "1", "0"]);
    }

    #[test]
    fn the_rate_is_that_of_the_last_minute() {
        let mut screen = Screen::of(String::new());
        let begin = Instant::now();
        let open = json!({ "run": "2" });
        screen.saw(seen(1000), begin);
        assert_eq!(screen.rate(&open), None);
        for (second, bytes) in [(10, 2000), (60, 2000), (70, 62_000), (400, 62_000)] {
            screen.saw(seen(bytes), begin + Duration::from_secs(second));
            let expected = match second {
                10 => 100,
                60 => 16,
                70 => 1000,
                _ => 0,
            };
            assert_eq!(screen.rate(&open), Some(expected), "{second}");
        }
        screen.saw(Vec::new(), begin);
        assert_eq!(screen.rate(&open), None);
    }

    #[test]
    fn the_list_moves_no_further_than_it_is_long() {
        let mut screen = Screen::of(String::new());
        screen.page = 4;
        screen.scroll(Move::Pages(1));
        screen.saw(seen(0), Instant::now());
        assert_eq!(screen.first, 0);
        for (by, first) in [
            (Move::Lines(1), 1),
            (Move::Pages(3), 2),
            (Move::Lines(-1), 1),
            (Move::Pages(-1), 0),
            (Move::Bottom, 2),
            (Move::Top, 0),
        ] {
            screen.scroll(by);
            assert_eq!(screen.first, first, "{by:?}");
        }
    }
}
