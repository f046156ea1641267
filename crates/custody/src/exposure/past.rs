//! What the audit log says of one key, and what a run says of who it was sealed to.

use std::collections::BTreeMap;
use std::sync::Arc;

use runvault_format::audit_entry::Line;
use runvault_format::custody_state::State;
use runvault_format::descriptor::{RunDescriptor, StateRef};
use runvault_format::envelope_file::EnvelopeName;
use runvault_format::ids::{Digest, IdentityId, RunId};
use runvault_format::operation::Operation;
use runvault_format::replacement::Replacement;
use runvault_format::seal_note::SealNote;
use runvault_store::backend::Dir;
use runvault_vault::authority::Authority;
use runvault_vault::{runs, seal};

use super::{As, Exposed, Opens, Role};
use crate::chain::Chain;
use crate::chain::history::walk;
use crate::{Error, Result, layout};

/// What a key was in one state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Part {
    /// Whether every new run is sealed to it, and until when it reads.
    reader: Option<(bool, Option<String>)>,
    /// The epoch that it has a share of, and the quorum.
    share: Option<(u32, u8)>,
    /// Whether its word counts.
    gateway: bool,
}

/// What a line says of single runs.
struct Word {
    n: u64,
    time: String,
    run: RunId,
    granted: bool,
}

/// The key's past, state by state.
pub(super) struct Past {
    key: IdentityId,
    pub(super) label: Option<String>,
    pub(super) roles: Vec<Role>,
    /// From state 0 on, with the time of its line.
    states: Vec<(String, Part)>,
    /// Their hashes.
    hashes: Vec<Digest>,
    words: Vec<Word>,
    /// Runs of other machines that it was admitted to, and when.
    admitted: Vec<(RunId, String)>,
    /// When each epoch was made, by its number.
    epochs: Vec<(u32, String)>,
    /// Runs that replace others.
    rekeyed: BTreeMap<RunId, Rekeyed>,
}

/// What the log says of a run that replaces another.
struct Rekeyed {
    /// That one.
    run: RunId,
    worker: IdentityId,
    /// The line, and when.
    n: u64,
    time: String,
    state: StateRef,
    epoch: u32,
}

/// What a run was sealed to, as far as can be told without a key.
#[derive(Clone)]
pub(super) struct Sealed {
    pub(super) run: RunId,
    /// Its maker, when, under which state and epoch; `None`: what is signed about it cannot be read.
    made: Option<(IdentityId, String, StateRef, u32)>,
    /// Who sealed it, when, under which state.
    sealed: Option<(IdentityId, String, StateRef)>,
    /// Whether there is an envelope to the key.
    to_key: bool,
    /// Epochs of the envelopes that are there.
    epochs: Vec<u32>,
    /// The runs that it replaces, the newest first.
    replaces: Vec<RunId>,
    /// The run in whose place it stands, as that was made and sealed first: without envelopes, in old copies alone.
    pub(super) first: Option<Box<Sealed>>,
}

impl Past {
    pub(super) fn read(root: &Arc<dyn Dir>, key: &IdentityId) -> Result<Self> {
        let mut past = Self {
            key: *key,
            label: None,
            roles: Vec::new(),
            states: Vec::new(),
            hashes: Vec::new(),
            words: Vec::new(),
            admitted: Vec::new(),
            epochs: Vec::new(),
            rekeyed: BTreeMap::new(),
        };
        let created = walk(root, |before, after, line| {
            if past.states.is_empty() {
                past.take(before, "")?;
            }
            past.take(after.state(), &line.executed.time)?;
            past.take_word(after.head().n, &line.executed.time, &line.executed.request.op);
            past.take_rekeyed(after, line);
            Ok(())
        })?;
        if past.states.is_empty() {
            past.take(Chain::load(root)?.state(), "")?;
        }
        let firsts = past.states.first_mut().map(|(time, _)| time).into_iter();
        for first in firsts.chain(past.epochs.first_mut().map(|(_, time)| time)) {
            first.clone_from(&created);
        }
        past.roles = past.told();
        Ok(past)
    }

