//! Names, directories and runs through the facade.

use std::time::Duration;

use crate::common::{self, CALLER, Fixture, Mount, READ, WRITE, posix};
use runvault_store::backend::{Dir, Kind, Rename, SetTime, Time};
use runvault_store::doubles::delaying::Delays;
use runvault_store::doubles::faulty::{Fault, Faults, Rule};
use runvault_store::doubles::memory::MemoryDir;
use runvault_store::doubles::observe::Op;
use runvault_vault::api::{Ino, OpenFlags, ROOT, SetAttr};
use runvault_vault::{Error, Posix};

/// The same test on a store in memory and on a real directory.
fn both(test: impl Fn(&Fixture)) {
    test(&Fixture::in_memory());
    test(&Fixture::on_disk());
}

#[test]
fn a_run_is_made_written_closed_and_read_by_writer_and_reader() {
    both(|fixture| {
        let vault = fixture.writer();
        vault.make_dir("run").unwrap();
        vault.make_dir("run/Data").unwrap();
        let data: Vec<u8> = (0..50_000u32).map(|i| (i % 251) as u8).collect();
        vault.put("run/Data/a.bcl", &data).unwrap();
        vault.put("run/empty", b"").unwrap();
        vault.put("Thumbs.db", b"loose").unwrap();
        assert_eq!(vault.list("").unwrap(), ["Thumbs.db", "run"]);
        assert_eq!(vault.list_by("", 1).unwrap(), ["Thumbs.db", "run"]);
        assert_eq!(vault.list("run").unwrap(), ["Data", "empty"]);
        assert_eq!(vault.attr("run/Data/a.bcl").unwrap().size, 50_000);
        let ino = vault.ino("run/Data/a.bcl").unwrap();
        vault.close().unwrap();
        assert!(matches!(vault.lookup(ROOT, b"run"), Err(runvault_vault::Error::Closed)));
        for again in [fixture.reader(), fixture.writer()] {
            assert_eq!(again.get("run/Data/a.bcl").unwrap(), data);
            assert_eq!(again.get("Thumbs.db").unwrap(), b"loose");
            assert_eq!(again.ino("run/Data/a.bcl").unwrap(), ino);
            assert_eq!(again.attr("run/empty").unwrap().size, 0);
            assert_eq!(posix(again.attr("run/other")), Posix::NotFound);
        }
    });
}

#[test]
fn nodes_are_dropped_when_the_kernel_forgets_them() {
    let fixture = Fixture::in_memory();
    let vault = fixture.writer();
    let run = vault.make_dir("run").unwrap().ino;
    let dir = vault.mkdir(&CALLER, run, b"d", 0o755).unwrap().ino;
    let (file, opened) = vault.create(&CALLER, dir, b"f", 0o644, WRITE).unwrap();
    vault.write(opened.handle, 0, b"x", false).unwrap();
    vault.release(opened.handle).unwrap();
    vault.forget(run, 1);
    vault.forget(dir, 1);
    assert_eq!(vault.status().known_nodes, 3);
    assert_eq!(vault.getattr(file.ino, None).unwrap().size, 1);
    vault.forget(file.ino, 1);
    assert_eq!(vault.status().known_nodes, 0);
    assert_eq!(posix(vault.getattr(file.ino, None)), Posix::Stale);
    assert_eq!(vault.get("run/d/f").unwrap(), b"x");
}

#[test]
fn only_what_nothing_in_here_needs_is_idle() {
    let fixture = Fixture::in_memory();
    let vault = fixture.writer();
    let run = vault.make_dir("run").unwrap().ino;
    let files: Vec<u64> =
        (0..5).map(|n| vault.mknod(&CALLER, run, &[b'0' + n], Kind::File, 0o644, 0).unwrap().ino).collect();
    let opened = vault.open_file(files[2], READ).unwrap();
    let (mut hand, mut idle) = (0, Vec::new());
    loop {
        idle.extend(vault.idle_nodes(&mut hand, 2));
        if hand == 0 {
            break;
        }
    }
    assert_eq!(idle, [files[0], files[1], files[3], files[4]]);
    files.iter().for_each(|ino| vault.forget(*ino, 1));
    assert!(vault.idle_nodes(&mut hand, 100).is_empty());
    vault.release(opened.handle).unwrap();
    assert_eq!(vault.idle_nodes(&mut 0, 100), [run]);
}

#[test]
fn a_reader_changes_nothing() {
    let fixture = Fixture::in_memory();
    fixture.writer().make_dir("run").map(drop).unwrap();
    let vault = fixture.reader();
    let run = vault.ino("run").unwrap();
    assert_eq!(posix(vault.mkdir(&CALLER, ROOT, b"r2", 0o755)), Posix::ReadOnly);
    assert_eq!(posix(vault.mkdir(&CALLER, run, b"d", 0o755)), Posix::ReadOnly);
    assert_eq!(posix(vault.create(&CALLER, run, b"f", 0o644, WRITE)), Posix::ReadOnly);
    assert_eq!(posix(vault.unlink(run, b"f")), Posix::ReadOnly);
    assert_eq!(posix(vault.rmdir(ROOT, b"run")), Posix::ReadOnly);
    assert_eq!(posix(vault.rename(ROOT, b"run", ROOT, b"b", Rename::Over)), Posix::ReadOnly);
    assert_eq!(posix(vault.setattr(&CALLER, run, None, &SetAttr::NOTHING)), Posix::ReadOnly);
    assert_eq!(posix(vault.setxattr(run, b"user.a", b"b", 0)), Posix::ReadOnly);
    vault.tick().unwrap();
    vault.close().unwrap();
}

