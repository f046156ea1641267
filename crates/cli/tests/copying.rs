//! `cp`: what it overwrites is whole until it is replaced.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::common::{self, Scratch};

const KEY: [&str; 2] = ["--identity", "owner.key"];

fn run(scratch: &Scratch, args: &[&str]) -> common::Outcome {
    scratch.run(&[args, &KEY].concat())
}

/// A vault with one file, `run/file`; where that is stored.
fn with_a_file(scratch: &Scratch, name: &str, bytes: &[u8]) -> PathBuf {
    let store = scratch.vault();
    fs::write(scratch.folder("run").join(name), bytes).expect("a file");
    run(scratch, &["cp", "-r", "run", "store:/"]).done();
    stored_file(&store)
}

/// The greatest file of the trees, which is the one that has contents.
fn stored_file(store: &Path) -> PathBuf {
    let runs = fs::read_dir(store.join("runs")).expect("runs");
    let trees = runs.filter_map(|run| fs::read_dir(run.expect("an entry").path().join("tree")).ok());
    let files = trees.flatten().map(|file| file.expect("an entry").path()).filter(|path| path.is_file());
    files.max_by_key(|path| path.metadata().expect("its size").len()).expect("a file")
}

fn damage(stored: &Path) {
    let file = File::options().read(true).write(true).open(stored).expect("the stored file");
    let at = file.metadata().expect("its size").len() - 20;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], at).expect("another byte");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect()
}

#[test]
fn nothing_is_copied_onto_itself() {
    let scratch = Scratch::new();
    with_a_file(&scratch, "file", b"whole");
    for target in ["store:/run/file", "store:/run", "store:/run/"] {
        run(&scratch, &["cp", "--force", "store:/run/file", target]).refused(2, "the same");
    }
    run(&scratch, &["cp", "-r", "--force", "store:/run", "store:/"]).refused(2, "the same");
    run(&scratch, &["cp", "-r", "store:/run", "store:/run"]).refused(2, "inside it");
    assert_eq!(run(&scratch, &["cat", "store", "run/file"]).done().stdout, b"whole");
}

#[test]
fn cat_follows_no_link_and_says_where_it_leads() {
    let scratch = Scratch::new();
    scratch.vault();
    std::os::unix::fs::symlink("a.txt", scratch.folder("run").join("link")).expect("a link");
    run(&scratch, &["cp", "-r", "run", "store:/"]).done();
    run(&scratch, &["cat", "store", "run/link"]).refused(1, "a symlink to a.txt; name the file itself");
}

#[test]
fn a_copy_that_fails_leaves_the_old_file_here() {
    let scratch = Scratch::new();
    damage(&with_a_file(&scratch, "file", &[7; 5000]));
    let target = scratch.folder("here").join("file");
    fs::write(&target, b"old").expect("a file");
    assert_eq!(run(&scratch, &["cp", "--force", "store:/run/file", "here"]).code, 4);
    assert_eq!(fs::read(&target).expect("the old file"), b"old");
    assert_eq!(names(&scratch.path("here")), ["file"]);
}

#[test]
fn a_copy_that_fails_leaves_the_old_file_in_the_vault() {
    let scratch = Scratch::new();
    damage(&with_a_file(&scratch, "file", &[7; 5000]));
    fs::write(scratch.path("other"), b"old").expect("a file");
    run(&scratch, &["cp", "other", "store:/run"]).done();
    assert_eq!(run(&scratch, &["cp", "--force", "store:/run/file", "store:/run/other"]).code, 4);
    assert_eq!(run(&scratch, &["cat", "store", "run/other"]).done().stdout, b"old");
    assert_eq!(run(&scratch, &["ls", "store", "run"]).done().out(), "file\nother\n");
    fs::write(scratch.path("other"), b"new").expect("a file");
    run(&scratch, &["cp", "--force", "other", "store:/run"]).done();
    assert_eq!(run(&scratch, &["cat", "store", "run/other"]).done().stdout, b"new");
}

#[test]
fn names_that_do_not_authenticate_are_counted() {
    let scratch = Scratch::new();
    let long = "n".repeat(250);
    let stored = with_a_file(&scratch, &long, b"contents");
    fs::write(scratch.path("other"), b"seen").expect("a file");
    run(&scratch, &["cp", "other", "store:/run"]).done();
    let tree = stored.parent().expect("a tree");
    let side = names(tree).into_iter().find(|name| name.ends_with(".name")).expect("a side file");
    fs::write(tree.join(side), [0; 200]).expect("damage");
    let listed = run(&scratch, &["ls", "store", "run"]);
    assert_eq!(listed.refused(4, "1 name").out(), "other\n");
    run(&scratch, &["ls", "-R", "store"]).refused(4, "1 name");
    run(&scratch, &["cp", "-r", "store:/run", "out"]).refused(4, "1 name");
    assert_eq!(names(&scratch.path("out")), ["other"]);
}

#[test]
fn what_a_target_does_not_take_is_named_and_stops_nothing() {
    let scratch = Scratch::new();
    scratch.vault();
    for name in ["one", "two"] {
        fs::write(scratch.folder(name).join("own"), name).expect("a file");
    }
    fs::write(scratch.path("one/first"), b"both").expect("a file");
    fs::hard_link(scratch.path("one/first"), scratch.path("two/second")).expect("a further name");
    let copied = run(&scratch, &["cp", "-r", "one", "two", "store:/"]);
    // A hard link does not lead from one run to another.
    let told = copied.refused(1, "hard links of 1 object not kept");
    assert!(told.stderr.contains("store:/two/second"), "{}", told.stderr);
    for (path, text) in [("one/first", "both"), ("two/second", "both"), ("two/own", "two")] {
        assert_eq!(run(&scratch, &["cat", "store", path]).done().out(), text);
    }
}

#[test]
fn a_store_that_links_one_file_under_the_name_of_another_deceives_no_copy() {
    let scratch = Scratch::new();
    let stored = with_a_file(&scratch, "genuine", &[7; 5000]);
    fs::write(scratch.path("other"), b"other contents").expect("a file");
    run(&scratch, &["cp", "other", "store:/run"]).done();
    let tree = stored.parent().expect("a tree");
    let files = names(tree).into_iter().map(|name| tree.join(name));
    let other =
        files.filter(|path| *path != stored).min_by_key(|path| path.metadata().expect("its size").len());
    let other = other.expect("the other file");
    fs::remove_file(&other).expect("removed");
    fs::hard_link(&stored, &other).expect("another name");
    for (from, to) in [("store:/run", "out"), ("store:/run", "store:/again")] {
        run(&scratch, &["cp", "-r", from, to]).refused(4, "1 object not copied");
    }
    assert_eq!(names(&scratch.path("out")), ["genuine"]);
    assert_eq!(run(&scratch, &["ls", "store", "again"]).done().out(), "genuine\n");
}
