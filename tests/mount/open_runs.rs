//! Mounts that only read show what a seal proves, and what is open where they are asked to.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use runvault_tests::snapshot::{assert_same, snapshot};
use runvault_tests::tools::{printed, run};
use runvault_tests::{Mount, Site};

use crate::live::{Custody, content, shown, soon, write_run};

/// The lookup fails as that of a name that is nowhere.
fn is_missing(mount: &Mount, path: &str) {
    let error = fs::symlink_metadata(mount.path(path)).expect_err(path);
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{path}");
}

fn text(site: &Site, of: &Path) -> String {
    printed(&run(site.command(&["status"]).arg(of)))
}

#[test]
fn a_readers_mount_shows_open_runs_where_it_is_asked_to() {
    let custody = Custody::of_one_owner();
    let key = custody.named_key("lab");
    custody.act(&["add-reader", &key, "--standing"]);
    let gateway = custody.gateway();
    custody.sealed(&gateway, "run one");
    write_run(&gateway, "run two");
    fs::write(gateway.path("note"), "outside any run").expect("a file");
    // The kernel may know the folder that was sealed still.
    soon("an addition, open", &gateway, || fs::create_dir_all(gateway.path("run one/Analysis")).is_ok());
    fs::set_permissions(gateway.path("run two/RunInfo.xml"), fs::Permissions::from_mode(0o666))
        .expect("a mode");

    let sealed = custody.reading("lab", "sealed").mount();
    let all = custody.reading("lab", "all").arg("--open").mount();
    assert_eq!(shown(&sealed), ["run one"]);
    for name in ["run two", "run two/RunInfo.xml", "note", "run one/Analysis"] {
        is_missing(&sealed, name);
    }
    assert_eq!(shown(&all), ["note", "run one", "run two"]);
    assert!(fs::metadata(all.path("run one/Analysis")).expect("the addition").is_dir());
    fs::write(gateway.path("run two/later"), "grows").expect("a file");
    soon("it grows", &all, || fs::read(all.path("run two/later")).is_ok_and(|found| found == b"grows"));

    // The modes are the mount's own, whatever lies in the store.
    assert_eq!(fs::metadata(all.path("run two/RunInfo.xml")).expect("a file").mode() & 0o777, 0o644);
    for mount in [&sealed, &all] {
        let refused = fs::create_dir(mount.path("new")).expect_err("it only reads");
        assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
    }

    sealed.logged("2 open runs left out: no seal proves them yet; --open shows them", 1);
    sealed.logged("files outside runs are left out", 1);
    assert!(!all.log().contains("left out"), "{}", all.log());
    let said = custody.site.status(&sealed.at);
    assert_eq!((&said["read_only"], &said["open_runs_left_out"]), (&true.into(), &2.into()), "{said}");
    let of = |name: &str| said["runs"].as_array().expect("runs").iter().find(|run| run["name"] == name);
    assert_eq!(of("run two").expect("it is told")["left_out"], true);
    // The other of that name is what is added to it.
    let sealed_ones = said["runs"].as_array().expect("runs").iter().filter(|run| run["sealed"] == true);
    assert_eq!(sealed_ones.map(|run| &run["name"]).collect::<Vec<_>>(), ["run one"]);
    let said = text(&custody.site, &sealed.at);
    assert!(said.contains("left out    2 open runs: no seal proves them yet"), "{said}");
    assert!(said.contains("open, left out: no seal proves it yet"), "{said}");
    assert_eq!(custody.site.status(&all.at)["open_runs_left_out"], 0);

    let listed = |how: &str| {
        let mut ls = custody.command(&["ls", how]);
        printed(&run(ls.arg(&custody.site.store).arg("--identity").arg(custody.key("lab"))))
    };
    let state = |name: &str| {
        let said = listed("--json");
        let mut rows = said.lines().map(|row| serde_json::from_str::<serde_json::Value>(row).expect("JSON"));
        rows.find(|row| row["path"] == name).expect("it is listed")["state"].clone()
    };
    assert_eq!((state("run one"), state("run two")), ("sealed".into(), "open".into()));
    assert!(state("note").is_null() && listed("-l").contains("  open  run two\n"), "{}", listed("-l"));

    custody.sealed(&gateway, "run four");
    soon("it is sealed", &sealed, || shown(&sealed) == ["run four", "run one"]);
    assert!(fs::read(sealed.path("run four/Data/large")).expect("read") == content("run four"));
    write_run(&gateway, "run three");
    sealed.logged("is open: it is left out until it is sealed (--open shows it)", 1);
    is_missing(&sealed, "run three");
    for mount in [sealed, all, gateway] {
        mount.unmount();
    }
}