#[test]
fn long_names_and_targets_have_side_files_that_come_and_go() {
    both(|fixture| {
        let vault = fixture.writer();
        vault.make_dir("run").unwrap();
        let long = "n".repeat(255);
        vault.put(&format!("run/{long}"), b"1").unwrap();
        let run = vault.ino("run").unwrap();
        let target = vec![b't'; 4000];
        let link = vault.symlink(&CALLER, run, b"link", &target).unwrap();
        assert_eq!((link.kind, link.size), (Kind::Symlink, 4000));
        assert_eq!(vault.readlink(link.ino).unwrap(), target);
        assert_eq!(vault.list("run").unwrap(), ["link", &long]);
        let longer = "m".repeat(200);
        vault.mv(&format!("run/{long}"), &format!("run/{longer}"), Rename::Over).unwrap();
        vault.mv("run/link", &format!("run/{long}"), Rename::NoReplace).unwrap();
        assert_eq!(vault.get(&format!("run/{longer}")).unwrap(), b"1");
        assert_eq!(vault.readlink(link.ino).unwrap(), target);
        assert_eq!(posix(vault.attr(&format!("run/{}", "x".repeat(256)))), Posix::NameTooLong);
        vault.remove(&format!("run/{longer}")).unwrap();
        vault.remove(&format!("run/{long}")).unwrap();
        let tree = fixture.root.open_dir(b"runs").unwrap().open_dir(&fixture.run_dirs()[0]).unwrap();
        assert!(common::names(&*tree.open_dir(b"tree").unwrap()).is_empty());
    });
}

/// Makes a link whose target is of that byte and length.
fn link(vault: &Mount, path: &str, (byte, len): (u8, usize)) -> runvault_vault::Result<()> {
    let (dir, name) = vault.parent(path)?;
    vault.symlink(&CALLER, dir, name, &vec![byte; len]).map(drop)
}

fn target(vault: &Mount, path: &str) -> (u8, usize) {
    let target = vault.readlink(vault.ino(path).unwrap()).unwrap();
    assert_eq!(vault.attr(path).unwrap().size, target.len() as u64);
    (target[0], target.len())
}

#[test]
fn a_link_at_a_name_that_exists_leaves_what_is_there_whole() {
    both(|fixture| {
        let vault = fixture.writer();
        vault.make_dir("run").unwrap();
        vault.put("run/file", b"1").unwrap();
        let long = format!("run/{}", "n".repeat(200));
        for path in ["run/a", &long] {
            link(&vault, path, (b'x', 700)).unwrap();
            for target in [(b'y', 900), (b'x', 700), (b'x', 1)] {
                assert_eq!(posix(link(&vault, path, target)), Posix::Exists);
            }
        }
        assert_eq!(posix(link(&vault, "run/file", (b'y', 900))), Posix::Exists);
        assert_eq!(vault.get("run/file").unwrap(), b"1");
        link(&vault, "run/b", (b'y', 900)).unwrap();
        let (run, ino) = (vault.ino("run").unwrap(), vault.ino("run/b").unwrap());
        assert_eq!(posix(vault.link(ino, run, b"a")), Posix::Exists);
        assert_eq!(posix(vault.mv("run/b", "run/a", Rename::NoReplace)), Posix::Exists);
        for path in ["run/a", &long] {
            assert_eq!(target(&vault, path), (b'x', 700));
        }
        assert_eq!(target(&vault, "run/b"), (b'y', 900));
    });
}

#[test]
fn long_links_take_each_others_places_and_leave_nothing_behind() {
    both(|fixture| {
        let vault = fixture.writer();
        vault.make_dir("run").unwrap();
        vault.make_dir("run/d").unwrap();
        let (x, y) = ((b'x', 700), (b'y', 900));
        link(&vault, "run/a", x).unwrap();
        link(&vault, "run/d/b", y).unwrap();
        vault.mv("run/a", "run/d/b", Rename::Exchange).unwrap();
        assert_eq!((target(&vault, "run/a"), target(&vault, "run/d/b")), (y, x));
        link(&vault, "run/same", x).unwrap();
        vault.mv("run/same", "run/d/b", Rename::Over).unwrap();
        vault.mv("run/a", "run/d/b", Rename::Over).unwrap();
        assert_eq!(target(&vault, "run/d/b"), y);
        let (run, ino) = (vault.ino("run").unwrap(), vault.ino("run/d/b").unwrap());
        vault.link(ino, run, b"more").unwrap();
        link(&vault, "run/other", x).unwrap();
        vault.mv("run/other", "run/d/b", Rename::Over).unwrap();
        assert_eq!((target(&vault, "run/more"), target(&vault, "run/d/b")), (y, x));
        vault.put("run/file", b"1").unwrap();
        vault.mv("run/file", "run/d/b", Rename::Exchange).unwrap();
        assert_eq!((target(&vault, "run/file"), vault.get("run/d/b").unwrap()), (x, b"1".to_vec()));
        vault.mv("run/d/b", "run/file", Rename::Over).unwrap();
        vault.remove("run/more").unwrap();
        let tree = fixture.root.open_dir(b"runs").unwrap().open_dir(&fixture.run_dirs()[0]).unwrap();
        let tree = tree.open_dir(b"tree").unwrap();
        let left: Vec<_> = common::names(&*tree).into_iter().filter(|n| n.contains(&b'.')).collect();
        assert!(left.is_empty(), "{left:?}");
        vault.remove_dir("run/d").unwrap();
    });
}

