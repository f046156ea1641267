//! A custody state: who may do what from one audit line on (docs/format.md, "Custody").

use runvault_crypto::envelope::KemPublic;
use runvault_crypto::signature::VerifyingKey;
use serde::{Deserialize, Serialize};

use crate::genesis::Genesis;
use crate::ids::{Digest, IdentityId, VaultId};
use crate::json;
pub use crate::json::is_label;
use crate::keys::IdentityPublic;
use crate::note::text_hash;
use crate::{Error, Result};

const KIND: &str = "state";

/// Someone who holds a share and signs requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custodian {
    /// The hash of both keys.
    pub id: IdentityId,
    /// For people.
    #[serde(with = "json::label")]
    pub label: String,
    /// Ed25519.
    #[serde(with = "json::sign")]
    pub sign: VerifyingKey,
    /// X-Wing.
    #[serde(with = "json::kem")]
    pub kem: KemPublic,
}

impl Custodian {
    /// A custodian with these keys.
    pub fn new(label: &str, keys: &IdentityPublic) -> Self {
        Self { id: keys.id(), label: label.into(), sign: keys.sign, kem: keys.kem.clone() }
    }

    /// Both keys.
    pub fn public(&self) -> IdentityPublic {
        IdentityPublic { sign: self.sign, kem: self.kem.clone() }
    }
}

/// A gateway that asks to be let in: with it comes the key that its id is made of as well, and that no state keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The hash of both keys.
    pub id: IdentityId,
    /// For people.
    #[serde(with = "json::label")]
    pub label: String,
    /// Ed25519.
    #[serde(with = "json::sign")]
    pub sign: VerifyingKey,
    /// X-Wing.
    #[serde(with = "json::kem")]
    pub kem: KemPublic,
}

impl Machine {
    /// A machine with these keys.
    pub fn new(label: &str, keys: &IdentityPublic) -> Self {
        Self { id: keys.id(), label: label.into(), sign: keys.sign, kem: keys.kem.clone() }
    }

    /// Both keys.
    pub fn public(&self) -> IdentityPublic {
        IdentityPublic { sign: self.sign, kem: self.kem.clone() }
    }

    /// As the state has it.
    pub(crate) fn entry(&self) -> GatewayEntry {
        GatewayEntry { id: self.id, label: self.label.clone(), sign: self.sign, until: None }
    }
}

/// A machine that signs runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayEntry {
    /// Its id.
    pub id: IdentityId,
    /// For people.
    #[serde(with = "json::label")]
    pub label: String,
    /// Ed25519.
    #[serde(with = "json::sign")]
    pub sign: VerifyingKey,
    /// Its chains count up to there and no further.
    pub until: Option<Until>,
}

/// The end of a gateway whose key can no longer be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Until {
    /// Its last run.
    #[serde(with = "json::int")]
    pub seq: u64,
    /// Text hash of that run's run.json.
    pub hash: Option<Digest>,
    /// Its last seal.
    #[serde(with = "json::int")]
    pub seals: u64,
    /// Text hash of that seal's note.
    pub seals_hash: Option<Digest>,
}

impl Until {
    /// A number and its hash are there together.
    pub(crate) fn is_whole(&self) -> bool {
        (self.seq == 0) == self.hash.is_none() && (self.seals == 0) == self.seals_hash.is_none()
    }
}

/// Someone whom runs are sealed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReaderEntry {
    /// Its id.
    pub id: IdentityId,
    /// For people.
    #[serde(with = "json::label")]
    pub label: String,
    /// Ed25519: with the other key it makes the id.
    #[serde(with = "json::sign")]
    pub sign: VerifyingKey,
    /// X-Wing.
    #[serde(with = "json::kem")]
    pub kem: KemPublic,
    /// Every new run is sealed to it.
    pub standing: bool,
    /// When honest mounts stop, RFC 3339 in UTC.
    #[serde(with = "json::maybe_time")]
    pub expires: Option<String>,
}

impl ReaderEntry {
    /// Both keys.
    pub fn public(&self) -> IdentityPublic {
        IdentityPublic { sign: self.sign, kem: self.kem.clone() }
    }

    /// Whether its time is not over at `now`, RFC 3339 in UTC.
    pub fn lasts(&self, now: &str) -> bool {
        self.expires.as_deref().is_none_or(|at| now < at)
    }
}

