//! Which runs and seals this machine has seen, so that less does not pass: a run whose seal was taken away is none that
//! is open, and a store without a gateway's newest run is an older one ([`crate::pins`]).

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runvault_format::envelope_file::EnvelopeName;
use runvault_format::ids::{Digest, IdentityId, RunId, VaultId};
use runvault_format::keys::RunKey;
use runvault_format::replacement::Replacement;
use runvault_format::run_index::{IndexKey, Rows};
use runvault_vault::authority::{
    Admission, Authority, EnvelopeFile, GatewayKey, MadeRun, Sealed, Standing, StateRef,
};

use crate::pins;
use crate::run_index::RunIndex;

/// The file in `<state dir>/<vault id>`: a line of run id and hash of the seal's note for each.
const SEALED: &str = "sealed";
/// Lines of some hundred thousand runs.
const LEN_MAX: u64 = 64 << 20;

/// Whether this machine has seen a run sealed. `folder`: `<state dir>/<vault id>`.
pub(crate) fn has_seal(folder: &Path, run: &RunId) -> bool {
    read(&folder.join(SEALED)).contains_key(run)
}

/// Where the file cannot be read nothing was seen.
fn read(file: &Path) -> HashMap<RunId, Digest> {
    let small = std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.len() <= LEN_MAX);
    let text = if small { std::fs::read_to_string(file).unwrap_or_default() } else { String::new() };
    let seen = text.lines().filter_map(|line| {
        let (run, hash) = line.split_once(' ')?;
        Some((run.parse().ok()?, hash.parse().ok()?))
    });
    seen.collect()
}

/// An authority that remembers runs and seals.
pub struct Remembering {
    of: Arc<dyn Authority>,
    file: PathBuf,
    state_dir: PathBuf,
    seen: Mutex<HashMap<RunId, Digest>>,
    /// Numbers of each gateway's newest run.
    newest: Mutex<HashMap<IdentityId, u64>>,
    index: Option<RunIndex>,
}

impl Remembering {
    /// What `of` says, and what this machine has seen. Where the file cannot be read nothing was seen; where it
    /// cannot be written, seals are remembered for as long as this lives.
    pub fn over(of: Arc<dyn Authority>, state_dir: &Path) -> Arc<dyn Authority> {
        Self::with(of, state_dir, None)
    }

    /// What earlier mounts of an identity found out about sealed runs.
    pub fn rows(state_dir: &Path, vault: VaultId, key: IndexKey) -> Rows {
        RunIndex::of(state_dir, vault, key).load()
    }

    /// [`Remembering::over`], also what earlier mounts of that identity found out about sealed runs.
    pub fn keeping(of: Arc<dyn Authority>, state_dir: &Path, key: IndexKey) -> Arc<dyn Authority> {
        let index = RunIndex::of(state_dir, of.vault_id(), key);
        Self::with(of, state_dir, Some(index))
    }