#[test]
fn unlinked_and_replaced_files_live_on_for_those_who_have_them_open() {
    both(|fixture| {
        let vault = fixture.writer();
        vault.make_dir("run").unwrap();
        let a = vault.put("run/a", b"first").unwrap();
        let handle = vault.open_file(a, WRITE).unwrap().handle;
        vault.put("run/b", b"second").unwrap();
        vault.mv("run/b", "run/a", Rename::Over).unwrap();
        assert_eq!(vault.read_all(handle).unwrap(), b"first");
        vault.write(handle, 5, b" and more", false).unwrap();
        assert_eq!(vault.read_all(handle).unwrap(), b"first and more");
        assert_eq!(vault.getattr(a, Some(handle)).unwrap().nlink, 0);
        vault.setattr(&CALLER, a, None, &SetAttr { mode: Some(0o600), ..SetAttr::NOTHING }).unwrap();
        assert_eq!(vault.getattr(a, None).unwrap().mode, 0o600);
        vault.fsync(handle, false).unwrap();
        vault.release(handle).unwrap();
        assert_eq!(vault.get("run/a").unwrap(), b"second");
        let b = vault.ino("run/a").unwrap();
        let handle = vault.open_file(b, READ).unwrap().handle;
        vault.remove("run/a").unwrap();
        assert_eq!(vault.read_all(handle).unwrap(), b"second");
        vault.release(handle).unwrap();
        assert!(vault.list("run").unwrap().is_empty());
        vault.close().unwrap();
    });
}

#[test]
fn hard_links_are_one_node() {
    both(|fixture| {
        let vault = fixture.writer();
        vault.make_dir("run").unwrap();
        vault.make_dir("run/d").unwrap();
        let ino = vault.put("run/a", b"").unwrap();
        let dir = vault.ino("run/d").unwrap();
        let linked = vault.link(ino, dir, b"b").unwrap();
        assert_eq!((linked.ino, linked.nlink), (ino, 2));
        assert_eq!(posix(vault.link(ino, dir, b"b")), Posix::Exists);
        assert_eq!(posix(vault.link(dir, dir, b"c")), Posix::NotPermitted);
        vault.put("run/d/b", b"both").unwrap();
        assert_eq!(vault.get("run/a").unwrap(), b"both");
        vault.remove("run/a").unwrap();
        assert_eq!(vault.getattr(ino, None).unwrap().nlink, 1);
        vault.close().unwrap();
        let reader = fixture.reader();
        assert_eq!(reader.get("run/d/b").unwrap(), b"both");
    });
}

#[test]
fn renames_of_files_directories_and_runs() {
    both(|fixture| {
        let vault = fixture.writer();
        for dir in ["run", "run/a", "run/a/b", "run/c", "other"] {
            vault.make_dir(dir).unwrap();
        }
        vault.put("run/a/b/f", b"deep").unwrap();
        vault.put("run/f", b"file").unwrap();
        assert_eq!(posix(vault.mv("run/a", "run/a/b/x", Rename::Over)), Posix::Invalid);
        assert_eq!(posix(vault.mv("run/c", "run/a", Rename::Over)), Posix::NotEmpty);
        assert_eq!(posix(vault.mv("run/f", "run/a", Rename::Over)), Posix::IsDirectory);
        assert_eq!(posix(vault.mv("run/a", "run/f", Rename::Over)), Posix::NotDirectory);
        assert_eq!(posix(vault.mv("run/a", "run/c", Rename::NoReplace)), Posix::Exists);
        assert_eq!(posix(vault.mv("run/f", "other/f", Rename::Over)), Posix::CrossRun);
        assert_eq!(posix(vault.mv("run/a", "a", Rename::Over)), Posix::CrossRun);
        vault.mv("run/a", "run/c", Rename::Over).unwrap();
        assert_eq!(vault.get("run/c/b/f").unwrap(), b"deep");
        vault.mv("run/c/b", "run/f", Rename::Exchange).unwrap();
        assert_eq!(vault.get("run/f/f").unwrap(), b"deep");
        assert_eq!(vault.get("run/c/b").unwrap(), b"file");
        vault.put("run/g", b"g").unwrap();
        vault.mv("run/g", "run/c/b", Rename::Exchange).unwrap();
        assert_eq!(vault.get("run/g").unwrap(), b"file");
        vault.put("other/x", b"x").unwrap();
        assert_eq!(posix(vault.mv("run", "other", Rename::Over)), Posix::NotEmpty);
        vault.remove("other/x").unwrap();
        vault.mv("run", "other", Rename::Over).unwrap();
        assert_eq!(vault.list("").unwrap(), ["other"]);
        assert_eq!(fixture.state.retired().len(), 1);
        vault.close().unwrap();
        let reader = fixture.reader();
        assert_eq!(reader.get("other/f/f").unwrap(), b"deep");
        assert_eq!(reader.get("other/g").unwrap(), b"file");
        assert_eq!(reader.get("other/c/b").unwrap(), b"g");
    });
}

#[test]
fn an_empty_run_can_be_removed_and_leaves_a_note() {
    both(|fixture| {
        let vault = fixture.writer();
        vault.make_dir("run").unwrap();
        vault.put("run/f", b"").unwrap();
        assert_eq!(posix(vault.remove_dir("run")), Posix::NotEmpty);
        vault.remove("run/f").unwrap();
        let id = fixture.run_dirs()[0].clone();
        vault.remove_dir("run").unwrap();
        assert!(vault.list("").unwrap().is_empty());
        assert!(fixture.run_dirs().is_empty());
        assert_eq!(common::names(&*fixture.root.open_dir(b"retired").unwrap()), [id]);
        vault.make_dir("run").unwrap();
        assert_eq!(vault.list("").unwrap(), ["run"]);
    });
}

#[test]
fn run_depth_two_puts_runs_into_folders() {
    let mut fixture = Fixture::in_memory();
    fixture.options.run_depth = 2;
    let vault = fixture.writer();
    vault.make_dir("MiSeq01").unwrap();
    vault.make_dir("MiSeq01/r1").unwrap();
    vault.make_dir("MiSeq01/r2").unwrap();
    vault.put("MiSeq01/r1/f", b"1").unwrap();
    vault.put("MiSeq01/note", b"n").unwrap();
    assert_eq!(vault.list("").unwrap(), ["MiSeq01"]);
    assert_eq!(vault.list_by("MiSeq01", 1).unwrap(), ["note", "r1", "r2"]);
    assert_eq!(posix(vault.remove_dir("MiSeq01")), Posix::NotEmpty);
    assert_eq!(posix(vault.mv("MiSeq01", "MiSeq02", Rename::Over)), Posix::Busy);
    vault.mv("MiSeq01/r2", "MiSeq01/r3", Rename::Over).unwrap();
    vault.close().unwrap();
    let reader = fixture.reader();
    assert_eq!(reader.list("MiSeq01").unwrap(), ["note", "r1", "r3"]);
    assert_eq!(reader.get("MiSeq01/r1/f").unwrap(), b"1");
}

