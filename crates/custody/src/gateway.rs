//! A writing machine: its identity, its open runs' keys, its place in its own chain of runs.

mod place;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use runvault_format::ids::{Digest, IdentityId, RunId, SessionId, VaultId};
use runvault_format::note;
use runvault_format::public_key::PublicKey;
use runvault_format::retired::Retired;
use runvault_format::run_index::{IndexKey, Rows};
use runvault_format::seal_note::SealNote;
use runvault_store::backend::Dir;
use runvault_vault::authority::{ChainPlace, Gateway, Resume, SealPlace};

pub(crate) use self::place::{Head, Pending, SealHead};
use self::place::{PENDING, PENDING_SEAL, PendingSeal, Place, damaged, parse_own};
use crate::chain::Chain;
use crate::held_keys::HeldKeys;
use crate::identity::Identity;
use crate::kek_home::{KekHome, Wish};
use crate::resume_entries::ResumeEntries;
use crate::sealed_names::SealedNames;
use crate::settle::{self, Newest};
use crate::state_folder::Folder;
use crate::{Error, Result, enroll, key_files, layout, public_file};

const IDENTITY: &str = "identity";
const LEDGER: &str = "ledger";

/// `<state dir>/<vault id>`, locked for this process.
pub struct StateFolder {
    folder: Folder,
    vault: VaultId,
    identity: Identity,
    entries: Mutex<HeldKeys>,
    names: Mutex<SealedNames>,
    ledgers: Arc<dyn Dir>,
    place: Mutex<Place>,
    /// The store, once [`StateFolder::settle`] was called.
    root: OnceLock<Arc<dyn Dir>>,
}

/// What [`StateFolder::settle`] had to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// A run whose making was cut short, and which the store has: it goes on.
    pub adopted: Option<RunId>,
    /// A run whose making was cut short before the store had it: a retired note says so.
    pub retired: Option<RunId>,
    /// The store has runs or seals of this gateway that the folder (restored from a backup?) did not know.
    pub restored: bool,
}

impl std::fmt::Debug for StateFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StateFolder({:?}, gateway {})", self.folder, self.identity.id())
    }
}

impl StateFolder {
    /// Whether the state folder has been made: [`StateFolder::open`] makes it otherwise.
    pub fn is_made(state_dir: &Path, vault: VaultId) -> bool {
        state_dir.join(vault.to_string()).join(IDENTITY).exists()
    }

    /// Whether `<state>/<vault id>` keeps a key of that run, without its lock and without opening any.
    pub fn keeps_key_of(folder: &Path, run: &RunId) -> bool {
        ResumeEntries::keeps(folder, run)
    }

    /// Makes or opens the folder (0700) and locks it.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Damaged`], [`Error::Permissions`], [`Error::Io`].
    pub fn open(state_dir: &Path, vault: VaultId) -> Result<StateFolder> {
        Self::open_with(state_dir, vault, Wish::AsItIs)
    }

    /// [`StateFolder::open`]; one that is made keeps its key where it is wished for.
    ///
    /// # Errors
    /// Also [`Error::KekElsewhere`] and [`Error::Tpm`].
    pub fn open_with(state_dir: &Path, vault: VaultId, wish: Wish) -> Result<StateFolder> {
        Self::with(Folder::open(state_dir, &vault)?.locked()?, vault, wish)
    }

    #[cfg(test)]
    pub(crate) fn on(folder: Folder, vault: VaultId) -> Result<StateFolder> {
        Self::with(folder, vault, Wish::AsItIs)
    }

    fn with(folder: Folder, vault: VaultId, wish: Wish) -> Result<StateFolder> {
        let identity = open_identity(&folder, vault)?;
        let entries = ResumeEntries::open(&folder, vault, wish)?;
        entries.erase_others()?;
        let place = Place::open(&folder, &identity)?;
        let names = Mutex::new(SealedNames::open(&folder, &identity)?);
        let ledgers = ledgers(&folder, &entries)?;
        let (entries, place) = (Mutex::new(HeldKeys::new(entries)), Mutex::new(place));
        Ok(Self { folder, vault, identity, entries, names, ledgers, place, root: OnceLock::new() })
    }

