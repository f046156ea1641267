//! The seal of a run that replaces another, and what comes after it.

use std::io;
use std::sync::Arc;

use runvault_crypto::digest::sha256;
use runvault_format::digests::{self, Kind as Digested, Line};
use runvault_format::envelope_file::EnvelopeName;
use runvault_format::header::Kind;
use runvault_format::ids::{Digest, FileId, RunId};
use runvault_format::keys::RunKey;
use runvault_format::name;
use runvault_format::pins::{self, Pinned};
use runvault_format::seal_note::SealNote;
use runvault_store::backend::{Dir, Rename};
use runvault_store::read_whole::read_whole;
use runvault_store::replace;

use super::super::checked::Anew;
use super::super::finding::{Change, Finding};
use super::super::origin::{self, Kept};
use super::super::read::{NOTE_MAX, Signed, hash, verify_note};
use super::super::sealed_file::Writer;
use super::super::survey::Survey;
use super::super::{DIGESTS, MANIFEST, NEW, NOTE, PINS, SEAL, read_back, verify};
use super::early::ReadBack;
use super::tree::random_name;
use super::{Copying, Job, PARTIAL, Progress, Replaced, Tree};
use crate::authority::{EnvelopeFile, Sealed};
use crate::lease::{Holding, NAME as LEASE};
use crate::outcome::{exists, part_opened};
use crate::removal::{remove, remove_dir, remove_dir_with};
use crate::run_life::{DIR_MODE, FILE_MODE, rename_dir};
use crate::{Damage, Error, Result, cores, runs, seal, sys};

