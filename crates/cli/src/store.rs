//! A store on the command line: opened, its chain verified, its owner's key asked for.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use runvault_custody::apart::{Place, with_custody};
use runvault_custody::authority::{Acting, only_reads};
use runvault_custody::chain::Chain;
use runvault_custody::gateway::StateFolder;
use runvault_custody::identity::Identity;
use runvault_custody::seen::Remembering;
use runvault_custody::{key_files, locks, pins};
use runvault_format::run_index::IndexKey;
use runvault_store::backend::Dir;
use runvault_store::posix;
use runvault_vault::authority::{Authority, Gateway};
use runvault_vault::{Options, Vault};

use crate::acts::Acts;
use crate::args::{Apart, Who};
use crate::exit::{Exit, refuse, refuse_with};
use crate::given::note_store;
use crate::output::{option, quoted, shown, warn};
use crate::prompt::Asker;
use crate::ticker::Ticker;

/// A store whose chain of custody was verified.
pub struct Store {
    /// As typed, for messages.
    path: PathBuf,
    /// Where its custody/ lies, if elsewhere.
    custody: Option<PathBuf>,
    /// Its root directory.
    pub root: Arc<dyn Dir>,
    /// The verified chain.
    pub chain: Chain,
    /// Where this machine keeps its state.
    pub state: PathBuf,
}

impl Store {
    /// In a command that is told to a person.
    pub fn typed(&self) -> String {
        quoted(&self.path)
    }

    /// How acts of custody begin here.
    pub fn acts(&self) -> Acts {
        let custody = option("custody", self.custody.as_deref());
        Acts::of(self.chain.quorum().0, self.typed() + &custody)
    }

    /// The command that moves something of `runs/` away within the store, to this name, or one like it that nothing has.
    pub fn aside(&self, name: &str, to: &str) -> String {
        let (store, is_free) = (self.typed(), |to: &String| self.path.join(to).symlink_metadata().is_err());
        let others = (2..).map(|n: u64| format!("{to}-{n}"));
        let free = std::iter::once(to.to_owned()).chain(others).find(is_free);
        format!("mv {store}/runs/{name} {store}/{}", free.unwrap_or_default())
    }

    /// For messages.
    pub fn named(&self) -> String {
        format!("the store {}", shown(&self.path))
    }

    /// Opens the directory and verifies everything from the genesis on, also against what this machine
    /// has seen before.
    ///
    /// # Errors
    /// Exit 1: missing, not a vault, unknown version; exit 4: damaged, or older than it was.
    pub fn open(path: &Path, who: &Who) -> Result<Store> {
        let root = open_store(path, &who.apart)?;
        let chain = load_chain(&root, path)?;
        let state = state_folder(who.state.as_deref())?;
        let store = Store { path: path.to_owned(), custody: who.apart.custody.clone(), root, chain, state };
        match store.pin(&store.chain) {
            Err(error) if error.downcast_ref().is_some_and(is_rollback) => {
                store.older_than_seen(&error, who)?
            }
            other => {
                other?;
                store.tell_needless(who);
            }
        }
        Ok(store)
    }

    /// Whoever accepts a rollback believes that there is one.
    fn tell_needless(&self, who: &Who) {
        let (line, epoch) = (self.chain.head().n, self.chain.epoch());
        if let Some(accepted) = who.accept_rollback {
            warn(&format!(
                "--accept-rollback {accepted} accepted nothing: this store was not rolled back. Its audit log ends at \
                 line {line}, vault key {epoch}; this machine has seen nothing newer"
            ));
        }
    }

    /// Notes the newest state that this machine has seen, so that an older one is refused from here on.
    ///
    /// # Errors
    /// Exit 4: the store is older than this machine has seen it; exit 1: it cannot be told what was seen.
    pub fn pin(&self, chain: &Chain) -> Result<()> {
        Ok(pins::check_and_advance(&self.state, &self.root, chain)?)
    }

    /// Refuses a store that is older than it was, or another one, unless a person has named where it ends.
    fn older_than_seen(&self, error: &anyhow::Error, who: &Who) -> Result<()> {
        let found = self.chain.head().n;
        if who.accept_rollback != Some(found) {
            let anew = recovered_at(&self.chain);
            return Err(refuse_with(Exit::Damaged, format!("{error}{anew}"), way_back(error, found)));
        }
        pins::accept_rollback(&self.state, &self.root, &self.chain, error)?;
        let what = format!("{error}; accepted by --accept-rollback {found}");
        log::warn!("{what}");
        let undone = match error.downcast_ref() {
            Some(runvault_custody::Error::RunGone { .. }) => String::new(),
            _ => format!(
                "; what was done after line {found} is undone. Make a new vault key: {}",
                self.acts().command("rotate", "")
            ),
        };
        warn(&format!("{what}{undone}"));
        Ok(())
    }

