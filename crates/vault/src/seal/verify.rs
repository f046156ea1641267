//! What the key of a sealed run can tell: every name, attribute, byte and version is as it was sealed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use runvault_crypto::aead::Engine;
use runvault_crypto::digest::ct_eq;
use runvault_format::digests::{Kind as Digested, Line};
use runvault_format::ids::{Digest, RunId};
use runvault_format::keys::RunKeys;
use runvault_format::manifest::{Entry, Kind, Manifest};
use runvault_format::pins::NONCE;
use runvault_format::seal_note::SealNote;
use runvault_store::backend::Dir;

use super::beside::beside;
use super::checked::Checked;
use super::finding::{Change, Finding};
use super::left_over;
use super::read::{Pins, Seal, check_place, hash};
use super::survey::{Fault, Survey};
use crate::authority::Authority;
use crate::file::{Content, RunContext};
use crate::outcome::part_opened;
use crate::{Damage, Error, Result, run, runs};

/// A run that was compared with its seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What its gateway signed, or the worker that made it in the place of another run.
    pub note: SealNote,
    /// What the gateway signed of the run that stood there first.
    pub origin: Option<SealNote>,
    /// The run's name, as the manifest has it.
    pub name: Vec<u8>,
    /// The manifest's text on the run.
    pub about: String,
    /// Files that were read, each counted once.
    pub files: u64,
    /// Their plaintext bytes.
    pub bytes: u64,
    /// Those of them that were read for it.
    pub read: u64,
    /// What is not as it was sealed, by place.
    pub findings: Vec<Finding>,
}

/// The run's keys, for who may read it; its key must be the one that run.json names.
pub(crate) fn open(root: &Arc<dyn Dir>, run: &RunId, authority: &dyn Authority) -> Result<Arc<RunContext>> {
    let verified = runs::read_descriptor(root, run, authority)?;
    let key = runs::envelopes(root, run, authority)?
        .open(run, authority)?
        .ok_or_else(|| Error::WrongKey(format!("no key that is held here opens run {run}")))?;
    let keys = RunKeys::derive(&key, run, Engine::fastest());
    if !ct_eq(&keys.commitment(), &verified.descriptor.commitment.0) {
        let what = "the key is not the one run.json names".to_owned();
        return Err(Error::damaged(format!("runs/{run}"), Damage::Run(what)));
    }
    let tree = runs::run_dir(root, run)?.open_dir(b"tree");
    let tree = tree.map_err(|e| part_opened("open", format!("runs/{run}/tree"), e))?;
    Ok(RunContext::reader(*run, keys, verified.descriptor.geometry, tree))
}

/// The manifest of a sealed run.
///
/// # Errors
/// [`Error::WrongKey`]; damage of the seal; the store's.
pub fn manifest(root: &Arc<dyn Dir>, run: &RunId, authority: &dyn Authority) -> Result<Manifest> {
    let seal = Seal::load(root, run, authority)?;
    seal.manifest(&open(root, run, authority)?)
}

