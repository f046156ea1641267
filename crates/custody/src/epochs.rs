//! The vault's keys, epoch by epoch: the newest from a custodian's share, the older ones through
//! the keyring.
//!
//! In a vault of quorum 1 a share *is* the key: a polynomial of degree 0. In others the key is in the memory of whoever
//! executes a request that enough custodians released their shares for, and nowhere else.

use std::collections::BTreeMap;

use runvault_crypto::envelope::{KemPrivate, KemPublic};
use runvault_crypto::secrets::Secret;
use runvault_crypto::sharing;
use runvault_format::custody_state::{Custodian, Epoch, Share, State, Status};
use runvault_format::genesis::FirstShare;
use runvault_format::ids::{IdentityId, VaultId};
use runvault_format::share;

use crate::chain::{Chain, name_of};
use crate::identity::Identity;
use crate::key_files::shown;
use crate::{Error, Result};

/// The private keys of every epoch.
#[derive(Debug)]
pub(crate) struct EpochKeys {
    keys: BTreeMap<u32, KemPrivate>,
    newest: Secret<32>,
}

impl EpochKeys {
    /// Opens the custodian's share of the newest epoch, then each older key with its successor.
    pub(crate) fn open(chain: &Chain, custodian: &Identity) -> Result<Self> {
        require_quorum_of_one(chain, "open the vault key")?;
        Self::of_newest(chain.state(), open_share(chain, custodian)?)
    }

    /// [`EpochKeys::open`] by a custodian's id and envelope key; `None` where it has no share of the newest epoch.
    pub(crate) fn open_by(chain: &Chain, (id, kem): &(IdentityId, KemPrivate)) -> Result<Option<Self>> {
        require_quorum_of_one(chain, "open the vault key")?;
        let share = share_of(chain, id, kem).transpose()?;
        share.map(|share| Self::of_newest(chain.state(), share)).transpose()
    }

    /// The key that these shares of the newest epoch give, by the custodians' ids, and all older ones. Each is the one
    /// that the state names.
    pub(crate) fn combine(state: &State, shares: &[(IdentityId, Secret<32>)]) -> Result<Self> {
        let epoch = state.current()?;
        let point = |(id, y): &(IdentityId, Secret<32>)| {
            let known = epoch.shares.iter().find(|share| share.to == *id);
            let known = known.filter(|known| share::hash(epoch.e, known.x, y) == known.sha256);
            known
                .map(|known| sharing::Share { x: known.x, y: y.clone() })
                .ok_or_else(|| Error::WrongShare { custodian: name_of(state, id) })
        };
        let points = shares.iter().map(point).collect::<Result<Vec<_>>>()?;
        Self::of_newest(state, sharing::combine(state.quorum, &points)?)
    }

    /// The newest key, and each older one with its successor.
    pub(crate) fn of_newest(state: &State, newest: Secret<32>) -> Result<Self> {
        let damaged = |e: runvault_format::Error| Error::damaged(format!("custody/state-{}", state.n), e);
        let current = state.current()?;
        let key = KemPrivate::from_seed(&newest)?;
        if *key.public() != current.kem {
            return Err(damaged(runvault_format::Error::Share));
        }
        let mut keys = BTreeMap::from([(current.e, key)]);
        for pair in state.epochs.windows(2).rev() {
            let [before, epoch] = pair else { continue };
            let Some(key) = keys.get(&epoch.e) else { continue };
            let seed = share::open_previous(key, &state.vault, epoch, before).map_err(damaged)?;
            keys.insert(before.e, KemPrivate::from_seed(&seed)?);
        }
        Ok(Self { keys, newest })
    }

    /// The key of one epoch.
    pub(crate) fn get(&self, e: u32) -> Option<&KemPrivate> {
        self.keys.get(&e)
    }

    /// The numbers of all epochs.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = u32> {
        self.keys.keys().rev().copied()
    }

    /// The seed of the newest epoch: what custodians hold shares of.
    pub(crate) fn newest_seed(&self) -> &Secret<32> {
        &self.newest
    }
}

/// Refuses acts of one key where more have to agree.
pub(crate) fn require_quorum_of_one(chain: &Chain, what: &'static str) -> Result<()> {
    match chain.quorum() {
        (1, _) => Ok(()),
        (quorum, custodians) => Err(Error::NeedsQuorum { quorum, custodians, what }),
    }
}

/// Which keys could have opened what this one does not.
pub(crate) fn wrong_key(chain: &Chain, given: &Identity) -> Error {
    let (needed, given) = needed_and_given(chain, given);
    Error::WrongKey { needed, given }
}

