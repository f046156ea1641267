//! Key files: an identity's seed under a lock, in a file that only its owner reads.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use runvault_crypto::passphrase::Params;
use runvault_format::custody_copy::CustodyCopy;
use runvault_format::ids::{IdentityId, VaultId};
use runvault_format::kept::Kept;
use runvault_format::key_file::{self, Lock};
use zeroize::Zeroizing;

use crate::identity::Identity;
pub use crate::kinds::{NewLock, Shown};
use crate::token::Tries;
use crate::{Error, Result, kinds};

/// Asks a person, a file or a service manager; [`Error::NoPassphrase`] where none is to be had.
pub trait Prompt {
    /// The passphrase of the key with this label.
    ///
    /// # Errors
    /// [`Error::NoPassphrase`], [`Error::BadFile`], [`Error::Permissions`].
    fn passphrase(&mut self, label: &str) -> Result<Zeroizing<Vec<u8>>>;

    /// The PKCS#11 module that reaches this token.
    ///
    /// # Errors
    /// [`Error::NoModule`].
    fn module(&mut self, token: &str) -> Result<PathBuf> {
        Err(Error::NoModule(token.to_owned()))
    }

    /// The PIN of this token, which may take few more tries.
    ///
    /// # Errors
    /// [`Error::NoPassphrase`]; [`Error::Token`] where it is not to be tried.
    fn pin(&mut self, token: &str, _tries: Tries) -> Result<Zeroizing<Vec<u8>>> {
        Err(Error::NoPassphrase(format!("the token {token} has a PIN")))
    }
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
        let file = key_file::KeyFile::parse(bytes).map_err(|e| Error::damaged("key file", e))?;
        Self::checked(file, "key file")
    }

    /// Costs that no lock of ours has are refused before anyone is asked for a passphrase, and where another
    /// copy can still be used.
    fn checked(file: key_file::KeyFile, object: &str) -> Result<Self> {
        let costs = match file.lock {
            Lock::Argon2id { m_kib, t, p, .. } => Some(Params { m_kib, t, p }),
            Lock::Tpm2(ref lock) => lock.with.params(),
            Lock::None | Lock::Pkcs11(_) => None,
        };
        if let Some(costs) = costs {
            costs.checked().map_err(|e| Error::Damaged { object: object.to_owned(), why: e.to_string() })?;
        }
        Ok(Self(file))
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

    /// Whether a passphrase alone opens it.
    pub fn has_passphrase(&self) -> bool {
        matches!(self.0.lock, Lock::Argon2id { .. })
    }

    /// Whether a token or a TPM opens it.
    pub fn needs_hardware(&self) -> bool {
        matches!(self.0.lock, Lock::Pkcs11(_) | Lock::Tpm2(_))
    }

    /// What its lock is.
    ///
    /// # Errors
    /// The format's, for a kind that is not known.
    pub fn lock(&self) -> Result<Shown> {
        kinds::shown(&self.0.lock)
    }

    /// The file's bytes, for copies.
    ///
    /// # Errors
    /// The format's.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.0.to_bytes()?)
    }

    /// What a custodian keeps beside the key.
    pub fn kept(&self) -> Option<&Kept> {
        self.0.kept()
    }

    /// The same file with this beside the key.
    ///
    /// # Errors
    /// The format's; keys of another identity.
    pub fn keeping(&self, kept: Kept, identity: &Identity) -> Result<Self> {
        Ok(Self(self.0.clone().keeping(kept, &identity.keys)?))
    }

    /// What `custody/` was at the last drill, or when the file was taken out of the store.
    pub fn copy(&self) -> Option<&CustodyCopy> {
        self.0.copy()
    }

    /// The last line of that copy; 0: of a vault without any.
    pub fn copy_line(&self) -> Option<u64> {
        self.copy().map(|copy| copy.lines.len() as u64)
    }

    /// The same file with this copy of `custody/` behind it, or none.
    #[must_use]
    pub fn with_copy(self, copy: Option<CustodyCopy>) -> Self {
        Self(self.0.with_copy(copy))
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
        runvault_format::Error::NotAuthentic => kinds::misfit(&file.0.lock, &file.shown()),
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
    write_copy_of(path, file, None)
}

