//! What a request asks for, and what each operation may change in the custody state.

use serde::{Deserialize, Serialize};

use crate::custody_state::{Custodian, Machine, Outline, ReaderEntry, State, Until};
use crate::ids::{IdentityId, RunId};
use crate::json;
use crate::removed::GoneRun;
use crate::replacement::REKEY_MAX;
use crate::{Error, Result};

/// A grant or revocation names no more runs at once.
pub const RUNS_MAX: usize = 10_000;

/// What is to be done. The next state says the same in full; this names it for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Operation {
    /// One more gateway.
    EnrolGateway {
        /// With both keys: people compare its id, which only they make.
        gateway: Machine,
    },
    /// The end of a gateway's chains.
    RevokeGateway {
        /// Its id.
        gateway: IdentityId,
        /// They count up to there.
        until: Until,
    },
    /// A gateway may do what only the one that made a run may: add to it once it is sealed, and seal it.
    AdmitGateway {
        /// Its id.
        gateway: IdentityId,
        /// The run; null: it may add to every run, and seal none.
        run: Option<RunId>,
    },
    /// The end of what a gateway was admitted to.
    DismissGateway {
        /// Its id.
        gateway: IdentityId,
        /// The run; null: every run, and each that it was admitted to by itself.
        run: Option<RunId>,
        /// What it made by its admission counts up to there.
        until: Until,
    },
    /// A new vault key.
    Rotate {
        /// Number of the new epoch.
        epoch: u32,
    },
    /// One more custodian: the vault key stays, all shares of it are made anew.
    AddCustodian {
        /// With its keys, which requests do not have elsewhere.
        custodian: Custodian,
    },
    /// One custodian less, and a new vault key.
    RemoveCustodian {
        /// Its id.
        custodian: IdentityId,
    },
    /// Another number of custodians that an operation needs, and a new vault key.
    ChangeQuorum {
        /// The number.
        quorum: u8,
    },
    /// One more reader, or other terms for one that is known.
    AddReader {
        /// With its keys.
        reader: ReaderEntry,
    },
    /// One reader less: none of its envelopes is kept.
    RemoveReader {
        /// Its id.
        reader: IdentityId,
    },
    /// Runs that are there are sealed to a reader.
    Grant {
        /// Its id.
        reader: IdentityId,
        /// In ascending order.
        runs: Vec<RunId>,
    },
    /// A reader's envelopes of these runs go.
    Revoke {
        /// Its id.
        reader: IdentityId,
        /// In ascending order.
        runs: Vec<RunId>,
    },
    /// Sealed runs get new keys, by runs that replace them.
    Rekey {
        /// In ascending order.
        runs: Vec<RunId>,
    },
    /// Runs that are not missed when they are gone from this store.
    Retire {
        /// In ascending order of their ids: what is signed about each, so that whoever approves says which one is meant.
        runs: Vec<GoneRun>,
    },
    /// `custody/` was lost, and made anew from the copies in key files.
    Recover {
        /// In ascending order of the ids.
        copies: Vec<SeenBy>,
    },
}

/// What a key file had seen from which `custody/` was made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenBy {
    /// Whose.
    pub custodian: IdentityId,
    /// The newest audit line that it had seen.
    #[serde(with = "json::int")]
    pub n: u64,
}

/// What an operation does to the vault key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// Nothing.
    None,
    /// The same key, split anew for the custodians of the next state.
    Split,
    /// A new key.
    New,
}

impl Operation {
    /// What it does to the vault key.
    pub fn key_change(&self) -> KeyChange {
        match self {
            Self::Rotate { .. } | Self::RemoveCustodian { .. } | Self::ChangeQuorum { .. } => KeyChange::New,
            Self::AddCustodian { .. } => KeyChange::Split,
            _ => KeyChange::None,
        }
    }

    /// Whether custodians give their shares to the executor: whoever splits the key, replaces it or opens runs needs it.
    pub fn releases_share(&self) -> bool {
        let opens_runs = matches!(self, Self::Grant { .. } | Self::Recover { .. } | Self::Rekey { .. });
        self.key_change() != KeyChange::None || opens_runs
    }

