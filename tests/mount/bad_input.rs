//! Bad input gets a named answer and its exit code; nothing panics, hangs or is followed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use runvault_tests::tools::{output, printed, root_for, run, runvault};
use runvault_tests::{Mount, Site};

fn expect(command: &mut Command, code: i32, says: &[&str]) -> Output {
    let done = output(command);
    let text = printed(&done);
    assert_eq!(done.status.code(), Some(code), "{command:?}\n{text}");
    for word in says {
        assert!(
            text.to_lowercase().contains(&word.to_lowercase()),
            "{command:?} does not say {word:?}:\n{text}"
        );
    }
    assert!(!text.contains("panicked"), "{text}");
    done
}

/// The one run of a store that is not the loose one, and its first file in tree/.
fn stored_file(site: &Site) -> PathBuf {
    let mut found = Vec::new();
    for run in fs::read_dir(site.store.join("runs")).expect("runs") {
        let tree = run.expect("an entry").path().join("tree");
        for file in fs::read_dir(tree).expect("a tree") {
            let path = file.expect("an entry").path();
            if path.is_file() && path.file_name().is_none_or(|n| n != "_dir") {
                found.push(path);
            }
        }
    }
    found.sort();
    found.remove(0)
}

fn with_a_file(bytes: &[u8]) -> Site {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/file"), bytes).expect("a file");
    mount.unmount();
    site
}

#[test]
fn a_wrong_key_is_exit_3() {
    let site = with_a_file(b"x");
    let other = Site::new();
    expect(
        Command::new(runvault()).arg("ls").arg(&site.store).arg("--identity").arg(&other.identity),
        3,
        &["needed"],
    );
}

#[test]
fn stores_that_are_none() {
    let site = Site::uninitialised(&std::env::temp_dir());
    let key = Site::new();
    let ls = |store: &Path| {
        let mut command = key.command(&["ls"]);
        command.arg(store);
        command
    };
    expect(&mut ls(&site.dir().join("missing")), 1, &["missing"]);
    expect(&mut ls(&site.store), 1, &["not a vault"]);
    for (version, says) in [(99, "newer"), (1, "before 1.0")] {
        let text = format!("{{\"magic\":\"runvault\",\"version\":{version},\"vault\":\"00\"}}");
        fs::write(site.store.join("vault.json"), text).expect("a file");
        expect(&mut ls(&site.store), 1, &[&format!("version {version}"), says]);
    }
}

#[test]
fn init_refuses_what_is_not_empty() {
    let site = Site::uninitialised(&std::env::temp_dir());
    fs::write(site.store.join("a-file"), b"").expect("a file");
    let mut init = Command::new(runvault());
    init.args(["init", "--no-lock", "--identity"]).arg(&site.identity).arg(&site.store);
    expect(&mut init, 1, &["not empty"]);
    assert!(!site.identity.exists(), "nothing was made");
    let vault = Site::new();
    let mut again = Command::new(runvault());
    again.args(["init", "--no-lock", "--identity"]).arg(site.dir().join("new.key")).arg(&vault.store);
    expect(&mut again, 1, &["vault"]);
    let mut over = Command::new(runvault());
    fs::remove_file(site.store.join("a-file")).expect("removed");
    over.args(["init", "--no-lock", "--identity"]).arg(&vault.identity).arg(&site.store);
    expect(&mut over, 2, &["exists"]);
}

#[test]
fn mount_points_that_cannot_be() {
    let site = Site::new();
    let mount_at = |store: &Path, at: &Path| {
        let mut command = site.command(&["mount"]);
        command.arg(store).arg(at);
        command
    };
    expect(&mut mount_at(&site.store, &site.dir().join("missing")), 2, &["missing"]);
    let full = site.dir().join("full");
    fs::create_dir(&full).expect("a directory");
    fs::write(full.join("file"), b"").expect("a file");
    expect(&mut mount_at(&site.store, &full), 2, &["not empty"]);
    expect(&mut mount_at(&site.store, &site.store.join("runs")), 2, &["inside the store"]);
    expect(&mut mount_at(&site.store, site.dir()), 2, &["store"]);
    let mount = site.mount();
    expect(&mut mount_at(&site.store, &mount.at), 2, &["mounted"]);
    expect(&mut site.command(&["mount", "-o", "no-such-option", "a", "b"]), 2, &["no-such-option"]);
    let second = site.dir().join("second");
    fs::create_dir(&second).expect("a directory");
    expect(&mut mount_at(&site.store, &second), 5, &[&mount.pid().to_string()]);
    mount.unmount();
}

