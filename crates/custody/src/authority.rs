//! The verified chain with the keys that the acting identity opened: what the engine asks.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use runvault_crypto::envelope::{KemPrivate, KemPublic};
use runvault_format::envelope_file::{self, EnvelopeName};
use runvault_format::ids::{IdentityId, RunId, VaultId};
use runvault_format::keys::RunKey;
use runvault_format::operation::Operation;
use runvault_format::replacement::Replacement;
use runvault_store::backend::Dir;
use runvault_vault::authority::{
    Admission, Authority, EnvelopeFile, GatewayKey, Lost, Sealed, Standing, StateRef,
};
use runvault_vault::{Damage, Error as VaultError};

use crate::chain::{Chain, Mark};
use crate::epochs::{EpochKeys, needed_and_given, opens_nothing};
use crate::identity::Identity;
use crate::key_files::shown;
use crate::{Error, Result, clock};

/// Who acts on a vault.
#[derive(Debug)]
pub struct Acting {
    chain: RwLock<Chain>,
    root: Root,
    keys: Keys,
    looked: Mutex<Option<Looked>>,
    told: Mutex<Option<String>>,
    clock: clock::Steady,
}

/// What custody/ was when it was looked at last: whoever makes many runs of unknown signers does not have it
/// read for each.
#[derive(Debug)]
struct Looked {
    mark: Mark,
    /// It could be read, and goes on from what was read before.
    sound: bool,
    at: Instant,
}

/// What could not be believed is read again after so long: it may have been mended in place.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where the chain goes on while the vault is open; `None`: nobody looks.
struct Root(Option<Arc<dyn Dir>>);

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Root")
    }
}

/// An identity and what opens what is sealed to it; it signs nothing.
type Own = Box<(IdentityId, KemPrivate)>;

#[derive(Debug)]
enum Keys {
    None,
    /// The vault's own, of every epoch, and what opens the share of a newer one.
    Vault {
        epochs: RwLock<Arc<EpochKeys>>,
        custodian: Option<Own>,
    },
    /// A reader's: only what was granted to it.
    Reader(Own),
    /// That of the worker of a re-keying: the runs that it copies.
    Worker(Own),
}

impl Keys {
    fn vault(epochs: EpochKeys, custodian: Option<Own>) -> Self {
        Self::Vault { epochs: RwLock::new(Arc::new(epochs)), custodian }
    }