/// Whether new runs are sealed to an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Yes: the newest.
    Current,
    /// No: its key is kept, sealed to the next epoch's.
    Kept,
}

/// One vault key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epoch {
    /// Counts from 1.
    pub e: u32,
    /// The state that made it.
    #[serde(with = "json::int")]
    pub since: u64,
    /// X-Wing.
    #[serde(with = "json::kem")]
    pub kem: KemPublic,
    /// Of all, only the last is current.
    pub status: Status,
    /// The state that its shares were made for.
    #[serde(with = "json::int")]
    pub made: u64,
    /// In the custodians' order; none for a kept epoch.
    pub shares: Vec<Share>,
    /// Envelope of the epoch before's key, sealed to this one; null for the first.
    #[serde(with = "json::maybe_bytes")]
    pub previous: Option<Vec<u8>>,
}

/// A custodian's share of an epoch's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The custodian.
    pub to: IdentityId,
    /// Where the polynomial is taken, 1 to 255.
    pub x: u8,
    /// The envelope; null only in the computed state 0.
    #[serde(with = "json::maybe_bytes")]
    pub env: Option<Vec<u8>>,
    /// [`crate::share::hash`].
    pub sha256: Digest,
}

/// Who may do what, from audit line `n` on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The audit line that names it; 0 for the genesis.
    #[serde(with = "json::int")]
    pub n: u64,
    /// The vault.
    pub vault: VaultId,
    /// Custodians that an operation needs.
    pub quorum: u8,
    /// Distinct.
    pub custodians: Vec<Custodian>,
    /// Without gaps, from the oldest that is kept to the current one.
    pub epochs: Vec<Epoch>,
    /// Distinct.
    pub gateways: Vec<GatewayEntry>,
    /// Distinct.
    pub readers: Vec<ReaderEntry>,
}

impl State {
    /// State 0 is computed, not read.
    pub fn zero(genesis: &Genesis, vault: VaultId) -> Self {
        let share = |s: &crate::genesis::FirstShare| Share { to: s.to, x: s.x, env: None, sha256: s.sha256 };
        let epoch = Epoch {
            e: 1,
            since: 0,
            kem: genesis.kem.clone(),
            status: Status::Current,
            made: 0,
            shares: genesis.shares.iter().map(share).collect(),
            previous: None,
        };
        Self {
            n: 0,
            vault,
            quorum: genesis.quorum,
            custodians: genesis.custodians.clone(),
            epochs: vec![epoch],
            gateways: Vec::new(),
            readers: Vec::new(),
        }
    }

    /// Takes the envelopes from the stored `custody/state-0`, which must be this computed state
    /// in everything else. The state's hash stays that of the computed one: see [`State::hash`].
    ///
    /// # Errors
    /// Those of [`State::parse`]; [`Error::State`] where it differs.
    pub fn take_envelopes(&self, stored: &[u8]) -> Result<Self> {
        let stored = Self::parse(stored)?;
        if stored.n == 0 && stored.bare() == self.bare() {
            Ok(stored)
        } else {
            Err(Error::State("not the state of the genesis"))
        }
    }

    /// The state without its envelopes.
    fn bare(&self) -> Self {
        let mut bare = self.clone();
        bare.epochs.iter_mut().flat_map(|e| &mut e.shares).for_each(|share| share.env = None);
        bare
    }

    /// What `run.json` and audit lines name it by: SHA-256 of its text, of state 0 without envelopes.
    ///
    /// # Errors
    /// Those of [`State::to_text`].
    pub fn hash(&self) -> Result<Digest> {
        let text = if self.n == 0 { self.bare().to_text()? } else { self.to_text()? };
        Ok(text_hash(&text))
    }

    /// The text of `custody/state-<n>`.
    ///
    /// # Errors
    /// [`Error::State`] for what [`State::parse`] refuses, [`Error::Json`], [`Error::TooLong`].
    pub fn to_text(&self) -> Result<String> {
        self.check()?;
        json::to_text(KIND, self)
    }