#[test]
fn passphrase_files_that_are_none() {
    let site = Site::uninitialised(&std::env::temp_dir());
    let file = site.dir().join("passphrase");
    let init = |file: &Path| {
        let mut command = Command::new(runvault());
        command.arg("init").arg(&site.store).arg("--passphrase-file").arg(file);
        command
    };
    let write = |bytes: &[u8], mode: u32| {
        fs::write(&file, bytes).expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    write(b"", 0o600);
    expect(&mut init(&file), 2, &["empty"]);
    expect(&mut init(&site.state), 2, &["directory"]);
    write(&vec![b'x'; (1 << 20) + 1], 0o600);
    expect(&mut init(&file), 2, &["1 MiB"]);
    write(b"correct horse battery staple and more\n", 0o644);
    expect(&mut init(&file), 2, &["644"]);
    assert_eq!(fs::read_dir(&site.store).expect("the store").count(), 0, "nothing was made");
}

fn damaged(site: &Site, what: &str) -> Mount {
    let check = site.command(&["check"]).arg(&site.store).output().expect("check runs");
    assert_eq!(check.status.code(), Some(4), "{what}: {}", printed(&check));
    assert!(!printed(&check).contains("panicked"), "{}", printed(&check));
    site.mount()
}

#[test]
fn a_flipped_bit_is_eio_for_its_chunk_alone() {
    let bytes: Vec<u8> = (0..50_000usize).map(|i| (i % 251) as u8).collect();
    let site = with_a_file(&bytes);
    let file = stored_file(&site);
    let mut stored = fs::read(&file).expect("read");
    // In chunk 2: behind the header (1,024) and two chunks of 8,220 stored bytes.
    stored[1024 + 2 * 8220 + 100] ^= 1;
    fs::write(&file, stored).expect("write");
    let mount = damaged(&site, "a flipped bit");
    let open = fs::File::open(mount.path("run/file")).expect("open");
    for chunk in 0..7u64 {
        let mut piece = vec![0u8; 8192.min(50_000 - chunk as usize * 8192)];
        let read = std::os::unix::fs::FileExt::read_exact_at(&open, &mut piece, chunk * 8192);
        if chunk == 2 {
            assert_eq!(read.expect_err("damaged").raw_os_error(), Some(libc::EIO));
        } else {
            read.unwrap_or_else(|e| panic!("chunk {chunk}: {e}"));
            assert_eq!(piece[..], bytes[chunk as usize * 8192..][..piece.len()]);
        }
    }
    drop(open);
    mount.unmount();
}

/// Samba and `fallocate` give a file its size before its bytes.
#[test]
fn zeros_in_a_file_that_had_its_size_first_are_eio() {
    use std::os::unix::fs::FileExt;
    for (allocate, sync) in [(false, false), (false, true), (true, false), (true, true)] {
        let site = with_a_file(b"");
        let mount = site.mount();
        let file = fs::OpenOptions::new().write(true).open(mount.path("run/file")).expect("open");
        if allocate {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 65_536).expect("room");
        } else {
            file.set_len(65_536).expect("a size");
        }
        file.write_all_at(&[b'x'; 65_536], 0).expect("bytes");
        if sync {
            file.sync_all().expect("a sync");
        }
        drop(file);
        mount.unmount();
        let file = stored_file(&site);
        let mut stored = fs::read(&file).expect("read");
        stored[1024..].fill(0);
        fs::write(&file, stored).expect("write");
        let mount = damaged(&site, "zeroed chunks");
        let read = fs::read(mount.path("run/file")).expect_err("no zeros");
        assert_eq!(read.raw_os_error(), Some(libc::EIO));
        mount.unmount();
    }
}