/// As [`write_copy`], for another user. The owner is set through the descriptor: in a folder of that user's the
/// name may lead elsewhere a moment later.
pub(crate) fn write_copy_of(path: &Path, file: &KeyFile, uid: Option<u32>) -> Result<()> {
    let bytes = Zeroizing::new(file.to_bytes()?);
    let io = |operation| move |e| Error::io(operation, path.display().to_string(), e);
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(path);
    let mut out = match made {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(Error::KeyFileExists(path.to_owned())),
        made => made.map_err(io("create"))?,
    };
    let written = out.write_all(&bytes).and_then(|()| keep_owner(&out, uid)).and_then(|()| out.sync_all());
    if let Err(e) = written {
        // Half a key file is of no use; the first error is the one to tell.
        let _ = std::fs::remove_file(path);
        return Err(io("write")(e));
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(io("sync the directory of"))
}

fn keep_owner(file: &File, uid: Option<u32>) -> std::io::Result<()> {
    match uid {
        Some(uid) if file.metadata()?.uid() != uid => fchown(file, Some(uid), None),
        _ => Ok(()),
    }
}

/// Reads a key file. One that others can read is refused unless `allow_readable`.
///
/// # Errors
/// [`Error::KeyFile`], [`Error::Permissions`], [`Error::BadFile`], [`Error::UnknownVersion`]; [`Error::Damaged`] for
/// absurd costs.
pub fn read(path: &Path, allow_readable: bool) -> Result<KeyFile> {
    let bytes =
        read_secret(path, ("key file", key_file::WHOLE_MAX), allow_readable).map_err(|e| match e {
            Error::Io { source, .. } | Error::GivenFile { source, .. } => {
                Error::KeyFile { path: path.to_owned(), source }
            }
            e => e,
        })?;
    let object = path.display().to_string();
    let file = key_file::KeyFile::parse(&bytes).map_err(|e| match Error::damaged(&object, e) {
        Error::Damaged { why, .. } => {
            Error::BadFile { path: path.to_owned(), why: format!("not a key file, or a damaged one: {why}") }
        }
        e => e,
    })?;
    KeyFile::checked(file, &object)
}

/// Reads a file that may hold a secret: a regular file of at most as many bytes as any `what` has, that group and others
/// cannot read unless `allow_readable`. Symlinks are followed: service managers use them.
///
/// # Errors
/// [`Error::GivenFile`], [`Error::Permissions`], [`Error::BadFile`], [`Error::Io`].
pub fn read_secret(
    path: &Path,
    (what, max): (&'static str, usize),
    allow_readable: bool,
) -> Result<Zeroizing<Vec<u8>>> {
    let io = |operation| move |e| Error::io(operation, path.display().to_string(), e);
    let bad = |why: &str| Error::BadFile { path: path.to_owned(), why: why.to_owned() };
    // Without O_NONBLOCK a fifo would wait for its writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(|source| Error::GivenFile { what, path: path.to_owned(), source })?;
    let meta = file.metadata().map_err(io("stat"))?;
    if !meta.is_file() {
        return Err(bad("not a regular file"));
    }
    if meta.mode() & 0o077 != 0 && !allow_readable {
        return Err(Error::Permissions { path: path.to_owned(), mode: meta.mode() & 0o7777 });
    }
    let too_long = || bad(&format!("longer than any {what} of runvault, which has at most {max} bytes"));
    let limit = u64::try_from(max).unwrap_or(u64::MAX);
    if meta.len() > limit {
        return Err(too_long());
    }
    // Room for all of it at once: a growing vector would leave copies behind.
    let mut bytes =
        Zeroizing::new(Vec::with_capacity(max.min(usize::try_from(meta.len()).unwrap_or(max)) + 1));
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(io("read"))?;
    if bytes.len() > max { Err(too_long()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Says(&'static [u8]);

    impl Prompt for Says {
        fn passphrase(&mut self, _label: &str) -> Result<Zeroizing<Vec<u8>>> {
            Ok(Zeroizing::new(self.0.to_vec()))
        }
    }

    #[test]
    fn an_unlocked_file_comes_back_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("owner.key");
        let identity = Identity::generate("owner").unwrap();
        let vault = VaultId([7; 32]);
        write_new(&path, &identity, &NewLock::None, Some(vault)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = write_new(&path, &identity, &NewLock::None, None).unwrap_err();
        assert!(matches!(refused, Error::KeyFileExists(_)), "{refused}");
        let file = read(&path, false).unwrap();
        assert!(!file.has_passphrase());
        let back = unlock(&file, &mut NoPrompt).unwrap();
        assert_eq!((back.id(), back.label.as_str(), back.vault), (identity.id(), "owner", Some(vault)));
        let copy = dir.path().join("copy.key");
        write_copy(&copy, &file).unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), std::fs::read(&path).unwrap());
    }

    #[test]
    fn readable_absurd_and_odd_secrets_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("owner.key");
        write_new(&path, &Identity::generate("owner").unwrap(), &NewLock::None, None).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let refused = read(&path, false).unwrap_err();
            assert!(matches!(refused, Error::Permissions { mode: found, .. } if found == mode), "{refused}");
            read(&path, true).unwrap();
        }
        assert!(matches!(read_secret(&path, ("key file", 10), true), Err(Error::BadFile { .. })));
        assert!(matches!(read_secret(dir.path(), ("key file", 10), true), Err(Error::BadFile { .. })));
        let missing = dir.path().join("missing");
        assert!(matches!(read(&missing, false), Err(Error::KeyFile { path, .. }) if path == missing));
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        assert!(matches!(read_secret(&fifo, ("key file", 10), true), Err(Error::BadFile { .. })));
    }

    #[test]
    fn a_changed_byte_opens_nothing() {
        let identity = Identity::generate("owner").unwrap();
        let good = lock(&identity, &NewLock::None, Some(VaultId([7; 32]))).unwrap().to_bytes().unwrap();
        for at in (0..good.len()).step_by(good.len() / 200) {
            let mut bad = good.clone();
            bad[at] ^= 0x04;
            let opened = KeyFile::parse(&bad).and_then(|file| unlock(&file, &mut NoPrompt));
            assert!(opened.is_err(), "byte {at}");
        }
    }

    /// The one test of this file that stretches a passphrase, at the floor of the parameters.
    #[test]
    fn a_passphrase_opens_and_another_does_not() {
        let identity = Identity::generate("owner").unwrap();
        let new = NewLock::Passphrase { passphrase: b"correct horse", params: Params::FLOOR };
        let file = lock(&identity, &new, None).unwrap();
        assert!(file.has_passphrase());
        assert_eq!(unlock(&file, &mut Says(b"correct horse")).unwrap().id(), identity.id());
        let refused = unlock(&file, &mut Says(b"battery staple")).unwrap_err();
        assert!(matches!(&refused, Error::WrongPassphrase { custodian } if custodian.contains("owner")));
        assert!(matches!(unlock(&file, &mut NoPrompt), Err(Error::NoPassphrase(_))));
        assert!(matches!(unlock(&file, &mut Says(b"")), Err(Error::NoPassphrase(_))));
        assert!(!format!("{new:?}").contains("horse"));
    }

    #[test]
    fn costs_out_of_bounds_are_damage_of_the_named_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("owner.key");
        let new = NewLock::Passphrase { passphrase: b"x", params: Params::FLOOR };
        let good = lock(&Identity::generate("owner").unwrap(), &new, None).unwrap().to_bytes().unwrap();
        let good = String::from_utf8(good).unwrap();
        for (of, cost) in
            [("\"m_kib\":65536", "\"m_kib\":4294967295"), ("\"t\":3", "\"t\":2"), ("\"p\":4", "\"p\":17")]
        {
            assert!(good.contains(of), "{of}");
            std::fs::write(&path, good.replace(of, cost)).unwrap();
            let refused = read(&path, true).unwrap_err();
            assert!(
                matches!(&refused, Error::Damaged { object, .. } if object.ends_with("owner.key")),
                "{refused}"
            );
        }
    }

    #[test]
    fn weak_and_empty_locks_are_not_made() {
        let identity = Identity::generate("owner").unwrap();
        let empty = NewLock::Passphrase { passphrase: b"", params: Params::FLOOR };
        assert!(matches!(lock(&identity, &empty, None), Err(Error::NoPassphrase(_))));
        let weak = NewLock::Passphrase { passphrase: b"x", params: Params { t: 1, ..Params::FLOOR } };
        assert!(matches!(lock(&identity, &weak, None), Err(Error::Crypto(_))));
    }
}
