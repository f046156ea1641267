//! A directory in which nothing is changed without asking first, however long ago its caller was allowed to.

use std::any::Any;
use std::io::Result;
use std::ops::Deref;
use std::sync::Arc;

use crate::backend::{Access, Dir, Entry, File, Kind, Rename, SetTime, Space, Stat, Stream, Xattrs};

/// Who is asked right before each call that changes something; what syncs or reads is not asked for.
pub trait Guard: Send + Sync {
    /// # Errors
    /// The call is not made, and this is its outcome.
    fn check(&self) -> Result<()>;
}

/// `dir`, and all that is opened through it, behind that guard.
pub fn guarded(dir: Arc<dyn Dir>, guard: Arc<dyn Guard>) -> Arc<dyn Dir> {
    Arc::new(Guarded { inner: dir, guard })
}

/// A handle of the store, or what stands for one.
struct Guarded<P> {
    guard: Arc<dyn Guard>,
    inner: P,
}

impl<P> Guarded<P> {
    fn also<U>(&self, inner: U) -> Guarded<U> {
        Guarded { guard: Arc::clone(&self.guard), inner }
    }
}

impl<P> Xattrs for Guarded<P>
where
    P: Deref,
    P::Target: Xattrs,
{
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.inner.xattr(name)
    }
    fn xattrs(&self) -> Result<Vec<Vec<u8>>> {
        self.inner.xattrs()
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        self.guard.check()?;
        self.inner.set_xattr(name, value, flags)
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.guard.check()?;
        self.inner.remove_xattr(name)
    }
}

impl File for Guarded<Arc<dyn File>> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.inner.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.guard.check()?;
        self.inner.write_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.guard.check()?;
        self.inner.set_len(len)
    }
    fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        self.guard.check()?;
        self.inner.allocate(offset, len, keep_size)
    }
    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.guard.check()?;
        self.inner.punch(offset, len)
    }
    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }
    fn sync_data(&self) -> Result<()> {
        self.inner.sync_data()
    }
    fn sync_all(&self) -> Result<()> {
        self.inner.sync_all()
    }
    fn stat(&self) -> Result<Stat> {
        self.inner.stat()
    }
    fn set_mode(&self, mode: u32) -> Result<()> {
        self.guard.check()?;
        self.inner.set_mode(mode)
    }
    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        self.guard.check()?;
        self.inner.set_owner(uid, gid)
    }
    fn set_times(&self, atime: SetTime, mtime: SetTime) -> Result<()> {
        self.guard.check()?;
        self.inner.set_times(atime, mtime)
    }
    fn will_read(&self, len: u64) {
        self.inner.will_read(len);
    }
    fn will_not_need(&self) {
        self.inner.will_not_need();
    }
    fn seek(&self, offset: u64, data: bool) -> Result<u64> {
        self.inner.seek(offset, data)
    }
    fn try_lock(&self) -> Result<()> {
        self.inner.try_lock()
    }
}