    /// The sessions of the runs that the folder holds, without its lock: what `check` compares journals
    /// with. `None` for each where there is no folder.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Permissions`], [`Error::Io`].
    pub fn sessions(state_dir: &Path, vault: VaultId) -> Result<impl Fn(&RunId) -> Option<SessionId>> {
        let path = state_dir.join(vault.to_string());
        let entries = if path.is_dir() {
            match ResumeEntries::existing(&Folder::open(state_dir, &vault)?, vault) {
                // Whoever checks a store need not be one who may use the TPM.
                Err(error @ Error::Tpm { .. }) => {
                    log::warn!("journals are not compared with what this machine holds: {error}");
                    None
                }
                other => other?,
            }
        } else {
            None
        };
        // An entry that does not open says nothing about the journal.
        Ok(move |run: &RunId| Some(entries.as_ref()?.get(run).ok().flatten()?.session))
    }

    /// From now on the keys of open runs are kept in this process alone. Those that the state folder has stay until
    /// [`StateFolder::erase_kept_keys`], so that what fails before it serves anything closes no run.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Tpm`].
    pub fn keep_no_keys(&self) -> Result<()> {
        self.entries().keep_none()
    }

    /// After [`StateFolder::keep_no_keys`]: who has the machine later opens no run, and one that is open when the process
    /// ends is closed. Nothing where keys are kept.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Tpm`].
    pub fn erase_kept_keys(&self) -> Result<()> {
        self.entries().erase_kept()
    }

    /// Whether the keys of open runs outlive the process.
    pub fn keeps_keys(&self) -> bool {
        self.entries().are_kept()
    }

    /// Of what it keeps of sealed runs.
    pub fn index_key(&self) -> IndexKey {
        self.identity.index_key(&self.vault)
    }

    /// Where it keeps the key that seals them.
    pub fn kek_home(&self) -> KekHome {
        self.entries().home()
    }

    /// [`StateFolder::kek_home`] without its lock, and without asking a TPM; `None` where there is no folder.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Permissions`], [`Error::Io`].
    pub fn kek_home_of(state_dir: &Path, vault: VaultId) -> Result<Option<KekHome>> {
        match Folder::existing(state_dir, &vault)? {
            Some(folder) => ResumeEntries::home_of(&folder, vault),
            None => Ok(None),
        }
    }

