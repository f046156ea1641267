//! What every store does, on the real directory and on the one in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Result;
use std::sync::Arc;

use runvault_store::backend::{Access, Dir, Entry, File, Kind, Rename, SetTime, Time, Xattrs};
use runvault_store::doubles::faulty::{Fault, Faults, Rule};
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::doubles::observe::{Call, Observer, Op, observe};
use runvault_store::guarded::{Guard, guarded};
use runvault_store::journal_files::{self, JournalFiles};
use runvault_store::read_whole::read_whole;
use runvault_store::{posix, replace};

/// Lets every call through.
struct Nothing;

impl Observer for Nothing {
    fn around(&self, _call: Call<'_>, run: &mut dyn FnMut() -> Result<u64>) -> Result<()> {
        run().map(drop)
    }
}

/// So does this one.
struct Open;

impl Guard for Open {
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// Makes one test a store of each kind.
macro_rules! on_every_store {
    ($($name:ident)*) => {
        mod real { $(#[test] fn $name() {
            let place = tempfile::tempdir().unwrap();
            super::$name(super::posix::open_root(place.path()).unwrap());
        })* }
        mod guarded { $(#[test] fn $name() {
            super::$name(super::guarded(super::MemoryDir::root(), super::Arc::new(super::Open)));
        })* }
        mod memory { $(#[test] fn $name() { super::$name(super::MemoryDir::root()); })* }
        mod observed { $(#[test] fn $name() {
            super::$name(super::observe(super::MemoryDir::root(), super::Arc::new(super::Nothing)).unwrap());
        })* }
    };
}

on_every_store! {
    names_that_leave_the_directory_are_refused
    files_keep_what_is_written
    holes_read_as_zeros
    punching_zeroes_and_keeps_the_length
    allocating_grows_only_when_asked
    only_regular_files_are_opened
    links_share_one_file
    rename_follows_renameat2
    a_directory_never_moves_into_itself
    unlinked_files_live_while_open
    attributes_of_entries
    setgid_directories_pass_their_group_on
    extended_attributes
    listing_goes_on_from_any_cookie
    removed_directories_take_nothing
    replacing_leaves_no_temporary
    whole_files_are_bounded
    journal_files_are_zeros_and_reused
    journal_files_survive_a_killed_creation
    read_only_handles_do_not_write
    a_lock_is_one_handles_or_refused
}

#[track_caller]
fn refused<T>(result: Result<T>, errno: i32) {
    let Err(error) = result else { panic!("succeeded, errno {errno} expected") };
    assert_eq!(error.raw_os_error(), Some(errno), "{error}");
}

fn whole(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; file.stat().unwrap().size as usize + 10];
    let n = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(n);
    bytes
}

fn put(dir: &dyn Dir, name: &[u8], bytes: &[u8]) -> Arc<dyn File> {
    let file = dir.create_file(name, 0o644).unwrap();
    file.write_at(bytes, 0).unwrap();
    file
}

fn listed(dir: &dyn Dir) -> BTreeMap<Vec<u8>, Entry> {
    let mut found = BTreeMap::new();
    dir.entries(0, &mut |e| {
        assert!(found.insert(e.name.clone(), e).is_none(), "listed twice");
        true
    })
    .unwrap();
    found
}

