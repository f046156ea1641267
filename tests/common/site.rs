//! A throw-away vault with an unlocked identity, and its mounts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::tools::{output, printed, run, runvault};

/// Store, state folder, identity and mount point in one temporary directory.
pub struct Site {
    /// The vault's store.
    pub store: PathBuf,
    /// State folder of its gateway.
    pub state: PathBuf,
    /// The owner's unlocked key file.
    pub identity: PathBuf,
    /// An empty directory to mount on.
    pub at: PathBuf,
    dir: TempDir,
}

impl Site {
    /// A new vault below the system's temporary directory.
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// A new vault in memory (tmpfs).
    pub fn in_memory() -> Self {
        Self::below(Path::new("/dev/shm"))
    }

    /// A new vault whose store, state and mount point lie below `base`.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn below(base: &Path) -> Self {
        let site = Self::uninitialised(base);
        run(Command::new(runvault())
            .args(["init", "--no-lock", "--identity"])
            .arg(&site.identity)
            .arg(&site.store));
        site
    }

    /// The folders only, before `init`.
    ///
    /// # Panics
    /// If they cannot be made.
    pub fn uninitialised(base: &Path) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("runvault-test-")
            .tempdir_in(base)
            .expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        let (store, state, at) = (path("store"), path("state"), path("mnt"));
        for made in [&store, &state, &at] {
            fs::create_dir(made).expect("a directory");
        }
        Self { store, state, identity: path("owner.key"), at, dir }
    }

    /// The directory that holds all of it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `runvault ARGS --identity F --state DIR`, to be completed.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(runvault());
        command.args(args).arg("--identity").arg(&self.identity).arg("--state").arg(&self.state);
        command
    }

    /// What `status --json` says of a mount point or a store.
    pub fn status(&self, of: &Path) -> serde_json::Value {
        let said = run(self.command(&["status", "--json"]).arg(of)).stdout;
        serde_json::from_slice(&said).expect("JSON")
    }

    /// The text on a sealed run in its manifest.
    ///
    /// # Panics
    /// If `verify` finds anything.
    pub fn verified(&self, run_name: &Path) -> serde_json::Value {
        let verified = run(self.command(&["verify", "--json"]).arg(&self.store).arg(run_name));
        let said: serde_json::Value = serde_json::from_slice(&verified.stdout).expect("JSON");
        assert_eq!(said["summary"]["findings"], 0, "{said}");
        said["about"].clone()
    }

    /// A read-write mount.
    pub fn mount(&self) -> Mount {
        self.builder().mount()
    }

    /// A read-only mount, of open runs too.
    pub fn mount_read_only(&self) -> Mount {
        self.builder().args(["--read-only", "--open"]).mount()
    }

    /// Makes the state folder that of an enrolled gateway.
    pub fn enroll(&self) {
        run(&mut self.enrolling());
    }

    /// `runvault gateway enroll STORE` of this state folder, to be completed.
    pub fn enrolling(&self) -> Command {
        let fingerprint = run(Command::new(runvault()).arg("fingerprint").arg(&self.store)).stdout;
        let fingerprint = String::from_utf8(fingerprint).expect("UTF-8");
        let vault = fingerprint.lines().last().unwrap_or_default();
        let mut command = self.command(&["gateway", "enroll", "--fingerprint", vault]);
        command.arg(&self.store);
        command
    }

    /// A mount to be described further.
    pub fn builder(&self) -> MountBuilder {
        self.building(self.command(&["mount", "-f", "--log", "stderr"]))
    }

    /// A mount of the enrolled gateway, which is given no key.
    pub fn ingest(&self) -> MountBuilder {
        let mut command = Command::new(runvault());
        command.args(["mount", "-f", "--log", "stderr", "--ingest", "--state"]).arg(&self.state);
        self.building(command)
    }

    fn building(&self, command: Command) -> MountBuilder {
        MountBuilder {
            command,
            store: self.store.clone(),
            at: self.at.clone(),
            printed: self.dir.path().join("mount.log"),
            log: self.dir.path().join("mount.log"),
        }
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        detach(&self.at);
        open_bare(&self.at);
    }
}

/// A gateway's mount makes its bare mount point immutable: nothing could remove it.
pub fn open_bare(at: &Path) {
    let opened = fs::File::open(at).and_then(|dir| {
        let flags = rustix::fs::ioctl_getflags(&dir)?;
        Ok(rustix::fs::ioctl_setflags(&dir, flags - rustix::fs::IFlags::IMMUTABLE)?)
    });
    // What cannot be immutable is not.
    let _ = opened;
}

/// A mount to be made.
pub struct MountBuilder {
    command: Command,
    store: PathBuf,
    at: PathBuf,
    printed: PathBuf,
    log: PathBuf,
}

impl MountBuilder {
    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// One more variable of its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Another file for its log than what it prints goes to.
    pub fn log(self, log: &Path) -> Self {
        Self { log: log.to_owned(), ..self.instead("--log", log) }
    }

    /// With so few files that it may have open.
    pub fn descriptors(mut self, n: u32) -> Self {
        let mut command = Command::new("prlimit");
        command
            .arg(format!("--nofile={n}:{n}"))
            .arg(self.command.get_program())
            .args(self.command.get_args());
        self.command = command;
        self
    }

    /// Another mount point (made if missing).
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn at(mut self, at: &Path) -> Self {
        fs::create_dir_all(at).expect("a mount point");
        self.at = at.to_owned();
        self.log = at.with_extension("log");
        self.printed = self.log.clone();
        self
    }

    /// Another state folder: another machine, to the vault.
    ///
    /// # Panics
    /// If it was given none.
    pub fn state(self, state: &Path) -> Self {
        self.instead("--state", state)
    }

