//! A store that somebody else wrote into: each change is refused by its name, the rest is still read.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use runvault_tests::Site;
use runvault_tests::tools::{printed, run};

use crate::{random, try_extract};

/// A vault with one run of three files of 30,000 bytes and a directory, and the directory `tree/` of that run.
fn vault() -> (Site, PathBuf) {
    let site = Site::new();
    let tree = site.dir().join("run");
    fs::create_dir_all(tree.join("folder")).expect("a directory");
    for name in ["first", "second", "folder/third"] {
        fs::write(tree.join(name), random(name.len() as u64).bytes(30_000)).expect("a file");
    }
    let mut target = site.store.clone().into_os_string();
    target.push(":/");
    run(site.command(&["cp", "-r"]).arg(&tree).arg(target));
    let runs: Vec<_> = fs::read_dir(site.store.join("runs")).expect("runs").flatten().collect();
    let tree = runs.iter().map(|run| run.path().join("tree"));
    let tree = tree.max_by_key(|tree| fs::read_dir(tree).map_or(0, Iterator::count)).expect("a run");
    (site, tree)
}

/// Stored files at the top of a tree.
fn stored(tree: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(tree).expect("a tree").flatten().map(|e| e.path()).collect();
    files.retain(|path| path.is_file() && path.metadata().is_ok_and(|m| m.size() > 1024));
    files.sort();
    files
}

/// The refusal is named, and of the three files so many are whole.
fn assert_refused(site: &Site, refusal: &str, whole: usize) {
    let (done, out) = try_extract(site);
    let text = printed(&done);
    assert_eq!(done.status.code(), Some(1), "{text}");
    assert!(text.contains(refusal) && !text.contains("Traceback"), "{text}");
    let read = |name: &str| fs::read(out.join("run").join(name)).unwrap_or_default();
    let names = ["first", "second", "folder/third"];
    let found = names.iter().filter(|name| read(name) == random(name.len() as u64).bytes(30_000)).count();
    assert_eq!(found, whole, "{text}");
}

#[test]
fn a_run_without_an_envelope_is_refused() {
    let (site, tree) = vault();
    fs::remove_file(tree.with_file_name("keys").join("vault-1")).expect("an envelope");
    assert_refused(&site, "no envelope to a key of this vault", 0);
}

#[test]
fn a_changed_chunk_costs_that_chunk() {
    let (site, tree) = vault();
    let file = OpenOptions::new().write(true).open(&stored(&tree)[0]).expect("a file");
    file.write_all_at(b"changed", 1024 + 8220 + 100).expect("written");
    assert_refused(&site, "chunk (chunk 1)", 2);
}

#[test]
fn swapped_files_are_refused() {
    let (site, tree) = vault();
    let [a, b] = <[PathBuf; 2]>::try_from(stored(&tree)).expect("two files");
    fs::rename(&a, tree.join("aside")).expect("renamed");
    fs::rename(&b, &a).expect("renamed");
    fs::rename(tree.join("aside"), &b).expect("renamed");
    assert_refused(&site, "place", 1);
}

#[test]
fn a_header_of_zeros_is_refused() {
    let (site, tree) = vault();
    let file = OpenOptions::new().write(true).open(&stored(&tree)[0]).expect("a file");
    file.write_all_at(&[0; 1024], 0).expect("written");
    assert_refused(&site, "header", 2);
}

#[test]
fn a_directory_without_its_record_is_refused() {
    let (site, tree) = vault();
    let folder =
        fs::read_dir(&tree).expect("a tree").flatten().find(|e| e.path().is_dir()).expect("a folder");
    fs::remove_file(folder.path().join("_dir")).expect("a record");
    assert_refused(&site, "directory-record", 2);
}

#[test]
fn an_unsigned_run_is_refused() {
    let (site, tree) = vault();
    let run = tree.parent().expect("a run").join("run.json");
    let changed = fs::read_to_string(&run).expect("run.json").replacen("\"opened\":\"2", "\"opened\":\"3", 1);
    fs::write(&run, changed).expect("written");
    assert_refused(&site, "signature", 0);
}

#[test]
fn nothing_is_followed_out_of_the_store_and_nothing_special_opened() {
    let (site, tree) = vault();
    let outside = site.dir().join("outside");
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("secret"), b"secret").expect("a file");
    let folder =
        fs::read_dir(&tree).expect("a tree").flatten().find(|e| e.path().is_dir()).expect("a folder");
    fs::remove_dir_all(folder.path()).expect("removed");
    symlink(&outside, folder.path()).expect("a symlink");
    let keys = tree.parent().expect("a run").join("lease");
    let _ = fs::remove_file(&keys);
    run(std::process::Command::new("mkfifo").arg(&keys));
    assert_refused(&site, "foreign-name", 2);
}

/// Any bytes anywhere: a refusal at most, no trace of a crash, no file with content that nobody wrote.
#[test]
fn random_damage_is_refused_and_never_believed() {
    let (site, tree) = vault();
    let mut dice = random(41);
    let mut all = Vec::new();
    files_below(&site.store, &mut all);
    let copies: Vec<_> = all.iter().map(|path| fs::read(path).expect("a file")).collect();
    for _ in 0..12 {
        for _ in 0..3 {
            let victim = dice.below(all.len() as u64) as usize;
            let mut bytes = fs::read(&all[victim]).expect("a file");
            match dice.below(3) {
                0 => bytes.truncate(dice.below(bytes.len() as u64 + 1) as usize),
                1 => bytes.extend(dice.bytes(700)),
                _ => {
                    for _ in 0..4 {
                        let at = dice.below(bytes.len().max(1) as u64) as usize;
                        bytes.get_mut(at).into_iter().for_each(|b| *b = dice.below(256) as u8);
                    }
                }
            }
            fs::write(&all[victim], bytes).expect("written");
        }
        let (done, out) = try_extract(&site);
        let text = printed(&done);
        assert!(!text.contains("Traceback"), "{text}");
        for name in ["first", "second", "folder/third"] {
            let wanted = random(name.len() as u64).bytes(30_000);
            let got = fs::read(out.join("run").join(name)).unwrap_or_default();
            for (got, wanted) in got.chunks(8192).zip(wanted.chunks(8192)) {
                let hole = got.iter().all(|b| *b == 0);
                assert!(wanted.starts_with(got) || hole, "{name} has other bytes\n{text}");
            }
        }
        let _ = fs::remove_dir_all(&out);
        all.iter().zip(&copies).for_each(|(path, bytes)| fs::write(path, bytes).expect("restored"));
    }
    assert!(tree.exists());
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}
