//! `--metrics unix:PATH`: whoever connects is given the text as it was written last, and the end of the file.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::control::in_folder;

/// How long one that does not read keeps the others waiting: the text fits into what the kernel keeps for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Gone when this is dropped.
pub struct Socket {
    path: PathBuf,
    text: Arc<Mutex<Arc<str>>>,
}

impl Socket {
    /// Listens, in a thread of its own; for every user of the machine, as the file is.
    ///
    /// # Errors
    /// The path is taken, or cannot be made.
    pub fn at(path: PathBuf) -> Result<Socket> {
        let named = || format!("--metrics unix:{}", path.display());
        if is_dead(&path) {
            std::fs::remove_file(&path).with_context(named)?;
        }
        let listener = in_folder(&path, UnixListener::bind).with_context(named)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).with_context(named)?;
        let text = Arc::new(Mutex::new(Arc::from("")));
        let shared = Arc::clone(&text);
        Builder::new().name("metrics".into()).spawn(move || {
            for peer in listener.incoming().flatten() {
                let text = Arc::clone(&shared.lock().unwrap_or_else(PoisonError::into_inner));
                tell(peer, &text);
            }
        })?;
        Ok(Socket { path, text })
    }

    /// What is told from now on.
    pub fn put(&self, text: &str) {
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = Arc::from(text);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// One that does not listen any more has its own reasons.
fn tell(mut peer: UnixStream, text: &str) {
    let _ = peer.set_write_timeout(Some(PATIENCE)).and_then(|()| peer.write_all(text.as_bytes()));
}

/// What a mount left that was killed; nothing else is taken away.
fn is_dead(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let refused = |error: anyhow::Error| {
        error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    };
    is_socket && in_folder(path, UnixStream::connect).is_err_and(refused)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Instant;

    use super::*;

    fn ask(path: &Path) -> String {
        let mut said = String::new();
        in_folder(path, UnixStream::connect).unwrap().read_to_string(&mut said).unwrap();
        said
    }

    #[test]
    fn each_that_asks_is_told_the_newest_and_none_keeps_the_others_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.sock");
        drop(UnixListener::bind(&path).unwrap());
        let socket = Socket::at(path.clone()).expect("in the place of a dead one");
        assert_eq!(ask(&path), "");
        socket.put("a 1\n");
        assert_eq!((ask(&path), ask(&path)), ("a 1\n".into(), "a 1\n".into()));
        // Longer than the kernel keeps, and nobody reads it.
        socket.put(&"x".repeat(8 << 20));
        let silent = UnixStream::connect(&path).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        socket.put("b 2\n");
        let begun = Instant::now();
        assert_eq!(ask(&path), "b 2\n");
        assert!(begun.elapsed() < Duration::from_secs(30));
        drop(silent);
        assert!(Socket::at(path.clone()).is_err(), "a live one");
        drop(socket);
        assert!(!path.exists());
        std::fs::write(&path, "someone's").unwrap();
        assert!(Socket::at(path.clone()).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "someone's");
    }
}
