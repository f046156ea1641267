//! Which facts are alarming. Pure: no clock, no store.

use std::time::Duration;

use runvault_format::ids::RunId;
use runvault_sequencer::completion::{State, Why};

use super::Kind;
use super::facts::{Clock, Facts, Limits, Run, Store};
use crate::clock::BUILT;
use crate::output::size;
use crate::sealing;

/// What an alarm that is raised stays for, so that it does not come and go: room must grow by so many percent, and the
/// time until the store is full by half.
const MORE_FREE: u32 = 2;
/// What the sealer may need on top of its waiting before a run counts as stuck.
const SEALING: Duration = Duration::from_secs(3600);

/// How far a fact is from its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Beyond it.
    Raise,
    /// Within, but not by enough to clear what is raised.
    Keep,
}

/// One thing that is alarming.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub kind: Kind,
    pub run: Option<RunId>,
    pub level: Level,
    /// Without any plaintext name.
    pub text: String,
}

/// All that is alarming; what is not named here is well.
pub fn findings(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let of_runs = facts.runs.iter().flat_map(|run| {
        let found = [
            unsealed(run, limits),
            stuck(run, limits),
            incomplete(run),
            refused(run),
            lease(run, limits),
            damaged(run),
        ];
        found.into_iter().flatten().map(|(kind, text)| Finding {
            kind,
            run: Some(run.run),
            level: Level::Raise,
            text,
        })
    });
    let of_all = [
        slow(&facts.store, limits),
        filling(&facts.store, limits),
        clock(&facts.clock, limits),
        revoked(facts.revoked),
    ];
    let of_all =
        of_all.into_iter().flatten().map(|(kind, level, text)| Finding { kind, run: None, level, text });
    of_runs.chain(of_all).collect()
}

type OfRun = Option<(Kind, String)>;
type OfAll = Option<(Kind, Level, String)>;

fn unsealed(run: &Run, limits: &Limits) -> OfRun {
    run.state?;
    let text = || format!("not sealed, although it began {} ago", long(run.age));
    (run.age >= limits.unsealed).then(|| (Kind::Unsealed, text()))
}

/// Where the sealer waits for silence, silence alone is not alarming yet.
fn stuck(run: &Run, limits: &Limits) -> OfRun {
    let waited_for = match run.state? {
        State::Open if !run.addition => Duration::ZERO,
        State::Open | State::Draining | State::Complete { why: Why::Drained, .. } => {
            limits.patience.drained.max(limits.patience.quiet) + SEALING
        }
        State::Complete { .. } => limits.patience.quiet + SEALING,
    };
    let what = match run.state? {
        _ if run.addition => "what was added is not sealed",
        State::Open => "base calling has not ended",
        State::Draining => "its last marker has not come",
        State::Complete { .. } => "it is over, and not sealed",
    };
    let text = || format!("nothing was written for {}, and {what}", long(run.quiet));
    (run.quiet >= limits.stuck.max(waited_for)).then(|| (Kind::Stuck, text()))
}

fn incomplete(run: &Run) -> OfRun {
    let missing = run.missing.as_ref().filter(|missing| missing.count > 0)?;
    let named = missing.named.iter().map(String::as_str);
    Some((Kind::Incomplete, sealing::incomplete(missing.count as u64, named)))
}

fn refused(run: &Run) -> OfRun {
    let faults = run.refused?;
    Some((
        Kind::Refused,
        format!("not sealed: {faults} objects of it do not authenticate, or are not what was written"),
    ))
}

fn lease(run: &Run, limits: &Limits) -> OfRun {
    if let Some((holder, met)) = &run.holder {
        let text = || format!("written by {holder}, for {} at least", long(*met));
        return (*met >= limits.lease).then(|| (Kind::Lease, text()));
    }
    let age = run.lease_age?;
    let text = || format!("its lease could not be renewed for {}: nothing can be written", long(age));
    (age >= limits.lease).then(|| (Kind::Lease, text()))
}

fn damaged(run: &Run) -> OfRun {
    run.trouble.clone().map(|trouble| (Kind::Damaged, trouble))
}

fn slow(store: &Store, limits: &Limits) -> OfAll {
    let health = &store.health;
    if health.refusing {
        return Some((
            Kind::Slow,
            Level::Raise,
            "the store does not answer: requests are refused".to_owned(),
        ));
    }
    let waited = health.waited.max(store.unanswered);
    if waited < limits.slow / 2 && health.given_up == 0 {
        return None;
    }
    let level = if waited >= limits.slow || health.given_up > 0 { Level::Raise } else { Level::Keep };
    let text = match health.given_up {
        given_up @ 1.. if waited < limits.slow => {
            format!("the store does not answer: requests that were given up: {given_up}")
        }
        _ => format!("the store has kept a call waiting for {}", long(waited)),
    };
    Some((Kind::Slow, level, text))
}