#[test]
fn attributes_in_order_and_times_to_the_nanosecond() {
    both(|fixture| {
        let vault = fixture.writer();
        vault.make_dir("run").unwrap();
        let ino = vault.put("run/f", &[7; 10_000]).unwrap();
        let (a, m) = (Time { sec: 1, nsec: 2 }, Time { sec: 1_700_000_000, nsec: 123_456_789 });
        let change = SetAttr {
            mode: Some(0o640),
            size: Some(9000),
            atime: SetTime::At(a),
            mtime: SetTime::At(m),
            ..SetAttr::NOTHING
        };
        let attr = vault.setattr(&CALLER, ino, None, &change).unwrap();
        assert_eq!((attr.size, attr.mode, attr.mtime), (9000, 0o640, m));
        let dir = vault.ino("run").unwrap();
        let attr =
            vault.setattr(&CALLER, dir, None, &SetAttr { mode: Some(0o2770), ..SetAttr::NOTHING }).unwrap();
        assert_eq!(attr.mode, 0o2770);
        let link = vault.symlink(&CALLER, dir, b"l", b"f").unwrap().ino;
        let attr = vault
            .setattr(&CALLER, link, None, &SetAttr { mtime: SetTime::At(m), ..SetAttr::NOTHING })
            .unwrap();
        assert_eq!((attr.mtime, attr.size), (m, 1));
        // setgid directories hand on their bit; umask counts.
        assert_eq!(vault.make_dir("run/d").unwrap().mode, 0o2755);
        vault.close().unwrap();
        assert_eq!(fixture.reader().attr("run/f").unwrap().mtime, m);
    });
}

#[test]
fn suid_goes_with_a_write_and_with_a_size_change_by_others_than_root() {
    let fixture = Fixture::in_memory();
    let vault = fixture.writer();
    vault.make_dir("run").unwrap();
    let ino = vault.put("run/f", b"abc").unwrap();
    let set =
        || vault.setattr(&CALLER, ino, None, &SetAttr { mode: Some(0o6755), ..SetAttr::NOTHING }).unwrap();
    assert_eq!(set().mode, 0o6755);
    let handle = vault.open_file(ino, WRITE).unwrap().handle;
    vault.write(handle, 0, b"x", false).unwrap();
    assert_eq!(vault.getattr(ino, None).unwrap().mode, 0o6755);
    vault.write(handle, 0, b"x", true).unwrap();
    assert_eq!(vault.getattr(ino, None).unwrap().mode, 0o755);
    set();
    let user = runvault_vault::api::Caller { uid: 1000, ..CALLER };
    let shorter = SetAttr { size: Some(1), ..SetAttr::NOTHING };
    assert_eq!(vault.setattr(&user, ino, None, &shorter).unwrap().mode, 0o755);
    set();
    vault.open_file(ino, OpenFlags { truncate: true, kill_suidgid: true, ..WRITE }).unwrap();
    assert_eq!(vault.getattr(ino, None).unwrap().mode, 0o755);
}

#[test]
fn xattrs_are_encrypted_and_come_back() {
    both(|fixture| {
        let vault = fixture.writer();
        vault.make_dir("run").unwrap();
        let file = vault.put("run/f", b"").unwrap();
        let dir = vault.make_dir("run/d").unwrap().ino;
        for ino in [file, dir, vault.ino("run").unwrap()] {
            assert_eq!(posix(vault.getxattr(ino, b"user.k")), Posix::NoAttribute);
            assert!(vault.listxattr(ino).unwrap().is_empty());
            match vault.setxattr(ino, b"user.k", b"value", 0) {
                Err(runvault_vault::Error::Posix(Posix::Unsupported)) => return,
                other => other.unwrap(),
            }
            assert_eq!(vault.getxattr(ino, b"user.k").unwrap(), b"value");
            assert_eq!(vault.listxattr(ino).unwrap(), [b"user.k"]);
            assert_eq!(posix(vault.setxattr(ino, b"user.k", b"v", libc::XATTR_CREATE)), Posix::Exists);
        }
        assert_eq!(posix(vault.setxattr(file, &[b'u'; 131], b"", 0)), Posix::Unsupported);
        let long = [&b"user."[..], &[b'x'; 126]].concat();
        assert_eq!(posix(vault.setxattr(file, &long, b"", 0)), Posix::AttributeNameTooLong);
        for name in [&b"user."[..], b"trusted."] {
            assert_eq!(posix(vault.setxattr(file, name, b"", 0)), Posix::Invalid);
            assert_eq!(posix(vault.getxattr(file, name)), Posix::Invalid);
            assert_eq!(posix(vault.removexattr(file, name)), Posix::Invalid);
        }
        assert_eq!(posix(vault.getxattr(file, b"security.capability")), Posix::NoAttribute);
        assert_eq!(posix(vault.getxattr(file, b"security.selinux")), Posix::NoAttribute);
        vault.mv("run/f", "run/g", Rename::Over).unwrap();
        vault.put("run/g", b"content").unwrap();
        vault.close().unwrap();
        let reader = fixture.reader();
        assert_eq!(reader.getxattr(reader.ino("run/g").unwrap(), b"user.k").unwrap(), b"value");
        let again = fixture.writer();
        let g = again.ino("run/g").unwrap();
        again.removexattr(g, b"user.k").unwrap();
        assert_eq!(posix(again.removexattr(g, b"user.k")), Posix::NoAttribute);
    });
}

