//! A vault for tests: a chain of one gateway whose keys lie open, on a store in memory or on disk.

pub mod dice;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runvault_crypto::envelope::{self, ENC, OVERHEAD};
use runvault_crypto::random;
use runvault_crypto::secrets::Secret;
use runvault_crypto::signature::{SigningKey, VerifyingKey};
use runvault_format::envelope_file::{self, EnvelopeName};
use runvault_format::ids::{Digest, IdentityId, RunId, VaultId};
use runvault_format::keys::RunKey;
use runvault_format::note;
use runvault_format::replacement::Replacement;
use runvault_format::retired::Retired;
use runvault_format::run_index::Rows;
use runvault_store::backend::{Dir, Kind};
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::read_whole::read_whole;
use runvault_vault::api::{Attr, Caller, DirEntry, Ino, OpenFlags, ROOT};
use runvault_vault::authority::{
    Admission, Authority, ChainPlace, EnvelopeFile, Gateway, GatewayKey, Resume, SealPlace, Sealed, StateRef,
    Until,
};
use runvault_vault::seal::{Fault, Outcome};
use runvault_vault::{Damage, Error, Options, Posix, Result, Vault, takeover};

pub const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };
pub const READ: OpenFlags =
    OpenFlags { read: true, write: false, truncate: false, append: false, kill_suidgid: false };
pub const WRITE: OpenFlags =
    OpenFlags { read: true, write: true, truncate: false, append: false, kill_suidgid: false };

/// The acting identity: holds the key of every envelope, which is an envelope by its form alone.
pub struct Chain {
    pub vault: VaultId,
    pub gateways: Vec<(IdentityId, VerifyingKey)>,
    /// Where the gateways were ended.
    pub until: Option<Until>,
    /// That, as it is known from the next look at the chain on.
    pub until_later: Mutex<Option<Until>>,
    pub refreshed: AtomicBool,
    /// Gateways that do what only the maker of a run may.
    pub admitted: Vec<(IdentityId, Option<RunId>)>,
    /// Where that was ended.
    pub dismissed: Option<Until>,
    /// Envelopes open for it.
    pub opens: bool,
    /// Seals that it has seen.
    pub seals: Mutex<HashMap<RunId, Digest>>,
    /// What the audit log says of runs that replace others.
    pub replacements: Vec<Replacement>,
    /// What was kept of sealed runs, and how often.
    pub index: Mutex<(Rows, usize)>,
}

impl Chain {
    pub fn of(vault: VaultId, gateways: Vec<(IdentityId, VerifyingKey)>) -> Self {
        let (until, dismissed) = (None, None);
        Self {
            vault,
            gateways,
            until,
            until_later: Mutex::default(),
            refreshed: AtomicBool::default(),
            admitted: Vec::new(),
            dismissed,
            opens: true,
            seals: Mutex::default(),
            replacements: Vec::new(),
            index: Mutex::default(),
        }
    }
}