    /// Another key file: another person.
    ///
    /// # Panics
    /// If it was given none.
    pub fn identity(self, key: &Path) -> Self {
        self.instead("--identity", key)
    }

    fn instead(mut self, option: &str, value: &Path) -> Self {
        let args: Vec<_> = self.command.get_args().map(ToOwned::to_owned).collect();
        let mut command = Command::new(self.command.get_program());
        let at = args.iter().position(|arg| arg == option).unwrap_or_else(|| panic!("no {option}"));
        command.args(&args[..=at]).arg(value).args(&args[at + 2..]);
        self.command = command;
        self
    }

    /// Another store, such as a copy.
    pub fn store(mut self, store: &Path) -> Self {
        self.store = store.to_owned();
        self
    }

    /// Mounts; the mount answers when this returns.
    ///
    /// # Panics
    /// With the log, if it does not come up within 30 s.
    pub fn mount(self) -> Mount {
        self.try_mount().unwrap_or_else(|log| panic!("the mount did not come up:\n{log}"))
    }

    /// Mounts, or gives the log of why not.
    ///
    /// # Errors
    /// What the program printed.
    ///
    /// # Panics
    /// If the program cannot be started.
    pub fn try_mount(mut self) -> Result<Mount, String> {
        let printed = fs::File::create(&self.printed).expect("a file");
        self.command.arg(&self.store).arg(&self.at);
        self.command
            .stdin(Stdio::null())
            .stdout(printed.try_clone().expect("a second handle"))
            .stderr(printed);
        let mut child = self.command.spawn().expect("runvault starts");
        let until = Instant::now() + Duration::from_secs(30);
        // It answers `status` before it says so.
        let says_so = || fs::read_to_string(&self.log).is_ok_and(|log| log.contains("mounted at"));
        while Instant::now() < until {
            if is_mounted(&self.at) && says_so() {
                return Ok(Mount { child: Some(child), at: self.at, log: self.log });
            }
            if child.try_wait().expect("a child").is_some() {
                return Err(fs::read_to_string(&self.printed).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
        detach(&self.at);
        Err(fs::read_to_string(&self.printed).unwrap_or_default())
    }
}

/// A live mount; unmounted when dropped.
pub struct Mount {
    child: Option<Child>,
    /// Where it is mounted.
    pub at: PathBuf,
    log: PathBuf,
}

impl Mount {
    /// A path below the mount.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.at.join(name)
    }

    /// The process that serves it.
    ///
    /// # Panics
    /// After it was ended.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a live mount").id()
    }

    /// The greatest memory that the process has had, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        peak.trim().trim_end_matches("kB").trim().parse::<u64>().expect("KiB") << 10
    }

    /// What it has logged until now.
    pub fn log(&self) -> String {
        let until = Instant::now() + Duration::from_secs(5);
        while self.child.as_ref().is_some_and(|child| is_writing(child.id())) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where its log is; it stays when the mount goes.
    pub fn log_path(&self) -> PathBuf {
        self.log.clone()
    }

    /// `runvault unmount`: everything durable, the process gone.
    ///
    /// # Panics
    /// If it fails or the mount's process ends with another code than 0.
    pub fn unmount(mut self) {
        // A process that another test starts has our open files too, until it executes its program.
        let end = Instant::now() + Duration::from_secs(10);
        let done = loop {
            let done = output(Command::new(runvault()).arg("unmount").arg(&self.at));
            if done.status.code() != Some(5) || Instant::now() > end {
                break done;
            }
        };
        assert!(done.status.success(), "unmount: {}\n{}", printed(&done), self.log());
        let status = self.child.take().expect("a live mount").wait().expect("a child");
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// kill -9, and the dead mount taken away.
    ///
    /// # Panics
    /// If it cannot be killed.
    pub fn kill(mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill");
            child.wait().expect("a child");
        }
        detach(&self.at);
    }

    /// Waits until its log says it so often.
    ///
    /// # Panics
    /// With the log, if it does not within 90 s.
    pub fn logged(&self, says: &str, times: usize) {
        let until = Instant::now() + Duration::from_secs(90);
        while self.log().matches(says).count() < times {
            assert!(Instant::now() < until, "{says:?} is not {times} times in\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("signal");
    }

    /// Waits for its process to end by itself.
    ///
    /// # Panics
    /// If it does not within 60 s.
    pub fn wait(mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("a live mount");
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = child.try_wait().expect("a child") {
                return status;
            }
            if Instant::now() > until {
                let _ = child.kill();
                detach(&self.at);
                panic!("the mount did not end:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        detach(&self.at);
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// Whether a thread that writes lines has any left: it sleeps when it has none.
fn is_writing(process: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    threads.map(|thread| thread.path()).any(|thread| {
        let read = |name: &str| fs::read_to_string(thread.join(name)).unwrap_or_default();
        ["log", "stderr"].contains(&read("comm").trim()) && !read("stat").contains(") S ")
    })
}

/// Whether a FUSE file system is mounted exactly there.
pub fn is_mounted(at: &Path) -> bool {
    // Other mounts may have names of any bytes.
    let Ok(mounts) = fs::read("/proc/self/mounts") else { return false };
    let (mounts, at) = (String::from_utf8_lossy(&mounts), at.to_string_lossy());
    mounts.lines().any(|l| {
        let mut fields = l.split(' ').skip(1);
        fields.next() == Some(&at) && fields.next().is_some_and(|kind| kind.starts_with("fuse"))
    })
}

/// Takes a mount away, dead or alive; nothing happens where there is none.
pub fn detach(at: &Path) {
    if is_mounted(at) {
        let _ = output(Command::new("fusermount3").args(["-u", "-z", "-q"]).arg(at));
        if is_mounted(at) {
            let _ = output(Command::new("umount").arg("-l").arg(at));
        }
    }
}
