//! The verified chain with the keys that the acting identity opened: what the engine asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use runvault_crypto::envelope::{KemPrivate, KemPublic};
use runvault_format::envelope_file::{self, EnvelopeName};
use runvault_format::ids::{IdentityId, RunId, VaultId};
use runvault_format::keys::RunKey;
use runvault_store::backend::Dir;
use runvault_vault::authority::{Authority, EnvelopeFile, GatewayKey, Sealed};
use runvault_vault::{Damage, Error as VaultError};

use crate::chain::{Chain, Mark};
use crate::epochs::{EpochKeys, needed_and_given, wrong_key};
use crate::identity::Identity;
use crate::{Error, Result, clock};

/// Who acts on a vault.
#[derive(Debug)]
pub struct Acting {
    chain: RwLock<Chain>,
    root: Root,
    keys: Keys,
    looked: Mutex<Option<Looked>>,
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

#[derive(Debug)]
enum Keys {
    None,
    /// The vault's own, of every epoch.
    Vault(EpochKeys),
    /// A reader's: only what was granted to it.
    Reader(Box<Identity>),
}

impl Acting {
    /// A custodian of a vault whose quorum is 1, or a reader. What is added to the chain in the store later
    /// counts too: gateways, and the epoch that new runs are sealed to. What opens runs stays as it is.
    ///
    /// # Errors
    /// [`Error::WrongKey`], [`Error::OtherVault`], [`Error::NeedsQuorum`], [`Error::Damaged`].
    pub fn open(root: &Arc<dyn Dir>, chain: Chain, identity: &Identity) -> Result<Arc<dyn Authority>> {
        Ok(Arc::new(Self { root: Root(Some(root.clone())), ..Self::opened(chain, identity)? }))
    }

    pub(crate) fn opened(chain: Chain, identity: &Identity) -> Result<Self> {
        check_bound(&chain, identity)?;
        let id = identity.id();
        let keys = if chain.custodians().iter().any(|(_, custodian)| *custodian == id) {
            Keys::Vault(EpochKeys::open(&chain, identity)?)
        } else if chain.readers().iter().any(|(_, reader)| *reader == id) {
            Keys::Reader(Box::new(identity.again()?))
        } else {
            return Err(wrong_key(&chain, identity));
        };
        Ok(Self::of(chain, keys))
    }

    fn of(chain: Chain, keys: Keys) -> Self {
        Self { chain: RwLock::new(chain), root: Root(None), keys, looked: Mutex::default() }
    }

    /// No reader's key: verifies, seals new runs, opens none.
    pub fn gateway_only(chain: Chain) -> Arc<dyn Authority> {
        Arc::new(Self::of(chain, Keys::None))
    }

    fn chain(&self) -> RwLockReadGuard<'_, Chain> {
        self.chain.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// custody/ is verified from where it was left.
    fn follow(&self, root: &Arc<dyn Dir>) -> Result<()> {
        // Nobody waits for the store meanwhile, which may hang.
        let known = self.chain().clone();
        if let Some(newer) = known.continued(root)? {
            let mut chain = self.chain.write().unwrap_or_else(PoisonError::into_inner);
            if newer.head().n > chain.head().n {
                *chain = newer;
            }
        }
        Ok(())
    }

    /// Whether the chain could be read; what prevents it goes to the log.
    fn refreshed(&self) -> bool {
        let Some(root) = &self.root.0 else { return true };
        let warn = |error: &Error| log::warn!("custody/ does not go on from what was read before: {error}");
        let head = self.chain().head().n;
        let Ok(mark) = Mark::read(root, head).inspect_err(warn) else { return false };
        if let Some(sound) = self.seen(&mark) {
            return sound;
        }
        let sound = self.follow(root).inspect_err(warn).is_ok();
        *self.looked() = Some(Looked { mark, sound, at: Instant::now() });
        sound
    }

    fn looked(&self) -> MutexGuard<'_, Option<Looked>> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self, mark: &Mark) -> Option<bool> {
        let looked = self.looked();
        let same = looked.as_ref().filter(|looked| looked.mark == *mark)?;
        (same.sound || same.at.elapsed() < LOOK_AGAIN).then_some(same.sound)
    }

    /// The key that an envelope of this name is sealed to, where it is ours.
    fn key_for(&self, name: &EnvelopeName) -> Option<&KemPrivate> {
        match (&self.keys, name) {
            (Keys::Vault(epochs), EnvelopeName::Vault(e)) => epochs.get(*e),
            (Keys::Reader(reader), EnvelopeName::Reader(id)) if *id == reader.id() => Some(&reader.keys.kem),
            _ => None,
        }
    }

    /// The newest epoch and its public key.
    pub(crate) fn sealed_to(&self) -> (u32, KemPublic) {
        self.chain().sealed_to()
    }

