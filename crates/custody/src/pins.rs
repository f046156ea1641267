//! What this machine has seen of a vault's chain, so that less, or another one, is refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use runvault_format::ids::{IdentityId, VaultId};
use runvault_format::replacement::Replacement;
use runvault_store::backend::Dir;
use runvault_vault::authority::MadeRun;
use runvault_vault::seal::Seal;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::authority::Acting;
use crate::chain::{Chain, Head};
use crate::gateway::Head as RunHead;
use crate::layout;
use crate::retired::{self, Gone};
use crate::state_folder::Folder;
use crate::{Error, Result, clock, seen, settle};

const PINS: &str = "pins";
const PINS_LOCK: &str = "pins.lock";
const ROLLBACKS: &str = "rollbacks";

/// The file `pins`, one line of JSON.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pins {
    vault: VaultId,
    head: Head,
    /// The newest run of each gateway.
    #[serde(default)]
    runs: BTreeMap<IdentityId, RunHead>,
}

/// A line of the file `rollbacks`.
#[derive(Serialize)]
struct Accepted {
    time: String,
    /// What was refused before.
    why: String,
    seen: Option<Head>,
    accepted: Head,
    /// Newest runs of gateways that were seen and are gone.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    gone: BTreeMap<IdentityId, RunHead>,
}

/// Compares the chain and each gateway's newest run with the pin in `<state_dir>/<vault id>/pins` and advances it;
/// makes the first one. Every command that loaded a chain calls this. Takes no lasting lock. Where nothing can be
/// written the pin is compared and stays; where none was ever kept nothing is compared.
///
/// # Errors
/// [`Error::CutShort`], [`Error::RolledBack`], [`Error::Forked`], [`Error::RunGone`]; [`Error::Damaged`] for a pin that
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
    read(&folder, chain.vault_id())?.map_or(Ok(()), |pinned| compare(&folder, &pinned, root, chain))
}

fn advance_locked(state_dir: &Path, root: &Arc<dyn Dir>, chain: &Chain) -> Result<()> {
    let folder = Folder::open(state_dir, &chain.vault_id())?;
    loop {
        let pinned = read(&folder, chain.vault_id())?;
        let Some(pins) = advanced(&folder, pinned.as_ref(), root, chain)? else { return Ok(()) };
        // Two commands that advance at once must not leave the lower pin.
        let _lock = lock(&folder)?;
        if read(&folder, chain.vault_id())? == pinned {
            return write(&folder, &pins);
        }
    }
}

/// Reading a vault must not need a place to write to.
fn is_not_writable(error: &std::io::Error) -> bool {
    let errnos = [libc::ENOENT, libc::EROFS, libc::EACCES, libc::EPERM, libc::ENOSPC, libc::EDQUOT];
    error.raw_os_error().is_some_and(|errno| errnos.contains(&errno))
}

/// Takes the chain and the runs as they are for the newest ones, whatever was seen before: a person has put the store
/// back from a backup, or removed a run, and says so. `why`, both heads, and the runs that are gone, are noted in
/// `<state_dir>/<vault id>/rollbacks`, for ever.
///
/// # Errors
/// [`Error::Damaged`] for a pin or a note that is none; [`Error::Io`].
pub fn accept_rollback(
    state_dir: &Path,
    root: &Arc<dyn Dir>,
    chain: &Chain,
    why: &impl ToString,
) -> Result<()> {
    let folder = Folder::open(state_dir, &chain.vault_id())?;
    loop {
        let pinned = read(&folder, chain.vault_id())?;
        let mut pins = Pins { vault: chain.vault_id(), head: chain.head(), runs: BTreeMap::new() };
        let mut gone = BTreeMap::new();
        for (gateway, run) in pinned.iter().flat_map(|pinned| &pinned.runs) {
            let there = is_there(&folder, root, chain, gateway, run)?;
            if there { &mut pins.runs } else { &mut gone }.insert(*gateway, *run);
        }
        let _lock = lock(&folder)?;
        if read(&folder, chain.vault_id())? != pinned {
            continue;
        }
        let seen = pinned.map(|pinned| pinned.head);
        let accepted =
            Accepted { time: clock::now(), why: why.to_string(), seen, accepted: chain.head(), gone };
        let mut trail = folder.read(ROLLBACKS)?.unwrap_or_default();
        trail.append(&mut line(&folder, ROLLBACKS, &accepted)?);
        folder.write(ROLLBACKS, &trail)?;
        return write(&folder, &pins);
    }
}

/// A run that was seen: where it is its gateway's newest, the store must have it from now on.
///
/// # Errors
/// [`Error::Damaged`] for a pin that does not parse; [`Error::Io`].
pub(crate) fn note_run(state_dir: &Path, vault: VaultId, made: &MadeRun) -> Result<()> {
    let Some(folder) = Folder::existing(state_dir, &vault)? else { return Ok(()) };
    let _lock = lock(&folder)?;
    // Before the first look at the chain there is nothing to add to.
    let Some(mut pins) = read(&folder, vault)? else { return Ok(()) };
    if pins.runs.get(&made.gateway).is_some_and(|known| known.seq >= made.seq) {
        return Ok(());
    }
    pins.runs.insert(made.gateway, RunHead { seq: made.seq, hash: made.hash, run: made.run });
    write(&folder, &pins)
}