fn names_that_leave_the_directory_are_refused(root: Arc<dyn Dir>) {
    root.create_dir(b"d", 0o755).unwrap();
    put(&*root, b"f", b"x");
    for bad in [&b""[..], b".", b"..", b"/", b"d/f", b"../f", b"f\0", b"/f"] {
        refused(root.open_dir(bad), libc::EINVAL);
        refused(root.open_file(bad, Access::Read), libc::EINVAL);
        refused(root.create_file(bad, 0o600), libc::EINVAL);
        refused(root.create_dir(bad, 0o700), libc::EINVAL);
        refused(root.create_node(bad, Kind::Fifo, 0o600, 0), libc::EINVAL);
        refused(root.create_symlink(bad, b"t"), libc::EINVAL);
        refused(root.read_link(bad), libc::EINVAL);
        refused(root.stat(bad), libc::EINVAL);
        refused(root.set_mode(bad, 0o600), libc::EINVAL);
        refused(root.set_owner(bad, None, None), libc::EINVAL);
        refused(root.set_times(bad, SetTime::Now, SetTime::Now), libc::EINVAL);
        refused(root.link(b"f", &*root, bad), libc::EINVAL);
        refused(root.link(bad, &*root, b"n"), libc::EINVAL);
        refused(root.rename(b"f", &*root, bad, Rename::Over), libc::EINVAL);
        refused(root.rename(bad, &*root, b"n", Rename::Over), libc::EINVAL);
        refused(root.unlink(bad), libc::EINVAL);
        refused(root.remove_dir(bad), libc::EINVAL);
    }
    let long = [b'n'; 256];
    refused(root.create_file(&long, 0o600), libc::ENAMETOOLONG);
    refused(root.stat(&long), libc::ENAMETOOLONG);
    root.create_file(&long[..255], 0o600).unwrap();
    let bytes: Vec<u8> = (1..=255).filter(|b| *b != b'/').collect();
    root.create_file(&bytes[..200], 0o600).unwrap();
    assert!(listed(&*root).contains_key(&bytes[..200]));
}

fn files_keep_what_is_written(root: Arc<dyn Dir>) {
    let file = put(&*root, b"f", b"0123456789");
    file.write_at(b"ab", 4).unwrap();
    file.write_at(b"", 1 << 40).unwrap();
    assert_eq!(whole(&*file), b"0123ab6789");
    file.set_len(5).unwrap();
    file.set_len(7).unwrap();
    file.sync_data().unwrap();
    file.sync_all().unwrap();
    assert_eq!(whole(&*file), b"0123a\0\0");
    let again = root.open_file(b"f", Access::ReadWrite).unwrap();
    again.write_at(b"Z", 6).unwrap();
    let mut buf = [9; 4];
    assert_eq!(file.read_at(&mut buf, 4).unwrap(), 3);
    assert_eq!(&buf, b"a\0Z\x09");
    assert_eq!(file.read_at(&mut buf, 7).unwrap(), 0);
    refused(root.create_file(b"f", 0o600), libc::EEXIST);
    refused(root.open_file(b"g", Access::Read), libc::ENOENT);
    let stat = root.stat(b"f").unwrap();
    assert_eq!((stat.kind, stat.size, stat.nlink, stat.mode), (Kind::File, 7, 1, 0o644));
    assert_eq!(stat, file.stat().unwrap());
    file.will_read(5);
    root.sync().unwrap();
    root.sync_fs().unwrap();
    let space = root.space().unwrap();
    assert!(space.block >= 512 && space.blocks >= space.free && space.free >= space.available);
}

fn holes_read_as_zeros(root: Arc<dyn Dir>) {
    let file = root.create_file(b"f", 0o644).unwrap();
    refused(file.seek(0, true), libc::ENXIO);
    file.set_len(1 << 40).unwrap();
    refused(file.seek(0, true), libc::ENXIO);
    assert_eq!(file.seek(5, false).unwrap(), 5);
    file.write_at(&[1; 100], 10 << 20).unwrap();
    assert_eq!(file.seek(0, true).unwrap(), 10 << 20);
    assert_eq!(file.seek((10 << 20) + 3, true).unwrap(), (10 << 20) + 3);
    let hole = file.seek(10 << 20, false).unwrap();
    assert!(((10 << 20) + 100..11 << 20).contains(&hole), "{hole}");
    refused(file.seek(11 << 20, true), libc::ENXIO);
    refused(file.seek(1 << 40, false), libc::ENXIO);
    let mut buf = [7; 64];
    assert_eq!(file.read_at(&mut buf, (10 << 20) - 32).unwrap(), 64);
    assert_eq!((&buf[..32], &buf[32..]), (&[0; 32][..], &[1; 32][..]));
    assert!(file.stat().unwrap().blocks < 1 << 12);
    refused(file.set_len(u64::MAX), libc::EINVAL);
}

