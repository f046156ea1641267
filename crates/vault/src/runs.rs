//! The runs of a store, as files: what is there, what is signed, who has envelopes.

use std::sync::Arc;

use runvault_crypto::digest::ct_eq;
use runvault_format::descriptor::{How, RunDescriptor, RunKind, Seals};
use runvault_format::envelope_file;
use runvault_format::ids::{Digest, IdentityId, RunId, VaultId};
use runvault_format::keys::{RunKey, RunKeys};
use runvault_format::note::{Note, Signature, Verified, text_hash};
use runvault_format::size::Geometry;
use runvault_store::backend::Dir;
use runvault_store::read_whole::read_whole;
use runvault_store::replace;

use crate::authority::{Authority, ChainPlace, EnvelopeFile, GatewayKey, MadeRun, Sealed};
use crate::outcome::{is_not_found, opened, part_opened};
use crate::run_life::DIR_MODE;
use crate::{Damage, Error, Result, sys};

const RUNS: &[u8] = b"runs";
const KEYS: &[u8] = b"keys";
/// How the names of runs begin that are on their way in.
const COMING: &str = ".new-";
/// And of those that are on their way out.
const GOING: &str = ".gone-";
/// run.json is a signed note.
const DESCRIPTOR: &[u8] = b"run.json";
const DESCRIPTOR_MAX: usize = 1 << 20;
const ENVELOPE_MAX: usize = 64 << 10;

/// A run.json that an enrolled gateway signed, for this vault and this directory.
#[derive(Clone, Debug)]
pub struct VerifiedRun {
    /// What it says.
    pub descriptor: Verified<RunDescriptor>,
    /// The signed bytes as stored, whose hash the next run of its gateway names.
    pub note: Vec<u8>,
}

impl VerifiedRun {
    /// What chains name it by.
    ///
    /// # Errors
    /// None: the note was parsed before.
    pub(crate) fn text_hash(&self) -> Result<Digest> {
        Ok(text_hash(Note::parse(&self.note)?.text))
    }
}

/// What `runs/` holds.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Names of runs, sorted.
    pub runs: Vec<RunId>,
    /// Other names.
    pub foreign: Vec<Vec<u8>>,
    /// Names of runs on their way in (`.new-…`) or out (`.gone-…`).
    pub(crate) passing: Vec<Vec<u8>>,
}

impl Listed {
    /// Runs on their way in: their directories have not got their names yet.
    pub fn coming(&self) -> impl Iterator<Item = RunId> {
        self.passing_as(COMING)
    }

    /// Runs that have lost their names and are not removed yet.
    pub fn going(&self) -> impl Iterator<Item = RunId> {
        self.passing_as(GOING)
    }

    fn passing_as(&self, prefix: &'static str) -> impl Iterator<Item = RunId> {
        let id = move |name: &Vec<u8>| std::str::from_utf8(name).ok()?.strip_prefix(prefix)?.parse().ok();
        self.passing.iter().filter_map(id)
    }
}

/// The name in `runs/` of a run that is on its way in: until it is whole, or sealed where it replaces another.
pub fn coming_place(run: &RunId) -> String {
    format!("{COMING}{run}")
}

/// The name in `runs/` of a run that is on its way out.
pub fn gone_place(run: &RunId) -> String {
    format!("{GOING}{run}")
}

/// What run.json says of a new run at this place of its gateway's chain.
pub fn new_descriptor(
    vault: VaultId,
    sealed: &Sealed,
    gateway: IdentityId,
    place: ChainPlace,
    run: RunId,
    kind: RunKind,
    keys: &RunKeys,
) -> RunDescriptor {
    RunDescriptor {
        vault,
        run,
        geometry: Geometry::default(),
        kind,
        commitment: Digest(keys.commitment()),
        epoch: sealed.epoch,
        state: sealed.state,
        signer: gateway,
        seq: Some(place.seq),
        prev: place.prev.map(Digest),
        seals: Seals { n: place.seals, hash: place.seals_hash },
        after: None,
        opened: sys::utc_now(),
    }
}