/// Mounts wait for it: who has it asks no store, which may hang.
fn lock(folder: &Folder) -> Result<std::fs::File> {
    let file = folder.lock_file(PINS_LOCK)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)
        .map_err(|e| Error::io("lock", folder.shown(PINS_LOCK), e.into()))?;
    Ok(file)
}

/// What is pinned from now on, where that is more than it was.
fn advanced(
    folder: &Folder,
    pinned: Option<&Pins>,
    root: &Arc<dyn Dir>,
    chain: &Chain,
) -> Result<Option<Pins>> {
    if let Some(pinned) = pinned {
        compare(folder, pinned, root, chain)?;
    }
    if pinned.is_some_and(|pinned| pinned.head.n == chain.head().n) {
        return Ok(None);
    }
    let runs = pinned.map(|pinned| pinned.runs.clone()).unwrap_or_default();
    Ok(Some(Pins { vault: chain.vault_id(), head: chain.head(), runs }))
}

fn write(folder: &Folder, pins: &Pins) -> Result<()> {
    folder.write(PINS, &line(folder, PINS, pins)?)
}

/// One line of JSON.
fn line(folder: &Folder, name: &str, value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value)
        .map_err(|e| Error::Damaged { object: folder.shown(name), why: e.to_string() })?;
    text.push(b'\n');
    Ok(text)
}

fn read(folder: &Folder, vault: VaultId) -> Result<Option<Pins>> {
    let Some(bytes) = folder.read(PINS)? else { return Ok(None) };
    let damaged = |why: String| Error::Damaged { object: folder.shown(PINS), why };
    let pins: Pins = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    if pins.vault != vault {
        return Err(damaged(format!("of another vault, {}", pins.vault)));
    }
    Ok(Some(pins))
}

/// The pinned line must be part of the chain, and the pinned runs must be there.
fn compare(folder: &Folder, pinned: &Pins, root: &Arc<dyn Dir>, chain: &Chain) -> Result<()> {
    compare_heads(&pinned.head, root, chain)?;
    for (gateway, run) in &pinned.runs {
        if !is_there(folder, root, chain, gateway, run)? {
            return Err(Error::RunGone { gateway: *gateway, seq: run.seq, run: run.run });
        }
    }
    Ok(())
}

/// Whether a run stands in its place that the audit log names, with what its gateway had signed.
fn is_replaced(root: &Arc<dyn Dir>, chain: &Chain, seen: &RunHead) -> bool {
    let authority = Acting::gateway_only(chain.clone());
    let stands = |one: &&Replacement| chain.stands_for(&one.new, &seen.run);
    chain.replacements().filter(stands).any(|one| {
        let origin = Seal::load(root, &one.new, &*authority).ok().and_then(|seal| seal.origin);
        origin.is_some_and(|origin| (origin.run.run, origin.run_note) == (seen.run, seen.hash))
    })
}

/// Whether the store has that run, or the owner's note that it is gone, or that of its gateway where this machine has
/// not seen it sealed. Of a gateway whose chain ended before it nothing is expected.
fn is_there(
    folder: &Folder,
    root: &Arc<dyn Dir>,
    chain: &Chain,
    gateway: &IdentityId,
    seen: &RunHead,
) -> Result<bool> {
    let Some(known) = chain.gateway_key(gateway) else { return Ok(true) };
    if known.until.is_some_and(|until| until.run.n < seen.seq) {
        return Ok(true);
    }
    if settle::has_run(root, &seen.run)? || is_replaced(root, chain, seen) {
        return Ok(true);
    }
    // It went by the id that it had then: the one that was seen, or that of a run which had taken its place.
    for run in std::iter::once(&seen.run).chain(chain.standing_for(&seen.run)) {
        let counts = match retired::read(root, chain, run)?.filter(|gone| gone.run_note() == seen.hash) {
            Some(Gone::Owner(_) | Gone::Quorum(_)) => true,
            Some(Gone::Maker(_)) => *run == seen.run && !seen::has_seal(folder.path(), run),
            None => false,
        };
        if counts {
            return Ok(true);
        }
    }
    Ok(false)
}

