//! A vault that is attacked: of three custodians two agree, a machine writes, two readers read. Made once, copied for
//! each test.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use runvault_custody::identity::Identity;
use runvault_custody::key_files::{self, NoPrompt};
use runvault_custody::quorum::request_file::RequestFile;
use runvault_format::custody_state::State;
use runvault_format::ids::VaultId;
use runvault_tests::snapshot::{assert_same, snapshot};
use runvault_tests::tools::{output, printed, runvault};
use tempfile::TempDir;

/// Names and bytes that nobody but a reader may find.
pub const SEALED: &str = "240101_NB501_0001_AHAURELIAQUENNESSEN";
pub const OPEN: &str = "240102_NB501_0002_AHBARNABYTHWAITE";
pub const FILE: &str = "of-a-patient-Clementine-Vasserot.txt";
pub const LINK: &str = "a-link-to-a-patient-Esmeralda-Featherstone";
pub const CONTENT: &str = "GATTACA of Clementine Vasserot, chromosome 7\n";

/// A folder with the vault in `store`, its gateway's state in `state`, the keys of all, and another vault of the same
/// people in `other`.
pub struct Vault {
    dir: TempDir,
}

/// What a command said, and how it ended.
pub struct Said {
    pub code: i32,
    pub text: String,
}

/// The folder, made by the commands that people type, in an archive.
static MADE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let vault = Vault::empty();
    vault.make();
    let tar = output(Command::new("tar").arg("-C").arg(vault.dir.path()).args(["-c", "."]));
    assert!(tar.status.success(), "{}", printed(&tar));
    tar.stdout
});

impl Vault {
    pub fn new() -> Self {
        let vault = Self::empty();
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(vault.dir.path()).arg("-x").stdin(Stdio::piped());
        let mut tar = tar.spawn().expect("tar starts");
        tar.stdin.take().expect("a pipe").write_all(&MADE).expect("written");
        assert!(tar.wait().expect("a child").success());
        vault
    }

    fn empty() -> Self {
        Self { dir: TempDir::with_prefix_in("runvault-attacks-", "/dev/shm").expect("a folder") }
    }

