//! Sealing: a finished run is read back from the store, signed as it is, and its key leaves this machine.
//!
//! Order: nothing writes any more and everything is durable; `seal.new/` with manifest, pins, digests and a further
//! envelope, synced; the signed note; one rename to `seal/`, which is the commit; all of it read back; only then is
//! the run's key erased here. What a crash leaves before the commit is made anew, but for what was read back
//! (`earlier`); after it the rest is done at the next start.

mod beside;
mod checked;
mod compare;
mod earlier;
mod ends;
mod finding;
mod hidden;
mod left_over;
pub mod origin;
mod own_name;
mod read;
mod read_back;
mod reading;
pub mod rekey;
mod scrub;
mod sealed_file;
mod survey;
mod under_way;
mod verify;

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use runvault_crypto::digest::sha256;
use runvault_crypto::{random, registers};
use runvault_format::descriptor::RunKind;
use runvault_format::digests::{self, Kind as Digested, Line};
use runvault_format::header::Kind;
use runvault_format::ids::{Digest, IdentityId, RunId};
use runvault_format::manifest::Manifest;
use runvault_format::note::{Note, text_hash};
use runvault_format::pins::{self, Pinned};
use runvault_format::seal_note::SealNote;
use runvault_store::backend::Dir;
use runvault_store::guarded::guarded;
use runvault_store::replace;

pub use self::checked::{Anew, Checked};
use self::compare::Comparison;
use self::earlier::Resuming;
pub use self::finding::{Change, Finding};
pub use self::hidden::{Seen, Shown};
pub use self::origin::Origin;
pub(crate) use self::read::Pins;
pub use self::read::{Seal, find, has_seal};
pub use self::scrub::{Scrubbed, scrub};
pub(crate) use self::sealed_file::Reader;
use self::sealed_file::Writer;
pub use self::survey::Fault;
use self::survey::Survey;
pub(crate) use self::survey::kind_of;
pub(crate) use self::under_way::UnderWay;
pub use self::verify::{Verified, manifest, paths, verify};
use crate::authority::{Gateway, SealPlace, Sealed};
use crate::file::RunContext;
use crate::lease::Holding;
use crate::ledger::{self, Expected};
use crate::outcome::part_opened;
use crate::removal::remove_dir;
use crate::run::Run;
use crate::run_life::{DIR_MODE, rename_dir};
use crate::{Damage, Error, Posix, Result, Vault, buffers, runs, sys};

pub(crate) const SEAL: &[u8] = b"seal";
/// Until the rename that commits it.
const NEW: &[u8] = b"seal.new";
const NOTE: &str = "seal.note";
const MANIFEST: &str = "manifest";
const PINS: &str = "pins";
const DIGESTS: &str = "digests";
/// Of a large file its progress is told so often, in plaintext bytes.
const TOLD: u64 = 1 << 20;
/// So often, and so long apart, it is looked whether everything of a run is closed.
const LETS_GO: u32 = 20;
const MOMENT: Duration = Duration::from_millis(50);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The run is sealed; its key is no longer here.
    Sealed(Summary),
    /// It was sealed by an earlier try; now its key is no longer here either.
    Finished,
    /// Nothing was signed: this does not authenticate.
    Refused(Vec<Fault>),
    /// Nothing was signed: whoever asked, having seen what is there, did not want it.
    Withheld,
}

/// A seal that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The run.
    pub run: RunId,
    /// Counts this gateway's seals.
    pub n: u64,
    /// Files, each counted once.
    pub files: u64,
    /// Their plaintext bytes.
    pub bytes: u64,
    /// Those of them that were read back for it: the others had been, by a try within the last day that was cut short.
    pub read: u64,
    /// What lies in the run's tree and is not ours, by its place: the seal says nothing of it.
    pub foreign: Vec<String>,
}

/// Gives the text on a run for its manifest; `None` to leave the run open.
pub type About<'a> = &'a mut dyn FnMut(&mut Contents<'_>) -> Result<Option<String>>;

/// A run's files, for whoever says whether they are all there.
pub struct Contents<'a> {
    survey: &'a mut Survey,
    noted: Option<u64>,
}