impl Authority for Chain {
    fn refresh(&self) {
        let later = self.until_later.lock().unwrap().is_some();
        self.refreshed.store(later, Ordering::SeqCst);
    }
    fn vault_id(&self) -> VaultId {
        self.vault
    }
    fn gateway_key(&self, id: &IdentityId) -> Option<GatewayKey> {
        let (_, sign) = self.gateways.iter().find(|(known, _)| known == id)?;
        let later = self.until_later.lock().unwrap().filter(|_| self.refreshed.load(Ordering::SeqCst));
        Some(GatewayKey { sign: *sign, until: self.until.or(later) })
    }
    fn admission(&self, gateway: &IdentityId, run: Option<&RunId>) -> Option<Admission> {
        self.admitted.contains(&(*gateway, run.copied())).then_some(Admission { until: self.dismissed })
    }
    fn replacement(&self, new: &RunId) -> Option<Replacement> {
        self.replacements.iter().find(|one| one.new == *new).cloned()
    }
    fn envelope_names(&self) -> Vec<String> {
        if self.opens { vec!["vault-1".into()] } else { Vec::new() }
    }
    fn open_run(&self, run: &RunId, envelopes: &[EnvelopeFile]) -> Result<Option<RunKey>> {
        let Some(found) = envelopes.iter().find(|e| e.name == "vault-1").filter(|_| self.opens) else {
            return Ok(None);
        };
        let key = envelope_file::parse_run_key(&found.bytes)
            .ok()
            .and_then(|frame| frame.ciphertext.first_chunk::<32>().map(|key| RunKey(Secret::copy_from(key))));
        let refused =
            || Error::damaged(format!("runs/{run}/keys/vault-1"), Damage::Run("no envelope".into()));
        key.ok_or_else(refused).map(Some)
    }
    fn unknown_recipients(&self, _: &RunId, _: &StateRef, of: &[EnvelopeName]) -> Vec<EnvelopeName> {
        of.iter().filter(|of| **of != EnvelopeName::Vault(1)).copied().collect()
    }
    fn opens_every_run(&self) -> bool {
        self.opens
    }
    fn seal_seen(&self, run: &RunId) -> Option<Digest> {
        self.seals.lock().unwrap().get(run).copied()
    }
    fn note_seal(&self, run: &RunId, hash: &Digest) {
        self.seals.lock().unwrap().insert(*run, *hash);
    }
    fn known_runs(&self) -> Rows {
        self.index.lock().unwrap().0.clone()
    }
    fn keep_runs(&self, rows: &Rows) {
        let mut index = self.index.lock().unwrap();
        *index = (rows.clone(), index.1 + 1);
    }
    fn seal_run(&self, _: &RunId, key: &RunKey) -> Result<Sealed> {
        // As with a real one, no two are alike.
        let mut enc = Box::new([0; ENC]);
        random::fill(&mut *enc)?;
        let ciphertext = [key.0.expose(), &[0; OVERHEAD][..]].concat();
        let bytes = envelope_file::encode(&envelope::Sealed { enc, ciphertext });
        let envelopes = vec![EnvelopeFile { name: "vault-1".into(), bytes }];
        Ok(Sealed { state: StateRef { n: 1, hash: Digest([9; 32]) }, epoch: 1, envelopes })
    }
}

/// A state folder in memory; cloned for the next mount.
#[derive(Clone)]
pub struct State {
    pub id: IdentityId,
    key: Arc<SigningKey>,
    inner: Arc<Mutex<Inner>>,
    pub ledgers: Arc<dyn Dir>,
}

#[derive(Clone, Default)]
struct Inner {
    resume: HashMap<RunId, (Secret<32>, runvault_format::ids::SessionId)>,
    seq: u64,
    prev: Option<[u8; 32]>,
    pending: Option<(RunId, [u8; 32])>,
    seals: u64,
    seals_hash: Option<Digest>,
    names: HashMap<Vec<u8>, (RunId, Digest)>,
    pending_seal: Option<(RunId, Digest)>,
    retired: Vec<RunId>,
    /// Its entries do not open any more.
    damaged: bool,
    /// It takes nothing.
    full: bool,
}

impl State {
    pub fn new(n: u8) -> Self {
        let key = Arc::new(SigningKey::from_seed(&Secret::copy_from(&[n; 32])));
        Self { id: IdentityId([n; 16]), key, inner: Arc::default(), ledgers: MemoryDir::root() }
    }
    pub fn public(&self) -> (IdentityId, VerifyingKey) {
        (self.id, self.key.public())
    }
    /// A copy that goes its own way.
    pub fn apart(&self) -> Self {
        let inner = self.inner.lock().unwrap().clone();
        let ledgers: Arc<dyn Dir> = MemoryDir::root();
        for name in names(&*self.ledgers) {
            let bytes = read_whole(&*self.ledgers, &name, 64 << 20).unwrap();
            ledgers.create_file(&name, 0o600).unwrap().write_at(&bytes, 0).unwrap();
        }
        Self { id: self.id, key: self.key.clone(), inner: Arc::new(Mutex::new(inner)), ledgers }
    }
    pub fn sign(&self, text: &str) -> Vec<u8> {
        note::sign(text, &self.id, &self.key)
    }
    /// As a process leaves it that is killed between a seal's commit and its end.
    pub fn pend_seal(&self, run: RunId, hash: Digest) {
        self.inner.lock().unwrap().pending_seal = Some((run, hash));
    }
    /// It was sealed here under that name.
    pub fn sealed_before(&self, name: &[u8], sealed: (RunId, Digest)) {
        self.inner.lock().unwrap().names.insert(name.to_vec(), sealed);
    }
    pub fn set_full(&self, full: bool) {
        self.inner.lock().unwrap().full = full;
    }
    pub fn damage(&self) {
        self.inner.lock().unwrap().damaged = true;
    }
    pub fn session(&self, run: &RunId) -> Option<runvault_format::ids::SessionId> {
        self.inner.lock().unwrap().resume.get(run).map(|(_, session)| *session)
    }
    pub fn retired(&self) -> Vec<RunId> {
        self.inner.lock().unwrap().retired.clone()
    }
}

