//! Whether a file system is one of this machine's disks.

use std::os::fd::AsFd;

/// statfs(2)'s numbers: ext2 to ext4, XFS, btrfs, tmpfs, F2FS, ZFS, bcachefs.
const LOCAL: [u64; 7] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010, 0x2fc1_2fc1, 0xca45_1a4e];

/// One that is not known counts as remote.
pub(super) fn is_local(dir: impl AsFd) -> bool {
    rustix::fs::fstatfs(dir).is_ok_and(|found| LOCAL.contains(&(found.f_type as u64 & 0xffff_ffff)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn only_file_systems_that_are_known_are_local() {
        assert!(is_local(File::open("/dev/shm").unwrap()));
        assert!(!is_local(File::open("/proc").unwrap()));
    }
}
