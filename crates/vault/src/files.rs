//! Files that are open, or whose bytes are on their way: one object for each, whoever uses it.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runvault_format::ledger::Named;
use runvault_format::manifest;
use runvault_store::backend::{Kind, Stat};

use crate::api::Ino;
use crate::file::FileObject;
use crate::nodes::number;
use crate::outcome::is_not_found;
use crate::run::Body;
use crate::sealed::is_sealed;
use crate::view::{not_opened, still_leads_to};
use crate::{Damage, Error, Posix, Result, Vault};

const STRIPES: usize = 64;
/// A name may be renamed while it is being opened; so often that is taken in good part.
const TRIES: u32 = 4;

/// The object of a file, which nobody opens anew while this lives: an empty file gets another id each time.
pub(crate) struct Kept<'a> {
    vault: &'a Vault,
    ino: Ino,
    file: Option<Arc<FileObject>>,
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.file = None;
        self.vault.let_go(self.ino);
    }
}

struct Live {
    file: Arc<FileObject>,
    body: Arc<Body>,
    handles: u32,
}

/// Every file object there is. The last reference to one is dropped under the lock of its number,
/// so that nobody opens it again while it leaves its state behind.
pub(crate) struct Files {
    live: Mutex<HashMap<Ino, Live>>,
    opening: Vec<Mutex<()>>,
    /// Counts objects that have gone.
    gone: AtomicU64,
    /// That count when one went last, by the same stripes.
    went: Vec<AtomicU64>,
}

impl Default for Files {
    fn default() -> Self {
        let opening = (0..STRIPES).map(|_| Mutex::new(())).collect();
        let went = (0..STRIPES).map(|_| AtomicU64::new(0)).collect();
        Self { live: Mutex::default(), opening, gone: AtomicU64::new(0), went }
    }
}

/// What the store said of a name, and how many objects had gone before it was asked.
#[derive(Clone, Copy)]
pub(crate) struct Looked {
    pub(crate) stat: Stat,
    gone: u64,
}

fn stripe(ino: Ino) -> usize {
    usize::try_from(ino % STRIPES as u64).unwrap_or(0)
}

impl Files {
    fn table(&self) -> MutexGuard<'_, HashMap<Ino, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While the guard lives nobody opens the file. Taken after the locks of names.
    pub(crate) fn opening(&self, ino: Ino) -> Option<MutexGuard<'_, ()>> {
        self.opening.get(stripe(ino)).map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The object of a file, if there is one.
    pub(crate) fn live(&self, ino: Ino) -> Option<Arc<FileObject>> {
        self.table().get(&ino).map(|live| live.file.clone())
    }

    /// [`Files::live`], with its run.
    pub(crate) fn live_in(&self, ino: Ino) -> Option<(Arc<FileObject>, Arc<Body>)> {
        self.table().get(&ino).map(|live| (live.file.clone(), live.body.clone()))
    }

    /// Looks at a name of the store.
    ///
    /// # Errors
    /// Those of `stat`.
    pub(crate) fn look(&self, stat: impl FnOnce() -> io::Result<Stat>) -> io::Result<Looked> {
        let gone = self.gone.load(Ordering::SeqCst);
        stat().map(|stat| Looked { stat, gone })
    }

    /// [`Files::look`], where an older size does no harm.
    pub(crate) fn looked(&self, stat: Stat) -> Looked {
        Looked { stat, gone: self.gone.load(Ordering::SeqCst) }
    }

    /// Whether the last bytes of a file that has no object may have come since it was looked at.
    pub(crate) fn is_behind(&self, looked: &Looked) -> bool {
        let went = self.went.get(stripe(number(looked.stat.ino)));
        went.is_some_and(|went| went.load(Ordering::SeqCst) > looked.gone)
    }

    /// An object goes, and is still in the table.
    fn goes(&self, ino: Ino) {
        let gone = self.gone.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(went) = self.went.get(stripe(ino)) {
            went.fetch_max(gone, Ordering::SeqCst);
        }
    }

    pub(crate) fn all(&self) -> Vec<(Arc<FileObject>, Arc<Body>)> {
        self.table().values().map(|live| (live.file.clone(), live.body.clone())).collect()
    }

    fn unused(&self) -> Vec<Ino> {
        let table = self.table();
        let unused = table.iter().filter(|(_, l)| l.handles == 0 && Arc::strong_count(&l.file) == 1);
        unused.map(|(ino, _)| *ino).collect()
    }
}

/// Its name is gone, or is another object's now: it may have got a new one meanwhile.
fn has_moved(error: &Error) -> bool {
    is_not_found(error) || matches!(error, Error::Posix(Posix::Stale))
}

