//! Making a vault, and knowing what an `init` that was killed has left.
//!
//! `.init` is the first thing made and the last removed, vault.json the last thing made: a directory
//! with the one and without the other is an unfinished vault, which cannot hold a run yet.

use std::sync::Arc;

use runvault_crypto::random;
use runvault_format::custody_state::{Custodian, State};
use runvault_format::genesis::{Genesis, vault_id};
use runvault_format::ids::{Salt, VaultId};
use runvault_format::vault_file;
use runvault_store::backend::Dir;
use runvault_store::replace::{create, replace};

use crate::chain::Chain;
use crate::epochs::{EpochKeys, SharedKey};
use crate::identity::Identity;
use crate::key_files::KeyFile;
use crate::kinds::NewLock;
use crate::layout::{
    self, AUDIT_LOG, CUSTODY, DIR_MODE, GENESIS, INIT_MARKER, LOCKS, PUBLIC_MODE, RETIRED, RUNS, VAULT_JSON,
};
use crate::{Error, Result, clock, key_files, locks};

/// File systems put this into their root; it is no one's data.
const NOT_OURS: &[u8] = b"lost+found";
/// So many foreign names are told.
const NAMES_TOLD: usize = 5;

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Empty,
    /// A vault.
    Vault,
    /// What a killed `init` left.
    KilledInit,
    /// Something else: these names, the first few of them.
    NotEmpty(Vec<String>),
}

/// Looks at a directory without trusting it.
///
/// # Errors
/// The store's.
pub fn inspect(root: &Arc<dyn Dir>) -> Result<Found> {
    let mut names = layout::names(root, ".")?;
    names.retain(|name| name != NOT_OURS);
    let has = |wanted: &str| names.iter().any(|name| name == wanted.as_bytes());
    if has(VAULT_JSON) {
        Ok(Found::Vault)
    } else if has(INIT_MARKER) {
        Ok(Found::KilledInit)
    } else if names.is_empty() {
        Ok(Found::Empty)
    } else {
        Ok(Found::NotEmpty(told(names)))
    }
}

/// The names that a killed `init` left, for a person to remove.
pub(crate) fn leftovers(root: &Arc<dyn Dir>) -> String {
    let mut names = layout::names(root, ".").unwrap_or_default();
    names.retain(|name| name != NOT_OURS);
    told(names).join(", ")
}

fn told(mut names: Vec<Vec<u8>>) -> Vec<String> {
    names.sort();
    names
        .iter()
        .take(NAMES_TOLD)
        .map(|name| String::from_utf8_lossy(name).escape_debug().to_string())
        .collect()
}

/// A vault that is not written yet: its id is known, so that a key file can be bound to it and be
/// durable before the store changes.
#[derive(Debug)]
pub struct NewVault {
    vault: VaultId,
    genesis: String,
    state: State,
}

impl NewVault {
    /// A vault of one owner, 1 of 1.
    ///
    /// # Errors
    /// No random bytes; a label that is empty, too long or has control characters.
    pub fn prepare(owner: &Identity) -> Result<Self> {
        Self::of_custodians(vec![Custodian::new(&owner.label, &owner.public())], 1)
    }

    /// A vault of several custodians, of whom an operation needs `quorum`.
    ///
    /// # Errors
    /// No random bytes; a quorum that cannot be reached, a custodian twice.
    pub fn of_custodians(custodians: Vec<Custodian>, quorum: u8) -> Result<Self> {
        let epoch = SharedKey::draw(quorum, &custodians)?;
        let mut salt = Salt([0; 16]);
        random::fill(&mut salt.0)?;
        let kem = epoch.kem().clone();
        let shares = epoch.first_shares(&custodians);
        let genesis = Genesis::new(quorum, custodians.clone(), kem, shares, clock::now(), salt);
        let text = genesis.to_text()?;
        let vault = vault_id(text.as_bytes());
        let mut state = State::zero(&genesis, vault);
        // Only now: an envelope names the vault that it is for.
        for first in &mut state.epochs {
            first.shares = epoch.shares(&vault, 0, first.e, &custodians)?;
        }
        Ok(Self { vault, genesis: text, state })
    }

    /// SHA-256 of its genesis.
    pub fn vault_id(&self) -> VaultId {
        self.vault
    }

