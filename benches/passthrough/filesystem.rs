//! Each kernel call as the one or two system calls that it needs.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{
    self, AtFlags, CWD, FallocateFlags, Gid, Mode, OFlags, RawDir, SeekFrom, Stat, Timespec, Timestamps, Uid,
};
use rustix::io::{Result, pread, pwrite};

use crate::nodes::Nodes;
use crate::trips::{TOLD, Trips};

/// As a writing vault's.
const TTL: Duration = Duration::from_secs(3600);
const OPENED: FopenFlags = FopenFlags::FOPEN_NOFLUSH.union(FopenFlags::FOPEN_KEEP_CACHE);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(crate) struct Passthrough {
    nodes: Nodes,
    trips: Option<Trips>,
}

impl Passthrough {
    pub(crate) fn new(dir: &Path, trips: Option<Trips>) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { nodes: Nodes::new(fs::openat(CWD, dir, flags, Mode::empty())?), trips })
    }

    /// Whoever releases or forgets waits for nobody: everything else is a trip.
    fn trip(&self, call: &'static str) {
        if let Some(trips) = &self.trips {
            trips.take(call);
        }
    }

    /// Looks a name up, and takes the kernel's reference.
    fn enter(&self, dir: &Arc<OwnedFd>, name: &OsStr) -> Result<FileAttr> {
        let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        self.nodes.remember(stat.st_ino, dir, name.as_bytes());
        Ok(attr(&stat))
    }

    fn stat(&self, ino: INodeNo, handle: Option<FileHandle>) -> Result<FileAttr> {
        let stat = match handle {
            Some(handle) => fs::fstat(borrow(handle))?,
            None => {
                let place = self.nodes.place(ino.0)?;
                fs::statat(&place.dir, place.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?
            }
        };
        let mut attr = attr(&stat);
        attr.ino = ino;
        Ok(attr)
    }

    /// For calls that have no form with a directory's descriptor.
    fn path(&self, ino: INodeNo) -> Result<Vec<u8>> {
        let place = self.nodes.place(ino.0)?;
        let mut path = format!("/proc/self/fd/{}/", place.dir.as_raw_fd()).into_bytes();
        path.extend_from_slice(&place.name);
        Ok(path)
    }

    fn open_flags(flags: i32) -> OFlags {
        // Offsets come from the kernel; O_DIRECT would ask for aligned buffers.
        let dropped = OFlags::APPEND | OFlags::DIRECT | OFlags::NOFOLLOW;
        (OFlags::from_bits_truncate(flags as u32) - dropped) | OFlags::CLOEXEC | OFlags::NOFOLLOW
    }
}

/// Handles are descriptors: `open` gives one away, `release` takes it back.
fn borrow<'a>(handle: FileHandle) -> BorrowedFd<'a> {
    // SAFETY: the kernel uses a handle between our answer to open and its release only, and then the
    // descriptor is open.
    unsafe { BorrowedFd::borrow_raw(handle.0 as i32) }
}

fn give_away(file: OwnedFd) -> FileHandle {
    FileHandle(file.into_raw_fd() as u64)
}

fn take_back(handle: FileHandle) {
    // SAFETY: `give_away` made it, and the kernel releases each handle once.
    drop(unsafe { OwnedFd::from_raw_fd(handle.0 as i32) });
}

fn errno(e: rustix::io::Errno) -> Errno {
    Errno::from_i32(e.raw_os_error())
}

fn time(sec: i64, nsec: u64) -> SystemTime {
    UNIX_EPOCH + Duration::new(sec.max(0) as u64, nsec as u32)
}

fn kind(mode: u32) -> FileType {
    match fs::FileType::from_raw_mode(mode) {
        fs::FileType::Directory => FileType::Directory,
        fs::FileType::Symlink => FileType::Symlink,
        fs::FileType::Fifo => FileType::NamedPipe,
        fs::FileType::Socket => FileType::Socket,
        fs::FileType::CharacterDevice => FileType::CharDevice,
        fs::FileType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

fn attr(stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(stat.st_ino),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind: kind(stat.st_mode),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: stat.st_rdev as u32,
        blksize: stat.st_blksize as u32,
        flags: 0,
    }
}

fn timespec(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT as _ },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW as _ },
        Some(TimeOrNow::SpecificTime(time)) => {
            let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
        }
    }
}

fn answer_entry(reply: ReplyEntry, entry: Result<FileAttr>) {
    match entry {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(e) => reply.error(errno(e)),
    }
}

fn answer_attr(reply: ReplyAttr, attr: Result<FileAttr>) {
    match attr {
        Ok(attr) => reply.attr(&TTL, &attr),
        Err(e) => reply.error(errno(e)),
    }
}

