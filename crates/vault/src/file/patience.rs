//! How long a reader waits for what a writer elsewhere may be writing at this moment.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::context::lock;

/// A chunk, a header or a length that fails is looked at again so often.
const TURNS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);
/// Waits in vain in one [`WHILE`]: what is damaged for good must not cost each of its readers the whole wait.
const IN_VAIN_MAX: u32 = 50;
const WHILE: Duration = Duration::from_secs(60);

/// The waits of a run's readers.
#[derive(Default)]
pub(super) struct Patience(Mutex<Option<Spent>>);

struct Spent {
    since: Instant,
    in_vain: u32,
}

impl Patience {
    /// The turns of one look.
    pub(super) fn turns(&self) -> Turns<'_> {
        Turns { patience: self, left: TURNS }
    }

    fn is_spent(&self) -> bool {
        let mut spent = lock(&self.0);
        spent.take_if(|spent| spent.since.elapsed() > WHILE);
        spent.as_ref().is_some_and(|spent| spent.in_vain >= IN_VAIN_MAX)
    }

    fn was_in_vain(&self) {
        let mut spent = lock(&self.0);
        spent.get_or_insert_with(|| Spent { since: Instant::now(), in_vain: 0 }).in_vain += 1;
    }
}

pub(super) struct Turns<'a> {
    patience: &'a Patience,
    left: u32,
}

impl Turns<'_> {
    /// Waits a moment, and tells whether to look again.
    pub(super) fn another(&mut self) -> bool {
        if self.left == 0 {
            self.patience.was_in_vain();
            return false;
        }
        if self.left == TURNS && self.patience.is_spent() {
            return false;
        }
        self.left -= 1;
        std::thread::sleep(PAUSE);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_for_good_is_waited_for_a_few_times_only() {
        let patience = Patience::default();
        let looks = |turns: &mut Turns<'_>| (0..=TURNS).take_while(|_| turns.another()).count() as u32;
        assert_eq!(looks(&mut patience.turns()), TURNS);
        for _ in 1..IN_VAIN_MAX {
            patience.was_in_vain();
        }
        assert_eq!(looks(&mut patience.turns()), 0);
        let since = Instant::now().checked_sub(2 * WHILE).unwrap();
        *patience.0.lock().unwrap() = Some(Spent { since, in_vain: IN_VAIN_MAX });
        assert!(patience.turns().another());
    }
}