#[test]
fn special_files_are_nodes_of_their_kind() {
    let fixture = Fixture::in_memory();
    let vault = fixture.writer();
    vault.make_dir("run").unwrap();
    let run = vault.ino("run").unwrap();
    for (name, kind) in [("p", Kind::Fifo), ("s", Kind::Socket), ("c", Kind::CharDevice), ("f", Kind::File)] {
        let made = vault.mknod(&CALLER, run, name.as_bytes(), kind, 0o666, 0x103).unwrap();
        assert_eq!((made.kind, made.mode), (kind, 0o644));
        assert_eq!(vault.attr(&format!("run/{name}")).unwrap().kind, kind);
    }
    vault.put("run/f", b"filled").unwrap();
    assert_eq!(vault.get("run/f").unwrap(), b"filled");
    assert_eq!(posix(vault.open_file(vault.ino("run/p").unwrap(), READ)), Posix::Invalid);
    assert_eq!(vault.list("run").unwrap(), ["c", "f", "p", "s"]);
}

#[test]
fn readdirplus_takes_a_reference_for_what_it_shows_and_none_for_what_is_refused() {
    let fixture = Fixture::in_memory();
    let vault = fixture.writer();
    vault.make_dir("run").unwrap();
    vault.make_dir("run/d").unwrap();
    for n in 0..600 {
        vault.put(&format!("run/d/{n}"), b"").unwrap();
    }
    vault.close().unwrap();
    let vault = fixture.reader();
    let dir = vault.ino("run/d").unwrap();
    let handle = vault.opendir(dir).unwrap();
    let before = vault.status().known_nodes;
    let (mut seen, mut cookie) = (Vec::new(), 0);
    loop {
        let mut taken = 0;
        vault
            .readdir(handle, cookie, true, &mut |e| {
                if taken == 7 {
                    return false;
                }
                taken += 1;
                cookie = e.next;
                if let Some(attr) = e.attr {
                    assert_eq!((attr.ino, attr.size), (e.ino, 0));
                    seen.push(e.ino);
                } else {
                    assert!(e.name == b"." || e.name == b"..");
                }
                true
            })
            .unwrap();
        if taken == 0 {
            break;
        }
    }
    assert_eq!(seen.len(), 600);
    assert_eq!(vault.status().known_nodes, before + 600);
    for ino in seen {
        vault.forget(ino, 1);
    }
    assert_eq!(vault.status().known_nodes, before);
    vault.releasedir(handle).unwrap();
}

#[test]
fn a_reader_sees_runs_that_come_later() {
    let fixture = Fixture::in_memory();
    let reader = fixture.reader();
    assert!(reader.list("").unwrap().is_empty());
    let vault = fixture.writer();
    vault.make_dir("run").unwrap();
    vault.put("run/f", b"f").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2100));
    reader.tick().unwrap();
    assert_eq!(reader.list("").unwrap(), ["run"]);
    assert_eq!(reader.get("run/f").unwrap(), b"f");
}

#[test]
fn two_runs_exchange_their_names() {
    let fixture = Fixture::in_memory();
    let vault = fixture.writer();
    for run in ["a", "b"] {
        vault.make_dir(run).unwrap();
        vault.put(&format!("{run}/f"), run.as_bytes()).unwrap();
    }
    let (a, b) = (vault.ino("a").unwrap(), vault.ino("b").unwrap());
    vault.mv("a", "b", Rename::Exchange).unwrap();
    assert_eq!((vault.ino("a").unwrap(), vault.ino("b").unwrap()), (b, a));
    vault.put("a/more", b"of b").unwrap();
    vault.put("file", b"").unwrap();
    assert_eq!(posix(vault.mv("a", "none", Rename::Exchange)), Posix::NotFound);
    assert_eq!(posix(vault.mv("a", "file", Rename::Exchange)), Posix::CrossRun);
    assert_eq!(posix(vault.mv("file", "a", Rename::Exchange)), Posix::CrossRun);
    vault.close().unwrap();
    let reader = fixture.reader();
    assert_eq!(reader.get("a/f").unwrap(), b"b");
    assert_eq!(reader.get("b/f").unwrap(), b"a");
    assert_eq!(reader.get("a/more").unwrap(), b"of b");
}

#[test]
fn a_deleted_store_is_told_from_a_missing_name() {
    let fixture = Fixture::on_disk();
    let vault = fixture.writer();
    vault.make_dir("run").unwrap();
    let ino = vault.put("run/f", b"f").unwrap();
    let handle = vault.open_file(ino, WRITE).unwrap().handle;
    assert_eq!(posix(vault.lookup(ROOT, b"none").map_err(|e| vault.explained(e))), Posix::NotFound);
    std::fs::remove_dir_all(fixture.path().join("runs")).unwrap();
    let deleted = |error: Error| assert!(matches!(vault.explained(error), Error::Deleted));
    deleted(vault.lookup(ROOT, b"none").unwrap_err());
    deleted(vault.put("run/g", b"").unwrap_err());
    deleted(vault.make_dir("second").unwrap_err());
    deleted(vault.getattr(ROOT, None).unwrap_err());
    deleted(vault.opendir(ROOT).unwrap_err());
    vault.write(handle, 0, b"x", false).unwrap();
    deleted(vault.fsync(handle, true).unwrap_err());
    deleted(vault.tick().unwrap_err());
    vault.release(handle).unwrap();
    deleted(vault.close().unwrap_err());
}

