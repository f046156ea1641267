//! A directory of many names: 100,000, or RUNVAULT_MANY_NAMES. The engine's tests have one of 500,000.

use std::collections::HashSet;
use std::fs::{self, File};
use std::time::Instant;

use runvault_tests::Site;
use rustix::fs::Dir;

/// The names of a directory with what seekdir(3) takes to what follows each, from `offset` on.
fn listed(dir: &File, offset: Option<i64>, most: usize) -> Vec<(String, i64)> {
    let mut stream = Dir::read_from(dir).expect("a stream");
    match offset {
        Some(offset) => stream.seek(offset).expect("seekdir"),
        None => stream.rewind(),
    }
    let entries = stream.map(|entry| entry.expect("an entry"));
    let all = entries.map(|e| (e.file_name().to_str().expect("UTF-8").to_owned(), e.offset()));
    all.filter(|(name, _)| !name.starts_with('.')).take(most).collect()
}

#[test]
fn a_directory_of_many_names_is_listed_whole_and_by_offset() {
    let many = std::env::var("RUNVAULT_MANY_NAMES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000usize);
    let site = Site::in_memory();
    let mount = site.mount();
    let at = mount.path("run/many");
    fs::create_dir_all(&at).expect("directories");
    let begin = Instant::now();
    let took = |what: &str| println!("{many} names, {what} after {:.1} s", begin.elapsed().as_secs_f64());
    for n in 0..many {
        File::create(at.join(format!("s_1_{n}.bcl"))).expect("a file");
    }
    took("made");
    let dir = File::open(&at).expect("a directory");
    let all = listed(&dir, None, usize::MAX);
    took("listed");
    let names: HashSet<_> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((all.len(), names.len()), (many, many), "each name once");
    for i in (0..many - 3).step_by(many / 50) {
        assert_eq!(listed(&dir, Some(all[i].1), 3), all[i + 1..i + 4], "behind entry {i}");
    }
    // Names that go leave the offsets of the others as they were.
    for (name, _) in all.iter().step_by(2) {
        fs::remove_file(at.join(name)).expect("removed");
    }
    let left: Vec<_> = all.iter().skip(1).step_by(2).map(|(name, _)| name).collect();
    let half = many / 2;
    let now = |offset| listed(&dir, offset, usize::MAX).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert!(
        now(Some(all[half].1)).iter().eq(left[half.div_ceil(2)..].iter().copied()),
        "behind entry {half}"
    );
    assert!(now(None).iter().eq(left.iter().copied()), "the rest");
    took("half removed");
    let peak = mount.peak_memory();
    assert!(peak < (256 << 20) + 120 * many as u64, "{} MiB for {many} names", peak >> 20);
    drop(dir);
    let again = {
        mount.unmount();
        site.mount()
    };
    assert_eq!(fs::read_dir(again.path("run/many")).expect("a listing").count(), left.len());
    fs::remove_dir_all(again.path("run/many")).expect("removed");
    took("all removed");
    assert_eq!(fs::read_dir(again.path("run")).expect("a listing").count(), 0);
    again.unmount();
}