    fn take(&mut self, state: &State, time: &str) -> Result<()> {
        let (reader, custodian) = (state.reader(&self.key), state.custodian(&self.key));
        let gateway = state.gateway(&self.key);
        let label = reader.map(|r| &r.label).or(custodian.map(|c| &c.label)).or(gateway.map(|g| &g.label));
        self.label = label.cloned().or(self.label.take());
        let epoch = state.epochs.last().map_or(0, |epoch| epoch.e);
        if self.epochs.last().is_none_or(|(e, _)| *e != epoch) {
            self.epochs.push((epoch, time.to_owned()));
        }
        let part = Part {
            reader: reader.map(|r| (r.standing, r.expires.clone())),
            share: custodian.map(|_| (epoch, state.quorum)),
            gateway: gateway.is_some_and(|g| g.until.is_none()),
        };
        self.states.push((time.to_owned(), part));
        self.hashes.push(state.hash()?);
        Ok(())
    }

    fn take_word(&mut self, n: u64, time: &str, op: &Operation) {
        let (reader, runs, granted) = match op {
            Operation::Grant { reader, runs } => (reader, runs, true),
            Operation::Revoke { reader, runs } => (reader, runs, false),
            Operation::AdmitGateway { gateway, run: Some(run) } if *gateway == self.key => {
                return self.admitted.push((*run, time.to_owned()));
            }
            _ => return,
        };
        if *reader == self.key {
            let word = |run: &RunId| Word { n, time: time.to_owned(), run: *run, granted };
            self.words.extend(runs.iter().map(word));
        }
    }

    fn take_rekeyed(&mut self, after: &Chain, line: &Line) {
        let state = after.state_ref();
        let said = |one: &Replacement| Rekeyed {
            run: one.run,
            worker: one.worker,
            n: after.head().n,
            time: line.executed.time.clone(),
            state,
            epoch: after.epoch(),
        };
        self.rekeyed.extend(line.executed.result.runs.iter().map(|one| (one.new, said(one))));
    }

    /// The parts that it had, one after the other.
    fn told(&self) -> Vec<Role> {
        type Told = fn(&Part) -> Option<String>;
        let kinds: [Told; 3] = [
            |part| {
                let (standing, expires) = part.reader.as_ref()?;
                let kind = if *standing { "standing reader" } else { "reader" };
                Some(expires.as_ref().map_or(kind.to_owned(), |at| format!("{kind} until {at}")))
            },
            |part| {
                let (epoch, quorum) = part.share?;
                Some(format!("custodian, a share of vault key {epoch}, quorum {quorum}"))
            },
            |part| part.gateway.then(|| "gateway".to_owned()),
        ];
        let mut roles = Vec::new();
        for told in kinds {
            let mut open: Option<Role> = None;
            for ((time, part), n) in self.states.iter().zip(0..) {
                let what = told(part);
                if open.as_ref().map(|role| &role.what) == what.as_ref() {
                    continue;
                }
                if let Some(mut role) = open.take() {
                    role.to = Some((n, time.clone()));
                    roles.push(role);
                }
                open = what.map(|what| Role { what, from: (n, time.clone()), to: None });
            }
            roles.extend(open);
        }
        roles.sort_by_key(|role| role.from.0);
        roles
    }

    /// Runs that were granted to it by name.
    pub(super) fn granted(&self) -> impl Iterator<Item = &RunId> {
        self.words.iter().filter(|word| word.granted).map(|word| &word.run)
    }

    /// A run that is in the store no more: nothing signed about it can be read.
    pub(super) fn gone(&self, run: &RunId, now: &str) -> Vec<Exposed> {
        self.of_run(&self.as_rekeyed(Sealed::without_envelopes(*run, None, None)), now)
    }

    /// What the log knows better of a run that replaces others: who made it and when.
    pub(super) fn as_rekeyed(&self, sealed: Sealed) -> Sealed {
        let Some(line) = self.rekeyed.get(&sealed.run) else { return sealed };
        let mut replaces = vec![line.run];
        // Whoever executes a line chooses ids: they may lead in a circle.
        for _ in 0..self.rekeyed.len() {
            let Some(before) = replaces.last().and_then(|run| self.rekeyed.get(run)) else { break };
            replaces.push(before.run);
        }
        let made = Some((line.worker, line.time.clone(), line.state, line.epoch));
        Sealed { made, replaces, ..sealed }
    }