    /// Parses a state; whether it counts is for the audit line to say.
    ///
    /// # Errors
    /// Those of a text of two lines, [`Error::State`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let state: Self = json::parse_text(KIND, json::utf8(bytes)?)?;
        state.check()?;
        Ok(state)
    }

    /// The epoch that new runs are sealed to.
    ///
    /// # Errors
    /// [`Error::State`] where there is none.
    pub fn current(&self) -> Result<&Epoch> {
        self.epochs.last().ok_or(Error::State("no epoch"))
    }

    /// An enrolled gateway, also one whose chain has ended.
    pub fn gateway(&self, id: &IdentityId) -> Option<&GatewayEntry> {
        self.gateways.iter().find(|g| g.id == *id)
    }

    /// A custodian.
    pub fn custodian(&self, id: &IdentityId) -> Option<&Custodian> {
        self.custodians.iter().find(|c| c.id == *id)
    }

    /// A reader.
    pub fn reader(&self, id: &IdentityId) -> Option<&ReaderEntry> {
        self.readers.iter().find(|r| r.id == *id)
    }

    /// What a request can know of the state: who there is, without the epochs' keys and shares.
    pub fn outline(&self) -> Outline {
        let custodian = |c: &Custodian| NamedCustodian { id: c.id, label: c.label.clone() };
        let reader = |r: &ReaderEntry| NamedReader {
            id: r.id,
            label: r.label.clone(),
            standing: r.standing,
            expires: r.expires.clone(),
        };
        Outline {
            n: self.n,
            quorum: self.quorum,
            custodians: self.custodians.iter().map(custodian).collect(),
            epoch: self.epochs.last().map_or(0, |e| e.e),
            gateways: self.gateways.clone(),
            readers: self.readers.iter().map(reader).collect(),
        }
    }

    /// Whether the epochs of `after` may follow from this state's: the same shares where no new
    /// ones were asked for, a new epoch over a keyring that stays where one was.
    ///
    /// # Errors
    /// [`Error::Chain`].
    pub fn check_epochs(&self, after: &Self) -> Result<()> {
        let (old, new) = (self.current()?, after.current()?);
        let kept = after.epochs.iter().rev().skip(usize::from(new.e != old.e));
        let same = kept
            .zip(self.epochs.iter().rev())
            .all(|(a, b)| (a.e, a.since, &a.kem, &a.previous) == (b.e, b.since, &b.kem, &b.previous));
        if !same || after.vault != self.vault {
            return Err(Error::Chain("kept epochs"));
        }
        let made_now = new.made == after.n && new.shares.iter().all(|s| s.env.is_some());
        if new.e == old.e {
            let one_split = (self.quorum, ids(&self.custodians)) == (after.quorum, ids(&after.custodians));
            let carried = one_split && new.made == old.made && carried_over(&old.shares, &new.shares);
            let whole = self.epochs.len() == after.epochs.len();
            return if whole && (carried || made_now) { Ok(()) } else { Err(Error::Chain("shares")) };
        }
        let next = old.e.checked_add(1) == Some(new.e) && new.since == after.n && new.previous.is_some();
        let whole = self.epochs.len().checked_add(1) == Some(after.epochs.len());
        if next && whole && made_now { Ok(()) } else { Err(Error::Chain("new epoch")) }
    }

    fn check(&self) -> Result<()> {
        check_custodians(self.quorum, &self.custodians)?;
        distinct(self.gateways.iter().map(|g| g.id)).map_err(|()| Error::State("two gateways of one id"))?;
        let mut ends = self.gateways.iter().filter_map(|g| g.until.as_ref());
        if !ends.all(Until::is_whole) {
            return Err(Error::State("a gateway's end that names no run or seal"));
        }
        distinct(self.readers.iter().map(|r| r.id)).map_err(|()| Error::State("two readers of one id"))?;
        distinct(self.readers.iter().map(|r| &r.label))
            .map_err(|()| Error::State("two readers of one name"))?;
        if self.readers.iter().any(|r| looks_like_an_id(&r.label)) {
            return Err(Error::State("a reader named like an id"));
        }
        if !self.readers.iter().all(|r| r.public().id() == r.id) {
            return Err(Error::State("a reader's id is not that of the keys"));
        }
        let current = self.current()?;
        check_shares(&self.custodians, current.shares.iter().map(|s| (s.to, s.x)))?;
        for (i, epoch) in self.epochs.iter().enumerate() {
            let last = i + 1 == self.epochs.len();
            let follows =
                i == 0 || self.epochs.get(i - 1).is_some_and(|b| b.e.checked_add(1) == Some(epoch.e));
            if epoch.e == 0 || !follows {
                return Err(Error::State("epochs are not in order"));
            }
            if (epoch.status == Status::Current) != last || (!last && !epoch.shares.is_empty()) {
                return Err(Error::State("not one current epoch"));
            }
            if (epoch.previous.is_none()) != (i == 0) {
                return Err(Error::State("the keyring has a gap"));
            }
            if epoch.since > epoch.made || epoch.made > self.n {
                return Err(Error::State("an epoch of a later state"));
            }
        }
        if self.n > 0 && current.shares.iter().any(|s| s.env.is_none()) {
            return Err(Error::State("a share without its envelope"));
        }
        Ok(())
    }
}

