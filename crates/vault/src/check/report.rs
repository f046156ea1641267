//! What a check tells: each thing that it meets, and the sums.

use runvault_format::ids::RunId;
use runvault_store::backend::Kind;

/// What a check has met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckEvent {
    /// A run begins.
    Run {
        /// Its id.
        run: RunId,
        /// Its plaintext name; `None` where no key that is held opens it: it is left out.
        name: Option<Vec<u8>>,
    },
    /// A file was read, good or bad.
    File {
        /// Plaintext path from the mount's root.
        path: Vec<u8>,
        /// Plaintext bytes that were read: short holes between them count, long ones do not; 0 where
        /// another of its names came first.
        bytes: u64,
    },
    /// Something is tampered with or damaged.
    Damage {
        /// Its place in the store.
        object: String,
        /// Its plaintext path, where that is known.
        path: Option<Vec<u8>>,
        /// What was found.
        what: String,
    },
    /// This user may not read it; nothing is known of it.
    Unread {
        /// Its place in the store.
        object: String,
        /// Its plaintext path, where that is known.
        path: Option<Vec<u8>>,
        /// What the store answered.
        what: String,
    },
    /// A newer program made this run: it is left out.
    Newer {
        /// Its place in the store.
        object: String,
        /// Which version or suite.
        what: String,
    },
    /// A name in the store that is not ours; mounts hide it or do not look at it.
    Foreign {
        /// Its place in the store.
        object: String,
    },
    /// The side file of a name that is gone, or a file that was not put in place: a crash may leave one.
    Leftover {
        /// Its place in the store.
        object: String,
    },
}

/// What a check has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CheckSummary {
    pub runs: u64,
    /// Runs that no key held here opens.
    pub closed_runs: u64,
    /// Runs in a version or suite that this program does not know.
    pub newer_runs: u64,
    pub directories: u64,
    pub files: u64,
    /// Plaintext bytes that were read; short holes between them count.
    pub bytes: u64,
    /// Records in journals that authenticate.
    pub journal_records: u64,
    /// Records behind one that does not authenticate: no mount replays them.
    pub journal_records_behind: u64,
    pub foreign_names: u64,
    /// Side files whose name is gone, and files that were not put in place.
    pub leftovers: u64,
    pub unproven: Unproven,
    pub damages: u64,
    /// Objects that this user may not read.
    pub unread: u64,
}

/// What carries no proof of its place, counted by the names in the trees, which authenticate: only a seal can tell
/// whether an application put it there or someone without the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Unproven {
    /// Of no stored byte: without a header.
    pub empty_files: u64,
    /// Without a record, which every directory that a mount made has.
    pub empty_directories: u64,
    /// Their targets authenticate, for any place of the run.
    pub symlinks: u64,
    pub fifos: u64,
    pub sockets: u64,
    pub devices: u64,
}

impl Unproven {
    pub(super) fn met(&mut self, kind: Kind) {
        match kind {
            Kind::Symlink => self.symlinks += 1,
            Kind::Fifo => self.fifos += 1,
            Kind::Socket => self.sockets += 1,
            Kind::CharDevice | Kind::BlockDevice => self.devices += 1,
            Kind::File | Kind::Dir => {}
        }
    }
}
