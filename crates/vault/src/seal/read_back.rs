//! A seal as the store gives it back, before the run's key is erased here.

use std::io;
use std::sync::Arc;

use runvault_format::digests::Kind as Digested;
use runvault_format::ids::RunId;
use runvault_store::backend::{Access, Dir};
use runvault_store::read_whole::read_open;

use super::read::{Seal, hash};
use super::{DIGESTS, MANIFEST, NOTE, PINS, SEAL};
use crate::authority::Authority;
use crate::file::RunContext;
use crate::outcome::part_opened;
use crate::{Damage, Error, Result};

/// An envelope has some 1,300 bytes.
const ENVELOPE_MAX: usize = 1 << 16;

/// Everything that the owner needs to open the run and to prove it, past what the kernel has of it: the note, what it
/// names, and the envelopes.
///
/// # Errors
/// [`Damage::Run`] with what is missing or another; the store's.
pub(super) fn read_back(
    root: &Arc<dyn Dir>,
    dir: &Arc<dyn Dir>,
    run: &RunId,
    authority: &dyn Authority,
    context: &Arc<RunContext>,
) -> Result<Seal> {
    let object = |name: &str| format!("runs/{run}/{name}");
    let refuse = |name: &str, what: &str| Err(Error::damaged(object(name), Damage::Run(what.to_owned())));
    let place = dir.open_dir(SEAL).map_err(|e| part_opened("open", object("seal"), e))?;
    for name in [NOTE, DIGESTS, MANIFEST, PINS] {
        let file = place.open_file(name.as_bytes(), Access::Read);
        file.map_err(|e| part_opened("read back", object(&format!("seal/{name}")), e))?.will_not_need();
    }
    let seal = Seal::load(root, run, authority)?;
    let lines = seal.digests()?;
    seal.manifest(context)?;
    for name in [MANIFEST, PINS] {
        let path = format!("seal/{name}");
        let found =
            hash(&*place, name.as_bytes()).map_err(|e| Error::store("read back", object(&path), e))?;
        if !lines.iter().any(|line| line.path == path && line.kind == Digested::File(found)) {
            return refuse(&path, "other bytes than were written");
        }
    }
    let keys = dir.open_dir(b"keys").map_err(|e| part_opened("open", object("keys"), e))?;
    let (sealed, current) = (envelopes(&*place), envelopes(&*keys));
    let (sealed, current) = sealed
        .and_then(|sealed| Ok((sealed, current?)))
        .map_err(|e| Error::store("read back the envelopes of", object("keys"), e))?;
    if sealed.is_empty() || current.is_empty() {
        return refuse("keys", "an envelope of the run's key is missing");
    }
    // A rotation may have replaced those in keys/ since.
    let other = |(name, bytes)| current.iter().any(|(known, found)| known == name && found != bytes);
    if sealed.iter().any(|(name, bytes)| bytes.is_empty() || other((name, bytes))) {
        return refuse("keys", "an envelope of the run's key is another than in its seal");
    }
    Ok(seal)
}

/// Names and bytes of the envelopes to the vault's keys.
pub(super) fn envelopes(dir: &dyn Dir) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut names = Vec::new();
    dir.entries(0, &mut |entry| {
        names.extend(String::from_utf8(entry.name).ok().filter(|name| name.starts_with("vault-")));
        true
    })?;
    names.into_iter().map(|name| Ok((name.clone(), fresh(dir, &name, ENVELOPE_MAX)?))).collect()
}

/// A small file, past what the kernel has of it.
pub(super) fn fresh(dir: &dyn Dir, name: &str, max: usize) -> io::Result<Vec<u8>> {
    let file = dir.open_file(name.as_bytes(), Access::Read)?;
    file.will_not_need();
    read_open(&*file, max)
}
