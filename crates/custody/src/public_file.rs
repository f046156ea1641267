//! Public key files: what a machine gives away so that the owner of a vault can let it in.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use runvault_format::ids::VaultId;
use runvault_format::public_key::{LEN_MAX, PublicKey};

use crate::identity::Identity;
use crate::key_files::{self, read_secret};
use crate::{Error, Result};

/// What an identity shows of itself, under its own label or another.
pub(crate) fn of(identity: &Identity, label: Option<&str>) -> PublicKey {
    PublicKey::of(label.unwrap_or(&identity.label), &identity.public(), identity.vault)
}

/// Writes the identity's public key file, synced; never overwrites.
///
/// # Errors
/// [`Error::FileExists`], [`Error::Io`].
pub fn write_new(path: &Path, identity: &Identity, label: Option<&str>) -> Result<()> {
    let bytes = of(identity, label).to_note(&identity.keys)?;
    let io = |e| Error::io("write", path.display().to_string(), e);
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(Error::FileExists(path.to_owned())),
        made => made.map_err(io)?,
    };
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(io)
}

/// Reads one, and verifies that its own key signed it, for this vault or for any.
///
/// # Errors
/// [`Error::BadPublicKey`]; [`Error::BadFile`] for one of another vault, a private key, or no file; [`Error::GivenFile`];
/// [`Error::Io`].
pub fn read(path: &Path, vault: VaultId) -> Result<PublicKey> {
    let bad = |why: String| Error::BadFile { path: path.to_owned(), why };
    let public = read_any(path)?;
    match public.vault {
        Some(other) if other != vault => {
            Err(bad(format!("it is for vault {other}; the store is vault {vault}")))
        }
        _ => Ok(public),
    }
}

/// The same, before there is a vault.
///
/// # Errors
/// As [`read`].
pub fn read_any(path: &Path) -> Result<PublicKey> {
    // A private key, which may be longer, is no damaged public one.
    let otherwise = |error| match key_files::read(path, true) {
        Ok(_) => Error::BadFile {
            path: path.to_owned(),
            why: format!("that is the private key: its public one is {}.pub", path.display()),
        },
        Err(_) => error,
    };
    // Nothing in it is secret.
    let bytes = read_secret(path, ("public key file", LEN_MAX), true).map_err(otherwise)?;
    PublicKey::parse(&bytes).map_err(|why| otherwise(Error::BadPublicKey { path: path.to_owned(), why }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_is_never_overwritten_and_serves_its_own_vault() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("req");
        let mut identity = Identity::generate("host").unwrap();
        identity.vault = Some(VaultId([1; 32]));
        write_new(&path, &identity, Some("novaseq-1")).unwrap();
        assert!(matches!(write_new(&path, &identity, None), Err(Error::FileExists(_))));
        let read_back = read(&path, VaultId([1; 32])).unwrap();
        assert_eq!((read_back.label.as_str(), read_back.id), ("novaseq-1", identity.id()));
        let refused = read(&path, VaultId([2; 32])).unwrap_err().to_string();
        assert!(refused.contains("it is for vault 0101"), "{refused}");
        let private = dir.path().join("host.key");
        key_files::write_new(&private, &identity, &key_files::NewLock::None, None).unwrap();
        let refused = read_any(&private).unwrap_err();
        assert!(matches!(&refused, Error::BadFile { .. }), "{refused}");
        assert!(refused.to_string().ends_with("host.key.pub"), "{refused}");
        std::fs::write(&path, b"x").unwrap();
        assert!(matches!(read(&path, VaultId([1; 32])), Err(Error::BadPublicKey { .. })));
    }
}