    /// Refuses an act of one key where more have to agree, before that key is asked for.
    ///
    /// # Errors
    /// Exit 1.
    pub fn require_one_custodian(&self, what: &'static str) -> Result<()> {
        match self.chain.quorum() {
            (1, _) => Ok(()),
            (quorum, custodians) => {
                Err(runvault_custody::Error::NeedsQuorum { quorum, custodians, what }.into())
            }
        }
    }

    /// The acting identity: the named key file, else the owner's in the store.
    ///
    /// # Errors
    /// Exit 3: the passphrase does not open it; exit 2: no usable file or terminal.
    pub fn identity(&self, who: &Who) -> Result<Identity> {
        let mut asker = Asker::of(&who.unlock, &who.token);
        let opened = match &who.identity {
            Some(path) => key_files::read(path, who.unlock.allow_readable_secret)
                .and_then(|file| key_files::unlock(&file, &mut asker)),
            None => locks::unlock(&self.root, &mut asker).map(|(identity, faults)| {
                self.tell_faults_of_locks(&faults);
                identity
            }),
        };
        // Our own refusal says more than custody's "no passphrase".
        let opened = asker.failed.take().map_or_else(|| opened.map_err(anyhow::Error::from), Err)?;
        asker.warn_of_unused(&who.unlock);
        Ok(opened)
    }

    /// One copy of the owner's key file is enough until it is lost too.
    fn tell_faults_of_locks(&self, faults: &[runvault_custody::Error]) {
        for fault in faults {
            let path = self.typed();
            warn(&format!(
                "{fault}; the key was read all the same: runvault passwd {path} writes both copies anew"
            ));
        }
    }

    /// What this identity may open.
    ///
    /// # Errors
    /// Exit 3: this key opens nothing here.
    pub fn acting(&self, who: &Who) -> Result<Arc<dyn Authority>> {
        let identity = self.identity(who)?;
        let acting = Acting::open(&self.root, self.chain.clone(), &identity)?;
        Ok(Remembering::keeping(acting, &self.state, identity.index_key(&self.chain.vault_id())))
    }

    /// Whether the named key file is of one who only reads; asks for nothing, and opens no lock.
    ///
    /// # Errors
    /// Exit 2: no usable file.
    pub fn is_readers(&self, who: &Who) -> Result<bool> {
        let Some(path) = &who.identity else { return Ok(false) };
        let file = key_files::read(path, who.unlock.allow_readable_secret)?;
        Ok(only_reads(&self.chain, &file.id()))
    }

    /// Opens the vault for reading; nothing is written.
    ///
    /// # Errors
    /// As [`Store::acting`], and the engine's.
    pub fn read(&self, who: &Who, options: Options) -> Result<Open> {
        self.open_vault(self.acting(who)?, None, options)
    }

    /// Opens the vault without any key: what is signed about its runs.
    ///
    /// # Errors
    /// The engine's.
    pub fn look(&self) -> Result<Open> {
        let authority = Remembering::over(Acting::gateway_only(self.chain.clone()), &self.state);
        self.open_vault(authority, None, Options::default())
    }

    /// Opens the vault for writing, as this machine's gateway, which is enrolled at its first use.
    ///
    /// # Errors
    /// Exit 5: the state folder is in use; exit 1: a quorum must enrol this machine.
    pub fn write(&mut self, who: &Who, options: Options) -> Result<Open> {
        let (folder, identity) = self.gateway(who)?;
        let authority = Acting::open(&self.root, self.chain.clone(), &identity)?;
        let index = identity.index_key(&self.chain.vault_id());
        // From here on its key is not needed.
        drop(identity);
        self.open_for_writing(authority, folder, index, options)
    }

    /// Opens the vault for writing as a gateway that was enrolled before: no key but that of its own runs.
    /// `resumable`: whether the keys of its open runs outlive the process; those that were kept are erased by
    /// [`StateFolder::erase_kept_keys`] alone.
    ///
    /// # Errors
    /// Exit 5: the state folder is in use; exit 1: it is not enrolled, or was revoked.
    pub fn ingest(&self, options: Options, resumable: bool) -> Result<Open> {
        let folder = StateFolder::open(&self.state, self.chain.vault_id()).map(Arc::new)?;
        folder.require_enrolled(&self.chain)?;
        self.settle(&folder, folder.index_key())?;
        if !resumable {
            folder.keep_no_keys()?;
        }
        let index = folder.index_key();
        self.open_for_writing(Acting::ingest(&self.root, self.chain.clone()), folder, index, options)
    }

    fn open_for_writing(
        &self,
        authority: Arc<dyn Authority>,
        folder: Arc<StateFolder>,
        index: IndexKey,
        options: Options,
    ) -> Result<Open> {
        let authority = Remembering::keeping(authority, &self.state, index);
        // The kernel has applied the callers' umask; the engine's modes are meant as they are.
        rustix::process::umask(rustix::fs::Mode::empty());
        self.open_vault(authority, Some(folder), options)
    }