/// What a request says of the next state. An id is the hash of both keys, so the keys need not be there: with
/// them a line of the audit log would grow by 1.6 KiB for each person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outline {
    /// As in [`State`].
    #[serde(with = "json::int")]
    pub n: u64,
    /// As in [`State`].
    pub quorum: u8,
    /// In the order of [`State`].
    pub custodians: Vec<NamedCustodian>,
    /// Number of the current epoch.
    pub epoch: u32,
    /// As in [`State`].
    pub gateways: Vec<GatewayEntry>,
    /// In the order of [`State`].
    pub readers: Vec<NamedReader>,
}

/// A custodian without its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedCustodian {
    /// The hash of both keys.
    pub id: IdentityId,
    /// For people.
    #[serde(with = "json::label")]
    pub label: String,
}

/// A reader without its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedReader {
    /// The hash of both keys.
    pub id: IdentityId,
    /// For people.
    #[serde(with = "json::label")]
    pub label: String,
    /// Every new run is sealed to it.
    pub standing: bool,
    /// When honest mounts stop, RFC 3339 in UTC.
    #[serde(with = "json::maybe_time")]
    pub expires: Option<String>,
}

/// A quorum that can be reached, distinct custodians, ids that are their keys' hashes.
pub(crate) fn check_custodians(quorum: u8, custodians: &[Custodian]) -> Result<()> {
    if quorum == 0 || usize::from(quorum) > custodians.len() || custodians.len() > 255 {
        return Err(Error::State("the quorum cannot be reached"));
    }
    distinct(custodians.iter().map(|c| c.id)).map_err(|()| Error::State("two custodians of one id"))?;
    distinct(custodians.iter().map(|c| &c.label)).map_err(|()| Error::State("two custodians of one name"))?;
    if custodians.iter().any(|c| looks_like_an_id(&c.label)) {
        return Err(Error::State("a custodian named like an id"));
    }
    let right = custodians.iter().all(|c| c.public().id() == c.id);
    if right { Ok(()) } else { Err(Error::State("a custodian's id is not that of the keys")) }
}

/// A share for each custodian, in order, each at another x.
pub(crate) fn check_shares(
    custodians: &[Custodian],
    shares: impl ExactSizeIterator<Item = (IdentityId, u8)> + Clone,
) -> Result<()> {
    let each =
        shares.len() == custodians.len() && shares.clone().zip(custodians).all(|((to, _), c)| to == c.id);
    let apart = distinct(shares.clone().map(|(_, x)| x)).is_ok() && shares.clone().all(|(_, x)| x > 0);
    if each && apart { Ok(()) } else { Err(Error::State("not one share for each custodian")) }
}

/// People are named by name or id: none of the two may pass for the other.
fn looks_like_an_id(label: &str) -> bool {
    label.parse::<IdentityId>().is_ok()
}

fn ids(custodians: &[Custodian]) -> Vec<IdentityId> {
    custodians.iter().map(|c| c.id).collect()
}

fn carried_over(before: &[Share], after: &[Share]) -> bool {
    before.len() == after.len()
        && before.iter().zip(after).all(|(b, a)| {
            (b.to, b.x, b.sha256) == (a.to, a.x, a.sha256) && (b.env.is_none() || b.env == a.env)
        })
}

fn distinct<T: Ord>(all: impl Iterator<Item = T>) -> std::result::Result<(), ()> {
    let mut all: Vec<T> = all.collect();
    let before = all.len();
    all.sort_unstable();
    all.dedup();
    if all.len() == before { Ok(()) } else { Err(()) }
}