fn punching_zeroes_and_keeps_the_length(root: Arc<dyn Dir>) {
    let file = put(&*root, b"f", &[5; 20_000]);
    file.punch(1000, 15_000).unwrap();
    let bytes = whole(&*file);
    assert_eq!(bytes.len(), 20_000);
    assert!(bytes.iter().enumerate().all(|(i, b)| *b == if (1000..16_000).contains(&i) { 0 } else { 5 }));
    assert_eq!(file.seek(4096, true).unwrap(), 12_288);
    file.punch(19_000, 1 << 30).unwrap();
    assert_eq!(file.stat().unwrap().size, 20_000);
    file.punch(19_100, 10).unwrap();
    refused(file.punch(0, 0), libc::EINVAL);
}

fn allocating_grows_only_when_asked(root: Arc<dyn Dir>) {
    let file = put(&*root, b"f", b"abc");
    file.allocate(0, 10_000, true).unwrap();
    assert_eq!(file.stat().unwrap().size, 3);
    file.allocate(1, 9_999, false).unwrap();
    assert_eq!(file.stat().unwrap().size, 10_000);
    file.allocate(0, 5, false).unwrap();
    let bytes = whole(&*file);
    assert_eq!((&bytes[..3], bytes.len()), (&b"abc"[..], 10_000));
    assert!(bytes[3..].iter().all(|b| *b == 0));
    refused(file.allocate(0, 0, false), libc::EINVAL);
}

fn only_regular_files_are_opened(root: Arc<dyn Dir>) {
    root.create_dir(b"dir", 0o755).unwrap();
    root.create_symlink(b"link", b"file").unwrap();
    root.create_symlink(b"dirlink", b"dir").unwrap();
    root.create_symlink(b"nowhere", b"/etc/none").unwrap();
    root.create_node(b"fifo", Kind::Fifo, 0o644, 0).unwrap();
    root.create_node(b"socket", Kind::Socket, 0o644, 0).unwrap();
    put(&*root, b"file", b"x");
    for access in [Access::Read, Access::ReadWrite] {
        refused(root.open_file(b"dir", access), libc::EISDIR);
        for link in [&b"link"[..], b"dirlink", b"nowhere"] {
            refused(root.open_file(link, access), libc::ELOOP);
        }
        refused(root.open_file(b"fifo", access), libc::EINVAL);
        refused(root.open_file_and_stat(b"fifo", access), libc::EINVAL);
        let (file, stat) = root.open_file_and_stat(b"file", access).unwrap();
        assert_eq!((stat, stat.size), (file.stat().unwrap(), 1));
        refused(root.open_file(b"socket", access), libc::EINVAL);
    }
    for name in [&b"file"[..], b"fifo", b"link", b"dirlink"] {
        let error = root.open_dir(name).err().unwrap().raw_os_error();
        assert!(error == Some(libc::ENOTDIR) || error == Some(libc::ELOOP), "{error:?}");
    }
    refused(root.create_file(b"nowhere", 0o644), libc::EEXIST);
    assert_eq!(root.read_link(b"nowhere").unwrap(), b"/etc/none");
    refused(root.read_link(b"file"), libc::EINVAL);
    refused(root.create_node(b"x", Kind::File, 0o644, 0), libc::EINVAL);
    let found = listed(&*root);
    let kind = |name: &[u8]| found.get(name).unwrap().kind;
    assert_eq!(kind(b"dir"), Some(Kind::Dir));
    assert_eq!(kind(b"fifo"), Some(Kind::Fifo));
    assert_eq!(kind(b"link"), Some(Kind::Symlink));
    assert_eq!(root.stat(b"socket").unwrap().kind, Kind::Socket);
    let long = vec![b't'; 3000];
    root.create_symlink(b"long", &long).unwrap();
    assert_eq!(root.read_link(b"long").unwrap(), long);
    refused(root.create_symlink(b"longer", &[b't'; 5000]), libc::ENAMETOOLONG);
}