    fn with(of: Arc<dyn Authority>, state_dir: &Path, index: Option<RunIndex>) -> Arc<dyn Authority> {
        let file = state_dir.join(of.vault_id().to_string()).join(SEALED);
        let seen = Mutex::new(read(&file));
        Arc::new(Self { of, file, state_dir: state_dir.to_owned(), seen, newest: Mutex::default(), index })
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<RunId, Digest>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Authority for Remembering {
    fn refresh(&self) {
        self.of.refresh();
    }
    fn standing(&self) -> Standing {
        self.of.standing()
    }
    fn may_open(&self, run: &RunId) -> bool {
        self.of.may_open(run)
    }
    fn may_be_given(&self, run: &RunId) -> bool {
        self.of.may_be_given(run)
    }
    fn granted_behind(&self, line: u64) -> Vec<RunId> {
        self.of.granted_behind(line)
    }
    fn vault_id(&self) -> VaultId {
        self.of.vault_id()
    }
    fn gateway_key(&self, id: &IdentityId) -> Option<GatewayKey> {
        self.of.gateway_key(id)
    }
    fn admission(&self, gateway: &IdentityId, run: Option<&RunId>) -> Option<Admission> {
        self.of.admission(gateway, run)
    }
    fn replacement(&self, new: &RunId) -> Option<Replacement> {
        self.of.replacement(new)
    }
    fn replaced_by(&self, run: &RunId) -> Vec<RunId> {
        self.of.replaced_by(run)
    }
    fn seal_replacing(
        &self,
        run: &RunId,
        key: &RunKey,
        replaced: &[RunId],
        sealed_at: &StateRef,
    ) -> runvault_vault::Result<Sealed> {
        self.of.seal_replacing(run, key, replaced, sealed_at)
    }
    fn envelope_names(&self) -> Vec<String> {
        self.of.envelope_names()
    }
    fn open_run(&self, run: &RunId, envelopes: &[EnvelopeFile]) -> runvault_vault::Result<Option<RunKey>> {
        self.of.open_run(run, envelopes)
    }
    fn unknown_recipients(&self, run: &RunId, made: &StateRef, of: &[EnvelopeName]) -> Vec<EnvelopeName> {
        self.of.unknown_recipients(run, made, of)
    }
    fn opens_every_run(&self) -> bool {
        self.of.opens_every_run()
    }
    fn seal_run(&self, run: &RunId, key: &RunKey) -> runvault_vault::Result<Sealed> {
        self.of.seal_run(run, key)
    }
    fn seal_seen(&self, run: &RunId) -> Option<Digest> {
        self.seen().get(run).copied()
    }
    fn known_runs(&self) -> Rows {
        self.index.as_ref().map(RunIndex::load).unwrap_or_default()
    }
    fn keep_runs(&self, rows: &Rows) {
        if let Some(index) = &self.index {
            index.keep(rows);
        }
    }
    fn note_run(&self, made: &MadeRun) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.get(&made.gateway).is_some_and(|known| *known >= made.seq) {
            return;
        }
        newest.insert(made.gateway, made.seq);
        if let Err(error) = pins::note_run(&self.state_dir, self.of.vault_id(), made) {
            log::info!("a run is not remembered: {error}");
        }
    }
    fn note_seal(&self, run: &RunId, hash: &Digest) {
        if self.seen().insert(*run, *hash) == Some(*hash) {
            return;
        }
        // Written by many at once, a line at a time; a line that is cut says nothing.
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.file);
        let written = file.and_then(|mut file| file.write_all(format!("{run} {hash}\n").as_bytes()));
        if let Err(error) = written {
            log::info!("a seal is not remembered: {}: {error}", self.file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Acting;
    use crate::testing::vault;

    #[test]
    fn what_was_seen_is_remembered_by_the_next_one() {
        let (_, _, chain) = vault();
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir(state.path().join(chain.vault_id().to_string())).unwrap();
        let open = || Remembering::over(Acting::gateway_only(chain.clone()), state.path());
        let (run, hash) = (RunId([1; 16]), Digest([2; 32]));
        let first = open();
        assert_eq!(first.seal_seen(&run), None);
        first.note_seal(&run, &hash);
        first.note_seal(&run, &hash);
        first.note_seal(&RunId([3; 16]), &hash);
        let file = state.path().join(chain.vault_id().to_string()).join(SEALED);
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        // A line that was cut, and what is none.
        std::fs::write(&file, format!("{text}x y\n{}", &text[..40])).unwrap();
        let again = open();
        assert_eq!((again.seal_seen(&run), again.seal_seen(&RunId([9; 16]))), (Some(hash), None));
        assert_eq!(again.vault_id(), chain.vault_id());
        // Nowhere to write to: as long as it lives.
        let nowhere = Remembering::over(Acting::gateway_only(chain.clone()), Path::new("/proc/none"));
        nowhere.note_seal(&run, &hash);
        assert_eq!(nowhere.seal_seen(&run), Some(hash));
    }
}