impl Copying<'_> {
    pub(super) fn object(&self, name: &str) -> String {
        format!("runs/{}/{name}", runs::coming_place(&self.job.new))
    }

    fn failed(&self, operation: &'static str, name: &str, source: io::Error) -> Error {
        Error::store(operation, self.object(name), source)
    }

    fn damaged(&self, name: &str, why: impl Into<String>) -> Error {
        Error::damaged(self.object(name), Damage::Run(why.into()))
    }

    /// Reads everything back and puts the seal in place; else gives the files that are not as they were sealed first.
    /// `early`: what needs no reading.
    pub(super) fn seal(
        &self,
        holding: &Holding,
        early: Option<&ReadBack>,
        progress: Progress<'_>,
    ) -> Result<Option<Vec<u32>>> {
        self.tree.complete()?;
        let top = self.tree.record(0)?.clone();
        self.tree.dress_named(0, &*self.dir, b"tree", &top)?;
        self.dir.sync_fs().map_err(|e| self.failed("sync", "tree", e))?;
        // Whoever believes to hold the lease too has another one.
        let name = [NEW, b"-", &random_name()?[..]].concat();
        let made = self.dir.create_dir(&name, DIR_MODE).and_then(|()| self.dir.open_dir(&name));
        let new = made.map_err(|e| self.failed("make", "seal.new", e))?;
        let sealed = self.seal_in((&name, &new), holding, early, progress);
        if !matches!(sealed, Ok(None)) {
            // The first error is the one to tell; what stays is cleared away at the commit.
            let _ = remove_dir(&*self.dir, &name);
        }
        sealed
    }

    /// [`Copying::seal`], in `new`, which is empty and has that name.
    fn seal_in(
        &self,
        (name, new): (&[u8], &Arc<dyn Dir>),
        holding: &Holding,
        early: Option<&ReadBack>,
        progress: Progress<'_>,
    ) -> Result<Option<Vec<u32>>> {
        let mut survey = Survey::walk(&self.context)?;
        self.check_names(&survey)?;
        let Some(pins_id) = self.write_pins(&mut survey, &**new, early, holding, progress)? else {
            return self.not_as_sealed(&survey).map(Some);
        };
        let others = self.not_as_sealed(&survey)?;
        if !others.is_empty() {
            return Ok(Some(others));
        }
        let sealed = envelopes(self.job, &self.key, &self.seal)?;
        let note = self.write_seal(&**new, survey, pins_id, &sealed)?;
        self.put(&**new, NOTE, &note)?;
        holding.check()?;
        new.sync().map_err(|e| self.failed("sync", "seal.new", e))?;
        match rename_dir(&*self.dir, name, SEAL) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EEXIST | libc::ENOTEMPTY)) => {
                let holder = "another process, which sealed it first".to_owned();
                return Err(Error::Held { run: self.job.new.to_string(), holder });
            }
            put => put.and_then(|()| self.dir.sync()).map_err(|e| self.failed("put in place", "seal", e))?,
        }
        Ok(None)
    }

    /// Names and kinds are those of the manifest, in its order.
    fn check_names(&self, survey: &Survey) -> Result<()> {
        let entries = &self.tree.manifest.entries;
        let found = survey.items.iter().map(|item| (&item.entry.name, item.entry.record.kind));
        if found.eq(entries.iter().map(|entry| (&entry.name, entry.record.kind))) {
            return Ok(());
        }
        let fault = survey.faults.first().map_or_else(|| "tree".to_owned(), |fault| fault.object.clone());
        Err(self.damaged(&fault, "other names than were sealed, while it was copied"))
    }

    /// The nonce of every chunk, as the files are read back; `None` where some do not authenticate.
    fn write_pins(
        &self,
        survey: &mut Survey,
        new: &dyn Dir,
        early: Option<&ReadBack>,
        holding: &Holding,
        progress: Progress<'_>,
    ) -> Result<Option<FileId>> {
        let entries = u32::try_from(survey.items.len()).map_err(|_| crate::Posix::FileTooLarge)?;
        let mut writer = Writer::create(&self.context, new, PINS, Kind::Pins)?;
        writer.write(&pins::Header { entries, nonces: survey.chunks() }.encode())?;
        let (mut done, total) = (0, self.seal.note.bytes);
        let table = survey.read(
            &|i, stat, nonce| early.map_or(Ok(None), |early| early.content(i, stat, nonce)),
            &mut |_, nonce| {
                holding.check()?;
                writer.write(nonce)
            },
            &mut |_, content, _| {
                done += content.size;
                progress(done, total);
            },
        )?;
        if !survey.faults.is_empty() {
            return Ok(None);
        }
        for pinned in table.iter().map(Pinned::encode) {
            writer.write(&pinned)?;
        }
        writer.finish().map(Some)
    }

    /// Files whose content is another, or does not authenticate. Anything else that is another ends it.
    fn not_as_sealed(&self, survey: &Survey) -> Result<Vec<u32>> {
        let manifest = &self.tree.manifest;
        let faults: Vec<&str> = survey.faults.iter().map(|fault| fault.object.as_str()).collect();
        let mut again = Vec::new();
        for (i, (entry, item)) in (0u32..).zip(manifest.entries.iter().zip(&survey.items)) {
            let object = survey.object(i as usize);
            if faults.contains(&object.as_str()) {
                match item.is_file() {
                    true => again.push(entry.record.object),
                    false => return Err(self.damaged(&object, "not as it was written")),
                }
                continue;
            }
            match verify::difference(manifest, survey, entry, &item.entry) {
                Some("content") => again.push(entry.record.object),
                Some(what) => {
                    return Err(self.damaged(&object, format!("the store keeps it otherwise: {what}")));
                }
                None => {}
            }
        }
        again.dedup();
        Ok(again)
    }

    /// All of `seal.new/` but the note, whose bytes it gives.
    fn write_seal(
        &self,
        new: &dyn Dir,
        mut survey: Survey,
        pins_id: FileId,
        sealed: &Sealed,
    ) -> Result<Vec<u8>> {
        let mut lines = std::mem::take(&mut survey.lines);
        let manifest = self.tree.manifest.encode()?;
        if Digest(sha256(&[&manifest])) != self.seal.note.manifest_sha256 {
            return Err(self.damaged("seal.new/manifest", "not what was sealed"));
        }
        let mut writer = Writer::create(&self.context, new, MANIFEST, Kind::Manifest)?;
        writer.write(&manifest)?;
        let manifest_id = writer.finish()?;
        let old = runs::run_dir(self.job.root, &self.job.old)?;
        let old_seal = format!("runs/{}/seal", self.job.old);
        let kept = old.open_dir(SEAL).map_err(|e| part_opened("open", old_seal.clone(), e))?;
        let kept = Kept::of(&old, &*kept, &old_seal, self.seal.origin.is_some())?;
        // What is signed here is what others will believe.
        let (replaced, expected) = origin::generations(&self.job.new, self.job.authority)?;
        if origin::verify(&kept, &self.object("seal.new"), replaced, self.job.authority)?.seal != expected {
            return Err(
                self.damaged("seal.new/origin.note", "not the seal that the audit log says was replaced")
            );
        }
        self.put(new, origin::RUN, &kept.run)?;
        self.put(new, origin::NOTE, &kept.note)?;
        let name =
            name::encrypt_run_name(self.context.keys.name_key(), &self.job.new, &self.tree.manifest.name)?;
        replace::replace(&*self.dir, b"name", &name, FILE_MODE)
            .map_err(|e| self.failed("write", "name", e))?;
        for EnvelopeFile { name, bytes } in sealed.of_the_vault() {
            self.put(new, name, bytes)?;
            self.check_written(new, name, bytes)?;
        }
        for name in ["run.json", "name"] {
            lines.push(Line { path: name.to_owned(), kind: Digested::File(self.hash(&*self.dir, name)?) });
        }
        let envelopes = sealed.of_the_vault().map(|envelope| envelope.name.as_str());
        for name in [MANIFEST, PINS, origin::RUN, origin::NOTE].into_iter().chain(envelopes) {
            lines.push(Line { path: format!("seal/{name}"), kind: Digested::File(self.hash(new, name)?) });
        }
        let digests = digests::encode(lines);
        self.put(new, DIGESTS, &digests)?;
        let first = &self.seal.note;
        let text = SealNote {
            run: self.job.new,
            run_note: self.verified.text_hash()?,
            gateway: self.job.worker.id(),
            n: 1,
            prev: None,
            state: sealed.state,
            files: first.files,
            bytes: first.bytes,
            manifest_sha256: first.manifest_sha256,
            manifest_id,
            pins_id,
            digests_sha256: Digest(sha256(&[&digests])),
            sealed: sys::utc_now(),
        }
        .to_text()?;
        Ok(self.job.worker.sign(&text))
    }

    fn check_written(&self, dir: &dyn Dir, name: &str, bytes: &[u8]) -> Result<()> {
        let found =
            read_back::fresh(dir, name, bytes.len()).map_err(|e| self.failed("read back", name, e))?;
        if found == bytes { Ok(()) } else { Err(self.damaged(name, "other bytes than were written")) }
    }

    /// The envelopes of the sealed run: to the vault that of the seal, whoever made it, and those of its readers.
    fn fill_keys(&self) -> Result<()> {
        let open = |name: &[u8], shown| {
            self.dir.open_dir(name).map_err(|e| part_opened("open", self.object(shown), e))
        };
        let (keys, seal) = (open(b"keys", "keys")?, open(SEAL, "seal")?);
        for (name, bytes) in read_back::envelopes(&*seal).map_err(|e| self.failed("read back", "seal", e))? {
            replace::replace(&*keys, name.as_bytes(), &bytes, FILE_MODE)
                .map_err(|e| self.failed("write", "keys", e))?;
            self.check_written(&*keys, &name, &bytes)?;
        }
        put_envelopes(&*keys, &envelopes(self.job, &self.key, &self.seal)?)
            .map_err(|e| self.failed("write", "keys", e))
    }

    fn put(&self, dir: &dyn Dir, name: &str, bytes: &[u8]) -> Result<()> {
        replace::create(dir, name.as_bytes(), bytes, FILE_MODE).map_err(|e| self.failed("write", name, e))
    }

    fn hash(&self, dir: &dyn Dir, name: &str) -> Result<Digest> {
        hash(dir, name.as_bytes()).map_err(|e| self.failed("read back", name, e))
    }

    /// Anybody can make a directory of that name.
    fn check_seal(&self) -> Result<()> {
        let object = self.object("seal/seal.note");
        let note = self.dir.open_dir(SEAL).and_then(|seal| read_whole(&*seal, NOTE.as_bytes(), NOTE_MAX));
        let note = note.map_err(|e| part_opened("read", object.as_str(), e))?;
        let (run_note, maker) = (self.verified.text_hash()?, self.verified.descriptor.signer);
        let signed = Signed { run: &self.job.new, run_note, maker, replaces: true };
        verify_note(&note, &object, &signed, self.job.authority).map(drop)
    }

    /// The sealed run gets its name.
    pub(super) fn commit(&self) -> Result<()> {
        let job = self.job;
        self.check_seal()?;
        self.fill_keys()?;
        clear_begun_seals(&*self.dir).map_err(|e| self.failed("remove", "seal.new", e))?;
        remove(&*self.dir, PARTIAL).map_err(|e| self.failed("remove", "partial", e))?;
        remove(&*self.dir, LEASE).map_err(|e| self.failed("remove", "lease", e))?;
        self.dir.sync().map_err(|e| self.failed("sync", "", e))?;
        let runs = runs::runs_dir(job.root)?;
        let (from, to) = (runs::coming_place(&job.new), job.new.to_string());
        let fail = |e| Error::store("put in place", format!("runs/{to}"), e);
        rename_dir(&*runs, from.as_bytes(), to.as_bytes()).map_err(fail)?;
        runs.sync().map_err(fail)
    }
}