fn links_share_one_file(root: Arc<dyn Dir>) {
    root.create_dir(b"d", 0o755).unwrap();
    let d = root.open_dir(b"d").unwrap();
    put(&*root, b"f", b"x");
    root.link(b"f", &*d, b"g").unwrap();
    assert_eq!(root.stat(b"f").unwrap().ino, d.stat(b"g").unwrap().ino);
    assert_eq!(d.stat(b"g").unwrap().nlink, 2);
    d.open_file(b"g", Access::ReadWrite).unwrap().write_at(b"yy", 0).unwrap();
    assert_eq!(whole(&*root.open_file(b"f", Access::Read).unwrap()), b"yy");
    refused(root.link(b"f", &*d, b"g"), libc::EEXIST);
    refused(root.link(b"d", &*d, b"h"), libc::EPERM);
    refused(root.link(b"none", &*d, b"h"), libc::ENOENT);
    root.create_symlink(b"s", b"f").unwrap();
    root.link(b"s", &*root, b"s2").unwrap();
    assert_eq!(root.stat(b"s2").unwrap().kind, Kind::Symlink);
    root.unlink(b"f").unwrap();
    assert_eq!(d.stat(b"g").unwrap().nlink, 1);
}

fn rename_follows_renameat2(root: Arc<dyn Dir>) {
    root.create_dir(b"d", 0o755).unwrap();
    root.create_dir(b"e", 0o755).unwrap();
    let d = root.open_dir(b"d").unwrap();
    put(&*root, b"a", b"a");
    put(&*d, b"b", b"b");
    refused(root.rename(b"a", &*d, b"b", Rename::NoReplace), libc::EEXIST);
    refused(root.rename(b"a", &*d, b"c", Rename::Exchange), libc::ENOENT);
    refused(root.rename(b"none", &*d, b"b", Rename::Over), libc::ENOENT);
    root.rename(b"a", &*d, b"b", Rename::Exchange).unwrap();
    assert_eq!(whole(&*root.open_file(b"a", Access::Read).unwrap()), b"b");
    root.rename(b"a", &*d, b"c", Rename::NoReplace).unwrap();
    d.rename(b"b", &*d, b"c", Rename::Over).unwrap();
    assert_eq!(whole(&*d.open_file(b"c", Access::Read).unwrap()), b"a");
    refused(d.rename(b"c", &*root, b"e", Rename::Over), libc::EISDIR);
    refused(root.rename(b"e", &*d, b"c", Rename::Over), libc::ENOTDIR);
    refused(root.rename(b"e", &*root, b"d", Rename::Over), libc::ENOTEMPTY);
    root.rename(b"d", &*root, b"e", Rename::Over).unwrap();
    assert_eq!(listed(&*root).into_keys().collect::<Vec<_>>(), [b"e"]);
    // Two names of one file: nothing happens.
    d.link(b"c", &*root, b"c2").unwrap();
    root.rename(b"c2", &*d, b"c", Rename::Over).unwrap();
    assert_eq!(d.stat(b"c").unwrap().nlink, 2);
    root.rename(b"e", &*root, b"c2", Rename::Exchange).unwrap();
    assert_eq!(root.stat(b"c2").unwrap().kind, Kind::Dir);
}

