//! A large file is read back by whoever copied it: the seal reads it again where it has changed since, and nowhere else.

use std::io::Result;
use std::sync::Mutex;

use runvault_store::backend::{Access, SetTime};
use runvault_store::doubles::observe::{Call, Observer, Op, observe};

use super::*;

/// Bytes of the large file: several times what is read at once, and a part of a chunk.
const LARGE: usize = (5 << 20) + 100;

type Act = fn(&Arc<dyn Dir>, &[u8]);

/// Acts right before the store is synced for the seal, and notes of which files something is read after that.
struct Meanwhile {
    act: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    read: Mutex<Vec<u64>>,
}

impl Observer for Meanwhile {
    fn around(&self, call: Call<'_>, run: &mut dyn FnMut() -> Result<u64>) -> Result<()> {
        let before = self.act.lock().unwrap().is_some();
        match call.op {
            Op::SyncFs if before => {
                let act = self.act.lock().unwrap().take();
                act.into_iter().for_each(|act| act());
            }
            Op::Read if !before => self.read.lock().unwrap().push(call.ino),
            _ => {}
        }
        run().map(drop)
    }
}

/// Where the large file lies in a run on its way, and its stored name.
fn large_of(root: &Arc<dyn Dir>, new: &RunId) -> (Arc<dyn Dir>, Vec<u8>) {
    let dir = runvault_vault::runs::coming_place(new);
    let dir = root.open_dir(b"runs").unwrap().open_dir(dir.as_bytes()).unwrap().open_dir(b"tree").unwrap();
    let names = crate::layout::names(&dir, "tree").unwrap();
    let is_large = |name: &&Vec<u8>| dir.stat(name).unwrap().size > LARGE as u64;
    let name = names.iter().find(is_large).unwrap().clone();
    (dir, name)
}

/// Bytes that were copied, and how often the large file was read from for the seal.
fn rekeyed(site: &Site, root: &Arc<dyn Dir>, one: &Replacement, act: Act) -> (u64, usize) {
    let (below, new) = (root.clone(), one.new);
    let act = move || {
        let (dir, name) = large_of(&below, &new);
        act(&dir, &name);
    };
    let meanwhile = Arc::new(Meanwhile { act: Mutex::new(Some(Box::new(act))), read: Mutex::default() });
    let observed = observe(root.clone(), meanwhile.clone()).unwrap();
    let Done::Replaced(done) = site.work(&observed, one, Shard::ALL).unwrap() else { panic!("not done") };
    site.assert_sound(root, &one.new);
    let tree = run_dir(root, &one.new).open_dir(b"tree").unwrap();
    let names = crate::layout::names(&tree, "tree").unwrap();
    let large = names.iter().map(|name| tree.stat(name).unwrap()).max_by_key(|stat| stat.size).unwrap();
    let reads = meanwhile.read.lock().unwrap().iter().filter(|ino| **ino == large.ino).count();
    (done.copied - done.bytes, reads)
}

#[test]
fn a_large_file_is_read_again_only_where_it_has_changed_since_it_was_read_back() {
    let mut site = Site::new();
    let bytes: Vec<u8> = (0u32..).map(|i| (i % 251) as u8).take(LARGE).collect();
    let run = site.sealed_with(b"run", &bytes);
    let one = site.agree_on(run);
    let nothing: Act = |_, _| ();
    let (more, header) = rekeyed(&site, &copy(&site.root), &one, nothing);
    assert_eq!(more, 0);
    let whole = header + (LARGE >> 20);
    // Another file with the same bytes; nothing of it was read back.
    let exchanged: Act = |dir, name| {
        let bytes = get(dir, std::str::from_utf8(name).unwrap());
        let held = dir.open_file(name, Access::Read).unwrap();
        let (mode, time) = (dir.stat(name).unwrap().mode, held.stat().unwrap().mtime);
        let other = dir.create_file(b"other", mode).unwrap();
        other.write_at(&bytes, 0).unwrap();
        other.set_times(SetTime::Omit, SetTime::At(time)).unwrap();
        dir.rename(b"other", &**dir, name, Rename::Over).unwrap();
    };
    let (more, reads) = rekeyed(&site, &copy(&site.root), &one, exchanged);
    assert!(more == 0 && reads >= whole, "{more} {reads} {header}");
    // What was read back is there no more, at the same length and time.
    let torn: Act = |dir, name| {
        let file = dir.open_file(name, Access::ReadWrite).unwrap();
        let time = file.stat().unwrap().mtime;
        file.write_at(b"torn", 3 << 20).unwrap();
        file.set_times(SetTime::Omit, SetTime::At(time)).unwrap();
    };
    let (more, _) = rekeyed(&site, &copy(&site.root), &one, torn);
    assert_eq!(more, LARGE as u64, "it is copied again");
    let short: Act = |dir, name| dir.open_file(name, Access::ReadWrite).unwrap().set_len(1 << 20).unwrap();
    let (more, _) = rekeyed(&site, &copy(&site.root), &one, short);
    assert_eq!(more, LARGE as u64, "it is copied again");
    // Who does a part of the work leaves all of it to who seals.
    let root = copy(&site.root);
    let part = |number| site.work(&root, &one, Shard { number, of: 2 }).unwrap();
    assert!(matches!(part(1), Done::Waiting(_)) && matches!(part(2), Done::Replaced(_)));
    site.assert_sound(&root, &one.new);
}
