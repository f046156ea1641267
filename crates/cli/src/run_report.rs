//! What `runs` tells: how far each run is, and what it waits for.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use runvault_format::descriptor::How;
use runvault_format::ids::RunId;
use runvault_format::seal_note::SealNote;
use runvault_sequencer::completeness::{self, Completeness};
use runvault_sequencer::completion::{Patience, State, Why};
use runvault_store::backend::Kind;
use runvault_vault::held::HeldRun;
use runvault_vault::run_facts::RunFacts;
use runvault_vault::{RunStatus, Vault};
use serde_json::{Map, Value};

use crate::output::{json_name, utc};
use crate::sealing::{NAMED, RUN_INFO, RUN_INFO_MAX, family, progress_of, word};
use crate::trees::{InVault, Tree, vault_path};
use crate::vault_status::add;

/// An object for each run, by its id. What is open is walked, what is sealed says it of itself.
pub fn of_vault(vault: &Arc<Vault>, store: &Path, patience: &Patience) -> Vec<Value> {
    let look = Look { vault, store, patience, held: vault.held_runs() };
    vault.status().runs.iter().filter_map(|status| look.of_run(status)).collect()
}

/// A run that is held here, compared with its RunInfo.xml, where it has one that is understood: all of it is walked.
pub fn completeness_of(vault: &Arc<Vault>, store: &Path, run: &RunId) -> Option<Completeness> {
    let name = vault.held_name(run)?;
    let path = vault_path(Path::new(std::ffi::OsStr::from_bytes(&name))).ok()?;
    let tree = InVault::new(vault, store);
    Found::below(&tree, &path).ok()?.compare(&tree, &path, &name)
}

struct Look<'a> {
    vault: &'a Arc<Vault>,
    store: &'a Path,
    patience: &'a Patience,
    held: Vec<HeldRun>,
}

impl Look<'_> {
    /// `None` for the files outside any run.
    fn of_run(&self, status: &RunStatus) -> Option<Value> {
        let mut object = Map::new();
        add(&mut object, "run", status.run.to_string());
        match &status.name {
            Some(name) => json_name(&mut object, "name", name),
            None => add(&mut object, "name", Value::Null),
        }
        add(&mut object, "trouble", &status.trouble);
        match self.vault.run_facts(&status.run) {
            Ok(facts) if facts.is_loose() => return None,
            Ok(facts) => self.of_facts(&mut object, status, &facts),
            Err(error) => {
                add(&mut object, "state", "damaged");
                add(&mut object, "trouble", error.to_string());
            }
        }
        Some(Value::Object(object))
    }

    fn of_facts(&self, object: &mut Map<String, Value>, status: &RunStatus, facts: &RunFacts) {
        let origin = facts.origin.as_deref();
        let made = origin.map_or(&*facts.descriptor, |origin| &origin.run);
        add(object, "gateway", made.signer);
        add(object, "begun", &facts.descriptor.opened);
        add(object, "holder", &status.holder);
        let continues = made.after.as_ref().filter(|after| after.how == How::Continues);
        add(object, "continues", continues.map(|after| after.run));
        if let Some(origin) = origin {
            add(object, "replaces", &origin.replaced);
        }
        match (origin.map(|origin| &origin.note).or(facts.seal.as_ref()), &status.name) {
            (Some(seal), _) => sealed(object, seal, facts.about.as_deref()),
            (None, Some(_)) if status.sealing => {
                add(object, "state", "sealing");
                add(object, "waits_for", "its seal: every file is read back");
            }
            (None, Some(_)) if status.left_out => {
                add(object, "state", "open");
                add(object, "waits_for", "its seal: this mount leaves it out until then (--open shows it)");
            }
            (None, None) if self.vault.is_lost_here(&status.run) => {
                add(object, "state", "closed");
                add(object, "waits_for", "its owner: this machine kept no key of it (runvault takeover)");
            }
            (None, None) => add(object, "state", if status.closed { "open" } else { "damaged" }),
            (None, Some(name)) => {
                if let Err(error) = self.open(object, status, name, continues.is_some()) {
                    add(object, "state", "damaged");
                    add(object, "trouble", crate::exit::chain(&error));
                }
            }
        }
    }

    fn open(
        &self,
        object: &mut Map<String, Value>,
        status: &RunStatus,
        name: &[u8],
        adds: bool,
    ) -> Result<()> {
        // By itself: of what adds to a sealed run, not the whole folder.
        let path = self.vault.path_of(&status.run).unwrap_or_else(|| name.to_vec());
        let path = vault_path(Path::new(std::ffi::OsStr::from_bytes(&path)))?;
        let tree = InVault::new(self.vault, self.store);
        let found = Found::below(&tree, &path)?;
        let held = self.held.iter().find(|held| held.run == status.run);
        // Its own process knows better than the times that an application sets.
        let quiet = held.map_or_else(|| found.silence(), |held| held.quiet);
        let state = progress_of(name, adds, &found.top, quiet, self.patience);
        let compared = if adds { None } else { found.compare(&tree, &path, name) };
        add(object, "state", word(&state));
        add(object, "files", found.files);
        add(object, "bytes", found.bytes);
        add(object, "unreadable", found.unreadable);
        add(object, "last_write", found.last_write.map(utc));
        add(object, "quiet_seconds", quiet.as_secs());
        let begun = object.get("begun").and_then(Value::as_str).and_then(seconds);
        let took = begun.zip(found.last_write).map(|(begun, last)| last.saturating_sub(begun));
        let rate = took.and_then(|took| found.bytes.checked_div(u64::try_from(took).unwrap_or(0)));
        add(object, "bytes_per_second", rate);
        add(object, "cycle", compared.as_ref().map(|c| c.cycle));
        add(object, "cycles", compared.as_ref().map(|c| c.cycles));
        if state != State::Open
            && let Some(compared) = &compared
        {
            add(object, "complete", compared.missing.is_empty());
            add(object, "missing", compared.missing.len());
            add(object, "named", &compared.missing[..compared.missing.len().min(NAMED)]);
        }
        add(object, "waits_for", self.waits_for(&state, adds, compared.as_ref(), held.is_some()));
        Ok(())
    }

    fn waits_for(&self, state: &State, adds: bool, compared: Option<&Completeness>, ours: bool) -> String {
        let long = humantime::format_duration;
        let complete = compared.is_some_and(|compared| compared.missing.is_empty());
        match (state, compared) {
            // Whether that is still there nobody here knows.
            (State::Complete { .. }, _) if !ours => {
                "its seal by the gateway that made it, or runvault takeover where that is gone".to_owned()
            }
            (State::Open, Some(c)) if c.cycle < c.cycles => format!("cycle {} of {}", c.cycle + 1, c.cycles),
            (State::Open, _) => "more files, or a marker of its end".to_owned(),
            (State::Draining, _) => format!(
                "files that are still sent, its last marker, or {} of silence",
                long(self.patience.drained)
            ),
            (State::Complete { why: Why::Abandoned, .. }, _) => format!(
                "a person: silence for {} and no marker, was it aborted? It is sealed by hand only",
                long(self.patience.abandoned)
            ),
            (State::Complete { why: Why::Drained, .. }, _) if !adds && !complete => format!(
                "a person: silence for {} and not complete by its RunInfo.xml. It is sealed by hand only",
                long(self.patience.drained)
            ),
            (State::Complete { quiet: false, .. }, _) => {
                format!("{} without a change", long(self.patience.quiet))
            }
            (State::Complete { .. }, _) => "its seal".to_owned(),
        }
    }
}