fn a_directory_never_moves_into_itself(root: Arc<dyn Dir>) {
    root.create_dir(b"a", 0o755).unwrap();
    let a = root.open_dir(b"a").unwrap();
    a.create_dir(b"b", 0o755).unwrap();
    let b = a.open_dir(b"b").unwrap();
    put(&*b, b"f", b"");
    for how in [Rename::Over, Rename::NoReplace] {
        refused(root.rename(b"a", &*b, b"x", how), libc::EINVAL);
        refused(root.rename(b"a", &*a, b"x", how), libc::EINVAL);
    }
    refused(b.rename(b"f", &*root, b"a", Rename::Over), libc::ENOTEMPTY);
    refused(b.rename(b"f", &*root, b"a", Rename::Exchange), libc::EINVAL);
    assert_eq!(root.stat(b"a").unwrap().nlink, 3);
    root.create_dir(b"c", 0o755).unwrap();
    a.rename(b"b", &*root.open_dir(b"c").unwrap(), b"b", Rename::Over).unwrap();
    assert_eq!((root.stat(b"a").unwrap().nlink, root.stat(b"c").unwrap().nlink), (2, 3));
    root.rename(b"c", &*a, b"c", Rename::Over).unwrap();
    assert_eq!(a.stat(b"c").unwrap().nlink, 3);
}

fn unlinked_files_live_while_open(root: Arc<dyn Dir>) {
    let file = put(&*root, b"f", b"here");
    root.unlink(b"f").unwrap();
    refused(root.stat(b"f"), libc::ENOENT);
    refused(root.unlink(b"f"), libc::ENOENT);
    file.write_at(b"!", 4).unwrap();
    assert_eq!(whole(&*file), b"here!");
    assert_eq!(file.stat().unwrap().nlink, 0);
    let old = put(&*root, b"g", b"old");
    put(&*root, b"h", b"new");
    root.rename(b"h", &*root, b"g", Rename::Over).unwrap();
    assert_eq!(whole(&*old), b"old");
    root.create_dir(b"d", 0o755).unwrap();
    refused(root.unlink(b"d"), libc::EISDIR);
    refused(root.remove_dir(b"g"), libc::ENOTDIR);
}

fn attributes_of_entries(root: Arc<dyn Dir>) {
    let file = put(&*root, b"f", b"x");
    root.create_symlink(b"s", b"f").unwrap();
    root.create_node(b"p", Kind::Fifo, 0o644, 0).unwrap();
    root.create_dir(b"d", 0o755).unwrap();
    for name in [&b"f"[..], b"p", b"d"] {
        root.set_mode(name, 0o1640).unwrap();
        assert_eq!(root.stat(name).unwrap().mode, 0o1640);
    }
    refused(root.set_mode(b"s", 0o600), libc::EOPNOTSUPP);
    assert_eq!(root.stat(b"f").unwrap().mode, 0o1640, "the link was followed");
    file.set_mode(0o600).unwrap();
    assert_eq!(file.stat().unwrap().mode, 0o600);
    let (a, m) = (Time { sec: 1_000_000_000, nsec: 123_456_789 }, Time { sec: 5, nsec: 999_999_999 });
    for name in [&b"f"[..], b"p", b"d", b"s"] {
        root.set_times(name, SetTime::At(a), SetTime::At(m)).unwrap();
        let stat = root.stat(name).unwrap();
        assert_eq!((stat.atime, stat.mtime), (a, m));
    }
    file.set_times(SetTime::Omit, SetTime::Now).unwrap();
    let stat = file.stat().unwrap();
    assert!(stat.atime == a && stat.mtime > a && stat.mtime >= stat.atime);
    refused(file.set_times(SetTime::At(Time { sec: 0, nsec: 1_000_000_000 }), SetTime::Omit), libc::EINVAL);
    if rustix::process::geteuid().is_root() {
        root.set_owner(b"s", Some(1234), None).unwrap();
        file.set_owner(None, Some(77)).unwrap();
        let (s, f) = (root.stat(b"s").unwrap(), root.stat(b"f").unwrap());
        assert_eq!((s.uid, s.gid), (1234, f.uid));
        assert_eq!((f.uid, f.gid), (0, 77));
        root.set_mode(b"f", 0o6755).unwrap();
        root.set_owner(b"f", Some(3), Some(4)).unwrap();
        assert_eq!(root.stat(b"f").unwrap().mode, 0o755, "suid outlived chown");
    }
}