    fn make(&self) {
        for one in ["alice", "bob", "carol", "mallory", "lab", "guest"] {
            self.done(&format!("keygen --out {one}.key --no-lock"));
        }
        for store in ["other", "store"] {
            self.done(&format!(
                "init {store} --custodian alice=alice.key.pub --custodian bob=bob.key.pub \
                 --custodian carol=carol.key.pub --quorum 2"
            ));
        }
        let fingerprint = self.done("fingerprint store").lines().last().expect("an id").to_owned();
        self.done(&format!(
            "gateway enroll store --fingerprint {fingerprint} --out machine.req --name machine"
        ));
        self.agree("enroll-gateway machine.req");
        self.agree("add-reader lab=lab.key.pub --standing");
        self.agree("add-reader guest=guest.key.pub");
        for run in [SEALED, OPEN] {
            let folder = self.path(run);
            fs::create_dir(&folder).expect("a folder");
            fs::write(folder.join(FILE), CONTENT).expect("a file");
            fs::write(folder.join("another.txt"), CONTENT.replace('7', "8").repeat(1000)).expect("a file");
            std::os::unix::fs::symlink(LINK, folder.join("link")).expect("a link");
            self.done(&format!("cp -r {run} store:/ --identity lab.key"));
            fs::remove_dir_all(folder).expect("removed");
        }
        self.done(&format!("seal store {SEALED}"));
        for one in ["alice", "bob"] {
            self.done(&format!("custody confirm store --identity {one}.key"));
        }
        // The first vault key is an old one now, and its shares are.
        fs::create_dir(self.path("old")).expect("a folder");
        fs::copy(self.path("store/custody/state-0"), self.path("old/state-0")).expect("a copy");
        self.agree("rotate");
        self.agree(&format!("grant {} guest", self.run_id(SEALED)));
        for one in ["alice", "bob"] {
            self.done(&format!("custody confirm store --identity {one}.key"));
        }
        for used in ["req.req", "alice.req.ok", "bob.req.ok"] {
            fs::remove_file(self.path(used)).expect("what was used");
        }
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a command line; arguments hold no spaces. One that hangs is ended, and panics here.
    pub fn run(&self, line: &str) -> Said {
        self.run_with(line, &[])
    }

    /// [`Vault::run`], and well, by a clock that is an hour ahead: `library` is libfaketime.
    #[track_caller]
    pub fn done_later(&self, library: &Path, line: &str) -> String {
        let clock = [("LD_PRELOAD", library.as_os_str()), ("FAKETIME", "+3600".as_ref())];
        let quirks = [("FAKETIME_DONT_FAKE_MONOTONIC", "1".as_ref()), ("NO_FAKE_STAT", "1".as_ref())];
        let said = self.run_with(line, &[clock, quirks].concat());
        assert_eq!(said.code, 0, "{line}\n{}", said.text);
        said.text
    }

    fn run_with(&self, line: &str, environment: &[(&str, &OsStr)]) -> Said {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "60"]).arg(runvault()).args(&words).current_dir(self.dir.path());
        let keeps_nothing = ["init", "keygen", "key", "fingerprint", "unmount"].contains(&words[0])
            || matches!(words[..], ["custody", "show" | "approve", ..]);
        if !keeps_nothing && !words.contains(&"--state") {
            command.args(["--state", "state"]);
        }
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.dir.path());
        command.envs(environment.iter().copied());
        let said = output(&mut command);
        let (code, text) = (said.status.code().unwrap_or(-1), printed(&said));
        assert!(!text.contains("panicked") && (0..100).contains(&code), "{line}: {code}\n{text}");
        Said { code, text }
    }

    #[track_caller]
    pub fn done(&self, line: &str) -> String {
        let said = self.run(line);
        assert_eq!(said.code, 0, "{line}\n{}", said.text);
        said.text
    }

    /// Ends with that code, says that, and leaves every byte of the store as it was. Gives all that it said.
    #[track_caller]
    pub fn refused(&self, line: &str, code: i32, says: &str) -> String {
        let before = snapshot(&self.path("store"), true);
        let said = self.run(line);
        assert!(
            said.code == code && said.text.contains(says),
            "{line}: {} not {code}, {says:?}\n{}",
            said.code,
            said.text
        );
        assert_same(&snapshot(&self.path("store"), true), &before, line);
        said.text
    }

    /// `custody propose`, as `NAME.req`.
    pub fn propose(&self, what: &str, name: &str) {
        for old in [format!("{name}.req"), format!("{name}.req.executor")] {
            let _ = fs::remove_file(self.path(old));
        }
        self.done(&format!("custody propose store {what} --out {name}.req"));
    }

    /// `custody approve` of `NAME.req`, as `WHO.NAME.ok`.
    pub fn approve(&self, who: &str, name: &str) {
        let _ = fs::remove_file(self.path(format!("{who}.{name}.ok")));
        self.done(&format!(
            "custody approve {name}.req --identity {who}.key --out {who}.{name}.ok --yes --instead"
        ));
    }

    /// Proposed, approved by alice and bob, executed.
    pub fn agree(&self, what: &str) -> String {
        self.propose(what, "req");
        ["alice", "bob"].iter().for_each(|one| self.approve(one, "req"));
        self.done("custody execute store req.req --approval alice.req.ok --approval bob.req.ok")
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// A file, new or in the place of what was there; only its owner reads it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let _ = fs::remove_file(self.path(name));
        fs::write(self.path(name), bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        fs::set_permissions(self.path(name), PermissionsExt::from_mode(0o600)).expect("a mode");
    }

    /// Another text in the place of one that is there.
    #[track_caller]
    pub fn change(&self, name: &str, from: &str, to: &str) {
        let text = String::from_utf8(self.read(name)).expect("a text");
        assert!(text.contains(from), "{name} has no {from}");
        self.write(name, text.replace(from, to));
    }

    /// `cp -a`.
    pub fn copy(&self, from: &str, to: &str) {
        let done = output(Command::new("cp").arg("-aT").arg(self.path(from)).arg(self.path(to)));
        assert!(done.status.success(), "{}", printed(&done));
    }

    /// Id of a run of the store, by its name.
    pub fn run_id(&self, name: &str) -> String {
        let rows = self.done("runs store --identity lab.key --json");
        let id = |row: &str| serde_json::from_str::<serde_json::Value>(row).ok();
        let row = rows.lines().filter_map(id).find(|row| row["name"] == name);
        row.unwrap_or_else(|| panic!("{name}: {rows}"))["run"].as_str().expect("an id").to_owned()
    }

    /// Where a run lies, below the folder.
    pub fn run_at(&self, name: &str) -> String {
        format!("store/runs/{}", self.run_id(name))
    }

    /// An unlocked key file, opened.
    pub fn identity(&self, who: &str) -> Identity {
        self.key(&format!("{who}.key"))
    }

    /// The same, by the file's name.
    pub fn key(&self, file: &str) -> Identity {
        let file = key_files::read(&self.path(file), false).expect("a key file");
        key_files::unlock(&file, &mut NoPrompt).expect("no lock")
    }

    pub fn id(&self) -> VaultId {
        self.state().vault
    }

    /// The newest state.
    pub fn state(&self) -> State {
        self.state_at(&format!("store/custody/state-{}", self.lines()))
    }

    pub fn state_at(&self, name: &str) -> State {
        State::parse(&self.read(name)).expect("a state")
    }

    /// How many lines the audit log has.
    pub fn lines(&self) -> usize {
        self.read("store/custody/audit.log").iter().filter(|byte| **byte == b'\n').count()
    }

    pub fn request(&self, name: &str) -> RequestFile {
        RequestFile::parse(&self.read(&format!("{name}.req"))).expect("a request")
    }
}