fn sealed(object: &mut Map<String, Value>, seal: &SealNote, about: Option<&str>) {
    add(object, "state", "sealed");
    add(object, "sealed", &seal.sealed);
    add(object, "n", seal.n);
    add(object, "files", seal.files);
    add(object, "bytes", seal.bytes);
    let about: Value = about.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    for key in ["ended", "family", "complete", "missing", "named"] {
        if let Some(value) = about.get(key) {
            object.insert(key.to_owned(), value.clone());
        }
    }
}

/// What lies below an open run.
#[derive(Default)]
struct Found {
    files: u64,
    bytes: u64,
    /// Names that do not authenticate, and directories that cannot be listed.
    unreadable: u64,
    /// Seconds since 1970.
    last_write: Option<i64>,
    /// Paths below it.
    paths: HashSet<String>,
    /// The names in its top directory.
    top: Vec<Vec<u8>>,
}

impl Found {
    fn below(tree: &InVault, run: &Path) -> Result<Found> {
        let mut found = Found::default();
        let mut linked = HashSet::new();
        let mut stack = vec![PathBuf::new()];
        while let Some(dir) = stack.pop() {
            let (listed, complete) = match tree.entries(&run.join(&dir)) {
                Ok(listed) => listed,
                // The run itself; what is below it may be gone again.
                Err(error) if dir.as_os_str().is_empty() => return Err(error),
                Err(_) => {
                    found.unreadable += 1;
                    continue;
                }
            };
            found.unreadable += u64::from(complete.is_err());
            for entry in listed {
                let path = dir.join(&entry.name);
                let Ok(meta) = entry.meta else { continue };
                match meta.kind {
                    Kind::Dir => stack.push(path),
                    Kind::File => {
                        if meta.nlink < 2 || linked.insert(meta.object) {
                            found.files += 1;
                            found.bytes = found.bytes.saturating_add(meta.size);
                        }
                        found.last_write = found.last_write.max(Some(meta.mtime.sec));
                        if dir.as_os_str().is_empty() {
                            found.top.push(entry.name.as_bytes().to_vec());
                        }
                        found.paths.extend(path.into_os_string().into_string());
                    }
                    _ => {}
                }
            }
        }
        Ok(found)
    }

    fn silence(&self) -> Duration {
        let last = self.last_write.and_then(|last| u64::try_from(last).ok()).unwrap_or(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(Duration::from_secs(last))
    }

    /// With its RunInfo.xml, where it has one that is understood.
    fn compare(&self, tree: &InVault, run: &Path, name: &[u8]) -> Option<Completeness> {
        let mut source = tree.open(&run.join(RUN_INFO)).ok()?;
        let size = usize::try_from(source.size().ok()?.min(RUN_INFO_MAX)).ok()?;
        let mut xml = vec![0; size];
        let mut have = 0;
        while have < size {
            match source.read(have as u64, &mut xml[have..]).ok()? {
                0 => break,
                n => have += n,
            }
        }
        xml.truncate(have);
        completeness::of_run(family(name)?, &String::from_utf8(xml).ok()?, &self.paths).ok()
    }
}

/// Of a time as run.json has it.
fn seconds(text: &str) -> Option<i64> {
    let time = humantime::parse_rfc3339(text).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}