fn setgid_directories_pass_their_group_on(root: Arc<dyn Dir>) {
    root.create_dir(b"d", 0o755).unwrap();
    if rustix::process::geteuid().is_root() {
        root.set_owner(b"d", None, Some(99)).unwrap();
    }
    root.set_mode(b"d", 0o2755).unwrap();
    let gid = root.stat(b"d").unwrap().gid;
    let d = root.open_dir(b"d").unwrap();
    d.create_dir(b"sub", 0o700).unwrap();
    put(&*d, b"f", b"");
    assert_eq!((d.stat(b"sub").unwrap().gid, d.stat(b"sub").unwrap().mode), (gid, 0o2700));
    assert_eq!((d.stat(b"f").unwrap().gid, d.stat(b"f").unwrap().mode), (gid, 0o644));
}

fn extended_attributes(root: Arc<dyn Dir>) {
    let file = put(&*root, b"f", b"x");
    root.create_dir(b"d", 0o755).unwrap();
    root.create_node(b"p", Kind::Fifo, 0o644, 0).unwrap();
    root.create_symlink(b"s", b"f").unwrap();
    let d = root.open_dir(b"d").unwrap();
    let by_name = root.entry_xattrs(b"f").unwrap();
    let large = vec![b'v'; 2000];
    for x in [&*file as &dyn Xattrs, &*d as &dyn Xattrs] {
        refused(x.xattr(b"user.a"), libc::ENODATA);
        x.set_xattr(b"user.a", b"one", libc::XATTR_CREATE).unwrap();
        refused(x.set_xattr(b"user.a", b"two", libc::XATTR_CREATE), libc::EEXIST);
        refused(x.set_xattr(b"user.b", b"two", libc::XATTR_REPLACE), libc::ENODATA);
        x.set_xattr(b"user.b", &large, 0).unwrap();
        x.set_xattr(b"user.empty", b"", 0).unwrap();
        assert_eq!(x.xattr(b"user.b").unwrap(), large);
        assert_eq!(x.xattr(b"user.empty").unwrap(), b"");
        let names: BTreeSet<_> =
            x.xattrs().unwrap().into_iter().filter(|n| n.starts_with(b"user.")).collect();
        let expected = [&b"user.a"[..], b"user.b", b"user.empty"].map(<[u8]>::to_vec);
        assert_eq!(names, BTreeSet::from(expected));
        x.remove_xattr(b"user.empty").unwrap();
        refused(x.remove_xattr(b"user.empty"), libc::ENODATA);
        refused(x.set_xattr(b"nonsense", b"", 0), libc::EOPNOTSUPP);
        refused(x.set_xattr(b"user.", b"", 0), libc::EINVAL);
    }
    assert_eq!(by_name.xattr(b"user.a").unwrap(), b"one");
    by_name.set_xattr(b"user.c", b"three", 0).unwrap();
    assert_eq!(file.xattr(b"user.c").unwrap(), b"three");
    by_name.remove_xattr(b"user.c").unwrap();
    for odd in [&b"p"[..], b"s"] {
        let x = root.entry_xattrs(odd).unwrap();
        refused(x.xattr(b"user.a"), libc::ENODATA);
        refused(x.set_xattr(b"user.a", b"", 0), libc::EPERM);
        assert!(!x.xattrs().unwrap().iter().any(|n| n.starts_with(b"user.")));
    }
    refused(root.entry_xattrs(b"none").map(drop), libc::ENOENT);
}

