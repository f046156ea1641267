//! What lies in a sealed run's directory beside its tree. Not all of that has to be as it was sealed: envelopes come and go
//! with rotations, grants and re-keyings, and who is killed leaves a lease. Whatever else is there was added.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use runvault_crypto::digest::sha256;
use runvault_format::digests::{Kind as Digested, Line};
use runvault_format::envelope_file::{self, EnvelopeName};
use runvault_format::ids::Digest;
use runvault_format::lease;
use runvault_store::backend::{Dir, Kind, Stat};
use runvault_store::names::names;
use runvault_store::read_whole::read_whole;
use runvault_store::replace::TEMPORARY;

use super::NEW;
use super::finding::Change;
use super::read::Seal;
use super::rekey::{PARTIAL, WORKER_SEED};
use crate::authority::Authority;
use crate::lease::NAME as LEASE;
use crate::outcome::{is_absent, part_opened};
use crate::{Error, Result};

/// What a sealed run consists of.
const PARTS: [(&[u8], Kind); 5] = [
    (b"run.json", Kind::File),
    (b"name", Kind::File),
    (b"tree", Kind::Dir),
    (b"keys", Kind::Dir),
    (b"seal", Kind::Dir),
];
/// What is in `seal/` and cannot stand in the digests: the note that names them, and they themselves.
const UNLISTED: [&str; 2] = ["seal/seal.note", "seal/digests"];
/// Levels below which nothing is looked for: no path of ours is that deep.
const DEPTH: usize = 1 << 12;
/// Seconds for which a file may be on its way.
const UNDER_WAY: u64 = 24 * 3600;

/// Tells what is another, missing or too many in the run's directory itself, in `keys/` and in `seal/`, as far as no line of
/// the digests says it. Each object is told once.
///
/// # Errors
/// The store's.
pub(super) fn beside(
    seal: &Seal,
    dir: &Arc<dyn Dir>,
    lines: &[Line],
    authority: &dyn Authority,
) -> Result<HashMap<String, Change>> {
    let lines = lines.iter().map(|line| (line.path.as_str(), &line.kind)).collect();
    let mut beside = Beside { seal, dir, lines, authority, found: HashMap::new() };
    beside.parts()?;
    beside.keys()?;
    below(seal, dir, &["seal"], &mut |object| beside.unlisted(object))?;
    Ok(beside.found)
}

struct Beside<'a> {
    seal: &'a Seal,
    dir: &'a Arc<dyn Dir>,
    lines: HashMap<&'a str, &'a Digested>,
    authority: &'a dyn Authority,
    found: HashMap<String, Change>,
}

impl Beside<'_> {
    fn tell(&mut self, object: String, change: Change) {
        self.found.entry(object).or_insert(change);
    }

    fn failed(&self, operation: &'static str, part: &str, error: io::Error) -> Error {
        Error::store(operation, format!("runs/{}/{part}", self.seal.run), error)
    }

    /// What has no line in `seal/`.
    fn unlisted(&mut self, object: String) {
        if !self.lines.contains_key(object.as_str()) && !UNLISTED.contains(&object.as_str()) {
            self.tell(object, Change::Added);
        }
    }

    /// The run's directory.
    fn parts(&mut self) -> Result<()> {
        let listed = listed(&**self.dir).map_err(|e| self.failed("list", "", e))?;
        if !listed.contains_key(&b"tree"[..]) {
            self.tell("tree".to_owned(), Change::Missing);
        }
        for (name, stat) in listed {
            let object = String::from_utf8_lossy(&name).into_owned();
            match PARTS.iter().find(|(part, _)| *part == name) {
                Some((_, kind)) if *kind == stat.kind => {}
                Some(_) => self.tell(object, Change::another_kind()),
                None if is_lease(&name, &stat) || is_under_way(&name, &stat) => {}
                None if self.seal.origin.is_some() && is_of_workers(&name, &stat) => {}
                None => self.tell(object, Change::Added),
            }
        }
        Ok(())
    }

    /// The envelopes of the run's key.
    fn keys(&mut self) -> Result<()> {
        // A rotation puts the new one before it removes the old one: between two looks, both may be missed.
        if !self.look_at_keys()? && !self.look_at_keys()? {
            self.tell("keys".to_owned(), Change::Missing);
        }
        Ok(())
    }

    /// Whether one to the vault is where mounts look for it. The one in the seal has a line.
    fn look_at_keys(&mut self) -> Result<bool> {
        let keys = match self.dir.open_dir(b"keys") {
            Err(e) if is_absent(&e) => return Ok(false),
            keys => keys.map_err(|e| self.failed("open", "keys", e))?,
        };
        let listed = listed(&*keys).map_err(|e| self.failed("list", "keys", e))?;
        let parsed: Vec<EnvelopeName> =
            listed.keys().filter_map(|name| std::str::from_utf8(name).ok()?.parse().ok()).collect();
        let unknown = self.authority.unknown_recipients(&self.seal.run, &self.seal.made, &parsed);
        let unknown: HashSet<EnvelopeName> = unknown.into_iter().collect();
        let mut has_one = false;
        for (name, stat) in listed {
            let text = String::from_utf8_lossy(&name).into_owned();
            let object = format!("keys/{text}");
            match text.parse::<EnvelopeName>() {
                Ok(of) if !unknown.contains(&of) => {
                    has_one |= self.envelope(&*keys, &text, &object)? && matches!(of, EnvelopeName::Vault(_));
                }
                Err(_) if is_under_way(&name, &stat) => {}
                _ => self.tell(object, Change::Added),
            }
        }
        Ok(has_one)
    }

    /// Whether an envelope is there. Who has no key to it can tell that it is the one in the seal, or of the right form.
    fn envelope(&mut self, keys: &dyn Dir, name: &str, object: &str) -> Result<bool> {
        let read = read_whole(keys, name.as_bytes(), envelope_file::LEN_MAX);
        let bytes = match read.map_err(|e| part_opened("read", object.to_owned(), e)) {
            Ok(bytes) => bytes,
            Err(Error::Damaged { damage, .. }) => {
                self.tell(object.to_owned(), Change::Damaged(damage.to_string()));
                return Ok(true);
            }
            Err(Error::Store { source, .. }) if is_absent(&source) => return Ok(false),
            Err(Error::Store { source, .. }) => return Err(self.failed("read", object, source)),
            Err(error) => return Err(error),
        };
        let change = match self.lines.get(format!("seal/{name}").as_str()) {
            Some(line) if **line == Digested::File(Digest(sha256(&[&bytes]))) => None,
            Some(_) => Some(Change::Changed("another than in its seal".to_owned())),
            None => envelope_file::parse_run_key(&bytes).err().map(|e| Change::Damaged(e.to_string())),
        };
        if let Some(change) = change {
            self.tell(object.to_owned(), change);
        }
        Ok(true)
    }
}

