//! From the bytes in custody/ to a [`Chain`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use runvault_format::Error as FormatError;
use runvault_format::audit_entry::Line;
use runvault_format::custody_state::State;
use runvault_format::genesis::Genesis;
use runvault_format::ids::VaultId;
use runvault_format::vault_file;
use runvault_store::backend::{Access, Dir, Stat, Time};

use super::Chain;
use crate::claim;
use crate::init::{self, Found};
use crate::layout::{self, AUDIT_LOG, GENESIS, INIT_MARKER, LOG_MAX, OBJECT_MAX, VAULT_JSON};
use crate::{Error, Result};

/// What tells, without reading, that nothing was added to custody/: the log grows with each line, and a line
/// that is not in it yet has a file of its own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    head: u64,
    log: Option<Seen>,
    claim: Option<Seen>,
}

/// Inode number, size and last change.
type Seen = (u64, u64, Time);

impl Mark {
    /// Of what may follow line `head`.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn read(root: &Arc<dyn Dir>, head: u64) -> Result<Self> {
        let custody = layout::custody_dir(root)?;
        let is_there = |name: &str, stat: io::Result<Stat>| match stat {
            Ok(stat) => Ok(Some((stat.ino, stat.size, stat.mtime))),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(Error::io("open", format!("custody/{name}"), e)),
        };
        // A client of a share asks its server when a file is opened; a `stat` it may answer from what it was told before.
        let opened = custody.open_file(AUDIT_LOG.as_bytes(), Access::Read).and_then(|log| log.stat());
        let log = is_there(AUDIT_LOG, opened)?;
        let claim = claim::name(head.saturating_add(1));
        Ok(Self { head, log, claim: is_there(&claim, custody.stat(claim.as_bytes()))? })
    }
}

impl Chain {
    /// Reads custody/ and verifies everything from the genesis on.
    ///
    /// # Errors
    /// [`Error::NotAVault`], [`Error::KilledInit`], [`Error::UnknownVersion`],
    /// [`Error::ChainBroken`] with the line, [`Error::Damaged`].
    pub fn load(root: &Arc<dyn Dir>) -> Result<Chain> {
        let named = vault_named(root)?;
        let custody = layout::custody_dir(root)?;
        let zero = genesis_state(&custody)?;
        if zero.vault != named {
            let why = format!("names vault {named}, custody/genesis is that of {}", zero.vault);
            return Err(Error::Damaged { object: VAULT_JSON.to_owned(), why });
        }
        let mut chain = Self::start(zero.clone())?;
        let log = layout::read(&custody, AUDIT_LOG, "custody/audit.log", LOG_MAX)?;
        for line in lines(&log)? {
            chain.follow(&custody, line)?;
        }
        chain.take_claimed(&custody)?;
        chain.take_first_envelopes(&custody, &zero)?;
        Ok(chain)
    }

    /// The chain with what was added to custody/ since it was read; `None`: nothing was.
    ///
    /// # Errors
    /// [`Error::Forked`] where the log does not begin with the lines that were read; as [`Chain::load`].
    pub(crate) fn continued(&self, root: &Arc<dyn Dir>) -> Result<Option<Chain>> {
        let custody = layout::custody_dir(root)?;
        let log = layout::read(&custody, AUDIT_LOG, "custody/audit.log", LOG_MAX)?;
        let mut chain = self.clone();
        // Less than was read before says nothing: somebody's late copy, until the lines are put back.
        if !self.log().starts_with(&log) {
            let added = log.strip_prefix(self.log()).ok_or(Error::Forked { line: self.head().n })?;
            for line in lines(added)? {
                chain.follow(&custody, line)?;
            }
        }
        chain.take_claimed(&custody)?;
        Ok((chain.head().n > self.head().n).then_some(chain))
    }

    /// Lines that were claimed and are not in the log yet.
    fn take_claimed(&mut self, custody: &Arc<dyn Dir>) -> Result<()> {
        while self.take_next_claimed(custody)? {}
        Ok(())
    }

    /// The next of them; `false`: there is none.
    pub(super) fn take_next_claimed(&mut self, custody: &Arc<dyn Dir>) -> Result<bool> {
        let n = self.head().n.saturating_add(1);
        let Some(claim) = claim::read(custody, n)? else { return Ok(false) };
        let damaged = |e| Error::damaged(claim::object(n), e);
        let line = Line::parse(claim.line()).map_err(damaged)?;
        let state = State::parse(claim.state()).map_err(damaged)?;
        self.append(&line, claim.line(), Some(state))?;
        Ok(true)
    }

