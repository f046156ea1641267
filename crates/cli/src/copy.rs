//! Copying between two trees: contents, holes, hard links, owners, attributes, modes, times. What cannot be
//! copied is named, and does not stop the rest.

mod keep;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use indicatif::ProgressBar;
use runvault_store::backend::Kind;
use serde_json::{Value, json};

use crate::exit::{self, Exit, refuse, refuse_with};
use crate::output;
use crate::trees::{Meta, Sink, Source, Tree, refuse_deep};

use keep::{Firsts, Lost};

const PIECE: usize = 1 << 20;

/// What is copied from where to where.
pub struct Job<'a> {
    pub from: &'a dyn Tree,
    pub source: PathBuf,
    pub to: &'a dyn Tree,
    pub target: PathBuf,
}

/// A copy under way.
pub struct Copy<'a> {
    pub recursive: bool,
    pub force: bool,
    /// Set by Ctrl-C.
    pub stop: Arc<AtomicBool>,
    pub bar: &'a ProgressBar,
    /// Owners and trusted attributes are kept by root alone.
    root: bool,
    piece: Vec<u8>,
    /// Everything but directories.
    copied: u64,
    /// Lengths of the files among them.
    bytes: u64,
    failed: u64,
    lost: Lost,
    firsts: Firsts,
    worst: Exit,
}

impl<'a> Copy<'a> {
    /// Nothing copied yet.
    pub fn new(recursive: bool, force: bool, stop: Arc<AtomicBool>, bar: &'a ProgressBar) -> Self {
        Self {
            recursive,
            force,
            stop,
            bar,
            root: rustix::process::geteuid().is_root(),
            piece: vec![0; PIECE],
            copied: 0,
            bytes: 0,
            failed: 0,
            lost: Lost::default(),
            firsts: Firsts::default(),
            worst: Exit::Done,
        }
    }

    /// Copies one source.
    ///
    /// # Errors
    /// Only what stops everything: interrupted, or a target that takes nothing any more.
    pub fn run(&mut self, job: &Job) -> Result<()> {
        let result = self.any(job, &job.source, &job.target);
        self.note(result)
    }

    /// What was done, for scripts.
    pub fn figures(&self) -> Value {
        json!({
            "copied": self.copied,
            "bytes": self.bytes,
            "not_copied": self.failed,
            "lost": self.lost.figures(),
        })
    }

    /// The outcome of all of it.
    ///
    /// # Errors
    /// Something could not be copied; it was named before.
    pub fn outcome(&self) -> Result<()> {
        let failed =
            (self.failed > 0).then(|| format!("{} not copied", output::count(self.failed, "object")));
        let told: Vec<String> = failed.into_iter().chain(self.lost.told()).collect();
        if told.is_empty() { Ok(()) } else { Err(refuse(self.worst, told.join("; "))) }
    }

    /// A failure of one object is told and counted; one of the whole side goes on up.
    ///
    /// # Errors
    /// As [`Copy::run`].
    pub fn note(&mut self, result: Result<()>) -> Result<()> {
        let Err(error) = result else { return Ok(()) };
        if is_final(&error) {
            return Err(error);
        }
        self.failed += 1;
        self.worsen(&error);
        self.bar.suspend(|| exit::report(&error));
        Ok(())
    }

    fn worsen(&mut self, error: &anyhow::Error) {
        if self.worst != Exit::Damaged {
            self.worst = exit::of(error);
        }
    }