/// The names in a directory, but for those that go meanwhile.
fn listed(dir: &dyn Dir) -> io::Result<HashMap<Vec<u8>, Stat>> {
    let stat = |name: Vec<u8>| match dir.stat(&name) {
        Err(e) if is_absent(&e) => None,
        stat => Some(stat.map(|stat| (name, stat))),
    };
    names(dir)?.into_iter().filter_map(stat).collect()
}

/// One that a writer left, which nobody looks at any more.
fn is_lease(name: &[u8], stat: &Stat) -> bool {
    name == LEASE && stat.kind == Kind::File && stat.size <= lease::LEN_MAX as u64
}

/// Whether somebody may be writing it, to give it its name.
fn is_under_way(name: &[u8], stat: &Stat) -> bool {
    is_envelope(name, TEMPORARY, stat) && is_new(stat)
}

/// In a run that replaces another: their seed, until that one is gone, and what one that was late has begun.
fn is_of_workers(name: &[u8], stat: &Stat) -> bool {
    let begun = name == PARTIAL || name.starts_with(NEW);
    is_envelope(name, WORKER_SEED, stat) || begun && stat.kind == Kind::Dir && is_new(stat)
}

fn is_new(stat: &Stat) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let age = (i128::from(now) - i128::from(stat.mtime.sec)).unsigned_abs();
    age <= u128::from(UNDER_WAY)
}

/// A file no longer than an envelope, whose name begins so.
pub(super) fn is_envelope(name: &[u8], begins: &[u8], stat: &Stat) -> bool {
    name.starts_with(begins) && stat.kind == Kind::File && stat.size <= envelope_file::LEN_MAX as u64
}

/// Gives the place of everything below parts of a run.
///
/// # Errors
/// The store's.
pub(super) fn below(
    seal: &Seal,
    dir: &Arc<dyn Dir>,
    parts: &[&str],
    visit: &mut dyn FnMut(String),
) -> Result<()> {
    let fail = |operation, path: &str, e| Error::store(operation, format!("runs/{}/{path}", seal.run), e);
    // Opened when its turn comes: of a wide tree not all at once, since descriptors are few.
    let mut stack: Vec<_> =
        parts.iter().map(|part| (dir.clone(), part.as_bytes().to_vec(), (*part).to_owned(), 0)).collect();
    while let Some((above, name, path, depth)) = stack.pop() {
        let dir = match above.open_dir(&name) {
            Ok(opened) => opened,
            // Each of its lines says so.
            Err(error) if is_absent(&error) => continue,
            Err(error) => return Err(fail("open", &path, error)),
        };
        for name in names(&*dir).map_err(|e| fail("list", &path, e))? {
            let child = format!("{path}/{}", String::from_utf8_lossy(&name));
            match dir.stat(&name) {
                Ok(stat) if stat.kind == Kind::Dir && depth < DEPTH => {
                    stack.push((dir.clone(), name, child.clone(), depth + 1));
                }
                Err(error) if !is_absent(&error) => return Err(fail("stat", &child, error)),
                _ => {}
            }
            visit(child);
        }
    }
    Ok(())
}
