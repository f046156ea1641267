//! What each row is to reach, as shares of a peer's and of the pass-through's rate.

use crate::subjects::Kind;

struct Target {
    row: &'static str,
    /// Of gocryptfs, in memory.
    memory: f64,
    /// Of gocryptfs, on a disk.
    disk: f64,
    /// Of the pass-through, in memory; on a disk the disk's mood decides.
    passthrough: f64,
}

const fn target(row: &'static str, memory: f64, disk: f64, passthrough: f64) -> Target {
    Target { row, memory, disk, passthrough }
}

const TARGETS: [Target; 10] = [
    target("sequential write + fsync", 1.1, 0.9, 0.85),
    target("sequential read, cold", 1.4, 1.3, 0.8),
    target("random read 64 KiB", 0.9, 1.0, 0.8),
    target("random read 4 KiB", 0.9, 1.0, 0.8),
    target("random write 4 KiB + fsync", 0.5, 0.6, 0.4),
    target("create 64 KiB files", 1.0, 1.2, 0.8),
    target("append 200 bytes + fsync", 1.4, 1.5, 0.7),
    target("walk + stat, cold", 1.0, 1.3, 0.85),
    target("read small files, cold", 1.0, 1.2, 0.85),
    target("unlink", 1.0, 1.2, 0.85),
];

/// Of an owner's mount, which a gateway's reaches in every row.
const INGEST: f64 = 0.95;

/// The share that `who` is to reach of `of` in a row; `None` where nothing is asked.
pub(crate) fn wanted(row: &str, who: Kind, of: Kind, in_memory: bool) -> Option<f64> {
    let target = TARGETS.iter().find(|target| target.row == row)?;
    match (who, of) {
        (Kind::Ingest, Kind::Runvault) => Some(INGEST),
        (Kind::Runvault, Kind::Gocryptfs) if in_memory => Some(target.memory),
        (Kind::Runvault, Kind::Gocryptfs) => Some(target.disk),
        (Kind::Runvault, Kind::Passthrough) if in_memory => Some(target.passthrough),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload;

    #[test]
    fn every_usual_row_has_one_and_each_is_of_a_row() {
        let rows: Vec<&str> = workload::usual().iter().map(|row| row.name).collect();
        assert!(rows.iter().all(|row| wanted(row, Kind::Runvault, Kind::Gocryptfs, true).is_some()));
        assert!(TARGETS.iter().all(|target| rows.contains(&target.row)));
        assert!(wanted("unlink", Kind::Runvault, Kind::Passthrough, false).is_none());
    }
}