/// [`wrong_key`] of runs: where several have to agree no custodian opens them alone, and readers do.
pub(crate) fn opens_nothing(chain: &Chain, given: &Identity) -> Error {
    if chain.quorum().0 == 1 {
        return wrong_key(chain, given);
    }
    let readers: Vec<String> = chain.readers().iter().map(|(label, id)| shown(label, id)).collect();
    let needed = match readers.as_slice() {
        [] => "a reader's, of whom there is none".to_owned(),
        _ => readers.join(" or "),
    };
    Error::WrongKey { needed, given: shown(&given.label, &given.id()) }
}

/// Labels and ids: of those whose keys open this vault, and of the one that was given.
pub(crate) fn needed_and_given(chain: &Chain, given: &Identity) -> (String, String) {
    let needed: Vec<String> = chain.custodians().iter().map(|(label, id)| shown(label, id)).collect();
    (needed.join(" or "), shown(&given.label, &given.id()))
}

/// The custodian's own share of the newest epoch.
pub(crate) fn open_share(chain: &Chain, custodian: &Identity) -> Result<Secret<32>> {
    share_of(chain, &custodian.id(), &custodian.keys.kem).unwrap_or_else(|| Err(wrong_key(chain, custodian)))
}

/// `None`: it has none.
fn share_of(chain: &Chain, id: &IdentityId, kem: &KemPrivate) -> Option<Result<Secret<32>>> {
    let epoch = chain.current();
    let share = epoch.shares.iter().find(|share| share.to == *id)?;
    Some(share::open_share(kem, &chain.vault_id(), epoch, share).map_err(|e| {
        Error::damaged(format!("{}: the share of {}", chain.state_object(), chain.shown(id)), e)
    }))
}

/// The key of an epoch and a way to share it, before any state names them.
pub(crate) struct SharedKey {
    kem: KemPublic,
    points: Vec<sharing::Share>,
}

impl SharedKey {
    /// A new key, shared so that `quorum` of so many custodians give it.
    pub(crate) fn draw(quorum: u8, custodians: &[Custodian]) -> Result<Self> {
        Self::of(Secret::random()?, quorum, custodians)
    }

    /// A key that there is, shared anew.
    pub(crate) fn of(seed: Secret<32>, quorum: u8, custodians: &[Custodian]) -> Result<Self> {
        let kem = KemPrivate::from_seed(&seed)?.public().clone();
        let count = u8::try_from(custodians.len()).map_err(|_| runvault_crypto::Error::Threshold)?;
        let points = sharing::split(&seed, quorum, count)?;
        // Shares that do not give the key would cost every run.
        let first = points.get(..usize::from(quorum)).unwrap_or_default();
        let last = points.get(points.len() - usize::from(quorum)..).unwrap_or_default();
        for some in [first, last] {
            if sharing::combine(quorum, some)?.expose() != seed.expose() {
                return Err(runvault_crypto::Error::Library.into());
            }
        }
        Ok(Self { kem, points })
    }

    pub(crate) fn kem(&self) -> &KemPublic {
        &self.kem
    }

    /// The shares of epoch 1 as the genesis names them; [`SharedKey::shares`] has the same.
    pub(crate) fn first_shares(&self, to: &[Custodian]) -> Vec<FirstShare> {
        let one = |(point, custodian): (&sharing::Share, &Custodian)| FirstShare {
            to: custodian.id,
            x: point.x,
            sha256: share::hash(1, point.x, &point.y),
        };
        self.points.iter().zip(to).map(one).collect()
    }

    /// A share of epoch `e` for each custodian, sealed to it for state `n`.
    pub(crate) fn shares(&self, vault: &VaultId, n: u64, e: u32, to: &[Custodian]) -> Result<Vec<Share>> {
        let one = |(point, custodian): (&sharing::Share, &Custodian)| {
            let env = share::seal_share(&custodian.kem, vault, n, &custodian.id, &point.y)?;
            let sha256 = share::hash(e, point.x, &point.y);
            Ok(Share { to: custodian.id, x: point.x, env: Some(env), sha256 })
        };
        self.points.iter().zip(to).map(one).collect()
    }

    /// The epoch `e` of state `n`, which takes over from the one that `older` is the key of.
    pub(crate) fn following(
        &self,
        vault: &VaultId,
        n: u64,
        e: u32,
        custodians: &[Custodian],
        older: &Secret<32>,
    ) -> Result<Epoch> {
        Ok(Epoch {
            e,
            since: n,
            kem: self.kem.clone(),
            status: Status::Current,
            made: n,
            shares: self.shares(vault, n, e, custodians)?,
            previous: Some(share::seal_previous(&self.kem, vault, n, e, older)?),
        })
    }
}
