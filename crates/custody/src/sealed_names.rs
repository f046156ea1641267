//! Which names were sealed here: a run that is made under one of them adds to it. The names themselves are not kept.
//!
//! A line each: HMAC-SHA-256 of the name under a key of the gateway's, cut to 16 bytes, in hex; the run; the text hash
//! of its seal. The last line of a name counts.

use std::collections::HashMap;
use std::sync::Arc;

use runvault_crypto::digest::hmac_sha256;
use runvault_crypto::kdf::{hkdf_expand, hkdf_extract};
use runvault_crypto::secrets::Secret;
use runvault_format::ids::{Digest, RunId, Salt};
use runvault_format::labels;
use runvault_store::backend::{Access, Dir, File};
use runvault_store::read_whole::read_whole;

use crate::identity::Identity;
use crate::layout::SECRET_MODE;
use crate::state_folder::Folder;
use crate::{Error, Result};

const NAMES: &str = "sealed-names";
/// Lines of some hundred thousand runs.
const LEN_MAX: usize = 64 << 20;

/// The file, as it was read, and the key of its names.
pub(crate) struct SealedNames {
    folder: Folder,
    key: Secret<32>,
    known: HashMap<Salt, (RunId, Digest)>,
}

impl SealedNames {
    /// Of this gateway; lines that are none say nothing.
    pub(crate) fn open(folder: &Folder, gateway: &Identity) -> Result<Self> {
        let text = match read_whole(&**folder.dir(), NAMES.as_bytes(), LEN_MAX) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Vec::new(),
            text => text.map_err(|e| Error::io("read", folder.shown(NAMES), e))?,
        };
        let known = text.split(|b| *b == b'\n').filter_map(|line| {
            let mut parts = std::str::from_utf8(line).ok()?.split(' ');
            let parsed =
                (parts.next()?.parse().ok()?, (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?));
            parts.next().is_none().then_some(parsed)
        });
        let key = hkdf_expand(&hkdf_extract(b"", gateway.seed()), &[labels::CONTINUE]);
        Ok(Self { folder: folder.again(), key, known: known.collect() })
    }

    fn tag(&self, name: &[u8]) -> Salt {
        let mut tag = Salt([0; 16]);
        tag.0.copy_from_slice(&hmac_sha256(self.key.expose(), &[name])[..16]);
        tag
    }

    /// The newest run of that name that was sealed here, and its seal.
    pub(crate) fn get(&self, name: &[u8]) -> Option<(RunId, Digest)> {
        self.known.get(&self.tag(name)).copied()
    }

    /// A run of that name was sealed; durable.
    pub(crate) fn put(&mut self, name: &[u8], run: RunId, seal: Digest) -> Result<()> {
        let tag = self.tag(name);
        if self.known.get(&tag) == Some(&(run, seal)) {
            return Ok(());
        }
        let fail = |e| Error::io("write", self.folder.shown(NAMES), e);
        let file = open(self.folder.dir()).map_err(fail)?;
        // Behind a line that a power cut left short nothing would be read.
        let end = file.stat().map_err(fail)?.size;
        let line = format!("{}{tag} {run} {seal}\n", if end > 0 { "\n" } else { "" });
        file.write_at(line.as_bytes(), end).and_then(|()| file.sync_all()).map_err(fail)?;
        self.folder.dir().sync().map_err(fail)?;
        self.known.insert(tag, (run, seal));
        Ok(())
    }
}

fn open(dir: &Arc<dyn Dir>) -> std::io::Result<Arc<dyn File>> {
    match dir.open_file(NAMES.as_bytes(), Access::ReadWrite) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => dir.create_file(NAMES.as_bytes(), SECRET_MODE),
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use runvault_store::doubles::memory::MemoryDir;

    use super::*;

    #[test]
    fn names_are_known_again_and_not_kept() {
        let folder = Folder::on(MemoryDir::root());
        let gateway = Identity::generate("gateway").unwrap();
        let open = || SealedNames::open(&folder, &gateway).unwrap();
        let (first, second) = ((RunId([1; 16]), Digest([2; 32])), (RunId([3; 16]), Digest([4; 32])));
        let mut names = open();
        assert_eq!(names.get(b"240101_A00123"), None);
        names.put(b"240101_A00123", first.0, first.1).unwrap();
        names.put(b"240101_A00123", first.0, first.1).unwrap();
        names.put(b"other", first.0, first.1).unwrap();
        names.put(b"240101_A00123", second.0, second.1).unwrap();
        assert_eq!(open().get(b"240101_A00123"), Some(second));
        let text = read_whole(&**folder.dir(), NAMES.as_bytes(), 1 << 20).unwrap();
        assert_eq!(text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).count(), 3);
        assert!(!text.windows(5).any(|part| part == b"A0012" || part == b"other"));
        // A line that was cut costs no other.
        let file = folder.dir().open_file(NAMES.as_bytes(), Access::ReadWrite).unwrap();
        file.set_len(text.len() as u64 - 20).unwrap();
        let mut names = open();
        assert_eq!(names.get(b"240101_A00123"), Some(first));
        names.put(b"third", second.0, second.1).unwrap();
        assert_eq!((open().get(b"third"), open().get(b"other")), (Some(second), Some(first)));
        // Another gateway knows none of them.
        let stranger = Identity::generate("gateway").unwrap();
        assert_eq!(SealedNames::open(&folder, &stranger).unwrap().get(b"third"), None);
    }
}
