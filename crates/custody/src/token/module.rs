//! Whether a PKCS#11 module may be loaded: its code runs in this process.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The module itself, links followed: a regular file at a whole path, that neither it nor a directory above it lets
/// anyone but root and this user exchange.
///
/// # Errors
/// [`Error::BadFile`].
pub(super) fn checked(path: &Path) -> Result<PathBuf> {
    let bad = |why: String| Error::BadFile { path: path.to_owned(), why };
    if !path.is_absolute() {
        return Err(bad("a PKCS#11 module is named by its whole path, from / on".to_owned()));
    }
    let real = std::fs::canonicalize(path).map_err(|e| bad(format!("the PKCS#11 module: {e}")))?;
    for at in real.ancestors() {
        let meta = std::fs::metadata(at).map_err(|e| bad(format!("{}: {e}", at.display())))?;
        if at == real && !meta.is_file() {
            return Err(bad("a PKCS#11 module is a regular file".to_owned()));
        }
        if others_may_exchange(&meta) {
            let why =
                format!("others may write {}: a module's code runs with every key in memory", at.display());
            return Err(bad(why));
        }
    }
    Ok(real)
}

/// In a sticky directory only the owner of a file exchanges it.
fn others_may_exchange(meta: &Metadata) -> bool {
    let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0;
    let ours = meta.uid() == 0 || meta.uid() == rustix::process::geteuid().as_raw();
    !ours || (meta.mode() & 0o022 != 0 && !sticky)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_module_that_others_could_have_put_there_is_not_loaded() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("folder");
        std::fs::create_dir(&folder).unwrap();
        let module = folder.join("module.so");
        std::fs::write(&module, b"code").unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        let refused = |path: &Path, says: &str| {
            let said = checked(path).unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        };
        mode(&folder, 0o755);
        mode(&module, 0o755);
        assert!(checked(&module).is_ok());
        let link = place.path().join("link.so");
        symlink(&module, &link).unwrap();
        assert_eq!(checked(&link).unwrap(), std::fs::canonicalize(&module).unwrap());
        refused(Path::new("module.so"), "whole path");
        refused(&folder, "regular file");
        refused(&folder.join("none.so"), "No such file");
        for open in [0o775, 0o757] {
            mode(&module, open);
            refused(&module, "others may write");
            mode(&module, 0o755);
            mode(&folder, open);
            refused(&link, "others may write");
            mode(&folder, 0o755);
        }
        mode(&folder, 0o1777);
        assert!(checked(&module).is_ok());
    }
}
