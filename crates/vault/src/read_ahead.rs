//! Records of subdirectories, brought from the disk together: a listing with attributes reads them one
//! after the other, and would wait for each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use runvault_format::name::RECORD;
use runvault_format::size::HEADER;
use runvault_store::backend::{Access, Dir};

use crate::cores;

/// Records that are waited for at a time.
const AT_ONCE: usize = 8;
/// What takes longer came from a disk; a record in the kernel's memory takes a tenth of it.
const SLOW: Duration = Duration::from_micros(80);

/// Reads the records of the subdirectories `names` of `dir` for the kernel to keep, if the first one shows that
/// they are not in memory. A hint only: what cannot be read is left to whoever needs it.
pub(crate) fn bring_records(dir: &dyn Dir, names: &[&[u8]]) {
    let [first, rest @ ..] = names else { return };
    let begun = Instant::now();
    bring(dir, first);
    if rest.is_empty() || begun.elapsed() < SLOW {
        return;
    }
    let next = AtomicUsize::new(0);
    cores::on(AT_ONCE.min(rest.len()), &|| {
        while let Some(name) = rest.get(next.fetch_add(1, Ordering::Relaxed)) {
            bring(dir, name);
        }
    });
}

fn bring(dir: &dyn Dir, name: &[u8]) {
    let record = dir.open_dir(name).and_then(|sub| sub.open_file(RECORD, Access::Read));
    let _ = record.and_then(|file| file.read_at(&mut [0; HEADER as usize], 0));
}

#[cfg(test)]
mod tests {
    use runvault_store::doubles::faulty::{Fault, Faults, Rule};
    use runvault_store::doubles::memory::MemoryDir;
    use runvault_store::doubles::observe::Op;

    use super::*;

    fn until(what: &str, done: impl Fn() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A record that let itself be waited for shows that the others lie on a disk too.
    #[test]
    fn records_are_waited_for_together() {
        let (store, faults) = Faults::over(MemoryDir::root()).unwrap();
        let names: Vec<Vec<u8>> = (0..20).map(|i| format!("d{i}").into_bytes()).collect();
        for name in &names {
            store.create_dir(name, 0o755).unwrap();
            store.open_dir(name).unwrap().create_file(RECORD, 0o644).unwrap();
        }
        faults.add(Rule::every(Op::OpenFile, Fault::Hang));
        // Not a scoped thread: a test that fails must not wait for calls that hang.
        let work = std::thread::spawn(move || {
            bring_records(&*store, &names.iter().map(Vec::as_slice).collect::<Vec<_>>());
        });
        until("the first is asked for", || faults.hanging() == 1);
        std::thread::sleep(2 * SLOW);
        faults.release();
        until("the others are asked for together", || faults.hanging() == AT_ONCE);
        faults.clear();
        work.join().unwrap();
    }
}
