//! What custody does while a vault is open: runs that are granted come, those that are revoked go, and all of them where
//! the reader was removed or its time is over. What is open goes on until it is closed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use runvault_format::ids::RunId;

use crate::api::Ino;
use crate::authority::{Lost, Standing};
use crate::run::Run;
use crate::run_table::Entry;
use crate::scans::Scans;
use crate::{Vault, buffers};

/// Granted runs that are looked at together, and how long one look may take over them.
const AT_ONCE: usize = 64;
const A_LOOK: Duration = Duration::from_secs(1);
/// How long an envelope is waited for after the line that grants it, or the last that came; after that it is looked for
/// with all others.
const PATIENCE: Duration = Duration::from_secs(60);
/// Runs that the log names of one change.
const NAMED: usize = 20;

/// What was taken up so far.
pub(crate) struct Followed {
    standing: Standing,
    /// Granted, and not open yet.
    awaited: Vec<RunId>,
    until: Instant,
}

impl Followed {
    pub(crate) fn from(standing: Standing) -> Self {
        Self { standing, awaited: Vec::new(), until: Instant::now() }
    }
}

impl Vault {
    /// Takes up what was added to the chain since the last look; whether runs that did not open may do so now.
    pub(crate) fn follow_custody(&self, scans: &mut Scans) -> bool {
        self.authority.refresh();
        let now = self.authority.standing();
        let before = std::mem::replace(&mut scans.followed.standing, now.clone());
        let opens_more = before != now && self.take_up(scans, &before, &now);
        if !scans.followed.awaited.is_empty() {
            self.open_awaited(scans);
        }
        opens_more
    }

    fn take_up(&self, scans: &mut Scans, before: &Standing, now: &Standing) -> bool {
        match (&before.lost, &now.lost) {
            (None, Some(lost)) => log::warn!("this mount's identity reads nothing any more: {lost}"),
            (Some(_), None) => log::info!("this mount's identity may read again"),
            _ => {}
        }
        self.close_revoked(scans);
        self.tell_revoked();
        let table = self.table();
        let opens = |run: &RunId| matches!(table.entries.get(run), Some(Entry::Run(_)));
        let granted = self.authority.granted_behind(before.line).into_iter().filter(|run| !opens(run));
        scans.followed.awaited.extend(granted);
        scans.followed.until = Instant::now() + PATIENCE;
        now.epoch > before.epoch || (before.lost.is_some() && now.lost.is_none())
    }

    /// Closes the runs that the identity may not open any more; its own are no matter of custody.
    pub(crate) fn close_revoked(&self, scans: &mut Scans) {
        let revoked: Vec<Arc<Run>> = self
            .table()
            // Also one that was replaced: it would be shown again.
            .opened()
            .filter(|run| !run.held && !self.authority.may_open(&run.id))
            .cloned()
            .collect();
        if revoked.is_empty() {
            return;
        }
        self.change_table_held(scans, |entries| {
            entries.extend(revoked.iter().map(|run| (run.id, Entry::Closed(None))));
        });
        for run in &revoked {
            self.close_run(run);
        }
        tell("are closed to this mount from now on; what is open of them stays so", &revoked);
    }

    pub(crate) fn close_run(&self, run: &Arc<Run>) {
        let Some(seal) = run.seal() else { return self.give_up(run) };
        self.closed_away().extend(self.sealed.forget(run).map(|top| (top, seal.entries())));
        self.dirs.drop_run(run);
        run.mark_gone();
        run.erase_key();
        seal.close_if_unused();
        buffers::empty_all();
    }

    /// The first node and the number of nodes of sealed runs that were closed since this was asked last: the kernel may
    /// know them still.
    pub fn nodes_closed_since(&self) -> Vec<(Ino, u32)> {
        std::mem::take(&mut *self.closed_away())
    }

    /// Runs whose lines came before their envelopes.
    fn open_awaited(&self, scans: &mut Scans) {
        let begun = Instant::now();
        let awaited = std::mem::take(&mut scans.followed.awaited);
        let (mut opened, mut left) = (Vec::new(), Vec::new());
        for some in awaited.chunks(AT_ONCE) {
            if begun.elapsed() > A_LOOK {
                left.extend_from_slice(some);
                continue;
            }
            let found = self.on_all_cores(some, |id| (id, self.load(id)));
            for (id, entry) in found {
                match entry {
                    Some((_, Entry::Run(run))) => opened.push(run),
                    _ => left.push(id),
                }
            }
        }
        if !opened.is_empty() {
            scans.followed.until = begun + PATIENCE;
            self.change_table_held(scans, |entries| {
                entries.extend(opened.iter().map(|run| (run.id, Entry::Run(run.clone()))));
            });
            let table = self.table();
            let (open, shown): (Vec<_>, Vec<_>) = opened.into_iter().partition(|run| table.is_left_out(run));
            tell("were granted, and are shown", &shown);
            tell("were granted, and are left out until they are sealed (--open shows them)", &open);
        }
        if begun < scans.followed.until {
            scans.followed.awaited = left;
        }
    }

    fn tell_revoked(&self) {
        if self.is_revoked() && !self.revoked_told.swap(true, Ordering::Relaxed) {
            log::error!(
                "this gateway was revoked: it starts no run and seals none any more, since what it makes now counts for \
                 nobody. Runs that are open can be written and read here, and by who was granted them"
            );
        }
    }

    /// Whether this machine's chain was ended, as far as the chain was read.
    pub fn is_revoked(&self) -> bool {
        let known = self.gateway.as_ref().and_then(|gateway| self.authority.gateway_key(&gateway.id()));
        known.is_some_and(|known| known.until.is_some())
    }

    /// Number of the newest line of the chain that was read, and why the identity reads nothing any more.
    pub fn custody(&self) -> (u64, Option<Lost>) {
        let standing = self.authority.standing();
        (standing.line, standing.lost)
    }
}

fn tell(what: &str, runs: &[Arc<Run>]) {
    if runs.is_empty() {
        return;
    }
    let named: Vec<String> = runs.iter().take(NAMED).map(|run| run.id.to_string()).collect();
    let more = runs.len() - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    log::info!("custody: runs {what}: {}{more}", named.join(", "));
}