/// More than are kept open, of which each would hold a lease, directories and perhaps a journal.
#[test]
fn runs_that_nobody_uses_are_closed_and_open_again() {
    const RUNS: usize = 700;
    let fixture = Fixture::in_memory();
    let vault = fixture.writer();
    for n in 0..RUNS {
        vault.make_dir(&format!("run{n}")).unwrap();
        vault.put(&format!("run{n}/file"), format!("{n}").as_bytes()).unwrap();
    }
    let leases = || {
        let runs = fixture.root.open_dir(b"runs").unwrap();
        let mut names = Vec::new();
        let mut note = |entry: runvault_store::backend::Entry| {
            names.push(entry.name);
            true
        };
        runs.entries(0, &mut note).unwrap();
        names.iter().filter(|name| runs.open_dir(name).unwrap().stat(b"lease").is_ok()).count()
    };
    assert_eq!(leases(), RUNS);
    for _ in 0..100 {
        vault.tick().unwrap();
    }
    // Those whose directory was used lately stay, too.
    assert!(leases() <= 128 + 384, "{} runs are still open", leases());
    for n in 0..RUNS {
        assert_eq!(vault.get(&format!("run{n}/file")).unwrap(), format!("{n}").as_bytes());
        vault.put(&format!("run{n}/file"), b"again").unwrap();
    }
    vault.close().unwrap();
    assert_eq!(leases(), 0);
    assert_eq!(fixture.reader().get("run0/file").unwrap(), b"again");
}

/// The kernel then looks the name up again, and finds the new one.
#[test]
fn a_reader_is_told_that_a_name_has_a_new_file() {
    let fixture = Fixture::in_memory();
    let writer = fixture.writer();
    writer.make_dir("run").unwrap();
    writer.put("run/t", b"old").unwrap();
    let reader = fixture.reader();
    let old = reader.ino("run/t").unwrap();
    writer.put("run/new", b"new").unwrap();
    writer.mv("run/new", "run/t", Rename::Over).unwrap();
    assert_eq!(posix(reader.getattr(old, None)), Posix::Stale);
    assert_eq!(posix(reader.open_file(old, READ)), Posix::Stale);
    reader.ino("run/t").unwrap();
    writer.close().unwrap();
}

/// A run on a store that fails when it is told to.
fn faulty() -> (Fixture, std::sync::Arc<Faults>, Mount) {
    let (root, faults) = Faults::over(MemoryDir::root()).unwrap();
    let fixture = Fixture::on(root);
    let vault = fixture.writer();
    vault.make_dir("run").unwrap();
    (fixture, faults, vault)
}

/// Content that is acknowledged.
fn put_durably(vault: &Mount, path: &str, data: &[u8]) {
    let handle = vault.open_file(vault.put(path, data).unwrap(), WRITE).unwrap().handle;
    vault.fsync(handle, false).unwrap();
    vault.release(handle).unwrap();
}

const EIO: Fault = Fault::Fail(libc::EIO);

/// The store is asked once for what goes to the kernel in many replies, and again when it starts over.
#[test]
fn a_listing_in_small_replies_reads_the_store_once() {
    let (_fixture, faults, vault) = faulty();
    for n in 0..50 {
        vault.put(&format!("run/{n}"), b"x").unwrap();
    }
    let handle = vault.opendir(vault.ino("run").unwrap()).unwrap();
    let page = |cookie, most: usize, plus| {
        let mut found: Vec<(Vec<u8>, u64)> = Vec::new();
        let listed = vault.readdir(handle, cookie, plus, &mut |e| {
            let room = found.len() < most;
            if room {
                found.push((e.name.clone(), e.next));
            }
            room
        });
        listed.map(|()| found)
    };
    let mut found = page(0, 7, false).unwrap();
    faults.add(Rule::every(Op::Entries, EIO));
    while let Some((_, cookie)) = found.last().cloned() {
        let late = found.len() >= 30;
        if late && vault.ino("run/7").is_ok() {
            vault.remove("run/7").unwrap();
        }
        let next = page(cookie, 1 + found.len() % 5, late).unwrap();
        if next.is_empty() {
            break;
        }
        found.extend(next);
    }
    assert!(page(found.last().unwrap().1, 5, false).unwrap().is_empty(), "the end stays the end");
    assert!(page(0, 5, false).is_err(), "from the start it is read anew");
    let mut names: Vec<_> = found.into_iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    names.retain(|name| name != b"7");
    assert_eq!(names.len(), 2 + 49, "each name, and the dots");
}

#[test]
fn a_directory_that_the_store_did_not_remove_holds_what_is_made_in_it_later() {
    let record = |op, fault| Rule { name: Some(b"_dir".to_vec()), ..Rule::every(op, fault) };
    let done_all_the_same = Fault::FailAfter(libc::EIO);
    for rules in [
        vec![Rule::every(Op::RemoveDir, EIO)],
        vec![Rule::every(Op::RemoveDir, EIO), record(Op::CreateFile, EIO)],
        vec![record(Op::Unlink, EIO)],
        vec![record(Op::Unlink, done_all_the_same), record(Op::CreateFile, EIO)],
    ] {
        let (fixture, faults, vault) = faulty();
        vault.make_dir("run/d").unwrap();
        rules.iter().for_each(|rule| faults.add(rule.clone()));
        assert!(vault.remove_dir("run/d").is_err());
        faults.clear();
        vault.put("run/d/f", b"1").unwrap();
        vault.close().unwrap();
        assert_eq!(fixture.reader().get("run/d/f").unwrap(), b"1", "{rules:?}");
    }
}

#[test]
fn a_failed_exchange_and_a_failed_rename_leave_files_that_open() {
    let (fixture, faults, vault) = faulty();
    put_durably(&vault, "run/a", b"1");
    put_durably(&vault, "run/b", b"2");
    // The second file's header, and the first one's again.
    faults.add(Rule { after: 1, ..Rule::every(Op::Write, EIO) });
    assert!(vault.mv("run/a", "run/b", Rename::Exchange).is_err());
    faults.clear();
    faults.add(Rule::next(Op::Rename, EIO));
    assert!(vault.mv("run/a", "run/c", Rename::Over).is_err());
    std::mem::forget(vault);
    let again = fixture.writer();
    assert_eq!((again.get("run/a").unwrap(), again.get("run/b").unwrap()), (b"1".to_vec(), b"2".to_vec()));
}

