//! Runs that were sealed as incomplete, kept in the state folder: their manifests do not open here, and nothing else
//! would tell it after a restart.
//!
//! `incomplete/<run id>`, JSON without any plaintext name: `{"sealed": seconds since 1970, "missing": n, "named": [...]}`.
//! It goes when it was told for long enough.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use runvault_format::ids::RunId;
use runvault_store::backend::Dir;
use runvault_store::names::names;
use runvault_store::read_whole::read_whole;
use runvault_store::{posix, replace};
use serde_json::{Value, json};

use super::facts::{Missing, unix_seconds};
use crate::vault_status::add;

const FOLDER: &[u8] = b"incomplete";
/// How long it is told: over a weekend.
const TOLD: Duration = Duration::from_secs(72 * 3600);
/// A hundred names are a few KiB.
const LEN_MAX: usize = 1 << 20;

/// Of one state folder of a vault.
#[derive(Default)]
pub struct Incomplete {
    folder: Option<PathBuf>,
    runs: BTreeMap<RunId, Sealed>,
}

struct Sealed {
    at: SystemTime,
    missing: Missing,
}

impl Incomplete {
    /// What `<state>/<vault id>` has; what cannot be read is logged, and does not count.
    pub fn of(folder: &Path) -> Self {
        let runs = read(folder).unwrap_or_else(|error| {
            log::warn!("which runs were sealed as incomplete is not known: {error:#}");
            BTreeMap::new()
        });
        let mut kept = Self { folder: Some(folder.to_owned()), runs };
        kept.forget_old();
        kept
    }

    /// It was sealed just now.
    pub fn note(&mut self, run: RunId, missing: Missing) {
        let sealed = Sealed { at: SystemTime::now(), missing };
        if let Err(error) = self.write(&run, &sealed) {
            log::warn!("run {run}: that it is incomplete is told until the mount ends: {error:#}");
        }
        self.runs.insert(run, sealed);
    }

    /// Those that are still to be told.
    pub fn told(&mut self) -> impl Iterator<Item = (&RunId, &Missing)> {
        self.forget_old();
        self.runs.iter().map(|(run, sealed)| (run, &sealed.missing))
    }

    /// Adds it to what `runs` says of sealed ones that do not open here.
    pub fn tell(&mut self, runs: &mut [Value]) {
        for (run, missing) in self.told() {
            let id = run.to_string();
            let of_run = runs.iter_mut().filter_map(Value::as_object_mut);
            for object in of_run.filter(|object| object["run"] == *id && object["state"] == "sealed") {
                if !object.contains_key("missing") {
                    add(object, "complete", false);
                    add(object, "missing", missing.count);
                    add(object, "named", &missing.named);
                }
            }
        }
    }

    fn forget_old(&mut self) {
        // A clock that was set back makes none old.
        let is_old = |sealed: &Sealed| sealed.at.elapsed().is_ok_and(|since| since >= TOLD);
        let old: Vec<RunId> =
            self.runs.extract_if(.., |_, sealed| is_old(sealed)).map(|(run, _)| run).collect();
        let Some(folder) = &self.folder else { return };
        for run in old {
            let name = run.to_string();
            let removed =
                posix::open_root(folder).and_then(|dir| dir.open_dir(FOLDER)?.unlink(name.as_bytes()));
            if let Err(error) = removed {
                log::info!("incomplete/{name} stays in the state folder: {error}");
            }
        }
    }

    fn write(&self, run: &RunId, sealed: &Sealed) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let dir = posix::open_root(folder)?;
        match dir.create_dir(FOLDER, 0o700) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        let Missing { count, named } = &sealed.missing;
        let text = json!({ "sealed": unix_seconds(sealed.at), "missing": count, "named": named }).to_string();
        let dir = dir.open_dir(FOLDER)?;
        Ok(replace::replace(&*dir, run.to_string().as_bytes(), text.as_bytes(), 0o600)?)
    }
}

fn read(folder: &Path) -> Result<BTreeMap<RunId, Sealed>> {
    let dir = match posix::open_root(folder).and_then(|dir| dir.open_dir(FOLDER)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        other => other?,
    };
    let names = names(&*dir)?;
    let runs = names.iter().filter_map(|name| std::str::from_utf8(name).ok()?.parse().ok());
    let read = |run| match read_one(&*dir, &run) {
        Ok(sealed) => Some((run, sealed)),
        Err(error) => {
            log::warn!("incomplete/{run} in the state folder does not count: {error:#}");
            None
        }
    };
    Ok(runs.filter_map(read).collect())
}

fn read_one(dir: &dyn Dir, run: &RunId) -> Result<Sealed> {
    let text = read_whole(dir, run.to_string().as_bytes(), LEN_MAX)?;
    let said: Value = serde_json::from_slice(&text)?;
    let at = said["sealed"].as_u64().context("no time")?;
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at)).context("no time")?;
    Ok(Sealed { at, missing: Missing::of(&said) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> Missing {
        Missing { count: 2, named: vec!["L003 C112.1".into(), "L003 filter".into()] }
    }

    #[test]
    fn it_is_told_after_a_restart_and_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (RunId([1; 16]), RunId([2; 16]));
        let mut kept = Incomplete::of(folder.path());
        kept.note(new, missing());
        let before = SystemTime::now() - TOLD;
        kept.write(&old, &Sealed { at: before, missing: missing() }).unwrap();
        let mut again = Incomplete::of(folder.path());
        assert_eq!(again.told().collect::<Vec<_>>(), [(&new, &missing())]);
        let left: Vec<_> = std::fs::read_dir(folder.path().join("incomplete")).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        let mut runs = [
            json!({ "run": new.to_string(), "state": "sealed" }),
            json!({ "run": new.to_string(), "state": "sealed", "missing": 0 }),
            json!({ "run": old.to_string(), "state": "sealed" }),
        ];
        again.tell(&mut runs);
        assert_eq!(
            (&runs[0]["complete"], &runs[0]["missing"], &runs[0]["named"][0]),
            (&false.into(), &2.into(), &"L003 C112.1".into())
        );
        assert!(runs[1]["missing"] == 0 && runs[2].get("missing").is_none());
    }

    #[test]
    fn a_file_that_says_nothing_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        Incomplete::of(folder.path()).note(RunId([2; 16]), missing());
        std::fs::write(folder.path().join("incomplete").join("01".repeat(16)), b"{}").unwrap();
        assert_eq!(Incomplete::of(folder.path()).told().count(), 1);
    }
}