    /// `folder`: of the gateway that writes.
    fn open_vault(
        &self,
        authority: Arc<dyn Authority>,
        folder: Option<Arc<StateFolder>>,
        options: Options,
    ) -> Result<Open> {
        let gateway = folder.clone().map(|folder| folder as Arc<dyn Gateway>);
        let options = Options { keeps_leases: true, ..options };
        let vault =
            Vault::open(Arc::clone(&self.root), authority, gateway, options).with_context(|| self.named())?;
        if !options.in_background
            && let Some(folder) = &folder
        {
            count_newer(folder);
        }
        Ok(Open { ticker: Ticker::start(&vault)?, vault, folder })
    }

    /// What a killed process left of this gateway's runs is put in order.
    fn settle(&self, folder: &StateFolder, index: IndexKey) -> Result<()> {
        let known = Remembering::rows(&self.state, self.chain.vault_id(), index);
        folder.settle_at_once(&self.root, known).with_context(|| self.named())?;
        Ok(())
    }

    /// This machine's state folder, locked, enrolled and settled, and the identity, which opens something here.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn gateway(&mut self, who: &Who) -> Result<(Arc<StateFolder>, Identity)> {
        let folder = || StateFolder::open(&self.state, self.chain.vault_id()).map(Arc::new);
        // One that is in use is told before anyone is asked for a passphrase.
        let made = StateFolder::is_made(&self.state, self.chain.vault_id());
        let there = if made { Some(folder()?) } else { None };
        let identity = self.identity(who)?;
        // Refuses a key that opens nothing here, before anything is written.
        Acting::open(&self.root, self.chain.clone(), &identity)?;
        let folder = there.map_or_else(folder, Ok)?;
        if !self.chain.is_enrolled(&folder.id()) {
            folder.enroll(&self.root, &mut self.chain, &identity)?;
            self.pin(&self.chain)?;
            log::info!("this machine was enrolled as a gateway of vault {}", self.chain.vault_id());
        }
        self.settle(&folder, identity.index_key(&self.chain.vault_id()))?;
        Ok((folder, identity))
    }

    /// `<state>/<vault id>`, where a writing mount has its control socket.
    pub fn state_of_vault(&self) -> PathBuf {
        self.state.join(self.chain.vault_id().to_string())
    }
}

/// Runs of this machine that its state folder does not know are counted; where that fails it is tried again before one is
/// made.
pub fn count_newer(folder: &StateFolder) {
    match folder.count_newer() {
        Ok(false) => {}
        Ok(true) => warn(
            "the store has runs of this machine that its state folder does not know (was the folder restored from a \
             backup?); they are counted again",
        ),
        Err(error) => {
            log::warn!("{error}: whether the state folder knows all runs of this machine is looked up later")
        }
    }
}

/// A gateway knows its vault: before anything is written or pinned, the store must be that one.
///
/// # Errors
/// Exit 4: this machine is a gateway of another vault; exit 1: of none.
pub fn require_gateway(path: &Path, who: &Who) -> Result<()> {
    let vault = load_chain(&open_store(path, &who.apart)?, path)?.vault_id();
    let state = state_folder(who.state.as_deref())?;
    if StateFolder::is_made(&state, vault) {
        return Ok(());
    }
    let (store, folder) = (shown(path), shown(&state));
    let known: Vec<String> = StateFolder::vaults(&state).iter().map(ToString::to_string).collect();
    if known.is_empty() {
        return Err(refuse_with(
            Exit::Failed,
            format!("this machine is no gateway yet: {folder} holds no identity"),
            format!("runvault gateway enroll {} --fingerprint F --state {}", quoted(path), quoted(&state)),
        ));
    }
    Err(refuse_with(
        Exit::Damaged,
        format!(
            "the store {store} is vault {vault}, but this machine writes for vault {}; nothing was written",
            known.join(", ")
        ),
        "mount the store that is meant. If this one is, and was exchanged on purpose, enrol this machine there:\n\
         runvault gateway enroll",
    ))
}

/// Behind an error about what this machine has seen: why the log may be another one.
fn recovered_at(chain: &Chain) -> String {
    let at = chain.recovered();
    at.map_or_else(String::new, |line| {
        format!(
            ". Its custody/ was lost, and was made anew from key files by line {line}: what was done after line {} is \
             undone",
            line.saturating_sub(1)
        )
    })
}

