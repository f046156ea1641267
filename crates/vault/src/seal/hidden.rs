//! What one tree of several sealed parts shows of each.

use std::collections::HashMap;

use runvault_format::ids::RunId;
use runvault_format::manifest::{Kind, Manifest};

use super::verify::paths;

/// What becomes of an entry of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is shown.
    Shown,
    /// A directory that an earlier part has too: both are one.
    Joined,
    /// An earlier part has the name: that one's is shown.
    Hidden {
        /// That part.
        by: RunId,
    },
    /// It is in a directory that is hidden.
    Below,
}

/// The names of the parts of a run, each with the part whose it is and whether it is a directory.
#[derive(Default)]
pub struct Shown(HashMap<Vec<u8>, (RunId, bool)>);

impl Shown {
    /// The entries of the next part, in their order, each with its path.
    pub fn add(&mut self, part: RunId, manifest: &Manifest) -> Vec<(Vec<u8>, Seen)> {
        let mut all: Vec<(Vec<u8>, Seen)> = Vec::with_capacity(manifest.entries.len());
        for (i, (entry, path)) in manifest.entries.iter().zip(paths(manifest)).enumerate() {
            let (record, above) =
                (&entry.record, all.get(entry.record.parent as usize).map(|(_, seen)| *seen));
            let is_dir = record.kind == Kind::Dir;
            let seen = match (above, self.0.get(&path)) {
                (Some(Seen::Hidden { .. } | Seen::Below), _) if i > 0 => Seen::Below,
                (_, Some((_, true))) if is_dir => Seen::Joined,
                (_, Some((by, _))) => Seen::Hidden { by: *by },
                (_, None) => {
                    self.0.insert(path.clone(), (part, is_dir));
                    Seen::Shown
                }
            };
            all.push((path, seen));
        }
        all
    }
}