    /// The runs that stood between one and the first, which are gone.
    pub(super) fn between(&self, sealed: &Sealed) -> Vec<Sealed> {
        let between = sealed.replaces.split_last().map(|(_, between)| between).unwrap_or_default();
        let one = |run: &RunId| {
            let first = sealed.first.clone();
            self.as_rekeyed(Sealed { first, ..Sealed::without_envelopes(*run, None, None) })
        };
        between.iter().map(one).collect()
    }

    /// Every way in which the key could have opened the run.
    pub(super) fn of_run(&self, sealed: &Sealed, now: &str) -> Vec<Exposed> {
        let created = self.states.first().map_or(now, |(time, _)| time.as_str());
        let mut found: Vec<Exposed> = self.as_reader(sealed, created).into_iter().collect();
        found.extend(self.as_custodian(sealed, created));
        found.extend(self.as_gateway(sealed));
        found
    }

    /// Whether a run that a gateway made or sealed under that state at `time` was sealed to it. Of a state that this
    /// chain does not have, such as one that was lost with an older custody/, it was where it ever could be.
    fn stands(&self, state: &StateRef, time: &str) -> bool {
        let at = usize::try_from(state.n).ok().filter(|_| self.has(state));
        let Some((_, part)) = at.and_then(|at| self.states.get(at)) else { return self.ever_stood() };
        match &part.reader {
            Some((true, expires)) => expires.as_ref().is_none_or(|at| time < at.as_str()),
            _ => false,
        }
    }

    fn ever_stood(&self) -> bool {
        self.states.iter().any(|(_, part)| part.reader.as_ref().is_some_and(|(standing, _)| *standing))
    }

    /// A run that replaces others is sealed to whom the log names (docs/format.md, section 8.2), from the line on that says
    /// so.
    fn as_reader_of_rekeyed(&self, sealed: &Sealed, line: &Rekeyed) -> Option<Exposed> {
        let since = usize::try_from(line.n).ok()?;
        let mut reads = (since..self.states.len()).map(|n| (n, self.reads_rekeyed(sealed, n)));
        let first = reads.by_ref().find_map(|(n, why)| Some((n, why?)));
        let ended = reads.find(|(_, why)| why.is_none()).map(|(n, _)| n);
        let time = |n: usize| self.states.get(n).map(|(time, _)| time.clone());
        let (since, why) = match first {
            Some((n, why)) => (time(n)?, why),
            None if sealed.to_key => {
                (line.time.clone(), "its envelope is there, and no line says why".to_owned())
            }
            None => return None,
        };
        let (opens, until) = match sealed.to_key {
            true => (Opens::Now, None),
            false => (Opens::Then, ended.and_then(time)),
        };
        Some(Exposed { run: sealed.run, opens, by: As::Reader, since, until, why })
    }

    /// Why a run that replaces others is sealed to the key by line `n`.
    fn reads_rekeyed(&self, sealed: &Sealed, n: usize) -> Option<String> {
        let reader =
            |n: &usize| self.states.get(*n).and_then(|(time, part)| Some((time, part.reader.as_ref()?)));
        let (time, (_, expires)) = reader(&n)?;
        if expires.as_ref().is_some_and(|at| at <= time) {
            return None;
        }
        let let_in = (0..=n).rev().take_while(|n| reader(n).is_some()).last()? as u64;
        let names = |word: &&Word| word.run == sealed.run || sealed.replaces.contains(&word.run);
        let in_time = |word: &&Word| (let_in..=n as u64).contains(&word.n);
        if let Some(last) = self.words.iter().filter(names).rfind(in_time) {
            return last.granted.then(|| format!("line {}: granted", last.n));
        }
        let standing = |n: &usize| reader(n).is_some_and(|(_, (standing, _))| *standing);
        let since = (0..=n).rev().take_while(standing).last()?;
        let stood = match sealed.first.as_ref().and_then(|first| first.sealed.as_ref()) {
            Some((_, at, state)) => self.stands(state, at) && (since as u64 <= state.n || !self.has(state)),
            None => true,
        };
        stood.then(|| "a standing reader since before its content was sealed first".to_owned())
    }

