//! What anybody can tell of a sealed run, without a key: every stored byte is as its gateway signed it.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use runvault_crypto::digest::sha256;
use runvault_format::digests::{Kind as Digested, Line};
use runvault_format::ids::{Digest, RunId};
use runvault_store::backend::{Dir, Kind};

use super::beside::{below, beside};
use super::checked::Checked;
use super::finding::{Change, Finding};
use super::left_over;
use super::read::{Seal, hash};
use crate::authority::Authority;
use crate::outcome::is_absent;
use crate::{Error, Result, cores, runs};

/// A run that was compared with its digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrubbed {
    /// What is not as it was sealed, by place.
    pub findings: Vec<Finding>,
    /// Stored bytes that were read for it.
    pub read: u64,
}

/// Compares a sealed run with its digests; files that `checked` has are not read. `progress` is told files, done and in all.
///
/// # Errors
/// A seal that does not hold ([`crate::Damage`]); the store's.
pub fn scrub(
    root: &Arc<dyn Dir>,
    seal: &Seal,
    authority: &dyn Authority,
    checked: &dyn Checked,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Scrubbed> {
    let (run, lines) = (&seal.run, seal.digests()?);
    checked.of(lines.len());
    let dir = runs::run_dir(root, run)?;
    let mut scrubbed = compare(run, &dir, seal.longest(), &lines, checked, progress)?;
    let findings = &mut scrubbed.findings;
    let signed: HashSet<&str> = lines.iter().map(|line| line.path.as_str()).collect();
    below(seal, &dir, &["tree"], &mut |object| {
        if !signed.contains(object.as_str()) {
            findings.push(Finding { object, path: None, change: Change::Added });
        }
    })?;
    let told: HashSet<String> = findings.iter().map(|finding| finding.object.clone()).collect();
    let others = beside(seal, &dir, &lines, authority)?.into_iter();
    let others = others.filter(|(object, _)| !told.contains(object));
    findings.extend(others.map(|(object, change)| Finding { object, path: None, change }));
    left_over::tell_apart(&dir, findings);
    findings.sort_by(|a, b| a.object.cmp(&b.object));
    Ok(scrubbed)
}

/// Every line on its own, on all cores; no file of the run has more than `longest` bytes.
fn compare(
    run: &RunId,
    dir: &Arc<dyn Dir>,
    longest: u64,
    lines: &[Line],
    checked: &dyn Checked,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Scrubbed> {
    let (next, read, found) = (AtomicUsize::new(0), AtomicU64::new(0), Mutex::new(Ok(Vec::new())));
    let one = |number: usize, line: &Line| -> io::Result<Option<Change>> {
        let known = checked.has(number);
        let looked = look(dir, longest, line, known)?;
        read.fetch_add(looked.read, Ordering::Relaxed);
        if looked.change.is_none() && !known {
            checked.note(number, looked.read);
        }
        Ok(looked.change)
    };
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(line) = lines.get(number) else { return };
            let change = one(number, line);
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            match (change, &mut *found) {
                (Ok(None), _) => {}
                (Ok(Some(change)), Ok(findings)) => {
                    findings.push(Finding { object: line.path.clone(), path: None, change });
                }
                (Err(e), Ok(_)) => {
                    *found = Err(Error::store("read", format!("runs/{run}/{}", line.path), e));
                }
                (_, Err(_)) => return,
            }
            drop(found);
            progress(next.load(Ordering::Relaxed).min(lines.len()), lines.len());
        }
    };
    cores::on(cores::count().min(lines.len()), &work);
    let findings = found.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    Ok(Scrubbed { findings, read: read.into_inner() })
}

/// How what lies at a line's path differs from it, and how much was read to tell.
struct Looked {
    change: Option<Change>,
    read: u64,
}

impl From<Change> for Looked {
    fn from(change: Change) -> Self {
        Self { change: Some(change), read: 0 }
    }
}

/// Looks. `known`: the content was found as it was sealed before, and is not read.
fn look(dir: &Arc<dyn Dir>, longest: u64, line: &Line, known: bool) -> io::Result<Looked> {
    let (folders, name) = line.path.rsplit_once('/').map_or(("", line.path.as_str()), |split| split);
    let mut parent = dir.clone();
    for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
        parent = match parent.open_dir(folder.as_bytes()) {
            Err(e) if is_absent(&e) => return Ok(Change::Missing.into()),
            opened => opened?,
        };
    }
    let stat = match parent.stat(name.as_bytes()) {
        Err(e) if is_absent(&e) => return Ok(Change::Missing.into()),
        stat => stat?,
    };
    let mut read = 0;
    let found = match stat.kind {
        Kind::Dir => Digested::Dir,
        Kind::Fifo => Digested::Fifo,
        Kind::Socket => Digested::Socket,
        Kind::CharDevice => Digested::Char,
        Kind::BlockDevice => Digested::Block,
        Kind::Symlink => match parent.read_link(name.as_bytes()) {
            Err(e) if is_absent(&e) => return Ok(Change::Missing.into()),
            text => Digested::Link(Digest(sha256(&[&text?]))),
        },
        // Nothing of the size of a file is read where none was sealed.
        Kind::File if !matches!(line.kind, Digested::File(_)) => return Ok(Change::another_kind().into()),
        // Nor what someone let grow to what nobody can read to its end.
        Kind::File if stat.size > longest => {
            return Ok(Change::Changed("longer than all of the run".to_owned()).into());
        }
        Kind::File if known => line.kind.clone(),
        Kind::File => match hash(&*parent, name.as_bytes()) {
            Err(e) if is_absent(&e) => return Ok(Change::Missing.into()),
            digest => {
                read = stat.size;
                Digested::File(digest?)
            }
        },
    };
    let change = match (&found, &line.kind) {
        (found, signed) if found == signed => None,
        (Digested::File(_), Digested::File(_)) => Some(Change::Changed("stored bytes".to_owned())),
        (Digested::Link(_), Digested::Link(_)) => Some(Change::Changed("link target".to_owned())),
        _ => Some(Change::another_kind()),
    };
    Ok(Looked { change, read })
}
