//! Open files: the calls by handle, none of which holds a lock of ours while data moves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use runvault_format::ids::FileId;
use runvault_store::backend::{Stat, Time};

use crate::api::{Allocate, Handle, Ino, OpenFlags, Opened};
use crate::directory::OpenDir;
use crate::file::FileObject;
use crate::listing::Way;
use crate::run::Body;
use crate::sealed::{SealedFile, SealedListing, is_sealed};
use crate::{Error, Posix, Result, Vault};

/// Files whose size and mtime at the last close are remembered.
const SEEN_MAX: usize = 65_536;

/// An open file.
pub(crate) struct OpenFile {
    pub(crate) ino: Ino,
    pub(crate) file: Arc<FileObject>,
    pub(crate) body: Arc<Body>,
    write: bool,
}

/// An open directory; `None` for the mount's root.
pub(crate) struct OpenListing {
    pub(crate) ino: Ino,
    pub(crate) dir: Option<Arc<OpenDir>>,
    /// Names that were left out since it was last read from the start, because they do not authenticate.
    pub(crate) unreadable: AtomicU64,
    pub(crate) way: Mutex<Way>,
}

impl OpenListing {
    pub(crate) fn new(ino: Ino, dir: Option<Arc<OpenDir>>) -> Self {
        Self { ino, dir, unreadable: AtomicU64::new(0), way: Mutex::default() }
    }
}

#[derive(Clone)]
enum Open {
    File(Arc<OpenFile>),
    Listing(Arc<OpenListing>),
    Sealed(Arc<SealedFile>),
    /// Of a directory of a sealed run.
    SealedListing(Arc<SealedListing>),
}

/// What a kernel's cached pages of a file were true for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    size: u64,
    mtime: Time,
}

/// All open handles.
#[derive(Default)]
pub(crate) struct Handles {
    open: RwLock<HashMap<Handle, Open>>,
    next: AtomicU64,
    seen: RwLock<HashMap<Ino, Seen>>,
}

impl Handles {
    fn get(&self, handle: Handle) -> Result<Open> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&handle).cloned().ok_or(Error::Posix(Posix::BadHandle))
    }

    fn add(&self, open: Open) -> Handle {
        let handle = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(handle, open);
        handle
    }

    fn remove(&self, handle: Handle) -> Result<Open> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.remove(&handle).ok_or(Error::Posix(Posix::BadHandle))
    }

    pub(crate) fn count(&self) -> u64 {
        self.open.read().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    pub(crate) fn file(&self, handle: Handle) -> Result<Arc<OpenFile>> {
        match self.get(handle)? {
            Open::File(file) => Ok(file),
            Open::Listing(_) | Open::SealedListing(_) => Err(Posix::IsDirectory.into()),
            Open::Sealed(_) => Err(Posix::ReadOnly.into()),
        }
    }

    /// An open file of a sealed run; `None` for one that is not sealed.
    fn sealed(&self, handle: Handle) -> Result<Option<Arc<SealedFile>>> {
        Ok(if let Open::Sealed(file) = self.get(handle)? { Some(file) } else { None })
    }

    /// The files of sealed runs that are open.
    pub(crate) fn all_sealed(&self) -> Vec<(Handle, Arc<SealedFile>)> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let sealed = open.iter().filter_map(|(handle, open)| match open {
            Open::Sealed(file) => Some((*handle, file.clone())),
            _ => None,
        });
        sealed.collect()
    }

    /// The same file, of another run; nothing where the handle has gone.
    pub(crate) fn replace_sealed(&self, handle: Handle, file: &Arc<SealedFile>) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = open.get_mut(&handle) {
            *known = Open::Sealed(Arc::clone(file));
        }
    }

    pub(crate) fn add_sealed(&self, file: SealedFile) -> Handle {
        self.add(Open::Sealed(Arc::new(file)))
    }

    pub(crate) fn add_sealed_listing(&self, ino: Ino) -> Handle {
        self.add(Open::SealedListing(Arc::new(SealedListing::new(ino))))
    }

    /// The directory of a sealed run that is listed; `None` for another one.
    pub(crate) fn sealed_listing(&self, handle: Handle) -> Result<Option<Arc<SealedListing>>> {
        Ok(if let Open::SealedListing(listing) = self.get(handle)? { Some(listing) } else { None })
    }

    pub(crate) fn listing(&self, handle: Handle) -> Result<Arc<OpenListing>> {
        match self.get(handle)? {
            Open::Listing(listing) => Ok(listing),
            _ => Err(Posix::NotDirectory.into()),
        }
    }

    pub(crate) fn add_listing(&self, listing: OpenListing) -> Handle {
        self.add(Open::Listing(Arc::new(listing)))
    }

    /// `None`: of a directory of a sealed run.
    pub(crate) fn remove_listing(&self, handle: Handle) -> Result<Option<Arc<OpenListing>>> {
        match self.remove(handle)? {
            Open::Listing(listing) => Ok(Some(listing)),
            Open::SealedListing(_) => Ok(None),
            _ => Err(Posix::NotDirectory.into()),
        }
    }

    /// Notes what the kernel's pages of a file are true for; tells whether they still were.
    fn note_seen(&self, ino: Ino, now: Seen) -> bool {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= SEEN_MAX {
            seen.clear();
        }
        seen.insert(ino, now) == Some(now)
    }
}

