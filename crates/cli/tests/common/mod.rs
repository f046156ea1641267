//! Running the built program: without a terminal, without this process's environment of secrets.

pub mod agreeing;
pub mod pty;
pub mod recorded;

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use runvault_crypto::passphrase::Params;
use runvault_custody::key_files::{self, NewLock};
use runvault_custody::relock;
use runvault_format::ids::Digest;
use runvault_format::lease::Lease;
use tempfile::TempDir;

/// A passphrase that is strong enough to raise no warning.
pub const STRONG: &str = "outlet gravel sublime tanker veneer mossy pelican";

/// Commands that keep something on this machine; root's place for it is not for tests.
const KEEP_STATE: [&str; 20] = [
    "mount", "doctor", "status", "ls", "cat", "cp", "check", "passwd", "custody", "gateway", "takeover",
    "runs", "seal", "verify", "scrub", "manifest", "audit", "exposure", "rekey", "retire",
];

/// A folder of its own for each test, and the program run in it.
pub struct Scratch {
    folder: TempDir,
}

impl Scratch {
    pub fn new() -> Scratch {
        let folder = tempfile::Builder::new().prefix("runvault-cli-").tempdir().expect("a temporary folder");
        Scratch { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file that only its owner reads.
    pub fn secret(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("its mode");
        path
    }

    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("a folder");
        path
    }

    /// The program, with a home, a state folder and a working folder below this one.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runvault"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        let offline = matches!(args, ["custody", "show" | "approve", ..]);
        let keeps = args.first().is_some_and(|name| KEEP_STATE.contains(name)) && !offline;
        if keeps && !args.contains(&"--help") && !args.contains(&"--state") {
            command.arg("--state").arg(self.path("state"));
        }
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.folder.path());
        // SAFETY: setsid(2) is async-signal-safe; the child then has no terminal to ask on.
        unsafe { command.pre_exec(|| rustix::process::setsid().map(|_| ()).map_err(Into::into)) };
        command
    }

    /// Runs it to its end; whatever happens it must not panic.
    pub fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(self.command(args))
    }

    /// A vault in `store` whose unlocked key is `owner.key`.
    pub fn vault(&self) -> PathBuf {
        let made = self.run(&["init", "--no-lock", "--identity", "owner.key", "store"]);
        assert_eq!(made.code, 0, "{}", made.all());
        self.path("store")
    }

    /// The ids of the runs in `store`.
    pub fn runs(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.path("store/runs")).expect("runs");
        let names = names.map(|run| run.expect("a run").file_name().into_string().expect("UTF-8"));
        names.filter(|name| name.len() == 32).collect()
    }

    /// Puts an unlocked key file under `STRONG`, at the least cost that is taken: for tests of something else.
    pub fn lock_cheaply(&self, name: &str) {
        let seen = relock::Seen::read(&self.path(name), false).expect("a key file");
        let identity = key_files::unlock(seen.file(), &mut key_files::NoPrompt).expect("its key");
        let lock = NewLock::Passphrase { passphrase: STRONG.as_bytes(), params: Params::FLOOR };
        seen.relock(&identity, &lock).expect("another lock");
    }

    /// A vault in `store` whose key is in the store, under `STRONG` as [`Scratch::lock_cheaply`]; unlocked in
    /// `owner.key`, and the passphrase in `pass`.
    pub fn vault_with_a_lock(&self) {
        self.vault();
        self.secret("pass", STRONG);
        std::fs::copy(self.path("owner.key"), self.path("locked.key")).expect("a copy");
        self.lock_cheaply("locked.key");
        for copy in ["owner-0", "owner-1"] {
            let bytes = std::fs::read(self.path("locked.key")).expect("a key file");
            self.secret(&format!("store/custody/locks/{copy}"), bytes);
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Outcome {
    pub fn of(mut command: Command) -> Outcome {
        let Output { status, stdout, stderr } = command.output().expect("the program starts");
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        assert!(!stderr.contains("panicked"), "{stderr}");
        Outcome { code: status.code().unwrap_or(-1), stdout, stderr }
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn all(&self) -> String {
        format!("{}{}", self.out(), self.stderr)
    }

    /// Ends with this code and says this on standard error.
    #[track_caller]
    pub fn refused(&self, code: i32, says: &str) -> &Outcome {
        assert_eq!(self.code, code, "{}", self.all());
        assert!(self.stderr.contains(says), "{says:?} is not in {}", self.stderr);
        self
    }

    #[track_caller]
    pub fn done(&self) -> &Outcome {
        assert_eq!(self.code, 0, "{}", self.all());
        self
    }
}

/// A vault with the run `run`, whose lease says that another host writes it.
pub fn held_elsewhere(scratch: &Scratch) {
    scratch.vault();
    scratch.folder("run");
    scratch.secret("run/RunInfo.xml", "<RunInfo/>");
    scratch.run(&["cp", "-r", "--identity", "owner.key", "run", "store:/"]).done();
    let lease = Lease {
        holder: "0123456789abcdef0123456789abcdef".into(),
        host: Digest([7; 32]),
        boot: "11111111-2222-3333-4444-555555555555".into(),
        pid: 4711,
        start: 1,
        seq: 9,
    };
    let runs = std::fs::read_dir(scratch.path("store/runs")).unwrap();
    for run in runs {
        std::fs::write(run.unwrap().path().join("lease"), lease.to_bytes().unwrap()).unwrap();
    }
}

/// Gives a command another clock, such as `+400d`.
///
/// # Panics
/// Without Debian's libfaketime.
pub fn faketime(command: &mut Command, clock: &str) {
    let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
    assert!(Path::new(&library).exists(), "{library}: Debian's libfaketime");
    command.env("LD_PRELOAD", library).env("FAKETIME", clock).env("NO_FAKE_STAT", "1");
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Whether bytes hold a text.
pub fn holds(bytes: &[u8], text: impl AsRef<OsStr>) -> bool {
    let text = text.as_ref().as_encoded_bytes();
    bytes.windows(text.len()).any(|window| window == text)
}