    fn has(&self, state: &StateRef) -> bool {
        let known = usize::try_from(state.n).ok().and_then(|n| self.hashes.get(n));
        known == Some(&state.hash)
    }

    fn as_reader(&self, sealed: &Sealed, created: &str) -> Option<Exposed> {
        if let Some(line) = self.rekeyed.get(&sealed.run) {
            return self.as_reader_of_rekeyed(sealed, line);
        }
        let mut starts: Vec<(String, String)> = Vec::new();
        match &sealed.made {
            Some((_, at, state, _)) if self.stands(state, at) => {
                starts.push((at.clone(), format!("state {}: a standing reader when it was made", state.n)));
            }
            None if self.ever_stood() => {
                starts.push((
                    created.to_owned(),
                    "a standing reader, and when it was made cannot be read".into(),
                ));
            }
            _ => {}
        }
        if let Some((_, at, state)) = sealed.sealed.as_ref().filter(|(_, at, state)| self.stands(state, at)) {
            starts.push((at.clone(), format!("state {}: a standing reader when it was sealed", state.n)));
        }
        let own = self.words.iter().filter(|word| word.run == sealed.run);
        let grants = own.clone().filter(|word| word.granted);
        starts.extend(grants.map(|word| (word.time.clone(), format!("line {}: granted", word.n))));
        starts.sort();
        let first = starts.first().cloned();
        if !sealed.to_key && first.is_none() {
            return None;
        }
        let (since, why) = first.unwrap_or_else(|| {
            let made = sealed.made.as_ref().map(|(_, at, ..)| at.as_str());
            (made.unwrap_or(created).to_owned(), "its envelope is there, and no line says why".to_owned())
        });
        let last = starts.last().map_or(since.as_str(), |(at, _)| at.as_str());
        let ends = own.filter(|word| !word.granted).map(|word| word.time.clone()).chain(self.removals());
        let until = if sealed.to_key { None } else { ends.filter(|at| at.as_str() >= last).min() };
        let opens = if sealed.to_key { Opens::Now } else { Opens::Then };
        Some(Exposed { run: sealed.run, opens, by: As::Reader, since, until, why })
    }

    /// When it stopped being a reader.
    fn removals(&self) -> impl Iterator<Item = String> + '_ {
        self.states.windows(2).filter_map(|pair| match pair {
            [(_, before), (time, after)] if before.reader.is_some() && after.reader.is_none() => {
                Some(time.clone())
            }
            _ => None,
        })
    }

    /// Of the shares that it had, the least others that it takes for this epoch's key, and since when: a later key opens
    /// the earlier ones.
    fn share_of(&self, epoch: u32) -> Option<(u8, &str)> {
        let had = self.states.iter().filter_map(|(time, part)| Some((part.share?, time.as_str())));
        let had = had.filter(|((e, _), _)| *e >= epoch);
        had.map(|((_, quorum), time)| (quorum.saturating_sub(1), time)).min()
    }

    fn as_custodian(&self, sealed: &Sealed, created: &str) -> Vec<Exposed> {
        let opened = sealed.made.as_ref().map_or(created, |(_, at, ..)| at.as_str());
        // One that cannot be read counts as made under the first key.
        let first = sealed.made.as_ref().map_or(1, |(.., epoch)| *epoch);
        let row = |opens, (others, since): (u8, &str), until, why: String| Exposed {
            run: sealed.run,
            opens,
            by: As::Custodian { others },
            since: since.max(opened).to_owned(),
            until,
            why,
        };
        let now = sealed.epochs.iter().filter_map(|e| Some((self.share_of(*e)?, *e))).min();
        let then = self.share_of(first);
        let mut found = Vec::new();
        if let Some((share, e)) = now {
            found.push(row(Opens::Now, share, None, format!("sealed to vault key {e}")));
        }
        if let Some(share) = then.filter(|(others, _)| now.is_none_or(|((least, _), _)| *others < least)) {
            let held = self.states.iter().filter_map(|(_, part)| part.share).map(|(e, _)| e).max();
            let next = self.epochs.iter().find(|(e, _)| Some(*e) > held).map(|(_, at)| at.clone());
            found.push(row(Opens::Then, share, next, format!("made under vault key {first}")));
        }
        found
    }

    /// While a run is open its gateway has the run's key.
    fn as_gateway(&self, sealed: &Sealed) -> Option<Exposed> {
        let Some((maker, opened, ..)) = &sealed.made else { return self.as_any_gateway(sealed) };
        let sealer = sealed.sealed.as_ref().map(|(sealer, ..)| sealer);
        let admitted = self.admitted.iter().find(|(run, _)| *run == sealed.run).map(|(_, since)| since);
        let since = if *maker == self.key || sealer == Some(&self.key) { opened } else { admitted? };
        let until = sealed.sealed.as_ref().map(|(_, at, _)| at.clone());
        let (opens, why) = match until {
            Some(_) => (Opens::Then, "open there until it was sealed"),
            None => (Opens::Now, "open there"),
        };
        Some(Exposed {
            run: sealed.run,
            opens,
            by: As::Gateway,
            since: since.clone(),
            until,
            why: why.to_owned(),
        })
    }

    /// Of a run that whoever was a gateway may have made.
    fn as_any_gateway(&self, sealed: &Sealed) -> Option<Exposed> {
        let (since, _) = self.states.iter().find(|(_, part)| part.gateway)?;
        Some(Exposed {
            run: sealed.run,
            opens: Opens::Then,
            by: As::Gateway,
            since: since.clone(),
            until: None,
            why: "a gateway, and its maker cannot be read".to_owned(),
        })
    }
}

