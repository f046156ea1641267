//! The engine as one session of a run has it: two files, one of them in a directory.

use std::sync::Arc;
use std::time::Duration;

use runvault_crypto::aead::Engine;
use runvault_crypto::secrets::Secret;
use runvault_format::header::Kind;
use runvault_format::ids::{FileId, RunId, SessionId};
use runvault_format::keys::{Place, RunKey, RunKeys, place};
use runvault_format::size::Geometry;
use runvault_store::backend::{Access, Dir};
use runvault_store::doubles::memory::MemoryDir;
use runvault_vault::Result;
use runvault_vault::file::{FileObject, RunContext};

/// Small chunks, so that small files have several.
pub const LOG2: u8 = 9;
/// Plaintext bytes of a chunk.
pub const CHUNK: usize = 1 << LOG2;
/// Room for few records, so that the journal turns over.
const JOURNAL_CHUNKS: u64 = 16;
/// Files of the run: directory below `tree/`, name.
pub const FILES: [(&[u8], &[u8]); 2] = [(b"", b"first"), (b"dir", b"second")];

const RUN: RunId = RunId([7; 16]);

/// A run's directory with empty files, everything durable.
pub fn new_store() -> Arc<dyn Dir> {
    let root = MemoryDir::root();
    root.create_dir(b"tree", 0o755).expect("a new directory");
    let tree = root.open_dir(b"tree").expect("a directory");
    tree.create_dir(b"dir", 0o755).expect("a new directory");
    for (dir, name) in FILES {
        let dir = if dir.is_empty() { tree.clone() } else { tree.open_dir(dir).expect("a directory") };
        dir.create_file(name, 0o644).expect("a new file");
    }
    root
}

/// The id of session `n`.
fn session(n: u64) -> SessionId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_le_bytes());
    SessionId(id)
}

/// A mount of the run, from recovery to whatever end.
pub struct Session {
    run: Arc<RunContext>,
    files: Vec<Option<Arc<FileObject>>>,
}

impl Session {
    /// Recovers what session `before` left, if there was one, and goes on as session `now`.
    pub fn start(run_dir: &Arc<dyn Dir>, log2: u8, before: Option<u64>, now: u64) -> Result<Self> {
        let tree = run_dir.open_dir(b"tree").expect("recovery needs no other");
        let geometry = Geometry::new(log2).expect("a chunk size");
        let locate = |ino: u64| {
            let (dir, name) = FILES.get(usize::try_from(ino).ok()?)?;
            Some(if dir.is_empty() { name.to_vec() } else { [dir, &b"/"[..], name].concat() })
        };
        let run = RunContext::writer(
            RUN,
            keys(),
            geometry,
            run_dir.clone(),
            tree,
            session(now),
            JOURNAL_CHUNKS << log2,
            Duration::ZERO,
            Box::new(locate),
        );
        if let Some(before) = before {
            recover(&run, run_dir, before)?;
        }
        Ok(Self { run, files: vec![None; FILES.len()] })
    }

    /// File `i`, opened if it is not open.
    pub fn file(&mut self, i: usize) -> Result<Arc<FileObject>> {
        if let Some(file) = &self.files[i] {
            return Ok(file.clone());
        }
        let (dir, name) = FILES[i];
        let dir = if dir.is_empty() { self.run.tree.clone() } else { open_dir(&self.run.tree, dir) };
        let stored = dir.open_file(name, Access::ReadWrite).expect("its name is durable");
        let stat = stored.stat().expect("it is open");
        let file = FileObject::open(&self.run, i as u64, stored, &stat, Some(place_of(name)))?;
        self.files[i] = Some(file.clone());
        Ok(file)
    }

    /// O_TRUNC over a file that does not open.
    pub fn replace(&mut self, i: usize) -> Result<()> {
        let (dir, name) = FILES[i];
        let dir = if dir.is_empty() { self.run.tree.clone() } else { open_dir(&self.run.tree, dir) };
        let stored = dir.open_file(name, Access::ReadWrite).expect("its name is durable");
        self.files[i] =
            Some(FileObject::open_for_replacement(&self.run, i as u64, stored, Some(place_of(name)))?);
        Ok(())
    }

    /// The handle goes; what waits stays with the run.
    pub fn close(&mut self, i: usize) -> Result<()> {
        match self.files[i].take() {
            Some(file) => file.flush(),
            None => Ok(()),
        }
    }

    /// What file `i` holds, at most `upto` bytes of it; the errors are those of opening and reading.
    pub fn read(&mut self, i: usize, upto: usize) -> Result<Vec<u8>> {
        let file = self.file(i)?;
        let mut bytes = vec![0xee; upto.min(file.size() as usize)];
        let got = file.read(0, &mut bytes)?;
        bytes.truncate(got);
        Ok(bytes)
    }

    /// The run that the session writes.
    pub fn run(&self) -> &Arc<RunContext> {
        &self.run
    }
}

fn recover(run: &Arc<RunContext>, run_dir: &Arc<dyn Dir>, before: u64) -> Result<()> {
    run.assume_crash();
    runvault_vault::recovery::recover(run, run_dir, &session(before)).map(drop)
}

fn open_dir(tree: &Arc<dyn Dir>, dir: &[u8]) -> Arc<dyn Dir> {
    tree.open_dir(dir).expect("its name is durable")
}

fn keys() -> RunKeys {
    RunKeys::derive(&RunKey(Secret::from_fn(|key| key.fill(3))), &RUN, Engine::Portable)
}

fn place_of(name: &[u8]) -> Place {
    place(&FileId([0; 32]), Kind::File, name)
}
