//! Runs that were made or sealed under an older state of custody/ than the one that was in force: a store that hides newer
//! lines has a gateway go on sealing to a vault key that was replaced, and to readers that were removed. Told from what
//! is signed, without any key.
//!
//! Nothing is proven by it: the times are by the clocks of the machines that executed the lines and of the gateway.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use runvault_format::descriptor::StateRef;
use runvault_format::ids::{Digest, IdentityId, RunId};
use runvault_format::operation::{KeyChange, Operation};
use runvault_format::time;
use runvault_store::backend::Dir;
use runvault_vault::authority::Authority;
use runvault_vault::{runs, seal};

use crate::chain::Chain;
use crate::key_files::shown;

/// A mount looks for new lines every 2 seconds, and a network store may show what it kept for a minute. The rest is for
/// clocks that differ.
const ALLOWED_SECONDS: u64 = 600;

/// What was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// run.json.
    Made,
    /// The seal.
    Sealed,
}

/// A run of which something was signed under an older state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Its id.
    pub run: RunId,
    /// What of it.
    pub signed: Signed,
    /// By whom, as messages name it.
    pub by: String,
    /// When, by that machine's clock, RFC 3339 in UTC.
    pub at: String,
    /// The number of the state that it names.
    pub state: u64,
    /// The newest that was in force then, and since when.
    pub newest: (u64, String),
    /// Who has the run's key by that: whom the newest state did not have any more.
    pub opens: Vec<String>,
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, state, newest: (newest, since), by, .. } = self;
        let signed = match self.signed {
            Signed::Made => "made",
            Signed::Sealed => "sealed",
        };
        write!(
            f,
            "{signed} on {at} under state {state}, although state {newest} was in force since {since}: {by} was shown an \
             older custody/, or its clock is ahead"
        )?;
        match self.opens.as_slice() {
            [] => Ok(()),
            opens => write!(f, "; by that the run opens for {}", opens.join(" and ")),
        }
    }
}

/// What a state has every new run sealed to.
#[derive(Clone, Default)]
struct To {
    epoch: u32,
    /// Labels of standing readers, by their ids.
    standing: BTreeMap<IdentityId, String>,
}

impl To {
    fn after(mut self, op: &Operation) -> Self {
        match op {
            Operation::AddReader { reader } if reader.standing => {
                self.standing.insert(reader.id, reader.label.clone());
            }
            Operation::AddReader { reader } => _ = self.standing.remove(&reader.id),
            Operation::RemoveReader { reader } => _ = self.standing.remove(reader),
            op if op.key_change() == KeyChange::New => self.epoch += 1,
            _ => {}
        }
        self
    }

    /// Who has a key of this state and none of a later one.
    fn not_in(&self, later: &Self) -> Vec<String> {
        let key = (self.epoch != later.epoch).then(|| format!("whoever has vault key {}", self.epoch));
        let gone = self.standing.iter().filter(|(id, _)| !later.standing.contains_key(id));
        key.into_iter().chain(gone.map(|(id, label)| format!("reader {}", shown(label, id)))).collect()
    }
}

/// A state: its hash (not of the first, of which no line tells), when its line was executed, and whom it has.
struct Known {
    hash: Option<Digest>,
    /// RFC 3339 in UTC.
    time: String,
    to: To,
}

/// The states of a chain, by their numbers.
pub struct States {
    known: Vec<Known>,
    machines: BTreeMap<IdentityId, String>,
}

impl States {
    /// As the chain's lines make them.
    pub fn of(chain: &Chain) -> Self {
        let first = Known { hash: None, time: String::new(), to: To { epoch: 1, ..To::default() } };
        let mut known = vec![first];
        for line in chain.executed_behind(0) {
            let to = known.last().map_or_else(To::default, |before| before.to.clone());
            let to = to.after(&line.request.op);
            known.push(Known { hash: line.result.state, time: line.time, to });
        }
        let machines = chain.gateways().into_iter().map(|(label, id)| (id, label)).collect();
        Self { known, machines }
    }

    /// What of a run was signed under an older state than was in force. What cannot be read says nothing: others name it.
    pub fn behind(&self, root: &Arc<dyn Dir>, run: &RunId, authority: &dyn Authority) -> Vec<Behind> {
        let made = runs::read_descriptor(root, run, authority).ok().and_then(|made| {
            let made = made.descriptor;
            // One that replaces another was made by its line, and has the time of that other.
            if made.replaces() {
                return None;
            }
            self.signed(run, Signed::Made, (&made.signer, &made.opened), &made.state)
        });
        let sealed = seal::find(root, run, authority).ok().flatten().and_then(|seal| {
            let note = seal.note;
            self.signed(run, Signed::Sealed, (&note.gateway, &note.sealed), &note.state)
        });
        made.into_iter().chain(sealed).collect()
    }