impl Job<'_> {
    /// What comes after the commit: the seal is read back, and the old run goes.
    /// `read_back`: this process has just read it.
    pub(super) fn end(
        &self,
        copied: u64,
        read_back: Option<&Tree>,
        progress: Progress<'_>,
    ) -> Result<Replaced> {
        match self.try_end(copied, read_back, progress) {
            Err(error @ Error::Damaged { .. }) => Err(error),
            // Another one came to its end first, and took the worker's key away.
            Err(_) if self.is_committed()? && runs::is_gone(self.root, &self.old) => {
                self.try_end(copied, None, progress)
            }
            ended => ended,
        }
    }

    fn try_end(&self, copied: u64, read_back: Option<&Tree>, progress: Progress<'_>) -> Result<Replaced> {
        let dir = runs::run_dir(self.root, &self.new)?;
        let found = seal::Seal::load(self.root, &self.new, self.authority)?;
        let replaced = Replaced { files: found.note.files, bytes: found.note.bytes, copied };
        let worker = EnvelopeName::Worker(self.worker.id()).to_string();
        let fail = |e| Error::store("clear", format!("runs/{}", self.new), e);
        let keys =
            dir.open_dir(b"keys").map_err(|e| part_opened("open", format!("runs/{}/keys", self.new), e))?;
        let runs_dir = runs::runs_dir(self.root)?;
        let (old, gone) = (self.old.to_string(), runs::gone_place(&self.old));
        // `None`: a kill left the end of what follows alone.
        let key = runs::envelopes(self.root, &self.new, self.authority)?.open(&self.new, self.authority)?;
        let settle = || key.as_ref().map_or(Ok(()), |key| self.settle(&*keys, key, &found));
        if exists(&*runs_dir, old.as_bytes()).map_err(fail)? {
            let context = verify::open(self.root, &self.new, self.authority)?;
            read_back::read_back(self.root, &dir, &self.new, self.authority, &context)?;
            settle()?;
            if !self.grace.is_zero() {
                (self.waits)();
                std::thread::sleep(self.grace);
            }
            self.stands(&found, read_back, progress)?;
            // Of one that was put back once.
            remove_gone(&*runs_dir, &self.old)?;
            match runs_dir.rename(old.as_bytes(), &*runs_dir, gone.as_bytes(), Rename::Over) {
                // Someone else is at the same.
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
                renamed => renamed
                    .and_then(|()| runs_dir.sync())
                    .map_err(|e| Error::store("remove", format!("runs/{old}"), e))?,
            }
        }
        // Lines that named the old run while both were there; those that come now find this one alone.
        settle()?;
        remove_gone(&*runs_dir, &self.old)?;
        clear_begun_seals(&*dir).map_err(fail)?;
        let mut names = vec![(keys.clone(), worker.into_bytes())];
        dir.entries(0, &mut |entry| {
            if entry.name.starts_with(WORKER_SEED) {
                names.push((dir.clone(), entry.name));
            }
            true
        })
        .map_err(fail)?;
        for (dir, name) in names {
            remove(&*dir, &name).and_then(|()| dir.sync()).map_err(fail)?;
        }
        // Who puts the old run back is noticed here from now on.
        self.authority.note_seal(&self.new, &found.hash);
        Ok(replaced)
    }
}