fn listing_goes_on_from_any_cookie(root: Arc<dyn Dir>) {
    assert!(listed(&*root).is_empty());
    let names: BTreeSet<Vec<u8>> = (0..1500).map(|i| format!("entry-{i:05}").into_bytes()).collect();
    for name in &names {
        root.create_file(name, 0o600).unwrap();
    }
    let found = listed(&*root);
    assert!(found.keys().eq(names.iter()));
    let mut order = Vec::new();
    root.entries(0, &mut |e| {
        order.push(e);
        true
    })
    .unwrap();
    for at in [0, 1, 30, 700, 1498, 1499] {
        let mut rest = Vec::new();
        root.entries(order[at].next, &mut |e| {
            rest.push(e);
            rest.len() < 400
        })
        .unwrap();
        let end = (at + 401).min(order.len());
        assert_eq!(rest, order[at + 1..end], "after entry {at}");
    }
    // In small pieces, with removals between them: what stays is seen once.
    let (mut cookie, mut seen) = (0, BTreeSet::new());
    loop {
        let mut piece = Vec::new();
        root.entries(cookie, &mut |e| {
            piece.push(e);
            piece.len() < 7
        })
        .unwrap();
        let Some(last) = piece.last() else { break };
        cookie = last.next;
        for e in &piece {
            assert!(seen.insert(e.name.clone()), "seen twice");
            root.unlink(&e.name).unwrap();
        }
    }
    assert_eq!(seen, names);
    // A visitor may use the directory.
    root.create_file(b"last", 0o600).unwrap();
    root.entries(0, &mut |e| {
        assert_eq!(listed(&*root).len(), 1);
        root.unlink(&e.name).is_ok()
    })
    .unwrap();
}

fn removed_directories_take_nothing(root: Arc<dyn Dir>) {
    root.create_dir(b"d", 0o755).unwrap();
    let d = root.open_dir(b"d").unwrap();
    put(&*root, b"f", b"");
    put(&*d, b"x", b"");
    refused(root.remove_dir(b"d"), libc::ENOTEMPTY);
    d.unlink(b"x").unwrap();
    root.remove_dir(b"d").unwrap();
    refused(root.remove_dir(b"d"), libc::ENOENT);
    refused(d.create_file(b"x", 0o600), libc::ENOENT);
    refused(d.create_dir(b"x", 0o700), libc::ENOENT);
    refused(root.link(b"f", &*d, b"f"), libc::ENOENT);
    refused(root.rename(b"f", &*d, b"f", Rename::Over), libc::ENOENT);
    refused(d.entries(0, &mut |_| true), libc::ENOENT);
}

fn replacing_leaves_no_temporary(root: Arc<dyn Dir>) {
    replace::replace(&*root, b"name", b"one", 0o600).unwrap();
    replace::replace(&*root, b"name", b"two", 0o640).unwrap();
    assert_eq!(read_whole(&*root, b"name", 3).unwrap(), b"two");
    assert_eq!(listed(&*root).len(), 1);
    replace::create(&*root, b"other", b"three", 0o600).unwrap();
    refused(replace::create(&*root, b"other", b"four", 0o600), libc::EEXIST);
    assert_eq!(read_whole(&*root, b"other", 100).unwrap(), b"three");
    replace::put_new(&*root, b"new", b"six", 0o600).unwrap();
    refused(replace::put_new(&*root, b"new", b"seven", 0o600), libc::EEXIST);
    assert_eq!(read_whole(&*root, b"new", 100).unwrap(), b"six");
    root.create_dir(b"dir", 0o755).unwrap();
    refused(replace::replace(&*root, b"dir", b"five", 0o600), libc::EISDIR);
    assert_eq!(listed(&*root).len(), 4);
}

/// Where there are no hard links, a rename that replaces nothing does as well.
#[test]
fn a_new_name_is_taken_once_without_hard_links_too() {
    let (root, faults) = Faults::over(MemoryDir::root()).unwrap();
    faults.add(Rule::every(Op::Link, Fault::Fail(libc::EPERM)));
    replace::put_new(&*root, b"new", b"one", 0o600).unwrap();
    refused(replace::put_new(&*root, b"new", b"two", 0o600), libc::EEXIST);
    assert_eq!(read_whole(&*root, b"new", 100).unwrap(), b"one");
    assert_eq!(listed(&*root).len(), 1);
}

