//! The owner's key file in the store: two copies, written one after the other; either suffices.

use std::sync::Arc;

use runvault_format::key_file::LEN_MAX;
use runvault_store::backend::{Access, Dir, File, Kind};
use runvault_store::replace::replace;
use zeroize::Zeroizing;

use crate::identity::Identity;
use crate::key_files::{self, KeyFile, Prompt};
use crate::kinds::NewLock;
use crate::layout::{self, LOCKS, SECRET_MODE};
use crate::{Error, Result};

const COPIES: [&str; 2] = ["owner-0", "owner-1"];

/// The first copy that parses.
///
/// # Errors
/// [`Error::NoLock`], [`Error::Damaged`] when both are.
pub fn read(root: &Arc<dyn Dir>) -> Result<KeyFile> {
    read_both(root)?.0.into_iter().next().ok_or(Error::NoLock)
}

/// Opens the key, and gives what is wrong with the copies all the same; where a killed [`passwd`] left two
/// different ones, either passphrase opens it.
///
/// # Errors
/// As [`read`]; [`Error::WrongPassphrase`].
pub fn unlock(root: &Arc<dyn Dir>, prompt: &mut dyn Prompt) -> Result<(Identity, Vec<Error>)> {
    let (mut copies, broken) = read_both(root)?;
    let faults = faults_of(&copies, broken);
    copies.dedup();
    let mut once = AskOnce { prompt, answer: None };
    let mut refused = Error::NoLock;
    for copy in &copies {
        match key_files::unlock(copy, &mut once) {
            Err(e @ (Error::WrongPassphrase { .. } | Error::Damaged { .. } | Error::Crypto(_))) => {
                refused = e
            }
            opened => return Ok((opened?, faults)),
        }
    }
    Err(refused)
}

/// Writes both copies, each synced before the next is touched.
///
/// # Errors
/// The store's; [`Error::UnlockedInStore`].
pub fn write(root: &Arc<dyn Dir>, file: &KeyFile) -> Result<()> {
    COPIES.iter().try_for_each(|copy| write_copy(root, file, copy))
}

fn write_copy(root: &Arc<dyn Dir>, file: &KeyFile, copy: &str) -> Result<()> {
    if !file.has_passphrase() {
        return Err(Error::UnlockedInStore);
    }
    // It lies in custody/ itself.
    let bytes = file.clone().with_copy(None).to_bytes()?;
    replace(&*locks_dir(root)?, copy.as_bytes(), &bytes, SECRET_MODE)
        .map_err(|e| Error::io("write", object(copy), e))
}

/// The copies that parse, as they were before the lock was opened: what a [`passwd`] goes on from.
#[derive(Debug)]
pub struct Seen(Vec<KeyFile>);

/// What is there now, for a later [`passwd`].
///
/// # Errors
/// As [`read`].
pub fn seen(root: &Arc<dyn Dir>) -> Result<Seen> {
    match read_both(root)?.0 {
        good if good.is_empty() => Err(Error::NoLock),
        good => Ok(Seen(good)),
    }
}

/// Locks the owner's key anew: O(1), nothing else of the store changes. A copy that was damaged or
/// missing is written like the other; gives what was wrong with it. Of two at once one fails, where the store has
/// locks.
///
/// # Errors
/// The store's; [`Error::UnlockedInStore`]; [`Error::NoLock`] where the key is kept elsewhere;
/// [`Error::LockChanged`] where it is not what was `seen` any more;
/// [`Error::Damaged`] where a directory is in a copy's place: nothing was changed then.
pub fn passwd(root: &Arc<dyn Dir>, owner: &Identity, seen: &Seen, new: &NewLock) -> Result<Vec<String>> {
    let (_, broken) = read_both(root)?;
    let kept = seen.0.first().ok_or(Error::NoLock)?;
    if kept.id() != owner.id() {
        let given = key_files::shown(&owner.label, &owner.id());
        return Err(Error::WrongKey { needed: kept.shown(), given });
    }
    let locks = locks_dir(root)?;
    for copy in COPIES {
        match locks.stat(copy.as_bytes()) {
            // A rename replaces anything else.
            Ok(stat) if stat.kind == Kind::Dir => {
                return Err(Error::Damaged { object: object(copy), why: "a directory".to_owned() });
            }
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => {
                return Err(Error::io("stat", object(copy), e));
            }
            _ => {}
        }
    }
    put_after(root, seen, &key_files::lock(owner, new, owner.vault.or(kept.vault()))?)?;
    Ok(broken.iter().map(ToString::to_string).collect())
}