#[test]
fn folders_lead_to_sealed_runs_alone() {
    let site = Site::in_memory();
    let deep = || site.builder().args(["--run-depth", "2"]);
    let mount = deep().mount();
    for name in ["MiSeq01/sealed", "MiSeq01/open", "MiSeq02/open"] {
        fs::create_dir_all(mount.path(name)).expect("a run");
        fs::write(mount.path(name).join("file"), name).expect("a file");
    }
    fs::write(mount.path("top"), "outside any run").expect("a file");
    fs::write(mount.path("MiSeq01/notes"), "outside any run").expect("a file");
    run(site.command(&["seal"]).arg(&site.store).arg("MiSeq01/sealed"));
    assert_eq!(shown(&mount), ["MiSeq01", "MiSeq02", "top"], "who writes sees all");
    mount.unmount();
    // Files of another machine, outside runs; by whole seconds those of the first are older.
    sleep(Duration::from_millis(1100));
    let other = deep().state(&site.dir().join("other")).mount();
    fs::write(other.path("elsewhere"), "outside any run").expect("a file");
    other.unmount();

    let names = |at: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(at).expect("a folder").flatten().map(|e| e.file_name()).collect();
        names.sort();
        names
    };
    let sealed = deep().arg("--read-only").mount();
    assert_eq!(shown(&sealed), ["MiSeq01"]);
    assert_eq!(names(&sealed.path("MiSeq01")), ["sealed"]);
    assert_eq!(fs::read_to_string(sealed.path("MiSeq01/sealed/file")).expect("read"), "MiSeq01/sealed");
    for name in ["MiSeq01/open", "MiSeq01/open/file", "MiSeq01/notes", "MiSeq02", "top"] {
        is_missing(&sealed, name);
    }
    sealed.unmount();

    let all = deep().args(["--read-only", "--open"]).mount();
    assert_eq!(names(&all.path("MiSeq01")), ["notes", "open", "sealed"]);
    assert_eq!(fs::read_to_string(all.path("MiSeq02/open/file")).expect("read"), "MiSeq02/open");
    assert_eq!(shown(&all).len(), 4, "and the folder of the other machine's files: {:?}", shown(&all));
    all.unmount();
}

/// Not even for a moment is a name gone, which the kernel would remember for a second.
#[test]
fn who_reads_an_open_run_goes_on_while_it_is_sealed() {
    let custody = Custody::of_one_owner();
    let key = custody.named_key("lab");
    custody.act(&["add-reader", &key, "--standing"]);
    let gateway = custody.gateway();
    let reader = custody.reading("lab", "reader").arg("--open").mount();
    for name in ["run one", "run two", "run three"] {
        write_run(&gateway, name);
        let files = ["RunInfo.xml", "Data/large"].map(|file| reader.path(name).join(file));
        soon("the open run", &reader, || files.iter().all(|file| file.exists()));
        let is_sealed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                custody.seal(name);
                // It is looked for each second.
                sleep(Duration::from_secs(3));
                is_sealed.store(true, Ordering::SeqCst);
            });
            while !is_sealed.load(Ordering::SeqCst) {
                for file in &files {
                    let found = fs::read(file)
                        .unwrap_or_else(|e| panic!("{}: {e}\n{}", file.display(), reader.log()));
                    assert!(found == name.as_bytes() || found == content(name), "{}", file.display());
                }
                sleep(Duration::from_millis(1));
            }
        });
    }
    reader.unmount();
    gateway.unmount();
}

/// Also of a run whose writer was killed, and while the kernel's calls to write are refused.
#[test]
fn a_readers_mount_writes_nothing_to_the_store() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir_all(mount.path("run/dir")).expect("a run");
    fs::write(mount.path("run/dir/file"), [7; 50_000]).expect("a file");
    let before = snapshot(&site.store, true);
    let file = fs::OpenOptions::new().write(true).open(mount.path("run/dir/file")).expect("a file");
    file.sync_all().expect("a sync");
    std::os::unix::fs::FileExt::write_all_at(&file, &[8; 100], 5000).expect("written over");
    file.sync_all().expect("a sync");
    mount.kill();
    drop(file);
    let left = snapshot(&site.store, true);
    assert!(left != before, "a writer is seen to write");

    let reader = site.mount_read_only();
    assert!(fs::read(reader.path("run/dir/file")).is_ok());
    for refused in [
        fs::write(reader.path("run/new"), b"x"),
        fs::remove_file(reader.path("run/dir/file")),
        fs::create_dir(reader.path("second")),
        fs::rename(reader.path("run"), reader.path("third")),
        fs::set_permissions(reader.path("run/dir"), fs::Permissions::from_mode(0o700)),
    ] {
        assert_eq!(refused.expect_err("it only reads").kind(), io::ErrorKind::ReadOnlyFilesystem);
    }
    reader.unmount();
    for command in [&["ls", "-l"][..], &["check"], &["status"]] {
        run(site.command(command).arg(&site.store));
    }
    assert_same(&left, &snapshot(&site.store, true), "after readers");
}