impl Gateway for State {
    fn id(&self) -> IdentityId {
        self.id
    }
    fn holder(&self) -> String {
        self.id.to_string()
    }
    fn begin_run(
        &self,
        run: &RunId,
        resume: &Resume,
        text: &mut dyn FnMut(ChainPlace) -> Result<String>,
    ) -> Result<Vec<u8>> {
        let mut inner = self.inner.lock().unwrap();
        let text = text(ChainPlace {
            seq: inner.seq + 1,
            prev: inner.prev,
            seals: inner.seals,
            seals_hash: inner.seals_hash,
        })?;
        inner.pending = Some((*run, note::text_hash(&text).0));
        inner.resume.insert(*run, (resume.key.0.clone(), resume.session));
        Ok(note::sign(&text, &self.id, &self.key))
    }
    fn commit_run(&self, run: &RunId) -> Result<()> {
        let mut inner = self.inner.lock().unwrap();
        let (pending, hash) = inner.pending.take().unwrap();
        assert_eq!(pending, *run);
        inner.seq += 1;
        inner.prev = Some(hash);
        Ok(())
    }
    fn retire_run(&self, run: &RunId, run_note: &[u8], time: &str) -> Result<Vec<u8>> {
        self.inner.lock().unwrap().retired.push(*run);
        let said = Retired {
            vault: VAULT,
            run: *run,
            gateway: self.id,
            seq: 1,
            run_note: note::text_hash(std::str::from_utf8(run_note).unwrap()),
            prev: None,
            time: time.to_owned(),
        };
        Ok(note::sign(&said.to_text().unwrap(), &self.id, &self.key))
    }
    fn begin_seal(&self, run: &RunId, text: &mut dyn FnMut(SealPlace) -> Result<String>) -> Result<Vec<u8>> {
        let mut inner = self.inner.lock().unwrap();
        let text = text(SealPlace { n: inner.seals + 1, prev: inner.seals_hash })?;
        inner.pending_seal = Some((*run, note::text_hash(&text)));
        Ok(note::sign(&text, &self.id, &self.key))
    }
    fn sealed_as(&self, name: &[u8]) -> Result<Option<(RunId, Digest)>> {
        Ok(self.inner.lock().unwrap().names.get(name).copied())
    }
    fn commit_seal(&self, run: &RunId, name: &[u8]) -> Result<()> {
        let mut inner = self.inner.lock().unwrap();
        if inner.full {
            return Err(Error::Store {
                operation: "write",
                object: "state".into(),
                source: std::io::Error::from_raw_os_error(libc::ENOSPC),
            });
        }
        let (pending, hash) = inner.pending_seal.take().unwrap();
        assert_eq!(pending, *run);
        inner.seals += 1;
        inner.seals_hash = Some(hash);
        inner.names.insert(name.to_vec(), (*run, hash));
        inner.resume.remove(run);
        Ok(())
    }
    fn resume(&self, run: &RunId) -> Result<Option<Resume>> {
        let inner = self.inner.lock().unwrap();
        if inner.damaged {
            return Err(Error::damaged("state/resume", runvault_vault::Damage::Run("not authentic".into())));
        }
        Ok(inner.resume.get(run).map(|(key, session)| Resume { key: RunKey(key.clone()), session: *session }))
    }
    fn hold(&self, run: &RunId, resume: &Resume) -> Result<()> {
        self.inner.lock().unwrap().resume.insert(*run, (resume.key.0.clone(), resume.session));
        Ok(())
    }
    fn release(&self, run: &RunId) -> Result<()> {
        self.inner.lock().unwrap().resume.remove(run);
        Ok(())
    }
    fn ledgers(&self) -> Option<Arc<dyn Dir>> {
        Some(self.ledgers.clone())
    }
    fn held(&self) -> Result<Vec<RunId>> {
        Ok(self.inner.lock().unwrap().resume.keys().copied().collect())
    }
}