/// The store's `runs/`.
pub(crate) fn runs_dir(root: &Arc<dyn Dir>) -> Result<Arc<dyn Dir>> {
    root.open_dir(RUNS).map_err(|e| part_opened("open", "runs", e))
}

/// [`runs_dir`] of a vault that is begun with: that it is missing is damage, and no sign of a store that
/// was deleted while it was in use.
pub(crate) fn runs_of_vault(root: &Arc<dyn Dir>) -> Result<Arc<dyn Dir>> {
    runs_dir(root).map_err(|e| {
        if is_missing(&e) { Error::damaged("runs", Damage::Run("missing".to_owned())) } else { e }
    })
}

/// `runs/<id>`.
pub(crate) fn run_dir(root: &Arc<dyn Dir>, run: &RunId) -> Result<Arc<dyn Dir>> {
    dir_at(root, &run.to_string())
}

fn dir_at(root: &Arc<dyn Dir>, place: &str) -> Result<Arc<dyn Dir>> {
    runs_dir(root)?.open_dir(place.as_bytes()).map_err(|e| opened("open", format!("runs/{place}"), e))
}

/// Whether `runs/<id>` is not there: a run on its way out is renamed before it is taken apart.
pub(crate) fn is_gone(root: &Arc<dyn Dir>, run: &RunId) -> bool {
    run_dir(root, run).is_err_and(|error| is_not_found(&error))
}

/// The names in `runs/`.
///
/// # Errors
/// [`Damage`] where it is missing; the store's.
pub fn list(root: &Arc<dyn Dir>) -> Result<Vec<RunId>> {
    list_all(root).map(|listed| listed.runs)
}

/// [`list`], with what else lies there.
///
/// # Errors
/// The store's.
pub fn list_all(root: &Arc<dyn Dir>) -> Result<Listed> {
    let runs = runs_of_vault(root)?;
    let mut listed = Listed::default();
    runs.entries(0, &mut |entry| {
        let id = std::str::from_utf8(&entry.name).ok().and_then(|text| text.parse().ok());
        match id {
            // Whatever it is: what bears a run's name and is no directory is refused when it is opened.
            Some(id) => listed.runs.push(id),
            _ if [COMING, GOING].iter().any(|begins| entry.name.starts_with(begins.as_bytes())) => {
                listed.passing.push(entry.name);
            }
            _ => listed.foreign.push(entry.name),
        }
        true
    })
    .map_err(|e| Error::store("list", "runs", e))?;
    listed.runs.sort_unstable();
    Ok(listed)
}

/// Reads and verifies a run's descriptor: an enrolled gateway of this vault signed it for this run.
///
/// # Errors
/// [`Damage::Run`] with what is wrong; [`Error::Newer`]; the store's.
pub fn read_descriptor(root: &Arc<dyn Dir>, run: &RunId, authority: &dyn Authority) -> Result<VerifiedRun> {
    let object = || format!("runs/{run}/run.json");
    let bytes = read_whole(&*run_dir(root, run)?, DESCRIPTOR, DESCRIPTOR_MAX)
        .map_err(|e| opened("read", object(), e))
        .map_err(|e| if is_not_found(&e) { refuse(run, "it is missing") } else { e })?;
    let descriptor = verify_descriptor(run, &object(), &bytes, authority)?;
    Ok(VerifiedRun { descriptor, note: bytes })
}

/// [`read_descriptor`] of a run that has not got its name in `runs/` yet.
pub(crate) fn read_descriptor_in(
    dir: &Arc<dyn Dir>,
    run: &RunId,
    object: &str,
    authority: &dyn Authority,
) -> Result<VerifiedRun> {
    let object = format!("{object}/run.json");
    let bytes =
        read_whole(&**dir, DESCRIPTOR, DESCRIPTOR_MAX).map_err(|e| part_opened("read", object.clone(), e))?;
    Ok(VerifiedRun { descriptor: verify_descriptor(run, &object, &bytes, authority)?, note: bytes })
}