#[test]
fn a_rename_that_happened_and_was_called_a_failure_leaves_a_file_that_opens() {
    for over in [false, true] {
        let (fixture, faults, vault) = faulty();
        put_durably(&vault, "run/a", b"1");
        if over {
            put_durably(&vault, "run/b", b"2");
            vault.link(vault.ino("run/b").unwrap(), vault.ino("run").unwrap(), b"more").unwrap();
        }
        let open = vault.open_file(vault.ino("run/a").unwrap(), WRITE).unwrap().handle;
        faults.add(Rule::next(Op::Rename, Fault::FailAfter(libc::EIO)));
        assert!(vault.mv("run/a", "run/b", Rename::Over).is_err());
        vault.write(open, 1, b"and more", false).unwrap();
        vault.fsync(open, false).unwrap();
        std::mem::forget(vault);
        assert_eq!(fixture.writer().get("run/b").unwrap(), b"1and more", "{over}");
    }
}

#[test]
fn a_long_name_outlives_a_shortage_of_descriptors() {
    let (fixture, faults, vault) = faulty();
    let long = "n".repeat(200);
    vault.put(&format!("run/{long}"), b"1").unwrap();
    let run = vault.ino("run").unwrap();
    for op in [Op::OpenFile, Op::CreateFile] {
        faults.add(Rule::every(op, Fault::Fail(libc::EMFILE)));
    }
    assert!(vault.create(&CALLER, run, long.as_bytes(), 0o644, WRITE).is_err());
    assert!(vault.list("run").is_err(), "it is left out");
    faults.clear();
    vault.close().unwrap();
    assert_eq!(fixture.reader().list("run").unwrap(), [long]);
}

#[test]
fn who_stands_in_a_directory_that_goes_sees_it_empty() {
    for fixture in [Fixture::in_memory(), Fixture::on_disk()] {
        let vault = fixture.writer();
        vault.make_dir("run").unwrap();
        for path in ["run/d", "run"] {
            let ino = if path == "run" { vault.ino(path) } else { vault.make_dir(path).map(|a| a.ino) };
            let ino = ino.unwrap();
            vault.remove_dir(path).unwrap();
            let attr = vault.getattr(ino, None).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert_eq!((attr.kind, attr.nlink), (Kind::Dir, 0), "{path}");
            vault.releasedir(vault.opendir(ino).unwrap()).unwrap();
            assert_eq!(posix(vault.mkdir(&CALLER, ino, b"x", 0o755)), Posix::NotFound);
        }
        vault.make_dir("run").unwrap();
        assert_eq!(vault.list("run").unwrap(), [""; 0]);
        vault.close().unwrap();
    }
}

#[test]
fn a_directory_that_the_kernel_forgot_is_not_read_again_under_the_same_name() {
    let (store, calls) = Delays::over(MemoryDir::root(), Duration::ZERO).unwrap();
    let fixture = Fixture::on(store);
    let vault = fixture.writer();
    let run = vault.make_dir("run").unwrap().ino;
    let dir = vault.mkdir(&CALLER, run, b"d", 0o755).unwrap().ino;
    let file = vault.put("run/d/f", b"x").unwrap();
    let forget = || [file, dir].iter().for_each(|ino| vault.forget(*ino, u64::MAX));
    let read = |name: &[u8]| {
        forget();
        calls.reset();
        assert_eq!(vault.lookup(run, name).unwrap().ino, dir);
        let read = calls.count(Op::Read);
        assert_eq!(vault.lookup(dir, b"f").unwrap().ino, file);
        read
    };
    assert_eq!([read(b"d"), read(b"d")], [1, 0]);
    // Nor by a listing with attributes.
    forget();
    calls.reset();
    let listing = vault.opendir(run).unwrap();
    vault.readdir(listing, 0, true, &mut |_| true).unwrap();
    vault.releasedir(listing).unwrap();
    assert_eq!((calls.count(Op::Read), calls.count(Op::OpenFile)), (0, 0));
    // By another name its record must say so.
    vault.rename(run, b"d", run, b"e", Rename::NoReplace).unwrap();
    assert_eq!([read(b"e"), read(b"e")], [1, 0]);
    vault.rename(run, b"e", run, b"d", Rename::NoReplace).unwrap();
    assert_eq!(read(b"d"), 1);
}

#[test]
fn a_name_that_cannot_be_there_is_not_asked_for_and_each_one_made_is_found() {
    let (store, calls) = Delays::over(MemoryDir::root(), Duration::ZERO).unwrap();
    let fixture = Fixture::on(store);
    let vault = fixture.writer();
    let run = vault.make_dir("run").unwrap().ino;
    let sub = vault.mkdir(&CALLER, run, b"sub", 0o755).unwrap().ino;
    for opened in [false, true] {
        calls.reset();
        for dir in [run, sub] {
            assert_eq!(posix(vault.lookup(dir, b"none")), Posix::NotFound);
        }
        assert!(!opened || calls.total() == 0, "{} calls", calls.total());
    }
    let long = "n".repeat(255);
    for dir in [run, sub] {
        let (file, opened) = vault.create(&CALLER, dir, b"created", 0o644, WRITE).unwrap();
        vault.release(opened.handle).unwrap();
        vault.mknod(&CALLER, dir, b"node", Kind::Fifo, 0o644, 0).unwrap();
        vault.symlink(&CALLER, dir, b"symlink", b"target").unwrap();
        vault.mkdir(&CALLER, dir, long.as_bytes(), 0o755).unwrap();
        vault.link(file.ino, dir, b"link").unwrap();
        vault.rename(dir, b"node", dir, b"renamed", Rename::Over).unwrap();
        vault.rename(dir, b"link", dir, b"symlink", Rename::Exchange).unwrap();
        for name in ["created", "renamed", "symlink", "link", &long] {
            vault.lookup(dir, name.as_bytes()).unwrap();
        }
        assert_eq!(posix(vault.lookup(dir, b"node")), Posix::NotFound);
    }
    vault.rename(sub, b"renamed", run, b"moved", Rename::NoReplace).unwrap();
    vault.lookup(run, b"moved").unwrap();
    vault.close().unwrap();
    // Who did not make the directories knows nothing of what is in them.
    let again = fixture.writer();
    let sub = again.ino("run/sub").unwrap();
    again.lookup(sub, b"created").unwrap();
    calls.reset();
    assert_eq!(posix(again.lookup(sub, b"none")), Posix::NotFound);
    assert_eq!(calls.total(), 1);
}