impl Dir for Guarded<Arc<dyn Dir>> {
    fn open_dir(&self, name: &[u8]) -> Result<Arc<dyn Dir>> {
        Ok(Arc::new(self.also(self.inner.open_dir(name)?)))
    }
    fn open_file(&self, name: &[u8], access: Access) -> Result<Arc<dyn File>> {
        Ok(Arc::new(self.also(self.inner.open_file(name, access)?)))
    }
    fn open_file_and_stat(&self, name: &[u8], access: Access) -> Result<(Arc<dyn File>, Stat)> {
        let (file, stat) = self.inner.open_file_and_stat(name, access)?;
        Ok((Arc::new(self.also(file)), stat))
    }
    fn create_file(&self, name: &[u8], mode: u32) -> Result<Arc<dyn File>> {
        self.guard.check()?;
        Ok(Arc::new(self.also(self.inner.create_file(name, mode)?)))
    }
    fn create_dir(&self, name: &[u8], mode: u32) -> Result<()> {
        self.guard.check()?;
        self.inner.create_dir(name, mode)
    }
    fn create_node(&self, name: &[u8], kind: Kind, mode: u32, rdev: u64) -> Result<()> {
        self.guard.check()?;
        self.inner.create_node(name, kind, mode, rdev)
    }
    fn create_symlink(&self, name: &[u8], target: &[u8]) -> Result<()> {
        self.guard.check()?;
        self.inner.create_symlink(name, target)
    }
    fn read_link(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.inner.read_link(name)
    }
    fn stat(&self, name: &[u8]) -> Result<Stat> {
        self.inner.stat(name)
    }
    fn stat_self(&self) -> Result<Stat> {
        self.inner.stat_self()
    }
    fn set_mode(&self, name: &[u8], mode: u32) -> Result<()> {
        self.guard.check()?;
        self.inner.set_mode(name, mode)
    }
    fn set_owner(&self, name: &[u8], uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        self.guard.check()?;
        self.inner.set_owner(name, uid, gid)
    }
    fn set_times(&self, name: &[u8], atime: SetTime, mtime: SetTime) -> Result<()> {
        self.guard.check()?;
        self.inner.set_times(name, atime, mtime)
    }
    fn entry_xattrs(&self, name: &[u8]) -> Result<Box<dyn Xattrs + '_>> {
        Ok(Box::new(self.also(self.inner.entry_xattrs(name)?)))
    }
    fn link(&self, name: &[u8], to: &dyn Dir, new: &[u8]) -> Result<()> {
        self.guard.check()?;
        self.inner.link(name, to, new)
    }
    fn rename(&self, name: &[u8], to: &dyn Dir, new: &[u8], how: Rename) -> Result<()> {
        self.guard.check()?;
        self.inner.rename(name, to, new, how)
    }
    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.guard.check()?;
        self.inner.unlink(name)
    }
    fn remove_dir(&self, name: &[u8]) -> Result<()> {
        self.guard.check()?;
        self.inner.remove_dir(name)
    }
    fn entries_of(
        &self,
        stream: &mut Stream,
        cookie: u64,
        visit: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()> {
        self.inner.entries_of(stream, cookie, visit)
    }
    fn sync(&self) -> Result<()> {
        self.inner.sync()
    }
    fn sync_fs(&self) -> Result<()> {
        self.inner.sync_fs()
    }
    fn is_local(&self) -> bool {
        self.inner.is_local()
    }
    fn space(&self) -> Result<Space> {
        self.inner.space()
    }
    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Error;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::doubles::memory::MemoryDir;
    use crate::doubles::recording::Recording;

    #[derive(Default)]
    struct Door {
        shut: AtomicBool,
    }

    impl Guard for Door {
        fn check(&self) -> Result<()> {
            match self.shut.load(Ordering::Relaxed) {
                true => Err(Error::from_raw_os_error(libc::EROFS)),
                false => Ok(()),
            }
        }
    }

    struct Handles {
        dir: Arc<dyn Dir>,
        below: Arc<dyn Dir>,
        file: Arc<dyn File>,
    }

    type Act = fn(&Handles) -> Result<()>;

    /// One call of each that changes something, in an order in which all of them succeed.
    const ACTS: [Act; 24] = [
        |on| on.file.write_at(b"bytes", 0),
        |on| on.file.set_len(9000),
        |on| on.file.allocate(0, 10_000, false),
        |on| on.file.punch(0, 4096),
        |on| on.file.set_mode(0o600),
        |on| on.file.set_owner(Some(1), None),
        |on| on.file.set_times(SetTime::Now, SetTime::Now),
        |on| on.file.set_xattr(b"user.a", b"value", 0),
        |on| on.file.remove_xattr(b"user.a"),
        |on| on.dir.set_xattr(b"user.a", b"value", 0),
        |on| on.dir.remove_xattr(b"user.a"),
        |on| on.dir.create_file(b"new", 0o644).map(drop),
        |on| on.dir.create_dir(b"dir", 0o755),
        |on| on.dir.create_node(b"fifo", Kind::Fifo, 0o644, 0),
        |on| on.dir.create_symlink(b"symlink", b"new"),
        |on| on.dir.set_mode(b"new", 0o600),
        |on| on.dir.set_owner(b"new", Some(1), None),
        |on| on.dir.set_times(b"new", SetTime::Now, SetTime::Now),
        |on| on.dir.entry_xattrs(b"new")?.set_xattr(b"user.a", b"value", 0),
        |on| on.dir.entry_xattrs(b"new")?.remove_xattr(b"user.a"),
        |on| on.dir.link(b"new", &*on.below, b"link"),
        |on| on.dir.rename(b"new", &*on.below, b"moved", Rename::Over),
        |on| on.below.unlink(b"moved"),
        |on| on.dir.remove_dir(b"dir"),
    ];

    #[test]
    fn nothing_changes_behind_a_guard_that_says_no() {
        let (store, made) = Recording::over(MemoryDir::root()).unwrap();
        let door = Arc::new(Door::default());
        let dir = guarded(store, door.clone());
        dir.create_dir(b"below", 0o755).unwrap();
        dir.create_file(b"file", 0o644).unwrap();
        let below = dir.open_dir(b"below").unwrap();
        let (file, stat) = dir.open_file_and_stat(b"file", Access::ReadWrite).unwrap();
        let on = Handles { dir, below, file };
        made.take();
        for (n, act) in ACTS.iter().enumerate() {
            door.shut.store(true, Ordering::Relaxed);
            assert_eq!(act(&on).unwrap_err().raw_os_error(), Some(libc::EROFS), "call {n}");
            assert!(made.is_empty(), "call {n}");
            door.shut.store(false, Ordering::Relaxed);
            act(&on).unwrap_or_else(|e| panic!("call {n}: {e}"));
            assert_eq!(made.take().len(), 1, "call {n}");
        }
        door.shut.store(true, Ordering::Relaxed);
        assert_eq!(on.dir.stat(b"file").unwrap().ino, stat.ino);
        on.file.sync_all().and_then(|()| on.dir.sync_fs()).unwrap();
    }
}