#[test]
fn a_truncated_file_is_eio() {
    let site = with_a_file(&[7; 50_000]);
    let file = stored_file(&site);
    fs::OpenOptions::new().write(true).open(&file).expect("open").set_len(20_000).expect("cut");
    let mount = damaged(&site, "a truncated file");
    let read = fs::read(mount.path("run/file")).expect_err("cut");
    assert_eq!(read.raw_os_error(), Some(libc::EIO));
    fs::remove_file(mount.path("run/file")).expect("it can be removed");
    fs::write(mount.path("run/file"), b"anew").expect("and written anew");
    mount.unmount();
}

/// A file that had a second name stands under these two and no other.
#[test]
fn a_file_that_was_linked_is_eio_under_a_name_that_it_never_had() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir_all(mount.path("run/sub")).expect("a run");
    fs::write(mount.path("run/a"), b"EVIL\n").expect("a file");
    fs::hard_link(mount.path("run/a"), mount.path("run/b")).expect("a link");
    fs::remove_file(mount.path("run/b")).expect("one name less");
    fs::write(mount.path("run/sub/SampleSheet.csv"), b"sheet\n").expect("a sheet");
    mount.unmount();
    let file = stored_file(&site);
    let tree = file.parent().expect("a tree");
    let sub = fs::read_dir(tree).expect("a tree").map(|e| e.expect("an entry").path()).find(|p| p.is_dir());
    let mut sheet = fs::read_dir(sub.expect("a directory")).expect("it").map(|e| e.expect("an entry").path());
    let sheet = sheet.find(|p| p.file_name().is_some_and(|n| n != "_dir")).expect("the sheet");
    fs::write(sheet, fs::read(&file).expect("read")).expect("write");
    let mount = damaged(&site, "a file under a name that it never had");
    assert_eq!(fs::read(mount.path("run/a")).expect("its own name"), b"EVIL\n");
    let read = fs::read(mount.path("run/sub/SampleSheet.csv")).expect_err("another's name");
    assert_eq!(read.raw_os_error(), Some(libc::EIO));
    mount.unmount();
}

#[test]
fn swapped_files_are_eio() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    for name in ["one", "two"] {
        fs::write(mount.path("run").join(name), name).expect("a file");
    }
    mount.unmount();
    let one = stored_file(&site);
    let dir = one.parent().expect("a tree").to_owned();
    let mut names: Vec<_> =
        fs::read_dir(&dir).expect("a tree").map(|e| e.expect("an entry").path()).collect();
    names.retain(|n| n.is_file() && !n.ends_with("_dir"));
    fs::rename(&names[0], dir.join("x")).expect("swap");
    fs::rename(&names[1], &names[0]).expect("swap");
    fs::rename(dir.join("x"), &names[1]).expect("swap");
    let mount = damaged(&site, "swapped files");
    for name in ["one", "two"] {
        let read = fs::read(mount.path("run").join(name)).expect_err("swapped");
        assert_eq!(read.raw_os_error(), Some(libc::EIO));
    }
    mount.unmount();
}