fn filling(store: &Store, limits: &Limits) -> OfAll {
    if store.size == 0 {
        return None;
    }
    let room = u32::try_from(u128::from(store.available) * 100 / u128::from(store.size)).unwrap_or(100);
    let free = room.min(store.files_free);
    let left = store.rate.filter(|rate| *rate > 0).map(|rate| Duration::from_secs(store.available / rate));
    let level = if free < limits.free || left.is_some_and(|left| left < limits.full) {
        Level::Raise
    } else if free < limits.free + MORE_FREE || left.is_some_and(|left| left < limits.full * 3 / 2) {
        Level::Keep
    } else {
        return None;
    };
    let what = if store.files_free < room {
        format!("{} % of its files", store.files_free)
    } else {
        format!("{} ({room} %)", size(store.available))
    };
    let until = left.map(|left| format!(", full in {} at the rate of the last hour", long(left)));
    Some((Kind::Filling, level, format!("the store has {what} left{}", until.unwrap_or_default())))
}

fn clock(clock: &Clock, limits: &Limits) -> OfAll {
    let beyond = |seconds: &i64| seconds.unsigned_abs() > limits.clock.as_secs();
    let text = if super::facts::unix_seconds(clock.now).unsigned_abs() < BUILT {
        "the clock is older than this program".to_owned()
    } else if let Some(jumped) = clock.jumped.filter(beyond) {
        format!("the clock was set by {jumped:+} s within the last hour")
    } else if let Some(ahead) = clock.store_ahead.filter(beyond) {
        format!("the store's clock differs by {ahead:+} s from this machine's")
    } else {
        return None;
    };
    Some((Kind::Clock, Level::Raise, text))
}

fn revoked(revoked: bool) -> OfAll {
    let text =
        "this gateway was revoked: it starts no run and seals none; what the instrument sends is refused";
    revoked.then(|| (Kind::Revoked, Level::Raise, text.to_owned()))
}