impl Contents<'_> {
    /// Plaintext path below the run and size of every file.
    pub fn files(&self) -> impl Iterator<Item = (Vec<u8>, u64)> + '_ {
        let files = self.survey.items.iter().enumerate().filter(|(_, item)| item.is_file());
        files.map(|(i, item)| (self.survey.path(i), item.entry.record.size))
    }

    /// The content of a file of at most `max` bytes; `None` where there is none, or a larger one.
    ///
    /// # Errors
    /// Damage; the store's.
    pub fn read(&mut self, path: &[u8], max: u64) -> Result<Option<Vec<u8>>> {
        self.survey.plain(path, max)
    }

    /// How many of its names were compared with what was noted when they were written; `None` where no ledger of it is
    /// kept here.
    pub fn noted(&self) -> Option<u64> {
        self.noted
    }
}

impl Vault {
    /// Seals a run that this gateway holds. Nobody may have a file of it open. `about` is the text on the run that
    /// goes into the manifest, `None` to leave the run open; `progress` is told plaintext bytes, read and in all.
    ///
    /// # Errors
    /// [`Posix::Busy`] while a file of it is open; [`Posix::NotPermitted`] for the files outside any run;
    /// [`Error::Sealing`] while one is made already, [`Error::GivenUp`]; [`Error::Unfinished`], where it, or another one
    /// before it, is sealed all the same; [`Error::NotHeld`], [`Error::NotMaker`],
    /// [`Error::Revoked`], [`Error::Sealed`], [`Error::Held`]; the store's.
    pub fn seal(&self, run: &RunId, about: About<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<Outcome> {
        self.check_open()?;
        let gateway = self.gateway.as_deref().ok_or(Posix::ReadOnly)?;
        let _turn = self.sealing.begin(*run)?;
        let run = self.table().runs().find(|found| found.id == *run).cloned().ok_or(Posix::NotFound)?;
        if run.kind != RunKind::Run {
            return Err(Posix::NotPermitted.into());
        }
        if run.held && has_seal(&self.root, &run.id)? {
            return self.finish_earlier(gateway, &run).map(|()| Outcome::Finished);
        }
        if run.is_sealed() {
            return Err(Error::Sealed { run: run.id.to_string() });
        }
        if !run.held {
            return Err(run.not_held());
        }
        self.require_right_to_seal(gateway, &run)?;
        // One that is not finished may be in the way of the next; a stranger's, in the place of one, is in nobody's.
        let others = self.unfinished_seals().into_iter().map(|other| self.finish_earlier(gateway, &other));
        let earlier = others.fold(Ok(()), Result::and);
        let why = |error| match error {
            Error::Damaged { .. } | Error::Store { .. } => earlier.err().unwrap_or(error),
            _ => error,
        };
        self.seal_held(gateway, &run, about, progress).map_err(why)
    }

    fn seal_held(
        &self,
        gateway: &dyn Gateway,
        run: &Arc<Run>,
        about: About<'_>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Outcome> {
        let mut made = self.seal_closed(gateway, run, self.close_for_good(run)?, about, progress);
        if let Ok(Outcome::Refused(faults)) = &made
            && self.cut_ends(run, faults)?
        {
            made = self.seal_closed(gateway, run, self.close_for_good(run)?, about, progress);
        }
        match made {
            Ok(Outcome::Sealed(summary)) => {
                self.finish_or_say(gateway, run).map(|()| Outcome::Sealed(summary))
            }
            // Once it is in place nothing may be written any more, whatever failed after that.
            Err(error) if has_seal(&self.root, &run.id).unwrap_or(true) => Err(error),
            other => {
                run.reopen();
                other
            }
        }
    }

    /// Everything of a run is durable and in order, and nothing of it is open; its lease is kept.
    fn close_for_good(&self, run: &Arc<Run>) -> Result<Arc<Holding>> {
        run.reopen();
        // The kernel lets go a moment after a program did, and so does a look of this process's own.
        let mut closed = Ok(None);
        for turn in 0..LETS_GO {
            if turn > 0 {
                std::thread::sleep(MOMENT);
            }
            self.sealing.check()?;
            // What an earlier session left is put in order by whoever opens the run for writing.
            let body = self.body(run)?;
            body.check_held()?;
            if turn == 0 {
                // What waits in memory goes out, so that no file stays open for that alone.
                body.write_out()?;
            }
            drop(body);
            self.sweep_files();
            self.dirs.drop_run(run);
            closed = run.close_but_lease();
            if let Ok(Some(holding)) = closed {
                return Ok(holding);
            }
        }
        Err(closed.err().unwrap_or(Posix::Busy.into()))
    }

    /// Whether that gateway's seal of a run counts: it made the run, or was admitted to it.
    pub(crate) fn may_seal(&self, run: &Run, gateway: &IdentityId) -> bool {
        run.maker() == *gateway || {
            // What was admitted may have been dismissed since.
            self.authority.refresh();
            self.authority.is_admitted(gateway, Some(&run.id))
        }
    }

    /// # Errors
    /// [`Error::NotMaker`], [`Error::Revoked`]: its seal would not count.
    fn require_right_to_seal(&self, gateway: &dyn Gateway, run: &Run) -> Result<()> {
        if !self.may_seal(run, &gateway.id()) {
            return Err(run.not_maker());
        }
        self.require_unrevoked(gateway)
    }

    /// It was put in place, and what comes after that failed, or its process was killed.
    fn finish_earlier(&self, gateway: &dyn Gateway, run: &Arc<Run>) -> Result<()> {
        self.finish_or_say(gateway, run)?;
        log::info!("run {}: its seal was complete; its key is erased here", run.id);
        Ok(())
    }

    fn finish_or_say(&self, gateway: &dyn Gateway, run: &Arc<Run>) -> Result<()> {
        self.finish_seal(gateway, run)
            .map_err(|source| Error::Unfinished { run: run.id.to_string(), source: Box::new(source) })
    }

    /// What comes after the commit: the seal is read back, and the run's key erased.
    fn finish_seal(&self, gateway: &dyn Gateway, run: &Arc<Run>) -> Result<()> {
        let object = |part: &str| format!("runs/{}{part}", run.id);
        let dir = runs::run_dir(&self.root, &run.id)?;
        dir.sync().map_err(|e| Error::store("sync", object(""), e))?;
        let tree = dir.open_dir(b"tree").map_err(|e| part_opened("open", object("/tree"), e))?;
        let context = run.reader(&tree)?;
        let seal = read_back::read_back(&self.root, &dir, &run.id, &*self.authority, &context)?;
        if seal.note.gateway == gateway.id() {
            gateway.commit_seal(&run.id, &run.name())?;
        } else {
            // Who took the run over has sealed it.
            gateway.release(&run.id)?;
        }
        self.remove_ledger(gateway, &run.id);
        self.authority.note_seal(&run.id, &seal.hash);
        self.let_go_of(run);
        Ok(())
    }

    /// Once nothing will be compared any more.
    pub(crate) fn remove_ledger(&self, gateway: &dyn Gateway, run: &RunId) {
        let removed = gateway.ledgers().map_or(Ok(()), |dir| ledger::remove(&*dir, run));
        if let Err(error) = removed {
            log::warn!("run {run}: its ledger stays in the state folder: {error}");
        }
    }

    /// A seal that is being made is given up, and none is begun any more: the vault is about to be closed, and
    /// reading a run may take hours.
    pub fn end_seals(&self) {
        self.sealing.end();
    }

    /// The seal that is being made ends with [`Error::GivenUp`], and the run stays open: whoever asked for it has gone.
    pub fn give_up_seal(&self) {
        self.sealing.give_up();
    }

    fn seal_closed(
        &self,
        gateway: &dyn Gateway,
        run: &Arc<Run>,
        holding: Arc<Holding>,
        about: About<'_>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Outcome> {
        let dir = runs::run_dir(&self.root, &run.id).map(|dir| guarded(dir, holding.clone()));
        let outcome = dir.and_then(|dir| self.make_seal(gateway, run, (&dir, &holding), about, progress));
        let outcome = outcome.map_err(|error| holding.explain(error));
        if let Err(error) = holding.give_up() {
            log::warn!("runs/{}/lease: not given up: {error}", run.id);
        }
        outcome
    }

    fn make_seal(
        &self,
        gateway: &dyn Gateway,
        run: &Arc<Run>,
        (dir, holding): (&Arc<dyn Dir>, &Holding),
        about: About<'_>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Outcome> {
        let tree = dir.open_dir(b"tree");
        let tree = tree.map_err(|e| part_opened("open", format!("runs/{}/tree", run.id), e))?;
        dir.sync_fs().map_err(|e| Error::store("sync", format!("runs/{}", run.id), e))?;
        let context = run.reader(&tree)?;
        Making { vault: self, gateway, run, dir, context: &context, holding }.make(about, progress)
    }

    /// Nothing of it is held here any more; who may read sealed runs finds it as one.
    fn let_go_of(&self, run: &Arc<Run>) {
        self.change_table(|entries| _ = entries.remove(&run.id));
        self.give_up(run);
        if let Err(error) = self.scan(&mut self.hold_scans(), false) {
            log::warn!("run {} is looked for again later: {error}", run.id);
        }
    }

    /// Nothing of it is held in memory any more, and the kernel is told to ask again.
    pub(crate) fn give_up(&self, run: &Arc<Run>) {
        self.dirs.drop_run(run);
        run.mark_gone();
        run.erase_key();
        let nodes = self.nodes.of_run(run);
        self.nodes.forget_names(&nodes);
        self.sealed_away().extend(nodes);
        buffers::empty_all();
        registers::wipe();
    }

    /// Erases the keys of runs whose seals are in place: the process that made one was killed, or failed.
    ///
    /// # Errors
    /// The first [`Error::Unfinished`], where all stays as it is; [`Error::Sealing`] while a seal is being made.
    pub fn finish_seals(&self) -> Result<()> {
        let Some(gateway) = self.gateway.as_deref() else { return Ok(()) };
        let mut first = Ok(());
        for run in self.unfinished_seals() {
            let _turn = self.sealing.begin(run.id)?;
            first = first.and(self.finish_earlier(gateway, &run));
        }
        first
    }

    /// What the store does not tell is looked at again.
    fn unfinished_seals(&self) -> Vec<Arc<Run>> {
        let held: Vec<_> = self.table().runs().filter(|run| run.held).cloned().collect();
        held.into_iter().filter(|run| has_seal(&self.root, &run.id).unwrap_or(false)).collect()
    }
}

/// A seal that is being made.
struct Making<'a> {
    vault: &'a Vault,
    gateway: &'a dyn Gateway,
    run: &'a Run,
    dir: &'a Arc<dyn Dir>,
    context: &'a Arc<RunContext>,
    holding: &'a Holding,
}