    fn any(&mut self, job: &Job, source: &Path, target: &Path) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        let Some(meta) = job.from.stat(source)? else {
            return Err(refuse(
                Exit::Failed,
                format!("{}: no such file or directory", job.from.shown(source)),
            ));
        };
        match meta.kind {
            Kind::Dir => self.directory(job, source, target, &meta),
            _ => self.object(job, source, target, &meta),
        }
    }

    /// Whatever was there stays until all of the new one is.
    fn object(&mut self, job: &Job, source: &Path, target: &Path, meta: &Meta) -> Result<()> {
        let replaces = self.finds_old(job, source, target, meta)?;
        let place = if replaces { beside(job.to, target)? } else { target.to_owned() };
        if !self.linked(job, source, &place, target, meta)? {
            self.make(job, source, &place, target, meta)?;
        }
        if replaces {
            job.to.rename(&place, target).inspect_err(|_| {
                let _ = job.to.remove(&place);
            })?;
        }
        self.copied += 1;
        self.remember(job, source, target, meta)
    }

    /// At `place`, which is `target` itself or beside it.
    fn make(&mut self, job: &Job, source: &Path, place: &Path, target: &Path, meta: &Meta) -> Result<()> {
        // Further names of it may replace something later.
        let durable = place != target || self.force && meta.nlink > 1;
        match meta.kind {
            Kind::File => self.file(job, source, (place, target), durable)?,
            Kind::Symlink => job.to.make_link(place, &job.from.read_link(source)?)?,
            _ => job.to.make_node(place, meta)?,
        }
        self.finish(job, source, place, meta).inspect_err(|_| {
            let _ = job.to.remove(place);
        })
    }

    fn directory(&mut self, job: &Job, source: &Path, target: &Path, meta: &Meta) -> Result<()> {
        if !self.recursive {
            let what = format!("{}: a directory", job.from.shown(source));
            return Err(refuse_with(Exit::Failed, what, "cp -r copies directories"));
        }
        refuse_deep(job.from, source)?;
        let top = target.as_os_str().is_empty();
        match job.to.stat(target)? {
            _ if top => {}
            None => job.to.make_dir(target)?,
            Some(found) if found.kind == Kind::Dir => {}
            Some(_) => {
                let what = format!("{}: exists and is no directory", job.to.shown(target));
                return Err(refuse(Exit::Failed, what));
            }
        }
        let found = job.from.list(source)?;
        for name in found.names {
            let result = self.any(job, &source.join(&name), &target.join(&name));
            self.note(result)?;
        }
        self.note(found.complete)?;
        // After its entries, which change its times. The top of a vault has its own.
        if top || source.as_os_str().is_empty() { Ok(()) } else { self.finish(job, source, target, meta) }
    }

    fn file(&mut self, job: &Job, source: &Path, at: (&Path, &Path), durable: bool) -> Result<()> {
        let (place, target) = at;
        let before = self.bytes;
        self.bar.set_message(job.from.shown(source));
        let mut from = job.from.open(source)?;
        let to = job.to.create(place)?;
        self.contents(&mut *from, to, durable).map_err(|error| {
            // Half a file under the right name would be taken for the whole.
            let _ = job.to.remove(place);
            self.bytes = before;
            error.context(format!("{} to {}", job.from.shown(source), job.to.shown(target)))
        })
    }

    fn contents(&mut self, from: &mut dyn Source, mut to: Box<dyn Sink + '_>, durable: bool) -> Result<()> {
        let size = from.size()?;
        let mut end = 0u64;
        while let Some(range) = from.next_data(end)? {
            end = range.start;
            while end < range.end {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Interrupted.into());
                }
                let want = usize::try_from(range.end - end).map_or(PIECE, |left| left.min(PIECE));
                let piece = self.piece.get_mut(..want).unwrap_or_default();
                let n = from.read(end, piece)?;
                if n == 0 {
                    break;
                }
                to.write(end, piece.get(..n).unwrap_or_default())?;
                end = end.saturating_add(n as u64);
                self.bar.inc(n as u64);
            }
            if end < range.end {
                // Cut short while it was read: what is there was copied.
                self.bytes = self.bytes.saturating_add(end);
                return to.close(end, durable);
            }
        }
        // A hole at the end, unless the file grows or shrinks meanwhile: zeros that nobody wrote are no copy.
        let size = from.size()?.min(size).max(end);
        self.bytes = self.bytes.saturating_add(size);
        to.close(size, durable)
    }

    /// Whether there is a file to overwrite: only when told to, and never through what is no file.
    fn finds_old(&self, job: &Job, source: &Path, target: &Path, meta: &Meta) -> Result<bool> {
        let Some(found) = job.to.stat(target)? else { return Ok(false) };
        let name = job.to.shown(target);
        if found.object == meta.object {
            let what = format!("{} and {name} are the same file", job.from.shown(source));
            return Err(refuse(Exit::Usage, what));
        }
        if found.kind == Kind::Dir {
            return Err(refuse(Exit::Failed, format!("{name}: a directory is there")));
        }
        if !matches!(found.kind, Kind::File | Kind::Symlink) && found.kind != meta.kind {
            return Err(refuse(Exit::Failed, format!("{name}: exists and is no file")));
        }
        if !self.force {
            let way_out = match job.to.is_in_sealed_run(target)? {
                true => {
                    "what is sealed stays as it is: copy under another name; --force overwrites only what was added since"
                }
                false => "cp --force overwrites",
            };
            return Err(refuse_with(Exit::Failed, format!("{name}: exists"), way_out));
        }
        Ok(true)
    }
}