/// Takes the owner's key file out of the store: whoever wants it has a copy by now. Nothing if there is none.
///
/// # Errors
/// The store's.
pub fn remove(root: &Arc<dyn Dir>) -> Result<()> {
    let locks = locks_dir(root)?;
    for copy in COPIES {
        match locks.unlink(copy.as_bytes()) {
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => {
                return Err(Error::io("remove", object(copy), e));
            }
            _ => {}
        }
    }
    locks.sync().map_err(|e| Error::io("sync", "custody/locks", e))
}

/// Whether the store holds a key file.
///
/// # Errors
/// The store's.
pub fn are_there(root: &Arc<dyn Dir>) -> Result<bool> {
    let locks = locks_dir(root)?;
    let there = |copy: &str| layout::exists(&locks, copy, &object(copy));
    COPIES.iter().try_fold(false, |found, copy| Ok(found || there(copy)?))
}

/// Puts `file` in the place of what was `seen`, unless another was there meanwhile.
pub(crate) fn put_after(root: &Arc<dyn Dir>, seen: &Seen, file: &KeyFile) -> Result<()> {
    let locked = lock_one(root)?;
    if read_both_through(root, locked.as_ref())?.0 != seen.0 {
        return Err(Error::LockChanged);
    }
    // The locked one is replaced last: until then nobody else gets its lock, and then nobody's `seen` is right.
    let [first, last] = match &locked {
        Some((copy, _)) if *copy == COPIES[0] => [COPIES[1], COPIES[0]],
        _ => COPIES,
    };
    write_copy(root, file, first)?;
    // An SMB share lets nobody rename over a file that is locked.
    drop(locked);
    write_copy(root, file, last)?;
    // Where the store has no locks another may have been at work all the same.
    let there = read_both(root)?.0;
    if there.len() == COPIES.len() && there.iter().all(|copy| copy == file) {
        Ok(())
    } else {
        Err(Error::LockChanged)
    }
}