const VAULT: VaultId = VaultId([1; 32]);

/// A store with everything that opens it.
pub struct Fixture {
    pub root: Arc<dyn Dir>,
    pub state: State,
    pub authority: Arc<Chain>,
    pub options: Options,
    disk: Option<tempfile::TempDir>,
}

impl Fixture {
    pub fn on(root: Arc<dyn Dir>) -> Self {
        root.create_dir(b"runs", 0o755).unwrap();
        let state = State::new(3);
        let gateways = vec![state.public(), State::new(4).public()];
        let authority = Arc::new(Chain::of(VAULT, gateways));
        Self { root, state, authority, options: Options::default(), disk: None }
    }

    pub fn in_memory() -> Self {
        Self::on(MemoryDir::root())
    }

    /// Its ledgers lie in the store too, so that what a power cut takes of both is of one moment; at every tick what waits
    /// goes out, the store is synced and what was noted counts.
    pub fn with_ledgers(store: Arc<dyn Dir>) -> Self {
        let mut fixture = Self::on(store.clone());
        fixture.options.journal_bytes = 64 << 10;
        fixture.options.delay = Duration::ZERO;
        store.create_dir(b"ledgers", 0o700).unwrap();
        fixture.state.ledgers = store.open_dir(b"ledgers").unwrap();
        fixture
    }

    pub fn on_disk() -> Self {
        let disk = tempfile::tempdir().unwrap();
        let root = runvault_store::posix::open_root(disk.path()).unwrap();
        Self { disk: Some(disk), ..Self::on(root) }
    }

    pub fn path(&self) -> &std::path::Path {
        self.disk.as_ref().unwrap().path()
    }

    pub fn writer(&self) -> Mount {
        self.writer_of(&self.state)
    }

    pub fn writer_of(&self, state: &State) -> Mount {
        let gateway: Arc<dyn Gateway> = Arc::new(state.clone());
        let opened = Vault::open(self.root.clone(), self.authority.clone(), Some(gateway), self.options);
        Mount(opened.unwrap())
    }

    pub fn reader(&self) -> Mount {
        Mount(Vault::open(self.root.clone(), self.authority.clone(), None, self.options).unwrap())
    }

    /// `runs/<the only run of that kind>`.
    pub fn run_dirs(&self) -> Vec<Vec<u8>> {
        names(&*self.root.open_dir(b"runs").unwrap())
    }
}

pub fn names(dir: &dyn Dir) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    dir.entries(0, &mut |e| {
        found.push(e.name);
        true
    })
    .unwrap();
    found.sort();
    found
}

/// A vault with calls by path.
pub struct Mount(pub Arc<Vault>);

