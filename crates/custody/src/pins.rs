//! What this machine has seen of a vault's chain, so that less, or another one, is refused.

use std::path::Path;
use std::sync::Arc;

use runvault_format::ids::VaultId;
use runvault_store::backend::Dir;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::chain::{Chain, Head};
use crate::layout;
use crate::state_folder::Folder;
use crate::{Error, Result, clock};

const PINS: &str = "pins";
const PINS_LOCK: &str = "pins.lock";
const ROLLBACKS: &str = "rollbacks";

/// The file `pins`, one line of JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pins {
    vault: VaultId,
    head: Head,
}

/// A line of the file `rollbacks`.
#[derive(Serialize)]
struct Accepted {
    time: String,
    seen: Option<Head>,
    accepted: Head,
}

/// Compares the chain with the pin in `<state_dir>/<vault id>/pins` and advances it; makes the
/// first one. Every command that loaded a chain calls this. Takes no lasting lock. Where nothing can be
/// written the pin is compared and stays; where none was ever kept nothing is compared.
///
/// # Errors
/// [`Error::CutShort`], [`Error::RolledBack`], [`Error::Forked`]; [`Error::Damaged`] for a pin that
/// does not parse; [`Error::Io`] where it cannot be told whether there is one.
pub fn check_and_advance(state_dir: &Path, root: &Arc<dyn Dir>, chain: &Chain) -> Result<()> {
    match advance_locked(state_dir, root, chain) {
        Err(Error::Io { object, source, .. }) if is_not_writable(&source) => {
            log::info!("no pin was kept: {object}: {source}");
            compare_only(state_dir, root, chain)
        }
        done => done,
    }
}

fn compare_only(state_dir: &Path, root: &Arc<dyn Dir>, chain: &Chain) -> Result<()> {
    let Some(folder) = Folder::existing(state_dir, &chain.vault_id())? else { return Ok(()) };
    read(&folder, chain)?.map_or(Ok(()), |pinned| compare(&pinned, root, chain))
}

fn advance_locked(state_dir: &Path, root: &Arc<dyn Dir>, chain: &Chain) -> Result<()> {
    let folder = Folder::open(state_dir, &chain.vault_id())?;
    // Two commands that advance at once must not leave the lower pin.
    let _lock = lock(&folder)?;
    advance(&folder, root, chain)
}

/// Reading a vault must not need a place to write to.
fn is_not_writable(error: &std::io::Error) -> bool {
    let errnos = [libc::ENOENT, libc::EROFS, libc::EACCES, libc::EPERM, libc::ENOSPC, libc::EDQUOT];
    error.raw_os_error().is_some_and(|errno| errnos.contains(&errno))
}

/// Takes the chain as it is for the newest one, whatever was seen before: a person has put custody/ back
/// from a backup and says so. Both heads are noted in `<state_dir>/<vault id>/rollbacks`, for ever.
///
/// # Errors
/// [`Error::Damaged`] for a pin or a note that is none; [`Error::Io`].
pub fn accept_rollback(state_dir: &Path, chain: &Chain) -> Result<()> {
    let folder = Folder::open(state_dir, &chain.vault_id())?;
    let _lock = lock(&folder)?;
    let accepted = Accepted { time: clock::now(), seen: read(&folder, chain)?, accepted: chain.head() };
    let mut trail = folder.read(ROLLBACKS)?.unwrap_or_default();
    trail.append(&mut line(&folder, ROLLBACKS, &accepted)?);
    folder.write(ROLLBACKS, &trail)?;
    write(&folder, chain)
}

fn lock(folder: &Folder) -> Result<std::fs::File> {
    let file = folder.lock_file(PINS_LOCK)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)
        .map_err(|e| Error::io("lock", folder.shown(PINS_LOCK), e.into()))?;
    Ok(file)
}