/// A free name in the same directory.
fn beside(tree: &dyn Tree, target: &Path) -> Result<PathBuf> {
    let mut n = 0u32;
    loop {
        let place = target.with_file_name(format!(".runvault-cp-{}-{n}", std::process::id()));
        if tree.stat(&place)?.is_none() {
            return Ok(place);
        }
        n = n.saturating_add(1);
    }
}

/// Bytes below a path that are read, for the progress bar; what cannot be read counts nothing.
pub fn bytes_below(tree: &dyn Tree, path: &Path, recursive: bool) -> u64 {
    let Ok(Some(meta)) = tree.stat(path) else { return 0 };
    match meta.kind {
        Kind::File => data_of(tree, path, &meta),
        Kind::Dir if recursive && refuse_deep(tree, path).is_ok() => {
            let names = tree.list(path).map_or_else(|_| Vec::new(), |found| found.names);
            names.iter().map(|name| bytes_below(tree, &path.join(name), true)).fold(0, u64::saturating_add)
        }
        _ => 0,
    }
}

/// Bytes of a file without its holes.
fn data_of(tree: &dyn Tree, path: &Path, meta: &Meta) -> u64 {
    // Few files have any; only what may is opened.
    if meta.blocks.saturating_mul(512) >= meta.size {
        return meta.size;
    }
    let Ok(mut file) = tree.open(path) else { return 0 };
    let (mut bytes, mut end) = (0u64, 0u64);
    while let Ok(Some(range)) = file.next_data(end)
        && range.end > end
    {
        bytes = bytes.saturating_add(range.end.saturating_sub(range.start));
        end = range.end;
    }
    bytes
}

/// Ctrl-C, SIGTERM or SIGHUP.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; what was copied so far is whole")]
struct Interrupted;

/// Whether nothing more can succeed on the side that is written.
fn is_final(error: &anyhow::Error) -> bool {
    let full = |errno: Option<i32>| matches!(errno, Some(libc::ENOSPC | libc::EDQUOT | libc::EROFS));
    error.chain().any(|cause| {
        if let Some(vault) = cause.downcast_ref::<runvault_vault::Error>() {
            return match vault {
                runvault_vault::Error::Closed | runvault_vault::Error::Deleted => true,
                runvault_vault::Error::Store { source, .. } => full(source.raw_os_error()),
                _ => false,
            };
        }
        cause.is::<Interrupted>()
            || cause.downcast_ref::<std::io::Error>().is_some_and(|e| full(e.raw_os_error()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trees::Local;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn copy(from: &Path, to: &Path, recursive: bool, force: bool) -> Result<()> {
        let bar = ProgressBar::hidden();
        let mut copy = Copy::new(recursive, force, Arc::default(), &bar);
        copy.run(&Job { from: &Local, source: from.to_owned(), to: &Local, target: to.to_owned() })?;
        copy.outcome()
    }

    #[test]
    fn modes_times_holes_and_links_come_along() {
        let tmp = tempfile::tempdir().unwrap();
        let (from, to) = (tmp.path().join("from"), tmp.path().join("to"));
        fs::create_dir_all(from.join("d")).unwrap();
        let sparse = fs::File::create(from.join("d/sparse")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 8 << 20).unwrap();
        sparse.set_len(16 << 20).unwrap();
        sparse.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1000, 5)).unwrap();
        fs::set_permissions(from.join("d/sparse"), fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("nowhere", from.join("link")).unwrap();
        copy(&from, &to, true, false).unwrap();
        let meta = fs::metadata(to.join("d/sparse")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o640, 1000, 5));
        assert_eq!(meta.len(), 16 << 20);
        assert!(meta.blocks() * 512 < 1 << 20, "holes stay holes");
        assert_eq!(fs::read(to.join("d/sparse")).unwrap(), fs::read(from.join("d/sparse")).unwrap());
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("nowhere"));
    }

    #[test]
    fn files_are_overwritten_only_by_force_and_directories_only_with_r() {
        let tmp = tempfile::tempdir().unwrap();
        let (from, to) = (tmp.path().join("from"), tmp.path().join("to"));
        fs::write(&from, b"new").unwrap();
        fs::write(&to, b"old").unwrap();
        assert!(copy(&from, &to, false, false).is_err());
        assert_eq!(fs::read(&to).unwrap(), b"old");
        copy(&from, &to, false, true).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert!(copy(tmp.path(), &tmp.path().join("other"), false, false).is_err());
        assert!(!tmp.path().join("other").exists());
    }
}
