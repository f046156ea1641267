//! A run on the memory double, for the tests of this crate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runvault_crypto::aead::Engine;
use runvault_crypto::secrets::Secret;
use runvault_format::header::Kind;
use runvault_format::ids::{FileId, RunId, SessionId};
use runvault_format::keys::{Place, RunKey, RunKeys, place};
use runvault_format::size::Geometry;
use runvault_store::backend::{Access, Dir};
use runvault_store::doubles::memory::MemoryDir;

use super::{FileObject, RunContext};
use crate::{Result, recovery};

/// A run's directory, the writing session of it, and its files, which all lie in `tree/` itself.
pub(crate) struct Rig {
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) run: Arc<RunContext>,
    log2: u8,
    id: RunId,
    pub(crate) session: SessionId,
    names: Names,
}

type Names = Arc<Mutex<HashMap<u64, Vec<u8>>>>;

const KEY: [u8; 32] = [7; 32];

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    runvault_crypto::random::fill(&mut bytes).unwrap();
    bytes
}

pub(crate) fn keys(id: &RunId) -> RunKeys {
    RunKeys::derive(&RunKey(Secret::copy_from(&KEY)), id, Engine::Fast)
}

impl Rig {
    pub(crate) fn new(log2: u8) -> Self {
        let dir = MemoryDir::root();
        dir.create_dir(b"tree", 0o755).unwrap();
        Self::over(dir, log2, RunId(random()))
    }

    /// A session over a run's directory as it is, without recovery.
    pub(crate) fn over(dir: Arc<dyn Dir>, log2: u8, id: RunId) -> Self {
        Self::watched(dir, log2, id, |_| {})
    }

    /// [`Rig::over`], where `watch` is called whenever a file's path was looked up.
    pub(crate) fn watched(
        dir: Arc<dyn Dir>,
        log2: u8,
        id: RunId,
        watch: impl Fn(u64) + Send + Sync + 'static,
    ) -> Self {
        let names: Names = Arc::default();
        let (session, tree) = (SessionId(random()), dir.open_dir(b"tree").unwrap());
        let located = names.clone();
        let locate = Box::new(move |ino| {
            let path = located.lock().unwrap().get(&ino).cloned();
            watch(ino);
            path
        });
        let (geometry, delay) = (Geometry::new(log2).unwrap(), Duration::ZERO);
        let run =
            RunContext::writer(id, keys(&id), geometry, dir.clone(), tree, session, 256 << 10, delay, locate);
        Self { dir, run, log2, id, session, names }
    }

    /// The same run in a new session after this one was killed.
    pub(crate) fn killed(self) -> Self {
        let (dir, log2, id, session) = (self.dir.clone(), self.log2, self.id, self.session);
        drop(self);
        Self::recovered(dir, log2, id, &session).unwrap()
    }

    /// A session over what another, `session`, has left.
    pub(crate) fn recovered(dir: Arc<dyn Dir>, log2: u8, id: RunId, session: &SessionId) -> Result<Self> {
        let next = Self::over(dir, log2, id);
        recovery::recover(&next.run, &next.dir, session)?;
        next.run.assume_crash();
        Ok(next)
    }

    /// The same run in a new session after a clean end.
    pub(crate) fn remounted(self) -> Self {
        self.run.close().unwrap();
        Self::over(self.dir.clone(), self.log2, self.id)
    }

    pub(crate) fn reader(&self) -> Arc<RunContext> {
        let geometry = Geometry::new(self.log2).unwrap();
        RunContext::reader(self.id, keys(&self.id), geometry, self.run.tree.clone())
    }

    pub(crate) fn id(&self) -> RunId {
        self.id
    }

    pub(crate) fn place(name: &str) -> Place {
        place(&FileId::ROOT, Kind::File, name.as_bytes())
    }

    /// The file of that name, made if it is not there.
    pub(crate) fn file(&self, name: &str) -> Arc<FileObject> {
        match self.run.tree.create_file(name.as_bytes(), 0o644) {
            Ok(file) => {
                let ino = file.stat().unwrap().ino;
                self.called(ino, name);
                FileObject::create(&self.run, ino, file, Some(Self::place(name)))
            }
            Err(_) => self.open(name).unwrap(),
        }
    }

    pub(crate) fn called(&self, ino: u64, name: &str) {
        self.names.lock().unwrap().insert(ino, name.as_bytes().to_vec());
    }

    pub(crate) fn open(&self, name: &str) -> Result<Arc<FileObject>> {
        self.open_in(&self.run, name)
    }

    pub(crate) fn open_in(&self, run: &Arc<RunContext>, name: &str) -> Result<Arc<FileObject>> {
        let file = run.tree.open_file(name.as_bytes(), Access::ReadWrite).unwrap();
        let stat = file.stat().unwrap();
        self.called(stat.ino, name);
        FileObject::open(run, stat.ino, file, &stat, Some(Self::place(name)))
    }
}

/// All bytes of a file.
pub(crate) fn content(file: &FileObject) -> Result<Vec<u8>> {
    let mut bytes = vec![0xee; file.size() as usize + 10];
    let n = file.read(0, &mut bytes)?;
    bytes.truncate(n);
    Ok(bytes)
}
