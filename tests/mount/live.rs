//! Mounts that are up follow what custody does: grants, revocations, removals, ends of time, rotations.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use runvault_tests::tools::{printed, run, runvault};
use runvault_tests::{Mount, MountBuilder, Random, Site};

/// More than the kernel reads ahead, so that a later read comes to the mount.
pub(crate) const LARGE: usize = 6 << 20;
/// Five seconds are promised, and as many more are a busy machine's.
const PATIENCE: Duration = Duration::from_secs(10);
/// What one of several may take: a machine is not busy all the time.
const PROMISED: Duration = Duration::from_secs(5);

/// A vault: of two out of three custodians, or of one owner.
pub(crate) struct Custody {
    pub(crate) site: Site,
    quorum: bool,
}

impl Custody {
    pub(crate) fn of_one_owner() -> Self {
        Self::of(Site::in_memory())
    }

    /// Its owner's.
    pub(crate) fn of(site: Site) -> Self {
        Self { site, quorum: false }
    }

    pub(crate) fn of_three() -> Self {
        let custody = Self { site: Site::uninitialised(Path::new("/dev/shm")), quorum: true };
        let mut init = Command::new(runvault());
        init.args(["init", "--quorum", "2"]).arg(&custody.site.store);
        for who in ["alice", "bob", "carol"] {
            init.arg("--custodian").arg(custody.named_key(who));
        }
        run(&mut init);
        for who in ["alice", "bob", "carol"] {
            let mut drill = custody.command(&["custody", "confirm"]);
            run(drill.arg(&custody.site.store).arg("--identity").arg(custody.key(who)));
        }
        custody
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(runvault());
        command.args(args).arg("--state").arg(self.site.dir().join("people"));
        command
    }

    pub(crate) fn key(&self, who: &str) -> PathBuf {
        self.site.dir().join(format!("{who}.key"))
    }

    /// `NAME=PUB` of a new key.
    pub(crate) fn named_key(&self, who: &str) -> String {
        run(Command::new(runvault()).args(["keygen", "--no-lock", "--out"]).arg(self.key(who)));
        format!("{who}={}.pub", self.key(who).display())
    }

    /// Agreed on and carried out.
    pub(crate) fn act(&self, what: &[&str]) {
        let store = &self.site.store;
        if !self.quorum {
            let mut act = self.command(&["custody", what[0]]);
            run(act.arg(store).args(&what[1..]).arg("--identity").arg(&self.site.identity));
            return;
        }
        let path = |name: &str| self.site.dir().join(name);
        for old in ["req", "req.executor", "alice.ok", "bob.ok"] {
            let _ = fs::remove_file(path(old));
        }
        run(self.command(&["custody", "propose"]).arg(store).args(what).arg("--out").arg(path("req")));
        for who in ["alice", "bob"] {
            let mut approve = Command::new(runvault());
            approve.args(["custody", "approve", "--yes"]).arg(path("req")).arg("--identity");
            run(approve.arg(self.key(who)).arg("--out").arg(path(&format!("{who}.ok"))));
        }
        let mut execute = self.command(&["custody", "execute"]);
        execute.arg(store).arg(path("req"));
        run(execute.args(["--approval"]).arg(path("alice.ok")).arg("--approval").arg(path("bob.ok")));
    }

    /// The machine that writes, mounted.
    pub(crate) fn gateway(&self) -> Mount {
        match self.quorum {
            true => self.enroll("novaseq", &self.site.state),
            false => self.site.enroll(),
        }
        self.site.ingest().args(["--quiet", "2s"]).mount()
    }

    /// A machine that custodians let in.
    pub(crate) fn enroll(&self, name: &str, state: &Path) {
        let said = run(Command::new(runvault()).arg("fingerprint").arg(&self.site.store)).stdout;
        let fingerprint = String::from_utf8(said).expect("UTF-8").lines().last().expect("words").to_owned();
        let request = self.site.dir().join(name).with_extension("req");
        let mut enroll = Command::new(runvault());
        enroll.args(["gateway", "enroll", "--name", name, "--fingerprint", &fingerprint, "--state"]);
        run(enroll.arg(state).arg(&self.site.store).arg("--out").arg(&request));
        self.act(&["enroll-gateway", request.to_str().expect("UTF-8")]);
    }

    /// A reader's mount, of open runs too.
    pub(crate) fn reader(&self, who: &str) -> Mount {
        self.reading(who, who).arg("--open").mount()
    }

    /// A reader's mount, at that place.
    pub(crate) fn reading(&self, who: &str, at: &str) -> MountBuilder {
        let place = |what: &str| self.site.dir().join(format!("{what}-{at}"));
        self.site.builder().identity(&self.key(who)).at(&place("at")).state(&place("state"))
    }

    pub(crate) fn seal(&self, name: &str) {
        let mut seal = Command::new(runvault());
        run(seal.args(["seal", "--state"]).arg(&self.site.state).arg(&self.site.store).arg(name));
    }

