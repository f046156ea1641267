//! What this crate's tests begin with: a store in memory, an owner without Argon2, its chain.

use std::collections::HashMap;
use std::sync::Arc;

use runvault_crypto::aead::Engine;
use runvault_crypto::secrets::Secret;
use runvault_format::custody_state::ReaderEntry;
use runvault_format::descriptor::{RunDescriptor, RunKind, StateRef};
use runvault_format::ids::{Digest, FileId, RunId, SessionId};
use runvault_format::keys::{RunKey, RunKeys};
use runvault_format::note::{Note, text_hash};
use runvault_format::seal_note::SealNote;
use runvault_store::backend::{Access, Dir, Kind, Rename, SetTime};
use runvault_store::doubles::faulty::{Fault, Faults, Rule};
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::names::names;
use runvault_store::read_whole::read_whole;
use runvault_store::replace::replace;
use runvault_vault::authority::{ChainPlace, EnvelopeFile, Gateway, Resume, SealPlace};
use runvault_vault::runs;

use crate::authority::Acting;
use crate::chain::Chain;
use crate::gateway::StateFolder;
use crate::identity::Identity;
use crate::init::init;
use crate::state_folder::Folder;

/// A new vault in memory, its owner and its chain.
pub(crate) fn vault() -> (Arc<dyn Dir>, Identity, Chain) {
    let root = MemoryDir::root();
    let owner = Identity::generate("owner").unwrap();
    init(&root, &owner, None).unwrap();
    let chain = Chain::load(&root).unwrap();
    (root, owner, chain)
}

/// A gateway whose state folder lies in memory, enrolled and settled.
pub(crate) fn enrolled(root: &Arc<dyn Dir>, chain: &mut Chain, owner: &Identity) -> StateFolder {
    let gateway = StateFolder::on(Folder::on(MemoryDir::root()), chain.vault_id()).unwrap();
    gateway.enroll(root, chain, owner).unwrap();
    gateway.settle(root).unwrap();
    gateway
}

pub(crate) fn custody(root: &Arc<dyn Dir>) -> Arc<dyn Dir> {
    root.open_dir(b"custody").unwrap()
}

pub(crate) fn get(dir: &Arc<dyn Dir>, name: &str) -> Vec<u8> {
    read_whole(&**dir, name.as_bytes(), 1 << 30).unwrap()
}

pub(crate) fn put(dir: &Arc<dyn Dir>, name: &str, bytes: &[u8]) {
    replace(&**dir, name.as_bytes(), bytes, 0o644).unwrap();
}

/// The store as it is when the process is killed before its call number `n`: that call and all later
/// ones fail. Gives the error; `None` once `act` makes fewer calls.
pub(crate) fn killed_at<T>(
    root: &Arc<dyn Dir>,
    n: u64,
    act: impl FnOnce(&Arc<dyn Dir>) -> crate::Result<T>,
) -> Option<crate::Error> {
    let (faulty, faults) = Faults::over(root.clone()).unwrap();
    faults.add(Rule { op: None, name: None, after: n, times: u64::MAX, fault: Fault::Fail(libc::EIO) });
    act(&faulty).err()
}

/// A deep copy, so that each kill starts from the same store.
pub(crate) fn copy(from: &Arc<dyn Dir>) -> Arc<dyn Dir> {
    let root = MemoryDir::root();
    copy_to(from, &root);
    root
}

/// How a state names a reader.
pub(crate) fn reader_entry(identity: &Identity, standing: bool, expires: Option<&str>) -> ReaderEntry {
    let keys = identity.public();
    let (id, label) = (keys.id(), identity.label.clone());
    ReaderEntry { id, label, sign: keys.sign, kem: keys.kem, standing, expires: expires.map(str::to_owned) }
}

/// A deep copy of what is in a directory.
pub(crate) fn copy_to(from: &Arc<dyn Dir>, to: &Arc<dyn Dir>) {
    copy_into(from, to, &mut HashMap::new());
}

/// Files that were copied, by their numbers: where, and under which name.
type Linked = HashMap<u64, (Arc<dyn Dir>, Vec<u8>)>;

fn copy_into(from: &Arc<dyn Dir>, to: &Arc<dyn Dir>, linked: &mut Linked) {
    for name in names(&**from).unwrap() {
        let stat = from.stat(&name).unwrap();
        match stat.kind {
            Kind::Dir => {
                to.create_dir(&name, stat.mode).unwrap();
                copy_into(&from.open_dir(&name).unwrap(), &to.open_dir(&name).unwrap(), linked);
            }
            Kind::File => {
                // Of several names the one that was met first.
                let seen = linked.get(&stat.ino).filter(|_| stat.nlink > 1);
                if let Some((dir, first)) = seen {
                    dir.link(first, &**to, &name).unwrap();
                    continue;
                }
                linked.insert(stat.ino, (to.clone(), name.clone()));
                let bytes = read_whole(&**from, &name, 1 << 30).unwrap();
                let file = to.create_file(&name, stat.mode).unwrap();
                file.write_at(&bytes, 0).unwrap();
                let held = from.open_file(&name, Access::Read).unwrap();
                for attribute in held.xattrs().unwrap_or_default() {
                    file.set_xattr(&attribute, &held.xattr(&attribute).unwrap(), 0).unwrap();
                }
            }
            Kind::Symlink => to.create_symlink(&name, &from.read_link(&name).unwrap()).unwrap(),
            kind => to.create_node(&name, kind, stat.mode, stat.rdev).unwrap(),
        }
        to.set_times(&name, SetTime::Omit, SetTime::At(stat.mtime)).unwrap();
    }
}