    /// Writes it; `lock_in_store` keeps the owner's key file in custody/locks.
    ///
    /// # Errors
    /// [`Error::NotEmpty`], [`Error::KilledInit`], [`Error::UnlockedInStore`]; the store's.
    pub fn write(self, root: &Arc<dyn Dir>, owner: &Identity, lock_in_store: Option<&NewLock>) -> Result<()> {
        refuse_unless_empty(root)?;
        // Locked before anything is written: it takes the longest and may be refused.
        let key_file = lock_in_store.map(|new| key_files::lock(owner, new, Some(self.vault))).transpose()?;
        if key_file.as_ref().is_some_and(|file| !file.has_passphrase()) {
            return Err(Error::UnlockedInStore);
        }
        // Seen to open before it is called a vault.
        self.put(root, key_file.as_ref(), |chain| EpochKeys::open(chain, owner).map(drop))
    }

    /// Writes one whose custodians keep their key files to themselves: nothing of them is in the store.
    ///
    /// # Errors
    /// [`Error::NotEmpty`], [`Error::KilledInit`]; the store's.
    pub fn write_shared(self, root: &Arc<dyn Dir>) -> Result<()> {
        refuse_unless_empty(root)?;
        self.put(root, None, |_| Ok(()))
    }

    fn put(
        self,
        root: &Arc<dyn Dir>,
        key_file: Option<&KeyFile>,
        opens: impl FnOnce(&Chain) -> Result<()>,
    ) -> Result<()> {
        write_new(root, INIT_MARKER, INIT_MARKER, b"runvault/1 init\n")?;
        self.write_custody(root)?;
        if let Some(file) = key_file {
            locks::write(root, file)?;
        }
        for (name, object) in [(RUNS, RUNS), (RETIRED, RETIRED)] {
            layout::ensure_dir(root, name, DIR_MODE, object)?;
        }
        let vault_json = vault_file::to_bytes(&self.vault)?;
        replace(&**root, VAULT_JSON.as_bytes(), &vault_json, PUBLIC_MODE)
            .map_err(|e| Error::io("write", VAULT_JSON, e))?;
        opens(&Chain::load(root)?)?;
        root.unlink(INIT_MARKER.as_bytes()).map_err(|e| Error::io("remove", INIT_MARKER, e))?;
        root.sync().map_err(|e| Error::io("sync", ".", e))
    }

    fn write_custody(&self, root: &Arc<dyn Dir>) -> Result<()> {
        let custody = layout::ensure_dir(root, CUSTODY, DIR_MODE, CUSTODY)?;
        layout::ensure_dir(&custody, LOCKS, DIR_MODE, "custody/locks")?;
        let state_0 = self.state.to_text()?;
        write_new(&custody, GENESIS, "custody/genesis", self.genesis.as_bytes())?;
        write_new(&custody, &layout::state_name(0), "custody/state-0", state_0.as_bytes())?;
        write_new(&custody, AUDIT_LOG, "custody/audit.log", b"")
    }
}

fn refuse_unless_empty(root: &Arc<dyn Dir>) -> Result<()> {
    match inspect(root)? {
        Found::Empty => Ok(()),
        Found::KilledInit => Err(Error::KilledInit { left: leftovers(root) }),
        Found::Vault => Err(Error::NotEmpty(vec![VAULT_JSON.to_owned()])),
        Found::NotEmpty(names) => Err(Error::NotEmpty(names)),
    }
}

fn write_new(dir: &Arc<dyn Dir>, name: &str, object: &str, bytes: &[u8]) -> Result<()> {
    create(&**dir, name.as_bytes(), bytes, PUBLIC_MODE).map_err(|e| Error::io("write", object, e))
}