fn refuse(run: &RunId, what: impl Into<String>) -> Error {
    refuse_at(&format!("runs/{run}/run.json"), what)
}

fn refuse_at(object: &str, what: impl Into<String>) -> Error {
    Error::damaged(object, Damage::Run(what.into()))
}

/// Verifies a run.json of that run, which was read from `object`.
///
/// # Errors
/// [`Damage::Run`] with what is wrong; [`Error::Newer`].
pub(crate) fn verify_descriptor(
    run: &RunId,
    object: &str,
    bytes: &[u8],
    authority: &dyn Authority,
) -> Result<Verified<RunDescriptor>> {
    let refuse = |what: String| refuse_at(object, what);
    let named = |e: runvault_format::Error| refuse(e.to_string());
    let note = Note::parse(bytes).map_err(named)?;
    // The signer's name is read before its signature holds, and only to find the key to check with.
    let claimed = RunDescriptor::parse_text(note.text).map_err(|e| unknown(object, &note, authority, e))?;
    let not_theirs = |what: String| Error::damaged(object, Damage::Signer(what));
    let key = signer_of(run, &claimed, authority).map_err(not_theirs)?;
    let text = note.verify(&claimed.signer, &key.sign).map_err(named)?;
    let descriptor = text.parse(RunDescriptor::parse_text).map_err(named)?;
    let last = key.until.map(|until| until.run);
    if let Some(why) = last.and_then(|last| last.refuses("run", descriptor.seq, || text_hash(note.text))) {
        return Err(not_theirs(format!("{why} (gateway {})", claimed.signer)));
    }
    if descriptor.vault != authority.vault_id() {
        return Err(refuse("it belongs to another vault".to_owned()));
    }
    if descriptor.run != *run {
        return Err(refuse(format!("it is that of run {}", descriptor.run)));
    }
    if let Some(seq) = descriptor.seq {
        authority.note_run(&MadeRun {
            gateway: descriptor.signer,
            seq,
            hash: text_hash(note.text),
            run: *run,
        });
    }
    Ok(descriptor)
}

/// The key that a run.json must be signed with: a gateway's, or of a run that replaces another that of the worker
/// whom the audit log names for it.
fn signer_of(
    run: &RunId,
    claimed: &RunDescriptor,
    authority: &dyn Authority,
) -> std::result::Result<GatewayKey, String> {
    let Some(after) = claimed.after.as_ref().filter(|after| after.how == How::Replaces) else {
        let key = authority.gateway_key(&claimed.signer);
        return key.ok_or_else(|| format!("its signer {} is no gateway of this vault", claimed.signer));
    };
    let said =
        authority.replacement(run).ok_or("it replaces another run, and no line of the audit log names it")?;
    if said.worker != claimed.signer {
        return Err(format!(
            "worker {} signed it, and the audit log names worker {}",
            claimed.signer, said.worker
        ));
    }
    if (said.run, said.seal) != (after.run, after.seal) {
        return Err(format!("it replaces run {}, and the audit log says run {}", after.run, said.run));
    }
    Ok(GatewayKey { sign: said.sign, until: None })
}

/// What does not parse, although a gateway of this vault signed it, is a newer program's.
fn unknown(object: &str, note: &Note<'_>, authority: &dyn Authority, why: runvault_format::Error) -> Error {
    use runvault_format::Error::{Suite, Version};
    let signed = |line: &Signature<'_>| {
        let signer = line.name.parse().ok();
        let key = signer.and_then(|id| Some((id, authority.gateway_key(&id)?)));
        key.is_some_and(|(id, key)| note.verify(&id, &key.sign).is_ok())
    };
    match why {
        Version(_) | Suite(_) if note.signatures.iter().any(signed) => {
            Error::Newer { object: object.to_owned(), source: why }
        }
        Version(_) | Suite(_) => refuse_at(object, format!("{why}, and no gateway of this vault signed it")),
        why => refuse_at(object, why.to_string()),
    }
}

fn keys_dir(root: &Arc<dyn Dir>, run: &RunId) -> Result<Arc<dyn Dir>> {
    keys_at(root, &run.to_string())
}