/// A `size` of 0 asks for the length only.
fn answer_xattr(reply: ReplyXattr, size: u32, get: impl FnOnce(&mut Vec<u8>) -> Result<usize>) {
    let mut value = vec![0; size as usize];
    match get(&mut value) {
        Ok(length) if size == 0 => reply.size(length as u32),
        Ok(length) => reply.data(value.get(..length).unwrap_or_default()),
        Err(e) => reply.error(errno(e)),
    }
}

fn answer(reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

impl Filesystem for Passthrough {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        runvault_fuse::negotiate(config, true);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.trip("lookup");
        answer_entry(reply, self.nodes.dir(parent.0).and_then(|dir| self.enter(&dir, name)));
    }

    fn forget(&self, _request: &Request, ino: INodeNo, n: u64) {
        self.nodes.forget(ino.0, n);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        self.trip("getattr");
        answer_attr(reply, self.stat(ino, handle));
    }

    fn setattr(
        &self,
        _request: &Request,
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
        self.trip("setattr");
        let set = || {
            let place = self.nodes.place(ino.0)?;
            let (dir, name) = (&place.dir, place.name.as_slice());
            if let Some(mode) = mode {
                fs::chmodat(dir, name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?;
            }
            if uid.is_some() || gid.is_some() {
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            match (size, handle) {
                (Some(size), Some(handle)) => fs::ftruncate(borrow(handle), size)?,
                (Some(size), None) => {
                    let file = fs::openat(dir, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
                    fs::ftruncate(file, size)?;
                }
                (None, _) => {}
            }
            if atime.is_some() || mtime.is_some() {
                let times = Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) };
                fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            self.stat(ino, handle)
        };
        answer_attr(reply, set());
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        self.trip("readlink");
        let target =
            self.nodes.place(ino.0).and_then(|p| fs::readlinkat(&p.dir, p.name.as_slice(), Vec::new()));
        match target {
            Ok(target) => reply.data(target.as_bytes()),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn mknod(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.trip("mknod");
        let made = self.nodes.dir(parent.0).and_then(|dir| {
            let bits = Mode::from_raw_mode(mode & 0o7777 & !umask);
            fs::mknodat(&dir, name, fs::FileType::from_raw_mode(mode), bits, u64::from(rdev))?;
            self.enter(&dir, name)
        });
        answer_entry(reply, made);
    }

    fn mkdir(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        self.trip("mkdir");
        let made = self.nodes.dir(parent.0).and_then(|dir| {
            fs::mkdirat(&dir, name, Mode::from_raw_mode(mode & 0o7777 & !umask))?;
            self.enter(&dir, name)
        });
        answer_entry(reply, made);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.trip("unlink");
        let dir = self.nodes.dir(parent.0);
        answer(reply, dir.and_then(|dir| fs::unlinkat(&dir, name, AtFlags::empty())));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.trip("rmdir");
        let dir = self.nodes.dir(parent.0);
        answer(reply, dir.and_then(|dir| fs::unlinkat(&dir, name, AtFlags::REMOVEDIR)));
    }

    fn symlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.trip("symlink");
        let made = self.nodes.dir(parent.0).and_then(|dir| {
            fs::symlinkat(target, &dir, name)?;
            self.enter(&dir, name)
        });
        answer_entry(reply, made);
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
        self.trip("rename");
        let rename = || {
            let (from, to) = (self.nodes.dir(parent.0)?, self.nodes.dir(to.0)?);
            let flags = fs::RenameFlags::from_bits_truncate(flags.bits());
            fs::renameat_with(&from, name, &to, new, flags)?;
            let ino = fs::statat(&to, new, AtFlags::SYMLINK_NOFOLLOW)?.st_ino;
            self.nodes.moved(ino, &to, new.as_bytes());
            if flags.contains(fs::RenameFlags::EXCHANGE) {
                let ino = fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?.st_ino;
                self.nodes.moved(ino, &from, name.as_bytes());
            }
            Ok(())
        };
        answer(reply, rename());
    }

    fn link(&self, _request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.trip("link");
        let made = self.nodes.dir(parent.0).and_then(|dir| {
            let place = self.nodes.place(ino.0)?;
            fs::linkat(&place.dir, place.name.as_slice(), &dir, name, AtFlags::empty())?;
            let attr = self.enter(&dir, name)?;
            // Who links mostly removes the first name then.
            self.nodes.moved(attr.ino.0, &dir, name.as_bytes());
            Ok(attr)
        });
        answer_entry(reply, made);
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.trip("create");
        let create = || {
            let dir = self.nodes.dir(parent.0)?;
            let flags = (Self::open_flags(flags) | OFlags::CREATE) - OFlags::TRUNC;
            let file = fs::openat(&dir, name, flags, Mode::from_raw_mode(mode & 0o7777 & !umask))?;
            let attr = attr(&fs::fstat(&file)?);
            self.nodes.remember(attr.ino.0, &dir, name.as_bytes());
            Ok((attr, file))
        };
        match create() {
            Ok((attr, file)) => reply.created(&TTL, &attr, Generation(0), give_away(file), OPENED),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn open(&self, _request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.trip("open");
        let file = self.nodes.place(ino.0).and_then(|place| {
            fs::openat(&place.dir, place.name.as_slice(), Self::open_flags(flags.0), Mode::empty())
        });
        match file {
            Ok(file) => reply.opened(give_away(file), OPENED),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.trip("read");
        BUFFER.with_borrow_mut(|buffer| {
            let size = size as usize;
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            match pread(borrow(handle), &mut buffer[..size], offset) {
                Ok(n) => reply.data(&buffer[..n]),
                Err(e) => reply.error(errno(e)),
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
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.trip("write");
        match pwrite(borrow(handle), data, offset) {
            Ok(n) => reply.written(n as u32),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        take_back(handle);
        reply.ok();
    }

    fn fsync(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, data: bool, reply: ReplyEmpty) {
        self.trip("fsync");
        let file = borrow(handle);
        answer(reply, if data { fs::fdatasync(file) } else { fs::fsync(file) });
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.trip("opendir");
        let open = self.nodes.dir(ino.0).and_then(|dir| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            fs::openat(&dir, c".", flags, Mode::empty())
        });
        match open {
            Ok(dir) => reply.opened(give_away(dir), FopenFlags::empty()),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.trip("readdir");
        let listed =
            list(handle, offset, |name, ino, next, kind| Ok(!reply.add(INodeNo(ino), next, kind, name)));
        match listed {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.trip("readdirplus");
        let listed = self.nodes.dir(ino.0).and_then(|dir| {
            list(handle, offset, |name, _, next, _| {
                let attr = attr(&fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?);
                let full = reply.add(attr.ino, next, name, &TTL, &attr, Generation(0));
                if !full && name != "." && name != ".." {
                    self.nodes.remember(attr.ino.0, &dir, name.as_bytes());
                }
                Ok(!full)
            })
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        take_back(handle);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _data: bool,
        reply: ReplyEmpty,
    ) {
        self.trip("fsyncdir");
        answer(reply, fs::fsync(borrow(handle)));
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.trip("statfs");
        match self.nodes.dir(1).and_then(|dir| fs::fstatvfs(&dir)) {
            Ok(s) => reply.statfs(
                s.f_blocks,
                s.f_bfree,
                s.f_bavail,
                s.f_files,
                s.f_ffree,
                s.f_bsize as u32,
                255,
                s.f_frsize as u32,
            ),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn fallocate(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.trip("fallocate");
        let flags = FallocateFlags::from_bits_truncate(mode as u32);
        answer(reply, fs::fallocate(borrow(handle), flags, offset, len));
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
        self.trip("lseek");
        let offset = offset as u64;
        let from = if whence == libc::SEEK_DATA { SeekFrom::Data(offset) } else { SeekFrom::Hole(offset) };
        match fs::seek(borrow(handle), from) {
            Ok(offset) => reply.offset(offset as i64),
            Err(e) => reply.error(errno(e)),
        }
    }

    // Asked for before the first write to each file: without it the yardstick would get fewer calls.
    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if let Some(trips) = self.trips.as_ref().filter(|_| ino.0 == 1 && name == TOLD) {
            let told = trips.told();
            return if size == 0 { reply.size(told.len() as u32) } else { reply.data(told.as_bytes()) };
        }
        self.trip("getxattr");
        answer_xattr(reply, size, |value| fs::lgetxattr(self.path(ino)?, name, value));
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.trip("listxattr");
        answer_xattr(reply, size, |value| fs::llistxattr(self.path(ino)?, value));
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
        self.trip("setxattr");
        let flags = fs::XattrFlags::from_bits_retain(flags as u32);
        answer(reply, self.path(ino).and_then(|path| fs::lsetxattr(path, name, value, flags)));
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.trip("removexattr");
        answer(reply, self.path(ino).and_then(|path| fs::lremovexattr(path, name)));
    }
}

/// Entries after `offset` until `visit` has no room for one.
fn list(
    handle: FileHandle,
    offset: u64,
    mut visit: impl FnMut(&OsStr, u64, u64, FileType) -> Result<bool>,
) -> Result<()> {
    let dir = borrow(handle);
    fs::seek(dir, SeekFrom::Start(offset))?;
    let mut buffer = Vec::with_capacity(4 << 10);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        let kind = kind(entry.file_type().as_raw_mode());
        match visit(name, entry.ino(), entry.next_entry_cookie(), kind) {
            Ok(true) | Err(rustix::io::Errno::NOENT) => {}
            Ok(false) => break,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
