//! One short handler for each kernel call: call the vault, reply or errno.

mod buffers;
mod calls;
mod lent;
mod listing;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags as Flags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use runvault_vault::api::{Attr, Handle, Ino, Opened, SetAttr};
use runvault_vault::{Posix, Vault};

use self::buffers::{COPY_AT_ONCE, copy, with_buffer};
use self::lent::wipe;
use self::listing::{entries, give_back, names};
use crate::asked::{allocation, caller, open_flags, rename_how, sized, strips};
use crate::attributes::{file_attr, generation, kept, node_kind, set_time};
use crate::options::negotiate;
use crate::owed::{Debt, Owed};
use crate::parked::{Nobody, Parked};
use crate::stale::AtOpen;
use crate::watchdog::{Patience, Slot, Watchdog};

/// The vault, as fuser calls it.
pub(crate) struct Adapter {
    vault: Arc<Vault>,
    watchdog: Arc<Watchdog<Parked>>,
    owed: Arc<Owed>,
    open_flags: FopenFlags,
    /// What files that others write are opened with besides.
    shared_flags: FopenFlags,
    at_open: AtOpen,
}

impl Adapter {
    pub(crate) fn new(vault: Arc<Vault>, watchdog: Arc<Watchdog<Parked>>, local_store: bool) -> Self {
        let owed = Arc::new(Owed::new(Arc::clone(&vault)));
        let open_flags = if local_store { FopenFlags::FOPEN_NOFLUSH } else { FopenFlags::empty() };
        let (shared_flags, at_open) = (FopenFlags::empty(), AtOpen::default());
        Self { vault, watchdog, owed, open_flags, shared_flags, at_open }
    }

    /// What the kernel is told when a file is opened.
    pub(crate) fn at_open(&self) -> AtOpen {
        self.at_open.clone()
    }

    /// What the probing thread works off.
    pub(crate) fn owed(&self) -> Arc<Owed> {
        Arc::clone(&self.owed)
    }