impl Job<'_> {
    /// Seals the key to who reads the run by the newest line; once more, where one came meanwhile.
    fn settle(&self, keys: &dyn Dir, key: &RunKey, found: &seal::Seal) -> Result<()> {
        let fail = |e| Error::store("write", format!("runs/{}/keys", self.new), e);
        loop {
            self.authority.refresh();
            let line = self.authority.standing().line;
            put_envelopes(keys, &envelopes(self, key, found)?).map_err(fail)?;
            self.authority.refresh();
            if self.authority.standing().line == line {
                return Ok(());
            }
        }
    }

    /// The last look before the old run goes: a process that was gone on from, a machine that slept, or somebody, may have
    /// been at the new one since it was read back.
    fn stands(&self, found: &seal::Seal, read_back: Option<&Tree>, progress: Progress<'_>) -> Result<()> {
        if let Some(tree) = read_back.filter(|_| found.origin.is_some()) {
            return if self.is_committed()? { tree.is_whole() } else { Err(self.gone()) };
        }
        let look = &mut |done, total| progress(done, total);
        let verified = verify::verify(self.root, found, self.authority, &Anew, look)?;
        let findings: Vec<&Finding> = verified.findings.iter().filter(|one| one.change.counts()).collect();
        // What was added harms nothing: whatever does is told first.
        let harmed = findings.iter().find(|one| one.change != Change::Added);
        match harmed.or(findings.first()) {
            Some(found) => {
                let damage = Damage::OldStays { change: found.change.clone(), old: self.old, new: self.new };
                Err(Error::damaged(format!("runs/{}/{}", self.new, found.object), damage))
            }
            None if found.origin.is_some() => Ok(()),
            None => Err(self.gone()),
        }
    }

    fn gone(&self) -> Error {
        let what = "another run stands there, or none: the run that it replaces stays".to_owned();
        Error::damaged(format!("runs/{}", self.new), Damage::Run(what))
    }
}