pub(crate) fn advance(folder: &Folder, root: &Arc<dyn Dir>, chain: &Chain) -> Result<()> {
    let pinned = read(folder, chain)?;
    if let Some(pinned) = &pinned {
        compare(pinned, root, chain)?;
    }
    if pinned.is_some_and(|p| p.n == chain.head().n) {
        return Ok(());
    }
    write(folder, chain)
}

fn write(folder: &Folder, chain: &Chain) -> Result<()> {
    let pins = Pins { vault: chain.vault_id(), head: chain.head() };
    folder.write(PINS, &line(folder, PINS, &pins)?)
}

/// One line of JSON.
fn line(folder: &Folder, name: &str, value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value)
        .map_err(|e| Error::Damaged { object: folder.shown(name), why: e.to_string() })?;
    text.push(b'\n');
    Ok(text)
}

fn read(folder: &Folder, chain: &Chain) -> Result<Option<Head>> {
    let Some(bytes) = folder.read(PINS)? else { return Ok(None) };
    let damaged = |why: String| Error::Damaged { object: folder.shown(PINS), why };
    let pins: Pins = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    if pins.vault != chain.vault_id() {
        return Err(damaged(format!("of another vault, {}", pins.vault)));
    }
    Ok(Some(pins.head))
}

/// The pinned line must be part of the chain.
fn compare(pinned: &Head, root: &Arc<dyn Dir>, chain: &Chain) -> Result<()> {
    let found = chain.head().n;
    match chain.line_hash(pinned.n) {
        Some(hash) if hash == pinned.hash => Ok(()),
        Some(_) => Err(Error::Forked { line: pinned.n }),
        None if later_state_exists(root, pinned.n)? => Err(Error::CutShort { pinned: pinned.n, found }),
        None => Err(Error::RolledBack { pinned: pinned.n, found }),
    }
}