    /// A state that this chain does not have was lost with an older custody/: nothing is known of its time.
    fn signed(
        &self,
        run: &RunId,
        signed: Signed,
        (by, at): (&IdentityId, &str),
        state: &StateRef,
    ) -> Option<Behind> {
        let named = self.known.get(usize::try_from(state.n).ok()?)?;
        if named.hash.is_some_and(|hash| hash != state.hash) {
            return None;
        }
        let seconds = time::seconds(at)?;
        let in_force = |known: &Known| {
            time::seconds(&known.time).is_some_and(|since| since.saturating_add(ALLOWED_SECONDS) < seconds)
        };
        let later = self.known.iter().zip(0..).skip_while(|(_, n)| *n <= state.n);
        let (newest, n) = later.filter(|(known, _)| in_force(known)).last()?;
        let by = match self.machines.get(by) {
            Some(label) => format!("gateway {}", shown(label, by)),
            None => format!("the worker {by}"),
        };
        Some(Behind {
            run: *run,
            signed,
            by,
            at: at.to_owned(),
            state: state.n,
            newest: (n, newest.time.clone()),
            opens: named.to.not_in(&newest.to),
        })
    }
}

#[cfg(test)]
mod tests {
    use runvault_vault::authority::Gateway;

    use super::*;
    use crate::identity::Identity;
    use crate::quorum::tests::Vault;
    use crate::testing::{make_run, reader_entry, seal_at};

    const RUN: RunId = RunId([7; 16]);

    /// Line 1: a gateway; 2: a standing reader; 3: another one, who is granted runs; 4: a new key; 5: the first one goes.
    fn states() -> (Vault, States, IdentityId) {
        let vault = Vault::of(2, 3);
        let gateway = vault.gateway();
        let [lab, guest] = ["lab", "guest"].map(|label| Identity::generate(label).unwrap());
        vault.agree(Operation::AddReader { reader: reader_entry(&lab, true, None) });
        vault.agree(Operation::AddReader { reader: reader_entry(&guest, false, None) });
        vault.agree(Operation::Rotate { epoch: 2 });
        vault.agree(Operation::RemoveReader { reader: lab.id() });
        let mut states = States::of(&vault.chain());
        for (known, hour) in states.known.iter_mut().zip(0..).skip(1) {
            known.time = format!("2026-11-24T0{hour}:00:00Z");
        }
        (vault, states, gateway.id())
    }

    #[test]
    fn an_older_state_than_was_in_force_is_named() {
        let (_vault, states, gateway) = states();
        let at = |n: usize, time: &str| {
            let hash = states.known[n].hash.unwrap_or(Digest([0; 32]));
            states.signed(&RUN, Signed::Sealed, (&gateway, time), &StateRef { n: n as u64, hash })
        };
        // The newest one, and one whose successor came a moment, or a clock's difference, before.
        assert_eq!(at(5, "2027-11-24T05:30:00Z"), None);
        assert_eq!(at(3, "2026-11-24T03:59:00Z"), None);
        assert_eq!(at(3, "2026-11-24T04:09:59Z"), None);
        let late = at(3, "2026-11-24T04:10:01Z").unwrap();
        assert_eq!((late.state, late.newest), (3, (4, "2026-11-24T04:00:00Z".to_owned())));
        assert_eq!(late.opens, ["whoever has vault key 1"]);
        // Nobody got more by it.
        assert_eq!(at(2, "2026-11-24T03:30:00Z").unwrap().opens, [""; 0]);
        let text = at(0, "2026-11-24T09:00:00Z").unwrap().to_string();
        assert!(text.contains("sealed on 2026-11-24T09:00:00Z under state 0, although state 5 was in force since 2026-11-24T05:00:00Z: gateway "), "{text}");
        let both = at(2, "2026-11-24T09:00:00Z").unwrap();
        assert_eq!(both.opens.len(), 2);
        assert!(
            both.to_string().contains("opens for whoever has vault key 1 and reader \"lab\" ("),
            "{both}"
        );
        // A state of a chain that was lost, and one that is still to come.
        let sealed = |n, hash| {
            let state = StateRef { n, hash };
            states.signed(&RUN, Signed::Sealed, (&gateway, "2027-01-01T00:00:00Z"), &state)
        };
        assert_eq!(sealed(3, Digest([9; 32])), None);
        assert_eq!(sealed(99, Digest([9; 32])), None);
    }

    #[test]
    fn what_a_gateway_signs_that_sees_the_newest_line_is_not() {
        let vault = Vault::of(2, 3);
        let gateway = vault.gateway();
        let (run, _) = make_run(&vault.root, &vault.chain(), &gateway);
        vault.agree(Operation::Rotate { epoch: 2 });
        let state = vault.chain().state_ref();
        seal_at(&vault.root, &gateway, &run, state);
        let (chain, authority) = (vault.chain(), crate::authority::Acting::gateway_only(vault.chain()));
        assert_eq!(States::of(&chain).behind(&vault.root, &run, &*authority), []);
        // The same run, where the first line is from long before.
        let mut states = States::of(&chain);
        states.known[2].time = "2020-01-01T00:00:00Z".to_owned();
        let found = states.behind(&vault.root, &run, &*authority);
        assert_eq!(found.iter().map(|one| (one.signed, one.state)).collect::<Vec<_>>(), [(Signed::Made, 1)]);
    }
}