    /// The chain of no line.
    pub(super) fn start(zero: State) -> Result<Chain> {
        let (state_hash, current) = (zero.hash()?, zero.current()?.clone());
        let (lines, log) = (Vec::new(), Vec::new());
        let (admitted, granted, gone) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Chain {
            vault: zero.vault,
            lines,
            log,
            state: zero,
            state_hash,
            current,
            admitted,
            added: BTreeSet::new(),
            granted,
            replacements: BTreeMap::new(),
            firsts: BTreeMap::new(),
            generations: BTreeMap::new(),
            gone,
            recovered: None,
            rekeyed: None,
        })
    }

    /// The envelopes of epoch 1 lie in `custody/state-0`, which no line names. Later states carry them
    /// over, so that its loss matters only before the first line; damage is named all the same.
    pub(super) fn take_first_envelopes(&mut self, custody: &Arc<dyn Dir>, zero: &State) -> Result<()> {
        let name = layout::state_name(0);
        let object = format!("custody/{name}");
        let Some(stored) = layout::read_if_there(custody, &name, &object, OBJECT_MAX)? else { return Ok(()) };
        let stored = zero.take_envelopes(&stored).map_err(|e| Error::damaged(object.clone(), e))?;
        let first = stored.current()?.clone();
        if self.state.n == 0 {
            (self.state, self.current) = (stored, first);
        } else if self.current.made == first.made && self.current.shares != first.shares {
            let why = "its envelopes are not those that later states carry".to_owned();
            return Err(Error::Damaged { object, why });
        }
        Ok(())
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
        if line.executed.result.runs.iter().any(|one| self.replacements.contains_key(&one.new)) {
            return Err(broken(head.n.saturating_add(1), FormatError::Chain("a run was named before")));
        }
        let next = line
            .verify(&head, &self.state, state.as_ref())
            .map_err(|e| broken(head.n.saturating_add(1), e))?;
        if let Some(state) = state {
            self.state_hash = state.hash()?;
            self.current = state.current()?.clone();
            self.state = state;
        }
        self.take_word(&line.executed.request.op);
        line.executed.result.runs.iter().for_each(|said| self.take_replacement(said));
        self.lines.push(next.hash);
        self.log.extend_from_slice(text);
        self.log.push(b'\n');
        Ok(())
    }
}

/// State 0, computed: without its envelopes.
pub(super) fn genesis_state(custody: &Arc<dyn Dir>) -> Result<State> {
    let (genesis, vault) = genesis(custody)?;
    Ok(State::zero(&genesis, vault))
}

pub(super) fn genesis(custody: &Arc<dyn Dir>) -> Result<(Genesis, VaultId)> {
    let object = "custody/genesis";
    let bytes = layout::read(custody, GENESIS, object, OBJECT_MAX)?;
    Genesis::parse(&bytes).map_err(|e| Error::damaged(object, e))
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
    let genesis = layout::custody_dir(root).and_then(|dir| layout::exists(&dir, GENESIS, "custody/genesis"));
    let marked = layout::exists(root, INIT_MARKER, INIT_MARKER);
    if matches!((genesis, marked), (Ok(true), Ok(false))) {
        return Error::Damaged { object: VAULT_JSON.to_owned(), why: "missing".to_owned() };
    }
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
pub(super) fn lines(log: &[u8]) -> Result<impl Iterator<Item = &[u8]>> {
    let count = log.iter().filter(|b| **b == b'\n').count() as u64;
    let whole = match log {
        [] => &[][..],
        [whole @ .., b'\n'] => whole,
        _ => return Err(Error::ChainBroken { line: count.saturating_add(1), why: "cut short".to_owned() }),
    };
    let any = !log.is_empty();
    Ok(whole.split(|b| *b == b'\n').filter(move |_| any))
}

pub(super) fn read_state(custody: &Arc<dyn Dir>, n: u64) -> Result<State> {
    let name = layout::state_name(n);
    let object = format!("custody/{name}");
    let bytes = layout::read(custody, &name, &object, OBJECT_MAX)?;
    State::parse(&bytes).map_err(|e| Error::damaged(object, e))
}

pub(super) fn broken(line: u64, why: FormatError) -> Error {
    match why {
        FormatError::Version(version) => {
            Error::UnknownVersion { object: format!("custody/audit.log line {line}"), version }
        }
        why => Error::ChainBroken { line, why: why.to_string() },
    }
}