    fn epochs(&self) -> Option<Arc<EpochKeys>> {
        let Self::Vault { epochs, .. } = self else { return None };
        Some(epochs.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Whether all that an identity may do with runs is to read them: a reader, or the worker of a re-keying. Where several
/// have to agree, a custodian reads what was granted to the same key, and no more.
pub fn only_reads(chain: &Chain, id: &IdentityId) -> bool {
    let custodian = chain.state().custodian(id).is_some();
    let reader = chain.state().reader(id).is_some();
    if custodian { reader && chain.quorum().0 > 1 } else { reader || chain.work_of(id).next().is_some() }
}

fn own(identity: &Identity) -> Result<Own> {
    Ok(Box::new((identity.id(), identity.again()?.keys.kem)))
}

impl Acting {
    /// A custodian of a vault whose quorum is 1, or a reader. What is added to the chain in the store later
    /// counts too: gateways, newer vault keys, what was granted, revoked and removed.
    ///
    /// # Errors
    /// [`Error::WrongKey`], [`Error::OtherVault`], [`Error::NeedsQuorum`], [`Error::Damaged`].
    pub fn open(root: &Arc<dyn Dir>, chain: Chain, identity: &Identity) -> Result<Arc<dyn Authority>> {
        Ok(Arc::new(Self { root: Root(Some(root.clone())), ..Self::opened(chain, identity)? }))
    }

    pub(crate) fn opened(chain: Chain, identity: &Identity) -> Result<Self> {
        check_bound(&chain, identity)?;
        let id = identity.id();
        let custodian = chain.state().custodian(&id).is_some();
        let keys = if custodian && !only_reads(&chain, &id) {
            Keys::vault(EpochKeys::open(&chain, identity)?, Some(own(identity)?))
        } else if let Some(reader) = chain.state().reader(&id) {
            if let Some(at) = reader.expires.as_ref().filter(|at| **at <= clock::now()) {
                return Err(Error::ReaderExpired { reader: shown(&reader.label, &id), at: at.clone() });
            }
            Keys::Reader(own(identity)?)
        } else if chain.work_of(&id).next().is_some() {
            Keys::Worker(own(identity)?)
        } else {
            return Err(opens_nothing(&chain, identity));
        };
        Ok(Self::of(chain, keys))
    }

    fn of(chain: Chain, keys: Keys) -> Self {
        let clock = clock::Steady::start();
        Self {
            chain: RwLock::new(chain),
            root: Root(None),
            keys,
            looked: Mutex::default(),
            told: Mutex::default(),
            clock,
        }
    }

    /// Whoever has the vault's keys in memory.
    pub(crate) fn with_keys(chain: Chain, keys: EpochKeys) -> Self {
        Self::of(chain, Keys::vault(keys, None))
    }

    /// What is added to the chain is asked for at each [`Authority::refresh`].
    pub(crate) fn following(self, root: &Arc<dyn Dir>) -> Self {
        Self { root: Root(Some(root.clone())), ..self }
    }

    /// No key at all.
    pub(crate) fn keyless(chain: Chain) -> Self {
        Self::of(chain, Keys::None)
    }

    /// What the log says by now of a run and a reader: [`Chain::granted`].
    pub(crate) fn granted_by_now(&self, reader: &IdentityId, run: &RunId) -> Option<bool> {
        self.refreshed();
        self.chain().granted(reader, run)
    }

    /// Whether what is sealed to this epoch opens.
    pub(crate) fn opens_epoch(&self, e: u32) -> bool {
        self.keys.epochs().is_some_and(|epochs| epochs.get(e).is_some())
    }

    /// The key of a reader whose time is not over.
    pub(crate) fn reader_kem(&self, reader: &IdentityId) -> Option<KemPublic> {
        let (chain, now) = (self.chain(), clock::now());
        let known = chain.state().reader(reader);
        known.filter(|reader| reader.lasts(&now)).map(|reader| reader.kem.clone())
    }

    /// No reader's key: verifies, seals new runs, opens none.
    pub fn gateway_only(chain: Chain) -> Arc<dyn Authority> {
        Arc::new(Self::keyless(chain))
    }

    /// [`Acting::gateway_only`] of a machine that writes: what is added to the chain counts as of
    /// [`Acting::open`].
    pub fn ingest(root: &Arc<dyn Dir>, chain: Chain) -> Arc<dyn Authority> {
        Arc::new(Self::keyless(chain).following(root))
    }

    fn chain(&self) -> RwLockReadGuard<'_, Chain> {
        self.chain.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the chain says; where it says nothing, once more as it is by now.
    fn known<T>(&self, ask: impl Fn(&Chain) -> Option<T>) -> Option<T> {
        // The chain is not held while it is read anew.
        let known = ask(&self.chain());
        known.or_else(|| {
            self.refresh();
            ask(&self.chain())
        })
    }

    /// custody/ is verified from where it was left.
    fn follow(&self, root: &Arc<dyn Dir>) -> Result<()> {
        // Nobody waits for the store meanwhile, which may hang.
        let known = self.chain().clone();
        if let Some(newer) = known.continued(root)? {
            self.take_newer_keys(&newer);
            let mut chain = self.chain.write().unwrap_or_else(PoisonError::into_inner);
            if newer.head().n > chain.head().n {
                *chain = newer;
            }
        }
        Ok(())
    }

    /// What a rotation has sealed meanwhile opens too.
    fn take_newer_keys(&self, chain: &Chain) {
        let Keys::Vault { epochs, custodian: Some(custodian) } = &self.keys else { return };
        if self.opens_epoch(chain.epoch()) || self.lost(chain).is_some() {
            return;
        }
        match EpochKeys::open_by(chain, custodian) {
            Ok(Some(newer)) => *epochs.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(newer),
            Ok(None) => {}
            Err(error) => {
                log::warn!("runs that are sealed to vault key {} stay closed: {error}", chain.epoch())
            }
        }
    }

    /// Whether the chain could be read; what prevents it goes to the log.
    fn refreshed(&self) -> bool {
        let Some(root) = &self.root.0 else { return true };
        let warn = |error: &Error| self.tell(Some(error.to_string()));
        let head = self.chain().head().n;
        let Ok(mark) = Mark::read(root, head).inspect_err(warn) else { return false };
        if let Some(sound) = self.seen(&mark) {
            return sound;
        }
        let sound = self.follow(root).inspect_err(warn).is_ok();
        if sound {
            self.tell(None);
        }
        *self.looked() = Some(Looked { mark, sound, at: Instant::now() });
        sound
    }

    /// The same trouble is told once, however often it is met.
    fn tell(&self, trouble: Option<String>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(trouble) = trouble.as_ref().filter(|_| *told != trouble) {
            log::warn!("custody/ does not go on from what was read before: {trouble}");
        }
        *told = trouble;
    }

    fn looked(&self) -> MutexGuard<'_, Option<Looked>> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self, mark: &Mark) -> Option<bool> {
        let looked = self.looked();
        let same = looked.as_ref().filter(|looked| looked.mark == *mark)?;
        (same.sound || same.at.elapsed() < LOOK_AGAIN).then_some(same.sound)
    }

    /// Number and hash of the newest state.
    pub(crate) fn state(&self) -> StateRef {
        self.chain().state_ref()
    }

    /// The newest epoch and its public key.
    pub(crate) fn sealed_to(&self) -> (u32, KemPublic) {
        self.chain().sealed_to()
    }

    /// Why the acting identity reads nothing any more.
    fn lost(&self, chain: &Chain) -> Option<Lost> {
        match &self.keys {
            Keys::Vault { custodian: Some(own), .. } => {
                let alone = chain.quorum().0 == 1 && chain.state().custodian(&own.0).is_some();
                (!alone).then_some(Lost::Removed)
            }
            Keys::Reader(own) => {
                let Some(known) = chain.state().reader(&own.0) else { return Some(Lost::Removed) };
                let over = known.expires.as_ref().filter(|at| **at <= self.clock.now());
                over.map(|at| Lost::Expired(at.clone()))
            }
            Keys::None | Keys::Worker(_) | Keys::Vault { custodian: None, .. } => None,
        }
    }

    /// Opens one envelope; `None` if it is for somebody else.
    pub(crate) fn open_one(
        &self,
        run: &RunId,
        envelope: &EnvelopeFile,
    ) -> Option<runvault_format::Result<RunKey>> {
        let name: EnvelopeName = envelope.name.parse().ok()?;
        let vault = self.chain().vault_id();
        let open = |key: &KemPrivate| envelope_file::open_run_key(key, &vault, run, &name, &envelope.bytes);
        match (&self.keys, &name) {
            (Keys::Vault { .. }, EnvelopeName::Vault(e)) => self.keys.epochs()?.get(*e).map(open),
            (Keys::Reader(own), EnvelopeName::Reader(id)) if *id == own.0 => Some(open(&own.1)),
            (Keys::Worker(own), EnvelopeName::Worker(id)) if *id == own.0 => Some(open(&own.1)),
            _ => None,
        }
    }
}

/// A key file names the vault it was made for: the first pin.
pub(crate) fn check_bound(chain: &Chain, identity: &Identity) -> Result<()> {
    match identity.vault {
        Some(bound) if bound != chain.vault_id() => {
            let (needed, given) = needed_and_given(chain, identity);
            Err(Error::OtherVault { needed, given, bound, found: chain.vault_id() })
        }
        _ => Ok(()),
    }
}

impl Authority for Acting {
    fn refresh(&self) {
        self.refreshed();
    }

    fn standing(&self) -> Standing {
        let chain = self.chain();
        let newest = self.keys.epochs().and_then(|epochs| epochs.newest_first().next());
        Standing { line: chain.head().n, epoch: newest.unwrap_or(0), lost: self.lost(&chain) }
    }

    fn may_open(&self, run: &RunId) -> bool {
        let chain = self.chain();
        let revoked = || matches!(&self.keys, Keys::Reader(own) if chain.granted(&own.0, run) == Some(false));
        self.lost(&chain).is_none() && !revoked()
    }

    fn may_be_given(&self, run: &RunId) -> bool {
        let Keys::Reader(own) = &self.keys else { return true };
        let chain = self.chain();
        // What is open is sealed to those who stand then, also to those who came after it was made.
        chain.state().reader(&own.0).is_some_and(|known| known.standing)
            || chain.granted(&own.0, run) == Some(true)
    }

    fn granted_behind(&self, line: u64) -> Vec<RunId> {
        let Keys::Reader(own) = &self.keys else { return Vec::new() };
        let chain = self.chain();
        let to_us = |op| match op {
            Operation::Grant { reader, runs } if reader == own.0 => runs,
            _ => Vec::new(),
        };
        let mut granted: Vec<RunId> = chain.acts_behind(line).into_iter().flat_map(to_us).collect();
        granted.retain(|run| chain.granted(&own.0, run) == Some(true));
        granted
    }

    fn vault_id(&self) -> VaultId {
        self.chain().vault_id()
    }

    fn gateway_key(&self, id: &IdentityId) -> Option<GatewayKey> {
        self.known(|chain| chain.gateway_key(id))
    }

    fn admission(&self, gateway: &IdentityId, run: Option<&RunId>) -> Option<Admission> {
        self.known(|chain| chain.admission(gateway, run))
    }

    fn replaced_by(&self, run: &RunId) -> Vec<RunId> {
        self.chain().standing_for(run).copied().collect()
    }

    fn replacement(&self, new: &RunId) -> Option<Replacement> {
        self.known(|chain| chain.replacement(new).cloned())
    }

    fn envelope_names(&self) -> Vec<String> {
        match &self.keys {
            Keys::Reader(own) => vec![EnvelopeName::Reader(own.0).to_string()],
            Keys::Worker(own) => vec![EnvelopeName::Worker(own.0).to_string()],
            keys => {
                let epochs = keys.epochs().into_iter();
                epochs
                    .flat_map(|e| e.newest_first().collect::<Vec<_>>())
                    .map(|e| EnvelopeName::Vault(e).to_string())
                    .collect()
            }
        }
    }

    fn open_run(&self, run: &RunId, envelopes: &[EnvelopeFile]) -> runvault_vault::Result<Option<RunKey>> {
        if matches!(self.keys, Keys::Reader(_)) {
            // It may have been removed while it has a mount.
            self.refreshed();
        }
        if !self.may_open(run) {
            return Ok(None);
        }
        let mut refused = None;
        for envelope in newest_first(envelopes) {
            match self.open_one(run, envelope) {
                Some(Ok(key)) => return Ok(Some(key)),
                Some(Err(e)) => refused = refused.or(Some((envelope, e))),
                None => {}
            }
        }
        match refused {
            None => Ok(None),
            Some((envelope, e)) => {
                let object = format!("runs/{run}/keys/{}", envelope.name);
                Err(VaultError::damaged(object, Damage::Run(format!("the envelope does not open: {e}"))))
            }
        }
    }

    fn unknown_recipients(&self, run: &RunId, made: &StateRef, of: &[EnvelopeName]) -> Vec<EnvelopeName> {
        let unknown = self.chain().unknown_recipients(run, made, of);
        if unknown.is_empty() {
            return unknown;
        }
        // Once for all: whoever may write there makes as many names as he likes.
        self.refresh();
        self.chain().unknown_recipients(run, made, &unknown)
    }

    fn opens_every_run(&self) -> bool {
        // A rotation whose key this identity lacks seals runs to it.
        matches!(self.keys, Keys::Vault { .. }) && self.refreshed() && self.opens_epoch(self.chain().epoch())
    }

    fn seal_run(&self, run: &RunId, key: &RunKey) -> runvault_vault::Result<Sealed> {
        let chain = self.chain();
        seal_to(&chain, run, key, chain.standing_readers(&clock::now()))
    }

    fn seal_replacing(
        &self,
        run: &RunId,
        key: &RunKey,
        replaced: &[RunId],
        sealed_at: &StateRef,
    ) -> runvault_vault::Result<Sealed> {
        let chain = self.chain();
        // Lines may name it once it has its name, while those that it replaces are there still.
        let runs_of = [replaced, &[*run]].concat();
        seal_to(&chain, run, key, chain.readers_of(&runs_of, sealed_at, &clock::now()))
    }
}

/// The run's key, to the newest epoch and to these readers.
fn seal_to(
    chain: &Chain,
    run: &RunId,
    key: &RunKey,
    readers: Vec<(IdentityId, KemPublic)>,
) -> runvault_vault::Result<Sealed> {
    let (vault, (e, kem)) = (chain.vault_id(), chain.sealed_to());
    let recipients = std::iter::once((EnvelopeName::Vault(e), kem))
        .chain(readers.into_iter().map(|(id, kem)| (EnvelopeName::Reader(id), kem)));
    let envelopes = recipients
        .map(|(name, kem)| seal_one(&vault, run, &name, &kem, key))
        .collect::<runvault_format::Result<_>>()?;
    Ok(Sealed { state: chain.state_ref(), epoch: e, envelopes })
}

/// One file of a run's `keys/`.
pub(crate) fn seal_one(
    vault: &VaultId,
    run: &RunId,
    name: &EnvelopeName,
    kem: &KemPublic,
    key: &RunKey,
) -> runvault_format::Result<EnvelopeFile> {
    let bytes = envelope_file::seal_run_key(kem, vault, run, name, key)?;
    Ok(EnvelopeFile { name: name.to_string(), bytes })
}

/// The envelopes in the order in which they are tried: that of the newest epoch is the likeliest.
pub(crate) fn newest_first(envelopes: &[EnvelopeFile]) -> Vec<&EnvelopeFile> {
    let epoch = |file: &EnvelopeFile| match file.name.parse() {
        Ok(EnvelopeName::Vault(e)) => e,
        _ => 0,
    };
    let mut sorted: Vec<&EnvelopeFile> = envelopes.iter().collect();
    sorted.sort_by_key(|file| std::cmp::Reverse(epoch(file)));
    sorted
}
