//! Who writes the next line: whoever makes `custody/line-<n>`, which holds the line and its state whole.
//!
//! No lock works on every store, and no one can tell a slow executor from a dead one. So nothing that
//! another may be at work on is removed or replaced: `line-<n>` comes once, whole, under a name that must be
//! free, and with it the operation is done. What follows is copying, `state-<n>` and then `audit.log`,
//! which anyone may do, and more than once, since all write the same bytes. An executor that was stopped
//! for long may put an older `audit.log` back; the lines that it lacks are then read from here. They stay
//! for a day after they are in the log.

use std::sync::Arc;
use std::time::Duration;

use runvault_store::backend::Dir;
use runvault_store::replace::{TEMPORARY, put_new, replace};

use crate::chain::Chain;
use crate::layout::{self, AUDIT_LOG, LOG_MAX, OBJECT_MAX, PUBLIC_MODE};
use crate::{Error, Result};

/// A line with the state's outline in its request, and the state.
const LINE_MAX: usize = 4 * OBJECT_MAX;
/// No executor is stopped for so long between two calls and goes on then.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// `custody/line-<n>`: the audit line, a newline, the text of the state.
pub(crate) struct Claim {
    bytes: Vec<u8>,
    line: usize,
}

impl Claim {
    pub(crate) fn new(line: &str, state: &str) -> Self {
        Self { bytes: format!("{line}\n{state}").into_bytes(), line: line.len() }
    }

    /// The line, without its newline.
    pub(crate) fn line(&self) -> &[u8] {
        self.bytes.get(..self.line).unwrap_or_default()
    }

    pub(crate) fn state(&self) -> &[u8] {
        self.bytes.get(self.line.saturating_add(1)..).unwrap_or_default()
    }
}

/// Its place in the store.
pub(crate) fn object(n: u64) -> String {
    format!("custody/{}", name(n))
}

/// The claim of line `n`, if there is one.
pub(crate) fn read(custody: &Arc<dyn Dir>, n: u64) -> Result<Option<Claim>> {
    let Some(bytes) = layout::read_if_there(custody, &name(n), &object(n), LINE_MAX)? else {
        return Ok(None);
    };
    match bytes.iter().position(|b| *b == b'\n') {
        Some(line) => Ok(Some(Claim { bytes, line })),
        None => Err(Error::Damaged { object: object(n), why: "cut short".to_owned() }),
    }
}

/// Claims line `n`; `false`: another has it.
pub(crate) fn put(custody: &Arc<dyn Dir>, n: u64, claim: &Claim) -> Result<bool> {
    match put_new(&**custody, name(n).as_bytes(), &claim.bytes, PUBLIC_MODE) {
        Ok(()) => Ok(true),
        // A share's answer may be lost and the call repeated: then it is our own that is there.
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
            Ok(read(custody, n)?.is_some_and(|there| there.bytes == claim.bytes))
        }
        Err(e) => Err(Error::io("write", object(n), e)),
    }
}

/// Copies the claimed lines of the chain that `audit.log` lacks, each state before its line.
pub(crate) fn finish(custody: &Arc<dyn Dir>, chain: &Chain) -> Result<()> {
    let log = layout::read(custody, AUDIT_LOG, "custody/audit.log", LOG_MAX)?;
    if log.starts_with(chain.log()) {
        return Ok(());
    }
    let written = log.iter().filter(|b| **b == b'\n').count() as u64;
    if !chain.log().starts_with(&log) {
        return Err(Error::Forked { line: written });
    }
    for n in written.saturating_add(1)..=chain.head().n {
        let Some(claim) = read(custody, n)? else { continue };
        let state = layout::state_name(n);
        replace(&**custody, state.as_bytes(), claim.state(), PUBLIC_MODE)
            .map_err(|e| Error::io("write", format!("custody/{state}"), e))?;
    }
    replace(&**custody, AUDIT_LOG.as_bytes(), chain.log(), PUBLIC_MODE)
        .map_err(|e| Error::io("write", "custody/audit.log", e))
}

/// The lines whose claims are there, in order.
pub(crate) fn numbers(custody: &Arc<dyn Dir>) -> Result<Vec<u64>> {
    let names = layout::names(custody, layout::CUSTODY)?;
    let mut found: Vec<u64> = names.iter().filter_map(|name| number(name)).collect();
    found.sort_unstable();
    Ok(found)
}

/// The line that a name is of.
fn number(name: &[u8]) -> Option<u64> {
    let n = std::str::from_utf8(name).ok()?.strip_prefix("line-")?.parse().ok()?;
    (self::name(n).as_bytes() == name).then_some(n)
}

/// Removes claims that are in the log and temporaries, where they are a day older than the claim of line
/// `n`, by the store's own clock. What does not go stays for the next time.
pub(crate) fn tidy(custody: &Arc<dyn Dir>, n: u64) -> Result<()> {
    let modified = |name: &[u8]| Some(custody.stat(name).ok()?.mtime.sec);
    let Some(now) = modified(name(n).as_bytes()) else { return Ok(()) };
    for name in layout::names(custody, layout::CUSTODY)? {
        let done = name.starts_with(TEMPORARY) || number(&name).is_some_and(|line| line < n);
        let kept = KEPT.as_secs().cast_signed();
        if done && modified(&name).is_some_and(|then| now.saturating_sub(then) > kept) {
            let gone = custody.unlink(&name);
            gone.unwrap_or_else(|e| log::debug!("custody/{}: {e}", String::from_utf8_lossy(&name)));
        }
    }
    Ok(())
}

pub(crate) fn name(n: u64) -> String {
    format!("line-{n}")
}