impl Vault {
    /// The object of a regular file, opened where it is not. One handle more is counted when
    /// `handle`; else [`Vault::let_go`] must follow. `replace`: a file that is damaged starts anew. With the stored file's
    /// attributes where it was opened by this call.
    ///
    /// # Errors
    /// Damage; [`Posix::IsDirectory`], [`Posix::Invalid`] for what is no file; the store's.
    pub(crate) fn file_object(
        &self,
        ino: Ino,
        handle: bool,
        replace: bool,
    ) -> Result<(Arc<FileObject>, Arc<Body>, Option<Stat>)> {
        let _one = self.files.opening(ino);
        if let Some(live) = self.files.table().get_mut(&ino) {
            live.handles += u32::from(handle);
            return Ok((live.file.clone(), live.body.clone(), None));
        }
        let mut tries = 0;
        let (file, body, stat) = loop {
            match self.open_object(ino, replace) {
                Err(e) if has_moved(&e) && tries < TRIES => tries += 1,
                other => break other?,
            }
        };
        self.keep_live(ino, &file, &body, handle);
        Ok((file, body, Some(stat)))
    }

    /// Keeps a file's object; `None` where it does not open.
    pub(crate) fn keep_object(&self, ino: Ino) -> Option<Kept<'_>> {
        let (file, ..) = self.file_object(ino, false, false).ok()?;
        Some(Kept { vault: self, ino, file: Some(file) })
    }

    fn open_object(&self, ino: Ino, replace: bool) -> Result<(Arc<FileObject>, Arc<Body>, Stat)> {
        // Such a file has no object: who asks for one would change it.
        if is_sealed(ino) {
            return Err(self.sealed_refusal(ino));
        }
        match self.nodes.sight(ino).kind.ok_or(Posix::Stale)? {
            Kind::File => {}
            Kind::Dir => return Err(Posix::IsDirectory.into()),
            _ => return Err(Posix::Invalid.into()),
        }
        let (dir, text, stored, access, stat) = self.by_a_name(ino, |dir, name, text| {
            let (stored, access, stat) =
                Self::open_stored(&dir, &name).map_err(|e| not_opened(&dir, &name, (ino, Kind::File), e))?;
            still_leads_to(ino, &stat)?;
            Ok((dir, text, stored, access, stat))
        })?;
        let context = dir.body.context_to_open(&dir.run, access)?;
        let place = Some(dir.place(Kind::File, &text));
        let note = |file: &FileObject| {
            if let Ok(name) = dir.stored(&text) {
                dir.note(&name, Named::Object(manifest::Kind::File as u8, file.ledger_group()));
                dir.note_owner(file.ledger_group(), &stat);
            }
        };
        let file = match FileObject::open(context, ino, stored.clone(), &stat, place) {
            Err(Error::Damaged { damage, .. }) if replace && damage != Damage::Kind => {
                let _changing = dir.changing();
                let file = FileObject::open_for_replacement(context, ino, stored, place)?;
                note(&file);
                file
            }
            other => other?,
        };
        if stat.size == 0
            && !context.read_only()
            && let Ok(name) = dir.stored(&text)
        {
            // Its id is new. Mode and owner are as they are found, and not noted.
            dir.note_reopened(&name, file.ledger_group());
        }
        Ok((file, dir.body.clone(), stat))
    }

    /// Notes an object that was just made or opened.
    pub(crate) fn keep_live(&self, ino: Ino, file: &Arc<FileObject>, body: &Arc<Body>, handle: bool) {
        self.nodes.pin(ino);
        let live = Live { file: file.clone(), body: body.clone(), handles: u32::from(handle) };
        if self.files.table().insert(ino, live).is_some() {
            self.nodes.unpin(ino);
        }
    }

    /// One handle less.
    pub(crate) fn drop_handle(&self, ino: Ino) {
        if let Some(live) = self.files.table().get_mut(&ino) {
            live.handles = live.handles.saturating_sub(1);
        }
        self.let_go(ino);
    }

    /// Drops the object if nobody uses it and nothing of it is on its way. The caller's own
    /// reference has gone before.
    pub(crate) fn let_go(&self, ino: Ino) {
        let one = self.files.opening(ino);
        let gone = {
            let mut table = self.files.table();
            match table.get(&ino) {
                Some(live) if live.handles == 0 && Arc::strong_count(&live.file) == 1 => {
                    self.files.goes(ino);
                    table.remove(&ino)
                }
                _ => None,
            }
        };
        if let Some(gone) = gone {
            drop(gone);
            drop(one);
            self.nodes.unpin(ino);
        }
    }

    /// Drops the objects whose bytes have arrived since their last handle went.
    pub(crate) fn sweep_files(&self) {
        for ino in self.files.unused() {
            self.let_go(ino);
        }
    }
}
