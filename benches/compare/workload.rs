//! The rows: what a sequencer, and who reads after it, does to a directory.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use rustix::fs::{Advice, fadvise};

const MIB: u64 = 1 << 20;
const CYCLES: usize = 80;
const TILES: usize = 25;
const APPENDS: usize = 20_000;
const READS: u64 = 3000;
const OVERWRITES: u64 = 2000;
const TIB: u64 = 1 << 40;

/// What rows work with.
pub(crate) struct Load {
    pub(crate) mib: u64,
    names: u64,
    pub(crate) block: Vec<u8>,
}

impl Load {
    pub(crate) fn new(mib: u64, names: u64) -> Result<Self> {
        let mut block = vec![0; MIB as usize];
        File::open("/dev/urandom")?.read_exact(&mut block)?;
        Ok(Self { mib, names, block })
    }
}

/// A timed operation. Rows run in order, and use what earlier ones left.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// The kernel's caches are dropped before it. Such a row only reads, so that a round may take it again.
    pub(crate) cold: bool,
    /// Before the clock starts.
    pub(crate) prepare: Option<fn(&Path) -> Result<()>>,
    /// Gives the amount done, in `unit` times seconds.
    pub(crate) run: fn(&Path, &Load) -> Result<f64>,
    /// It works on the large file, not on the small ones.
    pub(crate) of_large_file: bool,
    /// Printed; others run because later rows need them.
    pub(crate) shown: bool,
}

impl Row {
    /// How often a round takes it. Some take 20 ms, which one task switch of another program lengthens by a tenth.
    pub(crate) fn times(&self) -> usize {
        if self.cold { 3 } else { 1 }
    }
}

fn row(name: &'static str, unit: &'static str, run: fn(&Path, &Load) -> Result<f64>) -> Row {
    Row { name, unit, cold: false, prepare: None, run, of_large_file: false, shown: true }
}

fn cold(row: Row) -> Row {
    Row { cold: true, ..row }
}

fn of_large_file(row: Row) -> Row {
    Row { of_large_file: true, ..row }
}

/// The operations of a run: large streams, tiles, logs, and their reading.
pub(crate) fn usual() -> Vec<Row> {
    vec![
        of_large_file(row("sequential write + fsync", "MB/s", write_large)),
        of_large_file(cold(row("sequential read, cold", "MB/s", read_large))),
        of_large_file(cold(row("random read 64 KiB", "op/s", |dir, load| {
            read_randomly(dir, load, 64 << 10)
        }))),
        of_large_file(cold(row("random read 4 KiB", "op/s", |dir, load| read_randomly(dir, load, 4 << 10)))),
        of_large_file(row("random write 4 KiB + fsync", "op/s", overwrite_randomly)),
        Row { prepare: Some(remove_large), ..row("create 64 KiB files", "file/s", create_tiles) },
        row("append 200 bytes + fsync", "op/s", append),
        cold(row("walk + stat, cold", "file/s", walk_and_stat)),
        cold(row("read small files, cold", "file/s", read_tiles)),
        row("unlink", "file/s", unlink_all),
    ]
}

/// Of [`usual`], those that make the files that [`reads_of_a_run`] read.
pub(crate) fn writes_of_a_run() -> Vec<Row> {
    let writes = ["sequential write + fsync", "create 64 KiB files"];
    usual().into_iter().filter(|row| writes.contains(&row.name)).collect()
}

/// Of [`usual`], those that only read.
pub(crate) fn reads_of_a_run() -> Vec<Row> {
    usual().into_iter().filter(|row| row.cold).collect()
}