/// Both at once.
///
/// # Errors
/// As [`NewVault::write`].
pub fn init(root: &Arc<dyn Dir>, owner: &Identity, lock_in_store: Option<&NewLock>) -> Result<VaultId> {
    let new = NewVault::prepare(owner)?;
    let id = new.vault_id();
    new.write(root, owner, lock_in_store)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use runvault_store::backend::Rename;
    use runvault_store::doubles::memory::MemoryDir;

    use super::*;
    use crate::testing::{copy, get, killed_at, put, vault};

    #[test]
    fn a_new_vault_opens_and_has_its_modes() {
        let (root, owner, chain) = vault();
        assert_eq!(inspect(&root).unwrap(), Found::Vault);
        assert_eq!((chain.head().n, chain.epoch(), chain.quorum()), (0, 1, (1, 1)));
        assert_eq!(chain.custodians(), [("owner".to_owned(), owner.id())]);
        assert_eq!(chain.words().split(' ').count(), 12);
        assert_eq!(chain.state_ref().n, 0);
        EpochKeys::open(&chain, &owner).unwrap();
        let custody = root.open_dir(b"custody").unwrap();
        for (name, mode) in [("genesis", 0o644), ("state-0", 0o644), ("audit.log", 0o644), ("locks", 0o755)] {
            assert_eq!(custody.stat(name.as_bytes()).unwrap().mode & 0o777, mode, "{name}");
        }
        assert!(root.stat(INIT_MARKER.as_bytes()).is_err());
    }

    #[test]
    fn only_an_empty_directory_is_taken() {
        let (root, owner, _) = vault();
        assert!(matches!(init(&root, &owner, None), Err(Error::NotEmpty(names)) if names == ["vault.json"]));
        let root = MemoryDir::root();
        put(&root, "holiday.jpg", b"");
        assert!(matches!(init(&root, &owner, None), Err(Error::NotEmpty(names)) if names == ["holiday.jpg"]));
        assert!(
            matches!(Chain::load(&root), Err(Error::NotAVault { found }) if found.contains("holiday.jpg"))
        );
        let root = MemoryDir::root();
        root.create_dir(NOT_OURS, 0o700).unwrap();
        assert!(matches!(Chain::load(&root), Err(Error::NotAVault { found }) if found.contains("empty")));
        init(&root, &owner, None).unwrap();
    }

    #[test]
    fn a_vault_that_lacks_a_part_is_damaged_and_no_place_for_a_new_one() {
        for part in [VAULT_JSON, CUSTODY] {
            let (root, owner, _) = vault();
            root.rename(part.as_bytes(), &*root, b"aside", Rename::Over).unwrap();
            let refused = Chain::load(&root).unwrap_err();
            let named = match &refused {
                Error::Damaged { object, why } => object == part && why == "missing",
                Error::NoCustody => part == CUSTODY,
                _ => false,
            };
            assert!(named, "{refused}");
            assert!(matches!(init(&root, &owner, None), Err(Error::NotEmpty(_))));
        }
    }

    #[test]
    fn an_unlocked_key_does_not_go_into_the_store() {
        let (root, owner) = (MemoryDir::root(), Identity::generate("owner").unwrap());
        assert!(matches!(init(&root, &owner, Some(&NewLock::None)), Err(Error::UnlockedInStore)));
        assert_eq!(inspect(&root).unwrap(), Found::Empty);
    }

    #[test]
    fn a_killed_init_is_recognised_wherever_it_was_killed() {
        let owner = Identity::generate("owner").unwrap();
        for n in 0.. {
            let root = MemoryDir::root();
            let Some(_) = killed_at(&root, n, |root| init(root, &owner, None)) else { break };
            match inspect(&root).unwrap() {
                Found::Empty | Found::Vault => {}
                Found::KilledInit => {
                    assert!(matches!(Chain::load(&root), Err(Error::KilledInit { .. })), "call {n}");
                    let again = init(&root, &owner, None);
                    assert!(matches!(again, Err(Error::KilledInit { left }) if left.contains(".init")));
                }
                found => panic!("call {n}: {found:?}"),
            }
            if inspect(&root).unwrap() == Found::Vault {
                EpochKeys::open(&Chain::load(&root).unwrap(), &owner).unwrap();
            }
        }
    }

    #[test]
    fn versions_of_tomorrow_and_other_programs_are_named() {
        let (root, _, _) = vault();
        let good = String::from_utf8(get(&root, VAULT_JSON)).unwrap();
        let with = |text: &str| {
            let root = copy(&root);
            put(&root, VAULT_JSON, text.as_bytes());
            Chain::load(&root).unwrap_err()
        };
        let newer = with(&good.replace("\"version\":3", "\"version\":4"));
        assert!(matches!(newer, Error::UnknownVersion { version: 4, .. }), "{newer}");
        let other = with(&good.replace("\"runvault\"", "\"other\""));
        assert!(matches!(other, Error::NotAVault { .. }), "{other}");
        let (_, _, another) = vault();
        let swapped =
            with(&format!("{{\"magic\":\"runvault\",\"version\":3,\"vault\":\"{}\"}}\n", another.vault_id()));
        assert!(matches!(swapped, Error::Damaged { object, .. } if object == VAULT_JSON));
    }
}