impl std::ops::Deref for Mount {
    type Target = Vault;
    fn deref(&self) -> &Vault {
        &self.0
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Mount {
    /// The node of a path; lookups are given back at the end only.
    pub fn ino(&self, path: &str) -> Result<Ino> {
        let mut at = ROOT;
        for part in path.split('/').filter(|p| !p.is_empty()) {
            at = self.lookup(at, part.as_bytes())?.ino;
        }
        Ok(at)
    }

    pub fn parent<'a>(&self, path: &'a str) -> Result<(Ino, &'a [u8])> {
        let (dir, name) = split(path);
        let ino = self.ino(dir)?;
        match self.getattr(ino, None)?.kind {
            Kind::Dir => Ok((ino, name.as_bytes())),
            _ => Err(Posix::NotDirectory.into()),
        }
    }

    pub fn attr(&self, path: &str) -> Result<Attr> {
        self.getattr(self.ino(path)?, None)
    }

    pub fn make_dir(&self, path: &str) -> Result<Attr> {
        let (dir, name) = self.parent(path)?;
        self.mkdir(&CALLER, dir, name, 0o777)
    }

    /// Creates or overwrites.
    pub fn put(&self, path: &str, data: &[u8]) -> Result<Ino> {
        let (dir, name) = self.parent(path)?;
        let (ino, handle) = match self.create(&CALLER, dir, name, 0o666, WRITE) {
            Ok((attr, opened)) => (attr.ino, opened.handle),
            Err(Error::Posix(Posix::Exists)) => {
                let ino = self.ino(path)?;
                (ino, self.open_file(ino, OpenFlags { truncate: true, ..WRITE })?.handle)
            }
            Err(e) => return Err(e),
        };
        let written = self.write(handle, 0, data, false).and_then(|()| self.flush(handle));
        self.release(handle)?;
        written.map(|()| ino)
    }

    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        let handle = self.open_file(self.ino(path)?, READ)?.handle;
        let got = self.read_all(handle);
        self.release(handle)?;
        got
    }

    pub fn read_all(&self, handle: u64) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut buf = vec![0; 100_000];
        loop {
            let n = self.read(handle, all.len() as u64, &mut buf)?;
            all.extend_from_slice(&buf[..n]);
            if n < buf.len() {
                return Ok(all);
            }
        }
    }

    pub fn remove(&self, path: &str) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        self.unlink(dir, name)
    }

    pub fn remove_dir(&self, path: &str) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        self.rmdir(dir, name)
    }

    pub fn mv(&self, from: &str, to: &str, how: runvault_store::backend::Rename) -> Result<()> {
        let ((a, b), (c, d)) = (self.parent(from)?, self.parent(to)?);
        self.rename(a, b, c, d, how)
    }

    /// Names of a directory without the dots, sorted; read `step` entries at a time.
    pub fn list_by(&self, path: &str, step: usize) -> Result<Vec<String>> {
        let handle = self.opendir(self.ino(path)?)?;
        let mut found = Vec::new();
        let mut cookie = 0;
        loop {
            let mut page: Vec<DirEntry> = Vec::new();
            self.readdir(handle, cookie, false, &mut |e| {
                if page.len() == step {
                    return false;
                }
                page.push(e.clone());
                true
            })?;
            let Some(last) = page.last() else { break };
            assert!(last.next > cookie || step > 1);
            cookie = last.next;
            found.extend(page.iter().map(|e| String::from_utf8_lossy(&e.name).into_owned()));
        }
        self.releasedir(handle)?;
        assert_eq!(found[..2], [".", ".."]);
        let mut found = found.split_off(2);
        found.sort();
        Ok(found)
    }

    pub fn list(&self, path: &str) -> Result<Vec<String>> {
        self.list_by(path, 1000)
    }
}

/// What keeps the run of that name from being sealed as it is; it is not sealed.
pub fn would_seal(mount: &Mount, name: &[u8]) -> Vec<Fault> {
    let status = mount.status();
    let run = status.runs.iter().find(|run| run.name.as_deref() == Some(name)).expect("the run").run;
    match mount.seal(&run, &mut |_| Ok(None), &mut |_, _| ()).expect("a survey") {
        Outcome::Refused(faults) => faults,
        Outcome::Withheld => Vec::new(),
        Outcome::Sealed(_) | Outcome::Finished => panic!("sealed"),
    }
}

/// As a person does whose machine is `gateway`, and who has watched the run's lease.
pub fn taken_over(
    root: &Arc<dyn Dir>,
    authority: &dyn Authority,
    gateway: &State,
    run: &RunId,
) -> Result<()> {
    let silent = takeover::watch(root, &gateway.id, run, Duration::ZERO, &mut |_| ())?;
    takeover::takeover(root, authority, gateway, run, &silent.unwrap())
}

pub fn posix<T: std::fmt::Debug>(result: Result<T>) -> Posix {
    match result {
        Err(Error::Posix(p)) => p,
        other => panic!("not a POSIX refusal: {other:?}"),
    }
}
