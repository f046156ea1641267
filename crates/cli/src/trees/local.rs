//! The local side of a copy.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use runvault_store::backend::{Kind, Time};
use rustix::fs::{AtFlags, CWD, FileType, Mode, SeekFrom, Timespec, Timestamps, XattrFlags};

use super::{Meta, Names, Sink, Source, Tree};
use crate::output::shown;

/// Bytes of all names of a file's attributes, or of one value: Linux takes no more.
const ATTRIBUTES_MAX: usize = 64 << 10;

/// Files of this machine.
pub struct Local;

impl Tree for Local {
    fn stat(&self, path: &Path) -> Result<Option<Meta>> {
        match fs::symlink_metadata(path) {
            Ok(meta) => Ok(Some(of(&meta))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| shown(path)),
        }
    }

    fn is_dir(&self, path: &Path) -> Result<bool> {
        Ok(path.is_dir())
    }

    fn list(&self, path: &Path) -> Result<Names> {
        let mut names = fs::read_dir(path)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>())
            .with_context(|| shown(path))?;
        names.sort();
        Ok(Names { names, complete: Ok(()) })
    }

    fn read_link(&self, path: &Path) -> Result<OsString> {
        Ok(fs::read_link(path).with_context(|| shown(path))?.into_os_string())
    }

    fn open<'a>(&'a self, path: &Path) -> Result<Box<dyn Source + 'a>> {
        let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path);
        Ok(Box::new(Reading(file.with_context(|| shown(path))?)))
    }

    fn create<'a>(&'a self, path: &Path) -> Result<Box<dyn Sink + 'a>> {
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        Ok(Box::new(Writing(options.open(path).with_context(|| shown(path))?)))
    }

    fn make_dir(&self, path: &Path) -> Result<()> {
        fs::DirBuilder::new().mode(0o700).create(path).with_context(|| shown(path))
    }

    fn make_link(&self, path: &Path, target: &OsString) -> Result<()> {
        std::os::unix::fs::symlink(target, path).with_context(|| shown(path))
    }

    fn make_node(&self, path: &Path, meta: &Meta) -> Result<()> {
        let kind = match meta.kind {
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
            // A store does not decide what devices there are here.
            _ => anyhow::bail!("{}: a device in the vault is not made here; left out", shown(path)),
        };
        rustix::fs::mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, 0)
            .map_err(io::Error::from)
            .with_context(|| shown(path))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).with_context(|| shown(path))
    }

    fn rename(&self, path: &Path, to: &Path) -> Result<()> {
        fs::rename(path, to).with_context(|| shown(to))
    }

    fn identity(&self, _path: &Path, _meta: &Meta) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn link(&self, path: &Path, to: &Path) -> Result<()> {
        fs::hard_link(path, to).with_context(|| shown(to))
    }

    fn attributes(&self, path: &Path) -> Result<Vec<Vec<u8>>> {
        let mut names = vec![0; ATTRIBUTES_MAX];
        let n = match rustix::fs::llistxattr(path, &mut names) {
            Err(rustix::io::Errno::OPNOTSUPP) => 0,
            read => read.map_err(io::Error::from).with_context(|| shown(path))?,
        };
        names.truncate(n);
        Ok(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }

    fn attribute(&self, path: &Path, name: &[u8]) -> Result<Vec<u8>> {
        let mut value = vec![0; ATTRIBUTES_MAX];
        let read = rustix::fs::lgetxattr(path, name, &mut value).map_err(io::Error::from);
        value.truncate(read.with_context(|| shown(path))?);
        Ok(value)
    }

    fn set_attribute(&self, path: &Path, name: &[u8], value: &[u8]) -> Result<()> {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
            .map_err(io::Error::from)
            .with_context(|| shown(path))
    }

    fn set_owner(&self, path: &Path, meta: &Meta) -> Result<()> {
        std::os::unix::fs::lchown(path, Some(meta.uid), Some(meta.gid)).with_context(|| shown(path))
    }

    /// Without suid and sgid: a vault's store does not decide what runs as whom here.
    fn finish(&self, path: &Path, meta: &Meta) -> Result<()> {
        if meta.kind != Kind::Symlink {
            fs::set_permissions(path, fs::Permissions::from_mode(meta.mode & 0o1777))
                .with_context(|| shown(path))?;
        }
        let times = Timestamps { last_access: timespec(meta.atime), last_modification: timespec(meta.mtime) };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io::Error::from)
            .with_context(|| shown(path))
    }

    fn is_in_sealed_run(&self, _path: &Path) -> Result<bool> {
        Ok(false)
    }

    fn shown(&self, path: &Path) -> String {
        shown(path)
    }
}

fn timespec(time: Time) -> Timespec {
    Timespec { tv_sec: time.sec, tv_nsec: time.nsec.into() }
}

fn of(meta: &Metadata) -> Meta {
    let kind = meta.file_type();
    Meta {
        kind: match () {
            () if kind.is_dir() => Kind::Dir,
            () if kind.is_symlink() => Kind::Symlink,
            () if kind.is_fifo() => Kind::Fifo,
            () if kind.is_socket() => Kind::Socket,
            () if kind.is_char_device() => Kind::CharDevice,
            () if kind.is_block_device() => Kind::BlockDevice,
            () => Kind::File,
        },
        object: (meta.dev(), meta.ino()),
        mode: meta.mode() & 0o7777,
        nlink: meta.nlink(),
        uid: meta.uid(),
        gid: meta.gid(),
        rdev: meta.rdev(),
        size: meta.size(),
        blocks: meta.blocks(),
        atime: time(meta.atime(), meta.atime_nsec()),
        mtime: time(meta.mtime(), meta.mtime_nsec()),
    }
}

fn time(sec: i64, nsec: i64) -> Time {
    Time { sec, nsec: u32::try_from(nsec).unwrap_or(0) }
}

struct Reading(File);

impl Source for Reading {
    fn next_data(&mut self, from: u64) -> Result<Option<Range<u64>>> {
        match rustix::fs::seek(&self.0, SeekFrom::Data(from)) {
            Ok(start) => {
                let end = rustix::fs::seek(&self.0, SeekFrom::Hole(start))?;
                Ok(Some(start..end))
            }
            Err(rustix::io::Errno::NXIO) => Ok(None),
            // A file system without holes: everything is data.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => {
                let size = self.0.metadata()?.len();
                Ok(Some(from..size).filter(|range| !range.is_empty()))
            }
            Err(e) => Err(io::Error::from(e).into()),
        }
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        Ok(self.0.read_at(buf, offset)?)
    }

    fn size(&self) -> Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

struct Writing(File);

impl Sink for Writing {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        Ok(self.0.write_all_at(data, offset)?)
    }

    fn close(self: Box<Self>, size: u64, durable: bool) -> Result<()> {
        self.0.set_len(size)?;
        if durable {
            self.0.sync_all()?;
        }
        Ok(())
    }
}