/// A copy, and the handle that has its lock.
type Locked = (&'static str, Arc<dyn File>);

/// Locks a copy as long as it is held, the second if it is there; `None` where the store has no locks.
fn lock_one(root: &Arc<dyn Dir>) -> Result<Option<Locked>> {
    let locks = locks_dir(root)?;
    for copy in COPIES.into_iter().rev() {
        // Network file systems lock only what is open for writing.
        let Ok(file) = locks
            .open_file(copy.as_bytes(), Access::ReadWrite)
            .or_else(|_| locks.open_file(copy.as_bytes(), Access::Read))
        else {
            continue;
        };
        return match file.try_lock() {
            Ok(()) => Ok(Some((copy, file))),
            Err(e) if e.raw_os_error() == Some(libc::EWOULDBLOCK) => Err(Error::LockChanged),
            Err(_) => Ok(None),
        };
    }
    Ok(None)
}

/// What is wrong with the copies, though one of them may suffice: one is damaged or missing, or they differ.
/// Nothing where the key is kept elsewhere, nor of copies that this user may not read.
pub(crate) fn faults(root: &Arc<dyn Dir>) -> Vec<Error> {
    match read_both(root) {
        Ok((good, _)) if good.is_empty() => Vec::new(),
        Ok((good, broken)) => faults_of(&good, broken),
        Err(e) => faults_of(&[], vec![e]),
    }
}

fn faults_of(good: &[KeyFile], mut broken: Vec<Error>) -> Vec<Error> {
    broken.retain(|e| !matches!(e, Error::Io { .. }));
    if let [first, second] = good
        && first != second
    {
        let why = "not the same as owner-1: a `passwd` was interrupted, or one of them is damaged".to_owned();
        broken.push(Error::Damaged { object: object(COPIES[0]), why });
    }
    broken
}

/// The copies that parse, and why others do not; the last of those where none does.
fn read_both(root: &Arc<dyn Dir>) -> Result<(Vec<KeyFile>, Vec<Error>)> {
    read_both_through(root, None)
}

/// [`read_both`], the locked one by its own handle: an SMB share refuses all others.
fn read_both_through(root: &Arc<dyn Dir>, locked: Option<&Locked>) -> Result<(Vec<KeyFile>, Vec<Error>)> {
    let locks = locks_dir(root)?;
    let (mut good, mut broken, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for copy in COPIES {
        let handle = locked.filter(|(name, _)| *name == copy).map(|(_, file)| file);
        match read_copy(&locks, copy, handle) {
            Ok(Some(file)) => good.push(file),
            Ok(None) => missing.push(Error::Damaged { object: object(copy), why: "missing".to_owned() }),
            Err(e) => broken.push(e),
        }
    }
    if good.is_empty() {
        // Two that are missing are kept elsewhere.
        return broken.pop().map_or(Ok((good, missing)), Err);
    }
    broken.append(&mut missing);
    Ok((good, broken))
}

fn read_copy(locks: &Arc<dyn Dir>, copy: &str, handle: Option<&Arc<dyn File>>) -> Result<Option<KeyFile>> {
    let bytes = match handle {
        Some(file) => Some(layout::read_open(&**file, &object(copy), LEN_MAX)?),
        None => layout::read_if_there(locks, copy, &object(copy), LEN_MAX)?,
    };
    let Some(bytes) = bytes else { return Ok(None) };
    let file = KeyFile::parse(&bytes).map_err(|e| match e {
        Error::Damaged { why, .. } => Error::Damaged { object: object(copy), why },
        Error::UnknownVersion { version, .. } => Error::UnknownVersion { object: object(copy), version },
        e => e,
    })?;
    // A store must not make a token or a TPM count tries, nor have two copies tried on it.
    if file.needs_hardware() {
        let why = "its lock is of hardware, which nobody puts there".to_owned();
        return Err(Error::Damaged { object: object(copy), why });
    }
    Ok(Some(file))
}

fn locks_dir(root: &Arc<dyn Dir>) -> Result<Arc<dyn Dir>> {
    layout::open_dir(&layout::custody_dir(root)?, LOCKS, "custody/locks")
}

fn object(copy: &str) -> String {
    format!("custody/locks/{copy}")
}

/// One question, however many copies it is tried on.
struct AskOnce<'a> {
    prompt: &'a mut dyn Prompt,
    answer: Option<Zeroizing<Vec<u8>>>,
}

impl Prompt for AskOnce<'_> {
    fn passphrase(&mut self, label: &str) -> Result<Zeroizing<Vec<u8>>> {
        if let Some(answer) = &self.answer {
            return Ok(answer.clone());
        }
        let answer = self.prompt.passphrase(label)?;
        self.answer = Some(answer.clone());
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use runvault_crypto::passphrase::Params;
    use runvault_crypto::secrets::Secret;
    use runvault_format::hardware::{TpmLock, TpmWith};
    use runvault_format::key_file::{self, Lock};
    use runvault_store::doubles::memory::MemoryDir;

    use super::*;
    use crate::init::init;
    use crate::testing::{copy, custody, get, killed_at, put, vault};

    struct Says(&'static [u8], u32);

    impl Prompt for Says {
        fn passphrase(&mut self, _label: &str) -> Result<Zeroizing<Vec<u8>>> {
            self.1 += 1;
            Ok(Zeroizing::new(self.0.to_vec()))
        }
    }

    /// As the command does, at once.
    fn passwd(root: &Arc<dyn Dir>, owner: &Identity, new: &NewLock) -> Result<Vec<String>> {
        super::passwd(root, owner, &seen(root)?, new)
    }

    fn passphrase(passphrase: &'static [u8]) -> NewLock<'static> {
        NewLock::Passphrase { passphrase, params: Params::FLOOR }
    }

    fn locks(root: &Arc<dyn Dir>) -> Arc<dyn Dir> {
        custody(root).open_dir(b"locks").unwrap()
    }

    /// Stretches a passphrase a dozen times, at the floor of the parameters.
    #[test]
    fn a_lock_of_hardware_in_the_store_asks_nothing_of_it() {
        let (root, owner) = (MemoryDir::root(), Identity::generate("owner").unwrap());
        init(&root, &owner, Some(&passphrase(b"x"))).unwrap();
        let with = TpmWith::value(&Secret::copy_from(&[1; 32]));
        let lock = Lock::Tpm2(TpmLock { public: vec![1], private: vec![1], pcrs: Vec::new(), with });
        let zeros = Secret::copy_from(&[0; 32]);
        let file = key_file::KeyFile::seal(owner.seed(), "owner", None, lock, &zeros).unwrap();
        for copy in COPIES {
            assert!(unlock(&root, &mut Says(b"x", 0)).is_ok());
            put(&locks(&root), copy, &file.to_bytes().unwrap());
        }
        let refused = unlock(&root, &mut Says(b"x", 0)).unwrap_err();
        assert!(refused.to_string().contains("its lock is of hardware"), "{refused}");
    }

    #[test]
    fn two_copies_one_passphrase() {
        let (root, owner) = (MemoryDir::root(), Identity::generate("owner").unwrap());
        let vault = init(&root, &owner, Some(&passphrase(b"first"))).unwrap();
        for copy in COPIES {
            assert_eq!(locks(&root).stat(copy.as_bytes()).unwrap().mode & 0o777, 0o600);
        }
        let (opened, faulty) = unlock(&root, &mut Says(b"first", 0)).unwrap();
        assert!(faulty.is_empty());
        assert_eq!((opened.id(), opened.vault), (owner.id(), Some(vault)));

        // One copy suffices, whichever; the other is missed.
        let one_fault = |store: &Arc<dyn Dir>, lost: &str| {
            let found = faults(store);
            matches!(&found[..], [Error::Damaged { object, .. }] if object.ends_with(lost))
        };
        assert!(faults(&root).is_empty());
        for lost in COPIES {
            let store = copy(&root);
            put(&locks(&store), lost, b"runvault/1 key\n{torn");
            assert_eq!(read(&store).unwrap().id(), owner.id());
            assert!(one_fault(&store, lost));
            locks(&store).unlink(lost.as_bytes()).unwrap();
            assert_eq!(read(&store).unwrap().id(), owner.id());
            assert!(one_fault(&store, lost));
        }
        let store = copy(&root);
        COPIES.iter().for_each(|lost| put(&locks(&store), lost, b"torn"));
        assert!(
            matches!(read(&store), Err(Error::Damaged { object, .. }) if object == "custody/locks/owner-1")
        );

        // A passwd that was killed between the copies: both passphrases open, each asked for once.
        let store = copy(&root);
        passwd(&store, &opened, &passphrase(b"second")).unwrap();
        let mut prompt = Says(b"first", 0);
        let refused = unlock(&store, &mut prompt).unwrap_err();
        assert!(matches!(refused, Error::WrongPassphrase { .. }) && prompt.1 == 1, "{refused}");
        put(&locks(&store), "owner-1", &get(&locks(&root), "owner-1"));
        assert!(one_fault(&store, "owner-0"));
        for passphrase in [&b"first"[..], b"second"] {
            let mut prompt = Says(passphrase, 0);
            let (opened, faulty) = unlock(&store, &mut prompt).unwrap();
            assert_eq!((opened.id(), faulty.len()), (owner.id(), 1));
            assert_eq!(prompt.1, 1);
        }
    }

    /// Stretches a passphrase four times, at the floor of the parameters.
    #[test]
    fn a_broken_copy_is_repaired_or_nothing_is_changed() {
        for broken in COPIES {
            let (root, owner) = (MemoryDir::root(), Identity::generate("owner").unwrap());
            init(&root, &owner, Some(&passphrase(b"first"))).unwrap();
            put(&locks(&root), broken, b"runvault/1 key\n{torn");
            let repaired = passwd(&root, &owner, &passphrase(b"second")).unwrap();
            assert!(repaired.len() == 1 && repaired[0].contains(broken), "{repaired:?}");
            assert_eq!(get(&locks(&root), "owner-0"), get(&locks(&root), "owner-1"));
            assert!(passwd(&root, &owner, &passphrase(b"third")).unwrap().is_empty());

            locks(&root).unlink(broken.as_bytes()).unwrap();
            locks(&root).create_dir(broken.as_bytes(), 0o755).unwrap();
            let other = if broken == COPIES[0] { COPIES[1] } else { COPIES[0] };
            let before = get(&locks(&root), other);
            let refused = passwd(&root, &owner, &passphrase(b"fourth")).unwrap_err();
            assert!(
                matches!(&refused, Error::Damaged { object, .. } if object.ends_with(broken)),
                "{refused}"
            );
            assert_eq!(get(&locks(&root), other), before);
        }
    }

    /// Stretches a passphrase six times, at the floor of the parameters.
    #[test]
    fn of_two_that_saw_the_same_lock_one_changes_it() {
        let owner = Identity::generate("owner").unwrap();
        let place = tempfile::tempdir().unwrap();
        for root in [MemoryDir::root(), runvault_store::posix::open_root(place.path()).unwrap()] {
            init(&root, &owner, Some(&passphrase(b"first"))).unwrap();
            let old = seen(&root).unwrap();
            super::passwd(&root, &owner, &old, &passphrase(b"second")).unwrap();
            let refused = super::passwd(&root, &owner, &old, &passphrase(b"third")).unwrap_err();
            assert!(matches!(refused, Error::LockChanged), "{refused}");
            let (opened, faulty) = unlock(&root, &mut Says(b"second", 0)).unwrap();
            assert!(opened.id() == owner.id() && faulty.is_empty());
        }
        // One that is at work.
        let root = runvault_store::posix::open_root(place.path()).unwrap();
        let (now, new) = (seen(&root).unwrap(), KeyFile::parse(&get(&locks(&root), "owner-0")).unwrap());
        let held = lock_one(&root).unwrap();
        assert!(held.as_ref().is_some_and(|(copy, _)| *copy == "owner-1"));
        assert!(matches!(put_after(&root, &now, &new), Err(Error::LockChanged)));
        drop(held);
        locks(&root).unlink(b"owner-1").unwrap();
        put_after(&root, &seen(&root).unwrap(), &new).unwrap();
        assert!(faults(&root).is_empty());
    }

    #[test]
    fn keys_that_do_not_belong_are_refused() {
        let (root, owner, _) = vault();
        assert!(matches!(read(&root), Err(Error::NoLock)));
        assert!(faults(&root).is_empty());
        assert!(matches!(unlock(&root, &mut Says(b"", 0)), Err(Error::NoLock)));
        assert!(matches!(passwd(&root, &owner, &passphrase(b"x")), Err(Error::NoLock)));
        let unlocked = key_files::lock(&owner, &NewLock::None, None).unwrap();
        assert!(matches!(write(&root, &unlocked), Err(Error::UnlockedInStore)));
        // Planted without a lock, it stands in for the owner's: another id than `passwd` was given.
        put(&locks(&root), "owner-0", &unlocked.to_bytes().unwrap());
        let other = Identity::generate("other").unwrap();
        assert!(matches!(passwd(&root, &other, &passphrase(b"x")), Err(Error::WrongKey { .. })));
    }

    #[test]
    fn a_write_killed_anywhere_leaves_a_copy_that_parses() {
        let (start, owner, _) = vault();
        let mut file = key_files::lock(&owner, &NewLock::None, None).unwrap();
        let bytes = file.to_bytes().unwrap();
        COPIES.iter().for_each(|name| put(&locks(&start), name, &bytes));
        file = key_files::lock(&owner, &passphrase(b"x"), None).unwrap();
        for n in 0.. {
            let root = copy(&start);
            let killed = killed_at(&root, n, |root| write(root, &file));
            assert_eq!(read(&root).unwrap().id(), owner.id(), "call {n}");
            if killed.is_none() {
                break;
            }
        }
    }
}