fn whole_files_are_bounded(root: Arc<dyn Dir>) {
    put(&*root, b"f", &[7; 1000]);
    refused(read_whole(&*root, b"f", 999), libc::EFBIG);
    assert_eq!(read_whole(&*root, b"f", 1000).unwrap(), [7; 1000]);
    put(&*root, b"sparse", b"").set_len(1 << 42).unwrap();
    refused(read_whole(&*root, b"sparse", 1 << 20), libc::EFBIG);
    root.create_node(b"fifo", Kind::Fifo, 0o600, 0).unwrap();
    refused(read_whole(&*root, b"fifo", 10), libc::EINVAL);
    root.create_symlink(b"link", b"f").unwrap();
    refused(read_whole(&*root, b"link", 10_000), libc::ELOOP);
    refused(read_whole(&*root, b"none", 10), libc::ENOENT);
}

fn journal_files_are_zeros_and_reused(root: Arc<dyn Dir>) {
    assert!(JournalFiles::open_existing(&root).unwrap().is_none());
    let mut files = JournalFiles::create(&root, 200_000).unwrap();
    assert_eq!((files.capacity(), files.room(0), files.room(1)), (200_000, 200_000, 200_000));
    files.append(0, &[1; 1024]).unwrap();
    files.append(0, &[2; 512]).unwrap();
    files.append(1, &[3; 512]).unwrap();
    files.sync(0).unwrap();
    assert_eq!((files.room(0), files.room(1)), (200_000 - 1536, 200_000 - 512));
    refused(files.append(0, &vec![0; 200_000]), libc::ENOSPC);
    files.rewind(0);
    files.append(0, &[4; 512]).unwrap();
    drop(files);
    let mut files = JournalFiles::open_existing(&root).unwrap().unwrap();
    assert_eq!((files.len(0), files.len(1)), (200_000, 200_000));
    let mut bytes = vec![9; 2048];
    assert_eq!(files.read_at(0, &mut bytes, 0).unwrap(), 2048);
    assert_eq!((bytes[511], bytes[512], bytes[1024], bytes[1536]), (4, 1, 2, 0));
    files.reset(1).unwrap();
    files.read_at(1, &mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|b| *b == 0));
    files.remove(&root).unwrap();
    assert!(listed(&*root).is_empty());
    journal_files::remove(&root).unwrap();
}

fn journal_files_survive_a_killed_creation(root: Arc<dyn Dir>) {
    root.create_dir(journal_files::DIRECTORY, 0o700).unwrap();
    let dir = root.open_dir(journal_files::DIRECTORY).unwrap();
    put(&*dir, b"0", &[9; 5000]);
    assert!(JournalFiles::open_existing(&root).unwrap().is_none());
    let files = JournalFiles::create(&root, 4096).unwrap();
    let mut bytes = vec![1; 8192];
    assert_eq!(files.read_at(0, &mut bytes, 0).unwrap(), 4096);
    assert!(bytes[..4096].iter().all(|b| *b == 0));
    files.remove(&root).unwrap();
    root.create_symlink(journal_files::DIRECTORY, b"/etc").unwrap();
    assert!(JournalFiles::open_existing(&root).is_err());
    assert!(JournalFiles::create(&root, 4096).is_err());
}

fn a_lock_is_one_handles_or_refused(root: Arc<dyn Dir>) {
    let first = put(&*root, b"f", b"x");
    let second = root.open_file(b"f", Access::Read).unwrap();
    if first.try_lock().is_err_and(|e| e.raw_os_error() == Some(libc::EOPNOTSUPP)) {
        return;
    }
    refused(second.try_lock(), libc::EWOULDBLOCK);
    drop(first);
    second.try_lock().unwrap();
}

fn read_only_handles_do_not_write(root: Arc<dyn Dir>) {
    put(&*root, b"f", b"x");
    let file = root.open_file(b"f", Access::Read).unwrap();
    refused(file.write_at(b"y", 0), libc::EBADF);
    refused(file.set_len(0), libc::EINVAL);
    refused(file.allocate(0, 10, false), libc::EBADF);
    refused(file.punch(0, 1), libc::EBADF);
    assert_eq!(whole(&*file), b"x");
}