#[test]
fn planted_links_pipes_and_foreign_names_are_never_followed() {
    let site = with_a_file(b"kept");
    let file = stored_file(&site);
    let dir = file.parent().expect("a tree").to_owned();
    let secret = site.dir().join("outside");
    fs::write(&secret, b"outside the store").expect("a file");
    symlink(&secret, dir.join("planted")).expect("a link");
    fs::write(dir.join("lost+found"), b"foreign").expect("a file");
    fs::write(dir.join(".nfs0001"), b"foreign").expect("a file");
    let mount = site.mount();
    let names: Vec<_> =
        fs::read_dir(mount.path("run")).expect("a run").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(names, ["file"]);
    mount.unmount();
    let check = site.command(&["check"]).arg(&site.store).output().expect("check runs");
    assert_eq!(check.status.code(), Some(4), "{}", printed(&check));
    for name in ["planted", "lost+found", ".nfs0001"] {
        assert!(printed(&check).contains(name), "{name}: {}", printed(&check));
    }
    // A link, a pipe and a device in the place of the file, and the file cut to nothing.
    for (plant, told) in
        [("link", "file: "), ("pipe", "1 fifo"), ("nothing", "1 empty file"), ("device", "1 device")]
    {
        fs::remove_file(&file).expect("removed");
        match plant {
            "link" => symlink(&secret, &file).expect("a link"),
            "pipe" => drop(run(Command::new("mkfifo").arg(&file))),
            "nothing" => fs::write(&file, b"").expect("an empty file"),
            _ if root_for("making a device") => {
                drop(run(Command::new("mknod").arg(&file).args(["c", "1", "5"])))
            }
            _ => continue,
        }
        let check = site.command(&["check"]).arg(&site.store).output().expect("check runs");
        assert!(printed(&check).contains(told), "{plant}: {}", printed(&check));
        let mount = site.mount();
        let read = output(
            Command::new("timeout")
                .args(["10", "cat"])
                .arg(mount.path("run/file"))
                .stdin(std::process::Stdio::null()),
        );
        assert!(!printed(&read).contains("outside the store"), "{plant} was followed");
        // A pipe is shown as one (its reader waits, as for any pipe); it is never opened in the store.
        if plant == "link" || plant == "device" {
            assert_eq!(read.status.code(), Some(1), "{plant}: {}", printed(&read));
        }
        mount.unmount();
    }
}

#[test]
fn a_damaged_run_does_not_hurt_the_others() {
    for damage in ["run.json", "name", "keys"] {
        let site = Site::new();
        let mount = site.mount();
        for name in ["first", "second"] {
            fs::create_dir(mount.path(name)).expect("a run");
            fs::write(mount.path(name).join("file"), name).expect("a file");
        }
        mount.unmount();
        let runs: Vec<PathBuf> = fs::read_dir(site.store.join("runs"))
            .expect("runs")
            .map(|e| e.expect("an entry").path())
            .collect();
        let victim = runs[0].join(damage);
        let victim = if damage == "keys" {
            fs::read_dir(&victim).expect("keys").next().expect("an envelope").expect("an entry").path()
        } else {
            victim
        };
        let mut bytes = fs::read(&victim).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&victim, bytes).expect("write");
        // The gateway would open the run by its own resume key: a reader needs all of it.
        let check = site.command(&["check"]).arg(&site.store).output().expect("check runs");
        assert_eq!(check.status.code(), Some(4), "{damage}: {}", printed(&check));
        let mount = site.mount_read_only();
        let readable = ["first", "second"]
            .iter()
            .filter(|name| fs::read(mount.path(name).join("file")).is_ok_and(|b| b == name.as_bytes()))
            .count();
        assert!(readable >= 1, "{damage}: the other run reads");
        mount.unmount();
    }
}