/// What to do about a store that is older than it was, whose audit log ends at line `found`.
fn way_back(error: &anyhow::Error, found: u64) -> String {
    if let Some(runvault_custody::Error::RunGone { run, .. }) = error.downcast_ref() {
        return format!(
            "someone may have put an old copy of the store there, or taken the run away: put it back.\n\
             If it is lost, or was removed on purpose: --accept-rollback {found}, on each machine that has seen it.\n\
             Before it is removed on purpose its owner says so: runvault retire STORE {run}"
        );
    }
    format!(
        "someone may have put an old copy there: put the newest custody/ back.\n\
         If it is lost and this copy was put there on purpose: --accept-rollback {found}. That undoes what\n\
         was done since: gateways and readers that were removed count again, runs that were sealed to a\n\
         newer vault key alone do not open"
    )
}

/// Whether this machine has seen more, or another history.
pub fn is_rollback(error: &runvault_custody::Error) -> bool {
    use runvault_custody::Error as Custody;
    matches!(
        error,
        Custody::Forked { .. }
            | Custody::CutShort { .. }
            | Custody::RolledBack { .. }
            | Custody::RunGone { .. }
    )
}

/// An open vault and the thread that ticks it.
pub struct Open {
    /// The engine.
    pub vault: Arc<Vault>,
    /// This machine's state folder, locked; `None` where nothing is written.
    pub folder: Option<Arc<StateFolder>>,
    ticker: Ticker,
}

impl Open {
    /// Everything durable, leases given up.
    ///
    /// # Errors
    /// The store's: what is not durable is said by its name.
    pub fn close(self) -> Result<()> {
        drop(self.ticker);
        Ok(self.vault.close()?)
    }
}

/// Refuses where several have to agree and the store has, as it should, nobody's key file.
///
/// # Errors
/// Exit 2; the store's.
pub fn require_lock(root: &Arc<dyn Dir>, chain: &Chain) -> Result<()> {
    if chain.quorum().0 == 1 || locks::are_there(root)? {
        return Ok(());
    }
    Err(refuse_with(
        Exit::Usage,
        "several custodians hold this vault's key, each in an own key file; the store has none",
        "another passphrase for yours: runvault passwd STORE --identity FILE; a copy of it: cp",
    ))
}

/// Opens a directory as a store, without looking into it.
///
/// # Errors
/// Exit 1, with what was found.
pub fn open_root(path: &Path) -> Result<Arc<dyn Dir>> {
    posix::open_root(path).map_err(|e| no_store(path, &e))
}

/// The store at `path`, with its custody/ where that lies.
///
/// # Errors
/// As [`open_root`]; exit 1: there is no such custody/.
pub fn open_store(path: &Path, apart: &Apart) -> Result<Arc<dyn Dir>> {
    note_store(path, apart.custody.as_deref());
    let root = open_root(path)?;
    if apart.custody.is_none() {
        return Ok(root);
    }
    let place = lies(&root, apart)?;
    Ok(with_custody(&root, place))
}

/// Where custody/ lies, or is to be made. Links are followed once, here.
///
/// # Errors
/// Exit 1: there is no directory that it could lie in.
pub fn lies(root: &Arc<dyn Dir>, apart: &Apart) -> Result<Place> {
    let Some(custody) = &apart.custody else { return Ok(Place::within(root)) };
    let path = crate::mount_point::absolute(custody)?;
    let path = path.canonicalize().unwrap_or(path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(refuse(Exit::Usage, format!("--custody {}: not a directory of its own", shown(custody))));
    };
    let parent = posix::open_root(parent)
        .map_err(|e| refuse(Exit::Failed, format!("--custody {}: {}", shown(custody), missing(&e))))?;
    Ok(Place { parent, name: name.as_bytes().to_vec() })
}

/// What a path that is no directory, or none that can be looked into, is told as.
pub fn no_store(path: &Path, error: &io::Error) -> anyhow::Error {
    let what = format!("the store {}: {}", shown(path), missing(error));
    if error.kind() == io::ErrorKind::NotFound {
        return refuse_with(
            Exit::Failed,
            what,
            "is it written as it should be, and the share that it lies on mounted?",
        );
    }
    refuse(Exit::Failed, what)
}

/// The chain of the store at `path`, verified.
///
/// # Errors
/// Exit 1: not a vault, unknown version; exit 4: damaged.
pub fn load_chain(root: &Arc<dyn Dir>, path: &Path) -> Result<Chain> {
    Chain::load(root).with_context(|| format!("the store {}", shown(path)))
}

/// A short word for why a directory does not open.
pub fn missing(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such directory".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        _ => error.to_string(),
    }
}

/// Where this machine keeps its state: the option, else the system's or the user's place.
///
/// # Errors
/// Exit 2: no home to put it in.
pub fn state_folder(option: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = option {
        return crate::mount_point::absolute(path);
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/runvault"));
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("runvault"))
        .ok_or_else(|| {
            refuse(Exit::Usage, "neither XDG_STATE_HOME nor HOME is set: name a folder with --state")
        })
}