    /// The next state, but for the vault key.
    ///
    /// # Errors
    /// [`Error::Chain`] with what does not fit the state before.
    pub fn apply(&self, before: &State) -> Result<State> {
        let mut next = before.clone();
        next.n = next.n.checked_add(1).ok_or(Error::Chain("number"))?;
        match self {
            Self::EnrolGateway { gateway } => {
                demand(gateway.public().id() == gateway.id, "id of the gateway")?;
                demand(before.gateway(&gateway.id).is_none(), "enrolled before")?;
                next.gateways.push(gateway.entry());
            }
            Self::RevokeGateway { gateway, until } => {
                let known = next.gateways.iter_mut().find(|g| g.id == *gateway);
                let known = known.ok_or(Error::Chain("not enrolled"))?;
                demand(known.until.is_none(), "ended before")?;
                demand(until.is_whole(), "end of the gateway")?;
                known.until = Some(until.clone());
            }
            Self::Rotate { epoch } => {
                demand(before.current()?.e.checked_add(1) == Some(*epoch), "number of the epoch")?;
            }
            Self::AdmitGateway { gateway, .. } | Self::DismissGateway { gateway, .. } => {
                let known = before.gateway(gateway).ok_or(Error::Chain("not enrolled"))?;
                demand(known.until.is_none(), "ended before")?;
                if let Self::DismissGateway { until, .. } = self {
                    demand(until.is_whole(), "end of the admission")?;
                }
            }
            Self::AddCustodian { custodian } => {
                demand(before.custodian(&custodian.id).is_none(), "a custodian already")?;
                let taken = |known: &Custodian| known.label == custodian.label;
                demand(!before.custodians.iter().any(taken), "a custodian of that name already")?;
                next.custodians.push(custodian.clone());
            }
            Self::RemoveCustodian { custodian } => {
                demand(before.custodian(custodian).is_some(), "no such custodian")?;
                next.custodians.retain(|known| known.id != *custodian);
                demand(usize::from(next.quorum) <= next.custodians.len(), "the quorum cannot be reached")?;
            }
            Self::ChangeQuorum { quorum } => {
                demand(*quorum != before.quorum, "the quorum already")?;
                demand(
                    (1..=before.custodians.len()).contains(&usize::from(*quorum)),
                    "the quorum cannot be reached",
                )?;
                next.quorum = *quorum;
            }
            Self::AddReader { reader } => {
                demand(before.reader(&reader.id) != Some(reader), "a reader already")?;
                let taken = |known: &&ReaderEntry| known.label == reader.label && known.id != reader.id;
                demand(!before.readers.iter().any(|known| taken(&known)), "a reader of that name already")?;
                next.readers.retain(|known| known.id != reader.id);
                next.readers.push(reader.clone());
            }
            Self::RemoveReader { reader } => {
                demand(before.reader(reader).is_some(), "no such reader")?;
                next.readers.retain(|known| known.id != *reader);
            }
            Self::Grant { reader, runs } | Self::Revoke { reader, runs } => {
                demand(before.reader(reader).is_some(), "no such reader")?;
                demand(are_listed(runs, RUNS_MAX), "runs")?;
            }
            Self::Rekey { runs } => demand(are_listed(runs, REKEY_MAX), "runs")?,
            Self::Retire { runs } => {
                let ascending = runs.windows(2).all(|pair| matches!(pair, [a, b] if a.run.0 < b.run.0));
                demand(ascending && (1..=RUNS_MAX).contains(&runs.len()), "runs")?;
            }
            Self::Recover { copies } => {
                let ascending =
                    copies.windows(2).all(|pair| matches!(pair, [a, b] if a.custodian.0 < b.custodian.0));
                let known = copies.iter().all(|seen| before.custodian(&seen.custodian).is_some());
                let reach = copies.iter().any(|seen| seen.n >= before.n);
                demand(ascending && known && reach, "copies")?;
            }
        }
        Ok(next)
    }

    /// Who there is after it: what its request says of the next state.
    ///
    /// # Errors
    /// [`Error::Chain`] with what does not fit the state before.
    pub fn outline(&self, before: &State) -> Result<Outline> {
        let mut outline = self.apply(before)?.outline();
        if self.key_change() == KeyChange::New {
            outline.epoch = outline.epoch.checked_add(1).ok_or(Error::Chain("number of the epoch"))?;
        }
        Ok(outline)
    }

    /// Checks that `after` is what the operation makes of `before`, the keys of its epochs apart.
    ///
    /// # Errors
    /// [`Error::Chain`] with what does not follow.
    pub(crate) fn verify(&self, before: &State, after: &State) -> Result<()> {
        demand(key_change(before, after)? == self.key_change(), "the vault key")?;
        let applied = self.apply(before)?;
        // The outline names people; their keys are in the states alone.
        let people = (&applied.custodians, &applied.readers) == (&after.custodians, &after.readers);
        demand(people && self.outline(before)? == after.outline(), "the operation changes something else")
    }
}

/// At least one and at most so many, in ascending order.
fn are_listed(runs: &[RunId], max: usize) -> bool {
    let ascending = runs.windows(2).all(|pair| matches!(pair, [a, b] if a.0 < b.0));
    ascending && (1..=max).contains(&runs.len())
}

fn key_change(before: &State, after: &State) -> Result<KeyChange> {
    let (old, new) = (before.current()?, after.current()?);
    Ok(match (new.e == old.e, new.made == old.made) {
        (false, _) => KeyChange::New,
        (true, false) => KeyChange::Split,
        (true, true) => KeyChange::None,
    })
}

fn demand(holds: bool, what: &'static str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Chain(what)) }
}
