//! The chain of custody, verified from the genesis on.
//!
//! The vault id is the hash of the genesis; line n of the audit log names the hash of line n-1 (the
//! vault id for the first) and of state n, and m custodians of the state before signed its request.
//! So whoever knows the vault id can verify the whole chain, and nothing else in it is trusted.

pub mod history;
mod load;
#[cfg(test)]
mod tests;

pub(crate) use self::load::Mark;

use std::collections::HashSet;

use runvault_crypto::envelope::KemPublic;
use runvault_format::audit_entry::Line;
use runvault_format::custody_state::{Epoch, GatewayEntry, ReaderEntry, State};
use runvault_format::ids::{Digest, IdentityId, RunId, VaultId};
use runvault_format::public_key::PublicKey;
pub use runvault_format::request::Head;
use runvault_format::words;
use runvault_vault::authority::{GatewayKey, Last, StateRef, Until};

/// A chain whose every line and state was verified. Only [`Chain::load`] makes one.
#[derive(Clone, Debug)]
pub struct Chain {
    vault: VaultId,
    /// Hash of each line.
    lines: Vec<Digest>,
    /// The log's bytes, which the next line follows.
    log: Vec<u8>,
    state: State,
    state_hash: Digest,
    /// The state's last epoch.
    current: Epoch,
    /// Gateways that do what only the maker of a run may; `None`: add to any run.
    admitted: HashSet<(IdentityId, Option<RunId>)>,
}

impl Chain {
    /// SHA-256 of the genesis.
    pub fn vault_id(&self) -> VaultId {
        self.vault
    }

    /// Twelve words of the vault id, separated by spaces.
    pub fn words(&self) -> String {
        words::of_vault(&self.vault).join(" ")
    }

    /// The newest line; before the first, 0 and the vault id.
    pub fn head(&self) -> Head {
        match self.lines.last() {
            Some(hash) => Head { n: self.lines.len() as u64, hash: *hash },
            None => Head::start(&self.vault),
        }
    }

    /// Number of the newest epoch.
    pub fn epoch(&self) -> u32 {
        self.current.e
    }

    /// m, and how many custodians there are.
    pub fn quorum(&self) -> (u32, usize) {
        (self.state.quorum.into(), self.state.custodians.len())
    }

    /// Label and id of each custodian.
    pub fn custodians(&self) -> Vec<(String, IdentityId)> {
        self.state.custodians.iter().map(|c| (c.label.clone(), c.id)).collect()
    }

    /// Label and id of a custodian, as messages name it.
    pub(crate) fn shown(&self, custodian: &IdentityId) -> String {
        let label = self.state.custodian(custodian).map_or("someone else", |known| known.label.as_str());
        crate::key_files::shown(label, custodian)
    }

    /// Label and id of each gateway that was ever enrolled.
    pub fn gateways(&self) -> Vec<(String, IdentityId)> {
        self.state.gateways.iter().map(|g| (g.label.clone(), g.id)).collect()
    }

    /// The gateways as they are once this one was let in: what a request says of them.
    pub fn with_gateway(&self, gateway: &PublicKey) -> Vec<GatewayEntry> {
        crate::next_state::with_gateway(self, gateway).gateways
    }

    /// Who reads, and on what terms.
    pub fn reader_terms(&self) -> &[ReaderEntry] {
        &self.state.readers
    }

    /// Label and id of each reader.
    pub fn readers(&self) -> Vec<(String, IdentityId)> {
        self.state.readers.iter().map(|r| (r.label.clone(), r.id)).collect()
    }

    /// An enrolled gateway, and up to where its chains count if they were ended.
    pub fn gateway_key(&self, id: &IdentityId) -> Option<GatewayKey> {
        let gateway = self.state.gateway(id)?;
        let until = gateway.until.as_ref().map(|until| Until {
            run: Last { n: until.seq, hash: until.hash },
            seal: Last { n: until.seals, hash: until.seals_hash },
        });
        Some(GatewayKey { sign: gateway.sign, until })
    }

    /// Whether a gateway was admitted to a run of another one; `None`: to add to any.
    pub fn is_admitted(&self, gateway: &IdentityId, run: Option<&RunId>) -> bool {
        self.admitted.contains(&(*gateway, run.copied()))
    }

    /// Number and hash of the newest state.
    pub fn state_ref(&self) -> StateRef {
        StateRef { n: self.state.n, hash: self.state_hash.0 }
    }

    /// The newest epoch and its public key.
    pub(crate) fn sealed_to(&self) -> (u32, KemPublic) {
        (self.current.e, self.current.kem.clone())
    }

    /// Readers of every run, whose time is not over at `now`.
    pub(crate) fn standing_readers(&self, now: &str) -> Vec<(IdentityId, KemPublic)> {
        let lasts = |expires: &Option<String>| expires.as_deref().is_none_or(|at| now < at);
        let standing = self.state.readers.iter().filter(|r| r.standing && lasts(&r.expires));
        standing.map(|r| (r.id, r.kem.clone())).collect()
    }

    /// Hash of line `n`, the vault id for 0; `None` past the end.
    pub fn line_hash(&self, n: u64) -> Option<Digest> {
        match n.checked_sub(1) {
            None => Some(Digest(self.vault.0)),
            Some(i) => self.lines.get(usize::try_from(i).ok()?).copied(),
        }
    }

    /// Number of the line that executed the request of this hash.
    pub fn line_of(&self, request: &Digest) -> Option<u64> {
        let lines = self.log.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let is = |line: &[u8]| {
            Line::parse(line).and_then(|line| line.executed.request.hash()).as_ref() == Ok(request)
        };
        lines.zip(1..).find(|(line, _)| is(line)).map(|(_, n)| n)
    }

    /// The newest state.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Its last epoch.
    pub(crate) fn current(&self) -> &Epoch {
        &self.current
    }

    /// The newest state's place in the store.
    pub(crate) fn state_object(&self) -> String {
        format!("custody/state-{}", self.state.n)
    }

    /// The audit log as it was read.
    pub(crate) fn log(&self) -> &[u8] {
        &self.log
    }
}
