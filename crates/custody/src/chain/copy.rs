//! The chain in one piece: what a key file keeps of `custody/`, and what `custody/` is made anew from.

use std::sync::Arc;

use runvault_format::audit_entry::Line;
use runvault_format::custody_copy::{CopiedLine, CustodyCopy};
use runvault_format::custody_state::State;
use runvault_format::genesis::Genesis;
use runvault_store::backend::Dir;
use runvault_store::replace::create;

use super::Chain;
use super::load::{broken, genesis_state, lines, read_state};
use crate::layout::{self, AUDIT_LOG, DIR_MODE, GENESIS, LOCKS, OBJECT_MAX, PUBLIC_MODE};
use crate::{Error, Result, claim};

/// What messages call it.
const COPY: &str = "the key file's copy of custody/";

/// A copy that was verified like the store's own custody/.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) chain: Chain,
    genesis: String,
    /// The texts of state 0 and of those that lines name.
    states: Vec<String>,
}

impl Chain {
    /// The copy of custody/ up to this chain's head, verified as it will be when it is needed.
    ///
    /// # Errors
    /// As [`Chain::load`]; [`Error::Format`] where it is longer than a key file keeps.
    pub fn copy(&self, root: &Arc<dyn Dir>) -> Result<CustodyCopy> {
        let custody = layout::custody_dir(root)?;
        let genesis = text(layout::read(&custody, GENESIS, "custody/genesis", OBJECT_MAX)?)?;
        let zero = genesis_state(&custody)?;
        let mut chain = Chain::start(zero.clone())?;
        chain.take_first_envelopes(&custody, &zero)?;
        let first = chain.state.to_text()?;
        let mut copied = Vec::new();
        for line in lines(self.log())? {
            let n = chain.head().n.saturating_add(1);
            let (parsed, state) = (Line::parse(line).map_err(|e| broken(n, e))?, state_of_line(&custody, n)?);
            let follows = parsed.executed.request.op.apply(&chain.state).is_ok_and(|made| made == state);
            let told = if follows { None } else { Some(state.to_text()?) };
            chain.append(&parsed, line, Some(state))?;
            copied.push(CopiedLine { line: text(line.to_vec())?, state: told });
        }
        let copy = CustodyCopy { genesis, first, lines: copied };
        if Copied::verify(&CustodyCopy::parse(&copy.to_bytes()?)?)?.chain.head() == self.head() {
            Ok(copy)
        } else {
            Err(Error::Forked { line: self.head().n })
        }
    }
}

impl Copied {
    /// Verifies everything from the genesis on.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::ChainBroken`].
    pub(crate) fn verify(copy: &CustodyCopy) -> Result<Self> {
        let damaged = |e| Error::damaged(COPY, e);
        let (genesis, vault) = Genesis::parse(copy.genesis.as_bytes()).map_err(damaged)?;
        let zero = State::zero(&genesis, vault);
        let mut chain = Chain::start(zero.clone())?;
        chain.state = zero.take_envelopes(copy.first.as_bytes()).map_err(damaged)?;
        chain.current = chain.state.current()?.clone();
        let mut states = vec![copy.first.clone()];
        for CopiedLine { line, state } in &copy.lines {
            let n = chain.head().n.saturating_add(1);
            let parsed = Line::parse(line.as_bytes()).map_err(|e| broken(n, e))?;
            let state = match state {
                Some(told) => State::parse(told.as_bytes()).map_err(damaged)?,
                None => parsed.executed.request.op.apply(&chain.state).map_err(|e| broken(n, e))?,
            };
            states.push(state.to_text()?);
            chain.append(&parsed, line.as_bytes(), Some(state))?;
        }
        Ok(Self { chain, genesis: copy.genesis.clone(), states })
    }

    /// Writes the parts of custody/ into a directory that has none of them; the last is synced with it.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn write(&self, custody: &Arc<dyn Dir>) -> Result<()> {
        let put = |name: &str, bytes: &[u8]| {
            create(&**custody, name.as_bytes(), bytes, PUBLIC_MODE)
                .map_err(|e| Error::io("write", format!("custody/{name}"), e))
        };
        layout::ensure_dir(custody, LOCKS, DIR_MODE, "custody/locks")?;
        put(GENESIS, self.genesis.as_bytes())?;
        for (state, n) in self.states.iter().zip(0..) {
            put(&layout::state_name(n), state.as_bytes())?;
        }
        put(AUDIT_LOG, self.chain.log())
    }
}

/// A line that was claimed a moment ago may have its state there alone.
fn state_of_line(custody: &Arc<dyn Dir>, n: u64) -> Result<State> {
    if layout::exists(custody, &layout::state_name(n), "custody/")? {
        return read_state(custody, n);
    }
    match claim::read(custody, n)? {
        Some(claim) => State::parse(claim.state()).map_err(|e| Error::damaged(claim::object(n), e)),
        None => read_state(custody, n),
    }
}

fn text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| runvault_format::Error::NotCanonical("UTF-8").into())
}
