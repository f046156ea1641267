//! The vault's keys, epoch by epoch: the newest from a custodian's share, the older ones through
//! the keyring.
//!
//! In a vault of quorum 1 a share *is* the key: a polynomial of degree 0.

use std::collections::BTreeMap;

use runvault_crypto::envelope::{KemPrivate, KemPublic};
use runvault_crypto::secrets::Secret;
use runvault_format::custody_state::{Custodian, Epoch, Share, Status};
use runvault_format::genesis::FirstShare;
use runvault_format::ids::VaultId;
use runvault_format::share;

use crate::chain::Chain;
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
        let damaged = |e: runvault_format::Error| Error::damaged(chain.state_object(), e);
        let newest = open_share(chain, custodian)?;
        let key = KemPrivate::from_seed(&newest)?;
        if *key.public() != chain.current().kem {
            return Err(damaged(runvault_format::Error::Share));
        }
        let mut keys = BTreeMap::from([(chain.epoch(), key)]);
        for pair in chain.state().epochs.windows(2).rev() {
            let [before, epoch] = pair else { continue };
            let Some(key) = keys.get(&epoch.e) else { continue };
            let seed = share::open_previous(key, &chain.vault_id(), epoch, before).map_err(damaged)?;
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

/// Labels and ids: of those whose keys open this vault, and of the one that was given.
pub(crate) fn needed_and_given(chain: &Chain, given: &Identity) -> (String, String) {
    let needed: Vec<String> = chain.custodians().iter().map(|(label, id)| shown(label, id)).collect();
    (needed.join(" or "), shown(&given.label, &given.id()))
}

fn open_share(chain: &Chain, custodian: &Identity) -> Result<Secret<32>> {
    let (id, epoch) = (custodian.id(), chain.current());
    let share = epoch.shares.iter().find(|s| s.to == id).ok_or_else(|| wrong_key(chain, custodian))?;
    share::open_share(&custodian.keys.kem, &chain.vault_id(), epoch, share)
        .map_err(|e| Error::damaged(format!("{}: the owner's share", chain.state_object()), e))
}

/// A new epoch's key, before any state names it.
pub(crate) struct NewEpoch {
    seed: Secret<32>,
    kem: KemPublic,
}

impl NewEpoch {
    pub(crate) fn draw() -> Result<Self> {
        let seed = Secret::random()?;
        let kem = KemPrivate::from_seed(&seed)?.public().clone();
        Ok(Self { seed, kem })
    }

    pub(crate) fn kem(&self) -> &KemPublic {
        &self.kem
    }

    /// The shares of epoch 1 as the genesis names them; [`NewEpoch::shares`] has the same x.
    pub(crate) fn first_shares(&self, to: &[Custodian]) -> Vec<FirstShare> {
        let one = |(x, custodian): (u8, &Custodian)| FirstShare {
            to: custodian.id,
            x,
            sha256: share::hash(1, x, &self.seed),
        };
        (1..=u8::MAX).zip(to).map(one).collect()
    }

    /// A share for each custodian, sealed to it for state `n`; their x count from 1.
    pub(crate) fn shares(&self, vault: &VaultId, n: u64, e: u32, to: &[Custodian]) -> Result<Vec<Share>> {
        let one = |(x, custodian): (u8, &Custodian)| {
            let env = share::seal_share(&custodian.kem, vault, n, &custodian.id, &self.seed)?;
            Ok(Share { to: custodian.id, x, env: Some(env), sha256: share::hash(e, x, &self.seed) })
        };
        (1..=u8::MAX).zip(to).map(one).collect()
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