    /// The lock file then names the mount point, and this process, to whoever finds the folder
    /// busy. To be called after the last fork.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn note_mountpoint(&self, mountpoint: &Path) -> Result<()> {
        self.folder.note_holder(Some(mountpoint))
    }

    /// What it shows of itself, under its own label or another.
    pub fn public(&self, label: Option<&str>) -> PublicKey {
        public_file::of(&self.identity, label)
    }

    /// Writes [`StateFolder::public`] to a file, signed by the identity; never overwrites.
    ///
    /// # Errors
    /// [`Error::FileExists`], [`Error::Io`].
    pub fn write_public(&self, path: &Path, label: Option<&str>) -> Result<()> {
        public_file::write_new(path, &self.identity, label)
    }

    /// The vaults that this machine writes, or once did, by their folders.
    pub fn vaults(state_dir: &Path) -> Vec<VaultId> {
        let names = std::fs::read_dir(state_dir).into_iter().flatten().flatten();
        let vaults = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut vaults: Vec<VaultId> = vaults.filter(|vault| Self::is_made(state_dir, *vault)).collect();
        vaults.sort_unstable();
        vaults
    }

    /// [`Error::NotEnrolled`] unless this gateway is enrolled; [`Error::Revoked`] where it was.
    ///
    /// # Errors
    /// Those.
    pub fn require_enrolled(&self, chain: &Chain) -> Result<()> {
        require_enrolled(chain, &self.identity.id())
    }

    /// [`StateFolder::require_enrolled`] without its lock: while a mount has it.
    ///
    /// # Errors
    /// Those; [`Error::Damaged`], [`Error::Permissions`], [`Error::Io`].
    pub fn require_enrolled_in_use(state_dir: &Path, chain: &Chain) -> Result<()> {
        let folder = Folder::open(state_dir, &chain.vault_id())?;
        let bytes =
            folder.read_secret(IDENTITY)?.ok_or_else(|| damaged(&folder, IDENTITY, "it is missing"))?;
        let file = key_files::KeyFile::parse(&bytes).map_err(|e| renamed(&folder, e))?;
        require_enrolled(chain, &file.id())
    }

    /// Enrols this gateway: one line of the audit log, signed by the owner. Nothing if it is.
    ///
    /// # Errors
    /// [`Error::NotEnrolled`] where this key alone cannot; [`Error::Revoked`], [`Error::ChangedMeanwhile`].
    pub fn enroll(&self, root: &Arc<dyn Dir>, chain: &mut Chain, owner: &Identity) -> Result<()> {
        match self.require_enrolled(chain) {
            Err(Error::NotEnrolled { .. }) if enroll::is_sole_custodian(chain, owner) => {
                let reason = "first use of its state folder";
                *chain = enroll::enroll(root, chain, owner, &self.public(None), reason)?;
                Ok(())
            }
            known => known,
        }
    }

    /// Finishes what a killed process left: a pending run is adopted or retired; runs of this
    /// gateway that the folder does not know are counted. To be called before a writing mount. On a store
    /// that is read-only or full a pending run stays; no other begins before it is settled.
    ///
    /// # Errors
    /// The store's, [`Error::Damaged`].
    pub fn settle(&self, root: &Arc<dyn Dir>) -> Result<Settled> {
        let settled = self.settle_at_once(root, Rows::new())?;
        Ok(Settled { restored: self.count_newer()?, ..settled })
    }

    /// [`StateFolder::settle`], however many runs the store has: those of this gateway that the folder does not know are
    /// looked for later, by [`StateFolder::count_newer`] or when the next run or seal begins. `known`: what earlier
    /// mounts have verified, which is not read again.
    ///
    /// # Errors
    /// As of [`StateFolder::settle`].
    pub fn settle_at_once(&self, root: &Arc<dyn Dir>, known: Rows) -> Result<Settled> {
        let _ = self.root.set(root.clone());
        let mut place = self.place();
        let settled = match self.settle_pending(root, &mut place) {
            // Room is made by a mount that can remove something.
            Err(Error::Io { object, source, .. })
                if matches!(source.raw_os_error(), Some(libc::EROFS | libc::ENOSPC | libc::EDQUOT)) =>
            {
                log::warn!("{object}: {source}: a run whose making was cut short is settled later");
                Settled::default()
            }
            other => other?,
        };
        self.settle_seal(root, &mut place)?;
        place.uncounted = Some(known);
        Ok(settled)
    }

    /// Looks through the store for runs and seals of this gateway that the folder does not know, unless that was done;
    /// whether there were any.
    ///
    /// # Errors
    /// The store's, [`Error::Io`].
    pub fn count_newer(&self) -> Result<bool> {
        self.count(&mut self.place())
    }

    /// No number is given to two runs, nor to two seals.
    fn count(&self, place: &mut Place) -> Result<bool> {
        let (Some(root), Some(known)) = (self.root.get(), &place.uncounted) else { return Ok(false) };
        let ours = (self.identity.id(), self.identity.keys.sign.public());
        let before = Newest { run: place.head, seal: place.seals };
        let newest = settle::newest_besides(root, ours, before, known)?;
        if let Some(newer) = newest.run.filter(|_| newest.run != before.run) {
            place.write_head(newer)?;
        }
        if let Some(newer) = newest.seal.filter(|_| newest.seal != before.seal) {
            place.write_seals(newer)?;
        }
        place.uncounted = None;
        let restored = newest != before;
        if restored {
            log::warn!(
                "the store has runs of this machine that its state folder did not know; they are counted again"
            );
        }
        Ok(restored)
    }

    fn settle_pending(&self, root: &Arc<dyn Dir>, place: &mut Place) -> Result<Settled> {
        let mut settled = Settled::default();
        let Some(pending) = place.pending.clone() else { return Ok(settled) };
        let run = pending.head.run;
        if settle::is_in_store(root, &pending)? {
            settled.adopted = Some(run);
        } else {
            let note = self.retired_note(&run, &pending.note, &crate::clock::now())?;
            settle::put_retired(root, &run, &note)?;
            self.entries().remove(&run)?;
            settled.retired = Some(run);
        }
        place.pending_becomes_head(&pending)?;
        Ok(settled)
    }

    /// A seal's note, kept until the seal is committed: no number is given to two runs.
    fn begin_seal(
        &self,
        run: &RunId,
        text: &mut dyn FnMut(SealPlace) -> runvault_vault::Result<String>,
    ) -> Result<Vec<u8>> {
        let mut place = self.place();
        if let Some(root) = self.root.get() {
            self.settle_seal(root, &mut place)?;
        }
        if let Some(PendingSeal { seal: pending, .. }) = place.pending_seal(&self.identity)? {
            let what = format!("the seal of run {} is to be finished first: mount again", pending.run);
            return Err(damaged(&self.folder, PENDING_SEAL, what));
        }
        self.count(&mut place)?;
        let n = place.seals.map_or(0, |seals| seals.n).saturating_add(1);
        let text = text(SealPlace { n, prev: place.seals.map(|seals| seals.hash) })?;
        let note = note::sign(&text, &self.identity.id(), &self.identity.keys.sign);
        let pending = place.parse_seal(note, &self.identity)?;
        if pending.seal.run != *run || pending.seal.n != n {
            return Err(damaged(&self.folder, PENDING_SEAL, "the seal names another run or place"));
        }
        self.folder.write(PENDING_SEAL, &pending.note)?;
        Ok(pending.note)
    }

    /// The pending seal is in the store: it counts, and the run's key is erased.
    fn commit_seal(&self, run: &RunId, name: &[u8]) -> Result<()> {
        let mut place = self.place();
        let pending = place.pending_seal(&self.identity)?;
        let PendingSeal { seal: pending, hash, .. } =
            pending.ok_or_else(|| damaged(&self.folder, PENDING_SEAL, "missing"))?;
        if pending.run != *run {
            return Err(damaged(&self.folder, PENDING_SEAL, format!("of run {}, not of {run}", pending.run)));
        }
        self.names().put(name, *run, hash)?;
        self.seal_becomes_head(&mut place, &pending, hash)
    }

    /// Also once more where it was cut short.
    fn seal_becomes_head(&self, place: &mut Place, pending: &SealNote, hash: Digest) -> Result<()> {
        place.write_seals(SealHead { n: pending.n, hash, run: pending.run })?;
        self.entries().erase(&pending.run)?;
        self.folder.remove(PENDING_SEAL)
    }

    /// A seal that was begun and is not in the store never was one: its number is free. One that is there, and whose
    /// run has no key here any more, was committed but for its end.
    fn settle_seal(&self, root: &Arc<dyn Dir>, place: &mut Place) -> Result<()> {
        let Some(PendingSeal { note, seal: pending, hash }) = place.pending_seal(&self.identity)? else {
            return Ok(());
        };
        if settle::seal_note(root, &pending.run)?.is_none_or(|found| found != note) {
            return self.folder.remove(PENDING_SEAL);
        }
        let key = self.entries().get(&pending.run);
        match key {
            // The engine reads it back and commits it.
            Ok(Some(_)) => Ok(()),
            Ok(None) | Err(Error::Damaged { .. }) => self.seal_becomes_head(place, &pending, hash),
            Err(error) => Err(error),
        }
    }

    fn names(&self) -> MutexGuard<'_, SealedNames> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self) -> MutexGuard<'_, HeldKeys> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(
        &self,
        run: &RunId,
        resume: &Resume,
        text: &mut dyn FnMut(ChainPlace) -> runvault_vault::Result<String>,
    ) -> Result<Vec<u8>> {
        let mut place = self.place();
        if place.pending.is_some() {
            let root = self.root.get().ok_or_else(|| Error::Damaged {
                object: self.folder.shown(PENDING),
                why: "an unfinished run is to be settled first".to_owned(),
            })?;
            self.settle_pending(root, &mut place)?;
        }
        self.count(&mut place)?;
        let prev = place.head.map(|head| head.hash);
        let seq = place.head.map_or(0, |head| head.seq).saturating_add(1);
        let text = text(ChainPlace {
            seq,
            prev: prev.map(|p| p.0),
            seals: place.seals.map_or(0, |seals| seals.n),
            seals_hash: place.seals.map(|seals| seals.hash),
        })?;
        let note = note::sign(&text, &self.identity.id(), &self.identity.keys.sign);
        let pending = parse_own(note, &self.identity).map_err(|e| damaged(&self.folder, PENDING, e))?;
        if pending.head.run != *run || pending.head.seq != seq || pending.prev != prev {
            return Err(damaged(&self.folder, PENDING, "run.json names another run or place"));
        }
        // The pending run first: an entry without one would look like a run that is held.
        self.folder.write(PENDING, &pending.note)?;
        place.pending = Some(pending.clone());
        self.entries().put(run, resume)?;
        Ok(pending.note)
    }

    fn commit(&self, run: &RunId) -> Result<()> {
        let mut place = self.place();
        match place.pending.clone() {
            Some(pending) if pending.head.run == *run => place.pending_becomes_head(&pending),
            // A run that was settled in the meantime may have got a retired note: it must not go on.
            _ => Err(damaged(&self.folder, PENDING, format!("run {run} is not the pending one"))),
        }
    }

    /// The text of `retired/<run>`, signed: only for a run that this gateway made.
    fn retired_note(&self, run: &RunId, run_note: &[u8], time: &str) -> Result<Vec<u8>> {
        let object = || format!("runs/{run}/run.json");
        let made = parse_own(run_note.to_vec(), &self.identity).map_err(|e| Error::damaged(object(), e))?;
        if made.head.run != *run {
            return Err(Error::Damaged { object: object(), why: "of another run".to_owned() });
        }
        let retired = Retired {
            vault: self.vault,
            run: *run,
            gateway: self.identity.id(),
            seq: made.head.seq,
            run_note: made.head.hash,
            prev: made.prev,
            time: time.to_owned(),
        };
        Ok(note::sign(&retired.to_text()?, &self.identity.id(), &self.identity.keys.sign))
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gateway for StateFolder {
    fn id(&self) -> IdentityId {
        self.identity.id()
    }
    fn holder(&self) -> String {
        self.identity.id().to_string()
    }
    fn begin_run(
        &self,
        run: &RunId,
        resume: &Resume,
        text: &mut dyn FnMut(ChainPlace) -> runvault_vault::Result<String>,
    ) -> runvault_vault::Result<Vec<u8>> {
        Ok(self.begin(run, resume, text)?)
    }
    fn commit_run(&self, run: &RunId) -> runvault_vault::Result<()> {
        Ok(self.commit(run)?)
    }
    fn retire_run(&self, run: &RunId, run_note: &[u8], time: &str) -> runvault_vault::Result<Vec<u8>> {
        Ok(self.retired_note(run, run_note, time)?)
    }
    fn begin_seal(
        &self,
        run: &RunId,
        text: &mut dyn FnMut(SealPlace) -> runvault_vault::Result<String>,
    ) -> runvault_vault::Result<Vec<u8>> {
        Ok(StateFolder::begin_seal(self, run, text)?)
    }
    fn commit_seal(&self, run: &RunId, name: &[u8]) -> runvault_vault::Result<()> {
        Ok(StateFolder::commit_seal(self, run, name)?)
    }
    fn sealed_as(&self, name: &[u8]) -> runvault_vault::Result<Option<(RunId, Digest)>> {
        Ok(self.names().get(name))
    }
    fn resume(&self, run: &RunId) -> runvault_vault::Result<Option<Resume>> {
        Ok(self.entries().get(run)?)
    }
    fn hold(&self, run: &RunId, resume: &Resume) -> runvault_vault::Result<()> {
        Ok(self.entries().put(run, resume)?)
    }
    fn release(&self, run: &RunId) -> runvault_vault::Result<()> {
        Ok(self.entries().erase(run)?)
    }
    fn held(&self) -> runvault_vault::Result<Vec<RunId>> {
        Ok(self.entries().runs()?)
    }
    fn ledgers(&self) -> Option<Arc<dyn Dir>> {
        Some(self.ledgers.clone())
    }
}

/// The directory of ledgers, without those of runs that are not held any more.
fn ledgers(folder: &Folder, entries: &ResumeEntries) -> Result<Arc<dyn Dir>> {
    let (ledgers, held) = (folder.subfolder(LEDGER)?, entries.runs()?);
    for name in layout::names(ledgers.dir(), &ledgers.shown(""))? {
        let name = String::from_utf8_lossy(&name);
        if name.parse().is_ok_and(|run| !held.contains(&run)) {
            ledgers.remove(&name)?;
        }
    }
    Ok(ledgers.dir().clone())
}

fn require_enrolled(chain: &Chain, gateway: &IdentityId) -> Result<()> {
    match chain.gateway_key(gateway) {
        Some(known) if known.until.is_none() => Ok(()),
        Some(_) => Err(enroll::revoked(gateway)),
        None => Err(enroll::not_enrolled(gateway)),
    }
}

/// The gateway's identity, made at first use.
fn open_identity(folder: &Folder, vault: VaultId) -> Result<Identity> {
    if let Some(bytes) = folder.read_secret(IDENTITY)? {
        let file = key_files::KeyFile::parse(&bytes).map_err(|e| renamed(folder, e))?;
        let identity = key_files::unlock(&file, &mut key_files::NoPrompt)?;
        return match identity.vault {
            Some(bound) if bound == vault => Ok(identity),
            _ => Err(damaged(folder, IDENTITY, "of another vault")),
        };
    }
    let mut identity = Identity::generate(&gateway_label())?;
    identity.vault = Some(vault);
    let file = key_files::lock(&identity, &key_files::NewLock::None, identity.vault)?;
    folder.write(IDENTITY, &file.to_bytes()?)?;
    Ok(identity)
}

fn renamed(folder: &Folder, error: Error) -> Error {
    match error {
        Error::Damaged { why, .. } => damaged(folder, IDENTITY, why),
        other => other,
    }
}

/// The host's name, which custody/ then shows.
fn gateway_label() -> String {
    let uname = rustix::system::uname();
    let host: String =
        uname.nodename().to_string_lossy().chars().filter(|c| !c.is_control()).take(64).collect();
    if host.is_empty() { "gateway".to_owned() } else { host }
}