    /// Opens one envelope; `None` if it is for somebody else.
    pub(crate) fn open_one(
        &self,
        run: &RunId,
        envelope: &EnvelopeFile,
    ) -> Option<runvault_format::Result<RunKey>> {
        let name: EnvelopeName = envelope.name.parse().ok()?;
        let key = self.key_for(&name)?;
        let vault = self.chain().vault_id();
        Some(envelope_file::open_run_key(key, &vault, run, &name.recipient(), &envelope.bytes))
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

    fn vault_id(&self) -> VaultId {
        self.chain().vault_id()
    }

    fn gateway_key(&self, id: &IdentityId) -> Option<GatewayKey> {
        let known = self.chain().gateway_key(id);
        known.or_else(|| {
            self.refresh();
            self.chain().gateway_key(id)
        })
    }

    fn envelope_names(&self) -> Vec<String> {
        match &self.keys {
            Keys::None => Vec::new(),
            Keys::Vault(epochs) => {
                epochs.newest_first().map(|e| EnvelopeName::Vault(e).to_string()).collect()
            }
            Keys::Reader(reader) => vec![EnvelopeName::Reader(reader.id()).to_string()],
        }
    }

    fn open_run(&self, run: &RunId, envelopes: &[EnvelopeFile]) -> runvault_vault::Result<Option<RunKey>> {
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

    fn opens_every_run(&self) -> bool {
        let Keys::Vault(epochs) = &self.keys else { return false };
        // A rotation that this identity does not know yet seals runs to a key that it lacks.
        self.refreshed() && epochs.get(self.chain().epoch()).is_some()
    }

    fn seal_run(&self, run: &RunId, key: &RunKey) -> runvault_vault::Result<Sealed> {
        let now = clock::now();
        let chain = self.chain();
        let (vault, (e, kem)) = (chain.vault_id(), chain.sealed_to());
        let readers = chain.standing_readers(&now);
        let recipients = std::iter::once((EnvelopeName::Vault(e), kem))
            .chain(readers.into_iter().map(|(id, kem)| (EnvelopeName::Reader(id), kem)));
        let envelopes = recipients
            .map(|(name, kem)| seal_one(&vault, run, &name, &kem, key))
            .collect::<runvault_format::Result<_>>()?;
        Ok(Sealed { state: chain.state_ref(), epoch: e, envelopes })
    }
}

/// One file of a run's `keys/`.
pub(crate) fn seal_one(
    vault: &VaultId,
    run: &RunId,
    name: &EnvelopeName,
    kem: &KemPublic,
    key: &RunKey,
) -> runvault_format::Result<EnvelopeFile> {
    let bytes = envelope_file::seal_run_key(kem, vault, run, &name.recipient(), key)?;
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use runvault_crypto::secrets::Secret;
    use runvault_store::doubles::faulty::{Fault, Faults, Rule};
    use runvault_store::doubles::observe::{Call, Observer, Op, observe};
    use runvault_vault::authority::Gateway;

    use super::*;
    use crate::identity::Identity;
    use crate::rotate::rotate;
    use crate::testing::{custody, enrolled, envelopes, make_run, put, vault};

    fn opens(
        authority: &dyn Authority,
        run: &RunId,
        files: &[EnvelopeFile],
    ) -> std::result::Result<Option<RunKey>, String> {
        authority.open_run(run, files).map_err(|e| e.to_string())
    }

    #[test]
    fn the_owner_opens_what_a_gateway_sealed() {
        let (root, owner, mut chain) = vault();
        let gateway = enrolled(&root, &mut chain, &owner);
        let (run, key) = make_run(&root, &chain, &gateway);
        let files = envelopes(&root, &run);
        assert_eq!(files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["vault-1"]);
        let acting = Acting::open(&root, chain.clone(), &owner).unwrap();
        let opened = opens(&*acting, &run, &files).unwrap().unwrap();
        assert_eq!(opened.0.expose(), key.0.expose());
        let blind = Acting::gateway_only(chain.clone());
        assert!(opens(&*blind, &run, &files).unwrap().is_none());
        let sealed = blind.seal_run(&run, &key).unwrap();
        assert_eq!((sealed.state, sealed.epoch), (chain.state_ref(), 1));
    }

    #[test]
    fn new_runs_follow_a_rotation_and_no_rollback() {
        let (root, owner, chain) = vault();
        let acting = Acting::open(&root, chain.clone(), &owner).unwrap();
        let sealed = || {
            let sealed = acting.seal_run(&RunId([1; 16]), &RunKey(Secret::copy_from(&[2; 32]))).unwrap();
            let [envelope] = &sealed.envelopes[..] else { panic!("{:?}", sealed.envelopes) };
            assert_eq!(envelope.name, format!("vault-{}", sealed.epoch));
            (sealed.epoch, sealed.state.n)
        };
        assert!(acting.opens_every_run());
        rotate(&root, &chain, &owner, &mut |_, _| {}).unwrap();
        assert_eq!(sealed(), (1, 0), "until it looks");
        assert!(!acting.opens_every_run(), "it lacks the newest key");
        assert_eq!(sealed(), (2, 1));
        put(&custody(&root), "audit.log", b"");
        acting.refresh();
        assert_eq!(sealed(), (2, 1), "an older chain is not taken");
    }

    #[test]
    fn a_chain_that_cannot_be_read_says_nothing_about_newer_keys() {
        let (root, owner, chain) = vault();
        let (root, faults) = Faults::over(root).unwrap();
        let acting = Acting::open(&root, chain, &owner).unwrap();
        assert!(acting.opens_every_run());
        faults.add(Rule::next(Op::OpenDir, Fault::Fail(libc::EIO)));
        assert!(!acting.opens_every_run());
        assert!(acting.opens_every_run());
    }

    #[test]
    fn envelopes_do_not_open_in_another_place() {
        let (root, owner, mut chain) = vault();
        let gateway = enrolled(&root, &mut chain, &owner);
        let (one, _) = make_run(&root, &chain, &gateway);
        let (two, _) = make_run(&root, &chain, &gateway);
        let acting = Acting::open(&root, chain.clone(), &owner).unwrap();
        let refused = opens(&*acting, &two, &envelopes(&root, &one)).unwrap_err();
        assert!(refused.contains("keys/vault-1") && refused.contains("does not open"), "{refused}");
        let mut renamed = envelopes(&root, &one);
        renamed[0].name = "vault-2".to_owned();
        assert!(opens(&*acting, &one, &renamed).unwrap().is_none(), "an epoch that is not known");
        let mut torn = envelopes(&root, &one);
        torn[0].bytes.truncate(100);
        assert!(opens(&*acting, &one, &torn).is_err());
        // Another vault's key, under the same run id.
        let (elsewhere, stranger, other) = vault();
        let acting = Acting::open(&elsewhere, other, &stranger).unwrap();
        assert!(opens(&*acting, &one, &envelopes(&root, &one)).is_err());
        assert!(opens(&*acting, &one, &[]).unwrap().is_none());
    }

    #[test]
    fn a_gateway_that_is_enrolled_later_is_known_and_a_log_that_was_changed_is_not_believed() {
        let (root, owner, chain) = vault();
        let acting = Acting::open(&root, chain.clone(), &owner).unwrap();
        let mut later = chain;
        let first = enrolled(&root, &mut later, &owner).id();
        assert!(acting.gateway_key(&first).is_some());
        let second = enrolled(&root, &mut later, &owner).id();
        assert!(acting.gateway_key(&second).is_some() && acting.gateway_key(&first).is_some());
        assert!(acting.gateway_key(&owner.id()).is_none());
        let custody = root.open_dir(b"custody").unwrap();
        let log = later.log();
        runvault_store::replace::replace(&*custody, b"audit.log", log.get(1..).unwrap(), 0o644).unwrap();
        assert!(acting.gateway_key(&owner.id()).is_none() && acting.gateway_key(&second).is_some());
    }

    struct Reads(AtomicUsize);

    impl Observer for Reads {
        fn around(&self, call: Call<'_>, run: &mut dyn FnMut() -> io::Result<u64>) -> io::Result<()> {
            self.0.fetch_add(usize::from(call.op == Op::Read), Ordering::Relaxed);
            run().map(drop)
        }
    }

    #[test]
    fn a_log_that_stays_the_same_is_read_once_however_many_signers_are_unknown() {
        let (root, owner, mut chain) = vault();
        let reads = Arc::new(Reads(AtomicUsize::new(0)));
        let watched = observe(root.clone(), reads.clone()).unwrap();
        let acting = Acting::open(&watched, chain.clone(), &owner).unwrap();
        let read_by = |id: IdentityId| {
            let before = reads.0.load(Ordering::Relaxed);
            (acting.gateway_key(&id).is_some(), reads.0.load(Ordering::Relaxed) > before)
        };
        assert_eq!(read_by(IdentityId([1; 16])), (false, true));
        assert_eq!(read_by(IdentityId([2; 16])), (false, false));
        assert!(acting.opens_every_run());
        let later = enrolled(&root, &mut chain, &owner).id();
        assert_eq!(read_by(later), (true, true));
        assert_eq!(read_by(later), (true, false));
        // What is not believed costs no more.
        put(&custody(&root), "audit.log", &[b'x'; 1000]);
        read_by(IdentityId([1; 16]));
        assert_eq!(read_by(IdentityId([2; 16])), (false, false));
        assert!(!acting.opens_every_run());
    }

    #[test]
    fn wrong_keys_are_told_which_one_is_needed() {
        let (_, owner, chain) = vault();
        let stranger = Identity::generate("stranger").unwrap();
        let refused = Acting::opened(chain.clone(), &stranger).unwrap_err();
        let Error::WrongKey { needed, given } = refused else { panic!("{refused}") };
        assert!(needed.contains(&owner.id().to_string()) && given.contains("stranger"));
        let mut bound = owner.again().unwrap();
        bound.vault = Some(VaultId([9; 32]));
        let refused = Acting::opened(chain, &bound).unwrap_err();
        let Error::OtherVault { needed, given, .. } = refused else { panic!("{refused}") };
        assert!(needed.contains(&owner.id().to_string()) && given.contains("owner"));
    }
}
