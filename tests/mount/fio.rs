//! fio reads a file again and again, past the kernel's memory, and knows each block of it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use runvault_tests::tools::leave_out;
use rustix::process::{Pid, Signal, kill_process};

const BLOCK: usize = 16 << 10;
const BLOCKS: usize = 256;

/// A file whose blocks say where they stand, as fio's `%o` does.
pub(crate) fn write(to: &Path) {
    let block = |i: usize| ((i * BLOCK) as u64).to_le_bytes().repeat(BLOCK / 8);
    fs::write(to, (0..BLOCKS).flat_map(block).collect::<Vec<u8>>()).expect("a file");
}

/// fio at work; it ends with the test.
pub(crate) struct Fio(Child);

impl Fio {
    /// Random reads of a file that [`write`] has written; `None` where fio is missing.
    pub(crate) fn reads(file: &Path) -> Option<Self> {
        let mut fio = Command::new("fio");
        fio.args(["--name=reader", "--readonly", "--rw=randread", "--ioengine=psync", "--direct=1"])
            .args(["--verify=pattern", "--verify_pattern=%o", "--time_based", "--runtime=10m"])
            .arg(format!("--bs={BLOCK}"))
            .arg(format!("--size={}", BLOCK * BLOCKS))
            .arg(format!("--filename={}", file.display()))
            .arg("--output-format=json");
        match fio.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                leave_out("fio is missing (scripts/setup test)");
                None
            }
            started => Some(Self(started.expect("started"))),
        }
    }

    /// Ends it; no read failed or gave other bytes. How many there were, and the longest.
    pub(crate) fn end(mut self) -> (u64, Duration) {
        kill_process(Pid::from_child(&self.0), Signal::INT).expect("a signal");
        let (out, err) = (self.0.stdout.take(), self.0.stderr.take());
        let said = std::io::read_to_string(out.expect("piped")).expect("its output");
        let failed = std::io::read_to_string(err.expect("piped")).expect("its errors");
        self.0.wait().expect("its end");
        // It says first that it was ended.
        let said = said.find('{').and_then(|from| serde_json::from_str(&said[from..]).ok());
        let said: serde_json::Value = said.unwrap_or_else(|| panic!("{failed}"));
        let job = &said["jobs"][0];
        let number = |of: &serde_json::Value| of.as_u64().unwrap_or_else(|| panic!("{job}"));
        assert_eq!(number(&job["error"]), 0, "{failed}");
        (number(&job["read"]["total_ios"]), Duration::from_nanos(number(&job["read"]["lat_ns"]["max"])))
    }
}

impl Drop for Fio {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