/// What cannot be shown is said, with its cause: nobody takes the rest for everything.
#[test]
fn runs_that_are_left_out_are_named_by_every_command() {
    let site = Site::new();
    let mount = site.mount();
    for name in ["first", "second", "third"] {
        fs::create_dir(mount.path(name)).expect("a run");
        fs::write(mount.path(name).join("file"), name).expect("a file");
    }
    mount.unmount();
    let mut runs: Vec<PathBuf> =
        fs::read_dir(site.store.join("runs")).expect("runs").map(|e| e.expect("an entry").path()).collect();
    // The newest one is missed by whoever has seen it: no command goes on without it.
    runs.sort_by_key(|run| {
        fs::metadata(run.join("run.json")).and_then(|meta| meta.modified()).expect("a time")
    });
    fs::remove_file(runs[0].join("run.json")).expect("a descriptor");
    fs::remove_file(runs[1].join("keys/vault-1")).expect("an envelope");
    let id = |run: &PathBuf| run.file_name().expect("an id").to_str().expect("hex").to_owned();
    let cause = format!("runs/{}/run.json: it is missing", id(&runs[0]));
    let closed = format!("runs/{}/keys: no envelope to a key of this vault", id(&runs[1]));
    let advice = format!("runvault check {} names", site.store.display());
    let says: &[&str] = &[&cause, &closed, &advice];
    expect(site.command(&["check"]).arg(&site.store), 4, &["2 objects damaged"]);
    let store = |path: &str| format!("{}:{path}", site.store.display());
    let (copy, other) = (site.dir().join("copy"), site.dir().join("other"));
    expect(site.command(&["ls"]).arg(&site.store), 4, says);
    expect(site.command(&["ls"]).arg(&site.store).arg("/no-such-run"), 4, &[&cause, "no such file"]);
    expect(site.command(&["cp", "-r"]).arg(store("/")).arg(&copy), 4, says);
    let left: Vec<_> =
        fs::read_dir(&copy).expect("the copy").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    // Nothing of what was asked for is missing.
    let shown = left[0].to_str().expect("a name");
    let listed = expect(site.command(&["ls"]).arg(&site.store).arg(format!("/{shown}")), 0, &["file"]);
    assert!(listed.stderr.is_empty(), "{}", printed(&listed));
    expect(site.command(&["cp"]).arg(store(&format!("/{shown}/file"))).arg(&other), 0, &[]);
    expect(
        Command::new(runvault()).args(["status", "--state"]).arg(&site.state).arg(&site.store),
        0,
        &[&cause],
    );
    expect(site.command(&["status"]).arg(&site.store), 0, &[&cause, &closed]);
    let json = expect(site.command(&["status", "--json"]).arg(&site.store), 0, &[]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let mut troubles = json["runs"].as_array().expect("runs").iter().map(|run| run["trouble"].as_str());
    assert!(troubles.any(|trouble| trouble == Some(&cause)), "{json}");
    let log = site.dir().join("log");
    let mut mount = site.command(&["mount", "--read-only"]);
    expect(mount.arg("--log").arg(&log).arg(&site.store).arg(&site.at), 0, says);
    expect(Command::new(runvault()).arg("unmount").arg(&site.at), 0, &[]);
    let log = fs::read_to_string(&log).expect("the log");
    for (run, cause) in [(&runs[0], &cause), (&runs[1], &closed)] {
        assert!(log.contains(&format!("warn run {} is left out: {cause}", id(run))), "{log}");
    }
    // This machine holds the second one's key.
    site.mount().unmount();
    let listed = expect(site.command(&["ls"]).arg(&site.store), 4, &[&cause]);
    assert!(!printed(&listed).contains("no envelope"), "{}", printed(&listed));
}

#[test]
fn a_run_made_with_public_keys_alone_is_refused() {
    // A run of another vault stands for one that nobody enrolled has signed.
    let (site, other) = (with_a_file(b"ours"), with_a_file(b"theirs"));
    let foreign =
        fs::read_dir(other.store.join("runs")).expect("runs").next().expect("a run").expect("an entry");
    let to = site.store.join("runs").join(foreign.file_name());
    run(Command::new("cp").arg("-a").arg(foreign.path()).arg(&to));
    let mount = damaged(&site, "a foreign run");
    let names: Vec<_> =
        fs::read_dir(&mount.at).expect("the root").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(names, ["run"]);
    mount.unmount();
}

/// A damaged directory stays in the listing, so that a copy of the tree fails instead of leaving it out.
#[test]
fn a_damaged_directory_is_listed_and_refused() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir_all(mount.path("run/dir")).expect("a run");
    fs::write(mount.path("run/dir/file"), b"x").expect("a file");
    mount.unmount();
    let run =
        fs::read_dir(site.store.join("runs")).expect("runs").next().expect("a run").expect("an entry").path();
    let dir = fs::read_dir(run.join("tree")).expect("a tree").next().expect("dir").expect("an entry").path();
    fs::remove_file(dir.join("_dir")).expect("its record");
    let mount = damaged(&site, "a missing record");
    let names: Vec<_> =
        fs::read_dir(mount.path("run")).expect("a run").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(names, ["dir"]);
    let copied = output(Command::new("cp").arg("-a").arg(mount.path("run")).arg(site.dir().join("copy")));
    assert!(!copied.status.success(), "{}", printed(&copied));
    mount.unmount();
}
