//! A TPM 2.0 in software (swtpm), for tpm2-tools.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::tools::{output, printed};

/// A running swtpm with a state of its own; ended when dropped.
pub struct SwTpm {
    child: Child,
    dir: TempDir,
}

impl SwTpm {
    /// A new TPM, which has nothing in it.
    ///
    /// # Panics
    /// If it does not start.
    pub fn new() -> Self {
        // Paths of sockets are short.
        let dir = TempDir::with_prefix("rv-tpm-").expect("a temporary directory");
        let socket = |name: &str| format!("type=unixio,path={}", dir.path().join(name).display());
        let mut command = Command::new("swtpm");
        command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"]);
        command.arg(format!("dir={}", dir.path().display()));
        // tpm2-tools look for the control socket under that name.
        command.args(["--server", &socket("tpm"), "--ctrl", &socket("tpm.ctrl")]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("swtpm starts");
        let tpm = Self { child, dir };
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let asked = output(tpm.command("tpm2_getcap").arg("handles-nv-index"));
            if asked.status.success() {
                return tpm;
            }
            assert!(Instant::now() < until, "swtpm does not answer: {}", printed(&asked));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The value of TPM2TOOLS_TCTI.
    pub fn tcti(&self) -> String {
        format!("swtpm:path={}", self.dir.path().join("tpm").display())
    }

    /// A program of tpm2-tools, to be completed.
    pub fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        command.env("TPM2TOOLS_TCTI", self.tcti());
        command
    }

    /// A file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The 64 bytes that an NV index holds, by its authorization value in hex; zeros where nothing was written yet.
    ///
    /// # Panics
    /// If it does not open.
    pub fn read(&self, index: u32, auth: &str) -> Vec<u8> {
        let number = format!("{index:#010x}");
        let mut read = self.command("tpm2_nvread");
        let done = output(read.args([&number, "-C", &number, "-P"]).arg(format!("hex:{auth}")));
        if printed(&done).contains("0x14A") {
            return vec![0; 64];
        }
        assert!(done.status.success(), "{}", printed(&done));
        done.stdout
    }
}

impl Default for SwTpm {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for SwTpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