/// A fresh run's id, key and session.
pub(crate) fn draw_run() -> (RunId, Resume) {
    let mut bytes = [0; 32];
    runvault_crypto::random::fill(&mut bytes).unwrap();
    let (run, session) = bytes.split_at(16);
    let key = RunKey(Secret::random().unwrap());
    (RunId(run.try_into().unwrap()), Resume { key, session: SessionId(session.try_into().unwrap()) })
}

/// What run.json says of a run at this place of its gateway's chain.
pub(crate) fn descriptor(
    chain: &Chain,
    gateway: &StateFolder,
    run: &RunId,
    key: &RunKey,
    place: ChainPlace,
) -> RunDescriptor {
    let keys = RunKeys::derive(key, run, Engine::Portable);
    let acting = Acting::gateway_only(chain.clone());
    let sealed = acting.seal_run(run, key).unwrap();
    runs::new_descriptor(chain.vault_id(), &sealed, gateway.id(), place, *run, RunKind::Run, &keys)
}

/// Begins a run: what the engine does before the store sees it.
pub(crate) fn begin(chain: &Chain, gateway: &StateFolder, run: &RunId, resume: &Resume) -> Vec<u8> {
    let mut text = |place| Ok(descriptor(chain, gateway, run, &resume.key, place).to_text()?);
    gateway.begin_run(run, resume, &mut text).unwrap()
}

/// `runs/<id>` with its run.json and envelopes, as the engine makes it.
pub(crate) fn store_run(root: &Arc<dyn Dir>, chain: &Chain, run: &RunId, key: &RunKey, note: &[u8]) {
    let runs = root.open_dir(b"runs").unwrap();
    let name = run.to_string();
    runs.create_dir(name.as_bytes(), 0o755).unwrap();
    let dir = runs.open_dir(name.as_bytes()).unwrap();
    put(&dir, "run.json", note);
    dir.create_dir(b"keys", 0o755).unwrap();
    let keys = dir.open_dir(b"keys").unwrap();
    for envelope in Acting::gateway_only(chain.clone()).seal_run(run, key).unwrap().envelopes {
        put(&keys, &envelope.name, &envelope.bytes);
    }
}

/// A whole run of this gateway.
pub(crate) fn make_run(root: &Arc<dyn Dir>, chain: &Chain, gateway: &StateFolder) -> (RunId, RunKey) {
    let (run, resume) = draw_run();
    let note = begin(chain, gateway, &run, &resume);
    store_run(root, chain, &run, &resume.key, &note);
    gateway.commit_run(&run).unwrap();
    (run, resume.key)
}

/// The envelopes of a run.
pub(crate) fn envelopes(root: &Arc<dyn Dir>, run: &RunId) -> Vec<EnvelopeFile> {
    let runs = root.open_dir(b"runs").unwrap();
    let keys = runs.open_dir(run.to_string().as_bytes()).unwrap().open_dir(b"keys").unwrap();
    let mut names: Vec<String> = crate::layout::names(&keys, "keys")
        .unwrap()
        .into_iter()
        .map(|n| String::from_utf8(n).unwrap())
        .collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names.into_iter().map(|name| EnvelopeFile { bytes: get(&keys, &name), name }).collect()
}

/// The gateway's seal of a run: its note alone.
pub(crate) fn seal(root: &Arc<dyn Dir>, gateway: &StateFolder, run: &RunId) {
    seal_at(root, gateway, run, StateRef { n: 1, hash: Digest([0; 32]) });
}

/// [`seal`] of a gateway that knew that state.
pub(crate) fn seal_at(root: &Arc<dyn Dir>, gateway: &StateFolder, run: &RunId, state: StateRef) {
    let described = get(&run_dir(root, run), "run.json");
    let run_note = text_hash(Note::parse(&described).unwrap().text);
    let text = |place: SealPlace| {
        let zeros = Digest([0; 32]);
        let id = FileId::ROOT;
        let note = SealNote {
            run: *run,
            run_note,
            gateway: gateway.id(),
            n: place.n,
            prev: place.prev,
            state,
            files: 0,
            bytes: 0,
            manifest_sha256: zeros,
            manifest_id: id,
            pins_id: id,
            digests_sha256: zeros,
            sealed: "2026-11-24T06:00:00Z".into(),
        };
        Ok(note.to_text()?)
    };
    let note = Gateway::begin_seal(gateway, run, &mut { text }).unwrap();
    let dir = run_dir(root, run);
    dir.create_dir(b"seal", 0o755).unwrap();
    put(&dir.open_dir(b"seal").unwrap(), "seal.note", &note);
    Gateway::commit_seal(gateway, run, b"run").unwrap();
}

/// `runs/<id>`.
pub(crate) fn run_dir(root: &Arc<dyn Dir>, run: &RunId) -> Arc<dyn Dir> {
    root.open_dir(b"runs").unwrap().open_dir(run.to_string().as_bytes()).unwrap()
}

/// The run's directory moves out of `runs/`.
pub(crate) fn take_away(root: &Arc<dyn Dir>, run: &RunId) {
    let runs = root.open_dir(b"runs").unwrap();
    let name = run.to_string();
    runs.rename(name.as_bytes(), &**root, b"elsewhere", Rename::Over).unwrap();
}