/// What memory has to be bounded for.
pub(crate) fn large() -> Vec<Row> {
    vec![
        row("write 1 MiB each GiB of 1 TiB + fsync", "MB/s", write_sparse),
        cold(row("read them back, cold", "MB/s", read_sparse)),
        Row { prepare: Some(remove_sparse), ..row("create names in one directory", "file/s", create_names) },
        cold(row("list them, cold", "file/s", list_names)),
        row("stat each", "file/s", stat_names),
        row("remove them", "file/s", remove_names),
    ]
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn large_file(dir: &Path) -> PathBuf {
    dir.join("large")
}

fn remove_large(dir: &Path) -> Result<()> {
    Ok(fs::remove_file(large_file(dir))?)
}

fn write_large(dir: &Path, load: &Load) -> Result<f64> {
    let mut file = File::create(large_file(dir))?;
    for _ in 0..load.mib {
        file.write_all(&load.block)?;
    }
    file.sync_all()?;
    Ok(megabytes(load.mib * MIB))
}

fn read_large(dir: &Path, load: &Load) -> Result<f64> {
    let mut file = File::open(large_file(dir))?;
    let mut buffer = vec![0; MIB as usize];
    for _ in 0..load.mib {
        file.read_exact(&mut buffer)?;
    }
    ensure!(buffer == load.block, "read something else than was written");
    Ok(megabytes(load.mib * MIB))
}

fn read_randomly(dir: &Path, load: &Load, size: u64) -> Result<f64> {
    let file = File::open(large_file(dir))?;
    fadvise(&file, 0, None, Advice::Random)?;
    let mut buffer = vec![0; size as usize];
    let mut places = Places(1);
    for _ in 0..READS {
        file.read_exact_at(&mut buffer, places.next(load.mib * MIB / size) * size)?;
    }
    Ok(READS as f64)
}

fn overwrite_randomly(dir: &Path, load: &Load) -> Result<f64> {
    let file = OpenOptions::new().read(true).write(true).open(large_file(dir))?;
    let page = load.block.split_at(4 << 10).0;
    let mut places = Places(2);
    for _ in 0..OVERWRITES {
        file.write_all_at(page, places.next(load.mib * 256) << 12)?;
    }
    file.sync_all()?;
    Ok(OVERWRITES as f64)
}

fn create_tiles(dir: &Path, load: &Load) -> Result<f64> {
    let tile = load.block.split_at(64 << 10).0;
    for cycle in 0..CYCLES {
        let cycle = dir.join(format!("C{cycle}.1"));
        fs::create_dir(&cycle)?;
        for number in 0..TILES {
            File::create(cycle.join(format!("s_1_{}.cbcl", 1101 + number)))?.write_all(tile)?;
        }
    }
    Ok((CYCLES * TILES) as f64)
}

fn append(dir: &Path, load: &Load) -> Result<f64> {
    let record = load.block.split_at(200).0;
    let mut log = OpenOptions::new().create(true).append(true).open(dir.join("InterOp.bin"))?;
    for _ in 0..APPENDS {
        log.write_all(record)?;
    }
    log.sync_all()?;
    Ok(APPENDS as f64)
}

fn walk_and_stat(dir: &Path, _: &Load) -> Result<f64> {
    walk(dir, &mut |file| {
        fs::symlink_metadata(file)?;
        Ok(())
    })
}

fn read_tiles(dir: &Path, _: &Load) -> Result<f64> {
    let mut buffer = Vec::new();
    walk(dir, &mut |file| {
        buffer.clear();
        File::open(file)?.read_to_end(&mut buffer)?;
        Ok(())
    })
}

fn unlink_all(dir: &Path, _: &Load) -> Result<f64> {
    let mut removed = 0.0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            removed += walk(&entry.path(), &mut |file| Ok(fs::remove_file(file)?))?;
            fs::remove_dir(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
            removed += 1.0;
        }
    }
    Ok(removed)
}

/// Visits the files of a directory and of those in it; how many there were.
fn walk(dir: &Path, visit: &mut dyn FnMut(&Path) -> Result<()>) -> Result<f64> {
    let mut files = 0.0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files += walk(&entry.path(), visit)?;
        } else {
            visit(&entry.path())?;
            files += 1.0;
        }
    }
    Ok(files)
}

fn write_sparse(dir: &Path, load: &Load) -> Result<f64> {
    let file = File::create(dir.join("sparse"))?;
    file.set_len(TIB)?;
    for gib in 0..1024 {
        file.write_all_at(&load.block, gib << 30)?;
    }
    file.sync_all()?;
    Ok(megabytes(1024 * MIB))
}

fn read_sparse(dir: &Path, load: &Load) -> Result<f64> {
    let file = File::open(dir.join("sparse"))?;
    ensure!(file.metadata()?.len() == TIB, "the sparse file has another size");
    let mut buffer = vec![0; MIB as usize];
    for gib in 0..1024 {
        file.read_exact_at(&mut buffer, gib << 30)?;
        ensure!(buffer == load.block, "read something else than was written");
    }
    file.read_exact_at(&mut buffer, (1 << 30) - MIB)?;
    ensure!(buffer.iter().all(|byte| *byte == 0), "a hole is not zero");
    Ok(megabytes(1024 * MIB))
}

fn remove_sparse(dir: &Path) -> Result<()> {
    Ok(fs::remove_file(dir.join("sparse"))?)
}

fn name(dir: &Path, number: u64) -> PathBuf {
    dir.join("names").join(format!("s_1_{number:08}.bcl.bgzf"))
}

fn create_names(dir: &Path, load: &Load) -> Result<f64> {
    fs::create_dir(dir.join("names"))?;
    for number in 0..load.names {
        File::create_new(name(dir, number))?;
    }
    Ok(load.names as f64)
}

fn list_names(dir: &Path, load: &Load) -> Result<f64> {
    let listed = fs::read_dir(dir.join("names"))?.try_fold(0u64, |n, entry| entry.map(|_| n + 1))?;
    ensure!(listed == load.names, "{listed} names listed of {}", load.names);
    Ok(load.names as f64)
}

fn stat_names(dir: &Path, load: &Load) -> Result<f64> {
    (0..load.names).try_for_each(|number| fs::symlink_metadata(name(dir, number)).map(drop))?;
    Ok(load.names as f64)
}

fn remove_names(dir: &Path, load: &Load) -> Result<f64> {
    (0..load.names).try_for_each(|number| fs::remove_file(name(dir, number)))?;
    fs::remove_dir(dir.join("names"))?;
    Ok(load.names as f64)
}

/// The same pseudo-random places for everyone (xorshift64*, seeded).
struct Places(u64);

impl Places {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % below.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_run_in_order_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let load = Load::new(1, 20).unwrap();
        for row in usual().into_iter().chain(large()) {
            if let Some(prepare) = row.prepare {
                prepare(dir.path()).unwrap();
            }
            assert!((row.run)(dir.path(), &load).unwrap() > 0.0, "{}", row.name);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