/// Compares a sealed run with its manifest, its pins and its digests; files that `checked` has are not read. `progress`
/// is told plaintext bytes, done and in all.
///
/// # Errors
/// [`Error::WrongKey`]; a seal that does not hold; the store's.
pub fn verify(
    root: &Arc<dyn Dir>,
    seal: &Seal,
    authority: &dyn Authority,
    checked: &dyn Checked,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verified> {
    let run = &seal.run;
    check_place(root, run, authority)?;
    let context = open(root, run, authority)?;
    let (digests, manifest) = (seal.digests()?, seal.manifest(&context)?);
    checked.of(manifest.entries.len());
    let pins = seal.pins(&context, manifest.entries.len())?;
    let sealed: HashMap<Vec<u8>, usize> = paths(&manifest).into_iter().zip(0..).collect();
    let mut survey = Survey::walk(&context)?;
    let total = seal.note.bytes;
    let as_sealed = AsSealed::of(&survey, &sealed, &manifest, &digests);
    let (mut versions, mut done, mut read) = (Versions::new(&pins, &survey, &sealed), 0, 0);
    survey.read(
        &|i, _, _| as_sealed.content(i, checked, &pins),
        &mut |i, nonce| versions.compare(i, nonce),
        &mut |i, content, _| {
            done += content.size;
            read += as_sealed.note(i, content, checked);
            progress(done, total);
        },
    )?;
    let older = versions.older;
    let mut found = Findings::default();
    for fault in std::mem::take(&mut survey.faults) {
        found.fault(fault);
    }
    for object in std::mem::take(&mut survey.foreign) {
        found.add(object, None, Change::Added);
    }
    let present: HashMap<Vec<u8>, usize> = (0..survey.items.len()).map(|i| (survey.path(i), i)).collect();
    for (path, i) in &present {
        let Some(item) = survey.items.get(*i) else { continue };
        match sealed.get(path).and_then(|at| manifest.entries.get(*at)) {
            None => found.add(survey.object(*i), Some(path), Change::Added),
            Some(_) if older.contains(i) => found.add(survey.object(*i), Some(path), Change::Older),
            Some(entry) => {
                if let Some(what) = difference(&manifest, &survey, entry, &item.entry) {
                    found.add(survey.object(*i), Some(path), Change::Changed(what.to_owned()));
                }
            }
        }
    }
    let damaged: HashSet<Vec<u8>> = found.all.iter().filter_map(|finding| finding.path.clone()).collect();
    for path in sealed.keys().filter(|path| !present.contains_key(*path) && !damaged.contains(*path)) {
        found.add(String::from_utf8_lossy(path).into_owned(), Some(path), Change::Missing);
    }
    let dir = runs::run_dir(root, run)?;
    found.stored(&dir, &digests, &survey.lines);
    for (object, change) in beside(seal, &dir, &digests, authority)? {
        found.add(object, None, change);
    }
    match run::read_name(&*dir, run, &context.keys) {
        Ok(name) if name == manifest.name => {}
        Ok(_) => found.add("name".to_owned(), None, Change::Changed("the run's name".to_owned())),
        Err(Error::Damaged { damage, .. }) => {
            found.add("name".to_owned(), None, Change::Damaged(damage.to_string()));
        }
        Err(Error::Store { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
            found.add("name".to_owned(), None, Change::Missing);
        }
        Err(error) => return Err(error),
    }
    let (files, bytes) = (survey.files().count() as u64, done);
    let mut findings = found.all;
    left_over::tell_apart(&dir, &mut findings);
    findings.sort_by(|a, b| a.object.cmp(&b.object));
    let (note, origin) = (seal.note.clone(), seal.origin.as_ref().map(|origin| origin.note.clone()));
    Ok(Verified { note, origin, name: manifest.name, about: manifest.about, files, bytes, read, findings })
}

/// The plaintext path of every entry, in order; that of the top is empty.
pub fn paths(manifest: &Manifest) -> Vec<Vec<u8>> {
    let mut paths: Vec<Vec<u8>> = Vec::with_capacity(manifest.entries.len());
    for (i, entry) in manifest.entries.iter().enumerate() {
        let parent = paths.get(entry.record.parent as usize).filter(|_| i > 0);
        paths.push(match parent {
            Some(parent) if parent.is_empty() => entry.name.clone(),
            Some(parent) => [parent, &b"/"[..], &entry.name].concat(),
            None => Vec::new(),
        });
    }
    paths
}

/// What of an entry is another than was sealed. Numbers of entries shift when one is added: they say nothing.
pub(super) fn difference(
    manifest: &Manifest,
    survey: &Survey,
    sealed: &Entry,
    found: &Entry,
) -> Option<&'static str> {
    let (a, b) = (&sealed.record, &found.record);
    let same_object = || {
        let name = |entries: Option<&Entry>| entries.map(|entry| entry.name.clone());
        let found = survey.items.get(b.object as usize).map(|item| &item.entry);
        name(manifest.entries.get(a.object as usize)) == name(found)
    };
    let checks: [(&str, bool); 10] = [
        ("another kind of object", a.kind == b.kind),
        ("content", a.size == b.size && a.sha256 == b.sha256),
        ("link target", sealed.target == found.target),
        ("device number", a.rdev == b.rdev),
        ("attributes", sealed.xattrs == found.xattrs),
        ("mode", a.mode == b.mode),
        ("owner", (a.uid, a.gid) == (b.uid, b.gid)),
        ("time", a.kind == Kind::Dir || same_time((a.mtime, a.mtime_ns), (b.mtime, b.mtime_ns))),
        ("number of links", a.kind == Kind::Dir || a.nlink == b.nlink),
        ("what it is a link to", a.kind == Kind::Dir || same_object()),
    ];
    checks.iter().find(|(_, same)| !same).map(|(what, _)| *what)
}

/// Times as an SFTP server or an archive keeps them (seconds), or an SMB server (100 ns), or something between.
const GRAINS: [u32; 4] = [1_000_000_000, 1_000_000, 1_000, 100];

/// Whether two times are one, that one of the two stores keeps less finely: a run is sealed through a network's file
/// system and verified on the server's own, or from a copy.
fn same_time(a: (i64, u32), b: (i64, u32)) -> bool {
    let is_cut = |fine: u32, coarse: u32| GRAINS.iter().any(|grain| fine - fine % grain == coarse);
    a.0 == b.0 && (a.1 == b.1 || is_cut(a.1, b.1) || is_cut(b.1, a.1))
}

/// What the seal says of the content of each file that was found, and may be as it was sealed.
struct AsSealed(Vec<Option<FileAsSealed>>);

struct FileAsSealed {
    /// Its number in the manifest.
    at: usize,
    size: u64,
    sha256: Digest,
    stored: Digest,
}

impl AsSealed {
    fn of(survey: &Survey, sealed: &HashMap<Vec<u8>, usize>, manifest: &Manifest, digests: &[Line]) -> Self {
        let stored: HashMap<&str, &Digested> =
            digests.iter().map(|line| (line.path.as_str(), &line.kind)).collect();
        let file = |i: usize| {
            let at = *sealed.get(&survey.path(i))?;
            let record = &manifest.entries.get(at)?.record;
            match stored.get(survey.object(i).as_str()) {
                // One of another length is another.
                Some(Digested::File(stored))
                    if record.kind == Kind::File && survey.is_of_size(i, record.size) =>
                {
                    let (size, sha256) = (record.size, Digest(record.sha256));
                    Some(FileAsSealed { at, size, sha256, stored: *stored })
                }
                _ => None,
            }
        };
        Self((0..survey.items.len()).map(file).collect())
    }

    fn get(&self, i: usize) -> Option<&FileAsSealed> {
        self.0.get(i)?.as_ref()
    }

    /// What was found of a file when it was checked before.
    fn content(&self, i: usize, checked: &dyn Checked, pins: &Pins) -> Result<Option<Content>> {
        let Some(file) = self.get(i).filter(|file| checked.has(file.at)) else { return Ok(None) };
        let Ok(at) = u32::try_from(file.at) else { return Ok(None) };
        let pinned = pins.of(at)?;
        let (size, sha256, stored) = (file.size, file.sha256, file.stored);
        Ok(Some(Content { id: pinned.id, epoch: pinned.epoch, size, sha256, stored }))
    }

    /// A file is done with: bytes that were read for it. Equal stored bytes have equal nonces.
    fn note(&self, i: usize, found: &Content, checked: &dyn Checked) -> u64 {
        match self.get(i) {
            Some(file) if checked.has(file.at) => return 0,
            Some(file) if (file.sha256, file.stored) == (found.sha256, found.stored) => {
                checked.note(file.at, found.size);
            }
            _ => {}
        }
        found.size
    }
}

/// Compares each chunk's nonce with its pin.
struct Versions<'a> {
    pins: &'a Pins,
    /// The number in the manifest of each entry that was found.
    sealed: Vec<Option<usize>>,
    /// The file in hand, its pinned nonces, and how many were compared.
    current: Option<(usize, Vec<[u8; NONCE]>, usize)>,
    older: Vec<usize>,
}