/// A log that was cut leaves its states behind; a copy restored from a backup has neither.
fn later_state_exists(root: &Arc<dyn Dir>, n: u64) -> Result<bool> {
    layout::exists(&layout::custody_dir(root)?, &layout::state_name(n), "custody/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{copy, custody, enrolled, put, vault};

    #[test]
    fn less_than_was_seen_is_refused_by_name() {
        let state = tempfile::tempdir().unwrap();
        let (root, owner, mut chain) = vault();
        let check = |root: &Arc<dyn Dir>| check_and_advance(state.path(), root, &Chain::load(root).unwrap());
        check(&root).unwrap();
        enrolled(&root, &mut chain, &owner);
        let one_line = copy(&root);
        check(&root).unwrap();
        let other_future = copy(&root);
        enrolled(&root, &mut chain, &owner);
        check(&root).unwrap();
        check(&root).unwrap();

        let refused = check(&one_line).unwrap_err();
        assert!(matches!(refused, Error::RolledBack { pinned: 2, found: 1 }), "{refused}");
        let cut = copy(&root);
        put(&custody(&cut), "audit.log", b"");
        check(&cut).unwrap();
        ["line-1", "line-2"].iter().for_each(|line| custody(&cut).unlink(line.as_bytes()).unwrap());
        let refused = check(&cut).unwrap_err();
        assert!(matches!(refused, Error::CutShort { pinned: 2, found: 0 }), "{refused}");
        assert!(refused.to_string().contains("audit log cut"));
        let mut other = Chain::load(&other_future).unwrap();
        enrolled(&other_future, &mut other, &owner);
        enrolled(&other_future, &mut other, &owner);
        let refused = check(&other_future).unwrap_err();
        assert!(matches!(refused, Error::Forked { line: 2 }), "{refused}");
        assert!(refused.to_string().contains("forked at line 2"));
        check(&root).unwrap();

        // A person accepts what was put back; from then on that is the least, and the trail says so.
        accept_rollback(state.path(), &Chain::load(&one_line).unwrap()).unwrap();
        check(&one_line).unwrap();
        accept_rollback(state.path(), &Chain::load(&other_future).unwrap()).unwrap();
        assert!(check(&root).is_err() && check(&one_line).is_err());
        let trail = state.path().join(chain.vault_id().to_string()).join(ROLLBACKS);
        let trail = std::fs::read_to_string(trail).unwrap();
        assert_eq!(trail.lines().count(), 2, "{trail}");
        assert!(trail.contains(&chain.head().hash.to_string()), "{trail}");
    }

    #[test]
    fn a_pin_that_cannot_be_advanced_is_compared() {
        let state = tempfile::tempdir().unwrap();
        let (root, owner, mut chain) = vault();
        let older = copy(&root);
        enrolled(&root, &mut chain, &owner);
        let load = |root: &Arc<dyn Dir>| Chain::load(root).unwrap();
        check_and_advance(state.path(), &root, &load(&root)).unwrap();
        let vault = chain.vault_id();
        let compared = |chain: &Chain, root: &Arc<dyn Dir>| compare_only(state.path(), root, chain);
        compared(&load(&root), &root).unwrap();
        let refused = compared(&load(&older), &older).unwrap_err();
        assert!(matches!(refused, Error::RolledBack { pinned: 1, found: 0 }), "{refused}");
        std::fs::write(state.path().join(vault.to_string()).join(PINS), b"x").unwrap();
        assert!(matches!(compared(&load(&root), &root), Err(Error::Damaged { .. })));
        // Nothing was ever seen from here.
        let nowhere = state.path().join("none");
        compare_only(&nowhere, &older, &load(&older)).unwrap();
        // What is no folder is none that was not made yet.
        let file = state.path().join("file");
        std::fs::write(&file, b"").unwrap();
        for refused in [
            check_and_advance(&file, &root, &load(&root)).unwrap_err(),
            compare_only(&file, &root, &load(&root)).unwrap_err(),
        ] {
            assert!(matches!(refused, Error::Io { .. }), "{refused}");
        }
    }

    #[test]
    fn what_is_no_file_in_the_state_folder_is_refused_without_waiting() {
        use std::os::unix::fs::PermissionsExt;
        let state = tempfile::tempdir().unwrap();
        let (root, _, chain) = vault();
        check_and_advance(state.path(), &root, &chain).unwrap();
        let folder = state.path().join(chain.vault_id().to_string());
        let mode = std::fs::metadata(folder.join(PINS_LOCK)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for name in [PINS, PINS_LOCK] {
            let path = folder.join(name);
            for planted in ["fifo", "link", "directory"] {
                std::fs::remove_file(&path).unwrap();
                match planted {
                    "fifo" => {
                        let mode = rustix::fs::Mode::from_raw_mode(0o600);
                        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
                            .unwrap();
                    }
                    "link" => std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
                    _ => std::fs::create_dir(&path).unwrap(),
                }
                let refused = check_and_advance(state.path(), &root, &chain).unwrap_err();
                let named = matches!(&refused, Error::Damaged { object, .. } if object.ends_with(name));
                assert!(named, "{name} as a {planted}: {refused}");
                if planted == "directory" {
                    std::fs::remove_dir(&path).unwrap();
                    std::fs::write(&path, b"").unwrap();
                }
            }
            std::fs::remove_file(&path).unwrap();
        }
        check_and_advance(state.path(), &root, &chain).unwrap();
    }

    #[test]
    fn a_damaged_pin_is_no_reason_to_trust() {
        let state = tempfile::tempdir().unwrap();
        let (root, _, chain) = vault();
        check_and_advance(state.path(), &root, &chain).unwrap();
        let pins = state.path().join(chain.vault_id().to_string()).join(PINS);
        std::fs::write(&pins, b"{}").unwrap();
        let refused = check_and_advance(state.path(), &root, &chain).unwrap_err();
        assert!(matches!(&refused, Error::Damaged { object, .. } if object.ends_with("pins")), "{refused}");
    }
}
