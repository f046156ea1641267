//! What went in through a mount or through `cp` comes out of the store without runvault.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use runvault_tests::Site;
use runvault_tests::making::{CHUNK, attributes, attributes_of, full_tree, plain_tree};
use runvault_tests::snapshot::{assert_same, is_one_file, snapshot};
use runvault_tests::tools::{output, printed, run};

use crate::{extract, python, random};

#[test]
fn a_tree_written_through_a_mount_is_read_without_runvault() {
    let site = Site::new();
    let mount = site.mount();
    for (name, seed) in [("240101_A00001_0001_AHXXXXXXXX", 11), ("a second run", 12)] {
        full_tree(&mount.path(name), &mut random(seed));
    }
    fs::write(mount.path("beside the runs"), b"of the loose run").expect("a file");
    let before = snapshot(&mount.at, true);
    mount.unmount();

    let out = extract(&site);
    assert_same(&before, &snapshot(&out, true), "extracted");
    let run = out.join("a second run");
    assert!(is_one_file(&run.join("second name"), &run.join("empty/third name")));
    let mut wanted = attributes();
    wanted.sort();
    for path in [run.join("of 8192 bytes"), run.join("of 0 bytes"), run.join("empty"), run.clone()] {
        assert_eq!(attributes_of(&path), wanted, "{}", path.display());
    }
    assert_eq!(attributes_of(&run.join("of 1 bytes")), []);
}

#[test]
fn a_tree_that_cp_wrote_is_read_without_runvault() {
    let site = Site::new();
    let tree = site.dir().join("a run");
    plain_tree(&tree, &mut random(21));
    let mut target = site.store.clone().into_os_string();
    target.push(":/");
    run(site.command(&["cp", "-r"]).arg(&tree).arg(target));
    assert_same(&snapshot(&tree, true), &snapshot(&extract(&site).join("a run"), true), "extracted");
}

#[test]
fn a_locked_vault_opens_with_its_passphrase_and_no_other() {
    let site = Site::uninitialised(&std::env::temp_dir());
    let passphrase = site.dir().join("passphrase");
    // As an editor of Windows ends its lines.
    let words = "correct horse battery ".repeat(300);
    fs::write(&passphrase, format!("{words}\r\nsecond line\r\n")).expect("a passphrase");
    fs::set_permissions(&passphrase, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
    let made = run(std::process::Command::new(runvault_tests::tools::runvault())
        .args(["init", "--passphrase-file"])
        .arg(&passphrase)
        .arg(&site.store));
    let list = |passphrase: &Path| {
        output(python("reader.py").arg("--passphrase-file").arg(passphrase).arg(&site.store).arg("list"))
    };
    let listed = list(&passphrase);
    assert!(listed.status.success(), "{}", printed(&listed));
    let id = printed(&listed).split([' ', ',']).nth(1).expect("a vault id").to_owned();
    assert!(printed(&made).contains(&id), "init printed another fingerprint:\n{}", printed(&made));
    fs::write(&passphrase, &words[1..]).expect("a passphrase");
    let refused = list(&passphrase);
    assert!(printed(&refused).contains("not-authentic"), "{}", printed(&refused));
}

#[test]
fn runs_of_every_vault_key_are_read_after_rotations() {
    let site = Site::new();
    let trees = ["one", "two", "three"].map(|name| site.dir().join(name));
    let mut target = site.store.clone().into_os_string();
    target.push(":/");
    for (i, tree) in trees.iter().enumerate() {
        fs::create_dir(tree).expect("a directory");
        fs::write(tree.join("file"), random(51 + i as u64).bytes(20_000)).expect("a file");
        run(site.command(&["cp", "-r"]).arg(tree).arg(&target));
        run(site.command(&["custody", "rotate"]).arg(&site.store));
    }
    // As an executor leaves it that was stopped for long: what it lacks is in the files line-<n>.
    let log = site.store.join("custody/audit.log");
    let text = fs::read_to_string(&log).expect("the log");
    fs::write(&log, text.split_inclusive('\n').take(2).collect::<String>()).expect("an older log");
    let out = extract(&site);
    for tree in &trees {
        let name = tree.file_name().expect("a name");
        assert_same(&snapshot(tree, true), &snapshot(&out.join(name), true), "extracted");
    }
}

/// A killed mount leaves its journal behind. A reader does not replay it: each chunk is as some fsync left it.
#[test]
fn a_store_with_an_unclean_end_is_read_as_it_lies() {
    let site = Site::new();
    let mount = site.mount();
    let run = mount.path("run");
    fs::create_dir(&run).expect("a run");
    let mut random = random(31);
    let mut versions = Vec::new();
    for i in 0..6 {
        let file = File::create(run.join(format!("file {i}"))).expect("a file");
        versions.push((file, vec![random.some(12 * CHUNK as u64)]));
    }
    for (file, contents) in &versions {
        file.write_all_at(&contents[0], 0).expect("written");
        file.sync_all().expect("synced");
    }
    File::open(&run).and_then(|dir| dir.sync_all()).expect("synced");
    for (file, contents) in &mut versions {
        for _ in 0..4 {
            let mut next = contents.last().expect("a version").clone();
            let at = random.below(next.len() as u64 + 1) as usize;
            let piece = random.some(10_000);
            next.resize(next.len().max(at + piece.len()), 0);
            next[at..at + piece.len()].copy_from_slice(&piece);
            file.write_all_at(&piece, at as u64).expect("written");
            file.sync_all().expect("synced");
            contents.push(next);
        }
    }
    mount.kill();
    assert!(has_journal(&site), "the mount left no journal: the case is not tested");

    let out = extract(&site).join("run");
    for (i, (_, contents)) in versions.iter().enumerate() {
        let read = fs::read(out.join(format!("file {i}"))).expect("a file");
        let sizes: Vec<_> = contents.iter().map(Vec::len).collect();
        assert!(
            (sizes[0]..=*sizes.last().expect("a size")).contains(&read.len()),
            "file {i}: {} bytes of {sizes:?}",
            read.len()
        );
        for (n, chunk) in read.chunks(CHUNK).enumerate() {
            let known = contents.iter().any(|c| c.get(n * CHUNK..).is_some_and(|c| c.starts_with(chunk)));
            assert!(known, "file {i}: chunk {n} was never written like this");
        }
    }
}

fn has_journal(site: &Site) -> bool {
    let runs = fs::read_dir(site.store.join("runs")).expect("runs");
    runs.flatten().any(|run| run.path().join("journal/0").exists())
}

/// Readers leave alone what is not runvault's, and say how much that was.
#[test]
fn foreign_names_are_left_out_and_counted() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/file"), b"content").expect("a file");
    mount.unmount();
    for run in fs::read_dir(site.store.join("runs")).expect("runs").flatten() {
        fs::write(run.path().join("tree/.nfs0001"), b"").expect("a foreign file");
    }
    OpenOptions::new().create_new(true).write(true).open(site.store.join("runs/lost+found")).expect("a file");
    let mut reader = python("reader.py");
    let out = site.dir().join("extracted");
    let done = output(reader.arg("--identity").arg(&site.identity).arg(&site.store).arg("extract").arg(&out));
    assert!(done.status.success(), "{}", printed(&done));
    assert!(printed(&done).contains("2 foreign names left out"), "{}", printed(&done));
    assert_eq!(fs::read(out.join("run/file")).expect("a file"), b"content");
}