fn keys_at(root: &Arc<dyn Dir>, place: &str) -> Result<Arc<dyn Dir>> {
    keys_in(&dir_at(root, place)?, place)
}

fn keys_in(dir: &Arc<dyn Dir>, place: &str) -> Result<Arc<dyn Dir>> {
    dir.open_dir(KEYS).map_err(|e| part_opened("open", format!("runs/{place}/keys"), e))
}

/// The envelopes of a run that an identity could open, and what was found in the place of others.
#[derive(Debug, Default)]
pub struct Envelopes {
    /// Those that are files of at most 64 KiB, in the order of [`Authority::envelope_names`].
    pub files: Vec<EnvelopeFile>,
    /// [`Damage`] in the place of an envelope.
    pub refused: Vec<Error>,
}

impl Envelopes {
    fn is_empty(&self) -> bool {
        self.files.is_empty() && self.refused.is_empty()
    }

    /// The run's key; `None` where no envelope is for this identity.
    ///
    /// # Errors
    /// The authority's; the first refusal where nothing opens.
    pub fn open(&mut self, run: &RunId, authority: &dyn Authority) -> Result<Option<RunKey>> {
        match authority.open_run(run, &self.files)? {
            None if !self.refused.is_empty() => Err(self.refused.remove(0)),
            opened => Ok(opened),
        }
    }
}

/// Reads the envelopes that `authority` could open, each by its name: what else lies in `keys/`, and how
/// much of it, is without effect. That there is none is refused where there must be one.
///
/// # Errors
/// The store's; [`Damage::Kind`] for `keys` itself.
pub fn envelopes(root: &Arc<dyn Dir>, run: &RunId, authority: &dyn Authority) -> Result<Envelopes> {
    let mut found = read_envelopes(root, run, authority)?;
    if found.is_empty() && authority.opens_every_run() {
        // A rotation puts the new one before it removes the old one: between two looks, both were missed.
        found = read_envelopes(root, run, authority)?;
        if found.is_empty() {
            let what = Damage::Run("no envelope to a key of this vault is there".to_owned());
            found.refused.push(Error::damaged(format!("runs/{run}/keys"), what));
        }
    }
    Ok(found)
}

fn read_envelopes(root: &Arc<dyn Dir>, run: &RunId, authority: &dyn Authority) -> Result<Envelopes> {
    match keys_dir(root, run) {
        Err(e) if is_missing(&e) && !is_gone(root, run) => Ok(Envelopes::default()),
        keys => envelopes_in(&*keys?, run, authority),
    }
}