impl<'a> Versions<'a> {
    fn new(pins: &'a Pins, survey: &Survey, sealed: &HashMap<Vec<u8>, usize>) -> Self {
        let sealed = (0..survey.items.len()).map(|i| sealed.get(&survey.path(i)).copied()).collect();
        Self { pins, sealed, current: None, older: Vec::new() }
    }

    fn compare(&mut self, i: usize, nonce: &[u8; NONCE]) -> Result<()> {
        if self.current.as_ref().is_none_or(|(current, ..)| *current != i) {
            let at = self.sealed.get(i).copied().flatten().and_then(|at| u32::try_from(at).ok());
            let nonces = match at {
                Some(at) => {
                    let pinned = self.pins.of(at)?;
                    self.pins.nonces(&pinned, 0..pinned.chunks)?
                }
                // It was not sealed, and is told as that.
                None => Vec::new(),
            };
            self.current = Some((i, nonces, 0));
        }
        let Some((_, nonces, n)) = &mut self.current else { return Ok(()) };
        // Of another length: its content is told as changed.
        if nonces.get(*n).is_some_and(|pinned| pinned != nonce) && self.older.last() != Some(&i) {
            self.older.push(i);
        }
        *n += 1;
        Ok(())
    }
}

/// Each object is told once.
#[derive(Default)]
struct Findings {
    all: Vec<Finding>,
    objects: HashSet<String>,
}