    /// A run with content, sealed; its id.
    pub(crate) fn sealed(&self, gateway: &Mount, name: &str) -> String {
        write_run(gateway, name);
        self.seal(name);
        let made = |run: &fs::DirEntry| {
            fs::metadata(run.path().join("run.json")).and_then(|meta| meta.modified()).expect("a time")
        };
        let runs = fs::read_dir(self.site.store.join("runs")).expect("runs").flatten();
        runs.max_by_key(made).expect("a run").file_name().into_string().expect("an id")
    }
}

pub(crate) fn write_run(gateway: &Mount, name: &str) {
    fs::create_dir_all(gateway.path(name).join("Data")).expect("a run");
    fs::write(gateway.path(name).join("RunInfo.xml"), name).expect("a file");
    fs::write(gateway.path(name).join("Data/large"), content(name)).expect("a large file");
}

pub(crate) fn content(name: &str) -> Vec<u8> {
    Random::of(name.len() as u64).bytes(LARGE)
}

pub(crate) fn shown(mount: &Mount) -> Vec<String> {
    let entries = fs::read_dir(&mount.at).expect("a mount").flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// Until it is so; how long that took is printed.
pub(crate) fn soon(what: &str, mount: &Mount, mut is_so: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}; it shows {:?}", shown(mount));
        sleep(Duration::from_millis(30));
    }
    println!("{what}: after {:.1} s", begun.elapsed().as_secs_f64());
    begun.elapsed()
}

fn all_below(at: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(at).expect("a directory").map(|entry| entry.expect("an entry").path());
    let below = |path: PathBuf| if path.is_dir() { all_below(&path) } else { Vec::new() };
    entries.flat_map(|path| [vec![path.clone()], below(path)].concat()).collect()
}

/// A page of a file, mapped.
pub(crate) struct Mapped(*const u8);

impl Mapped {
    pub(crate) fn of(file: &File) -> Self {
        // SAFETY: a new mapping of a whole file that nobody cuts.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), LARGE, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(at, libc::MAP_FAILED);
        Self(at.cast())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for reading, of that length, until this is dropped.
        unsafe { std::slice::from_raw_parts(self.0, LARGE) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: what was mapped.
        unsafe { libc::munmap(self.0.cast_mut().cast(), LARGE) };
    }
}

/// What a program has of a run when it is revoked.
struct InUse {
    file: File,
    mapped: Mapped,
    dir: File,
    seen: Vec<PathBuf>,
}

impl InUse {
    fn begin(mount: &Mount, name: &str) -> Self {
        let open = |path: &str| File::open(mount.path(name).join(path)).expect("a file");
        let (file, dir) = (open("Data/large"), open("Data"));
        let mut begin = [0; 4096];
        file.read_exact_at(&mut begin, 0).expect("the beginning");
        let seen = all_below(&mount.path(name));
        Self { mapped: Mapped::of(&file), file, dir, seen }
    }

    /// What is open goes on, with what is not in the kernel yet, and nothing else does.
    fn goes_on_alone(&self, mount: &Mount, name: &str) {
        let gone = |path: &Path| {
            let (opened, found) = (File::open(path).err(), fs::symlink_metadata(path).err());
            [opened, found].iter().all(|e| e.as_ref().and_then(|e| e.raw_os_error()) == Some(libc::ENOENT))
        };
        soon("what the kernel knew is gone", mount, || self.seen.iter().all(|path| gone(path)));
        assert!(!shown(mount).contains(&name.to_owned()), "{:?}", shown(mount));
        assert!(rustix::fs::openat(&self.dir, "large", rustix::fs::OFlags::RDONLY, 0.into()).is_err());
        let listed = rustix::fs::Dir::read_from(&self.dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        assert!(listed.is_err(), "{listed:?}");
        let known = content(name);
        let mut end = vec![0; 1 << 20];
        let at = (LARGE - end.len()) as u64;
        self.file.read_exact_at(&mut end, at).expect("the end");
        assert!(known.ends_with(&end) && self.mapped.bytes() == known);
        assert_eq!(self.file.metadata().expect("attributes").len(), LARGE as u64);
    }
}

/// Tells threads that it is over when it is dropped, also by a panic.
pub(crate) struct Ends<'a>(pub(crate) &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_quorum_grants_revokes_rotates_and_removes_under_mounts() {
    let custody = Custody::of_three();
    let mut took = Vec::new();
    let gateway = custody.gateway();
    let [one, two] = ["run one", "run number two"].map(|name| custody.sealed(&gateway, name));
    for terms in [&["dave"][..], &["erin", "--standing"]] {
        let key = custody.named_key(terms[0]);
        custody.act(&[&["add-reader", &key], &terms[1..]].concat());
    }
    let (dave, erin) = (custody.reader("dave"), custody.reader("erin"));
    assert_eq!((shown(&dave), shown(&erin)), (vec![], vec![]));
    custody.act(&["grant", &one, &two, "dave"]);
    took.push(soon("granted", &dave, || shown(&dave) == ["run number two", "run one"]));
    dave.logged("were granted, and are shown", 1);
    let in_use = InUse::begin(&dave, "run one");
    let other = InUse::begin(&dave, "run number two");

