//! A directory goes with all that is in it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use runvault_store::backend::Dir;

use crate::cores;
use crate::lease::NAME as LEASE;

/// Levels of a run's directory below which nothing is removed: no path of ours is that deep.
const DEPTH: usize = 1 << 16;

/// Removes a directory with all that is in it; nothing where there is none.
///
/// # Errors
/// The store's; ELOOP where it is too deep.
pub fn remove_dir(parent: &dyn Dir, name: &[u8]) -> std::io::Result<()> {
    remove_dir_with(1, parent, name)
}

/// Removes whatever has that name, a directory with all that is in it; nothing where there is none.
///
/// # Errors
/// As of [`remove_dir`].
pub fn remove(parent: &dyn Dir, name: &[u8]) -> std::io::Result<()> {
    match unlink(parent, name)? {
        Unlinked::Gone => Ok(()),
        Unlinked::Directory => remove_dir(parent, name),
    }
}

/// [`remove_dir`], by so many threads: to remove a file takes as long as it is large.
///
/// # Errors
/// As of [`remove_dir`].
pub(crate) fn remove_dir_with(threads: usize, parent: &dyn Dir, name: &[u8]) -> std::io::Result<()> {
    match parent.open_dir(name) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        opened => {
            remove_all_with(threads, &opened?)?;
            parent.remove_dir(name)
        }
    }
}

/// Empties a directory, following nothing. The lease goes last: it says whose leftovers these are.
pub(crate) fn remove_all(dir: &Arc<dyn Dir>) -> std::io::Result<()> {
    remove_all_with(1, dir)
}

/// A directory with the names of those in it that are still to go.
struct Level {
    dir: Arc<dyn Dir>,
    below: Vec<Vec<u8>>,
}

fn remove_all_with(threads: usize, dir: &Arc<dyn Dir>) -> std::io::Result<()> {
    let mut stack: Vec<(Level, Vec<u8>)> = Vec::new();
    let mut here = Level { dir: dir.clone(), below: unlink_in(threads, &**dir, Some(LEASE))? };
    loop {
        match here.below.pop() {
            Some(name) if stack.len() < DEPTH => {
                let child = here.dir.open_dir(&name)?;
                let below = unlink_in(threads, &*child, None)?;
                stack.push((std::mem::replace(&mut here, Level { dir: child, below }), name));
            }
            Some(_) => return Err(std::io::Error::from_raw_os_error(libc::ELOOP)),
            None => match stack.pop() {
                Some((parent, name)) => {
                    parent.dir.remove_dir(&name)?;
                    here = parent;
                }
                // A directory of that name is none of ours.
                None if unlink(&**dir, LEASE)? == Unlinked::Directory => here.below.push(LEASE.to_vec()),
                None => return Ok(()),
            },
        }
    }
}

/// Removes what is in a directory, but for `kept` and for directories, whose names it gives.
fn unlink_in(threads: usize, dir: &dyn Dir, kept: Option<&[u8]>) -> std::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    dir.entries(0, &mut |entry| {
        if kept != Some(&entry.name) {
            names.push(entry.name);
        }
        true
    })?;
    let (next, below) = (AtomicUsize::new(0), Mutex::new(Ok(Vec::new())));
    cores::on(threads.min(names.len()), &|| {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let ended = unlink(dir, name);
            if matches!(ended, Ok(Unlinked::Gone)) {
                continue;
            }
            let mut below = below.lock().unwrap_or_else(PoisonError::into_inner);
            match (ended, &mut *below) {
                (Ok(_), Ok(below)) => below.push(name.clone()),
                (Err(e), Ok(_)) => *below = Err(e),
                (_, Err(_)) => {}
            }
            if below.is_err() {
                return;
            }
        }
    });
    below.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[derive(PartialEq, Eq)]
enum Unlinked {
    Gone,
    /// That stays.
    Directory,
}

fn unlink(dir: &dyn Dir, name: &[u8]) -> std::io::Result<Unlinked> {
    match dir.unlink(name) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EISDIR | libc::EPERM)) => Ok(Unlinked::Directory),
        // Someone else removes it too.
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(Unlinked::Gone),
        unlinked => unlinked.map(|()| Unlinked::Gone),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runvault_store::doubles::delaying::Delays;
    use runvault_store::doubles::observe::Op;

    use super::*;

    #[test]
    fn several_threads_remove_files_and_directories_and_follow_nothing() {
        let place = tempfile::tempdir().unwrap();
        let (gone, kept) = (place.path().join("gone"), place.path().join("kept"));
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "kept").unwrap();
        for below in ["", "a", "a/b", "c"] {
            let dir = gone.join(below);
            std::fs::create_dir_all(&dir).unwrap();
            std::os::unix::fs::symlink(&kept, dir.join("link")).unwrap();
            (0..20).for_each(|i| std::fs::write(dir.join(i.to_string()), "gone").unwrap());
        }
        let root = runvault_store::posix::open_root(place.path()).unwrap();
        remove_dir_with(4, &*root, b"gone").unwrap();
        remove_dir_with(4, &*root, b"gone").unwrap();
        assert!(!gone.exists());
        assert_eq!(std::fs::read_to_string(kept.join("file")).unwrap(), "kept");
    }

    #[test]
    fn a_directory_is_listed_once_however_many_are_in_it() {
        let place = tempfile::tempdir().unwrap();
        (0..300).for_each(|i| std::fs::create_dir_all(place.path().join(format!("gone/{i}/below"))).unwrap());
        let root = runvault_store::posix::open_root(place.path()).unwrap();
        let (root, counts) = Delays::over(root, Duration::ZERO).unwrap();
        remove_dir_with(2, &*root, b"gone").unwrap();
        assert!(!place.path().join("gone").exists());
        assert_eq!(counts.count(Op::Entries), 601);
    }

    /// Whoever has the disk makes it one, and another one in that.
    #[test]
    fn a_lease_that_is_a_directory_goes_too() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(place.path().join("gone/lease/lease/lease")).unwrap();
        std::fs::write(place.path().join("gone/lease/lease/file"), "gone").unwrap();
        let root = runvault_store::posix::open_root(place.path()).unwrap();
        remove_dir(&*root, b"gone").unwrap();
        assert!(!place.path().join("gone").exists());
    }
}
