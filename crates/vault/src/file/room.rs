//! Whether the store plainly has room for what waits in memory: asked as long as somebody wants to know.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use runvault_store::backend::Dir;

/// Less room than this, and nothing waits in memory: it is not used up before the next look.
const PLAINLY_ROOM: u64 = 1 << 30;
/// How long an answer counts.
const COUNTS: Duration = Duration::from_secs(1);

pub(super) struct Room {
    plain: AtomicBool,
    asked: AtomicBool,
    looked: Mutex<Instant>,
}

impl Room {
    pub(super) fn of(tree: &dyn Dir) -> Self {
        let plain = AtomicBool::new(is_plain(tree));
        Self { plain, asked: AtomicBool::new(false), looked: Mutex::new(Instant::now()) }
    }

    /// By the last look; where nobody asked for a while there is none, and what is written goes out at once.
    pub(super) fn is_plain(&self) -> bool {
        self.asked.store(true, Ordering::Relaxed);
        self.plain.load(Ordering::Relaxed)
    }

    /// Looks again, where the last answer is old and somebody wants one.
    pub(super) fn look(&self, tree: &dyn Dir) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.elapsed() < COUNTS {
            return;
        }
        let plain = self.asked.swap(false, Ordering::Relaxed) && is_plain(tree);
        if plain {
            *looked = Instant::now();
        }
        self.plain.store(plain, Ordering::Relaxed);
    }
}

fn is_plain(tree: &dyn Dir) -> bool {
    tree.space().is_ok_and(|space| space.available.saturating_mul(space.block) > PLAINLY_ROOM)
}