impl Findings {
    fn add(&mut self, object: String, path: Option<&Vec<u8>>, change: Change) {
        if !self.objects.insert(object.clone()) {
            return;
        }
        self.all.push(Finding { object, path: path.cloned(), change });
    }

    fn fault(&mut self, fault: Fault) {
        let change = match &fault.damage {
            Some(Damage::Place) => Change::Swapped,
            Some(damage) => Change::Damaged(damage.to_string()),
            None => Change::Missing,
        };
        self.add(fault.object, fault.path.as_ref(), change);
    }

    /// What the digests say and nothing else has told: headers, records, side files.
    fn stored(&mut self, dir: &Arc<dyn Dir>, signed: &[Line], found: &[Line]) {
        let found: HashMap<&str, &Digested> =
            found.iter().map(|line| (line.path.as_str(), &line.kind)).collect();
        for line in signed {
            let change = match found.get(line.path.as_str()) {
                Some(kind) if **kind == line.kind => continue,
                Some(_) => Change::Changed("stored bytes".to_owned()),
                None if line.path.starts_with("tree/") => Change::Missing,
                None => match hash_of(dir, &line.path) {
                    Some(kind) if kind == line.kind => continue,
                    Some(_) => Change::Changed("stored bytes".to_owned()),
                    None => Change::Missing,
                },
            };
            self.add(line.path.clone(), None, change);
        }
        let signed: HashSet<&str> = signed.iter().map(|line| line.path.as_str()).collect();
        for path in found.keys().filter(|path| !signed.contains(*path)) {
            self.add((*path).to_owned(), None, Change::Added);
        }
    }
}

/// Of run.json, manifest and pins.
fn hash_of(dir: &Arc<dyn Dir>, path: &str) -> Option<Digested> {
    let digest = match path.split_once('/') {
        None => hash(&**dir, path.as_bytes()),
        Some((folder, name)) => dir.open_dir(folder.as_bytes()).and_then(|dir| hash(&*dir, name.as_bytes())),
    };
    digest.ok().map(Digested::File)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_was_cut_is_the_same_and_another_is_not() {
        let fine = 123_456_789;
        for same in [fine, 123_456_700, 123_456_000, 123_000_000, 0] {
            assert!(same_time((7, fine), (7, same)) && same_time((7, same), (7, fine)), "{same}");
            assert!(!same_time((7, fine), (8, same)), "{same}");
        }
        for other in [123_456_788, 123_456_800, 123_457_000, 124_000_000, 123_450_000] {
            assert!(!same_time((7, fine), (7, other)), "{other}");
        }
    }
}