/// [`envelopes`] of a run whose `keys` lie elsewhere.
pub(crate) fn envelopes_in(keys: &dyn Dir, run: &RunId, authority: &dyn Authority) -> Result<Envelopes> {
    let mut found = Envelopes::default();
    for name in authority.envelope_names() {
        let object = || format!("runs/{run}/keys/{name}");
        match read_whole(keys, name.as_bytes(), ENVELOPE_MAX).map_err(|e| opened("read", object(), e)) {
            Ok(bytes) => found.files.push(EnvelopeFile { name, bytes }),
            Err(e) if is_not_found(&e) => {}
            Err(e @ Error::Damaged { .. }) => found.refused.push(e),
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// Whether a part that a run is never without is not there.
pub(crate) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Store { source, .. } if source.raw_os_error() == Some(libc::ENOENT))
}

/// Whether no envelope opens to the run's `key`, where one must: there is none, or it is damaged, or sealed to a
/// key that is lost.
pub(crate) fn lacks_envelope(
    root: &Arc<dyn Dir>,
    run: &RunId,
    key: &RunKey,
    authority: &dyn Authority,
) -> bool {
    let opened = read_envelopes(root, run, authority).and_then(|found| authority.open_run(run, &found.files));
    let lacks = match opened {
        Ok(Some(opened)) => !ct_eq(opened.0.expose(), key.0.expose()),
        Ok(None) | Err(Error::Damaged { .. }) => true,
        // The store's trouble says nothing about them.
        Err(_) => false,
    };
    lacks && authority.opens_every_run()
}

/// Seals a run's key anew, as that of a new run, in the place of envelopes that are lost or do not open.
///
/// # Errors
/// The store's.
pub(crate) fn restore_envelopes(
    dir: &Arc<dyn Dir>,
    run: &RunId,
    key: &RunKey,
    authority: &dyn Authority,
) -> Result<()> {
    let fail = |e| Error::store("make", format!("runs/{run}/keys"), e);
    match dir.create_dir(KEYS, DIR_MODE) {
        Err(e) if e.raw_os_error() != Some(libc::EEXIST) => return Err(fail(e)),
        _ => dir.sync().map_err(fail)?,
    }
    for envelope in authority.seal_run(run, key)?.envelopes {
        put_envelope_in(dir, run, &envelope)?;
    }
    Ok(())
}

/// Puts an envelope in place, durable, whole or not at all.
///
/// # Errors
/// The store's; [`Damage::Kind`] where a directory has its name.
pub fn put_envelope(root: &Arc<dyn Dir>, run: &RunId, envelope: &EnvelopeFile) -> Result<()> {
    put_envelope_in(&run_dir(root, run)?, run, envelope)
}

/// [`put_envelope`], where there is none of its name; whether it was put. A store that has neither hard links nor renames
/// that replace nothing tells none apart.
///
/// # Errors
/// As of [`put_envelope`].
pub fn put_new_envelope(root: &Arc<dyn Dir>, run: &RunId, envelope: &EnvelopeFile) -> Result<bool> {
    match replace::put_new(&*keys_dir(root, run)?, envelope.name.as_bytes(), &envelope.bytes, 0o644) {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(_) => put_envelope(root, run, envelope).map(|()| true),
    }
}

/// [`put_envelope`], in the directory of a run.
pub(crate) fn put_envelope_in(dir: &Arc<dyn Dir>, run: &RunId, envelope: &EnvelopeFile) -> Result<()> {
    let object = || format!("runs/{run}/keys/{}", envelope.name);
    replace::replace(&*keys_in(dir, &run.to_string())?, envelope.name.as_bytes(), &envelope.bytes, 0o644)
        .map_err(|e| match e.raw_os_error() {
            Some(libc::EISDIR) => Error::damaged(object(), Damage::Kind),
            _ => Error::store("write", object(), e),
        })
}

/// Whether something of the form of an envelope lies there under that name; whether it opens is another question.
///
/// # Errors
/// The store's.
pub fn has_envelope(root: &Arc<dyn Dir>, run: &RunId, name: &str) -> Result<bool> {
    let object = format!("runs/{run}/keys/{name}");
    match read_whole(&*keys_dir(root, run)?, name.as_bytes(), ENVELOPE_MAX)
        .map_err(|e| opened("read", object, e))
    {
        Ok(bytes) => Ok(envelope_file::parse(&bytes).is_ok()),
        Err(e) if is_not_found(&e) => Ok(false),
        Err(Error::Damaged { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Removes an envelope, durably; whether there was one.
///
/// # Errors
/// The store's; [`Damage::Kind`] where a directory has its name.
pub fn remove_envelope(root: &Arc<dyn Dir>, run: &RunId, name: &str) -> Result<bool> {
    remove_envelope_at(root, &run.to_string(), name)
}

/// [`remove_envelope`] of a run that has another name in `runs/`, since it is on its way.
///
/// # Errors
/// As of [`remove_envelope`].
pub fn remove_envelope_at(root: &Arc<dyn Dir>, place: &str, name: &str) -> Result<bool> {
    let keys = keys_at(root, place)?;
    let object = || format!("runs/{place}/keys/{name}");
    let fail = |e| Error::store("remove", object(), e);
    match keys.unlink(name.as_bytes()) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(false),
        Err(e) if e.raw_os_error() == Some(libc::EISDIR) => {
            return Err(Error::damaged(object(), Damage::Kind));
        }
        other => other.map_err(fail)?,
    }
    keys.sync().map_err(fail)?;
    Ok(true)
}