/// How the files begin that hold the worker's seed, sealed to the vault's key.
pub const WORKER_SEED: &[u8] = b"worker-vault-";

/// What others have begun to seal and did not end.
fn clear_begun_seals(dir: &dyn Dir) -> io::Result<()> {
    let mut begun = Vec::new();
    dir.entries(0, &mut |entry| {
        begun.extend(entry.name.starts_with(NEW).then_some(entry.name));
        true
    })?;
    begun.iter().try_for_each(|name| remove(dir, name))
}

/// Removes what is left of a run that was replaced. Its envelopes go first: whoever is revoked from then on finds none of
/// them.
///
/// # Errors
/// The store's.
pub fn remove_gone(runs_dir: &dyn Dir, old: &RunId) -> Result<()> {
    let gone = runs::gone_place(old);
    let name = gone.as_bytes();
    let keys_of = |dir: Arc<dyn Dir>| remove(&*dir, b"keys").and_then(|()| dir.sync());
    let removed = match runs_dir.open_dir(name) {
        // Nothing of ours.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => runs_dir.unlink(name),
        opened => opened.and_then(keys_of).and_then(|()| remove_dir_with(cores::count(), runs_dir, name)),
    };
    match removed {
        // There is none, or someone else removes it too.
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        removed => removed.map_err(|e| Error::store("remove", format!("runs/{gone}"), e)),
    }
}

/// The key of the new run, for today's epoch and for those who read what it replaces. `seal`: its own, or that of the one
/// that it replaces: both know the first.
fn envelopes(job: &Job<'_>, key: &RunKey, seal: &seal::Seal) -> Result<Sealed> {
    // A rotation may have come, a reader may have gone.
    job.authority.refresh();
    let (replaced, _) = origin::generations(&job.new, job.authority)?;
    let first = seal.origin.as_ref().map_or(&seal.note, |origin| &origin.note);
    job.authority.seal_replacing(&job.new, key, &replaced, &first.state)
}

/// Those of `sealed`, and no others to older epochs or to readers. One to the vault's key that is there stays, since the
/// seal has it too.
fn put_envelopes(keys: &dyn Dir, sealed: &Sealed) -> io::Result<()> {
    for EnvelopeFile { name, bytes } in &sealed.envelopes {
        if !(name.starts_with("vault-") && exists(keys, name.as_bytes())?) {
            replace::replace(keys, name.as_bytes(), bytes, FILE_MODE)?;
        }
    }
    let mut others = Vec::new();
    keys.entries(0, &mut |entry| {
        let kept = sealed.envelopes.iter().any(|envelope| envelope.name.as_bytes() == entry.name);
        let text = std::str::from_utf8(&entry.name).ok().and_then(|name| name.parse().ok());
        let goes = match text {
            // A rotation may have come meanwhile.
            Some(EnvelopeName::Vault(e)) => e < sealed.epoch,
            Some(EnvelopeName::Reader(_)) => true,
            _ => false,
        };
        others.extend((goes && !kept).then_some(entry.name));
        true
    })?;
    for name in others {
        keys.unlink(&name)?;
    }
    keys.sync()
}
