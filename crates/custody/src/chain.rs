//! The chain of custody, verified from the genesis on.
//!
//! The vault id is the hash of the genesis; line n of the audit log names the hash of line n-1 (the
//! vault id for the first) and of state n, and m custodians of the state before signed its request.
//! So whoever knows the vault id can verify the whole chain, and nothing else in it is trusted.

pub(crate) mod copy;
pub mod history;
mod load;
#[cfg(test)]
mod tests;

pub(crate) use self::load::Mark;

use std::collections::{BTreeMap, BTreeSet};

use runvault_crypto::envelope::KemPublic;
use runvault_format::audit_entry::{Executed, Line};
use runvault_format::custody_state::{self, Epoch, Machine, ReaderEntry, State};
use runvault_format::envelope_file::EnvelopeName;
use runvault_format::ids::{Digest, IdentityId, RunId, VaultId};
use runvault_format::operation::Operation;
use runvault_format::public_key::PublicKey;
use runvault_format::removed::GoneRun;
use runvault_format::replacement::Replacement;
pub use runvault_format::request::Head;
use runvault_format::words;
use runvault_vault::authority::{Admission, GatewayKey, Last, StateRef, Until};

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
    /// Gateways that do what only the maker of a run may, and where that was ended; `None`: add to any run.
    admitted: BTreeMap<(IdentityId, Option<RunId>), Option<Until>>,
    /// Readers that there are, or ever were.
    added: BTreeSet<IdentityId>,
    /// The last line that names a reader and a run, and whether it grants that or takes it away.
    granted: BTreeMap<(IdentityId, RunId), (u64, bool)>,
    /// Runs that replace others, by their ids.
    replacements: BTreeMap<RunId, Replacement>,
    /// The first run of each of those.
    firsts: BTreeMap<RunId, RunId>,
    /// By a first run, all that stand for it, in the order of their lines.
    generations: BTreeMap<RunId, Vec<RunId>>,
    /// Runs that are not missed.
    gone: BTreeMap<RunId, GoneRun>,
    /// The line by which custody/ was made anew last.
    recovered: Option<u64>,
    /// The line by which runs were re-keyed last.
    rekeyed: Option<u64>,
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
        name_of(&self.state, custodian)
    }

    /// Label and id of each gateway that was ever enrolled.
    pub fn gateways(&self) -> Vec<(String, IdentityId)> {
        self.state.gateways.iter().map(|g| (g.label.clone(), g.id)).collect()
    }

    /// A gateway that asks to be let in, under a label that no other has.
    pub fn machine(&self, gateway: &PublicKey) -> Machine {
        let taken = |label: &str| self.state.gateways.iter().any(|g| g.label == label);
        let numbered = (2..).map(|n: u32| format!("{}-{n}", gateway.label));
        let label = std::iter::once(gateway.label.clone()).chain(numbered).find(|label| !taken(label));
        Machine::new(label.as_deref().unwrap_or(&gateway.label), &gateway.keys())
    }

    /// The text of each line.
    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.log.split(|b| *b == b'\n').filter(|line| !line.is_empty())
    }

    /// What each line behind line `n` says.
    pub(crate) fn executed_behind(&self, n: u64) -> impl Iterator<Item = Executed> {
        let behind = self.texts().skip(usize::try_from(n).unwrap_or(usize::MAX));
        behind.filter_map(|line| Some(Line::parse(line).ok()?.executed))
    }

    /// The operations of the lines behind line `n`.
    pub(crate) fn acts_behind(&self, n: u64) -> Vec<Operation> {
        self.executed_behind(n).map(|line| line.request.op).collect()
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
        let until = gateway.until.as_ref().map(until_of);
        Some(GatewayKey { sign: gateway.sign, until })
    }

    /// Whether the newest state names that gateway, without an end to its chain.
    pub fn is_enrolled(&self, gateway: &IdentityId) -> bool {
        self.gateway_key(gateway).is_some_and(|known| known.until.is_none())
    }

    /// That a gateway was admitted to a run of another one; `None`: to add to any.
    pub fn admission(&self, gateway: &IdentityId, run: Option<&RunId>) -> Option<Admission> {
        self.admitted.get(&(*gateway, run.copied())).map(|until| Admission { until: *until })
    }

    /// Whether that was not ended.
    pub fn is_admitted(&self, gateway: &IdentityId, run: Option<&RunId>) -> bool {
        self.admission(gateway, run).is_some_and(|admission| admission.until.is_none())
    }

    /// What a gateway is admitted to: to every run before single ones.
    pub fn admissions(&self, gateway: &IdentityId) -> Vec<Option<RunId>> {
        let all = self.admitted.iter().filter(|((of, _), until)| of == gateway && until.is_none());
        all.map(|((_, run), _)| *run).collect()
    }

    /// Whether a run was granted to a reader or taken from it, by the last line that names that reader and one of the
    /// run's [`Chain::family`]: they are one run under several keys. `None`: there is none.
    pub(crate) fn granted(&self, reader: &IdentityId, run: &RunId) -> Option<bool> {
        let said = self.family(run).filter_map(|run| self.granted.get(&(*reader, *run)));
        said.max().map(|(_, granted)| *granted)
    }

    /// A run, those that it replaces and those that replace it or one of these.
    pub(crate) fn family<'a>(&'a self, run: &'a RunId) -> impl Iterator<Item = &'a RunId> {
        let first = self.firsts.get(run).unwrap_or(run);
        std::iter::once(first).chain(self.generations.get(first).into_iter().flatten())
    }

    /// What a line says of a run that replaces another.
    fn take_replacement(&mut self, said: &Replacement) {
        let first = *self.firsts.get(&said.run).unwrap_or(&said.run);
        self.firsts.insert(said.new, first);
        self.generations.entry(first).or_default().push(said.new);
        self.replacements.insert(said.new, said.clone());
    }

    /// What the log says of a run that replaces another.
    pub fn replacement(&self, new: &RunId) -> Option<&Replacement> {
        self.replacements.get(new)
    }

    /// All that the log says of runs that replace others.
    pub fn replacements(&self) -> impl Iterator<Item = &Replacement> {
        self.replacements.values()
    }

    /// Runs that are to replace, or have replaced, one.
    pub fn replaced_by<'a>(&'a self, old: &'a RunId) -> impl Iterator<Item = &'a Replacement> {
        self.replacements.values().filter(move |one| one.run == *old)
    }

    /// Whether the log says that a run replaces that one, or one that does.
    pub fn stands_for(&self, new: &RunId, old: &RunId) -> bool {
        let mut at = *new;
        for _ in 0..=self.replacements.len() {
            let Some(said) = self.replacements.get(&at) else { return false };
            if said.run == *old {
                return true;
            }
            at = said.run;
        }
        false
    }

    /// The runs of which it says so.
    pub fn standing_for<'a>(&'a self, old: &'a RunId) -> impl Iterator<Item = &'a RunId> {
        self.family(old).filter(move |new| self.stands_for(new, old))
    }

    /// What a worker makes.
    pub fn work_of<'a>(&'a self, worker: &'a IdentityId) -> impl Iterator<Item = &'a Replacement> {
        self.replacements.values().filter(move |one| one.worker == *worker)
    }

    /// Who may read the last of these runs, which replaces the others, the first of which was sealed when state `sealed_at`
    /// was the newest: nobody gets more than they had. A reader whom a grant names for one of them, or who was a standing
    /// one when it was sealed and is still; in either case if no later revocation names it. Where the state is not one of
    /// this chain, which was lost and made anew from before, nobody knows who was a standing one.
    pub(crate) fn readers_of(
        &self,
        runs_of: &[RunId],
        sealed_at: &StateRef,
        now: &str,
    ) -> Vec<(IdentityId, KemPublic)> {
        let sealed_at = self.has_state(sealed_at).then_some(sealed_at.n);
        let mut reads: BTreeMap<IdentityId, Reads> = BTreeMap::new();
        for (n, op) in (1..).zip(self.acts_behind(0)) {
            let names = |runs: &[RunId]| runs.iter().any(|run| runs_of.contains(run));
            match op {
                Operation::AddReader { reader } => {
                    reads.entry(reader.id).or_default().stands(reader.standing, n)
                }
                Operation::RemoveReader { reader } => _ = reads.remove(&reader),
                Operation::Grant { reader, runs } if names(&runs) => {
                    reads.entry(reader).or_default().said = Some(true);
                }
                Operation::Revoke { reader, runs } if names(&runs) => {
                    reads.entry(reader).or_default().said = Some(false);
                }
                _ => {}
            }
        }
        let known = self.state.readers.iter().filter(|reader| reader.lasts(now));
        let may = |reader: &&ReaderEntry| reads.get(&reader.id).is_some_and(|reads| reads.may(sealed_at));
        known.filter(may).map(|reader| (reader.id, reader.kem.clone())).collect()
    }

    /// Whether line n made that state; of state 0, which has no readers, no line tells.
    fn has_state(&self, state: &StateRef) -> bool {
        let line = state.n.checked_sub(1).and_then(|before| self.executed_behind(before).next());
        let made = line.and_then(|line| line.result.state);
        made == Some(state.hash)
    }

    /// Those of a run's envelopes of which no line of the log names, now or once, whom they are for. Where custody/ was made
    /// anew such lines may be lost: of a run that was made before, by the state that its run.json names, any is known.
    pub(crate) fn unknown_recipients(
        &self,
        run: &RunId,
        made: &StateRef,
        of: &[EnvelopeName],
    ) -> Vec<EnvelopeName> {
        if self.recovered.is_some_and(|line| made.n < line || !self.has_state(made)) {
            return Vec::new();
        }
        let known = |of: &EnvelopeName| match of {
            EnvelopeName::Vault(e) => (1..=self.epoch()).contains(e),
            EnvelopeName::Reader(id) => self.added.contains(id),
            EnvelopeName::Worker(id) => self.work_of(id).any(|work| [work.run, work.new].contains(run)),
        };
        of.iter().filter(|of| !known(of)).copied().collect()
    }

    /// Runs that lines of the log say are not missed.
    pub(crate) fn gone(&self) -> &BTreeMap<RunId, GoneRun> {
        &self.gone
    }

    /// The newest line that says that custody/ was lost, and made anew.
    pub fn recovered(&self) -> Option<u64> {
        self.recovered
    }

    /// The newest line that names runs that replace others: without it nobody reads those.
    pub fn rekeyed(&self) -> Option<u64> {
        self.rekeyed
    }

    /// What a line of the log says of readers, admissions, single runs, runs that go, a custody/ that was made anew.
    fn take_word(&mut self, op: &Operation) {
        let line = self.head().n.saturating_add(1);
        match op {
            Operation::Grant { reader, runs } => {
                self.granted.extend(runs.iter().map(|run| ((*reader, *run), (line, true))));
            }
            Operation::Revoke { reader, runs } => {
                self.granted.extend(runs.iter().map(|run| ((*reader, *run), (line, false))));
            }
            Operation::AddReader { reader } => _ = self.added.insert(reader.id),
            Operation::Recover { .. } => self.recovered = Some(line),
            Operation::Rekey { .. } => self.rekeyed = Some(line),
            Operation::Retire { runs } => {
                self.gone.extend(runs.iter().map(|gone| (gone.run, gone.clone())));
            }
            Operation::AdmitGateway { gateway, run } => _ = self.admitted.insert((*gateway, *run), None),
            Operation::DismissGateway { gateway, run, until } => {
                let meant =
                    |of: &IdentityId, to: &Option<RunId>| of == gateway && (run.is_none() || to == run);
                let open = self.admitted.iter_mut().filter(|((of, to), end)| end.is_none() && meant(of, to));
                open.for_each(|(_, end)| *end = Some(until_of(until)));
            }
            _ => {}
        }
    }

    /// Number and hash of the newest state.
    pub fn state_ref(&self) -> StateRef {
        StateRef { n: self.state.n, hash: self.state_hash }
    }

    /// The newest epoch and its public key.
    pub(crate) fn sealed_to(&self) -> (u32, KemPublic) {
        (self.current.e, self.current.kem.clone())
    }

    /// Readers of every run, whose time is not over at `now`.
    pub(crate) fn standing_readers(&self, now: &str) -> Vec<(IdentityId, KemPublic)> {
        let standing = self.state.readers.iter().filter(|r| r.standing && r.lasts(now));
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
        let is = |line: &[u8]| {
            Line::parse(line).and_then(|line| line.executed.request.hash()).as_ref() == Ok(request)
        };
        self.texts().zip(1..).find(|(line, _)| is(line)).map(|(_, n)| n)
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

/// What the log says of a reader and a run.
#[derive(Default)]
struct Reads {
    /// The line since which it is a standing one.
    standing: Option<u64>,
    /// Granted or revoked, whichever was last.
    said: Option<bool>,
}

impl Reads {
    fn stands(&mut self, standing: bool, n: u64) {
        self.standing = standing.then(|| self.standing.unwrap_or(n));
    }

    fn may(&self, sealed_at: Option<u64>) -> bool {
        let standing = || self.standing.zip(sealed_at).is_some_and(|(since, sealed)| since <= sealed);
        self.said.unwrap_or_else(standing)
    }
}

fn until_of(until: &custody_state::Until) -> Until {
    Until {
        run: Last { n: until.seq, hash: until.hash },
        seal: Last { n: until.seals, hash: until.seals_hash },
    }
}

/// Label and id of a custodian of a state.
pub(crate) fn name_of(state: &State, custodian: &IdentityId) -> String {
    let label = state.custodian(custodian).map_or("someone else", |known| known.label.as_str());
    crate::key_files::shown(label, custodian)
}