/// A chmod of what was just removed must not reach what is made then.
#[test]
fn what_is_made_has_no_number_that_the_kernel_still_knows() {
    type Make = fn(&Mount, Ino, &[u8]) -> Ino;
    let makes: [Make; 4] = [
        |mount, dir, name| mount.create(&CALLER, dir, name, 0o600, WRITE).unwrap().0.ino,
        |mount, dir, name| mount.mknod(&CALLER, dir, name, Kind::Fifo, 0o600, 0).unwrap().ino,
        |mount, dir, name| mount.symlink(&CALLER, dir, name, b"target").unwrap().ino,
        |mount, dir, name| mount.mkdir(&CALLER, dir, name, 0o700).unwrap().ino,
    ];
    let mount = Fixture::on(MemoryDir::reusing_numbers()).writer();
    let run = mount.make_dir("run").unwrap().ino;
    for make in makes {
        let gone = mount.mknod(&CALLER, run, b"gone", Kind::File, 0o600, 0).unwrap().ino;
        mount.unlink(run, b"gone").unwrap();
        let made = make(&mount, run, b"made");
        assert_ne!(made, gone);
        let change = SetAttr { mode: Some(0o644), ..SetAttr::NOTHING };
        mount.setattr(&CALLER, gone, None, &change).unwrap_err();
        mount.forget(gone, 1);
        let again = mount.mknod(&CALLER, run, b"again", Kind::File, 0o600, 0).unwrap().ino;
        assert_eq!(again, gone, "nobody knows it any more");
        mount.rename(run, b"again", run, b"kept", Rename::Over).unwrap();
        mount.rename(run, b"made", run, format!("made {made}").as_bytes(), Rename::Over).unwrap();
    }
}

/// So many directories that those that were used before are not kept open any more.
fn use_directories(mount: &Mount, dirs: &[Ino]) {
    for dir in dirs {
        mount.releasedir(mount.opendir(*dir).unwrap()).unwrap();
    }
}

fn many_directories(mount: &Mount, parent: Ino) -> Vec<Ino> {
    (0..400).map(|n| mount.mkdir(&CALLER, parent, format!("{n}").as_bytes(), 0o755).unwrap().ino).collect()
}

/// Who stands in a removed run must not get to one that is made then.
#[test]
fn a_run_has_no_number_that_the_kernel_still_knows() {
    // What else is made of a run gets the numbers that are free.
    for free in 0..8 {
        let mount = Fixture::on(MemoryDir::reusing_numbers()).writer();
        let other = mount.make_dir("other").unwrap().ino;
        let dirs = many_directories(&mount, other);
        for n in 0..free {
            mount.put(&format!("other/{n} goes"), b"").unwrap();
        }
        let gone = mount.make_dir("gone").unwrap().ino;
        mount.rmdir(ROOT, b"gone").unwrap();
        use_directories(&mount, &dirs);
        for n in 0..free {
            let ino = mount.ino(&format!("other/{n} goes")).unwrap();
            mount.unlink(other, format!("{n} goes").as_bytes()).unwrap();
            mount.forget(ino, 2);
        }
        assert_ne!(mount.make_dir("made").unwrap().ino, gone, "{free} other numbers are free");
        let change = SetAttr { mode: Some(0o700), ..SetAttr::NOTHING };
        mount.setattr(&CALLER, gone, None, &change).unwrap_err();
    }
}

/// A directory that stays open is known by the directory that it was found in, whoever has that one's number now.
#[test]
fn a_directory_that_the_store_moves_is_found_out_whatever_its_parents_number() {
    let fixture = Fixture::on(MemoryDir::reusing_numbers());
    let mount = fixture.writer();
    let run = mount.make_dir("run").unwrap().ino;
    let dirs = many_directories(&mount, run);
    let (first, moved) =
        (mount.make_dir("run/first").unwrap().ino, mount.make_dir("run/first/x").unwrap().ino);
    mount.forget(moved, 1);
    assert_eq!(mount.lookup(first, b"x").unwrap().ino, moved);
    mount.rename(first, b"x", run, b"y", Rename::Over).unwrap();
    mount.rmdir(run, b"first").unwrap();
    mount.forget(first, 2);
    for some in dirs.chunks(50) {
        use_directories(&mount, some);
        mount.lookup(moved, b"none").unwrap_err();
    }
    let second = mount.mkdir(&CALLER, run, b"second", 0o755).unwrap().ino;
    assert_eq!(second, first, "the store uses numbers again");
    let there = mount.mkdir(&CALLER, second, b"x", 0o755).unwrap().ino;
    mount.forget(there, 1);
    mount.forget(moved, 2);

    let tree = fixture.root.open_dir(b"runs").unwrap().open_dir(&fixture.run_dirs()[0]).unwrap();
    let tree = tree.open_dir(b"tree").unwrap();
    let named = |dir: &dyn Dir, ino: Ino| {
        let names = common::names(dir);
        names.into_iter().find(|name| dir.stat(name).unwrap().ino == ino).expect("a directory")
    };
    let (from, dir) = (named(&*tree, moved), tree.open_dir(&named(&*tree, second)).unwrap());
    tree.rename(&from, &*dir, &named(&*dir, there), Rename::Exchange).unwrap();
    let found = mount.lookup(second, b"x");
    assert!(matches!(found, Err(Error::Damaged { .. })), "{found:?}");
}
