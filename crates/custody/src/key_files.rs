//! Key files: an identity's seed under a lock, in a file that only its owner reads.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use runvault_format::ids::{IdentityId, VaultId};
use runvault_format::key_file::{self, Lock};
use zeroize::Zeroizing;

use crate::identity::Identity;
pub use crate::kinds::NewLock;
use crate::{Error, Result, kinds};

/// Asks a person, a file or a service manager; [`Error::NoPassphrase`] where none is to be had.
pub trait Prompt {
    /// The passphrase of the key with this label.
    ///
    /// # Errors
    /// [`Error::NoPassphrase`], [`Error::BadFile`], [`Error::Permissions`].
    fn passphrase(&mut self, label: &str) -> Result<Zeroizing<Vec<u8>>>;
}

/// Has no passphrase for anything.
#[derive(Debug)]
pub struct NoPrompt;

impl Prompt for NoPrompt {
    fn passphrase(&mut self, label: &str) -> Result<Zeroizing<Vec<u8>>> {
        Err(Error::NoPassphrase(format!("the key of {label} is locked by one")))
    }
}

/// A key file as it was read: its lock is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile(key_file::KeyFile);

impl KeyFile {
    /// Parses a file's bytes.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::UnknownVersion`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        key_file::KeyFile::parse(bytes).map(Self).map_err(|e| Error::damaged("key file", e))
    }

    /// What people call the identity. Not proven before the file is unlocked.
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// The identity's id. Not proven before the file is unlocked.
    pub fn id(&self) -> IdentityId {
        self.0.public.id()
    }

    /// The vault that the file is bound to.
    pub fn vault(&self) -> Option<VaultId> {
        self.0.vault
    }

    /// Whether opening it asks for a passphrase.
    pub fn has_passphrase(&self) -> bool {
        !matches!(self.0.lock, Lock::None)
    }

    /// The file's bytes, for copies.
    ///
    /// # Errors
    /// The format's.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.0.to_bytes()?)
    }

    /// Label and id, as messages name a key.
    pub(crate) fn shown(&self) -> String {
        shown(self.label(), &self.id())
    }
}

/// Label and id, as messages name a key.
pub(crate) fn shown(label: &str, id: &IdentityId) -> String {
    format!("{label:?} ({id})")
}

/// Puts an identity's seed under a lock.
///
/// # Errors
/// [`Error::NoPassphrase`] for an empty one; [`Error::Crypto`] for weak or absurd parameters.
pub fn lock(identity: &Identity, new: &NewLock, vault: Option<VaultId>) -> Result<KeyFile> {
    let (lock, key) = kinds::make(new)?;
    let file = key_file::KeyFile::seal(identity.seed(), &identity.label, vault, lock, &key)?;
    Ok(KeyFile(file))
}

/// Opens the lock.
///
/// # Errors
/// [`Error::WrongPassphrase`], what the prompt gives; [`Error::Damaged`] for a file without a lock.
pub fn unlock(file: &KeyFile, prompt: &mut dyn Prompt) -> Result<Identity> {
    let key = kinds::key(&file.0.lock, file.label(), prompt)?;
    let seed = file.0.open(&key).map_err(|e| match e {
        runvault_format::Error::NotAuthentic if file.has_passphrase() => {
            Error::WrongPassphrase { custodian: file.shown() }
        }
        e => Error::damaged("key file", e),
    })?;
    Identity::from_seed(file.label(), file.vault(), seed)
}

/// Writes the identity's key file, mode 0600, synced; never overwrites.
///
/// # Errors
/// [`Error::KeyFileExists`], [`Error::Io`], as [`lock`].
pub fn write_new(path: &Path, identity: &Identity, new: &NewLock, vault: Option<VaultId>) -> Result<()> {
    write_copy(path, &lock(identity, new, vault)?)
}

/// Writes a copy of a key file, same lock, mode 0600, synced; never overwrites.
///
/// # Errors
/// [`Error::KeyFileExists`], [`Error::Io`].
pub fn write_copy(path: &Path, file: &KeyFile) -> Result<()> {
    let bytes = Zeroizing::new(file.to_bytes()?);
    let io = |operation| move |e| Error::io(operation, path.display().to_string(), e);
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(path);
    let mut out = match made {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(Error::KeyFileExists(path.to_owned())),
        made => made.map_err(io("create"))?,
    };
    if let Err(e) = out.write_all(&bytes).and_then(|()| out.sync_all()) {
        // Half a key file is of no use; the first error is the one to tell.
        let _ = std::fs::remove_file(path);
        return Err(io("write")(e));
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(io("sync the directory of"))
}

/// Reads a key file. One that others can read is refused unless `allow_readable`.
///
/// # Errors
/// [`Error::Permissions`], [`Error::BadFile`], [`Error::Damaged`].
pub fn read(path: &Path, allow_readable: bool) -> Result<KeyFile> {
    let bytes = read_secret(path, key_file::LEN_MAX, allow_readable)?;
    key_file::KeyFile::parse(&bytes).map(KeyFile).map_err(|e| Error::damaged(path.display().to_string(), e))
}

/// Reads a file that holds a secret: a regular file of at most `max` bytes, that group and others
/// cannot read unless `allow_readable`. Symlinks are followed: service managers use them.
///
/// # Errors
/// [`Error::Permissions`], [`Error::BadFile`], [`Error::Io`].
pub fn read_secret(path: &Path, max: usize, allow_readable: bool) -> Result<Zeroizing<Vec<u8>>> {
    let io = |operation| move |e| Error::io(operation, path.display().to_string(), e);
    let bad = |why| Error::BadFile { path: path.to_owned(), why };
    // Without O_NONBLOCK a fifo would wait for its writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(io("open"))?;
    let meta = file.metadata().map_err(io("stat"))?;
    if !meta.is_file() {
        return Err(bad("not a regular file"));
    }
    if meta.mode() & 0o077 != 0 && !allow_readable {
        return Err(Error::Permissions { path: path.to_owned(), mode: meta.mode() & 0o7777 });
    }
    let limit = u64::try_from(max).unwrap_or(u64::MAX);
    if meta.len() > limit {
        return Err(bad("longer than any secret"));
    }
    // Room for all of it at once: a growing vector would leave copies behind.
    let mut bytes =
        Zeroizing::new(Vec::with_capacity(max.min(usize::try_from(meta.len()).unwrap_or(max)) + 1));
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(io("read"))?;
    if bytes.len() > max { Err(bad("longer than any secret")) } else { Ok(bytes) }
}
