//! What carries no proof of its place: whether it was put there by an application or by someone without the
//! key, only a seal can tell.

use runvault_store::backend::Kind;

/// Names of such objects in the trees, whose text authenticates.
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
