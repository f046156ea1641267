//! What lies beside the trees: names that are not ours, and other things in the place of ours.

use std::sync::Arc;

use runvault_format::envelope_file::EnvelopeName;
use runvault_format::ids::RunId;
use runvault_store::backend::{Dir, Kind};
use runvault_store::journal_files;
use runvault_store::replace::TEMPORARY;

use super::{CheckEvent, Checker};
use crate::lease::NAME as LEASE;
use crate::outcome::part_opened;
use crate::run_life::RETIRED;
use crate::seal::rekey::{PARTIAL, WORKER_SEED};
use crate::{Damage, Error};

/// What a run consists of.
const PARTS: [&[u8]; 7] = [b"run.json", b"keys", b"name", b"tree", LEASE, journal_files::DIRECTORY, b"seal"];
/// Of a seal that was not finished, and of a re-keying.
const BEGUN: [&[u8]; 4] = [b"seal.new", b"read-back", b"read-back.new", PARTIAL];
const OF_A_REKEYING: [&[u8]; 2] = [b"seal.new-", WORKER_SEED];

impl Checker<'_> {
    /// The directory of a run, but for what is in its tree. What does not open there is named by who needs it.
    pub(super) fn around_run(&mut self, run: &RunId, dir: &Arc<dyn Dir>) {
        let object = format!("runs/{run}");
        self.names(&**dir, &object, &|name| PARTS.contains(&name));
        if let Ok(keys) = dir.open_dir(b"keys") {
            self.names(&*keys, &format!("{object}/keys"), &is_parsed::<EnvelopeName>);
        }
        if let Ok(journal) = dir.open_dir(journal_files::DIRECTORY) {
            self.names(&*journal, &format!("{object}/journal"), &|name| journal_files::NAMES.contains(&name));
        }
        if dir.stat(LEASE).is_ok_and(|stat| stat.kind != Kind::File) {
            let object = format!("{object}/lease");
            self.damage(object.clone(), None, Error::damaged(object, Damage::Kind));
        }
    }

    /// The notes on runs that were removed; the first removal makes their directory.
    pub(super) fn retired(&mut self) {
        match self.root.open_dir(RETIRED.as_bytes()) {
            Ok(dir) => self.names(&*dir, RETIRED, &is_parsed::<RunId>),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            Err(e) => self.damage(RETIRED.to_owned(), None, part_opened("open", RETIRED, e)),
        }
    }

    /// Names every entry that is not ours.
    fn names(&mut self, dir: &dyn Dir, object: &str, ours: &dyn Fn(&[u8]) -> bool) {
        let mut others = Vec::new();
        let listed = dir.entries(0, &mut |entry| {
            if !ours(&entry.name) {
                others.push(entry.name);
            }
            true
        });
        if let Err(e) = listed {
            self.damage(object.to_owned(), None, Error::store("list", object, e));
        }
        for name in others {
            let object = format!("{object}/{}", String::from_utf8_lossy(&name));
            let begun =
                BEGUN.contains(&name.as_slice()) || OF_A_REKEYING.iter().any(|of| name.starts_with(of));
            if !name.starts_with(TEMPORARY) && !begun {
                self.foreign(object);
            } else if dir.stat(&name).is_ok() {
                self.summary.leftovers += 1;
                (self.report)(CheckEvent::Leftover { object });
            }
        }
    }
}

fn is_parsed<T: std::str::FromStr>(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|text| text.parse::<T>().is_ok())
}
