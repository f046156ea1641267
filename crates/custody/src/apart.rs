//! A store whose `custody/` lies elsewhere: keys kept apart from the data.
//!
//! Whoever asks the store's root for `custody` is led to another directory; everything else is the store's own.

use std::any::Any;
use std::io::Result;
use std::sync::Arc;

use runvault_store::backend::{Access, Dir, Entry, File, Kind, Rename, SetTime, Space, Stat, Stream, Xattrs};

use crate::layout::CUSTODY;

/// Where `custody/` lies: a name in a directory. Looked up anew each time, so that one that was put back is found.
#[derive(Clone)]
pub struct Place {
    /// The directory.
    pub parent: Arc<dyn Dir>,
    /// One component.
    pub name: Vec<u8>,
}

impl Place {
    /// In the store.
    pub fn within(root: &Arc<dyn Dir>) -> Self {
        Self { parent: Arc::clone(root), name: CUSTODY.into() }
    }
}

/// The store at `root`, with `custody/` at this place.
pub fn with_custody(root: &Arc<dyn Dir>, place: Place) -> Arc<dyn Dir> {
    Arc::new(Apart { root: Arc::clone(root), place })
}

struct Apart {
    root: Arc<dyn Dir>,
    place: Place,
}

impl Apart {
    fn find<'a>(&'a self, name: &'a [u8]) -> (&'a dyn Dir, &'a [u8]) {
        if name == CUSTODY.as_bytes() { (&*self.place.parent, &self.place.name) } else { (&*self.root, name) }
    }
}

impl Xattrs for Apart {
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.root.xattr(name)
    }
    fn xattrs(&self) -> Result<Vec<Vec<u8>>> {
        self.root.xattrs()
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        self.root.set_xattr(name, value, flags)
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.root.remove_xattr(name)
    }
}

impl Dir for Apart {
    fn open_dir(&self, name: &[u8]) -> Result<Arc<dyn Dir>> {
        let (dir, name) = self.find(name);
        dir.open_dir(name)
    }
    fn open_file(&self, name: &[u8], access: Access) -> Result<Arc<dyn File>> {
        self.root.open_file(name, access)
    }
    fn create_file(&self, name: &[u8], mode: u32) -> Result<Arc<dyn File>> {
        self.root.create_file(name, mode)
    }
    fn create_dir(&self, name: &[u8], mode: u32) -> Result<()> {
        let (dir, name) = self.find(name);
        dir.create_dir(name, mode)
    }
    fn create_node(&self, name: &[u8], kind: Kind, mode: u32, rdev: u64) -> Result<()> {
        self.root.create_node(name, kind, mode, rdev)
    }
    fn create_symlink(&self, name: &[u8], target: &[u8]) -> Result<()> {
        self.root.create_symlink(name, target)
    }
    fn read_link(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.root.read_link(name)
    }
    fn stat(&self, name: &[u8]) -> Result<Stat> {
        let (dir, name) = self.find(name);
        dir.stat(name)
    }
    fn stat_self(&self) -> Result<Stat> {
        self.root.stat_self()
    }
    fn set_mode(&self, name: &[u8], mode: u32) -> Result<()> {
        self.root.set_mode(name, mode)
    }
    fn set_owner(&self, name: &[u8], uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        self.root.set_owner(name, uid, gid)
    }
    fn set_times(&self, name: &[u8], atime: SetTime, mtime: SetTime) -> Result<()> {
        self.root.set_times(name, atime, mtime)
    }
    fn entry_xattrs(&self, name: &[u8]) -> Result<Box<dyn Xattrs + '_>> {
        self.root.entry_xattrs(name)
    }
    fn link(&self, name: &[u8], to: &dyn Dir, new: &[u8]) -> Result<()> {
        self.root.link(name, to, new)
    }
    fn rename(&self, name: &[u8], to: &dyn Dir, new: &[u8], how: Rename) -> Result<()> {
        self.root.rename(name, to, new, how)
    }
    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.root.unlink(name)
    }
    fn remove_dir(&self, name: &[u8]) -> Result<()> {
        self.root.remove_dir(name)
    }
    fn entries_of(
        &self,
        stream: &mut Stream,
        cookie: u64,
        visit: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()> {
        self.root.entries_of(stream, cookie, visit)
    }
    fn sync(&self) -> Result<()> {
        self.place.parent.sync()?;
        self.root.sync()
    }
    fn sync_fs(&self) -> Result<()> {
        self.root.sync_fs()
    }
    fn is_local(&self) -> bool {
        self.root.is_local()
    }
    fn space(&self) -> Result<Space> {
        self.root.space()
    }
    fn as_any(&self) -> &dyn Any {
        self.root.as_any()
    }
}

#[cfg(test)]
mod tests {
    use runvault_store::doubles::memory::MemoryDir;

    use super::*;
    use crate::chain::Chain;
    use crate::identity::Identity;
    use crate::init::init;
    use crate::testing::{custody, enrolled, make_run};

    #[test]
    fn a_vault_lives_with_its_custody_elsewhere() {
        let (data, keys) = (MemoryDir::root(), MemoryDir::root());
        let place = Place { parent: keys.clone(), name: b"clinic".to_vec() };
        let root = with_custody(&data, place);
        let owner = Identity::generate("owner").unwrap();
        init(&root, &owner, None).unwrap();
        let mut chain = Chain::load(&root).unwrap();
        let gateway = enrolled(&root, &mut chain, &owner);
        make_run(&root, &chain, &gateway);
        crate::rotate::rotate(&root, &chain, &owner, &mut |_, _| {}).unwrap();
        assert_eq!(Chain::load(&root).unwrap().epoch(), 2);
        assert!(data.stat(CUSTODY.as_bytes()).is_err());
        assert!(keys.open_dir(b"clinic").unwrap().stat(b"audit.log").unwrap().size > 0);
        // Without it the store says that it is not here.
        let refused = Chain::load(&data).unwrap_err();
        assert!(matches!(refused, crate::Error::NoCustody), "{refused}");
        assert!(custody(&root).stat(b"genesis").is_ok());
    }
}
