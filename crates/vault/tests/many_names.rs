//! A directory of 500,000 names in the engine, on a store in memory: listed whole, from anywhere, and while it shrinks.

use std::time::Instant;

use crate::common::{CALLER, Fixture, Mount, WRITE};
use runvault_vault::api::Ino;

const NAMES: usize = 500_000;

/// At most `most` names behind `cookie`, each with the cookie of what follows it.
fn page(vault: &Mount, handle: u64, cookie: u64, most: usize) -> Vec<(String, u64)> {
    let mut page = Vec::new();
    vault
        .readdir(handle, cookie, false, &mut |entry| {
            let room = page.len() < most;
            if room {
                page.push((String::from_utf8(entry.name.clone()).unwrap(), entry.next));
            }
            room
        })
        .unwrap();
    page
}

/// All names behind `cookie`, without the dots; page by page, as a kernel asks.
fn all(vault: &Mount, handle: u64, mut cookie: u64) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    loop {
        let mut next = page(vault, handle, cookie, 1000);
        let Some((_, last)) = next.last() else { return found };
        cookie = *last;
        next.retain(|(name, _)| !name.starts_with('.'));
        found.extend(next);
    }
}

fn make(vault: &Mount, dir: Ino) {
    for n in 0..NAMES {
        let (attr, opened) =
            vault.create(&CALLER, dir, format!("s_1_{n}.bcl").as_bytes(), 0o644, WRITE).unwrap();
        vault.release(opened.handle).unwrap();
        vault.forget(attr.ino, 1);
    }
}

#[test]
fn a_directory_of_500_000_names_is_listed_whole_and_from_anywhere() {
    let store = tempfile::tempdir_in("/dev/shm").unwrap();
    let fixture = Fixture::on(runvault_store::posix::open_root(store.path()).unwrap());
    let begin = Instant::now();
    let took = |what: &str| println!("{NAMES} names, {what} after {:.1} s", begin.elapsed().as_secs_f64());
    let vault = fixture.writer();
    vault.make_dir("run").unwrap();
    let dir = vault.make_dir("run/many").unwrap().ino;
    make(&vault, dir);
    took("made");

    let handle = vault.opendir(dir).unwrap();
    let listed = all(&vault, handle, 0);
    let mut names: Vec<_> = listed.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!((listed.len(), names.len()), (NAMES, NAMES), "each name once");
    for i in (0..NAMES - 3).step_by(NAMES / 100) {
        assert_eq!(page(&vault, handle, listed[i].1, 3), listed[i + 1..i + 4], "behind entry {i}");
    }
    took("listed");

    // Names that go leave a listing of the others, from a cookie of before, as it was.
    for (name, _) in listed.iter().step_by(2) {
        vault.unlink(dir, name.as_bytes()).unwrap();
    }
    let left: Vec<_> = listed.iter().skip(1).step_by(2).map(|(name, _)| name).collect();
    let shown = |cookie| all(&vault, handle, cookie).into_iter().map(|(name, _)| name);
    assert!(shown(0).eq(left.iter().copied().cloned()), "the rest");
    assert!(shown(listed[NAMES / 2].1).eq(left[NAMES / 4..].iter().copied().cloned()), "from the middle");
    vault.releasedir(handle).unwrap();
    took("half removed");
    vault.close().unwrap();
    drop(vault);

    let vault = fixture.writer();
    let dir = vault.ino("run/many").unwrap();
    let handle = vault.opendir(dir).unwrap();
    let again = all(&vault, handle, 0);
    assert_eq!(again.len(), left.len());
    for (name, _) in &again {
        vault.unlink(dir, name.as_bytes()).unwrap();
    }
    vault.releasedir(handle).unwrap();
    vault.remove_dir("run/many").unwrap();
    took("all removed");
    vault.close().unwrap();
}