    fn flags_of(&self, opened: &Opened) -> FopenFlags {
        let keep = if opened.keep_cache { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
        let shared = if opened.shared { self.shared_flags } else { FopenFlags::empty() };
        self.open_flags | keep | shared
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate(config, !self.vault.read_only());
        // Through its pages a read that ends before the size that the kernel was told ends in zeros. Without this
        // capability a file could not be mapped as shared.
        if config.capabilities().contains(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP) {
            self.shared_flags = FopenFlags::FOPEN_DIRECT_IO;
        }
        Ok(())
    }

    // A name that is not there is not cached: Samba looks names up in other cases than they have, and a
    // run may appear at any time in a reader's mount.
    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, |vault| vault.lookup(parent.0, name.as_bytes()));
        wipe(name.as_bytes());
    }

    fn forget(&self, _request: &Request, ino: INodeNo, n: u64) {
        self.give_up(Nobody, Debt::Node(ino.0, n));
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let handle = handle.map(|h| h.0);
        if let Some((reply, attr)) = self.ask(reply, |vault| vault.getattr(ino.0, handle)) {
            reply.attr(&kept(&attr), &file_attr(&attr));
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = SetAttr {
            mode: mode.map(|m| m & 0o7777),
            uid,
            gid,
            size,
            atime: set_time(atime),
            mtime: set_time(mtime),
            // chown strips whoever asks (the vault spares directories), truncate as a write does.
            kill_suidgid: uid.is_some() || gid.is_some() || (size.is_some() && strips(request)),
        };
        let (caller, handle) = (caller(request, 0), handle.map(|h| h.0));
        if let Some((reply, attr)) = self.ask(reply, |vault| vault.setattr(&caller, ino.0, handle, &change)) {
            reply.attr(&kept(&attr), &file_attr(&attr));
        }
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        if let Some((reply, target)) = self.ask(reply, |vault| vault.readlink(ino.0)) {
            reply.data(&target);
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let caller = caller(request, umask);
        self.entry(reply, |vault| {
            let kind = node_kind(mode).ok_or(Posix::Invalid)?;
            vault.mknod(&caller, parent.0, name.as_bytes(), kind, mode & 0o7777, u64::from(rdev))
        });
        wipe(name.as_bytes());
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let caller = caller(request, umask);
        self.entry(reply, |vault| vault.mkdir(&caller, parent.0, name.as_bytes(), mode & 0o7777));
        wipe(name.as_bytes());
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.done(reply, Patience::Short, |vault| vault.unlink(parent.0, name.as_bytes()));
        wipe(name.as_bytes());
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.done(reply, Patience::Short, |vault| vault.rmdir(parent.0, name.as_bytes()));
        wipe(name.as_bytes());
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (caller, target) = (caller(request, 0), target.as_os_str().as_bytes());
        self.entry(reply, |vault| vault.symlink(&caller, parent.0, name.as_bytes(), target));
        wipe(name.as_bytes());
        wipe(target);
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.done(reply, Patience::Long, |vault| {
            let how = rename_how(flags).ok_or(Posix::Invalid)?;
            vault.rename(parent.0, name.as_bytes(), to.0, new.as_bytes(), how)
        });
        wipe(name.as_bytes());
        wipe(new.as_bytes());
    }

    fn link(&self, _request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, |vault| vault.link(ino.0, parent.0, name.as_bytes()));
        wipe(name.as_bytes());
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (caller, flags) = (caller(request, umask), open_flags(request, flags));
        let undo = |vault: &Vault, (attr, opened): (Attr, Opened)| {
            let _ = vault.release(opened.handle);
            vault.forget(attr.ino, 1);
        };
        let call = |vault: &Vault, _: &Slot<Parked>| {
            vault.create(&caller, parent.0, name.as_bytes(), mode & 0o7777, flags)
        };
        if let Some((reply, (attr, opened))) = self.call(reply, Patience::Short, call, undo) {
            let (handle, flags) = (FileHandle(opened.handle), self.flags_of(&opened));
            reply.created(&kept(&attr), &file_attr(&attr), generation(&attr), handle, flags);
        }
        wipe(name.as_bytes());
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: Flags, reply: ReplyOpen) {
        let flags = open_flags(request, flags.0);
        let undo = |vault: &Vault, opened: Opened| drop(vault.release(opened.handle));
        let opened = self.call(reply, Patience::Short, |vault, _| vault.open_file(ino.0, flags), undo);
        if let Some((reply, opened)) = opened {
            if opened.shared {
                self.at_open.tell(ino.0);
            }
            reply.opened(FileHandle(opened.handle), self.flags_of(&opened));
        }
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: Flags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        with_buffer(size as usize, |buffer| {
            if let Some((reply, n)) = self.ask(reply, |vault| vault.read(handle.0, offset, buffer)) {
                reply.data(buffer.get(..n).unwrap_or_default());
            }
        });
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: Flags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let strip = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        if let Some((reply, ())) = self.ask(reply, |vault| vault.write(handle.0, offset, data, strip)) {
            // A request is at most 1 MiB.
            reply.written(data.len() as u32);
        }
        wipe(data);
    }

    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.done(reply, Patience::Long, |vault| vault.flush(handle.0));
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: Flags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(reply) = self.give_up(reply, Debt::File(handle.0)) {
            reply.ok();
        }
    }

    fn fsync(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.done(reply, Patience::Long, |vault| vault.fsync(handle.0, data_only));
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: Flags, reply: ReplyOpen) {
        let undo = |vault: &Vault, handle: Handle| drop(vault.releasedir(handle));
        if let Some((reply, handle)) =
            self.call(reply, Patience::Short, |vault, _| vault.opendir(ino.0), undo)
        {
            reply.opened(FileHandle(handle), FopenFlags::empty());
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let list = |vault: &Vault, slot: &Slot<Parked>| names(vault, slot, handle.0, offset);
        if let Some((reply, ())) = self.call(reply, Patience::Short, list, |_, ()| {}) {
            reply.ok();
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let list = |vault: &Vault, slot: &Slot<Parked>| entries(vault, slot, handle.0, offset);
        let undo = |vault: &Vault, taken: Vec<Ino>| give_back(vault, &taken);
        if let Some((reply, _)) = self.call(reply, Patience::Short, list, undo) {
            reply.ok();
        }
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: Flags,
        reply: ReplyEmpty,
    ) {
        if let Some(reply) = self.give_up(reply, Debt::Directory(handle.0)) {
            reply.ok();
        }
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _data: bool,
        reply: ReplyEmpty,
    ) {
        self.done(reply, Patience::Long, |vault| vault.fsyncdir(handle.0));
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        if let Some((reply, space)) = self.ask(reply, Vault::statfs) {
            let block = u32::try_from(space.block).unwrap_or(4096);
            let (free, available) = (space.free, space.available);
            reply.statfs(space.blocks, free, available, space.files, space.files_free, block, 255, block);
        }
    }

    fn setxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.done(reply, Patience::Short, |vault| vault.setxattr(ino.0, name.as_bytes(), value, flags));
        wipe(name.as_bytes());
        wipe(value);
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if let Some((reply, value)) = self.ask(reply, |vault| vault.getxattr(ino.0, name.as_bytes())) {
            sized(reply, size, &value);
        }
        wipe(name.as_bytes());
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        if let Some((reply, names)) = self.ask(reply, |vault| vault.listxattr(ino.0)) {
            // The kernel keeps the values of trusted attributes from others than root, and leaves the names to us.
            let shown = |name: &Vec<u8>| request.uid() == 0 || !name.starts_with(b"trusted.");
            let mut list = Vec::new();
            for name in names.into_iter().filter(shown) {
                list.extend_from_slice(&name);
                list.push(0);
            }
            sized(reply, size, &list);
        }
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.done(reply, Patience::Short, |vault| vault.removexattr(ino.0, name.as_bytes()));
        wipe(name.as_bytes());
    }

    fn fallocate(
        &self,
        request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.done(reply, Patience::Long, |vault| {
            let mode = allocation(mode).ok_or(Posix::Unsupported)?;
            vault.fallocate(handle.0, offset, len, mode, strips(request))
        });
    }

    fn lseek(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let found = self.ask(reply, |vault| {
            let data = match whence {
                libc::SEEK_DATA => true,
                libc::SEEK_HOLE => false,
                _ => return Err(Posix::Invalid.into()),
            };
            let offset = u64::try_from(offset).map_err(|_| Posix::NoSuchData)?;
            let found = vault.seek(handle.0, offset, data)?;
            i64::try_from(found).map_err(|_| Posix::FileTooLarge.into())
        });
        if let Some((reply, offset)) = found {
            reply.offset(offset);
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _ino_in: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _ino_out: INodeNo,
        to: FileHandle,
        to_offset: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (from, to, len) = ((from.0, from_offset), (to.0, to_offset), len.min(COPY_AT_ONCE));
        if let Some((reply, n)) = self.ask(reply, |vault| copy(vault, from, to, len, strips(request))) {
            reply.written(n as u32);
        }
    }

    // default_permissions: the kernel decides alone, and asks once before it learns that.
    fn access(&self, _request: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    // ENOSYS: the kernel answers by itself from then on, as for any regular file.
    fn poll(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn bmap(&self, _request: &Request, _ino: INodeNo, _block_size: u32, _block: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }
}