impl Vault {
    /// Opens an existing regular file.
    ///
    /// # Errors
    /// [`Posix::ReadOnly`], [`Error::Held`]; damage, unless it is truncated by this very call; the
    /// store's.
    pub fn open_file(&self, ino: Ino, flags: OpenFlags) -> Result<Opened> {
        self.check_open()?;
        let changes = flags.write || flags.truncate;
        if is_sealed(ino) {
            return if changes { Err(self.sealed_refusal(ino)) } else { self.open_sealed(ino) };
        }
        if changes {
            self.nodes.known(ino).ok_or(Posix::Stale).map(|known| self.body(&known.run))??.check_writer()?;
        }
        let (file, body, stat) = self.file_object(ino, true, flags.truncate)?;
        let prepared = prepare_open(&file, flags);
        match prepared {
            Ok(()) => Ok(self.opened(ino, file, body, stat, changes)),
            Err(error) => {
                drop(file);
                self.drop_handle(ino);
                Err(error)
            }
        }
    }

    /// A handle for an object whose handle is already counted; `stat` where the stored file's attributes were asked for
    /// just now.
    pub(crate) fn opened(
        &self,
        ino: Ino,
        file: Arc<FileObject>,
        body: Arc<Body>,
        stat: Option<Stat>,
        write: bool,
    ) -> Opened {
        // Our own writes go through the kernel's pages; what others wrote shows in size and mtime.
        let shared = !body.is_ours();
        let keep_cache = !shared
            || file
                .attr_of(stat)
                .is_ok_and(|stat| self.handles.note_seen(ino, Seen { size: stat.size, mtime: stat.mtime }));
        let handle = self.handles.add(Open::File(Arc::new(OpenFile { ino, file, body, write })));
        Opened { handle, keep_cache, shared }
    }

    /// Bytes read; fewer than asked only at the end of the file.
    ///
    /// # Errors
    /// Damage of a chunk; the store's.
    pub fn read(&self, handle: Handle, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.check_open()?;
        let got = match self.handles.get(handle)? {
            Open::File(open) => open.file.read(offset, buf)?,
            Open::Sealed(sealed) => self.read_sealed(handle, &sealed, offset, buf)?,
            Open::Listing(_) | Open::SealedListing(_) => return Err(Posix::IsDirectory.into()),
        };
        self.counters.bytes_read.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }

    /// All of `data`. `kill_suidgid`: strip suid and sgid (FUSE_WRITE_KILL_SUIDGID). With an append
    /// handle the kernel has resolved the offset.
    ///
    /// # Errors
    /// [`Posix::BadHandle`] for a handle that only reads; those of [`FileObject::write`].
    pub fn write(&self, handle: Handle, offset: u64, data: &[u8], kill_suidgid: bool) -> Result<()> {
        let open = self.changing(handle)?;
        if kill_suidgid {
            strip_suid(&open.file)?;
        }
        open.file.write(offset, data)?;
        self.counters.bytes_written.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn changing(&self, handle: Handle) -> Result<Arc<OpenFile>> {
        self.check_open()?;
        let open = self.handles.file(handle)?;
        if !open.write {
            return Err(Posix::BadHandle.into());
        }
        open.body.check_writer()?;
        Ok(open)
    }

    /// What close(2) reports: waiting bytes go out.
    ///
    /// # Errors
    /// The store's.
    pub fn flush(&self, handle: Handle) -> Result<()> {
        self.check_open()?;
        if self.handles.sealed(handle)?.is_some() {
            return Ok(());
        }
        let open = self.handles.file(handle)?;
        if open.write { flush(&open) } else { Ok(()) }
    }

    /// The last reference to a handle went.
    ///
    /// # Errors
    /// As [`Vault::flush`]; the handle is gone all the same.
    pub fn release(&self, handle: Handle) -> Result<()> {
        let open = match self.handles.remove(handle)? {
            Open::File(open) => open,
            Open::Sealed(_) => return Ok(()),
            Open::Listing(_) | Open::SealedListing(_) => return Err(Posix::IsDirectory.into()),
        };
        let ino = open.ino;
        let flushed = if open.write && !self.is_closed() { flush(&open) } else { Ok(()) };
        drop(open);
        self.drop_handle(ino);
        flushed
    }

    /// The file is durable, and so are its names and attributes (those also for `data_only`: no
    /// data can be reached without names).
    ///
    /// # Errors
    /// [`Error::Poisoned`]; the store's.
    pub fn fsync(&self, handle: Handle, data_only: bool) -> Result<()> {
        self.check_open()?;
        if self.handles.sealed(handle)?.is_some() {
            return Ok(());
        }
        let open = self.handles.file(handle)?;
        if open.body.context.read_only() {
            return Ok(());
        }
        open.body.check_writer()?;
        open.file.fsync()?;
        if !data_only {
            self.sync_attributes(open.ino, &open.file)?;
        }
        self.sync_names_of(open.ino)?;
        self.check_store()?;
        self.synced_now();
        Ok(())
    }

    /// fallocate(2). `kill_suidgid` as in [`Vault::write`].
    ///
    /// # Errors
    /// [`Posix::Unsupported`] where the store cannot; those of [`FileObject::write`].
    pub fn fallocate(
        &self,
        handle: Handle,
        offset: u64,
        len: u64,
        mode: Allocate,
        kill_suidgid: bool,
    ) -> Result<()> {
        let open = self.changing(handle)?;
        if kill_suidgid {
            strip_suid(&open.file)?;
        }
        open.file.allocate(offset, len, mode)
    }

    /// SEEK_DATA (`data`) or SEEK_HOLE.
    ///
    /// # Errors
    /// [`Posix::NoSuchData`] past the end.
    pub fn seek(&self, handle: Handle, offset: u64, data: bool) -> Result<u64> {
        self.check_open()?;
        match self.handles.sealed(handle)? {
            Some(sealed) => sealed.seek(offset, data),
            None => self.handles.file(handle)?.file.seek(offset, data),
        }
    }

    /// The file's id, which its contents authenticate; `None` where nothing was written to it yet.
    ///
    /// # Errors
    /// [`Posix::BadHandle`].
    pub fn file_id(&self, handle: Handle) -> Result<Option<FileId>> {
        self.check_open()?;
        Ok(match self.handles.sealed(handle)? {
            Some(sealed) => sealed.id(),
            None => self.handles.file(handle)?.file.file_id(),
        })
    }

    /// The size in bytes that the file's chunks vouch for; what `getattr` says beside a writer is only
    /// what the store holds.
    ///
    /// # Errors
    /// [`Posix::BadHandle`].
    pub fn vouched_size(&self, handle: Handle) -> Result<u64> {
        self.check_open()?;
        Ok(match self.handles.sealed(handle)? {
            Some(sealed) => sealed.size,
            None => self.handles.file(handle)?.file.vouched_size(),
        })
    }
}

fn prepare_open(file: &Arc<FileObject>, flags: OpenFlags) -> Result<()> {
    // The store took no writes when it was opened.
    if flags.write && file.read_only() {
        return Err(Posix::ReadOnly.into());
    }
    if flags.truncate {
        file.truncate(0)?;
        if flags.kill_suidgid {
            strip_suid(file)?;
        }
    }
    Ok(())
}

/// Waiting bytes go out, while the lease is ours.
fn flush(open: &OpenFile) -> Result<()> {
    open.body.check_lease()?;
    open.file.flush()
}

/// suid goes; sgid goes where the group may execute (else it means mandatory locking).
pub(crate) fn without_suid(mode: u32) -> u32 {
    let sgid = if mode & 0o010 != 0 { 0o2000 } else { 0 };
    mode & 0o7777 & !(0o4000 | sgid)
}

pub(crate) fn strip_suid(file: &FileObject) -> Result<()> {
    let mode = file.attr()?.mode & 0o7777;
    if without_suid(mode) == mode { Ok(()) } else { file.set_mode(without_suid(mode)) }
}