    let (over, at) = (AtomicBool::new(false), dave.path("run number two/RunInfo.xml"));
    std::thread::scope(|scope| {
        let reading = Ends(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert_eq!(fs::read(&at).expect("a file that stays"), b"run number two");
            }
        });
        custody.act(&["revoke", &one, "dave"]);
        write_run(&gateway, "a later run");
        // No vault key that the mounts know opens what is sealed from here on.
        custody.act(&["rotate"]);
        took.push(soon("revoked", &dave, || shown(&dave) == ["run number two"]));
        in_use.goes_on_alone(&dave, "run one");
        soon("a later run of a standing reader", &erin, || shown(&erin) == ["a later run"]);
        assert!(fs::read(erin.path("a later run/Data/large")).expect("read") == content("a later run"));
        fs::write(gateway.path("a later run/more"), b"more").expect("the gateway goes on");
        soon("what is written later", &erin, || fs::read(erin.path("a later run/more")).is_ok());
        drop(reading);
    });
    custody.act(&["grant", &one, "dave"]);
    took.push(soon("granted again", &dave, || shown(&dave) == ["run number two", "run one"]));
    assert!(fs::read(dave.path("run one/Data/large")).expect("read") == content("run one"));

    let later = InUse::begin(&erin, "a later run");
    custody.act(&["remove-reader", "dave"]);
    custody.act(&["remove-reader", "erin"]);
    custody.act(&["revoke-gateway", "novaseq"]);
    took.push(soon("removed", &dave, || shown(&dave).is_empty()));
    other.goes_on_alone(&dave, "run number two");
    took.push(soon("removed", &erin, || shown(&erin).is_empty()));
    later.goes_on_alone(&erin, "a later run");
    assert_eq!(custody.site.status(&dave.at)["custody"]["lost"], "it was removed");
    dave.logged("reads nothing any more: it was removed", 1);

    gateway.logged("this gateway was revoked", 1);
    gateway.logged("alarm revoked raised", 1);
    assert_eq!(custody.site.status(&gateway.at)["custody"]["revoked"], true);
    let refused = fs::create_dir(gateway.path("another run")).expect_err("nothing that it makes counts");
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    assert_eq!(fs::read(gateway.path("a later run/more")).expect("what is open stays"), b"more");
    took.sort();
    assert!(took[took.len() / 2] < PROMISED, "{took:?}");
    drop((in_use, other, later));
    for mount in [dave, erin, gateway] {
        mount.unmount();
    }
}

#[test]
fn an_owners_mount_has_the_newest_key_and_a_readers_time_ends_by_itself() {
    let custody = Custody::of_one_owner();
    let gateway = custody.gateway();
    let one = custody.sealed(&gateway, "run one");
    let owner =
        || custody.site.builder().state(&custody.site.dir().join("owner")).at(&custody.site.dir().join("at"));
    // Known from the index, and not looked into.
    owner().arg("--read-only").mount().unmount();
    let owner = owner().arg("--read-only").mount();
    assert_eq!(shown(&owner), ["run one"]);

    let key = custody.named_key("dave");
    let in_seconds = |more: u64| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs();
        runvault_format::time::text(now + more)
    };
    custody.act(&["add-reader", &key, "--expires", &in_seconds(3600)]);
    custody.act(&["grant", &one, "dave"]);
    let dave = custody.reader("dave");
    assert_eq!(shown(&dave), ["run one"]);
    let in_use = InUse::begin(&dave, "run one");
    let until = in_seconds(4);
    custody.act(&["add-reader", &key, "--expires", &until]);

    for _ in 0..2 {
        custody.act(&["rotate"]);
    }
    assert!(fs::read(owner.path("run one/Data/large")).expect("a known run") == content("run one"));
    custody.sealed(&gateway, "run number two");
    soon("a run of the newest key", &owner, || shown(&owner) == ["run number two", "run one"]);
    assert!(fs::read(owner.path("run number two/Data/large")).expect("read") == content("run number two"));

    soon("its time is over", &dave, || shown(&dave).is_empty());
    in_use.goes_on_alone(&dave, "run one");
    dave.logged(&format!("reads nothing any more: its time is over since {until}"), 1);
    let said = run(Command::new(runvault()).arg("status").arg(&dave.at));
    assert!(printed(&said).contains("its time is over since"), "{}", printed(&said));
    assert_eq!(shown(&owner).len(), 2);
    drop(in_use);
    for mount in [dave, owner, gateway] {
        mount.unmount();
    }
}
