//! From the bytes in custody/ to a [`Chain`].

use std::sync::Arc;

use runvault_format::Error as FormatError;
use runvault_format::audit_entry::Line;
use runvault_format::custody_state::State;
use runvault_format::genesis::Genesis;
use runvault_format::ids::VaultId;
use runvault_format::vault_file;
use runvault_store::backend::Dir;

use super::Chain;
use crate::init::{self, Found};
use crate::layout::{self, AUDIT_LOG, GENESIS, LOG_MAX, OBJECT_MAX, VAULT_JSON};
use crate::{Error, Result};

impl Chain {
    /// Reads custody/ and verifies everything from the genesis on.
    ///
    /// # Errors
    /// [`Error::NotAVault`], [`Error::KilledInit`], [`Error::UnknownVersion`],
    /// [`Error::ChainBroken`] with the line, [`Error::Damaged`].
    pub fn load(root: &Arc<dyn Dir>) -> Result<Chain> {
        let named = vault_named(root)?;
        let custody = layout::custody_dir(root)?;
        let mut chain = Self::start(&custody)?;
        if chain.vault != named {
            let why = format!("names vault {named}, custody/genesis is that of {}", chain.vault);
            return Err(Error::Damaged { object: VAULT_JSON.to_owned(), why });
        }
        let log = layout::read(&custody, AUDIT_LOG, "custody/audit.log", LOG_MAX)?;
        for line in lines(&log)? {
            chain.follow(&custody, line)?;
        }
        Ok(chain)
    }

    /// The chain of no line: the state of the genesis.
    fn start(custody: &Arc<dyn Dir>) -> Result<Chain> {
        let object = "custody/genesis";
        let bytes = layout::read(custody, GENESIS, object, OBJECT_MAX)?;
        let (genesis, vault) = Genesis::parse(&bytes).map_err(|e| Error::damaged(object, e))?;
        let zero = State::zero(&genesis, vault);
        let name = layout::state_name(0);
        let object = format!("custody/{name}");
        let state = match layout::read_if_there(custody, &name, &object, OBJECT_MAX)? {
            Some(stored) => zero.take_envelopes(&stored).map_err(|e| Error::damaged(object, e))?,
            // Later states carry the envelopes over; where they are needed, their absence is named.
            None => zero,
        };
        let state_hash = state.hash()?;
        let current = state.current()?.clone();
        Ok(Chain { vault, lines: Vec::new(), log: Vec::new(), state, state_hash, current })
    }

    /// Verifies the next line and takes it, and the state that it names, in.
    pub(crate) fn follow(&mut self, custody: &Arc<dyn Dir>, text: &[u8]) -> Result<()> {
        let n = self.head().n.saturating_add(1);
        let line = Line::parse(text).map_err(|e| broken(n, e))?;
        let state = match line.executed.result.state {
            Some(_) => Some(read_state(custody, n)?),
            None => None,
        };
        self.append(&line, text, state)
    }

    /// Verifies a line and its state.
    pub(crate) fn append(&mut self, line: &Line, text: &[u8], state: Option<State>) -> Result<()> {
        let head = self.head();
        let next = line
            .verify(&head, &self.state, state.as_ref())
            .map_err(|e| broken(head.n.saturating_add(1), e))?;
        if let Some(state) = state {
            self.state_hash = state.hash()?;
            self.current = state.current()?.clone();
            self.state = state;
        }
        self.lines.push(next.hash);
        self.log.extend_from_slice(text);
        self.log.push(b'\n');
        Ok(())
    }
}

/// What vault.json says; that it is there tells a vault from anything else.
fn vault_named(root: &Arc<dyn Dir>) -> Result<VaultId> {
    let bytes = layout::read_if_there(root, VAULT_JSON, VAULT_JSON, vault_file::LEN_MAX)?;
    let bytes = bytes.map_or_else(|| Err(no_vault(root)), Ok)?;
    vault_file::parse(&bytes).map_err(|e| match e {
        FormatError::Magic => Error::NotAVault { found: "vault.json is another program's".to_owned() },
        e => Error::damaged(VAULT_JSON, e),
    })
}

fn no_vault(root: &Arc<dyn Dir>) -> Error {
    match init::inspect(root) {
        Err(e) => e,
        Ok(Found::KilledInit) => Error::KilledInit { left: init::leftovers(root) },
        Ok(Found::Empty) => Error::NotAVault { found: "an empty directory".to_owned() },
        Ok(Found::NotEmpty(names)) => {
            Error::NotAVault { found: format!("no vault.json, but {}", names.join(", ")) }
        }
        Ok(Found::Vault) => Error::NotAVault { found: "vault.json came just now".to_owned() },
    }
}

/// The log's lines, each ended by a newline.
fn lines(log: &[u8]) -> Result<impl Iterator<Item = &[u8]>> {
    let count = log.iter().filter(|b| **b == b'\n').count() as u64;
    let whole = match log {
        [] => &[][..],
        [whole @ .., b'\n'] => whole,
        _ => return Err(Error::ChainBroken { line: count.saturating_add(1), why: "cut short".to_owned() }),
    };
    let any = !log.is_empty();
    Ok(whole.split(|b| *b == b'\n').filter(move |_| any))
}

fn read_state(custody: &Arc<dyn Dir>, n: u64) -> Result<State> {
    let name = layout::state_name(n);
    let object = format!("custody/{name}");
    let bytes = layout::read(custody, &name, &object, OBJECT_MAX)?;
    State::parse(&bytes).map_err(|e| Error::damaged(object, e))
}

fn broken(line: u64, why: FormatError) -> Error {
    match why {
        FormatError::Version(version) => {
            Error::UnknownVersion { object: format!("custody/audit.log line {line}"), version }
        }
        why => Error::ChainBroken { line, why: why.to_string() },
    }
}