impl Making<'_> {
    fn make(&self, about: About<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<Outcome> {
        let (mut survey, mut expected) = (Survey::walk(self.context)?, self.ledger()?);
        survey.faults.extend(own_name::fault(&**self.dir, self.run, self.context, expected.as_mut())?);
        let mut comparison = expected.map(|found| Comparison::of(found, self.context, &mut survey));
        let new = self.begin()?;
        let mut read = 0;
        let table = self.write_pins(&mut survey, comparison.as_mut(), &*new, &mut read, progress)?;
        let Some(pins_id) = table.filter(|_| survey.faults.is_empty()) else {
            self.drop_new()?;
            return Ok(Outcome::Refused(survey.faults));
        };
        let noted = comparison.map(|comparison| comparison.noted);
        let Some(text) = about(&mut Contents { survey: &mut survey, noted })? else {
            self.drop_new()?;
            return Ok(Outcome::Withheld);
        };
        let (files, bytes) = (survey.files().count() as u64, survey.files().map(|r| r.size).sum());
        let foreign = std::mem::take(&mut survey.foreign);
        let mut lines = std::mem::take(&mut survey.lines);
        let (manifest_sha256, manifest_id) = self.write_manifest(survey, text, &*new)?;
        let verified = runs::read_descriptor(&self.vault.root, &self.run.id, &*self.vault.authority)?;
        // Reading all of it back may have taken hours, nobody else looks where there is no mount, and custodians may have
        // said otherwise since it began.
        self.vault.require_right_to_seal(self.gateway, self.run)?;
        let sealed = self.vault.authority.seal_run(&self.run.id, &self.run.key()?)?;
        self.put_envelopes(&*new, &sealed)?;
        for name in ["run.json", "name"] {
            lines.push(Line { path: name.to_owned(), kind: Digested::File(self.hash(&**self.dir, name)?) });
        }
        for name in [MANIFEST, PINS].into_iter().chain(sealed.of_the_vault().map(|e| e.name.as_str())) {
            lines.push(Line { path: format!("seal/{name}"), kind: Digested::File(self.hash(&*new, name)?) });
        }
        let digests = digests::encode(lines);
        self.put(&*new, DIGESTS, &digests)?;
        let run_note = Note::parse(&verified.note).map_err(|e| self.damaged("run.json", e))?;
        let run_note = text_hash(run_note.text);
        let mut n = 0;
        let note = self.gateway.begin_seal(&self.run.id, &mut |place: SealPlace| {
            n = place.n;
            Ok(SealNote {
                run: self.run.id,
                run_note,
                gateway: self.gateway.id(),
                n: place.n,
                prev: place.prev,
                state: sealed.state,
                files,
                bytes,
                manifest_sha256,
                manifest_id,
                pins_id,
                digests_sha256: Digest(sha256(&[&digests])),
                sealed: sys::utc_now(),
            }
            .to_text()?)
        })?;
        self.put(&*new, NOTE, &note)?;
        earlier::forget(&**self.dir)?;
        self.vault.require_right_to_seal(self.gateway, self.run)?;
        self.commit(&*new)?;
        Ok(Outcome::Sealed(Summary { run: self.run.id, n, files, bytes, read, foreign }))
    }

    /// What was written, where this gateway has noted it.
    fn ledger(&self) -> Result<Option<Expected>> {
        let Some(dir) = self.gateway.ledgers() else { return Ok(None) };
        ledger::read(&*dir, &self.run.id, &self.context.keys.ledger_key())
            .map_err(|e| Error::store("read the ledger of", format!("runs/{}", self.run.id), e))
    }

    /// An empty `seal.new/`.
    fn begin(&self) -> Result<Arc<dyn Dir>> {
        self.drop_new()?;
        let made = self.dir.create_dir(NEW, DIR_MODE).and_then(|()| self.dir.open_dir(NEW));
        made.map_err(|e| self.failed("make", "seal.new", e))
    }

    /// What a seal that was not finished left.
    fn drop_new(&self) -> Result<()> {
        remove_dir(&**self.dir, NEW).map_err(|e| self.failed("remove", "seal.new", e))
    }

    /// The nonce of every chunk, as the files are read back; `None` where some do not authenticate. `read` counts the
    /// bytes that were.
    fn write_pins(
        &self,
        survey: &mut Survey,
        mut comparison: Option<&mut Comparison>,
        new: &dyn Dir,
        read: &mut u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Option<runvault_format::ids::FileId>> {
        let entries = u32::try_from(survey.items.len()).map_err(|_| Posix::FileTooLarge)?;
        let nonces = survey.chunks();
        let total: u64 = survey.files().map(|record| record.size).fold(0, u64::saturating_add);
        let mut writer = Writer::create(self.context, new, PINS, Kind::Pins)?;
        writer.write(&pins::Header { entries, nonces }.encode())?;
        let resuming = Resuming::begin(self.context, &**self.dir, &self.gateway.id(), survey);
        let (done, within) = (Cell::new(0_u64), Cell::new(0_u64));
        let (progress, chunk) = (RefCell::new(progress), self.context.geometry.chunk());
        let tell = || {
            let done = done.get().saturating_add(within.get()).min(total);
            self.vault.sealing.tell(done, total);
            (progress.borrow_mut())(done, total);
        };
        let table = survey.read(
            &|i, stat, nonces| resuming.content(i, stat, nonces),
            &mut |i, nonce| {
                if let Some(comparison) = &mut comparison {
                    comparison.nonce(i, nonce);
                }
                self.vault.sealing.check()?;
                self.holding.check()?;
                resuming.nonce(i, nonce);
                within.set(within.get() + chunk);
                if within.get().is_multiple_of(TOLD) {
                    tell();
                }
                writer.write(nonce)
            },
            &mut |i, content, stat| {
                *read += if resuming.file(i, content, stat) { 0 } else { content.size };
                done.set(done.get() + content.size);
                within.set(0);
                tell();
            },
        )?;
        let done = done.get();
        if *read < done {
            log::info!(
                "run {}: {read} of {done} bytes were read back, the others within the last day",
                self.run.id
            );
        }
        if let Some(comparison) = comparison {
            comparison.contents(survey, &table);
        }
        if !survey.faults.is_empty() {
            return Ok(None);
        }
        for pinned in table.iter().map(Pinned::encode) {
            writer.write(&pinned)?;
        }
        writer.finish().map(Some)
    }

    fn write_manifest(
        &self,
        survey: Survey,
        about: String,
        new: &dyn Dir,
    ) -> Result<(Digest, runvault_format::ids::FileId)> {
        let mut salt = [0; 32];
        random::fill(&mut salt)?;
        let entries = survey.items.into_iter().map(|item| item.entry).collect();
        let bytes = Manifest { salt, name: self.run.name(), about, entries }.encode()?;
        let mut writer = Writer::create(self.context, new, MANIFEST, Kind::Manifest)?;
        writer.write(&bytes)?;
        Ok((Digest(sha256(&[&bytes])), writer.finish()?))
    }

    /// The key once more, to today's epoch: in the seal, and where rotations look for it.
    fn put_envelopes(&self, new: &dyn Dir, sealed: &Sealed) -> Result<()> {
        for envelope in &sealed.envelopes {
            runs::put_envelope_in(self.dir, &self.run.id, envelope)?;
        }
        for envelope in sealed.of_the_vault() {
            self.put(new, &envelope.name, &envelope.bytes)?;
        }
        // Soon the key is nowhere else.
        let keys = self.dir.open_dir(b"keys").map_err(|e| self.failed("open", "keys", e))?;
        for envelope in sealed.of_the_vault() {
            for dir in [&*keys, new] {
                let found = read_back::fresh(dir, &envelope.name, envelope.bytes.len());
                if found.map_err(|e| self.failed("read back", &envelope.name, e))? != envelope.bytes {
                    return Err(self.damaged(&envelope.name, "other bytes than were written"));
                }
            }
        }
        Ok(())
    }

    fn commit(&self, new: &dyn Dir) -> Result<()> {
        self.holding.check()?;
        new.sync().map_err(|e| self.failed("sync", "seal.new", e))?;
        let renamed = rename_dir(&**self.dir, NEW, SEAL);
        renamed.and_then(|()| self.dir.sync()).map_err(|e| self.failed("put in place", "seal", e))
    }

    fn put(&self, dir: &dyn Dir, name: &str, bytes: &[u8]) -> Result<()> {
        replace::create(dir, name.as_bytes(), bytes, crate::run_life::FILE_MODE)
            .map_err(|e| self.failed("write", name, e))
    }

    /// SHA-256 of a stored file, past what the kernel has of it.
    fn hash(&self, dir: &dyn Dir, name: &str) -> Result<Digest> {
        read::hash(dir, name.as_bytes()).map_err(|e| self.failed("read back", name, e))
    }

    fn failed(&self, operation: &'static str, name: &str, source: std::io::Error) -> Error {
        Error::store(operation, format!("runs/{}/{name}", self.run.id), source)
    }

    fn damaged(&self, name: &str, why: impl ToString) -> Error {
        Error::damaged(format!("runs/{}/{name}", self.run.id), Damage::Run(why.to_string()))
    }
}