impl Sealed {
    /// What cannot be read says nothing.
    ///
    /// # Errors
    /// The store's, where the names of envelopes cannot be listed.
    pub(super) fn read(
        root: &Arc<dyn Dir>,
        authority: &dyn Authority,
        run: &RunId,
        key: &IdentityId,
    ) -> Result<Self> {
        let made = runs::read_descriptor(root, run, authority).ok().map(|made| made.descriptor);
        let seal = seal::find(root, run, authority).ok().flatten();
        let names = envelopes(root, run)?;
        let epoch = |name: &EnvelopeName| match name {
            EnvelopeName::Vault(e) => Some(*e),
            EnvelopeName::Reader(_) | EnvelopeName::Worker(_) => None,
        };
        let origin = seal.as_ref().and_then(|seal| seal.origin.as_deref());
        let first = origin.and_then(|origin| {
            let run = origin.replaced.last()?;
            Some(Box::new(Self::without_envelopes(*run, Some(&origin.run), Some(&origin.note))))
        });
        Ok(Self {
            to_key: names.contains(&EnvelopeName::Reader(*key)),
            epochs: names.iter().filter_map(epoch).collect(),
            first,
            ..Self::without_envelopes(*run, made.as_deref(), seal.as_ref().map(|seal| &seal.note))
        })
    }

    fn without_envelopes(run: RunId, made: Option<&RunDescriptor>, note: Option<&SealNote>) -> Self {
        Self {
            run,
            made: made.map(|made| (made.signer, made.opened.clone(), made.state, made.epoch)),
            sealed: note.map(|note| (note.gateway, note.sealed.clone(), note.state)),
            to_key: false,
            epochs: Vec::new(),
            replaces: Vec::new(),
            first: None,
        }
    }
}

/// Those beside the run and in its seal.
fn envelopes(root: &Arc<dyn Dir>, run: &RunId) -> Result<Vec<EnvelopeName>> {
    let object = format!("runs/{run}");
    let opened = root.open_dir(b"runs").and_then(|runs| runs.open_dir(run.to_string().as_bytes()));
    let dir = match opened {
        // Removed meanwhile.
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
        dir => dir.map_err(|e| Error::io("open", object.as_str(), e))?,
    };
    let mut found = Vec::new();
    for part in ["keys", "seal"] {
        let Ok(part) = dir.open_dir(part.as_bytes()) else { continue };
        found.extend(layout::parsed::<EnvelopeName>(&part, &object)?);
    }
    Ok(found)
}
