//! A directory goes with all that is in it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use runvault_store::backend::Dir;

use crate::cores;

/// Levels of a run's directory below which nothing is removed: no path of ours is that deep.
const DEPTH: usize = 1 << 16;

/// Removes a directory with all that is in it; nothing where there is none.
///
/// # Errors
/// The store's; ELOOP where it is too deep.
pub fn remove_dir(parent: &dyn Dir, name: &[u8]) -> std::io::Result<()> {
    remove_dir_with(1, parent, name)
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

fn remove_all_with(threads: usize, dir: &Arc<dyn Dir>) -> std::io::Result<()> {
    let mut stack: Vec<(Arc<dyn Dir>, Vec<u8>)> = Vec::new();
    let mut here = dir.clone();
    loop {
        let mut names = Vec::new();
        let top = stack.is_empty();
        here.entries(0, &mut |entry| {
            if !(top && entry.name == b"lease") {
                names.push(entry.name);
            }
            true
        })?;
        match unlink_until_directory(threads, &*here, &names)? {
            Some(name) if stack.len() < DEPTH => {
                let child = here.open_dir(&name)?;
                stack.push((std::mem::replace(&mut here, child), name));
            }
            Some(_) => return Err(std::io::Error::from_raw_os_error(libc::ELOOP)),
            None => match stack.pop() {
                Some((parent, name)) => {
                    parent.remove_dir(&name)?;
                    here = parent;
                }
                None => break,
            },
        }
    }
    match dir.unlink(b"lease") {
        Err(e) if e.raw_os_error() != Some(libc::ENOENT) => Err(e),
        _ => Ok(()),
    }
}

/// Removes what has these names, until a directory is among them, which it gives.
fn unlink_until_directory(
    threads: usize,
    dir: &dyn Dir,
    names: &[Vec<u8>],
) -> std::io::Result<Option<Vec<u8>>> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Ok(None)));
    cores::on(threads.min(names.len()), &|| {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let ended = match dir.unlink(name) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::EISDIR | libc::EPERM)) => {
                    Ok(Some(name.clone()))
                }
                // Someone else removes it too.
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => continue,
                Err(e) => Err(e),
                Ok(()) => continue,
            };
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            if ended.is_err() || found.is_ok() {
                *found = ended;
            }
            return;
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
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
}
