//! The names in a directory of the store.

use std::io::Result;

use crate::backend::Dir;

/// All names in a directory, in its own order.
///
/// # Errors
/// The store's.
pub fn names(dir: &dyn Dir) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    dir.entries(0, &mut |entry| {
        names.push(entry.name);
        true
    })?;
    Ok(names)
}