/// `5h 12m`: seconds only below a minute or two.
fn long(time: Duration) -> String {
    let seconds = time.as_secs();
    let rounded = if seconds >= 120 { seconds - seconds % 60 } else { seconds };
    humantime::format_duration(Duration::from_secs(rounded)).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use runvault_fuse::Health;
    use runvault_sequencer::completion::Patience;
    use runvault_sequencer::marker::Marker;

    use super::super::facts::Missing;
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn limits() -> Limits {
        Limits::usual(Patience::default())
    }

    fn well() -> Facts {
        Facts {
            store: Store { size: 1000 << 30, available: 500 << 30, files_free: 100, ..Store::default() },
            clock: Clock {
                now: UNIX_EPOCH + Duration::from_secs(BUILT + 1),
                synchronised: true,
                jumped: None,
                store_ahead: None,
            },
            revoked: false,
            runs: vec![Run {
                run: RunId([7; 16]),
                addition: false,
                state: Some(State::Open),
                age: HOUR,
                quiet: MINUTE,
                lease_age: Some(MINUTE / 3),
                holder: None,
                trouble: None,
                missing: None,
                refused: None,
            }],
        }
    }

    /// What is found after a change to what is well.
    fn after(change: impl FnOnce(&mut Facts)) -> Vec<(Kind, Level)> {
        let mut facts = well();
        change(&mut facts);
        let found = findings(&facts, &limits());
        found.into_iter().map(|found| (found.kind, found.level)).collect()
    }

    fn of_run(change: impl FnOnce(&mut Run)) -> Vec<Kind> {
        after(|facts| change(&mut facts.runs[0])).into_iter().map(|(kind, _)| kind).collect()
    }

    fn of_store(change: impl FnOnce(&mut Store)) -> Vec<(Kind, Level)> {
        after(|facts| change(&mut facts.store))
    }

    #[test]
    fn what_is_well_raises_nothing() {
        assert_eq!(after(|_| ()), []);
        // A gateway without a run, or a store that says nothing of its size.
        assert_eq!(after(|facts| facts.runs.clear()), []);
        assert_eq!(of_store(|store| *store = Store::default()), []);
    }

    #[test]
    fn a_run_that_is_not_sealed_in_time_is_told() {
        assert_eq!(of_run(|run| run.age = 96 * HOUR - MINUTE), []);
        assert_eq!(of_run(|run| run.age = 96 * HOUR), [Kind::Unsealed]);
        // One that another machine writes is not ours to seal.
        assert_eq!(of_run(|run| (run.age, run.state) = (99 * HOUR, None)), []);
    }

    #[test]
    fn silence_is_alarming_once_it_is_longer_than_what_is_waited_for() {
        let drained = State::Complete { why: Why::Drained, quiet: true };
        let abandoned = State::Complete { why: Why::Abandoned, quiet: true };
        let marked = State::Complete { why: Why::Marker(Marker::CopyComplete), quiet: true };
        for (state, limit) in [
            (State::Open, 4 * HOUR),
            // Six hours for the last marker, half an hour of quiet, and the seal.
            (State::Draining, 7 * HOUR),
            (drained, 7 * HOUR),
            (marked, 4 * HOUR),
            (abandoned, 4 * HOUR),
        ] {
            let quiet = |quiet| of_run(|run| (run.state, run.quiet) = (Some(state), quiet));
            assert_eq!(quiet(limit - MINUTE), [], "{state:?}");
            assert_eq!(quiet(limit), [Kind::Stuck], "{state:?}");
        }
        // What adds to a sealed run has no markers, and ends by silence.
        let addition = |quiet| of_run(|run| (run.addition, run.quiet) = (true, quiet));
        assert_eq!(addition(7 * HOUR - MINUTE), []);
        assert_eq!(addition(7 * HOUR), [Kind::Stuck]);
    }

    #[test]
    fn what_is_wrong_with_a_run_is_told_without_its_name() {
        let missing = Missing { count: 5, named: ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec() };
        assert_eq!(of_run(|run| run.missing = Some(Missing::default())), []);
        let mut facts = well();
        facts.runs[0].missing = Some(missing);
        assert_eq!(findings(&facts, &limits())[0].text, "incomplete: a, b, c and 2 more");
        assert_eq!(of_run(|run| run.refused = Some(2)), [Kind::Refused]);
        assert_eq!(of_run(|run| run.trouble = Some("its seal was removed".into())), [Kind::Damaged]);
        assert_eq!(of_run(|run| run.lease_age = Some(299 * MINUTE / 60)), []);
        assert_eq!(of_run(|run| run.lease_age = Some(5 * MINUTE)), [Kind::Lease]);
        let held = |time| of_run(|run| run.holder = Some(("gateway ab".into(), time)));
        assert_eq!(held(MINUTE), []);
        assert_eq!(held(5 * MINUTE), [Kind::Lease]);
    }

    #[test]
    fn a_store_is_slow_before_it_is_dead() {
        let waited = |seconds| Health { waited: Duration::from_secs(seconds), ..Health::default() };
        assert_eq!(of_store(|store| store.health = waited(7)), []);
        assert_eq!(of_store(|store| store.health = waited(8)), [(Kind::Slow, Level::Keep)]);
        assert_eq!(of_store(|store| store.health = waited(15)), [(Kind::Slow, Level::Raise)]);
        assert_eq!(of_store(|store| store.unanswered = MINUTE), [(Kind::Slow, Level::Raise)]);
        assert_eq!(of_store(|store| store.health.given_up = 1), [(Kind::Slow, Level::Raise)]);
        assert_eq!(of_store(|store| store.health.refusing = true), [(Kind::Slow, Level::Raise)]);
    }

    #[test]
    fn a_store_fills_by_size_by_files_and_by_rate() {
        let (raise, keep) = ([(Kind::Filling, Level::Raise)], [(Kind::Filling, Level::Keep)]);
        assert_eq!(of_store(|store| store.available = 99 << 30), raise);
        assert_eq!(of_store(|store| store.available = 115 << 30), keep);
        assert_eq!(of_store(|store| store.available = 120 << 30), []);
        assert_eq!(of_store(|store| store.files_free = 9), raise);
        let rate = |hours: u64| of_store(|store| store.rate = Some(store.available / (hours * 3600)));
        assert_eq!(rate(11), raise);
        assert_eq!(rate(17), keep);
        assert_eq!(rate(19), []);
        assert_eq!(of_store(|store| store.rate = Some(0)), []);
    }

    #[test]
    fn a_revocation_is_told() {
        assert_eq!(after(|facts| facts.revoked = true), [(Kind::Revoked, Level::Raise)]);
    }

    #[test]
    fn a_clock_is_wrong_by_itself_by_a_jump_and_by_the_stores() {
        let raise = [(Kind::Clock, Level::Raise)];
        let clock = |change: fn(&mut Clock)| after(|facts| change(&mut facts.clock));
        assert_eq!(clock(|clock| clock.now = UNIX_EPOCH), raise);
        assert_eq!(clock(|clock| clock.now = UNIX_EPOCH - HOUR), raise);
        assert_eq!(clock(|clock| clock.jumped = Some(-61)), raise);
        assert_eq!(clock(|clock| clock.jumped = Some(60)), []);
        assert_eq!(clock(|clock| clock.store_ahead = Some(61)), raise);
        assert_eq!(clock(|clock| clock.synchronised = false), []);
    }
}