fn compare_heads(pinned: &Head, root: &Arc<dyn Dir>, chain: &Chain) -> Result<()> {
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
    use crate::authority::Acting;
    use crate::testing::{copy, custody, enrolled, make_run, put, run_dir, take_away, vault};
    use runvault_format::ids::Digest;
    use runvault_store::doubles::faulty::{Fault, Faults, Rule};
    use runvault_vault::authority::Gateway;

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
        accept_rollback(state.path(), &one_line, &Chain::load(&one_line).unwrap(), &"why").unwrap();
        check(&one_line).unwrap();
        accept_rollback(state.path(), &other_future, &Chain::load(&other_future).unwrap(), &"why").unwrap();
        assert!(check(&root).is_err() && check(&one_line).is_err());
        let trail = state.path().join(chain.vault_id().to_string()).join(ROLLBACKS);
        let trail = std::fs::read_to_string(trail).unwrap();
        assert_eq!(trail.lines().count(), 2, "{trail}");
        assert!(trail.contains(&chain.head().hash.to_string()), "{trail}");
    }

    /// A mount notes each run that it meets there.
    #[test]
    fn nobody_waits_for_a_store_that_hangs_while_a_pin_is_advanced() {
        let state = tempfile::tempdir().unwrap();
        let (root, owner, mut chain) = vault();
        let gateway = enrolled(&root, &mut chain, &owner);
        check_and_advance(state.path(), &root, &chain).unwrap();
        let (run, _) = make_run(&root, &chain, &gateway);
        let seen = crate::seen::Remembering::over(Acting::gateway_only(chain.clone()), state.path());
        runvault_vault::runs::read_descriptor(&root, &run, &*seen).unwrap();
        enrolled(&root, &mut chain, &owner);
        let (hanging, faults) = Faults::over(root.clone()).unwrap();
        faults.add(Rule { op: None, name: None, after: 0, times: 1, fault: Fault::Hang });
        std::thread::scope(|scope| {
            scope.spawn(|| check_and_advance(state.path(), &hanging, &chain).unwrap());
            while faults.hanging() == 0 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            let lock = Folder::open(state.path(), &chain.vault_id()).unwrap().lock_file(PINS_LOCK).unwrap();
            let taken = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
            drop(lock);
            faults.clear();
            taken.unwrap();
        });
    }

    #[test]
    fn a_gateways_newest_run_that_was_seen_must_stay() {
        let state = tempfile::tempdir().unwrap();
        let (root, owner, mut chain) = vault();
        let gateway = enrolled(&root, &mut chain, &owner);
        check_and_advance(state.path(), &root, &chain).unwrap();
        let remembering =
            || crate::seen::Remembering::over(Acting::gateway_only(chain.clone()), state.path());
        let look = |run| runvault_vault::runs::read_descriptor(&root, run, &*remembering()).unwrap();
        let (first, _) = make_run(&root, &chain, &gateway);
        look(&first);
        let older = copy(&root);
        let (newest, _) = make_run(&root, &chain, &gateway);
        let note = look(&newest).note;
        look(&first);
        let check = |root: &Arc<dyn Dir>| check_and_advance(state.path(), root, &chain);
        check(&root).unwrap();
        for put_back in [older, copy(&root)] {
            if put_back.open_dir(b"runs").unwrap().open_dir(newest.to_string().as_bytes()).is_ok() {
                take_away(&put_back, &newest);
            }
            let refused = check(&put_back).unwrap_err();
            assert!(matches!(refused, Error::RunGone { seq: 2, run, .. } if run == newest), "{refused}");
            assert!(refused.to_string().contains("number 2 of gateway"), "{refused}");
        }
        // What its gateway removed itself is not missed.
        let removed = copy(&root);
        let said = gateway.retire_run(&newest, &note, "2026-11-24T06:00:00Z").unwrap();
        let retired = removed.open_dir(b"retired").unwrap();
        put(&retired, &newest.to_string(), &said);
        take_away(&removed, &newest);
        check(&removed).unwrap();
        // One that is damaged is not gone: whoever reads it says so.
        put(&run_dir(&root, &newest), "run.json", b"x");
        check(&root).unwrap();
        retired.unlink(newest.to_string().as_bytes()).unwrap();
        assert!(matches!(check(&removed), Err(Error::RunGone { .. })));
        // One that was seen sealed its gateway's key alone does not take away; its owner does.
        put(&retired, &newest.to_string(), &said);
        let sealed = state.path().join(chain.vault_id().to_string()).join("sealed");
        std::fs::write(&sealed, format!("{newest} {}\n", Digest([2; 32]))).unwrap();
        let refused = check(&copy(&removed)).unwrap_err();
        assert!(matches!(refused, Error::RunGone { seq: 2, run, .. } if run == newest), "{refused}");
        put(&run_dir(&root, &newest), "run.json", &note);
        let authority = Acting::opened(chain.clone(), &owner).unwrap();
        let by_owner = copy(&root);
        crate::retired::retire(&by_owner, &chain, &owner, &authority, &newest, "").unwrap();
        take_away(&by_owner, &newest);
        check(&by_owner).unwrap();
        // What is signed about it is empty, or gone: nothing that could be read is there.
        for left in [Some(b""), None] {
            let hollow = copy(&root);
            match left {
                Some(bytes) => put(&run_dir(&hollow, &newest), "run.json", bytes),
                None => run_dir(&hollow, &newest).unlink(b"run.json").unwrap(),
            }
            assert!(matches!(check(&hollow), Err(Error::RunGone { .. })), "{left:?}");
        }
        // A person accepts it, once.
        accept_rollback(state.path(), &removed, &chain, &"why").unwrap();
        check(&removed).unwrap();
        let trail = state.path().join(chain.vault_id().to_string()).join(ROLLBACKS);
        assert!(std::fs::read_to_string(trail).unwrap().contains(&newest.to_string()));
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
